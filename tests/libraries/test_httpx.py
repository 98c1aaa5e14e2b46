"""httpx: one CLIENT span for each request sent, synchronous and not."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from support.otlp import Span, children, find, one
from support.process import Result
from support.pythons import Python, on_oldest_and_newest, on_releases

from .conftest import Program, Upstream
from .expected import of_client

Run = Callable[..., Program]

CAPTURE = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_"
# `each(work)` awaits `work(client)` under asyncio and, where there is one, trio.
ASYNC = """
import asyncio, httpx
async def with_client(work, **options):
    async with httpx.AsyncClient(**options) as client:
        return await work(client)
def each(work, **options):
    show(asyncio.run(with_client(work, **options)))
    try:
        import trio
    except ImportError:
        return
    show(trio.run(lambda: with_client(work, **options)))
"""


def clients(result: Result) -> list[Span]:
    """Their spans in order."""
    return find(result.spans, kind="client", scope="remora.httpx")


@on_oldest_and_newest
def test_a_request_is_one_client_span_with_the_stable_attributes(
    program: Run, upstream: Upstream, python: Python
) -> None:
    code = (
        ASYNC
        + """
with httpx.Client() as client:
    for _ in range(2):
        show(client.get(URL + "/status/200?a=b&sig=secret").status_code)
async def work(client):
    return (await client.get(URL + "/status/200?a=b&sig=secret")).status_code
each(work)
"""
    )
    result = program(code, python=python)
    assert result.shown == [200] * 4
    for span, received in zip(result.spans, upstream.received, strict=True):
        assert (span.name, span.kind, span.status, span.parent_id) == ("GET", "client", "unset", None)
        assert span.scope == "remora.httpx"
        assert span.attributes == of_client(upstream, "/status/200?a=b&sig=REDACTED")
        assert (received.trace_id, received.span_id, received.sampled) == (span.trace_id, span.span_id, True)


@on_releases("old", "newest")
def test_one_request_object_that_is_sent_twice_is_counted_anew(
    program: Run, upstream: Upstream, python: Python
) -> None:
    code = (
        ASYNC
        + """
def digest():
    return httpx.DigestAuth("u", "p")
with httpx.Client(follow_redirects=True) as client:
    for path in ("/digest", "/redirect/1"):
        request = client.build_request("GET", URL + path)
        show([client.send(request, auth=digest()).status_code for _ in range(2)])
async def work(client):
    request = client.build_request("GET", URL + "/digest")
    return [(await client.send(request, auth=digest())).status_code for _ in range(2)]
show(asyncio.run(with_client(work)))
"""
    )
    result = program(code, python=python)
    assert result.shown == [[200, 200]] * 3
    told = [span.get("http.request.resend_count") for span in clients(result)]
    # The object has the answer to the challenge by then.
    digest = [None, 1, None]
    assert told == [*digest, *[None, 1] * 2, *digest]


@on_releases("old", "newest")
def test_redirects_and_round_trips_are_siblings_that_are_counted(
    program: Run, upstream: Upstream, python: Python
) -> None:
    code = (
        ASYNC
        + """
digest = httpx.DigestAuth("u", "p")
def sync():
    with httpx.Client(follow_redirects=True) as client:
        show(client.get(URL + "/redirect/2").status_code)
        show(client.get(URL + "/digest", auth=digest).status_code)
        show(client.get(URL + "/redirect/1", follow_redirects=False).status_code)
job(sync)
async def work(client):
    first, second = await asyncio.gather(
        client.get(URL + "/redirect/2"), client.get(URL + "/digest", auth=httpx.DigestAuth("u", "p"))
    )
    return [first.status_code, second.status_code]
