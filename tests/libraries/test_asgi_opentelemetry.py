"""An application that brings OpenTelemetry's own instrumentation of ASGI: its spans stay its own, ours is one."""

from collections.abc import Callable

import pytest
from support.otlp import one

from .asgi_program import FASTAPI, servers
from .conftest import Program

Run = Callable[..., Program]

# `theirs()` gives name, kind and trace id of the spans that OpenTelemetry's SDK has made.
SDK = (
    FASTAPI
    + """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
memory = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(memory))
trace.set_tracer_provider(provider)
def theirs():
    return [[span.name, span.kind.name, f"{span.context.trace_id:032x}"] for span in memory.get_finished_spans()]
sub = FastAPI()
@sub.get("/deep/{k}")
async def deep(k: str):
    query()
    return k
@app.get("/items/{item}")
async def item(item: int):
    query()
    return item
app.mount("/sub/{s}", sub)
"""
)
WAYS = {
    "instrumentor": """
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
FastAPIInstrumentor.instrument_app(app)
""",
    "middleware": """
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
app.add_middleware(OpenTelemetryMiddleware)
""",
    "around": """
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
app = OpenTelemetryMiddleware(app)
""",
    "starlette": """
from starlette.middleware.opentelemetry import OpenTelemetryMiddleware
app.add_middleware(OpenTelemetryMiddleware)
""",
    "fastapi": "",
}


@pytest.mark.parametrize("way", WAYS)
def test_the_applications_own_spans_and_ours_are_one_each(program: Run, way: str) -> None:
    code = (
        SDK
        + WAYS[way]
        + """
parent = [(b"traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01")]
show(call(app, "/items/7", headers=parent), call(app, "/sub/1/deep/2", headers=parent))
show([made for made in theirs() if made[1] == "SERVER"])
"""
    )
    result = program(code)
    bare = program(code, env={"REMORA_ENABLED": "false"})
    assert result.shown == bare.shown
    statuses, own = result.shown
    assert statuses == [[200], [200]]
    assert {trace_id for _, _, trace_id in own} == {"a" * 32}
    first, second = servers(result)
    assert (first.name, second.name) == ("GET /items/{item}", "GET /sub/{s}/deep/{k}")
    for span in (first, second):
        assert (span.scope, span.trace_id, span.parent_id) == ("remora.fastapi", "a" * 32, "b" * 16)
        assert one(result.spans, scope="remora.sqlite3", parent_id=span.span_id)


def test_an_instrumentor_that_replaces_the_class_leaves_one_span_of_ours(program: Run) -> None:
    code = (
        """
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
FastAPIInstrumentor().instrument()
"""
        + SDK
        + """
show(call(app, "/items/7"), call(app, "/items/x"))
FastAPIInstrumentor().uninstrument()
show(call(app, "/items/7"))
"""
    )
    result = program(code)
    assert result.shown == [[[200], [422]], [200]]
    assert [span.name for span in servers(result)] == ["GET /items/{item}"] * 3
