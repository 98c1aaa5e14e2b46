"""Applications inside applications: one SERVER span, whatever stands between, and the template of the whole path."""

from collections.abc import Callable

from support.otlp import children
from support.pythons import Python, on_oldest_and_newest, on_releases

from .asgi_program import CALL, FASTAPI, servers
from .conftest import Program

Run = Callable[..., Program]

STARLETTE = (
    CALL
    + """
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
async def item(request):
    return PlainTextResponse("x")
async def plain(scope, receive, send):
    await PlainTextResponse("x")(scope, receive, send)
origin = [(b"origin", b"http://elsewhere.test")]
"""
)
# Each lets the header list be replaced, and wraps `send` where an `Origin` is sent.
CORS = 'Middleware(CORSMiddleware, allow_origins=["*"])'


@on_releases("old", "newest")
def test_a_mount_with_parameters_shows_their_names(program: Run, python: Python) -> None:
    code = (
        STARLETTE
        + """
import starlette._utils
inner = [Route("/items/{item}", item), Mount("/plain", plain), Mount("/{deep:int}", routes=[Route("/", item)])]
app = Starlette(routes=[
    Mount("/users/{id}", routes=inner),
    Mount("/a", routes=[Mount("/b/{b}", Starlette(routes=[Mount("", Router(inner))]))]),
    Mount("/files/{name:path}/of", routes=[Route("/{item}", item)]),
    Mount("", routes=[Route("/top/{item}", item)]),
])
paths = ["/users/7/items/3", "/users/7/plain/x/y", "/users/7/8/", "/a/b/2/items/3", "/a/b/2/5/", "/files/x/y/of/1",
         "/top/1", "/users/7/nowhere", "/a/nowhere"]
# Older releases leave the root out of the path.
full = hasattr(starlette._utils, "get_route_path")
show([call(app, root * full + path, root=root) for root in ("", "/root") for path in paths])
"""
    )
    templates = [
        "/users/{id}/items/{item}",
        "/users/{id}/plain",
        "/users/{id}/{deep:int}/",
        "/a/b/{b}/items/{item}",
        "/a/b/{b}/{deep:int}/",
        "/files/{name:path}/of/{item}",
        "/top/{item}",
        "/users/{id}",
        "/a",
    ]
    result = program(code, python=python)
    assert result.shown == [([[200]] * 7 + [[404]] * 2) * 2]
    spans = servers(result)
    routes = templates + ["/root" + template for template in templates]
    assert [span["http.route"] for span in spans] == routes
    assert [span.name for span in spans] == ["GET " + route for route in routes]


@on_oldest_and_newest
def test_fastapi_shows_templates_of_mounts_and_included_routers(program: Run, python: Python) -> None:
    code = (
        FASTAPI
        + """
from starlette.routing import Mount, Route
from starlette.responses import PlainTextResponse
sub, deeper, router = FastAPI(), FastAPI(), APIRouter()
@sub.get("/x/{k}")
async def x(k: str): return k
@deeper.websocket("/ws/{room}")
async def ws(socket: WebSocket): await socket.close()
@deeper.get("/y")
def y(): pass
@router.get("/items/{item}")
async def item(version: int, item: int): return item
async def starlette(request): return PlainTextResponse("x")
router.routes.append(Mount("/mounted/{m}", routes=[Route("/z", starlette)]))
app.include_router(router, prefix="/api/{version}")
sub.include_router(router, prefix="/api/{version}")
sub.mount("/deeper", deeper)
app.mount("/tenants/{tenant}", sub)
show([call(app, path) for path in ("/tenants/a/x/b", "/tenants/a/deeper/y", "/tenants/a/api/1/items/2",
      "/api/1/items/2", "/api/1/mounted/2/z", "/tenants/a/api/1/mounted/2/z")],
     call(app, "/tenants/a/deeper/ws/1", kind="websocket", messages=[{"type": "websocket.connect"}]))
"""
    )
    result = program(code, python=python)
    assert result.shown[0][0] == [[200]] * 6
    assert [span.name for span in servers(result)] == [
        "GET /tenants/{tenant}/x/{k}",
        "GET /tenants/{tenant}/deeper/y",
        "GET /tenants/{tenant}/api/{version}/items/{item}",
        "GET /api/{version}/items/{item}",
        "GET /api/{version}/mounted/{m}/z",
        "GET /tenants/{tenant}/api/{version}/mounted/{m}/z",
        "GET /tenants/{tenant}/deeper/ws/{room}",
    ]


