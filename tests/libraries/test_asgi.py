"""FastAPI, Starlette and bare ASGI and WSGI applications: one SERVER span for each request."""

import contextlib
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from support.otlp import children, one
from support.process import Service
from support.pythons import Python, on_oldest_and_newest, on_releases

from .asgi_program import CALL, FASTAPI, SERVERS, servers
from .conftest import Program
from .expected import of_server

Run = Callable[..., Program]


@on_oldest_and_newest
def test_a_request_is_one_server_span_with_the_stable_attributes(program: Run, python: Python) -> None:
    code = (
        FASTAPI
        + """
@app.get("/items/{item}")
async def item(item: int):
    query()
    return item
@app.get("/sync/{item}")
def sync(item: int):
    query()
    return item
parent = (b"traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01")
show(call(app, "/items/7", headers=[parent], query=b"sig=secret&b=c"), call(app, "/sync/7"))
"""
    )
    result = program(code, python=python)
    assert result.shown == [[[200], [200]]]
    span, second = servers(result)
    assert (span.name, span.scope, span.status) == ("GET /items/{item}", "remora.fastapi", "unset")
    assert (span.trace_id, span.parent_id) == ("a" * 32, "b" * 16)
    assert span.attributes == of_server("/items/7", "/items/{item}")
    assert len(children(result.spans, span)) == 1
    assert len(children(result.spans, second)) == 1, "a sync endpoint runs in a thread"


@on_oldest_and_newest
def test_status_exception_route_and_background(program: Run, python: Python) -> None:
    code = (
        FASTAPI
        + """
inner, outer, sub = APIRouter(), APIRouter(prefix="/api"), FastAPI()
@inner.get("/items/{item}")
async def item(item: int): return item
outer.include_router(inner, prefix="/v1")
app.include_router(outer)
@sub.get("/x/{k}")
async def x(k): return k
app.mount("/sub", sub)
@app.get("/made/{code}")
async def made(code: int): raise HTTPException(code)
class Broken(Exception): pass
@app.get("/broken")
async def broken(): raise Broken("mine")
@app.get("/later")
async def later(tasks: BackgroundTasks):
    tasks.add_task(query)
@app.get("/stream")
async def stream():
    async def pieces():
        for _ in range(2):
            query()
            yield b"x"
    return StreamingResponse(pieces())
@app.websocket("/ws/{room}")
async def ws(socket: WebSocket, room):
    await socket.accept()
    query()
    await socket.close(4001)
show([call(app, path) for path in ("/api/v1/items/3", "/sub/x/1", "/made/404", "/made/503", "/nowhere",
      "/broken", "/later", "/stream")], call(app, "/items", "POST"),
     call(app, "/ws/1", kind="websocket", messages=[{"type": "websocket.connect"}]))
"""
    )
    result = program(code, python=python)
    codes = [[200], [200], [404], [503], [404], [500, "Broken('mine')"], [200], [200]]
    assert result.shown == [[codes, [404], []]]
    spans = servers(result)
    assert [span.name for span in spans] == [
        "GET /api/v1/items/{item}",
        "GET /sub/x/{k}",
        "GET /made/{code}",
        "GET /made/{code}",
        "GET",
        "GET /broken",
        "GET /later",
        "GET /stream",
        "POST",
        "GET /ws/{room}",
    ]
    statuses = [200, 200, 404, 503, 404, 500, 200, 200, 404, 101]
    assert [span["http.response.status_code"] for span in spans] == statuses
    assert [span.get("error.type") for span in spans] == [None] * 3 + ["503", None, "500"] + [None] * 4
    assert {span.scope for span in spans} == {"remora.fastapi"}
    [event] = spans[5].events
    assert event.attributes["exception.type"] == "__main__.Broken"
    assert not any(span.events for span in spans if span is not spans[5])
    [task] = children(result.spans, spans[6])
    assert (task.name, task.kind, task["code.function.name"]) == ("query", "internal", "__main__.query")
    assert task.start >= spans[6].end, "the response is complete before what runs in the background"
    assert len(children(result.spans, task)) == 1
    assert len(children(result.spans, spans[7])) == 2
    assert len(children(result.spans, spans[9])) == 1


