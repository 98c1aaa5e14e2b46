"""Excluded URLs, captured headers and the old attribute names: what the operator adds to HTTP and database spans."""

from collections.abc import Callable

import pytest
from support.otlp import find, one

from .conftest import Program, Upstream
from .flask_program import APP, servers

Run = Callable[..., Program]

CAPTURE = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_"
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

PAGES = (
    APP
    + """
import requests
@app.get("/health")
def health():
    return "well"
@app.get("/shop/<item>")
def item(item):
    return item
@app.get("/calls/<path:path>")
def calls(path):
    return str(requests.get(f"{URL}/{path}").status_code)
"""
)


@pytest.mark.parametrize(
    "env",
    [
        {"OTEL_PYTHON_EXCLUDED_URLS": "nothing, health$"},
        {"OTEL_PYTHON_FLASK_EXCLUDED_URLS": "^http://shop.test:8000/hea.th$"},
        # Its own variable counts alone.
        {"OTEL_PYTHON_EXCLUDED_URLS": "/shop", "OTEL_PYTHON_FLASK_EXCLUDED_URLS": "health"},
    ],
)
def test_an_excluded_request_to_flask_has_no_span(program: Run, env: dict[str, str]) -> None:
    result = program(PAGES + "show(call('/health')); show(call('/shop/pen'))", env=env)
    assert result.shown == [[200, "well"], [200, "pen"]]
    [span] = result.spans
    assert span["url.path"] == "/shop/pen"


def test_patterns_see_mount_point_and_query_as_they_came(program: Run) -> None:
    code = PAGES + (
        "call('/shop/a', SCRIPT_NAME='/mounted', QUERY_STRING='sig=secret')\n"
        "call('/shop/b', HTTP_HOST=None)\n"
        "call('/shop/c')\n"
    )
    env = {
        "OTEL_PYTHON_FLASK_EXCLUDED_URLS": r"/mounted/shop/a\?sig=secret, ^http://server\.test:8080/shop/b$"
    }
    [span] = servers(program(code, env=env))
    assert span["url.path"] == "/shop/c"


def test_what_an_excluded_request_does_hangs_below_its_caller(program: Run, upstream: Upstream) -> None:
    code = PAGES + f"show(call('/calls/status/200', HTTP_TRACEPARENT='{CALLER}', HTTP_TRACESTATE='a=b'))"
    result = program(code, env={"OTEL_PYTHON_FLASK_EXCLUDED_URLS": "/calls"})
    assert result.shown == [[200, "200"]]
    [span] = result.spans
    assert (span.kind, span.trace_id, span.parent_id) == ("client", *CALLER.split("-")[1:3])
    [received] = upstream.received
    assert (received.trace_id, received.span_id) == (span.trace_id, span.span_id)
    assert received.headers["tracestate"] == "a=b"


def test_an_unsampled_caller_of_an_excluded_request_stays_unsampled(program: Run, upstream: Upstream) -> None:
    caller = CALLER[:-1] + "0"
    code = PAGES + f"show(call('/calls/status/200', HTTP_TRACEPARENT='{caller}'))"
    result = program(code, env={"OTEL_PYTHON_FLASK_EXCLUDED_URLS": "/calls"})
    assert result.spans == []
    [received] = upstream.received
    assert (received.trace_id, received.sampled) == (CALLER.split("-")[1], False)


@pytest.mark.parametrize("flags", ["00", "01"])
def test_so_does_its_body_while_it_is_made(program: Run, upstream: Upstream, flags: str) -> None:
    caller = CALLER[:-2] + flags
    code = PAGES + (
        "@app.get('/stream')\n"
        "def stream(): return app.response_class(calls(path) for path in 'ab')\n"
        f"show(call('/stream', HTTP_TRACEPARENT='{caller}'))\n"
        "import remora\n"
        "show(remora.current_trace_id())\n"
    )
    result = program(code, env={"OTEL_PYTHON_FLASK_EXCLUDED_URLS": "/stream"})
    assert result.shown == [[200, "200200"], None]
    assert [one.trace_id for one in upstream.received] == [CALLER.split("-")[1]] * 2
    parents = [(span.kind, span.parent_id) for span in result.spans]
    assert parents == ([("client", CALLER.split("-")[2])] * 2 if flags == "01" else [])