job(lambda: show(asyncio.run(with_client(work, follow_redirects=True))))
"""
    )
    result = program(code, python=python)
    assert result.shown == [200, 200, 302, [200, 200]]
    sync, asynchronous = find(result.spans, kind="server")
    spans = children(result.spans, sync)
    told = [(span["http.response.status_code"], span.get("http.request.resend_count")) for span in spans]
    assert told == [(302, None), (302, 1), (200, 2), (401, None), (200, 1), (302, None)]
    assert all(a.end <= b.start for a, b in pairwise(spans))
    spans += children(result.spans, asynchronous)
    # Concurrent ones, each with its own count.
    told = [(span["http.response.status_code"], span.get("http.request.resend_count")) for span in spans[6:]]
    assert sorted(told, key=str) == [(200, 1), (200, 2), (302, 1), (302, None), (401, None)]
    assert {span.span_id for span in spans} == {received.span_id for received in upstream.received}
    assert len(spans) == len(upstream.received) == 11
    assert all("," not in received.headers["traceparent"] for received in upstream.received)


@on_releases("old", "newest")
def test_what_an_authentication_sends_besides_is_no_resend(program: Run, python: Python) -> None:
    code = (
        ASYNC
        + """
class Refreshing(httpx.Auth):
    requires_response_body = True
    def auth_flow(self, request):
        response = yield request
        yield httpx.Request("POST", URL + "/token")
        yield request
class Fetching(httpx.Auth):
    requires_response_body = True
    def auth_flow(self, request):
        yield httpx.Request("POST", URL + "/redirect/1")
        yield request
def paths():
    for auth in (Refreshing(), Fetching()):
        yield URL + "/redirect/1", auth
with httpx.Client(follow_redirects=True) as client:
    for url, auth in paths():
        client.get(url, auth=auth)
async def work(client):
    for url, auth in paths():
        await client.get(url, auth=auth)
asyncio.run(with_client(work, follow_redirects=True))
"""
    )
    result = program(code, python=python)
    told = [
        (span.name, span["url.full"].rpartition("/")[2], span.get("http.request.resend_count"))
        for span in clients(result)
    ]
    refreshing = [
        *(("GET", "1", None), ("GET", "0", 1)),
        ("POST", "token", None),
        *(("GET", "1", 2), ("GET", "0", 3)),
    ]
    fetching = [*(("POST", "1", None), ("GET", "0", 1)), *(("GET", "1", None), ("GET", "0", 1))]
    assert told == (refreshing + fetching) * 2


def test_where_aiohttp_is_the_transport_there_is_one_span(program: Run, upstream: Upstream) -> None:
    code = (
        ASYNC
        + """
import aiohttp
class Transport(httpx.AsyncBaseTransport):
    async def handle_async_request(self, request):
        async with aiohttp.ClientSession() as session:
            async with session.get(URL + "/token") as token:
                await token.read()
            async with session.request(request.method, str(request.url), headers=request.headers) as answer:
                return httpx.Response(answer.status, content=await answer.read())
async def work(client):
    return (await client.get(URL + "/main")).status_code
show(asyncio.run(with_client(work, transport=Transport())))
"""
    )
    result = program(code)
    assert result.shown == [200]
    main, token = result.spans
    assert (main.scope, token.scope, token.parent_id) == (
        "remora.httpx",
        "remora.aiohttp-client",
        main.span_id,
    )
    # Of the transport's own only the peer is known.
    version = "network.protocol.version"
    assert {**main.attributes, version: "1.1"} == of_client(upstream, "/main")
    assert [received.span_id for received in upstream.received] == [token.span_id, main.span_id]
    upstream.received.clear()
    result = program(code, env={"OTEL_PYTHON_AIOHTTP_CLIENT_EXCLUDED_URLS": "/main,/token"})
    # Those of the first program are there as well.
    [span] = result.spans[2:]
    keys = [attribute["key"] for attribute in span.raw["attributes"]]
    assert len(keys) == len(set(keys))
    assert "http.request.resend_count" not in keys
    token_headers, main_headers = (received.headers for received in upstream.received)
    assert "traceparent" not in token_headers
    assert main_headers["traceparent"].split("-")[2] == span.span_id


@pytest.mark.parametrize(("code", "error"), [(200, None), (404, "404"), (500, "500")])
def test_from_400_on_the_status_code_is_the_error(program: Run, code: int, error: str | None) -> None:
    [span] = program(f"import httpx; httpx.get(URL + '/status/{code}')").spans
    assert (span["http.response.status_code"], span.get("error.type")) == (code, error)
    assert (span.status, span.status_message) == ("error" if error else "unset", "")


@on_releases("old", "newest")
def test_without_a_response_the_exception_is_the_error(program: Run, python: Python) -> None:
    code = (
        ASYNC
        + """