def test_an_error_ends_with_its_last_message_too_and_has_only_its_own_exception(program: Run) -> None:
    code = (
        FASTAPI
        + """
import remora
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse
class Broken(Exception): pass
def fails(): raise ValueError("later")
@app.get("/task")
def task(): return JSONResponse({}, 503, background=BackgroundTask(query))
@app.get("/failing")
def failing(): return JSONResponse({}, 503, background=BackgroundTask(fails))
@app.get("/broken")
def broken(): raise Broken
sub = FastAPI()
@sub.get("/broken")
def broken_below(): raise Broken
outer, own = FastAPI(), FastAPI()
outer.mount("/sub", sub)
@outer.middleware("http")
async def proceed(request, call_next): return await call_next(request)
@own.get("/broken")
def own_broken(): raise Broken
@own.exception_handler(Exception)
async def handler(request, error): return JSONResponse({}, 500, background=BackgroundTask(query))
async def bare(scope, receive, send):
    await send({"type": "http.response.start", "status": 503, "headers": []})
    await send({"type": "http.response.body", "body": b"x"})
    with remora.span("later"): pass
import uvicorn
config = uvicorn.Config(bare, proxy_headers=False)
config.load()
show([call(app, path) for path in ("/task", "/failing", "/broken")], call(outer, "/sub/broken"),
     call(own, "/broken"), call(config.loaded_app))
"""
    )
    result = program(code)
    shown = [[[503], [503, "ValueError('later')"], [500, "Broken()"]], *[[500, "Broken()"]] * 2, [503]]
    assert result.shown == [shown]
    spans = servers(result)
    task, failing, broken, below, own, bare = spans
    for span in (task, failing, bare):
        [later] = children(result.spans, span)
        assert later.start >= span.end
        assert (span["error.type"], span.events) == ("503", [])
    for span in (broken, below, own):
        assert (span["error.type"], len(span.events)) == ("500", 1)
        assert span.events[0].attributes["exception.type"] == "__main__.Broken"


def test_a_body_in_pieces_that_fails_behind_middleware_of_starlette_s_is_an_error(program: Run) -> None:
    code = (
        FASTAPI
        + """
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
@app.middleware("http")
async def proceed(request, call_next): return await call_next(request)
async def pieces(error=None):
    yield b"a"
    if error: raise error
    yield b"b"
@app.get("/fails")
def fails(): return StreamingResponse(pieces(KeyError("half-way")))
@app.get("/whole")
def whole(): return StreamingResponse(pieces(), background=BackgroundTask(query))
def bare(error):
    async def inner(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        with remora.span("later"): pass
        raise error
    from starlette.applications import Starlette
    from starlette.routing import Mount
    return Starlette(routes=[Mount("/", app=inner)])
import asyncio, remora
show(call(app, "/fails"), call(app, "/whole"), call(bare(ClientDisconnect()), "/"))
try: call(bare(asyncio.CancelledError()), "/")
except asyncio.CancelledError: show("cancelled")
"""
    )
    result = program(code)
    assert result.shown == [[[200, "KeyError('half-way')"], [200], [200, "ClientDisconnect()"]], "cancelled"]
    fails, whole, gone, cancelled = servers(result)
    assert (fails["http.response.status_code"], fails["error.type"], fails.status) == (
        200,
        "KeyError",
        "error",
    )
    assert [event.attributes["exception.message"] for event in fails.events] == ["'half-way'"]
    for span in (whole, gone, cancelled):
        assert (span["http.response.status_code"], span.get("error.type"), span.events) == (200, None, [])
        [later] = children(result.spans, span)
        assert later.start >= span.end


def test_the_first_answer_to_a_websocket_is_its_status(program: Run) -> None:
    code = (
        CALL
        + """
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
def endpoint(*types):
    async def view(socket):
        for type in types:
            await socket._send({"type": "websocket." + type})
    return view
app = Starlette(routes=[WebSocketRoute("/0", endpoint("close", "close")),
                        WebSocketRoute("/1", endpoint("accept", "accept", "close"))])
show([call(app, path, kind="websocket") for path in ("/0", "/1")])
"""
    )
    result = program(code)
    assert [span["http.response.status_code"] for span in servers(result)] == [403, 101]


def test_a_client_that_a_proxy_names_is_not_the_peer(program: Run) -> None:
    code = (
        FASTAPI
        + """
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
@app.get("/x")
def x(): pass
behind = ProxyHeadersMiddleware(app, trusted_hosts="192.0.2.7")
headers = [(b"x-forwarded-for", b"203.0.113.9"), (b"x-forwarded-proto", b"https")]
show(call(behind, "/x", headers=headers), call(behind, "/x", headers=headers, client=("192.0.2.8", 4711)))
"""
    )
    result = program(code)
    trusted, other = servers(result)
    assert (trusted["client.address"], trusted["url.scheme"]) == ("203.0.113.9", "https")
    assert not [name for name in trusted.attributes if name.startswith("network.peer.")]
    assert (other["network.peer.address"], other["network.peer.port"]) == ("192.0.2.8", 4711)


