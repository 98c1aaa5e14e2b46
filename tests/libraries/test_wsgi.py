"""WSGI applications as gunicorn calls them: bare ones, and frameworks behind middleware."""

from collections.abc import Callable

import pytest
from support.otlp import children, find

from .conftest import Program, Upstream
from .django_program import APP as DJANGO
from .django_program import STREAM as DJANGO_STREAM
from .flask_program import APP as FLASK
from .wsgi_program import ENVIRON

Run = Callable[..., Program]

IDS = f"{'7' * 32}-{'8' * 16}"

# `call(path, application, …)` sends one request as gunicorn's worker would into what gunicorn makes of an application.
SERVED = """
from gunicorn.app.base import BaseApplication
def call(path, application, method="GET", **more):
    class Server(BaseApplication):
        def load_config(self): pass
        def load(self): return application
    return exchange(Server().wsgi(), environ(path, method, **more))
"""
BARE = ENVIRON + SERVED

# Middleware, each as it is often written.
MIDDLEWARE = """
def plain(inner):
    return lambda environ, start_response: inner(environ, start_response)
def generator(inner):
    def call(environ, start_response):
        body = inner(environ, start_response)
        try:
            yield from body
        finally:
            if hasattr(body, "close"): body.close()
    return call
def reader(inner):
    def call(environ, start_response):
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read())
        return inner(environ, start_response)
    return call
def copier(inner):
    return lambda environ, start_response: inner(dict(environ), start_response)
"""


BEHIND = {
    "flask": FLASK
    + """
import sqlite3
@app.post("/items/<item>")
def item(item):
    sqlite3.connect(":memory:").execute("select 1")
    return "1"
""",
    "django": DJANGO
    + """
app = handler()
url("items/<int:item>", query)
""",
}


@pytest.mark.parametrize("framework", BEHIND)
@pytest.mark.parametrize("middleware", ["plain", "generator", "reader", "copier"])
def test_a_request_behind_middleware_is_one_span_of_the_framework(
    program: Run, framework: str, middleware: str
) -> None:
    code = (
        BEHIND[framework]
        + SERVED
        + MIDDLEWARE
        + f"""
for caller in (None, "00-{IDS}-01", "00-{IDS}-00"):
    show(call("/items/7", {middleware}(app), "POST", HTTP_TRACEPARENT=caller))
"""
    )
    result = program(code)
    assert result.shown == [[200, "1"]] * 3
    spans = find(result.spans, kind="server", scope=f"remora.{framework}")
    assert [(span["http.response.status_code"], span.parent_id) for span in spans] == [
        (200, None),
        (200, "8" * 16),
    ]
    assert all(span["http.route"].startswith("/items/<") for span in spans)
    assert [len(children(result.spans, span)) for span in spans] == [1, 1]
    # The third request is not sampled, nor is what it does.
    assert len([span for span in result.spans if span.trace_id == "7" * 32]) == 2


def test_middleware_that_is_a_generator_may_call_others_in_a_request(program: Run) -> None:
    """What it calls with another `environ` is another request."""
    code = (
        FLASK
        + SERVED
        + MIDDLEWARE
        + """
@app.get("/<path>")
def view(path): return path
def both(inner):
    def middleware(environ, start_response):
        yield app.test_client().get("/inner").data
        yield from inner(environ, start_response)
    return middleware
show(call("/outer", both(app)))
"""
    )
    result = program(code)
    assert result.shown == [[200, "innerouter"]]
    inner, outer = sorted(find(result.spans, kind="server"), key=lambda span: span["url.path"])
    assert inner.parent_id == outer.span_id
    assert (inner.scope, outer.scope) == ("remora.flask", "remora.flask")


STREAM = (
    BARE
    + """
import requests
def application(environ, start_response):
    start_response("200 OK", [])
    def body():
        for n in "ab":
            requests.get(f"{URL}/{n}")
            yield n.encode()
    return body()
"""
)


def test_the_body_of_an_unsampled_request_stays_in_the_caller_s_trace(
    program: Run, upstream: Upstream
) -> None:
    code = STREAM + f"show(call('/', application, HTTP_TRACEPARENT='00-{IDS}-00'))"
    result = program(code)
    assert result.shown == [[200, "ab"]]
    assert result.spans == []
    assert upstream.paths() == ["/a", "/b"]
    assert {(one.trace_id, one.sampled) for one in upstream.received} == {("7" * 32, False)}


@pytest.mark.parametrize("flags", ["00", "01"])
def test_the_body_of_an_excluded_request_hangs_below_its_caller(
    program: Run, upstream: Upstream, flags: str
) -> None:
    code = STREAM + (
        f"show(call('/health', application, HTTP_TRACEPARENT='00-{IDS}-{flags}'))\n"
        "import remora\n"
        "show(remora.current_trace_id())\n"
    )
    result = program(code, env={"OTEL_PYTHON_WSGI_EXCLUDED_URLS": "health"})
    assert result.shown == [[200, "ab"], None]
    assert [one.trace_id for one in upstream.received] == ["7" * 32] * 2
    parents = [(span.kind, span.parent_id) for span in result.spans]
    assert parents == ([("client", "8" * 16)] * 2 if flags == "01" else [])


