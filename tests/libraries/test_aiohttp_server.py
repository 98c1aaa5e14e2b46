"""aiohttp's server: the SERVER span of a request."""

from collections.abc import Callable

import pytest
from support.otlp import children, find
from support.pythons import Python, on_oldest_and_newest, on_releases

from .aiohttp_program import APP, servers
from .conftest import Program, Upstream

Run = Callable[..., Program]

CAPTURE = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_"
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
# `raw(url, text)` sends bytes and gives the answer's head.
RAW = """
async def raw(url, text):
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(text)
    head = await reader.readuntil(b"\\r\\n\\r\\n")
    writer.close()
    return int(head.split()[1])
"""

REQUEST = (
    APP
    + RAW
    + """
@routes.get("/items/{item}")
async def item(request):
    return web.Response(text=request.match_info["item"])

async def work(session, url):
    show(await raw(url, b"GET /items/7%20x?sig=secret&b=c HTTP/1.1\\r\\nHost: shop.test:8000\\r\\nUser-Agent: tests/1.0\\r\\n"
        b"X-Forwarded-For: 192.0.2.7, 10.0.0.1\\r\\nX-Forwarded-Proto: https\\r\\nTraceParent: CALLER\\r\\n\\r\\n"))
serve(work)
""".replace("CALLER", CALLER)
)


def check_one_request(program: Run, python: Python) -> None:
    result = program(REQUEST, python=python)
    assert result.shown == [200]
    [span] = result.spans
    assert (span.name, span.kind, span.status) == ("GET /items/{item}", "server", "unset")
    assert (span.trace_id, span.parent_id) == tuple(CALLER.split("-")[1:3])
    assert isinstance(span.attributes.pop("network.peer.port"), int)
    assert span.attributes == {
        "http.request.method": "GET",
        "http.route": "/items/{item}",
        "url.path": "/items/7%20x",
        "url.query": "sig=REDACTED&b=c",
        "url.scheme": "https",
        "server.address": "shop.test",
        "server.port": 8000,
        "client.address": "192.0.2.7",
        "network.peer.address": "127.0.0.1",
        "network.protocol.version": "1.1",
        "user_agent.original": "tests/1.0",
        "http.response.status_code": 200,
    }


@on_oldest_and_newest
def test_a_request_is_one_server_span_with_the_stable_attributes(program: Run, python: Python) -> None:
    check_one_request(program, python)


@on_releases("old")
def test_so_it_is_with_an_old_release(program: Run, python: Python) -> None:
    check_one_request(program, python)


ENDS = (
    APP
    + """
@routes.get("/raise/{what}")
async def fails(request):
    what = request.match_info["what"]
    if what == "404":
        raise web.HTTPNotFound()
    if what == "503":
        raise web.HTTPServiceUnavailable()
    if what == "timeout":
        raise asyncio.TimeoutError()
    if what == "foreign":
        raise aiohttp.ClientResponseError(None, (), status=404)
    if what == "nothing":
        return None
    if what == "late":
        response = web.StreamResponse()
        await response.prepare(request)
    raise ValueError("secret of nobody")

async def work(session, url):
    # An old release drops the connection where the handler returns nothing.
    nothing = "/raise/value" if aiohttp.__version__.startswith("3.9.") else "/raise/nothing"
    paths = ["/code/200", "/code/404", "/code/500", "/nowhere", "/raise/404", "/raise/503", "/raise/timeout",
             "/raise/foreign", nothing, "/raise/value", "/raise/late"]
    for path in paths:
        async with session.get(url + path) as response:
            show(response.status)
    async with session.post(url + "/echo") as response:
        show(response.status)
serve(work)
"""
)


def check_ends(program: Run, python: Python) -> None:
    result = program(ENDS, python=python)
    got = [
        (span["http.response.status_code"], span.status, span.get("error.type"), len(span.events))
        for span in servers(result)
    ]
    assert got == [
        (200, "unset", None, 0),
        (404, "unset", None, 0),
        (500, "error", "500", 0),
        (404, "unset", None, 0),
        (404, "unset", None, 0),
        (503, "error", "503", 0),
        (504, "error", "504", 1),
        (500, "error", "500", 1),
        (500, "error", "500", 1 if python.age == "old" else 0),
        (500, "error", "500", 1),
        (200, "error", "ValueError", 1),
        (405, "unset", None, 0),
    ]
    assert result.shown == [code for code, *_ in got]
    names = [span.name for span in servers(result)]
    assert (names[3], names[11]) == ("GET", "POST")
    assert [span.get("http.route") for span in servers(result)][2:5] == [
        "/code/{code}",
        None,
        "/raise/{what}",
    ]
    event = servers(result)[9].events[0]
    assert event.attributes["exception.type"] == "ValueError"
    assert "in fails" in event.attributes["exception.stacktrace"]


