"""Log records that say which span was in force."""

from collections.abc import Callable

from support.otlp import one
from support.pythons import Python, on_oldest_and_newest

from .conftest import Program

Run = Callable[..., Program]
ON = {"OTEL_PYTHON_LOG_CORRELATION": "true", "OTEL_SERVICE_NAME": "shop"}
SEEN = """
import io, logging
out = io.StringIO()
FORMAT = "%(otelTraceID)s %(otelSpanID)s %(otelServiceName)s %(otelTraceSampled)s %(message)s"
logging.basicConfig(stream=out, format=FORMAT)
log = logging.getLogger("shop")
"""


@on_oldest_and_newest
def test_each_record_carries_the_span_in_force(program: Run, python: Python) -> None:
    code = (
        SEEN
        + """
import remora
log.warning("outside")
with remora.span("work"):
    log.error("inside")
    logging.error("by the root logger")
logging.getLogger("shop.child").critical("outside again")
show(out.getvalue().splitlines())
"""
    )
    result = program(code, python=python, env=ON)
    span = one(result.spans, name="work")
    ids = f"{span.trace_id} {span.span_id} shop True"
    assert result.shown == [
        [
            "0 0 shop False outside",
            f"{ids} inside",
            f"{ids} by the root logger",
            "0 0 shop False outside again",
        ]
    ]


@on_oldest_and_newest
def test_records_of_other_factories_and_what_the_application_sets_itself_stay(
    program: Run, python: Python
) -> None:
    code = (
        SEEN
        + """
class Record(logging.LogRecord):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.otelServiceName = "mine"
logging.setLogRecordFactory(Record)
log.warning("by a factory")
log.warning("by extra", extra={"otelTraceID": "mine too"})
log.handle(logging.makeLogRecord({"msg": "from elsewhere", "levelno": 40, "otelSpanID": "7", "otelTraceID": "8"}))
show(out.getvalue().splitlines())
"""
    )
    result = program(code, python=python, env=ON)
    assert result.shown == [
        ["0 0 mine False by a factory", "mine too 0 mine False by extra", "8 7 mine False from elsewhere"]
    ]


def test_in_an_unsampled_trace_the_ids_are_there_and_say_so(program: Run) -> None:
    code = (
        SEEN
        + """
import flask
app = flask.Flask("x")
@app.get("/")
def view():
    log.error("x")
    return ""
caller = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}
show(app.test_client().get("/", headers=caller).status_code)
show(out.getvalue().splitlines()[0].split())
"""
    )
    result = program(code, env=ON)
    trace_id, span_id, *rest = result.shown[1]
    assert (trace_id, len(span_id)) == ("0af7651916cd43dd8448eb211c80319c", 16)
    assert rest == ["shop", "False", "x"]
    assert result.spans == []


def test_off_it_wraps_nothing_and_records_are_as_without_us(program: Run) -> None:
    code = """
import logging
show(sorted(name for name in vars(logging.makeLogRecord({})) if name.startswith("otel")))
show(type(logging.Logger.__dict__["handle"]).__name__)
import remora
show(remora.status()["hooks"]["logging"]["state"])
"""
    assert program(code).shown == [[], "function", "disabled"]


def test_odd_records_are_handled_as_without_us(program: Run) -> None:
    code = """
import logging
class Slots:
    __slots__ = ()
class Odd:
    def __getattr__(self, name): raise RuntimeError(name)
log = logging.Logger("x")
log.filter = lambda record: False
for record in (None, 5, Slots(), Odd()):
    show(log.handle(record))
log.handle(record=logging.makeLogRecord({}))
"""
    assert program(code, env=ON).shown == [None] * 4


def test_a_record_made_while_urllib3_sends_carries_the_request_s_span(program: Run) -> None:
    code = (
        SEEN
        + """
import urllib3
logging.getLogger("urllib3.connectionpool").setLevel(logging.DEBUG)
urllib3.PoolManager().request("GET", URL)
show([line.split()[:2] for line in out.getvalue().splitlines() if "GET" in line])
"""
    )
    result = program(code, env=ON)
    span = one(result.spans, kind="client")
    assert result.shown == [[[span.trace_id, span.span_id]]]