CASES = ((URL + "/slow", 0.1), ("http://127.0.0.1:1/", 5), (URL + "/drop", 5), ("gopher://x.test/", 5))
for url, timeout in CASES:
    try:
        httpx.get(url, timeout=timeout)
    except httpx.HTTPError as error:
        show(type(error).__name__)
async def work(client):
    names = []
    for url, timeout in CASES:
        try:
            await client.get(url, timeout=timeout)
        except httpx.HTTPError as error:
            names.append(type(error).__name__)
    return names
each(work)
"""
    )
    result = program(code, python=python)
    names = ["ReadTimeout", "ConnectError", "RemoteProtocolError", "UnsupportedProtocol"]
    assert result.shown[:4] == names
    assert all(shown == names for shown in result.shown[4:])
    spans = clients(result)
    assert len(spans) == 4 * len(result.shown[3:])
    assert [span["error.type"] for span in spans[:4]] == ["httpx." + name for name in names]
    assert {span.status for span in spans} == {"error"}
    assert not any("http.response.status_code" in span.attributes for span in spans)


def test_a_cancelled_request_is_no_error_and_leaves_nothing_in_force(program: Run) -> None:
    code = (
        ASYNC
        + """
import anyio, remora, trio
async def work(client):
    with anyio.move_on_after(0.1):
        await client.get(URL + "/slow")
    return remora.current_span_id()
each(work)
async def task(client):
    task = asyncio.create_task(client.get(URL + "/slow"))
    await asyncio.sleep(0.1)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return "cancelled"
show(asyncio.run(with_client(task)))
"""
    )
    result = program(code)
    assert result.shown == [None, None, "cancelled"]
    spans = clients(result)
    assert [(span.status, span.get("error.type")) for span in spans] == [("unset", None)] * 3


def test_a_span_ends_when_the_headers_are_there(program: Run) -> None:
    code = (
        ASYNC
        + """
with httpx.stream("GET", URL + "/stream") as response:
    show(sum(len(part) for part in response.iter_bytes(512)))
with httpx.stream("GET", URL + "/stream"):
    pass
async def work(client):
    async with client.stream("GET", URL + "/stream") as response:
        async for part in response.aiter_bytes():
            break
    return len((await client.get(URL + "/stream")).content)
each(work)
"""
    )
    result = program(code)
    assert result.shown == [4096] * 3
    spans = clients(result)
    assert len(spans) == 6
    # The body takes four pauses of 150 ms.
    assert all(span.duration < 300_000_000 for span in spans)
    assert {span["http.response.status_code"] for span in spans} == {200}


def test_other_transports_are_traced_and_what_they_call_is_below(program: Run) -> None:
    code = (
        ASYNC
        + """
import flask
def handler(request):
    show(request.headers["traceparent"])
    httpx.get(URL + "/inner")
    return httpx.Response(418, text="tea")
show(httpx.Client(transport=httpx.MockTransport(handler)).get("http://mock.test/").status_code)
async def app(scope, receive, send):
    assert any(name == b"traceparent" for name, _ in scope["headers"])
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})
async def work(client):
    return (await client.get("http://asgi.test/x")).status_code