@on_oldest_and_newest
def test_status_codes_responses_that_are_raised_and_exceptions(program: Run, python: Python) -> None:
    check_ends(program, python)


@on_releases("old")
def test_so_they_are_with_an_old_release(program: Run, python: Python) -> None:
    check_ends(program, python)


STREAMS = (
    APP
    + """
@routes.get("/ws")
async def ws(request):
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    await asyncio.sleep(0.3)
    async with aiohttp.ClientSession() as session:
        await session.get(URL + "/in-session")
    async for message in socket:
        await socket.send_str(message.data)
    return socket

@routes.get("/events")
async def events(request):
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await asyncio.sleep(0.3)
    await response.write(b"data: x\\n\\n")
    return response

@routes.get("/stream")
async def stream(request):
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(3):
        await asyncio.sleep(0.1)
        await response.write(b"x")
    await response.write_eof()
    return response

async def work(session, url):
    async with session.ws_connect(url + "/ws") as socket:
        await socket.send_str("hello")
        show((await socket.receive()).data)
    for path in ("/events", "/stream"):
        async with session.get(url + path) as response:
            show((await response.read()).decode())
    async with session.get(url + "/ws") as response:
        show(response.status)
serve(work)
"""
)


def check_streams(program: Run, python: Python) -> None:
    result = program(STREAMS, python=python)
    assert result.shown == ["hello", "data: x\n\n", "xxx", 400]
    ws, events, stream, refused = servers(result)
    assert [(span.name, span["http.response.status_code"]) for span in (ws, events, stream, refused)] == [
        ("GET /ws", 101),
        ("GET /events", 200),
        ("GET /stream", 200),
        ("GET /ws", 400),
    ]
    assert ws.duration < 200_000_000
    assert events.duration < 200_000_000
    assert stream.duration > 250_000_000
    # What the session does belongs to its trace.
    assert [child["url.full"].rpartition("/")[2] for child in children(result.spans, ws)] == ["in-session"]
    client = find(result.spans, kind="client", span_id=ws.parent_id)
    assert [span["http.response.status_code"] for span in client] == [101]


@on_oldest_and_newest
def test_a_websocket_and_an_event_stream_end_at_their_head_another_stream_with_its_body(
    program: Run, python: Python
) -> None:
    check_streams(program, python)


@on_releases("old")
def test_so_do_they_with_an_old_release(program: Run, python: Python) -> None:
    check_streams(program, python)


FILES = (
    APP
    + """
import pathlib, tempfile
made = tempfile.TemporaryDirectory()
folder = pathlib.Path(made.name)
(folder / "a.txt").write_text("hello world")
app.router.add_static("/static", folder)

@routes.get("/file")
async def file(request):
    return web.FileResponse(folder / "a.txt")

async def work(session, url):
    async def ask(path, **headers):
        async with session.get(url + path, headers=headers) as response:
            show(response.status)
            return response.headers.get("ETag")
    etag = await ask("/static/a.txt")
    await ask("/static/missing.txt")
    for path in ("/static/a.txt", "/file"):
        await ask(path, **{"If-None-Match": etag})
        await ask(path, Range="bytes=0-3")
        await ask(path, Range="bytes=900-")
serve(work)
"""
)


@on_releases("old", "newest")
def test_a_file_s_span_has_the_status_that_the_server_found_for_it(program: Run, python: Python) -> None:
    result = program(FILES, python=python)
    assert result.shown == [200, 404, 304, 206, 416, 304, 206, 416]
    spans = servers(result)
    assert [span["http.response.status_code"] for span in spans] == result.shown
    assert {(span.status, len(span.events)) for span in spans} == {("unset", 0)}
    assert spans[0]["http.route"] == "/static"


BODIES = (
    APP
    + """
async def pieces():
    for _ in range(2):
        await asyncio.sleep(0.1)
        with remora.span("piece"):
            yield b"x"
async def broken():
    yield b"x"
    raise ValueError("body")
async def broken_at_once():
    raise ValueError("body")
    yield b""

@routes.post("/body/{which}")
async def body(request):
    return web.Response(body=globals()[request.match_info["which"]]())
@routes.post("/head")
async def head(request):
    return web.Response(text="x")
@routes.post("/made")
async def made(request):
    if request.query:
        raise web.HTTPNotFound(headers={"X-Made": "1"})
    return web.Response(text="abc", headers={"X-Made": "1"})

async def late(request, response):
    response.headers["X-Late"] = "1"
    if request.path == "/head":
        raise ValueError("head")
app.on_response_prepare.append(late)

async def work(session, url):
    for path in ("/body/pieces", "/body/broken", "/body/broken_at_once", "/head", "/made", "/made?x=y"):
        try:
            # A GET is sent again where the connection is closed.
            async with session.post(url + path) as response:
                show(response.status, len(await response.read()))
        except aiohttp.ClientError as error:
            show(type(error).__name__)
serve(work)
"""
)