def test_flask_s_settings_exclude_what_a_server_s_hook_has_begun(program: Run) -> None:
    code = (
        FLASK
        + SERVED
        + MIDDLEWARE
        + f"""
import sqlite3
def view():
    sqlite3.connect(":memory:").execute("select 1")
    return "x"
app.get("/health")(view)
app.get("/items")(view)
for path in ("/items", "/health"):
    for middleware in (plain, generator):
        show(call(path, middleware(app), HTTP_TRACEPARENT="00-{IDS}-01"))
"""
    )
    result = program(code, env={"OTEL_PYTHON_FLASK_EXCLUDED_URLS": "health"})
    assert result.shown == [[200, "x"]] * 4
    assert [span.name for span in find(result.spans, kind="server")] == ["GET /items"] * 2
    queries = find(result.spans, scope="remora.sqlite3")
    assert [query.parent_id == "8" * 16 for query in queries] == [False, False, True, True]


REPLACED = (
    BARE
    + """
def application(environ, start_response):
    path = environ["PATH_INFO"]
    start_response("500 Oops" if path == "/again" else "200 OK", [])
    def body():
        if path == "/late":
            yield b"a"
        try:
            raise ValueError(path)
        except ValueError:
            start_response("200 OK" if path == "/again" else "503 Oops", [], sys.exc_info())
        yield b"b"
    return body()

def ask(path):
    sent = []
    head = []
    def start_response(status, headers, exc_info=None):
        if exc_info and sent:
            raise exc_info[1]
        assert exc_info or not head
        head[:] = [status]
    class Server(BaseApplication):
        def load_config(self): pass
        def load(self): return application
    body = Server().wsgi()(environ(path), start_response)
    try:
        for piece in body:
            sent.append(piece.decode())
        error = None
    except ValueError as raised:
        error = str(raised)
    finally:
        body.close()
    show(head[0], sent, error)
"""
)


@pytest.mark.parametrize("old_names", [False, True])
def test_the_status_is_that_of_the_head_that_was_sent(program: Run, old_names: bool) -> None:
    code = REPLACED + "for path in ('/late', '/again', '/early'): ask(path)"
    result = program(code, env={"OTEL_SEMCONV_STABILITY_OPT_IN": "http/dup" if old_names else None})
    assert result.shown == [["200 OK", ["a"], "/late"], ["200 OK", ["b"], None], ["503 Oops", ["b"], None]]
    late, again, early = result.spans
    assert (late["http.response.status_code"], late.status, late["error.type"]) == (
        200,
        "error",
        "ValueError",
    )
    assert [event.attributes["exception.message"] for event in late.events] == ["/late"]
    assert (again["http.response.status_code"], again.status, again.get("error.type")) == (200, "unset", None)
    assert (early["http.response.status_code"], early.status, early["error.type"]) == (503, "error", "503")
    for span in result.spans:
        wanted = span["http.response.status_code"] if old_names else None
        assert span.get("http.status_code") == wanted


def test_a_framework_behind_middleware_has_each_old_name_once(program: Run) -> None:
    code = (
        DJANGO_STREAM
        + SERVED
        + MIDDLEWARE
        + "url('plain', query)\nshow([call(path, plain(handler()))[0] for path in ('/plain', '/stream/1', '/none')])"
    )
    result = program(code, env={"OTEL_SEMCONV_STABILITY_OPT_IN": "http/dup"})
    assert result.shown == [[200, 200, 404]]
    spans = find(result.spans, kind="server")
    assert [span["http.status_code"] for span in spans] == [200, 200, 404]


def test_an_error_that_was_answered_stays_what_a_body_that_raises_failed_with(program: Run) -> None:
    code = (
        BARE
        + """
def application(environ, start_response):
    start_response("503 Down", [])
    yield b"a"
    raise ValueError("midway")
try:
    call("/", application)
except ValueError as error:
    show(str(error))
"""
    )
    result = program(code)
    assert result.shown == ["midway"]
    [span] = result.spans
    assert (span["http.response.status_code"], span["error.type"], span.status) == (503, "503", "error")
    assert [event.attributes["exception.message"] for event in span.events] == ["midway"]


def test_a_file_reaches_the_server_in_the_wrapper_that_it_sends_it_by(program: Run) -> None:
    code = (
        BARE
        + """
import os
from gunicorn.http.wsgi import FileWrapper
def app(environ, start_response):
    start_response("200 OK", [])
    return environ["wsgi.file_wrapper"](open(os.devnull, "rb"))
class Server(BaseApplication):
    def load_config(self): pass
    def load(self): return app
body = Server().wsgi()(environ(**{"wsgi.file_wrapper": FileWrapper}), lambda *head: None)
show(type(body) is FileWrapper)
body.close()
"""
    )
    result = program(code)
    assert result.shown == [True]
    assert len(find(result.spans, scope="remora.wsgi")) == 1


def test_a_thread_that_outlives_the_span_it_was_started_under_serves_traces_of_their_own(
    program: Run,
) -> None:
    code = (
        BARE
        + """
import threading
import remora
def app(environ, start_response):
    start_response("200 OK", [])
    return [b"x"]
over = threading.Event()
def serve():
    over.wait(20)
    show(call("/", app))
with remora.span("start-up"):
    thread = threading.Thread(target=serve)
    thread.start()
over.set()
thread.join()
"""
    )
    result = program(code)
    assert result.shown == [[200, "x"]]
    (start_up,), (request,) = find(result.spans, name="start-up"), find(result.spans, scope="remora.wsgi")
    assert request.parent_id is None
    assert request.trace_id != start_up.trace_id
