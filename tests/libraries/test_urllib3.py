"""urllib3: one CLIENT span for each attempt."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.otlp import Span, children, find, one
from support.process import Result
from support.pythons import Python, on_oldest_and_newest, on_releases

from .conftest import Program, Upstream
from .expected import of_client

Run = Callable[..., Program]

CAPTURE = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_"


def clients(result: Result) -> list[Span]:
    """Their spans in order."""
    return find(result.spans, kind="client", scope="remora.urllib3")


@on_oldest_and_newest
def test_a_request_is_one_client_span_with_the_stable_attributes(
    program: Run, upstream: Upstream, python: Python
) -> None:
    code = """
        import urllib3
        pool = urllib3.PoolManager()
        for _ in range(2):
            show(pool.request("GET", URL + "/status/200?a=b&sig=secret").status)
    """
    result = program(code, python=python)
    assert result.shown == [200, 200]
    # On the second request the connection and what is known of it are used again.
    for span, received in zip(result.spans, upstream.received, strict=True):
        assert (span.name, span.kind, span.status, span.parent_id) == ("GET", "client", "unset", None)
        assert span.scope == "remora.urllib3"
        assert span.attributes == of_client(upstream, "/status/200?a=b&sig=REDACTED")
        assert (received.trace_id, received.span_id, received.sampled) == (span.trace_id, span.span_id, True)


ATTEMPTS = """
import urllib3
from urllib3.util import Retry
again = Retry(4, status_forcelist=[503], backoff_factor=0)
manager = urllib3.PoolManager()
pool = urllib3.connection_from_url(URL)
def work():
    show(manager.request("GET", URL + "/redirect/2").status)
    show(manager.request("GET", URL + "/flaky/2", retries=again).status)
    show(pool.request("GET", "/redirect/1").status)
    show(pool.request("GET", "/flaky/1", retries=again).status)
    show(pool.request("GET", "/x").status)
