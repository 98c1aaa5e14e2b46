"""aiohttp's client: one CLIENT span for each call of a session."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.certificates import Certificates
from support.pythons import Python, on_oldest_and_newest, on_releases

from .aiohttp_program import APP, clients, servers
from .conftest import Program, Upstream
from .expected import of_client

Run = Callable[..., Program]

CAPTURE = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_"
# `go(work)` runs `work(session)`.
SESSION = """
import asyncio, aiohttp
def go(work, **options):
    async def main():
        async with aiohttp.ClientSession(**options) as session:
            return await work(session)
    return asyncio.run(main())
"""


def check_one_request(program: Run, upstream: Upstream, python: Python) -> None:
    code = SESSION + (
        "async def work(session):\n"
        "    async with session.get(URL + '/status/200', params={'a': 'b'}) as response:\n"
        "        show(response.status, await response.text())\n"
        "go(work)\n"
    )
    result = program(code, python=python)
    assert result.shown == [[200, "ok"]]
    [span] = result.spans
    assert (span.name, span.kind, span.status, span.parent_id) == ("GET", "client", "unset", None)
    assert span.scope == "remora.aiohttp-client"
    assert span.attributes == of_client(upstream, "/status/200?a=b")
    [received] = upstream.received
    assert (received.trace_id, received.span_id, received.sampled) == (span.trace_id, span.span_id, True)


@on_oldest_and_newest
def test_a_request_is_one_client_span_with_the_stable_attributes(
    program: Run, upstream: Upstream, python: Python
) -> None:
    check_one_request(program, upstream, python)


@on_releases("old")
def test_so_it_is_with_an_old_release(program: Run, upstream: Upstream, python: Python) -> None:
    check_one_request(program, upstream, python)


REDIRECTS = SESSION + (
    "async def work(session):\n"
    "    async with session.get(URL + '/redirect/2') as response:\n"
    "        show([r.status for r in response.history], response.status)\n"
    "go(work)\n"
)


def check_redirects(program: Run, upstream: Upstream, python: Python) -> None:
    result = program(REDIRECTS, python=python)
    assert result.shown == [[[302, 302], 200]]
    [span] = result.spans
    assert span["url.full"] == f"{upstream.url}/redirect/2"
    assert (span["http.response.status_code"], span["http.request.resend_count"]) == (200, 2)
    assert [received.span_id for received in upstream.received] == [span.span_id] * 3


@on_oldest_and_newest
def test_redirects_are_one_span_that_counts_them_with_its_header_on_every_hop(
    program: Run, upstream: Upstream, python: Python
) -> None:
    check_redirects(program, upstream, python)


@on_releases("old")
def test_so_are_redirects_with_an_old_release(program: Run, upstream: Upstream, python: Python) -> None:
    check_redirects(program, upstream, python)


def test_too_many_redirects_are_an_error_of_the_one_span(program: Run) -> None:
    code = SESSION + (
        "async def work(session):\n"
        "    try:\n"
        "        await session.get(URL + '/redirect/5', max_redirects=3)\n"
        "    except aiohttp.TooManyRedirects as error:\n"
        "        show(len(error.history))\n"
        "go(work)\n"
    )
    result = program(code)
    assert result.shown == [3]
    [span] = result.spans
    assert (span.status, span["error.type"]) == ("error", "aiohttp.client_exceptions.TooManyRedirects")
    assert span["http.request.resend_count"] == 2


def test_from_400_on_the_status_code_is_the_error_with_and_without_raise_for_status(program: Run) -> None:
    code = SESSION + (
        "async def work(session):\n"
        "    for code in (200, 201, 404, 500):\n"
        "        async with session.get(f'{URL}/status/{code}') as response:\n"
        "            pass\n"
        "        try:\n"
        "            await session.get(f'{URL}/status/{code}', raise_for_status=True)\n"
        "        except aiohttp.ClientResponseError as error:\n"
        "            show(error.status)\n"
        "go(work)\n"
    )
    result = program(code)
    assert result.shown == [404, 500]
    got = [
        (span["http.response.status_code"], span.status, span.get("error.type"), span.status_message)
        for span in clients(result)
    ]
    ok = [(code, "unset", None, "") for code in (200, 201)]
    bad = [(code, "error", str(code), "") for code in (404, 500)]
    assert got == [one for one in ok + bad for _ in range(2)]
    assert all(span.events == [] for span in result.spans)


ENDS = SESSION + (
    "async def attempt(coroutine):\n"
    "    try:\n"
    "        await coroutine\n"
    "    except BaseException as error:\n"
    "        frames, at = [], error.__traceback__\n"
    "        while at:\n"
    "            frames.append(at.tb_frame.f_code.co_name)\n"
    "            at = at.tb_next\n"
    "        show(type(error).__name__, frames.count('_request') > 1 or 'driver' in frames)\n"
    "async def work(session):\n"
    "    await attempt(session.get(URL + '/drop'))\n"
    "    await attempt(session.get('http://127.0.0.1:1/refused', params={'a': 1}))\n"
    "    await attempt(session.get(URL + '/slow', timeout=aiohttp.ClientTimeout(total=0.1)))\n"
    "    await attempt(session.get(URL + '/slow', timeout=aiohttp.ClientTimeout(sock_read=0.1)))\n"
    "    await attempt(asyncio.wait_for(session._request('GET', URL + '/slow'), 0.1))\n"
    "    task = asyncio.create_task(session._request('GET', URL + '/slow'))\n"
    "    await asyncio.sleep(0.1)\n"
    "    task.cancel()\n"
    "    await attempt(task)\n"
    "    await attempt(session.get('nowhere'))\n"
    "go(work)\n"
)


@on_oldest_and_newest
def test_without_a_response_the_exception_is_the_error_and_a_cancellation_is_none(
    program: Run, python: Python
) -> None:
    result = program(ENDS, python=python)
    names = [
        "ServerDisconnectedError", "ClientConnectorError", "TimeoutError", "SocketTimeoutError",
        "TimeoutError", "CancelledError", "InvalidUrlClientError",
    ]  # fmt: skip
    assert result.shown == [[name, False] for name in names]
    spans = clients(result)
    module = "aiohttp.client_exceptions."
    assert [span.get("error.type") for span in spans] == [
        module + "ServerDisconnectedError",
        module + "ClientConnectorError",
        "TimeoutError",
        module + "SocketTimeoutError",
        # The caller gave up: what ends here is cancelled.
        None,
        None,
        module + "InvalidUrlClientError",
    ]
    assert [span.status for span in spans] == ["error"] * 4 + ["unset"] * 2 + ["error"]
    assert spans[1]["url.full"] == "http://127.0.0.1:1/refused?a=1"
    assert spans[6]["url.full"] == "nowhere"
    # An idempotent request on a connection that was dropped is sent a second time.
    assert spans[0].get("http.request.resend_count") == 1
    assert all("http.response.status_code" not in span.attributes for span in spans)


def test_a_dead_kept_connection_is_a_resend_of_the_same_span(program: Run) -> None:
    code = APP + (
        "@routes.get('/dies')\n"
        "async def dies(request):\n"
        "    request.app['seen'] = request.app.get('seen', 0) + 1\n"
        "    if request.app['seen'] == 2:\n"
        "        request.transport.abort()\n"
        "    return web.Response(text='x')\n"
        "import warnings; warnings.simplefilter('ignore')\n"
        "async def work(session, url):\n"
        "    for _ in range(2):\n"
        "        async with session.get(url + '/dies') as response:\n"
        "            show(response.status)\n"
        "            await response.read()\n"
        "serve(work)\n"
    )
    result = program(code)
    assert result.shown == [200, 200]
    first, second = clients(result)
    assert (first.get("http.request.resend_count"), second["http.request.resend_count"]) == (None, 1)
    assert [span.parent_id for span in servers(result)] == [first.span_id, second.span_id, second.span_id]


def test_a_span_ends_at_the_headers_and_the_body_is_the_application_s(program: Run) -> None:
    code = SESSION + (
        "async def work(session):\n"
        "    async with session.get(URL + '/stream') as response:\n"
        "        show(len(b''.join([piece async for piece in response.content.iter_chunked(512)])))\n"
        "    async with session.get(URL + '/stream') as response:\n"
        "        show(len(await response.content.read(10)))\n"
        "go(work)\n"
    )
    result = program(code)
    assert result.shown[0] == 4096
    # The body takes four pauses of 150 ms.
    assert [span.duration < 300_000_000 for span in clients(result)] == [True, True]


@on_oldest_and_newest
def test_the_peer_is_the_connection_s_of_the_last_hop_however_it_ended(
    program: Run, upstream: Upstream, python: Python
) -> None:
    """Kept, given back with its body before the call returned, closed by the server, reached by a name."""
    code = APP + (
        "async def work(session, url):\n"
        "    named = URL.replace('127.0.0.1', 'localhost')\n"
        "    connector = aiohttp.TCPConnector(limit=1)\n"
        "    async with aiohttp.ClientSession(connector=connector, requote_redirect_url=False) as one:\n"
        "        for path in ('/small', '/stream', '/status/200'):\n"
        "            async with one.get(named + path) as response:\n"
        "                show(len(await response.read()))\n"
        "        async with one.head(url + '/away', allow_redirects=True) as response:\n"
        "            show(response.status, response.connection is None)\n"
        "        try:\n"
        "            await one.get(URL + '/drop')\n"
        "        except aiohttp.ServerDisconnectedError:\n"
        "            show('dropped')\n"
        "@routes.get('/away')\n"
        "async def away(request):\n"
        "    raise web.HTTPFound(URL + '/small')\n"
        "serve(work)\n"
    )
    result = program(code, python=python)
    assert result.shown == [2, 4096, 2, [200, True], "dropped"]
    peers = [(span["network.peer.address"], span["network.peer.port"]) for span in clients(result)]
    assert peers == [("127.0.0.1", upstream.port)] * 5
    assert [span["server.address"] for span in clients(result)][:3] == ["localhost"] * 3


def test_a_unix_socket_s_peer_is_its_path_and_no_connection_has_none(program: Run, tmp_path: Path) -> None:
    code = SESSION + (
        "from aiohttp import web\n"
        f"path = {str(tmp_path / 's')!r}\n"
        "async def main():\n"
        "    app = web.Application()\n"
        "    async def hello(request): return web.Response(text='hello')\n"
        "    app.router.add_get('/', hello)\n"
        "    runner = web.AppRunner(app)\n"
        "    await runner.setup()\n"
        "    await web.UnixSite(runner, path).start()\n"
        "    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session:\n"
        "        for _ in range(2):\n"
        "            async with session.get('http://local/') as response:\n"
        "                show(await response.text())\n"
        "    async with aiohttp.ClientSession() as session:\n"
        "        try:\n"
        "            await session.get('http://127.0.0.1:1/')\n"
        "        except aiohttp.ClientConnectorError:\n"
        "            show('refused')\n"
        "    await runner.cleanup()\n"
        "asyncio.run(main())\n"
    )
    result = program(code)
    assert result.shown == ["hello", "hello", "refused"]
    spans = clients(result)
    peers = [(span.get("network.peer.address"), span.get("network.peer.port")) for span in spans]
    assert peers == [(str(tmp_path / "s"), None)] * 2 + [(None, None)]
    assert spans[0]["server.address"] == "local"


def test_over_tls_the_peer_is_the_socket_s(program: Run, tmp_path: Path, certificates: Certificates) -> None:
    code = SESSION + (
        "import ssl\n"
        "from aiohttp import web\n"
        "async def main():\n"
        "    app = web.Application()\n"
        "    async def hello(request): return web.Response(text='hello')\n"
        "    app.router.add_get('/', hello)\n"
        "    runner = web.AppRunner(app)\n"
        "    await runner.setup()\n"
        "    inside = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)\n"
        f"    inside.load_cert_chain({str(certificates.server_cert)!r}, {str(certificates.server_key)!r})\n"
        "    site = web.TCPSite(runner, '127.0.0.1', 0, ssl_context=inside)\n"
        "    await site.start()\n"
        "    port = site._server.sockets[0].getsockname()[1]\n"
        f"    trusted = ssl.create_default_context(cafile={str(certificates.ca)!r})\n"
        "    async with aiohttp.ClientSession() as session:\n"
        "        async with session.get(f'https://127.0.0.1:{port}/', ssl=trusted) as response:\n"
        "            show(await response.text(), port)\n"
        "    await runner.cleanup()\n"
        "asyncio.run(main())\n"
    )
    result = program(code)
    [[text, port]] = result.shown
    [span] = clients(result)
    assert (text, span["network.peer.address"], span["network.peer.port"]) == ("hello", "127.0.0.1", port)


def test_base_url_credentials_and_secrets(program: Run, upstream: Upstream) -> None:
    code = SESSION + (
        "async def work(session):\n"
        "    async with session.get('/x', params={'sig': 'hidden', 'a': '1'}) as response:\n"
        "        show(response.status)\n"
        "go(work, base_url=URL.replace('//', '//scott:tiger@'))\n"
    )
    result = program(code)
    [span] = result.spans
    assert span["url.full"] == f"{upstream.url}/x?sig=REDACTED&a=1"
    assert not any(secret in str(span.raw) for secret in ("tiger", "scott", "hidden"))
    assert upstream.received[0].headers["authorization"].startswith("Basic ")


def test_the_application_s_own_header_is_overwritten_and_its_mapping_untouched(
    program: Run, upstream: Upstream
) -> None:
    code = SESSION + (
        "async def work(session):\n"
        "    headers = {'TraceParent': 'old', 'X-Own': 'a'}\n"
        "    await session.get(URL, headers=headers)\n"
        "    show(headers)\n"
        "go(work)\n"
    )
    result = program(code)
    assert result.shown == [{"TraceParent": "old", "X-Own": "a"}]
    assert [one.span_id for one in upstream.received] == [result.spans[0].span_id]


def test_a_client_middleware_that_sends_twice_makes_one_span_and_its_own_requests_their_own(
    program: Run, upstream: Upstream
) -> None:
    code = SESSION + (
        "async def again(request, handler):\n"
        "    response = await handler(request)\n"
        "    response.release()\n"
        "    async with request.session.get(URL + '/token', middlewares=()) as token:\n"
        "        await token.read()\n"
        "    return await handler(request)\n"
        "async def work(session):\n"
        "    async with session.get(URL + '/main') as response:\n"
        "        show(response.status)\n"
        "go(work, middlewares=(again,))\n"
    )
    result = program(code)
    main, token = clients(result)
    assert main["url.full"].endswith("/main")
    assert main["http.request.resend_count"] == 1
    assert token["url.full"].endswith("/token")
    assert token.parent_id == main.span_id
    assert upstream.paths() == ["/main", "/token", "/main"]
    assert [one.span_id for one in upstream.received] == [main.span_id, token.span_id, main.span_id]


def test_an_excluded_request_of_a_middleware_is_no_hop_of_the_one_around_it(
    program: Run, upstream: Upstream
) -> None:
    code = SESSION + (
        "async def fetching(request, handler):\n"
        "    async with request.session.get(URL + '/token', middlewares=()) as token:\n"
        "        await token.read()\n"
        "    return await handler(request)\n"
        "async def work(session):\n"
        "    async with session.get(URL + '/main') as response:\n"
        "        show(response.status)\n"
        "go(work, middlewares=(fetching,))\n"
    )
    result = program(code, env={"OTEL_PYTHON_AIOHTTP_CLIENT_EXCLUDED_URLS": "/token"})
    assert result.shown == [200]
    [span] = result.spans
    assert span.attributes == of_client(upstream, "/main")
    token, main = (received.headers for received in upstream.received)
    assert ("traceparent" in token, main["traceparent"].split("-")[2]) == (False, span.span_id)


def test_tasks_that_run_side_by_side_have_the_parent_of_where_they_were_made(
    program: Run, upstream: Upstream
) -> None:
    code = APP + (
        "@routes.get('/fan')\n"
        "async def fan(request):\n"
        "    async def one(at):\n"
        "        async with aiohttp.ClientSession() as session, session.get(f'{URL}/{at}') as response:\n"
        "            return response.status\n"
        "    return web.json_response(await asyncio.gather(*map(one, range(5))))\n"
        "async def work(session, url):\n"
        "    async with session.get(url + '/fan') as response:\n"
        "        show(await response.json())\n"
        "    show(remora.current_trace_id())\n"
        "serve(work)\n"
    )
    result = program(code)
    assert result.shown == [[200] * 5, None]
    [server] = servers(result)
    inner = [span for span in clients(result) if span.parent_id == server.span_id]
    assert len(inner) == 5
    assert {one.span_id for one in upstream.received} == {span.span_id for span in inner}


def test_an_unsampled_request_has_no_span_and_a_header_that_says_so(program: Run, upstream: Upstream) -> None:
    result = program(REDIRECTS, env={"OTEL_TRACES_SAMPLER": "always_off"})
    assert result.spans == []
    assert [one.sampled for one in upstream.received] == [False] * 3
    assert len({one.span_id for one in upstream.received}) == 1


def test_excluded_urls_and_captured_headers(program: Run, upstream: Upstream) -> None:
    code = SESSION + (
        "async def work(session):\n"
        "    headers = {'X-Asked': '1', 'Cookie': 'secret'}\n"
        "    await session.get('/hidden', headers=headers)\n"
        "    await session.get('/seen', headers=headers)\n"
        "go(work, base_url=URL)\n"
    )
    env = {
        "OTEL_PYTHON_AIOHTTP_CLIENT_EXCLUDED_URLS": "http://127.0.0.1:[0-9]+/hidden$",
        CAPTURE + "CLIENT_REQUEST": "x-asked,cookie",
        CAPTURE + "CLIENT_RESPONSE": "content-length",
    }
    [span] = program(code, env=env).spans
    assert span["url.full"] == upstream.url + "/seen"
    assert span["http.request.header.x-asked"] == ["1"]
    assert span["http.request.header.cookie"] == ["[REDACTED]"]
    assert span["http.response.header.content-length"] == ["2"]
    assert ["traceparent" in one.headers for one in upstream.received] == [False, True]


def test_old_names_stand_beside_the_stable_ones(program: Run, upstream: Upstream) -> None:
    code = SESSION + "async def work(session): await session.get(URL + '/x')\ngo(work)\n"
    [span] = program(code, env={"OTEL_SEMCONV_STABILITY_OPT_IN": "http/dup"}).spans
    assert span["http.url"] == span["url.full"] == upstream.url + "/x"
    assert (span["http.method"], span["http.status_code"], span["net.peer.port"]) == (
        "GET", 200, upstream.port,
    )  # fmt: skip


@pytest.mark.parametrize("what", ["response", "session"])
def test_nothing_of_a_call_is_kept_after_it(program: Run, what: str) -> None:
    code = SESSION + (
        "import gc, weakref\n"
        "async def main():\n"
        "    session = aiohttp.ClientSession()\n"
        "    response = await session.get(URL)\n"
        "    await response.read()\n"
        "    await session.close()\n"
        f"    return weakref.ref({what})\n"
        "reference = asyncio.run(main())\n"
        "gc.collect()\n"
        "show(reference() is None)\n"
    )
    assert program(code).shown == [True]


def test_arguments_that_are_none_raise_as_they_do_without_the_agent(program: Run) -> None:
    code = SESSION + (
        "class Odd:\n"
        "    def __str__(self): raise ValueError('odd')\n"
        "    __repr__ = __str__\n"
        "async def work(session):\n"
        "    for method, url in ((1, URL), ('GET', 7), ('GET', Odd()), ('G\\udc80', URL), ('GET', b'http://x')):\n"
        "        try:\n"
        "            await session.request(method, url)\n"
        "        except Exception as error:\n"
        "            show(type(error).__name__)\n"
        "    try:\n"
        "        session._request()\n"
        "    except TypeError:\n"
        "        show('at the call')\n"
        "    async with session.get(URL + '/' + 'x' * 60000) as response:\n"
        "        show(response.status)\n"
        "    async with session.get(URL + '/caf\\u00e9') as response:\n"
        "        show(response.status)\n"
        "go(work)\n"
    )
    traced = program(code)
    bare = program(code, env={"REMORA_ENABLED": None})
    assert traced.shown == bare.shown
    last = traced.spans[-1]
    assert last["url.full"].endswith("/caf%C3%A9")


def test_what_is_known_of_a_url_is_of_that_url(program: Run, upstream: Upstream) -> None:
    """Of one that is asked for again and again it is kept, by the object; not of a very long one."""
    code = SESSION + (
        "import gc\n"
        "paths = ['/status/200?a=%d' % n for n in range(12)] + ['/status/200?sig=secret', '/status/200?a=' + 'x' * 3000]\n"
        "async def work(session):\n"
        "    for path in ['/status/201', *paths, '/status/201'] * 2 + [path for path in paths[-5:] for _ in range(4)]:\n"
        "        for method in ('GET', 'POST'):\n"
        "            async with session.request(method, URL + path) as response:\n"
        "                await response.read()\n"
        "        show(path)\n"
        "        gc.collect(0)\n"
        "go(work)\n"
    )
    result = program(code)
    asked = [path for path in result.shown for _ in range(2)]
    assert [span["url.full"] for span in result.spans] == [
        upstream.url + path.replace("sig=secret", "sig=REDACTED") for path in asked
    ]
    assert [span.name for span in result.spans] == ["GET", "POST"] * (len(asked) // 2)


@on_releases("old", "newest")
def test_the_url_is_as_yarl_writes_it(program: Run, python: Python) -> None:
    code = SESSION + (
        "from yarl import URL as Url\n"
        "class Dead:\n"
        "    _protocol = protocol = transport = None\n"
        "    def close(self):\n"
        "        pass\n"
        "class Nowhere(aiohttp.TCPConnector):\n"
        "    connected = False\n"
        "    async def connect(self, *args, **options):\n"
        "        if self.connected:\n"
        "            return Dead()\n"
        "        raise aiohttp.ClientConnectionError('nowhere')\n"
        "async def work(session):\n"
        "    for url in (\n"
        "        'http://h', 'http://h?', 'http://h:80/', 'https://h:443/x', 'http://h:8080/a%20b?c=d%26&e', 'HTTP://H/A',\n"
        "        'http://[::1]:8080/x?y', 'http://b\u00fccher.example/\u00e4?\u00e4=1', 'http://h/x#part',\n"
        "        'http://h/?a=b?c=d', 'http://h//x', 'https://h:80/', 'http://h:8443/', Url('http://h/%2F', encoded=True),\n"
        "    ):\n"
        "        try:\n"
        "            await session.get(url)\n"
        "        except (aiohttp.ClientConnectionError, AssertionError):\n"
        "            show(str(Url(url).with_fragment(None)))\n"
        "async def main():\n"
        "    async with aiohttp.ClientSession(connector=Nowhere()) as session:\n"
        "        await work(session)\n"
        "        Nowhere.connected = True\n"
        "        await work(session)\n"
        "asyncio.run(main())\n"
    )
    result = program(code, python=python)
    assert [span["url.full"] for span in clients(result)] == result.shown
    assert len(result.shown) == 28


@on_releases("old", "newest")
def test_the_context_goes_by_the_wire_and_not_by_the_application_s_request(
    program: Run, upstream: Upstream, python: Python
) -> None:
    code = SESSION + (
        "def seen(response):\n"
        "    return [name.lower() for name in response.request_info.headers if name.lower() in ('traceparent', 'baggage')]\n"
        "async def pieces():\n"
        "    yield b'piece'\n"
        "async def work(session):\n"
        "    own = {'TraceParent': 'mine', 'Baggage': 'k=v', 'x-traceparent': 'stays'}\n"
        "    for path, options in (\n"
        "        ('/plain', {}), ('/text', {'data': b'a\\r\\n\\r\\nb'}), ('/pieces', {'data': pieces()}), ('/own', {'headers': own}),\n"
        "    ):\n"
        "        async with session.post(URL + path, **options) as response:\n"
        "            show(seen(response))\n"
        "go(work)\n"
    )
    result = program(code, python=python)
    assert result.shown == [[], [], [], ["traceparent", "baggage"]]
    for span, received in zip(clients(result), upstream.received, strict=True):
        # A repeated header would be joined here.
        assert received.headers["traceparent"] == f"00-{span.trace_id}-{span.span_id}-03"
    own = upstream.received[-1].headers
    assert (own["x-traceparent"], own["baggage"]) == ("stays", "k=v")


def test_a_release_that_puts_the_head_together_otherwise_sends_the_header_too(
    program: Run, upstream: Upstream
) -> None:
    """Its writer has no function of the name that we wrap, which is no fault: the header goes into the request's own."""
    code = (
        """
import re, sys
from importlib.machinery import PathFinder, SourceFileLoader
class Renaming(SourceFileLoader):
    def get_code(self, name):
        source = self.get_source(name)
        return self.source_to_code(re.sub(r"(?<![\\w.])_serialize_headers", "_put_together", source), self.path)
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "aiohttp.http_writer":
            spec = PathFinder.find_spec(name, path)
            spec.loader = Renaming(spec.loader.name, spec.loader.path)
            return spec
# Behind the agent, whose hook would else not see the module.
sys.meta_path.insert(1, Finder)
"""
        + SESSION
        + """
async def work(session):
    await session.get(URL)
go(work)
import aiohttp.http_writer, remora
hook = remora.status()["hooks"]["aiohttp-client"]
show(hasattr(aiohttp.http_writer, "_serialize_headers"), hook["state"], [t["state"] for t in hook["targets"]])
"""
    )
    result = program(code)
    assert result.shown == [[False, "applied", ["applied", "applied", "unneeded"]]]
    assert [one.span_id for one in upstream.received] == [result.spans[0].span_id]