def test_after_an_excluded_request_nothing_of_it_is_in_force(program: Run) -> None:
    code = PAGES + (
        "import remora\n"
        f"call('/health', HTTP_TRACEPARENT='{CALLER}')\n"
        "show(remora.current_trace_id())\n"
        "call('/shop/pen')\n"
    )
    result = program(code, env={"OTEL_PYTHON_FLASK_EXCLUDED_URLS": "health"})
    assert result.shown == [None]
    [span] = result.spans
    assert span.parent_id is None
    assert span.trace_id != CALLER.split("-")[1]


def test_an_excluded_request_of_requests_has_no_span_and_no_header(program: Run, upstream: Upstream) -> None:
    code = """
        import requests
        def work():
            requests.get(URL + "/hidden/1?a=b")
            requests.get(URL + "/seen")
        job(work)
    """
    result = program(code, env={"OTEL_PYTHON_REQUESTS_EXCLUDED_URLS": r"/hidden/\d\?a=b"})
    [client] = find(result.spans, kind="client")
    assert client["url.full"] == upstream.url + "/seen"
    hidden, seen = upstream.received
    assert "traceparent" not in hidden.headers
    assert seen.span_id == client.span_id
    assert client.parent_id == one(result.spans, kind="server").span_id


def test_an_excluded_hop_of_a_redirect_has_no_span(program: Run, upstream: Upstream) -> None:
    code = "import requests; show(requests.get(URL + '/redirect/2').status_code)"
    result = program(code, env={"OTEL_PYTHON_EXCLUDED_URLS": "/redirect/1"})
    assert result.shown == [200]
    first, last = find(result.spans, kind="client")
    assert [span["url.full"].rpartition("/")[2] for span in (first, last)] == ["2", "0"]
    # What is excluded goes out as the application made it.
    carried = [one.headers.get("traceparent", "").rpartition("-")[0][-16:] for one in upstream.received]
    assert carried == [first.span_id, "", last.span_id]


def test_a_pattern_that_is_none_is_said_once_and_left_out(program: Run) -> None:
    env = {
        "OTEL_PYTHON_EXCLUDED_URLS": "(, health",
        CAPTURE + "SERVER_REQUEST": "x-[,x-shown",
    }
    code = PAGES + "call('/health'); call('/shop/pen', HTTP_X_SHOWN='1'); call('/shop/pen')"
    result = program(code, env=env, quiet=False)
    urls, headers = result.stderr.splitlines()
    assert urls.startswith("remora: OTEL_PYTHON_EXCLUDED_URLS: ( is left out: no regular expression")
    assert headers.startswith(f"remora: {CAPTURE}SERVER_REQUEST: x-[ is left out: no regular expression")
    first, second = servers(result)
    assert first["http.request.header.x-shown"] == ["1"]
    assert "http.request.header.x-shown" not in second.attributes


def test_nothing_is_compiled_before_the_first_request(program: Run) -> None:
    env = {"OTEL_PYTHON_EXCLUDED_URLS": "(", CAPTURE + "SERVER_REQUEST": "["}
    program("import flask; flask.Flask('idle')", env=env)


def headers_of(attributes: dict[str, object], which: str) -> dict[str, object]:
    start = f"http.{which}.header."
    return {name.removeprefix(start): value for name, value in attributes.items() if name.startswith(start)}


def test_headers_of_flask_are_captured_by_whole_name_in_any_case(program: Run) -> None:
    code = (
        APP
        + """
@app.post("/")
def view():
    response = flask.Response("x", headers={"X-Made-By": "tests", "X-Other": "o"})
    response.headers.add("X-Many", "1")
    response.headers.add("x-many", "2")
    response.set_cookie("session", "secret")
    return response
@app.after_request
def after(response):
    response.headers["X-After"] = "late"
    return response
call("/", "POST", HTTP_X_CUSTOM="caf\\u00c3\\u00a9", HTTP_X_CUSTOM_NOT="no", HTTP_AUTHORIZATION="secret",
     CONTENT_TYPE="text/plain", HTTP_X_TOKEN="secret", HTTP_ACCEPT="any")
"""
    )
    env = {
        CAPTURE + "SERVER_REQUEST": "x-Custom,content-.*,AUTHORIZATION,x-token,.ccep.",
        CAPTURE + "SERVER_RESPONSE": "x-m.*,set-cookie,x-after",
        CAPTURE + "SANITIZE_FIELDS": ".*token",
    }
    [span] = servers(program(code, env=env))
    assert headers_of(span.attributes, "request") == {
        "x-custom": ["café"],
        "content-type": ["text/plain"],
        "authorization": ["[REDACTED]"],
        "x-token": ["[REDACTED]"],
        "accept": ["any"],
    }
    assert headers_of(span.attributes, "response") == {
        "x-made-by": ["tests"],
        "x-many": ["1", "2"],
        "set-cookie": ["[REDACTED]"],
        "x-after": ["late"],
    }