@on_releases("old", "newest")
def test_a_span_lasts_until_its_response_is_made_and_has_what_is_added_to_the_head(
    program: Run, python: Python
) -> None:
    result = program(BODIES, python=python, env={CAPTURE + "SERVER_RESPONSE": "x-late,x-made,content-length"})
    assert (result.shown[0], result.shown[4:]) == ([200, 2], [[200, 3], [404, 14]])
    pieces, broken, at_once, head, made, missing = servers(result)
    assert pieces.duration > 150_000_000
    assert [child.name for child in children(result.spans, pieces)] == ["piece", "piece"]
    assert pieces["http.response.status_code"] == broken["http.response.status_code"] == 200
    assert (pieces.status, broken.status, broken["error.type"]) == ("unset", "error", "ValueError")
    assert "in broken" in broken.events[0].attributes["exception.stacktrace"]
    # Older releases send the head before they ask for the first piece.
    assert at_once.get("http.response.status_code") == (200 if python.age == "old" else None)
    assert (head.status, head["error.type"], len(head.events)) == ("error", "ValueError", 1)
    assert "http.response.status_code" not in head.attributes
    assert (made["http.response.status_code"], missing["http.response.status_code"]) == (200, 404)
    for span in (made, missing):
        assert span["http.response.header.x-made"] == span["http.response.header.x-late"] == ["1"]
    assert made["http.response.header.content-length"] == ["3"]
    assert pieces["http.response.header.x-late"] == ["1"]


def test_a_response_that_aiohttp_s_server_never_sends_has_its_span(program: Run) -> None:
    code = (
        APP
        + """
from aiohttp.test_utils import make_mocked_request
async def pieces():
    yield b"x"
@routes.get("/pieces")
async def view(request):
    return web.Response(body=pieces())
app.router.add_routes(routes)
async def own(request):
    response = await app._handle(request)
    if request.query:
        raise asyncio.CancelledError
    return web.Response(status=202, text="another")
async def work():
    app.freeze()
    show((await app._handle(make_mocked_request("GET", "/pieces"))).status)
    runner = web.ServerRunner(web.Server(own, request_factory=app._make_request))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = "http://127.0.0.1:%d/pieces" % site._server.sockets[0].getsockname()[1]
    async with aiohttp.ClientSession() as session:
        async with session.get(url) as response:
            show(response.status)
        try:
            async with session.post(url + "?x=y"):
                pass
        except aiohttp.ClientError:
            show("none")
    await runner.cleanup()
app.router.add_post("/pieces", view)
asyncio.run(work())
"""
    )
    result = program(code)
    assert result.shown == [200, 202, "none"]
    assert [(span.name, span["http.response.status_code"]) for span in servers(result)] == [
        ("GET /pieces", 200),
        ("GET /pieces", 202),
        ("POST /pieces", 200),
    ]


def test_sub_applications_and_middlewares_are_one_span_with_the_whole_route(program: Run) -> None:
    code = (
        APP
        + """
seen = []
@web.middleware
async def outer(request, handler):
    seen.append(remora.current_span_id())
    return await handler(request)
@web.middleware
async def teapot(request, handler):
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return web.Response(status=418, text="short")
app.middlewares.append(outer)
sub = web.Application(middlewares=[teapot])
async def view(request):
    seen.append(remora.current_span_id())
    if request.match_info["id"] == "0":
        raise web.HTTPNotFound()
    return web.Response(text="x")
sub.router.add_get("/i/{id}", view)
app.add_subapp("/sub", sub)
async def work(session, url):
    for at in (1, 0):
        async with session.get(f"{url}/sub/i/{at}") as response:
            show(response.status)
    show(remora.current_span_id(), seen)
serve(work)
"""
    )
    result = program(code)
    first, second = servers(result)
    assert first.name == second.name == "GET /sub/i/{id}"
    assert second["http.response.status_code"] == 418
    assert result.shown == [200, 418, [None, [first.span_id] * 2 + [second.span_id] * 2]]