@on_releases("old")
def test_older_releases_show_templates_of_mounts(program: Run, python: Python) -> None:
    code = (
        FASTAPI
        + """
sub, router = FastAPI(), APIRouter(prefix="/api/{version}")
@router.get("/items/{item}")
async def item(version: int, item: int): return item
sub.include_router(router)
app.mount("/tenants/{tenant}", sub)
show(call(app, "/tenants/a/api/1/items/2"))
"""
    )
    result = program(code, python=python)
    assert result.shown == [[200]]
    assert [span.name for span in servers(result)] == ["GET /tenants/{tenant}/api/{version}/items/{item}"]


@on_releases("old", "newest")
def test_an_application_that_is_asked_in_another_one_s_stead_has_its_own_route(
    program: Run, python: Python
) -> None:
    code = (
        STARLETTE
        + """
first = Starlette(routes=[Mount("/api", routes=[Route("/one", item)]), Route("/x", item)])
second = Starlette(routes=[Mount("/api/b", routes=[Route("/{c}", item)]), Route("/api/{rest}", item)])
class Cascade:
    async def __call__(self, scope, receive, send):
        messages = []
        async def keep(message):
            messages.append(message)
        await first(dict(scope), receive, keep)
        if messages[0]["status"] == 404:
            return await second(scope, receive, send)
        for message in messages:
            await send(message)
import uvicorn
config = uvicorn.Config(Cascade(), proxy_headers=False)
config.load()
app = config.loaded_app
show([call(app, path) for path in ("/api/one", "/api/two", "/api/b/c", "/api/d/e", "/x")],
     call(app, "/api/two", "BREW"))
"""
    )
    result = program(code, python=python)
    assert result.shown == [[[[200], [200], [200], [404], [200]], [405]]]
    assert [(span.name, span.get("http.route")) for span in servers(result)] == [
        ("GET /api/one", "/api/one"),
        ("GET /api/{rest}", "/api/{rest}"),
        ("GET /api/b/{c}", "/api/b/{c}"),
        ("GET", None),
        ("GET /x", "/x"),
        ("HTTP /api/{rest}", "/api/{rest}"),
    ]


@on_releases("old", "newest")
def test_middleware_that_replaces_headers_and_send_makes_no_second_span(program: Run, python: Python) -> None:
    code = (
        STARLETTE
        + f"""
import contextlib, remora
sub = Starlette(routes=[Route("/{{item}}", item)], middleware=[{CORS}])
app = Starlette(routes=[Mount("/sub", sub)], middleware=[{CORS}, Middleware(GZipMiddleware)])
parent = (b"traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01")
unsampled = (parent[0], parent[1][:-1] + b"0")
for header in (parent, unsampled):
    show(call(app, "/sub/1", headers=[*origin, header]))
    show(call(app, "/sub/2", headers=[*origin, header], without=["asgi"]))
"""
    )
    result = program(code, python=python)
    assert result.shown == [[200]] * 4
    assert [(span.name, span.parent_id) for span in result.spans] == [("GET /sub/{item}", "b" * 16)] * 2


def test_an_application_that_is_asked_from_within_a_request_has_a_span_of_its_own(program: Run) -> None:
    code = (
        STARLETTE
        + f"""
import httpx
other = Starlette(routes=[Route("/other", item)], middleware=[{CORS}])
async def ask(request):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(other), base_url="http://other.test") as client:
        for _ in range(3):
            (await client.get("/other", headers={{"origin": "http://here.test"}})).raise_for_status()
    return PlainTextResponse("x")
app = Starlette(routes=[Mount("/sub", Starlette(routes=[Route("/ask", ask)]))], middleware=[{CORS}])
show(call(app, "/sub/ask", headers=origin, without=["asgi"]))
"""
    )
    result = program(code)
    assert result.shown == [[200]]
    outer, *inner = servers(result)
    assert outer.name == "GET /sub/ask"
    assert [span.name for span in inner] == ["GET /other"] * 3
    clients = children(result.spans, outer)
    assert [span.kind for span in clients] == ["client"] * 3
    assert [span.parent_id for span in inner] == [span.span_id for span in clients]


def test_flask_inside_starlette_hangs_below_the_request_that_both_serve(program: Run) -> None:
    code = (
        STARLETTE
        + """
import warnings
import flask
warnings.simplefilter("ignore")
from starlette.middleware.wsgi import WSGIMiddleware
legacy = flask.Flask("legacy")
@legacy.get("/items/<item>")
def view(item):
    return item
app = Starlette(routes=[Mount("/legacy", WSGIMiddleware(legacy))])
parent = (b"traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01")
show(call(app, "/legacy/items/7", headers=[parent]), call(app, "/legacy/items/7"))
"""
    )
    result = program(code)
    assert result.shown == [[[200], [200]]]
    outer = [span for span in servers(result) if span.scope == "remora.starlette"]
    assert [span.parent_id for span in outer] == ["b" * 16, None]
    for span in outer:
        [inner] = children(result.spans, span)
        assert (inner.scope, inner.name) == ("remora.flask", "GET /legacy/items/<item>")