each(work, transport=httpx.ASGITransport(app=app))
web = flask.Flask("web")
web.get("/x")(lambda: "x")
show(httpx.Client(transport=httpx.WSGITransport(app=web)).get("http://wsgi.test/x").status_code)
"""
    )
    result = program(code)
    header, *rest = result.shown
    assert rest == [418, 204, 204, 200]
    mock, inner, asgi, _, wsgi = clients(result)
    assert header.split("-")[1:3] == [mock.trace_id, mock.span_id]
    assert (mock["server.address"], mock["error.type"]) == ("mock.test", "418")
    assert (inner.parent_id, inner.get("http.request.resend_count")) == (mock.span_id, None)
    assert asgi["http.response.status_code"] == 204
    assert "network.peer.address" not in asgi.attributes
    assert one(result.spans, kind="server").parent_id == wsgi.span_id


@on_releases("old", "newest")
def test_the_context_goes_by_the_wire_and_not_by_the_application_s_request(
    program: Run, upstream: Upstream, python: Python
) -> None:
    code = (
        ASYNC
        + """
def seen(response):
    return [name for name in response.request.headers if name in ("traceparent", "baggage")]
def body():
    httpx.get(URL + "/inner")
    yield b"piece"
with httpx.Client() as client:
    show(seen(client.get(URL + "/plain")))
    show(seen(client.post(URL + "/content", content=b"a\\r\\n\\r\\nb")))
    show(seen(client.post(URL + "/pieces", content=body())))
    own = {"TraceParent": "mine", "TRACEPARENT": "too", "Baggage": "k=v", "x-traceparent": "stays"}
    show(seen(client.get(URL + "/own", headers=own)))
async def work(client):
    both = await asyncio.gather(client.get(URL + "/a"), client.get(URL + "/b"))
    return [seen(one) for one in both]
show(asyncio.run(with_client(work)))
"""
    )
    result = program(code, python=python)
    assert result.shown == [[], [], [], ["traceparent", "baggage"], [[], []]]
    by_path = {received.path: received for received in upstream.received}
    spans = clients(result)
    assert len(spans) == len(by_path) == 7
    for span in spans:
        received = by_path["/" + span["url.full"].rpartition("/")[2]]
        # A repeated header would be joined here.
        assert received.headers["traceparent"] == f"00-{span.trace_id}-{span.span_id}-03"
    assert by_path["/own"].headers["x-traceparent"] == "stays"
    assert by_path["/own"].headers["baggage"] == "k=v"


def test_the_context_goes_by_the_request_where_its_head_is_not_h11_s(
    program: Run, upstream: Upstream
) -> None:
    code = (
        ASYNC
        + """
class Own(httpx.HTTPTransport):
    pass
for options in (
    {"http2": True}, {"mounts": {"all://": httpx.HTTPTransport()}}, {"transport": Own()}, {"proxy": URL},
):
    with httpx.Client(**options) as client:
        show("traceparent" in client.get(URL + "/x").request.headers)
"""
    )
    result = program(code)
    assert result.shown == [True] * 4
    assert [span.span_id for span in clients(result)] == [received.span_id for received in upstream.received]


def test_http_2_is_the_version(program: Run) -> None:
    code = (
        ASYNC
        + """
import threading, socket
import h2.config, h2.connection, h2.events
server = socket.create_server(("127.0.0.1", 0))
def serve():
    while True:
        sock, _ = server.accept()
        threading.Thread(target=answer, args=(sock,), daemon=True).start()
def answer(sock):
    conn = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    conn.initiate_connection()
    sock.sendall(conn.data_to_send())
    while data := sock.recv(65536):
        for event in conn.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                show(sum(name in ("traceparent", b"traceparent") for name, _ in event.headers))
                conn.send_headers(event.stream_id, [(":status", "200")], end_stream=True)
        sock.sendall(conn.data_to_send())