def test_a_client_that_leaves_is_no_error(program: Run) -> None:
    code = (
        APP
        + """
@routes.get("/long")
async def long(request):
    await asyncio.sleep(5)
async def work(session, url):
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(b"GET /long HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    await asyncio.sleep(0.2)
    writer.close()
    await asyncio.sleep(0.2)
serve(work, handler_cancellation=True)
"""
    )
    [span] = program(code).spans
    assert (span.name, span.status, span.get("error.type"), span.events) == ("GET /long", "unset", None, [])
    assert "http.response.status_code" not in span.attributes


@on_releases("old", "newest")
def test_neither_is_one_that_leaves_while_it_is_read_from_or_written_to(program: Run, python: Python) -> None:
    code = (
        APP
        + """
async def gone(request):
    while request.transport is not None:
        await asyncio.sleep(0.01)
@routes.post("/read")
async def read(request):
    await request.read()
@routes.post("/early")
async def early(request):
    await gone(request)
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"x")
@routes.post("/late")
async def late(request):
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"x")
    await gone(request)
    while True:
        await response.write(b"x")
@routes.post("/mistake")
async def mistake(request):
    await gone(request)
    raise ValueError
async def work(session, url):
    for path in (b"/read", b"/early", b"/late", b"/mistake"):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(b"POST " + path + b" HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 3\\r\\n\\r\\nx")
        await asyncio.sleep(0.1)
        writer.transport.abort()
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.01)
serve(work)
"""
    )
    *left, mistake = servers(program(code, python=python))
    assert [(span.name, span.get("http.response.status_code")) for span in left] == [
        ("POST /read", None),
        ("POST /early", None),
        ("POST /late", 200),
    ]
    assert {(span.status, span.get("error.type"), len(span.events)) for span in left} == {("unset", None, 0)}
    assert (mistake.status, mistake["error.type"], len(mistake.events)) == ("error", "500", 1)


def test_an_unsampled_request_has_no_span_and_hands_its_caller_s_decision_on(
    program: Run, upstream: Upstream
) -> None:
    code = (
        APP
        + RAW
        + f"""
@routes.get("/calls")
async def calls(request):
    async with aiohttp.ClientSession() as session:
        await session.get(URL + "/inner")
    return web.Response(text="x")
async def work(session, url):
    for caller in (b"{CALLER[:-1]}0", b"{CALLER}"):
        show(await raw(url, b"GET /calls HTTP/1.1\\r\\nHost: x\\r\\ntraceparent: " + caller
            + b"\\r\\ntracestate: a=b\\r\\nbaggage: k=v\\r\\nTraceState: c=d\\r\\nbaggage: l=w\\r\\n\\r\\n"))
serve(work)
"""
    )
    result = program(code)
    [server] = servers(result)
    [client] = find(result.spans, kind="client")
    assert client.parent_id == server.span_id
    assert server.trace_state == client.trace_state == "a=b,c=d"
    assert [one.sampled for one in upstream.received] == [False, True]
    assert {one.trace_id for one in upstream.received} == {CALLER.split("-")[1]}
    assert [one.headers["baggage"] for one in upstream.received] == ["k=v,l=w"] * 2
    off = program(code, env={"OTEL_TRACES_SAMPLER": "always_off"})
    assert off.spans == result.spans or len(off.spans) == len(result.spans)


def test_excluded_urls_captured_headers_and_old_names(program: Run) -> None:
    code = (
        APP
        + RAW
        + """
@routes.get("/health")
async def health(request):
    return web.Response(text="x")
@routes.get("/seen")
async def seen(request):
    return web.Response(text="x", headers={"X-Made-By": "tests", "Set-Cookie": "secret"})
async def work(session, url):
    for path in (b"/health?a=b", b"/seen"):
        show(await raw(url, b"GET " + path + b" HTTP/1.1\\r\\nHost: shop.test\\r\\nX-Custom: caf\\xc3\\xa9\\r\\n"
            b"X-Custom: 2\\r\\nAuthorization: secret\\r\\n\\r\\n"))
serve(work)
"""
    )
    env = {
        "OTEL_PYTHON_AIOHTTP_SERVER_EXCLUDED_URLS": r"^http://shop\.test/health\?a=b$",
        CAPTURE + "SERVER_REQUEST": "x-custom,authorization",
        CAPTURE + "SERVER_RESPONSE": "x-made-by,set-cookie",
        "OTEL_SEMCONV_STABILITY_OPT_IN": "http/dup",
    }
    result = program(code, env=env)
    assert result.shown == [200, 200]
    [span] = result.spans
    assert span["url.path"] == "/seen"
    assert span["http.request.header.x-custom"] == ["café", "2"]
    assert span["http.request.header.authorization"] == ["[REDACTED]"]
    assert span["http.response.header.x-made-by"] == ["tests"]
    assert span["http.response.header.set-cookie"] == ["[REDACTED]"]
    assert (span["http.method"], span["http.target"], span["http.status_code"]) == ("GET", "/seen", 200)


