"""Django under ASGI: one SERVER span for each request, whatever runs in threads."""

import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from support.otlp import children, find
from support.process import Service
from support.pythons import Python, on_oldest_and_newest, on_releases

from .conftest import Program
from .django_program import APP, selects, servers
from .expected import of_server

Run = Callable[..., Program]

# `ask(path, …)` sends one request into an ASGI handler and gives status and body, or the exception.
ASGI = (
    APP
    + """
import asyncio, sqlite3
from asgiref.sync import async_to_sync, sync_to_async
from django.core.handlers.asgi import ASGIHandler
asgi = ASGIHandler()

async def request(path="/", method="GET", application=None, leave=False, headers=(), **more):
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": [(b"host", b"shop.test:8000"), *headers],
        "client": ("192.0.2.7", 4711), "server": ("127.0.0.1", 8080), **more,
    }
    sent, waiting = [], asyncio.Event()
    messages = [{"type": "http.request", "body": b"", "more_body": False}]
    async def receive():
        if messages:
            return messages.pop(0)
        await waiting.wait()
        return {"type": "http.disconnect"}
    async def send(message):
        sent.append(message)
        if leave and message["type"] == "http.response.body":
            waiting.set()
            await asyncio.sleep(0.05)
    await (application or asgi)(scope, receive, send)
    return sent[0]["status"], b"".join(one.get("body", b"") for one in sent[1:]).decode()

def ask(path="/", method="GET", **more):
    return asyncio.run(request(path, method, **more))

class Broken(Exception): pass
async def native(request, x):
    await asyncio.sleep(0)
    sqlite3.connect(":memory:").execute("select 2")
    return await sync_to_async(query)()
def broken(request): raise Broken("sync")
async def abroken(request): raise Broken("async")
def missing(request): raise Http404("none")
def stream(request):
    def pieces():
        for n in range(2):
            sqlite3.connect(":memory:").execute("select 2")
            yield f"{n}"
    return StreamingHttpResponse(pieces())
url("native/<int:x>", native)
url("sync", query)
url("stream", stream)
for view in (broken, abroken, missing): url(view.__name__, view)
"""
)


@on_oldest_and_newest
def test_a_request_is_one_server_span_with_the_stable_attributes(program: Run, python: Python) -> None:
    code = (
        ASGI
        + """
show(ask("/native/7", query_string=b"sig=secret&b=c", root_path="",
         headers=[(b"user-agent", b"tests/1.0"), (b"traceparent", b"00-" + b"7" * 32 + b"-" + b"8" * 16 + b"-01")]))
import inspect
show(inspect.iscoroutinefunction(ASGIHandler.__call__))
"""
    )
    result = program(code, python=python)
    assert result.shown == [[200, "1"], True]
    [span] = servers(result)
    assert (span.name, span.status, span.parent_id) == ("GET /native/<int:x>", "unset", "8" * 16)
    assert span.attributes == of_server("/native/7", "/native/<int:x>")
    assert len(selects(result, span)) == 2


STATUSES = (
    ASGI
    + """
show([ask(path)[0] for path in ("/sync", "/broken", "/abroken", "/missing", "/nowhere")], ask("/stream"))
async def together():
    return await asyncio.gather(*(request(f"/native/{n}") for n in range(5)))
show([status for status, body in asyncio.run(together())])
"""
)


def check_statuses(result: Program) -> None:
    # Django warns of synchronous pieces; nothing else is said.
    assert result.agent_lines == []
    assert result.shown == [[[200, 500, 500, 404, 404], [200, "01"]], [200] * 5]
    spans = servers(result)
    assert [span["http.response.status_code"] for span in spans] == [200, 500, 500, 404, 404, *[200] * 6]
    assert [span.get("http.route") for span in spans][:6] == [
        "/sync",
        "/broken",
        "/abroken",
        "/missing",
        None,
        "/stream",
    ]
    assert [span.status for span in spans] == ["unset", "error", "error", *["unset"] * 8]
    assert [[event.attributes["exception.message"] for event in span.events] for span in spans][:5] == [
        [],
        ["sync"],
        ["async"],
        [],
        [],
    ]
    assert [len(selects(result, span)) for span in spans] == [1, 0, 0, 0, 0, 2, *[2] * 5]
    assert len({span.trace_id for span in spans}) == 11


@on_oldest_and_newest
def test_sync_and_async_views_streams_and_errors(program: Run, python: Python) -> None:
    check_statuses(program(STATUSES, python=python, quiet=False))


@on_releases("old", "middle")
def test_old_releases_give_the_same_spans(program: Run, python: Python) -> None:
    check_statuses(program(STATUSES, python=python, quiet=False))


def test_streams_of_async_iterators_and_clients_that_leave(program: Run) -> None:
    code = (
        ASGI
        + """
left = []
async def pieces(count):
    try:
        for n in range(count):
            await sync_to_async(query)()
            yield f"{n}"
    finally:
        left.append(count)
url("pieces/<int:count>", lambda request, count: StreamingHttpResponse(pieces(count)))
show(ask("/pieces/3"), ask("/pieces/100", leave=True)[0], left)
"""
    )
    result = program(code)
    assert result.shown == [[[200, "012"], 200, [3, 100]]]
    whole, cut = servers(result)
    assert len(selects(result, whole)) == 3
    assert [span.status for span in (whole, cut)] == ["unset", "unset"]
    assert children(result.spans, cut) != []


def test_uvicorn_serves_one_span_a_request(service: Callable[..., Service], tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(ASGI.replace("__main__", "shop"))
    server = service(
        [sys.executable, "-m", "uvicorn", "--port={port}", "shop:asgi"],
        cwd=tmp_path,
        env={"OTEL_BSP_SCHEDULE_DELAY": "50"},
    )
    for path in ("sync", "native/4"):
        with urllib.request.urlopen(f"{server.url}/{path}") as answer:
            assert answer.read() == b"1"
    # Uvicorn ends by its own SIGTERM.
    end = time.monotonic() + 20
    while len(find(server.spans, scope="remora.django")) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    spans = servers(server.stop())
    assert [span.name for span in spans] == ["GET /sync", "GET /native/<int:x>"]
    assert {span.parent_id for span in spans} == {None}


def test_nothing_is_made_where_nothing_is_sampled_and_settings_are_heeded(program: Run) -> None:
    code = (
        ASGI
        + """
show(ask("/sync")[0], ask("/native/1")[0])
"""
    )
    result = program(code, env={"OTEL_TRACES_SAMPLER": "parentbased_always_off"})
    assert (result.shown, result.spans) == ([[200, 200]], [])
    env = {
        "OTEL_PYTHON_DJANGO_EXCLUDED_URLS": "sync$",
        "OTEL_PYTHON_DJANGO_TRACED_REQUEST_ATTRS": "path_info",
    }
    result = program(code, env=env)
    [span] = servers(result)
    assert (span.name, span["path_info"]) == ("GET /native/<int:x>", "/native/1")