threading.Thread(target=serve, daemon=True).start()
url = f"http://127.0.0.1:{server.getsockname()[1]}/"
with httpx.Client(http1=False, http2=True) as client:
    show(client.get(url).http_version)
async def work(client):
    both = await asyncio.gather(client.get(url), client.get(url))
    return [one.http_version for one in both]
show(asyncio.run(with_client(work, http1=False, http2=True)))
"""
    )
    result = program(code)
    assert sorted(result.shown, key=str) == [1, 1, 1, "HTTP/2", ["HTTP/2"] * 2]
    spans = clients(result)
    assert [span["network.protocol.version"] for span in spans] == ["2"] * 3
    assert {span["network.peer.address"] for span in spans} == {"127.0.0.1"}


def test_excluded_and_not_sampled(program: Run, upstream: Upstream) -> None:
    code = (
        ASYNC
        + """
show(httpx.get(URL + "/redirect/1", follow_redirects=True).status_code)
async def work(client):
    return (await client.get(URL + "/redirect/1", follow_redirects=True)).status_code
each(work)
"""
    )
    result = program(code, env={"OTEL_PYTHON_HTTPX_EXCLUDED_URLS": "/redirect/1$"})
    assert result.shown == [200] * 3
    assert [span["url.full"][-1] for span in result.spans] == ["0"] * 3
    assert ["traceparent" in received.headers for received in upstream.received] == [False, True] * 3
    upstream.received.clear()
    result = program(code + "import remora; show(remora.status()['spans']['made'])", env=OFF)
    assert result.shown == [200, 200, 200, 0]
    assert len(result.spans) == 3
    assert [received.sampled for received in upstream.received] == [False] * 6


OFF = {"OTEL_TRACES_SAMPLER": "always_off"}


def test_headers_are_captured_and_old_names_stand_beside(program: Run, upstream: Upstream) -> None:
    code = """
        import httpx
        headers = {"X-Asked": "1", "Cookie": "secret"}
        httpx.get(URL.replace("//", "//scott:tiger@") + "/status/404", headers=headers)
    """
    env = {
        CAPTURE + "CLIENT_REQUEST": "x-.*,cookie",
        CAPTURE + "CLIENT_RESPONSE": "content-length",
        "OTEL_SEMCONV_STABILITY_OPT_IN": "http/dup",
    }
    [span] = program(code, env=env).spans
    assert span["http.request.header.x-asked"] == ["1"]
    assert span["http.request.header.cookie"] == ["[REDACTED]"]
    assert span["http.response.header.content-length"] == ["2"]
    assert (span["http.method"], span["http.status_code"], span["http.flavor"]) == ("GET", 404, "1.1")
    assert span["http.url"] == span["url.full"]
    assert not any(secret in str(span.raw) for secret in ("tiger", "scott", "secret"))


@on_oldest_and_newest
def test_spans_follow_across_tasks_threads_and_task_groups(program: Run, python: Python) -> None:
    code = (
        ASYNC
        + """
import anyio
async def work(client):
    async def get(n):
        await client.get(f"{URL}/{n}")
    await asyncio.gather(get(1), asyncio.create_task(get(2)))
    await asyncio.to_thread(httpx.get, URL + "/3")
    async with anyio.create_task_group() as group:
        group.start_soon(get, 4)
        group.start_soon(anyio.to_thread.run_sync, httpx.get, URL + "/5")
    return "done"
show(job(lambda: asyncio.run(with_client(work))))
def trio_work():
    import trio
    async def main():
        async with httpx.AsyncClient() as client, trio.open_nursery() as nursery:
            nursery.start_soon(client.get, URL + "/6")
            nursery.start_soon(client.get, URL + "/7")
    trio.run(main)