def test_unsampled_and_excluded_requests_make_no_span_and_pass_the_context_on(program: Run) -> None:
    code = (
        FASTAPI
        + """
import requests
@app.get("/{path}")
def item(path): return requests.get(URL).request.headers["traceparent"]
seen = []
@app.middleware("http")
async def look(request, proceed):
    return await proceed(request)
def parent(flags): return [(b"traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-" + flags)]
show(call(app, "/unsampled", headers=parent(b"00")), call(app, "/health", headers=parent(b"01")))
@app.post("/{path}")
def nothing(path): pass
show(call(app, "/health", "POST"))
"""
    )
    result = program(code, env={"OTEL_PYTHON_FASTAPI_EXCLUDED_URLS": "health"})
    [span] = result.spans
    assert (span.kind, span.trace_id, span.parent_id) == ("client", "a" * 32, "b" * 16)


def test_send_is_what_the_server_gave_and_a_cancelled_request_is_no_error(program: Run) -> None:
    code = (
        CALL
        + """
import inspect
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.responses import PlainTextResponse
class App:
    async def __call__(self, scope, receive, send):
        show(inspect.iscoroutinefunction(send), send.__name__)
        await PlainTextResponse("x")(scope, receive, send)
async def slow(request):
    asyncio.current_task().cancel()
    await asyncio.sleep(1)
app = Starlette(routes=[Route("/app", App()), Route("/slow", slow)])
show(call(app, "/app"))
try:
    call(app, "/slow")
except (asyncio.CancelledError, KeyboardInterrupt):
    show("cancelled")
show(inspect.iscoroutinefunction(Starlette.__call__), str(inspect.signature(Starlette.__call__))[:12])
"""
    )
    result = program(code)
    assert result.shown == program(code, env={"REMORA_ENABLED": "false"}).shown
    assert result.shown[1:3] == [[200], "cancelled"]
    first, second = servers(result)
    assert (first.name, first.scope) == ("GET /app", "remora.starlette")
    assert (second.name, second.status, second.events) == ("GET /slow", "unset", [])


@pytest.mark.parametrize("when", ["early", "late", "between"])
def test_a_router_shows_its_whole_route_whenever_it_and_we_came(program: Run, when: str) -> None:
    start = "import remora; remora.init()\n"
    code = (
        FASTAPI
        + """
@app.get("/plain/{n}")
def plain(n: int): return n
"""
        + (start + "show(call(app, '/plain/1'))\n" if when == "between" else "show()\n")
        + """
router = APIRouter(prefix="/api/{version}")
@router.get("/items/{item}")
async def item(version: int, item: int): return item
app.include_router(router)
"""
        + (start if when == "late" else "")
        + "show([call(app, path) for path in ('/plain/1', '/api/1/items/2', '/api/1/items/x', '/docs')])"
    )
    env = {} if when == "early" else {"REMORA_ENABLED": None}
    result = program(code, env=env)
    assert result.shown[1] == [[200], [200], [422], [200]]
    names = [span.name for span in servers(result)]
    assert names[-4:] == ["GET /plain/{n}", *["GET /api/{version}/items/{item}"] * 2, "GET /docs"]
    assert len(names) == (5 if when == "between" else 4)


@on_releases("old")
def test_older_releases_give_the_same_spans(program: Run, python: Python) -> None:
    code = (
        FASTAPI
        + """
router, sub = APIRouter(prefix="/api"), FastAPI()
@router.get("/items/{item}")
async def item(item: int): return item
app.include_router(router)
@sub.get("/x/{k}")
async def x(k): return k
app.mount("/sub", sub)
show(call(app, "/api/items/3"), call(app, "/sub/x/1"))
"""
    )
    spans = servers(program(code, python=python))
    assert [span.name for span in spans] == ["GET /api/items/{item}", "GET /sub/x/{k}"]


APPS = """
async def bare(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["path"] == "/broken":
        raise ValueError("mine")
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"1")]})
    await send({"type": "http.response.body", "body": b"x"})
def wsgi(environ, start_response):
    if environ["PATH_INFO"] == "/broken":
        raise ValueError("mine")
    start_response("404 Not Found", [("Content-Length", "1")])
    return (piece for piece in [b"x"])
try:
    import fastapi
    framework = fastapi.FastAPI()
    @framework.get("/items/{item}")
    async def item(item: int): return item
except ImportError: pass
import flask
web = flask.Flask("x")
@web.get("/items/<item>")
def item(item): return item
"""


