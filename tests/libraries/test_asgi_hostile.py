"""Scopes and headers as nobody should send them, and what the operator adds to ASGI spans: nothing of it breaks an application."""

from collections.abc import Callable

import pytest
from support.otlp import find, one

from .asgi_program import CALL, FASTAPI, servers
from .conftest import Program, Upstream

Run = Callable[..., Program]

CAPTURE = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_"
STARLETTE = (
    CALL
    + """
import collections
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
async def seen(request):
    return PlainTextResponse("x")
app = Starlette(routes=[Route("/{path:path}", seen)])
async def plain(scope, receive, send):
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})
# As a server calls it that knows nothing of the application.
import uvicorn
config = uvicorn.Config(plain, proxy_headers=False)
config.load()
bare = config.loaded_app
"""
)
PARENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"00",
        b"\xff\xfe",
        b"00-" + b"0" * 32 + b"-" + b"b" * 16 + b"-01",
        b"00-" + b"a" * 32 + b"-" + b"0" * 16 + b"-01",
        b"ff-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01",
        b"00-" + b"A" * 32 + b"-" + b"b" * 16 + b"-01",
        b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01-more",
        b"00-" + b"a" * 31 + b"\x00-" + b"b" * 16 + b"-01",
        b"00-" + b"a" * 1_000_000,
    ],
    ids=range(10),
)
def test_a_traceparent_that_is_none_begins_a_trace(program: Run, value: bytes) -> None:
    code = (
        STARLETTE
        + f"show(call(app, headers=[(b'traceparent', {value[:100]!r} + b'a' * {len(value[100:])})]))"
    )
    result = program(code)
    assert result.shown == [[200]]
    span = one(servers(result))
    assert span.parent_id is None
    assert span.trace_id != "a" * 32


def test_headers_of_any_bytes_and_size_are_read_or_left(program: Run) -> None:
    code = STARLETTE + (
        f"traced = (b'traceparent', b'{PARENT}')\n"
        + """
big = b"v" * 2**20
show(call(app, headers=[traced, (b"user-agent", b"\\xff\\xfe\\x00x"), (b"x-forwarded-for", b"\\xff"),
                        (b"forwarded", b'for="\\xe9";host=\\xe9'), (b"x-forwarded-proto", b"\\xff")]))
show(call(app, headers=[(b"tracestate", big), (b"baggage", big), traced, (b"x-big", big), (b"forwarded", big),
                        (b"x-forwarded-for", big), (b"x-forwarded-host", big), (b"x-forwarded-proto", big)]))
show(call(app, headers=[traced, *((b"x-%d" % n, b"") for n in range(10_000))]))
"""
    )
    result = program(code)
    assert result.shown == [[200]] * 3
    odd, big, many = servers(result)
    assert {(span.trace_id, span.parent_id) for span in (odd, big, many)} == {("a" * 32, "b" * 16)}
    assert odd["client.address"] == "192.0.2.7"
    assert odd["server.address"] == "shop.test"
    assert many["server.address"] == "shop.test"


def test_of_headers_with_one_name_the_first_counts(program: Run) -> None:
    code = (
        STARLETTE
        + f"""
other = b"00-" + b"c" * 32 + b"-" + b"d" * 16 + b"-01"
show(call(app, headers=[(b"traceparent", b"{PARENT}"), (b"traceparent", other), (b"host", b"second.test"),
                        (b"user-agent", b"second/2")]))
"""
    )
    span = one(servers(program(code)))
    assert (span.trace_id, span.parent_id) == ("a" * 32, "b" * 16)
    assert (span["server.address"], span["user_agent.original"]) == ("shop.test", "tests/1.0")