job(work)
"""


@on_releases("old", "middle", "newest")
def test_retries_and_redirects_are_siblings_that_are_counted(
    program: Run, upstream: Upstream, python: Python
) -> None:
    result = program(ATTEMPTS, python=python)
    assert result.shown == [200] * 5
    spans = children(result.spans, one(result.spans, kind="server"))
    assert [(span["http.response.status_code"], span.get("http.request.resend_count")) for span in spans] == [
        *((302, None), (302, 1), (200, 2)),
        *((503, None), (503, 1), (200, 2)),
        *((302, None), (200, 1)),
        *((503, None), (200, 1)),
        (200, None),
    ]
    assert [span["url.full"].removeprefix(upstream.url) for span in spans[:3]] == [
        "/redirect/2",
        "/redirect/1",
        "/redirect/0",
    ]
    assert [span.span_id for span in spans] == [received.span_id for received in upstream.received]
    assert {span["network.peer.port"] for span in spans} == {upstream.port}
    assert all("," not in received.headers["traceparent"] for received in upstream.received)


@pytest.mark.parametrize(("code", "error"), [(200, None), (302, None), (404, "404"), (500, "500")])
def test_from_400_on_the_status_code_is_the_error(program: Run, code: int, error: str | None) -> None:
    result = program(f"import urllib3; urllib3.PoolManager().request('GET', URL + '/status/{code}')")
    [span] = result.spans
    assert (span["http.response.status_code"], span.get("error.type")) == (code, error)
    assert (span.status, span.status_message) == ("error" if error else "unset", "")


@on_releases("old", "newest")
def test_without_a_response_the_exception_is_the_error(
    program: Run, upstream: Upstream, python: Python
) -> None:
    code = """
        import urllib3
        from urllib3.exceptions import HTTPError
        for url, options in (
            (URL + "/slow", {"timeout": 0.1, "retries": False}),
            ("http://127.0.0.1:1/", {"retries": False}),
            (URL + "/drop", {"retries": False}),
            ("http://127.0.0.1:1/", {"retries": urllib3.Retry(1, backoff_factor=0)}),
        ):
            try:
                urllib3.PoolManager().request("GET", url, **options)
            except HTTPError as error:
                show(type(error).__name__)
    """
    # It warns of retries through logging's last resort.
    result = program(code, python=python, quiet=False)
    timeout, refused, dropped, first, second = clients(result)
    assert result.shown == ["ReadTimeoutError", "NewConnectionError", "ProtocolError", "MaxRetryError"]
    assert timeout["error.type"] == "urllib3.exceptions.ReadTimeoutError"
    assert refused["error.type"] == "urllib3.exceptions.NewConnectionError"
    assert dropped["error.type"] == "http.client.RemoteDisconnected"
    assert [span.get("http.request.resend_count") for span in (first, second)] == [None, 1]
    assert {span.status for span in result.spans} == {"error"}
    assert not any("http.response.status_code" in span.attributes for span in result.spans)
    assert timeout["network.peer.port"] == upstream.port
    assert "network.peer.address" not in refused.attributes


@on_oldest_and_newest
def test_the_application_s_headers_are_never_written_to(
    program: Run, upstream: Upstream, python: Python
) -> None:
    code = """
        import urllib3
        class Mine(urllib3._collections.HTTPHeaderDict): pass
        pool = urllib3.connection_from_url(URL)
        many = urllib3._collections.HTTPHeaderDict({"x-own": "1"})
        many.add("x-own", "2")
        for headers in (None, {}, {"TraceParent": "mine", "X-Own": "1"}, many, Mine({"traceparent": "mine"})):
            before = None if headers is None else list(headers.items())
            pool.request("GET", "/x", headers=headers)
            conn = pool._get_conn()
            # As behind a proxy's tunnel, where `urlopen` makes no copy.
            pool._make_request(conn, "GET", "/x", headers=headers, **MORE).read()
            pool._put_conn(conn)
            show(headers is None or list(headers.items()) == before)
    """
    more = "MORE = {'preload_content': True}\n"
    result = program(more + "\n".join(line[8:] for line in code.splitlines()), python=python)
    assert result.shown == [True] * 5
    spans = clients(result)
    assert [received.headers["traceparent"].split("-")[2] for received in upstream.received] == [
        span.span_id for span in spans
    ]
    assert [received.headers.get("x-own") for received in upstream.received[4:8]] == [
        "1",
        "1",
        "1, 2",
        "1, 2",
    ]


@on_oldest_and_newest
def test_a_server_that_closes_is_a_peer_as_well(program: Run, upstream: Upstream, python: Python) -> None:
    code = """
        import urllib3
        show(urllib3.PoolManager().request("GET", URL + "/x", headers={"connection": "close"}).status)
    """
    result = program(code, python=python)
    [span] = clients(result)
    assert (result.shown, span["network.peer.port"]) == ([200], upstream.port)


def test_a_connection_with_an_end_of_its_own_gets_the_header_as_every_other(
    program: Run, upstream: Upstream
) -> None:
    code = """
        import http.client, urllib3
        class Own(urllib3.connection.HTTPConnection):
            def endheaders(self, message_body=None, *, encode_chunked=False):
                self._send_output(message_body, encode_chunked=encode_chunked)
                self._HTTPConnection__state = "Request-sent"
        pool = urllib3.HTTPConnectionPool("127.0.0.1", PORT)
        pool.ConnectionCls = Own
        show(pool.request("GET", "/x", headers={"traceparent": "mine"}).status)
        plain = http.client.HTTPConnection("127.0.0.1", PORT)
        plain.request("GET", "/plain", headers={"traceparent": "mine"})
        show(plain.getresponse().status)
    """
    code = "\n".join(line[8:] for line in code.splitlines())
    result = program(f"PORT = {upstream.port}\n{code}")
    assert result.shown == [200, 200]
    [span] = clients(result)
    by_urllib3, plain = (received.headers["traceparent"] for received in upstream.received)
    assert by_urllib3.startswith(f"00-{span.trace_id}-{span.span_id}-")
    assert plain == "mine"


def test_where_requests_makes_the_span_it_has_the_peer_and_there_is_no_other(
    program: Run, upstream: Upstream
) -> None:
    code = """
        import requests
        from requests.adapters import HTTPAdapter
        from urllib3.util import Retry
        session = requests.Session()
        session.mount(URL, HTTPAdapter(max_retries=Retry(3, status_forcelist=[503], backoff_factor=0)))
        show(session.get(URL + "/flaky/2").status_code)
        show(session.get(URL + "/redirect/1").status_code)
        show(session.get(URL + "/stream", stream=True).status_code)
    """
    result = program(code)
    assert result.shown == [200] * 3
    assert {span.scope for span in result.spans} == {"remora.requests"}
    assert [span.get("http.request.resend_count") for span in result.spans] == [2, None, 1, None]
    # Also where the server closes the connection after its answer.
    for span in result.spans:
        assert (span["network.peer.address"], span["network.peer.port"]) == ("127.0.0.1", upstream.port)


def test_what_another_client_s_request_sends_besides_is_a_request_of_its_own(
    program: Run, upstream: Upstream
) -> None:
    """A token for it, a part of its body: by urllib3, inside the other's request."""
    code = """
        import asyncio, aiohttp, httpx, requests, urllib3
        pool = urllib3.PoolManager()
        async def by_middleware():
            async def middleware(request, handler):
                await asyncio.to_thread(pool.request, "GET", URL + "/token?aiohttp")
                return await handler(request)
            async with aiohttp.ClientSession(middlewares=(middleware,)) as session:
                async with session.get(URL + "/outer?aiohttp") as response:
                    await response.read()
        class Transport(httpx.HTTPTransport):
            def handle_request(self, request):
                pool.request("GET", URL + "/token?httpx")
                return super().handle_request(request)
        class Adapter(requests.adapters.HTTPAdapter):
            def send(self, request, **options):
                pool.request("GET", URL + "/token?requests")
                return super().send(request, **options)
        def body(path):
            pool.request("GET", URL + path)
            yield b"piece"
        def work():
            asyncio.run(by_middleware())
            with httpx.Client(transport=Transport()) as client:
                client.get(URL + "/outer?httpx")
            with requests.Session() as session:
                session.mount(URL, Adapter())
                session.get(URL + "/outer?requests")
            httpx.post(URL + "/outer?httpx-body", content=body("/token?httpx-body"))
            requests.post(URL + "/outer?requests-body", data=body("/token?requests-body"))
        job(work)
    """
    result = program(code)
    outer = children(result.spans, one(result.spans, kind="server"))
    assert [span.scope.removeprefix("remora.") for span in outer] == [
        *("aiohttp-client", "httpx", "requests", "httpx", "requests"),
    ]
    by_path = {received.path: received for received in upstream.received}
    assert len(result.spans) - 1 == len(by_path) == 10
    for span in outer:
        [inner] = children(result.spans, span)
        assert inner.scope == "remora.urllib3"
        for sent in (span, inner):
            assert by_path[sent["url.full"].removeprefix(upstream.url)].span_id == sent.span_id
            assert "http.request.resend_count" not in sent.attributes
            keys = [attribute["key"] for attribute in sent.raw["attributes"]]
            assert len(keys) == len(set(keys))