@pytest.mark.parametrize(
    ("server", "app", "framework", "scopes"),
    [
        ("uvicorn", "bare", "framework", ("remora.asgi", "remora.fastapi")),
        ("hypercorn", "bare", "framework", ("remora.asgi", "remora.fastapi")),
        ("hypercorn", "wsgi", "web", ("remora.wsgi", "remora.flask")),
        ("gunicorn", "wsgi", "web", ("remora.wsgi", "remora.flask")),
        ("waitress", "wsgi", "web", ("remora.wsgi", "remora.flask")),
    ],
)
def test_a_bare_application_has_one_span_and_a_framework_takes_it_over(
    service: Callable[..., Service],
    tmp_path: Path,
    server: str,
    app: str,
    framework: str,
    scopes: tuple[str, str],
) -> None:
    (tmp_path / "apps.py").write_text(APPS)

    def ask(name: str, *paths: str) -> list:
        one_service = service([sys.executable, *SERVERS[server], f"apps:{name}"], cwd=tmp_path)
        for path in paths:
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                urllib.request.urlopen(one_service.url + path).close()
        one_service.stop()
        return sorted(one_service.spans, key=lambda span: span.start)

    found, broken = ask(app, "/x?a=b", "/broken")
    assert (found.name, found.scope, found.kind) == ("GET", scopes[0], "server")
    assert (found["http.response.status_code"], found["url.path"], found["url.query"]) == (404, "/x", "a=b")
    assert found.status == "unset"
    assert (broken.status, broken["error.type"]) == ("error", "ValueError")
    taken = one(ask(framework, "/items/7"))
    assert (taken.scope, taken["http.response.status_code"]) == (scopes[1], 200)
    assert taken["http.route"] in ("/items/{item}", "/items/<item>")


def test_with_starlette_disabled_its_applications_are_bare_ones(
    service: Callable[..., Service], tmp_path: Path
) -> None:
    (tmp_path / "apps.py").write_text(
        """
import fastapi
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
plain = Starlette(routes=[Route("/x/{k}", lambda request: PlainTextResponse("x"))])
framework = fastapi.FastAPI(routes=plain.routes)
"""
    )
    for name, scope in (("plain", "remora.asgi"), ("framework", "remora.fastapi")):
        served = service(
            [sys.executable, *SERVERS["uvicorn"], f"apps:{name}"],
            cwd=tmp_path,
            env={"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "starlette"},
        )
        urllib.request.urlopen(served.url + "/x/1").close()
        served.stop()
        span = one(served.spans)
        assert (span.scope, span["url.path"], span["http.response.status_code"]) == (scope, "/x/1", 200)


def test_wsgi_errors_after_a_head_and_streamed_bodies(program: Run) -> None:
    code = """
from gunicorn.app.base import BaseApplication
import sqlite3
db = sqlite3.connect(":memory:")
def plain(environ, start_response):
    start_response("200 OK", [])
    if environ["PATH_INFO"] == "/late":
        try:
            raise ValueError("late")
        except ValueError:
            import sys
            start_response("503 Down", [], sys.exc_info())
    if environ["PATH_INFO"] == "/list":
        return [b"x"]
    def pieces():
        db.execute("select 1").fetchone()
        yield b"x"
    return pieces()
class Served(BaseApplication):
    def load_config(self): pass
    def load(self): return plain
app = Served().wsgi()
show(app is plain, app == plain, app.__name__)
def call(path):
    body = app({"REQUEST_METHOD": "GET", "PATH_INFO": path}, lambda *a: None)
    made = type(body).__name__, b"".join(body).decode()
    getattr(body, "close", lambda: None)()
    return made
show(call("/list"), call("/stream"), call("/late"))
"""
    result = program(code)
    assert result.shown[0] == [False, True, "plain"]
    assert result.shown[1][0] == ["list", "x"]
    spans = servers(result)
    assert [span["http.response.status_code"] for span in spans] == [200, 200, 503]
    assert [span.get("error.type") for span in spans] == [None, None, "503"]
    assert [len(children(result.spans, span)) for span in spans] == [0, 1, 1]


@pytest.mark.parametrize(
    ("disabled", "scopes"),
    [
        ("", ["remora.fastapi", "remora.fastapi", "remora.starlette"]),
        ("fastapi", ["remora.starlette"] * 3),
        ("starlette", ["remora.fastapi", "remora.fastapi"]),
        ("starlette,fastapi", []),
    ],
    ids=["none", "fastapi", "starlette", "both"],
)
def test_one_hook_serves_fastapi_and_starlette_as_the_settings_say(
    program: Run, disabled: str, scopes: list[str]
) -> None:
    code = (
        FASTAPI
        + """
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.responses import PlainTextResponse
class Own(FastAPI):
    pass
own, plain = Own(), Starlette(routes=[Route("/x", lambda request: PlainTextResponse("x"))])
@app.get("/x")
@own.get("/x")
async def x():
    return 1
for _ in range(2):
    show([call(each, "/x") for each in (app, own, plain)])
"""
    )
    result = program(code, env={"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": disabled})
    assert result.shown == [[[200]] * 3] * 2
    assert [span.scope for span in servers(result)] == scopes * 2