def test_lists_that_are_sent_in_several_lines_are_one(program: Run, upstream: Upstream) -> None:
    code = (
        FASTAPI
        + f"""
import requests
@app.get("/x")
def x(): requests.get(URL)
own = (b"traceparent", b"{PARENT}")
show(call(app, "/x", headers=[own, (b"tracestate", b"a=1"), (b"baggage", b"k=1"), (b"tracestate", b"b=2, c=3"),
    (b"Baggage", b"l=2"), (b"baggage", b"m=3")]), call(app, "/x", headers=[own, (b"baggage", b"k=1")] * 2))
"""
    )
    first, second = servers(program(code))
    assert (first.trace_id, first.trace_state, second.trace_state) == ("a" * 32, "a=1,b=2,c=3", "")
    assert [one.headers.get("tracestate") for one in upstream.received] == ["a=1,b=2,c=3", None]
    assert [one.headers["baggage"] for one in upstream.received] == ["k=1,l=2,m=3", "k=1,k=1"]


def test_an_url_of_any_size_and_bytes_is_recorded(program: Run) -> None:
    code = (
        STARLETTE
        + """
show(call(app, "/" + "p" * 10 * 2**20, query=b"q=" + b"\\xff" * 10 * 2**20))
show(call(bare, "/\\udcff\\ud800/\\u0000", query=b"sig=\\xff&\\x00=\\n", raw_path=None))
show(call(bare, "", query=b"?"), call(bare, "no-slash", query="text"), call(bare, "//other.test/x"))
"""
    )
    result = program(code)
    assert result.shown == [[200], [204], [[204]] * 3]
    huge, odd, empty, relative, double = servers(result)
    assert huge["url.path"].startswith("/ppp")
    assert "REDACTED" in odd["url.query"]
    assert "\xff" not in odd["url.query"]
    assert (empty["url.path"], relative.get("url.query"), double["url.path"]) == ("/", None, "//other.test/x")


# Each with what the framework itself makes of it, so that only what concerns us is looked at.
SCOPES = """
class Text(str): pass
class Scope(dict): pass
class Missing(collections.defaultdict): pass
class Shy(dict):
    def __getitem__(self, key): raise RuntimeError(key)
    def get(self, *args): raise RuntimeError(args)
class Raises:
    def __getattr__(self, name): raise RuntimeError(name)
    def __iter__(self): raise RuntimeError("iter")
    def __len__(self): raise RuntimeError("len")
    def __bool__(self): raise RuntimeError("bool")
    def __eq__(self, other): raise RuntimeError("eq")
    __hash__ = None
raises = Raises()
pairs = [(b"host", b"other.test"), (b"traceparent", TRACED)]
oddities = [
    *({key: value} for key in ("headers", "client", "server", "path", "query_string", "http_version", "scheme",
                               "root_path", "raw_path", "asgi", "method", "state", "app", "extensions")
      for value in (None, 7, b"bytes", "text", [], (), {}, raises, [raises], [None, ()], ("h", -1), ("h", 2**70),
                    ["h"], [b"h", b"p"], [(1, 2), (b"host",), "ab", [b"host", None]])),
    {"headers": tuple(pairs)}, {"headers": [list(pair) for pair in pairs]}, {"headers": iter(pairs)},
    {"headers": (pair for pair in pairs)}, {"headers": dict(pairs)}, {"headers": {b"host": b"x"}.items()},
    {"headers": [(bytearray(b"host"), memoryview(b"x")), ("host", "text"), (b"host", b"x", b"y")]},
    {"method": Text("GET"), "path": Text("/x"), "type": Text("http"), "scheme": Text("https")},
    {"method": "get"}, {"method": "BREW\\n"}, {"method": "\\ud800"}, {"http_version": "2"}, {"http_version": "3.0"},
]
full = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": "/x", "query_string": b"", "root_path": "", "raw_path": b"/x", "headers": pairs,
        "client": ("192.0.2.7", 4711), "server": ("127.0.0.1", 8000)}
async def outcome(scope):
    sent = []
    async def send(message): sent.append(message.get("status"))
    try: await bare(scope, None, send)
    except Exception as error: sent.append(type(error).__name__)
    return sent
async def run():
    return [await outcome(scope) for scope in (
        *({**full, **odd} for odd in oddities),
        *({key: full[key] for key in full if key != missing} for missing in full),
        Scope(full), Missing(None, full), Shy(full), {}, {"type": "other"}, {"type": 7}, {"type": raises},
        {"type": "websocket"}, collections.UserDict(full), collections.ChainMap(full), None, 7)]
show(asyncio.run(run()))
"""