job(trio_work)
"""
    )
    result = program(code, python=python)
    assert result.shown == ["done"]
    first, second = find(result.spans, kind="server")
    assert len(children(result.spans, first)) == 5
    assert len(children(result.spans, second)) == 2


def test_event_hooks_run_outside_the_span(program: Run) -> None:
    code = """
        import httpx, remora
        seen = []
        hooks = {
            "request": [lambda request: seen.append(remora.current_span_id())],
            "response": [lambda response: seen.append(remora.current_span_id()) or response.raise_for_status()],
        }
        def work():
            seen.append(remora.current_span_id())
            try:
                httpx.Client(event_hooks=hooks).get(URL + "/status/500")
            except httpx.HTTPStatusError as error:
                show(error.response.status_code)
        job(work)
        show(len(set(seen)), len(seen))
    """
    result = program(code)
    assert result.shown == [500, [1, 3]]
    [span] = clients(result)
    assert span["error.type"] == "500"


def test_strange_requests_go_as_without_us(program: Run) -> None:
    code = (
        ASYNC
        + """
class Odd:
    def __getattr__(self, name): raise ValueError(name)
    def __str__(self): raise ValueError("str")
def attempt(change, method="GET", url=URL + "/x", **options):
    try:
        with httpx.Client() as client:
            request = client.build_request(method, url, **options)
            change(request)
            show(client.send(request).status_code)
    except BaseException as error:
        show(type(error).__name__, str(error)[:60].partition("0x")[0])
def change(**values):
    return lambda request: [setattr(request, name, value) for name, value in values.items()]
attempt(change(), headers={"TraceParent": "mine", "x-b": b"1".decode()})
attempt(change(), headers=[("x", "1"), ("x", "2"), (b"traceparent", b"mine"), (b"traceparent", b"too")])
attempt(change(), headers={"x": "a\\r\\nb: c"})
attempt(change(), headers={"x": "\\udc80"})
attempt(change(headers=None))
attempt(change(headers=Odd()))
attempt(change(url=Odd()))
attempt(change(url=None))
attempt(change(method=Odd()))
attempt(change(method=b"GET"))
attempt(change(extensions=None))
attempt(change(), method="brew")
attempt(change(), url=URL + "/\\udc80")
attempt(change(), url=URL + "/" + "x" * 60_000)
attempt(change(), url=URL + "/" + "x" * 10_000_000)
attempt(change(), url="http://[::1/")
attempt(lambda request: request.stream)
def odd_response(request):
    response = httpx.Response(200)
    response.extensions = {"http_version": Odd(), "network_stream": Odd()}
    response.status_code = "what"
    return response
def mocked(handler):
    try:
        show(httpx.Client(transport=httpx.MockTransport(handler)).send(httpx.Request("GET", URL)).status_code)
    except BaseException as error:
        show(type(error).__name__, str(error)[:60])
mocked(odd_response)
mocked(lambda request: Odd())
"""
    )
    traced = program(code)
    bare = program(code, env={"REMORA_ENABLED": "false"})
    assert traced.shown == bare.shown
    [span] = find(traced.spans, name="HTTP", scope="remora.httpx")[-1:]
    assert span["http.request.method"] == "_OTHER"


def test_nothing_of_the_application_is_kept(program: Run) -> None:
    code = (
        ASYNC
        + """
import gc, weakref
gc.disable()
client = httpx.Client()
response = client.get(URL)
kept = [weakref.ref(one) for one in (response, response.request, response.extensions["network_stream"])]
show([one() is not None for one in kept])
client.close()
del response, client
gc.collect()
show([one() is None for one in kept])
async def work(client):
    response = await client.get(URL)
    kept.extend(weakref.ref(one) for one in (response, response.request))
    never = client.get(URL)
    never.close()
asyncio.run(with_client(work))
gc.collect()
show([one() is None for one in kept])
"""
    )
    result = program(code)
    assert result.shown == [[True] * 3, [True] * 3, [True] * 5]


def test_an_exception_is_the_same_object_without_a_frame_of_ours(program: Run) -> None:
    code = (
        ASYNC
        + """
