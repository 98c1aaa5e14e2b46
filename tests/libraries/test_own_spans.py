"""A span of the application's own stands between a request's span and what its library does further in: a middleware
that measures itself. The request is still one span, which has its route, its errors and its end."""

from collections.abc import Callable

from support.otlp import Span, find, one
from support.process import Result

from . import aiohttp_program, django_program, flask_program
from .asgi_program import FASTAPI
from .conftest import Program

Run = Callable[..., Program]


def servers(result: Result) -> list[Span]:
    return find(result.spans, kind="server")


def test_fastapi_names_the_request_through_a_middlewares_span(program: Run) -> None:
    result = program(
        FASTAPI
        + """
import remora
inner, mounted = APIRouter(), FastAPI()
@app.middleware("http")
async def timed(request, call_next):
    with remora.span("middleware"):
        return await call_next(request)
class Pure:
    def __init__(self, app): self.app = app
    async def __call__(self, scope, receive, send):
        with remora.span("outer"), remora.span("pure"):
            await self.app(scope, receive, send)
app.add_middleware(Pure)
@app.get("/items/{item}")
async def item(item): query()
@mounted.get("/deep/{item}")
async def deep(item): query()
app.mount("/mounted", mounted)
caller = [(b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]
show([call(app, path, headers=headers) for path in ("/items/1", "/mounted/deep/2") for headers in ((), caller)])
"""
    )
    assert result.shown == [[[200]] * 4]
    names = [span.name for span in servers(result)]
    assert names == ["GET /items/{item}"] * 2 + ["GET /mounted/deep/{item}"] * 2
    # What hangs below is where it was.
    inner = find(result.spans, name="middleware")
    assert [span.parent_id for span in find(result.spans, scope="remora.sqlite3")] == [
        span.span_id for span in inner
    ]
    assert {span.parent_id for span in inner} == {span.span_id for span in find(result.spans, name="pure")}
    assert [span.parent_id for span in find(result.spans, name="outer")] == [
        span.span_id for span in servers(result)
    ]


def test_django_names_the_request_and_records_its_exception(program: Run) -> None:
    result = program(
        django_program.APP
        + """
import remora
def timed(get_response):
    def middleware(request):
        with remora.span("middleware"):
            return get_response(request)
    return middleware
sys.modules["timing"] = type(sys)("timing")
sys.modules["timing"].timed = timed
settings.MIDDLEWARE = ["timing.timed"]
def fail(request, item):
    raise ValueError("no")
url("items/<int:item>", lambda request, item: HttpResponse("x"))
url("fail/<int:item>", fail)
show([call("/items/1")[0], call("/fail/2")[0]])
"""
    )
    assert result.shown == [[200, 500]]
    good, failed = servers(result)
    assert (good.name, failed.name) == ("GET /items/<int:item>", "GET /fail/<int:item>")
    assert [event.name for event in failed.events] == ["exception"]


def test_flask_inside_flask_is_one_request(program: Run) -> None:
    result = program(
        flask_program.APP
        + """
import remora
inner = flask.Flask("inner")
@inner.get("/items/<item>")
def item(item):
    return "inner"
@app.before_request
def hand_on():
    with remora.span("hands on"):
        return exchange(inner, flask.request.environ)[1]
caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
show([call("/items/1"), call("/items/1", HTTP_TRACEPARENT=caller)])
"""
    )
    assert result.shown == [[[200, "inner"]] * 2]
    assert [span.name for span in servers(result)] == ["GET /items/<item>"] * 2


def test_aiohttp_sends_the_header_from_within_a_client_middleware(program: Run) -> None:
    result = program(
        aiohttp_program.APP
        + """
async def retry(request, handler):
    with remora.span("retry"):
        return await handler(request)
async def work(session, url):
    async with aiohttp.ClientSession(middlewares=[retry]) as measured:
        async with measured.get(url + "/echo") as response:
            return (await response.json())["traceparent"]
show(serve(work))
"""
    )
    (client,), (server,) = aiohttp_program.clients(result), aiohttp_program.servers(result)
    assert result.shown == [f"00-{client.trace_id}-{client.span_id}-03"]
    assert client["http.response.status_code"] == 200
    assert client["url.full"].endswith("/echo")
    assert server.parent_id == client.span_id
    assert one(result.spans, name="retry").parent_id == client.span_id


def test_aiohttp_ends_a_stream_of_events_with_its_head(program: Run) -> None:
    result = program(
        aiohttp_program.APP
        + """
@routes.get("/events")
async def events(request):
    with remora.span("handler"):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        with remora.span("after the head"):
            await response.write(b"data: x\\n\\n")
        return response
@routes.get("/broken")
async def broken(request):
    with remora.span("handler"):
        response = web.StreamResponse()
        await response.prepare(request)
        raise ValueError("too late")
async def work(session, url):
    async with session.get(url + "/events") as response:
        await response.read()
    try:
        async with session.get(url + "/broken") as response:
            await response.read()
    except aiohttp.ClientError:
        pass
serve(work)
"""
    )
    events, broken = aiohttp_program.servers(result)
    assert events.name == "GET /events"
    assert events.end <= one(result.spans, name="after the head").start
    # The client has seen that status.
    assert broken["http.response.status_code"] == 200
    assert broken["error.type"] == "ValueError"