def test_scopes_of_any_shape_reach_the_application(program: Run) -> None:
    code = STARLETTE + f"TRACED = b'{PARENT}'\n" + SCOPES
    env = {CAPTURE + "SERVER_REQUEST": ".*", "OTEL_PYTHON_EXCLUDED_URLS": "nowhere"}
    result = program(code, env=env)
    assert result.shown == program(code, env={"REMORA_ENABLED": "false"}).shown
    spans = servers(result)
    assert len(spans) > 150
    assert not [span for span in spans if span.events]


def test_a_tuple_of_headers_is_read_and_an_iterator_is_left_to_the_application(program: Run) -> None:
    code = (
        STARLETTE
        + f"""
pairs = [(b"host", b"other.test"), (b"traceparent", b"{PARENT}"), (b"x-a", b"1")]
async def counts(scope, receive, send):
    show(len(list(scope["headers"])))
    await plain(scope, receive, send)
async def nothing(message): pass
config = uvicorn.Config(counts, proxy_headers=False)
config.load()
for headers in (tuple(pairs), [list(pair) for pair in pairs], iter(pairs)):
    scope = {{"type": "http", "path": "/", "method": "GET", "headers": headers, "query_string": b""}}
    asyncio.run(config.loaded_app(scope, None, nothing))
"""
    )
    result = program(code, env={CAPTURE + "SERVER_REQUEST": "x-.*"})
    assert result.shown == [3, 3, 3]
    tuples, lists, iterator = servers(result)
    for span in (tuples, lists):
        assert (span.parent_id, span["server.address"]) == ("b" * 16, "other.test")
        assert span["http.request.header.x-a"] == ["1"]
    assert iterator.parent_id is None


def test_messages_of_any_shape_reach_the_server(program: Run) -> None:
    code = (
        CALL
        + """
import uvicorn
class Text(str): pass
class Message(dict): pass
messages = [None, 7, {}, {"type": None}, {"type": 7}, {"type": "http.response.start"},
            {"type": "http.response.start", "status": "x"}, {"type": "http.response.start", "status": -1},
            {"type": "http.response.start", "status": 2**70}, {"type": "http.response.start", "status": 200, "headers": 7},
            {"type": "http.response.start", "status": 200, "headers": [(1, 2), None, (b"x-a",)]},
            Message({"type": Text("http.response.start"), "status": True}), {"type": "http.response.body", "more_body": "yes"},
            {"type": "http.response.body", "body": 7}, {"type": "http.response.trailers"}]
def told(first):
    async def app(scope, receive, send):
        await send(first)
        await send(message=first) if isinstance(first, dict) else None
        try: await send()
        except TypeError: pass
        await send({"type": "http.response.start", "status": 201})
        await send({"type": "http.response.body"})
    config = uvicorn.Config(app, proxy_headers=False)
    config.load()
    got = []
    async def send(message): got.append(message)
    asyncio.run(config.loaded_app({"type": "http", "path": "/", "method": "GET", "headers": []}, None, send))
    return [str(message) for message in got]
show([told(message) for message in messages])
"""
    )
    env = {CAPTURE + "SERVER_RESPONSE": ".*"}
    result = program(code, env=env)
    assert result.shown == program(code, env={"REMORA_ENABLED": "false"}).shown
    assert len(servers(result)) == 15