import traceback
error = ValueError("mine")
def handler(request):
    raise error
def told(caught):
    return [caught is error, [frame.name for frame in traceback.extract_tb(caught.__traceback__)]]
try:
    httpx.Client(transport=httpx.MockTransport(handler)).get("http://x.test/")
except ValueError as caught:
    show(told(caught))
async def work(client):
    error.__traceback__ = None
    try:
        await client.get("http://x.test/")
    except ValueError as caught:
        return told(caught)
each(work, transport=httpx.MockTransport(handler))
"""
    )
    traced = program(code)
    assert traced.shown == program(code, env={"REMORA_ENABLED": "false"}).shown
    assert {span["error.type"] for span in traced.spans} == {"ValueError"}


@on_oldest_and_newest
def test_a_module_imported_before_activation_gives_the_same_spans(program: Run, python: Python) -> None:
    code = (
        ASYNC
        + """
import inspect
client = httpx.Client(follow_redirects=True)
import remora
remora.init()
show(client.get(URL + "/redirect/1").status_code)
async def work(client):
    return (await client.get(URL)).status_code
show(asyncio.run(with_client(work)))
show(inspect.iscoroutinefunction(httpx.AsyncClient.send), inspect.iscoroutinefunction(httpx.Client.send))
show(str(inspect.signature(httpx.AsyncClient._send_single_request)))
"""
    )
    early = program(code, env={"REMORA_ENABLED": None}, python=python)
    assert early.shown[:3] == [200, 200, [True, False]]
    before = [span.attributes for span in clients(early)]
    assert [attributes.get("http.request.resend_count") for attributes in before] == [None, 1, None]
    late = program(code, python=python)
    assert late.shown == early.shown
    assert [span.attributes for span in clients(late)[3:]] == before


def test_a_release_without_the_attribute_warns_once_and_works(program: Run) -> None:
    code = """
        import httpx._client
        client = httpx._client.Client
        client._single = client._send_single_request
        del client._send_single_request
        client.__getattr__ = lambda self, name: object.__getattribute__(self, "_single")
        import remora
        remora.init()
        show(httpx.get(URL).status_code)
    """
    result = program(code, quiet=False, env={"REMORA_ENABLED": None})
    assert result.shown == [200]
    [line] = result.agent_lines
    assert "'httpx' cannot wrap httpx._client:Client._send_single_request" in line


def test_the_fork_httpx2_is_traced_alike(program: Run, upstream: Upstream) -> None:
    code = (
        ASYNC.replace("httpx", "httpx2")
        + """
show(httpx2.get(URL + "/redirect/1", follow_redirects=True).status_code)
async def work(client):
    return (await client.get(URL + "/redirect/1", follow_redirects=True)).status_code
each(work)
"""
    )
    result = program(code)
    assert result.shown == [200] * 3
    spans = clients(result)
    assert [span.get("http.request.resend_count") for span in spans] == [None, 1] * 3
    assert [span.span_id for span in spans] == [received.span_id for received in upstream.received]
    assert {span["network.peer.port"] for span in spans} == {upstream.port}


@on_releases("old", "newest")
def test_the_url_is_as_httpx_writes_it(program: Run, python: Python) -> None:
    code = """
import httpx
def answer(request):
    return httpx.Response(200)
with httpx.Client(transport=httpx.MockTransport(answer)) as client:
    for url in (
        "http://h", "http://h?", "http://h:80/", "https://h:443/x", "http://h:8080/a%20b?c=d%26&e", "HTTP://H/A",
        "http://[::1]:8080/x?y", "http://xn--bcher-kva.example/", "http://b\u00fccher.example/\u00e4?\u00e4=1",
        "http://h/x#part", "http://h/?a=1#part", "http://h/?a=b?c=d", "http://h//x",
    ):
        show(str(client.get(url).request.url))
"""
    result = program(code, python=python)
    assert [span["url.full"] for span in clients(result)] == result.shown