def test_hostile_requests_are_answered_as_without_the_agent(program: Run) -> None:
    code = (
        APP
        + RAW
        + """
@routes.route("*", "/{path:.*}")
async def any(request):
    return web.Response(text="x")
async def work(session, url):
    for head in (
        b"GET /caf\\xc3\\xa9?x=%FF HTTP/1.1\\r\\nHost: [::1\\r\\n",
        b"GET //twice/x HTTP/1.1\\r\\nHost: a\\r\\nHost: b\\r\\n",
        b"GET http://elsewhere.test:81/abs?q=1 HTTP/1.1\\r\\nHost: x:y\\r\\n",
        b"BREW / HTTP/1.1\\r\\n",
        b"GET / HTTP/1.0\\r\\ntraceparent: 00-xyz-\\xff-01\\r\\nForwarded: for=;;=\\"\\r\\nUser-Agent: \\xff\\r\\n",
        b"OPTIONS * HTTP/1.1\\r\\nHost:\\r\\n",
        b"GET /" + b"x" * 4000 + b" HTTP/1.1\\r\\nHost: a\\r\\n",
        b"nonsense\\r\\n",
    ):
        show(await raw(url, head + b"\\r\\n"))
serve(work)
"""
    )
    traced = program(code, quiet=False)
    bare = program(code, env={"REMORA_ENABLED": None}, quiet=False)
    assert traced.shown == bare.shown
    assert traced.agent_lines == []
    spans = servers(traced)
    assert all(span.status == "unset" for span in spans)
    assert len(spans) == sum(code != 400 for code in traced.shown)


@pytest.mark.parametrize("kept", ["request", "response"])
def test_no_request_and_no_response_is_kept(program: Run, kept: str) -> None:
    code = (
        APP
        + f"""
import gc, weakref
references = []
@routes.get("/kept")
async def view(request):
    response = web.StreamResponse()
    await response.prepare(request)
    references.append(weakref.ref({kept}))
    return response
@routes.get("/made")
async def made(request):
    response = web.Response(body=pieces())
    references.append(weakref.ref({kept}))
    return response
async def pieces():
    yield b"x"
async def work(session, url):
    for path in ("/kept", "/made"):
        async with session.get(url + path) as response:
            await response.read()
serve(work)
gc.collect()
show([reference() is None for reference in references])
"""
    )
    assert program(code).shown == [[True, True]]


DEFERRED = (
    APP
    + """
import aiohttp.http_writer
from aiohttp.web_protocol import RequestHandler
plain = (RequestHandler.finish_response, aiohttp.http_writer._serialize_headers)

def states():
    hooks = remora.status()["hooks"]
    targets = hooks["aiohttp-server"]["targets"] + hooks["aiohttp-client"]["targets"]
    found = {target["attribute"].rpartition(".")[2]: target["state"] for target in targets}
    now = (RequestHandler.finish_response, aiohttp.http_writer._serialize_headers)
    return [found["finish_response"], found["_serialize_headers"], [a is b for a, b in zip(plain, now)]]

@routes.get("/text")
async def text(request):
    return web.Response(text="x")

@routes.get("/file")
async def file(request):
    return web.FileResponse(asyncio.__file__)

async def work(session, url):
    for path in (b"/text", b"/file", b"/file"):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(b"GET " + path + b" HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
        answer = await reader.read()
        writer.close()
        show(int(answer.split()[1]), states())
    async with session.get(url + "/echo") as response:
        show("traceparent" in await response.json(), states())
    remora._native.deactivate()
    show(*states()[2])
serve(work)
"""
)


def test_what_has_nothing_to_do_yet_is_not_wrapped(program: Run) -> None:
    """Every response passes there, every message of both sides: a wrapper costs each of them something."""
    result = program(DEFERRED)
    assert result.shown == [
        [200, ["deferred", "deferred", [True, True]]],
        [200, ["applied", "deferred", [False, True]]],
        [200, ["applied", "deferred", [False, True]]],
        [True, ["applied", "applied", [False, False]]],
        [True, True],
    ]
    assert [span.name for span in servers(result)] == ["GET /text", "GET /file", "GET /file", "GET /echo"]