def test_headers_are_captured_by_whole_name_in_any_case_and_secrets_are_not(program: Run) -> None:
    code = (
        FASTAPI
        + """
from starlette.responses import Response
@app.get("/")
async def view():
    response = Response("x", headers={"X-Made-By": "tests", "X-Other": "o"})
    response.headers.append("X-Many", "1")
    response.headers.append("x-many", "2")
    response.set_cookie("session", "secret")
    return response
@app.websocket("/ws")
async def ws(socket: WebSocket):
    await socket.accept(headers=[(b"x-made-by", b"ws"), (b"set-cookie", b"secret")])
    await socket.close()
asked = [(b"x-custom", "café".encode()), (b"x-latin", b"\\xe9"), (b"x-custom-not", b"no"), (b"authorization", b"secret"),
         (b"cookie", b"secret"), (b"x-token", b"secret"), (b"accept", b"a"), (b"accept", b"b"), (b"X-UPPER", b"1")]
show(call(app, headers=asked),
     call(app, "/ws", kind="websocket", headers=asked, messages=[{"type": "websocket.connect"}]))
"""
    )
    env = {
        CAPTURE + "SERVER_REQUEST": "x-Custom,AUTHORIZATION,cookie,x-token,.ccep.,x-latin,x-upper",
        CAPTURE + "SERVER_RESPONSE": "x-m.*,set-cookie",
        CAPTURE + "SANITIZE_FIELDS": ".*token",
    }
    request, websocket = servers(program(code, env=env))
    start = "http.request.header."
    for span in (request, websocket):
        assert {
            name.removeprefix(start): value for name, value in span.attributes.items() if start in name
        } == {
            "x-custom": ["café"],
            "x-latin": ["\ufffd"],
            "authorization": ["[REDACTED]"],
            "cookie": ["[REDACTED]"],
            "x-token": ["[REDACTED]"],
            "accept": ["a", "b"],
            "x-upper": ["1"],
        }
    assert request["http.response.header.x-made-by"] == ["tests"]
    assert request["http.response.header.x-many"] == ["1", "2"]
    assert websocket["http.response.header.x-made-by"] == ["ws"]
    assert {span["http.response.header.set-cookie"][0] for span in (request, websocket)} == {"[REDACTED]"}
    assert "http.response.header.x-other" not in request.attributes


@pytest.mark.parametrize(
    ("variable", "pattern", "left"),
    [
        ("OTEL_PYTHON_EXCLUDED_URLS", "health$", ["/health/more", "/x"]),
        ("OTEL_PYTHON_STARLETTE_EXCLUDED_URLS", "^http://shop.test:8000/hea.th", ["/x"]),
        ("OTEL_PYTHON_STARLETTE_EXCLUDED_URLS", r"/x\?a=b$", ["/health", "/health/more"]),
        ("OTEL_PYTHON_ASGI_EXCLUDED_URLS", "health", ["/health", "/health/more", "/x"]),
    ],
)
def test_an_excluded_request_has_no_span_and_hands_its_caller_on(
    program: Run, variable: str, pattern: str, left: list[str]
) -> None:
    code = (
        STARLETTE
        + f"""
import httpx
async def ask(request):
    async with httpx.AsyncClient() as client:
        return PlainTextResponse((await client.get(URL)).text)
app = Starlette(routes=[Route("/{{path:path}}", ask)])
caller = [(b"traceparent", b"{PARENT}")]
show([call(app, path, headers=caller, query=b"a=b" if path == "/x" else b"") for path in ("/health", "/health/more", "/x")])
"""
    )
    result = program(code, env={variable: pattern})
    assert result.shown == [[[200]] * 3]
    assert [span["url.path"] for span in servers(result)] == left
    assert {span.trace_id for span in result.spans} == {"a" * 32}
    clients = find(result.spans, kind="client")
    assert len(clients) == 3
    assert [span.parent_id for span in clients].count("b" * 16) == 3 - len(left)