def test_headers_of_requests_are_captured(program: Run) -> None:
    code = """
        import requests
        headers = {"X-Asked": "1", "Cookie": "secret", "X-Api-Key": b"secret", "X-Bytes": b"2"}
        requests.get(URL + "/redirect/0", headers=headers)
    """
    env = {CAPTURE + "CLIENT_REQUEST": "x-.*,cookie", CAPTURE + "CLIENT_RESPONSE": "content-length"}
    [span] = program(code, env=env).spans
    assert headers_of(span.attributes, "request") == {
        "x-asked": ["1"],
        "cookie": ["[REDACTED]"],
        "x-api-key": ["[REDACTED]"],
        "x-bytes": ["2"],
    }
    assert headers_of(span.attributes, "response") == {"content-length": ["2"]}


def test_headers_that_cannot_be_read_change_nothing(program: Run) -> None:
    code = (
        APP
        + """
from werkzeug.datastructures import Headers
class Odd(Headers):
    def items(self, *args, **kwargs):
        yield from [1, ("a",), (2, 3), ("x-a", 4)]
        raise ValueError("odd")
class Response(flask.Response):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.headers = Odd(self.headers)
app.response_class = Response
@app.get("/")
def view():
    return "x"
show(call("/", HTTP_X_A="\\udc80", HTTP_X_B=7))
"""
    )
    env = {CAPTURE + "SERVER_REQUEST": "x-.", CAPTURE + "SERVER_RESPONSE": ".*"}
    result = program(code, env=env)
    assert result.shown == [[200, "x"]]
    assert len(servers(result)) == 1


def added_by(convention: str, program: Run, code: str) -> dict[str, object]:
    """What opting in adds to the last span that the code makes; nothing of it is gone."""
    plain = max(program(code).spans, key=lambda span: span.start)
    old = program(code, env={"OTEL_SEMCONV_STABILITY_OPT_IN": convention})
    span = max(old.spans, key=lambda span: span.start)
    assert (span.name, span.kind) == (plain.name, plain.kind)
    assert set(plain.attributes) <= set(span.attributes)
    return {name: value for name, value in span.attributes.items() if name not in plain.attributes}


def test_old_names_of_a_server_span_stand_beside_the_stable_ones(program: Run) -> None:
    code = PAGES + "call('/shop/pen', QUERY_STRING='sig=secret&b=c', HTTP_USER_AGENT='tests/1.0')"
    assert added_by("http/dup", program, code) == {
        "http.method": "GET",
        "http.scheme": "http",
        "http.host": "shop.test:8000",
        "http.target": "/shop/pen?sig=REDACTED&b=c",
        "http.flavor": "1.1",
        "http.user_agent": "tests/1.0",
        "http.status_code": 200,
        "net.host.name": "shop.test",
        "net.host.port": 8000,
        "net.peer.ip": "192.0.2.7",
        "net.peer.port": 4711,
    }


def test_old_names_of_a_client_span_stand_beside_the_stable_ones(program: Run, upstream: Upstream) -> None:
    code = "import requests; requests.get(URL.replace('//', '//user:word@') + '/status/404')"
    assert added_by("http/dup", program, code) == {
        "http.method": "GET",
        "http.url": f"http://REDACTED:REDACTED@127.0.0.1:{upstream.port}/status/404",
        "http.flavor": "1.1",
        "http.status_code": 404,
        "net.peer.name": "127.0.0.1",
        "net.peer.port": upstream.port,
    }


def test_old_names_of_a_database_span_stand_beside_the_stable_ones(program: Run) -> None:
    code = """
        import os, sqlite3, tempfile
        with tempfile.TemporaryDirectory() as folder:
            db = sqlite3.connect(os.path.join(folder, "shop.db"))
            db.execute("create table item (id integer)")
            db.execute("select id from item where id = 7")
    """
    assert added_by("database/dup", program, code) == {
        "db.system": "sqlite",
        "db.name": "shop.db",
        "db.statement": "select id from item where id = ?",
        "db.operation": "select",
    }


@pytest.mark.parametrize("convention", ["http", "database", "http,database", "database/dup"])
def test_only_the_convention_that_was_opted_into_gets_old_names(program: Run, convention: str) -> None:
    code = "import requests; requests.get(URL + '/seen')"
    assert added_by(convention, program, code) == {}