def test_as_the_transport_of_another_client_it_makes_no_span(program: Run, upstream: Upstream) -> None:
    code = """
        import httpx, requests, urllib3
        pool = urllib3.PoolManager()
        class Transport(httpx.BaseTransport):
            def handle_request(self, request):
                answer = pool.request(request.method, str(request.url), headers=request.headers)
                return httpx.Response(answer.status, content=answer.data)
        class Adapter(requests.adapters.BaseAdapter):
            def send(self, request, **options):
                answer = pool.request(request.method, request.url, headers=request.headers)
                response = requests.Response()
                response.status_code, response.url, response.request = answer.status, request.url, request
                response._content = answer.data
                return response
            def close(self): pass
        show(httpx.Client(transport=Transport()).get(URL + "/x").status_code)
        session = requests.Session()
        session.mount(URL, Adapter())
        show(session.get(URL + "/x").status_code)
    """
    result = program(code)
    assert result.shown == [200, 200]
    assert [span.scope for span in result.spans] == ["remora.httpx", "remora.requests"]
    assert [received.span_id for received in upstream.received] == [span.span_id for span in result.spans]
    assert [span["network.peer.port"] for span in result.spans] == [upstream.port] * 2


def test_what_requests_leaves_out_urllib3_leaves_out(program: Run, upstream: Upstream) -> None:
    code = """
        import requests, urllib3
        def work():
            requests.get(URL + "/hidden")
            urllib3.PoolManager().request("GET", URL + "/hidden")
        work()
        job(work)
    """
    result = program(code, env={"OTEL_PYTHON_REQUESTS_EXCLUDED_URLS": "hidden"})
    first, second = clients(result)
    assert (first.parent_id, second.parent_id) == (None, one(result.spans, kind="server").span_id)
    assert len(result.spans) == 3
    assert ["traceparent" in received.headers for received in upstream.received] == [False, True] * 2


def test_below_an_excluded_request_the_rest_hangs_below_its_caller(program: Run) -> None:
    code = """
        import remora, requests, sqlite3
        def hook(response, *args, **kwargs):
            show(remora.current_span_id())
            sqlite3.connect(":memory:").execute("select 1")
        work = lambda: requests.get(URL + "/hidden", hooks={"response": hook}) and None
        work()
        job(work)
    """
    result = program(code, env={"OTEL_PYTHON_EXCLUDED_URLS": "hidden"})
    server = one(result.spans, kind="server")
    assert result.shown == [None, server.span_id]
    alone, below = find(result.spans, scope="remora.sqlite3")
    assert (alone.parent_id, below.parent_id) == (None, server.span_id)


def test_without_requests_hooks_urllib3_makes_the_span(program: Run) -> None:
    code = "import requests; show(requests.get(URL).status_code)"
    [span] = program(code, env={"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "requests"}).spans
    assert span.scope == "remora.urllib3"


def test_excluded_and_not_sampled(program: Run, upstream: Upstream) -> None:
    code = "import urllib3; show(urllib3.PoolManager().request('GET', URL + '/redirect/1').status)"
    result = program(code, env={"OTEL_PYTHON_URLLIB3_EXCLUDED_URLS": r"^http://127.0.0.1:\d+/redirect"})
    assert (result.shown, result.spans) == ([200], [])
    assert not any("traceparent" in received.headers for received in upstream.received)
    upstream.received.clear()
    result = program(code, env={"OTEL_TRACES_SAMPLER": "always_off"})
    assert (result.shown, result.spans) == ([200], [])
    assert [received.sampled for received in upstream.received] == [False, False]


def test_headers_are_captured_and_old_names_stand_beside(program: Run, upstream: Upstream) -> None:
    code = """
        import urllib3
        headers = {"X-Asked": "1", "Cookie": "secret"}
        urllib3.PoolManager().request("GET", URL + "/status/404", headers=headers)
    """
    env = {
        CAPTURE + "CLIENT_REQUEST": "x-.*,cookie,traceparent",
        CAPTURE + "CLIENT_RESPONSE": "content-length",
        "OTEL_SEMCONV_STABILITY_OPT_IN": "http/dup",
    }
    [span] = program(code, env=env).spans
    assert span["http.request.header.x-asked"] == ["1"]
    assert span["http.request.header.cookie"] == ["[REDACTED]"]
    assert span["http.response.header.content-length"] == ["2"]
    assert (span["http.method"], span["http.status_code"], span["http.flavor"]) == ("GET", 404, "1.1")
    assert (span["http.url"], span["net.peer.name"]) == (upstream.url + "/status/404", "127.0.0.1")


def test_a_streamed_body_comes_after_the_span(program: Run) -> None:
    code = """
        import urllib3
        response = urllib3.PoolManager().request("GET", URL + "/stream", preload_content=False)
        show(sum(len(part) for part in response.stream(512)))
        early = urllib3.PoolManager().request("GET", URL + "/stream", preload_content=False)
        early.close()
    """
    result = program(code)
    assert result.shown == [4096]
    streamed, early = clients(result)
    # The body takes four pauses of 150 ms.
    assert streamed.duration < 300_000_000
    assert early["http.response.status_code"] == 200


def test_a_proxy_is_the_peer_and_not_the_server(program: Run, upstream: Upstream) -> None:
    code = """
        import urllib3
        show(urllib3.ProxyManager(URL).request("GET", "http://backend.test:8080/x").status)
    """
    [span] = program(code).spans
    assert span["url.full"] == "http://backend.test:8080/x"
    assert (span["server.address"], span["server.port"]) == ("backend.test", 8080)
    assert span["network.peer.port"] == upstream.port
    assert upstream.received[0].span_id == span.span_id


def test_other_addresses(program: Run, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = str(tmp_path_factory.mktemp("s") / "s")
    code = f"""
        import socket, threading, urllib3
        from urllib3.connection import HTTPConnection
        def serve(server):
            server.listen()
            def answer():
                connection, _ = server.accept()
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 204 none\\r\\n\\r\\n")
                connection.recv(1)
            threading.Thread(target=answer, daemon=True).start()
        class Connection(HTTPConnection):
            def connect(self):
                self.sock = socket.socket(socket.AF_UNIX)
                self.sock.connect({path!r})
        class Pool(urllib3.HTTPConnectionPool):
            ConnectionCls = Connection
        unix = socket.socket(socket.AF_UNIX)
        unix.bind({path!r})
        serve(unix)
        show(Pool("localhost").request("GET", "/info").status)
        six = socket.create_server(("::1", 0), family=socket.AF_INET6)
        serve(six)
        port = six.getsockname()[1]
        show(urllib3.PoolManager().request("GET", f"http://[::1]:{{port}}/x").status, port)
    """
    result = program(code)
    assert result.shown[0] == 204
    port = result.shown[1][1]
    unix, six = clients(result)
    assert (unix["server.address"], unix["server.port"]) == ("localhost", 80)
    assert (unix["network.peer.address"], unix.get("network.peer.port")) == (path, None)
    assert six["url.full"] == f"http://[::1]:{port}/x"
    assert (six["server.address"], six["server.port"]) == ("::1", port)
    assert (six["network.peer.address"], six["network.peer.port"]) == ("::1", port)


def test_strange_requests_go_as_without_us(program: Run) -> None:
    code = """
        import urllib3
        class Odd(dict):
            def copy(self): raise RuntimeError("no copies")
            def __getattr__(self, name): raise ValueError(name)
        class Name(str):
            def __str__(self): raise ValueError("no")
        pool = urllib3.connection_from_url(URL)
        def attempt(*args, **options):
            try:
                response = pool.urlopen(*args, retries=False, **options)
                show(response.status, response.data.decode())
            except BaseException as error:
                show(type(error).__name__, str(error)[:60].partition("0x")[0])
        attempt("GET", "/x", headers=Odd(a="b"))
        attempt("GET", "/x", headers={b"x-bytes": b"1", "x-\\u20ac": "1"})
        attempt("GET", "/x", headers={"x": "a\\r\\nb: c"})
        attempt("GET", "/x", headers={"x": "\\udc80"})
        attempt("GET", "/\\udc80")
        attempt("brew", "/x")
        attempt(Name("GET"), "/x")
        attempt(b"GET", "/x")
        attempt(None, "/x")
        attempt("GET", 5)
        attempt("GET", "/x", headers=[("a", "b")])
        attempt("GET", "/" + "x" * 10_000_000)
        attempt("OPTIONS", "*", assert_same_host=False)
        connection = pool._get_conn()
        try:
            show(pool._make_request(connection, "GET", "/x").status)
        except BaseException as error:
            show(type(error).__name__)
    """
    traced = program(code)
    bare = program(code, env={"REMORA_ENABLED": "false"})
    assert traced.shown == bare.shown
    assert find(traced.spans, name="HTTP")[0]["http.request.method_original"] == "brew"


def test_nothing_of_the_application_is_kept(program: Run) -> None:
    code = """
        import gc, weakref, urllib3
        gc.disable()
        pool = urllib3.connection_from_url(URL)
        response = pool.request("GET", "/x", preload_content=False)
        connection = response.connection
        kept = [weakref.ref(one) for one in (response, connection, connection.sock, pool)]
        show([one() is not None for one in kept])
        response.release_conn()
        pool.close()
        del response, connection, pool
        gc.collect()
        show([one() is None for one in kept])
        # New sockets, often at an address of old ones.
        for port in range(20):
            urllib3.PoolManager().request("GET", URL + f"/{port}")
    """
    result = program(code)
    assert result.shown == [[True] * 4, [True] * 4]
    assert len({span["network.peer.port"] for span in result.spans}) == 1


def test_an_exception_is_the_same_object_without_a_frame_of_ours(program: Run) -> None:
    code = """
        import traceback, urllib3
        error = KeyboardInterrupt()
        class Connection(urllib3.connection.HTTPConnection):
            def request(self, *args, **kwargs): raise error
        class Pool(urllib3.HTTPConnectionPool):
            ConnectionCls = Connection
        try:
            Pool("127.0.0.1").urlopen("GET", "/")
        except KeyboardInterrupt as caught:
            show(caught is error, [frame.name for frame in traceback.extract_tb(caught.__traceback__)])
    """
    traced = program(code)
    assert traced.shown == program(code, env={"REMORA_ENABLED": "false"}).shown
    assert traced.shown == [[True, ["<module>", "urlopen", "_make_request", "request"]]]
    [span] = traced.spans
    assert (span.status, span.get("error.type")) == ("unset", None)


def test_a_release_without_the_attribute_warns_once_and_works(program: Run) -> None:
    code = """
        import sys
        from importlib import abc, machinery, util
        class Loader(machinery.SourceFileLoader):
            def exec_module(self, module):
                super().exec_module(module)
                pool = module.HTTPConnectionPool
                pool._send = pool._make_request
                del pool._make_request
                pool.__getattr__ = lambda self, name: getattr(self, "_send") if name == "_make_request" else 1 / 0
        class Finder(abc.MetaPathFinder):
            def find_spec(self, name, path, target=None):
                if name == "urllib3.connectionpool":
                    spec = machinery.PathFinder.find_spec(name, path)
                    return util.spec_from_loader(name, Loader(name, spec.origin))
        sys.meta_path.insert(1, Finder())
        import urllib3
        show(urllib3.PoolManager().request("GET", URL).status)
    """
    result = program(code, quiet=False)
    assert result.shown == [200]
    [line] = result.agent_lines
    assert "'urllib3' cannot wrap urllib3.connectionpool:HTTPConnectionPool._make_request" in line
    assert result.spans == []


@on_releases("old", "newest")
def test_status_says_which_hooks_a_release_does_not_need(program: Run, python: Python) -> None:
    code = """
import urllib3, remora
hook = remora.status()["hooks"]["urllib3"]
show(hook["state"], {t["attribute"]: t["state"] for t in hook["targets"]}["HTTPConnectionPool.urlopen"])
"""
    expected = "applied" if python.age else "unneeded"
    assert program(code, python=python).shown == [["applied", expected]]


def test_a_vendored_copy_is_left_alone(program: Run) -> None:
    code = """
        from pip._vendor import urllib3
        show(urllib3.PoolManager().request("GET", URL).status)
    """
    result = program(code)
    assert (result.shown, result.spans) == ([200], [])


def test_spans_follow_into_threads(program: Run) -> None:
    code = """
        import urllib3
        from concurrent.futures import ThreadPoolExecutor
        pool = urllib3.PoolManager(maxsize=4)
        def work():
            with ThreadPoolExecutor(4) as executor:
                return list(executor.map(lambda n: pool.request("GET", f"{URL}/{n}").status, range(8)))
        show(job(work))
    """
    result = program(code)
    assert result.shown == [[200] * 8]
    assert len(children(result.spans, one(result.spans, kind="server"))) == 8


def test_a_pool_whose_host_holds_credentials_does_not_show_them(program: Run) -> None:
    code = """
import urllib3
pool = urllib3.HTTPConnectionPool("user:s3cr3t@127.0.0.1", 9, retries=False, timeout=1)
try:
    pool.request("GET", "/x?sig=s3cr3t")
except Exception as error:
    show(type(error).__module__.split(".")[0])
"""
    result = program(code)
    assert result.shown == ["urllib3"]
    [span] = result.spans
    # Such a host is none: what is shown of it is as odd, but no secret.
    assert span["url.full"].startswith("http://REDACTED:REDACTED@127.0.0.1")
    assert span["url.full"].endswith(":9/x?sig=REDACTED")
    assert "s3cr3t" not in str(span.attributes)


@pytest.mark.parametrize(
    "get", ["urllib3.PoolManager().request('GET', URL + '/a').status", "requests.get(URL + '/a').status_code"]
)
def test_a_cassette_of_vcrpy_holds_the_request_as_it_was_made(
    program: Run, upstream: Upstream, tmp_path: Path, get: str
) -> None:
    code = f"""
        import requests, urllib3, vcr
        for _ in range(2):
            with vcr.use_cassette("{tmp_path}/tape.yaml", match_on=["uri", "headers"]) as tape:
                show({get}, tape.play_count)
    """
    result = program(code)
    assert result.shown == [[200, 0], [200, 1]]
    assert "traceparent" not in (tmp_path / "tape.yaml").read_text()
    recorded, _replayed = find(result.spans, kind="client")
    [received] = upstream.received
    assert received.span_id == recorded.span_id
    assert recorded["network.peer.port"] == upstream.port
