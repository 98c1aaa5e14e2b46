"""requests: one CLIENT span for each request sent."""

from collections.abc import Callable
from itertools import pairwise
from textwrap import dedent

import pytest
from support.otlp import Span, children, find, one
from support.process import Result
from support.pythons import Python, on_every_python, on_oldest_and_newest, on_releases

from .conftest import Program, Upstream
from .expected import of_client

Run = Callable[..., Program]


def clients(result: Result) -> list[Span]:
    """Their spans in order."""
    return find(result.spans, kind="client", scope="remora.requests")


@on_every_python
def test_a_request_is_one_client_span_with_the_stable_attributes(
    program: Run, upstream: Upstream, python: Python
) -> None:
    result = program(
        "import requests; show(requests.get(URL + '/status/200?a=b').status_code)", python=python
    )
    assert result.shown == [200]
    [span] = result.spans
    assert (span.name, span.kind, span.status, span.parent_id) == ("GET", "client", "unset", None)
    assert span.attributes == of_client(upstream, "/status/200?a=b")
    assert span.scope == "remora.requests"
    [received] = upstream.received
    assert (received.trace_id, received.span_id, received.sampled) == (span.trace_id, span.span_id, True)


@pytest.mark.parametrize(("code", "error"), [(200, None), (204, None), (404, "404"), (500, "500")])
def test_from_400_on_the_status_code_is_the_error(program: Run, code: int, error: str | None) -> None:
    result = program(f"import requests; requests.get(URL + '/status/{code}')")
    [span] = result.spans
    assert span["http.response.status_code"] == code
    assert span.status == ("error" if error else "unset")
    assert span.status_message == ""
    assert span.get("error.type") == error
    assert span.events == []


@on_every_python
def test_the_hops_of_a_redirect_are_siblings_each_with_its_own_header(
    program: Run, upstream: Upstream, python: Python
) -> None:
    code = """
        import requests
        response = job(lambda: requests.get(URL + '/redirect/2'))
        show([r.status_code for r in response.history], response.status_code)
    """
    result = program(code, python=python)
    assert result.shown == [[[302, 302], 200]]
    server = one(result.spans, kind="server")
    hops = children(result.spans, server)
    assert [hop["http.response.status_code"] for hop in hops] == [302, 302, 200]
    assert [hop.get("http.request.resend_count") for hop in hops] == [None, 1, 2]
    assert [hop["url.full"] for hop in hops] == [f"{upstream.url}/redirect/{n}" for n in (2, 1, 0)]
    assert [hop.status for hop in hops] == ["unset"] * 3
    assert [hop.span_id for hop in hops] == [received.span_id for received in upstream.received]
    assert all(a.end <= b.start for a, b in pairwise(hops))


@on_oldest_and_newest
def test_what_follows_redirects_is_wrapped_at_the_first_one(program: Run, python: Python) -> None:
    """It is called for every response. Another adapter than requests' own needs it from the start."""
    code = """
        import remora, requests
        def state():
            targets = remora.status()["hooks"]["requests"]["targets"]
            return {t["attribute"]: t["state"] for t in targets}["SessionRedirectMixin.resolve_redirects"]
        if "own" in sys.argv:
            class Adapter(requests.adapters.BaseAdapter):
                def send(self, request, **options): return requests.adapters.HTTPAdapter().send(request, **options)
                def close(self): pass
            session = requests.Session()
            session.mount("http://", Adapter())
            show(session.get(URL + "/status/200").status_code, state())
        else:
            show(requests.get(URL + "/status/404").status_code, state())
        show(requests.get(URL + "/redirect/1").status_code, state())
    """
    result = program("import sys\n" + dedent(code), python=python)
    assert result.shown == [[404, "deferred"], [200, "applied"]]
    assert [span.get("http.request.resend_count") for span in clients(result)] == [None, None, 1]
    assert len({span.trace_id for span in clients(result)}) == 3
    result = program("import sys\nsys.argv.append('own')\n" + dedent(code), python=python)
    assert result.shown == [[200, "applied"], [200, "applied"]]


def test_a_redirect_that_is_not_followed_is_one_span(program: Run, upstream: Upstream) -> None:
    code = """
        import requests
        response = requests.get(URL + '/redirect/1', allow_redirects=False)
        show(response.status_code, response.next.url)
    """
    result = program(code)
    assert result.shown == [[302, f"{upstream.url}/redirect/0"]]
    [span] = result.spans
    assert (span["http.response.status_code"], span.status) == (302, "unset")


def test_too_many_redirects_leave_the_spans_of_what_was_sent(program: Run) -> None:
    code = """
        import requests
        session = requests.Session()
        session.max_redirects = 2
        try:
            session.get(URL + '/redirect/5')
        except requests.TooManyRedirects as error:
            show(error.response.status_code)
    """
    result = program(code)
    assert result.shown == [302]
    assert [span["http.response.status_code"] for span in clients(result)] == [302] * 3
    assert {span.status for span in result.spans} == {"unset"}


def test_a_span_ends_when_the_headers_are_there(program: Run) -> None:
    code = """
        import requests, time
        with requests.get(URL + '/stream', stream=True) as response:
            body = b"".join(response.iter_content(512))
        show(len(body))
        requests.get(URL + '/stream')
    """
    result = program(code)
    assert result.shown == [4096]
    streamed, whole = clients(result)
    # The body takes four pauses of 150 ms.
    assert streamed.duration < 300_000_000
    assert whole.duration < 300_000_000


def test_no_credential_of_a_url_reaches_a_span(program: Run, upstream: Upstream) -> None:
    code = """
        import requests
        url = URL.replace('//', '//scott:tiger@') + '/x?X-Amz-Signature=secret&sig=hidden&a=1#part'
        requests.get(url)
    """
    result = program(code)
    [span] = result.spans
    host = f"127.0.0.1:{upstream.port}"
    query = "X-Amz-Signature=REDACTED&sig=REDACTED&a=1"
    assert span["url.full"] == f"http://REDACTED:REDACTED@{host}/x?{query}#part" or span["url.full"] == (
        f"http://{host}/x?{query}#part"
    )
    assert not any(secret in str(span.raw) for secret in ("tiger", "scott", "secret", "hidden"))
    assert upstream.received[0].headers["authorization"].startswith("Basic ")


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("requests.get(URL + '/drop')", "requests.exceptions.ConnectionError"),
        ("requests.get(URL + '/slow', timeout=0.1)", "requests.exceptions.ReadTimeout"),
        ("requests.get('http://127.0.0.1:1/')", "requests.exceptions.ConnectionError"),
    ],
    ids=["dropped", "timeout", "refused"],
)
def test_without_a_response_the_exception_is_the_error(program: Run, call: str, error: str) -> None:
    code = f"""
        import requests
        try:
            {call}
        except Exception as error:
            show(type(error).__module__ + "." + type(error).__name__)
    """
    result = program(code)
    assert result.shown == [error]
    [span] = result.spans
    assert (span.status, span.status_message, span["error.type"]) == ("error", "", error)
    assert "http.response.status_code" not in span.attributes


def test_a_url_that_cannot_be_sent_raises_as_ever_and_makes_no_span(program: Run) -> None:
    code = """
        import requests
        for url in ("nowhere", "http://", "http://*bad*/"):
            try:
                requests.get(url)
            except requests.RequestException as error:
                show(type(error).__name__)
    """
    result = program(code)
    assert result.shown == ["MissingSchema", "InvalidURL", "InvalidURL"]
    assert result.spans == []


def test_an_unknown_scheme_is_an_error_of_its_own_span(program: Run) -> None:
    code = """
        import requests
        try:
            requests.get("gopher://example.org/x")
        except requests.exceptions.InvalidSchema:
            show("raised")
    """
    result = program(code)
    [span] = result.spans
    assert span["error.type"] == "requests.exceptions.InvalidSchema"
    assert (span["server.address"], span.get("server.port")) == ("example.org", None)


def test_a_response_hook_that_raises_does_not_change_the_span(program: Run) -> None:
    code = """
        import requests
        session = requests.Session()
        session.hooks["response"].append(lambda response, *a, **k: response.raise_for_status())
        try:
            session.get(URL + "/status/404")
        except requests.HTTPError as error:
            show(error.response.status_code)
    """
    result = program(code)
    assert result.shown == [404]
    [span] = result.spans
    assert (span["http.response.status_code"], span["error.type"]) == (404, "404")


def test_an_adapter_whose_exception_carries_a_response_gives_the_status(program: Run) -> None:
    code = """
        import requests
        class Adapter(requests.adapters.BaseAdapter):
            def send(self, request, **kwargs):
                response = requests.Response()
                response.status_code, response.request = 418, request
                raise requests.HTTPError("no", response=response, request=request)
            def close(self): pass
        session = requests.Session()
        session.mount("test://", Adapter())
        try:
            session.get("test://teapot/x")
        except requests.HTTPError as error:
            show(error.response.status_code)
    """
    result = program(code)
    assert result.shown == [418]
    [span] = result.spans
    assert (span["http.response.status_code"], span["error.type"]) == (418, "418")


def test_retries_of_urllib3_are_counted(program: Run, upstream: Upstream) -> None:
    code = """
        import requests
        from requests.adapters import HTTPAdapter
        from urllib3.util import Retry
        session = requests.Session()
        session.mount(URL, HTTPAdapter(max_retries=Retry(3, status_forcelist=[503], backoff_factor=0)))
        show(session.get(URL + "/flaky/2").status_code)
    """
    result = program(code)
    assert result.shown == [200]
    assert len(upstream.received) == 3
    [span] = result.spans
    assert (span["http.request.resend_count"], span["http.response.status_code"]) == (2, 200)


def test_an_authentication_round_trip_is_a_sibling(program: Run, upstream: Upstream) -> None:
    code = """
        import requests
        from requests.auth import HTTPDigestAuth
        show(job(lambda: requests.get(URL + "/digest", auth=HTTPDigestAuth("u", "p")).status_code))
    """
    result = program(code)
    assert result.shown == [200]
    first, second = children(result.spans, one(result.spans, kind="server"))
    assert (first["http.response.status_code"], first.get("http.request.resend_count")) == (401, None)
    assert (second["http.response.status_code"], second["http.request.resend_count"]) == (200, 1)
    assert [received.span_id for received in upstream.received] == [first.span_id, second.span_id]


def test_retries_that_are_exhausted_are_counted(program: Run, upstream: Upstream) -> None:
    code = """
        import requests
        from requests.adapters import HTTPAdapter
        from urllib3.util import Retry
        session = requests.Session()
        session.mount(URL, HTTPAdapter(max_retries=Retry(2, status_forcelist=[503], backoff_factor=0)))
        try:
            session.get(URL + "/flaky/9")
        except requests.exceptions.RetryError:
            show("exhausted")
    """
    result = program(code)
    assert (result.shown, len(upstream.received)) == (["exhausted"], 3)
    [span] = result.spans
    assert (span["http.request.resend_count"], span["error.type"]) == (2, "requests.exceptions.RetryError")


def test_a_request_of_a_response_hook_after_a_round_trip_is_no_resend(program: Run) -> None:
    code = """
        import requests
        from requests.auth import HTTPDigestAuth
        def follow(response, *args, **kwargs):
            requests.get(URL + "/inner")
        options = {"auth": HTTPDigestAuth("u", "p"), "hooks": {"response": follow}}
        job(lambda: requests.get(URL + "/digest", **options) and None)
    """
    result = program(code)
    first, second = children(result.spans, one(result.spans, kind="server"))
    assert [span.get("http.request.resend_count") for span in (first, second)] == [None, 1]
    [inner] = children(result.spans, first)
    assert inner["url.full"].endswith("/inner")
    assert "http.request.resend_count" not in inner.attributes


def test_a_request_that_a_session_makes_between_hops_is_no_hop(program: Run) -> None:
    code = """
        import requests
        class Session(requests.Session):
            def rebuild_auth(self, prepared_request, response):
                requests.get(URL + "/token")
        job(lambda: Session().get(URL + "/redirect/2") and None)
    """
    result = program(code)
    hops = children(result.spans, one(result.spans, kind="server"))
    assert [hop["url.full"][-11:] for hop in hops] == ["/redirect/2", "/redirect/1", "/redirect/0"]
    assert [hop.get("http.request.resend_count") for hop in hops] == [None, 1, 2]
    tokens = children(result.spans, hops[0])
    assert [token["url.full"][-6:] for token in tokens] == ["/token"] * 2
    assert not any("http.request.resend_count" in token.attributes for token in tokens)


def test_requests_that_a_response_hook_makes_are_children(program: Run) -> None:
    code = """
        import requests
        def follow(response, *args, **kwargs):
            requests.get(URL + "/inner")
        job(lambda: requests.get(URL + "/outer", hooks={"response": follow}))
    """
    result = program(code)
    [outer] = children(result.spans, one(result.spans, kind="server"))
    [inner] = children(result.spans, outer)
    assert (outer["url.full"][-6:], inner["url.full"][-6:]) == ("/outer", "/inner")
    assert "http.request.resend_count" not in inner.attributes


@on_oldest_and_newest
def test_the_application_s_request_stays_as_it_made_it(
    program: Run, upstream: Upstream, python: Python
) -> None:
    code = """
        import requests
        own = {"TraceParent": "mine", "baggage": "a=1", "X-Own": "1"}
        response = requests.get(URL + "/redirect/1", headers=own)
        for answer in (*response.history, response):
            sent = answer.request.headers
            show([sent.get(name) for name in ("traceparent", "tracestate", "x-own")])
    """
    result = program(code, python=python)
    assert result.shown == [["mine", None, "1"]] * 2
    assert [received.span_id for received in upstream.received] == [span.span_id for span in clients(result)]
    # Replaced, not joined; what the span does not carry is the application's.
    assert not any("mine" in received.headers["traceparent"] for received in upstream.received)
    assert [received.headers["baggage"] for received in upstream.received] == ["a=1"] * 2


def test_without_our_hook_in_urllib3_the_header_goes_with_the_request(
    program: Run, upstream: Upstream
) -> None:
    code = "import requests; requests.get(URL + '/x')"
    result = program(code, env={"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "urllib3"})
    [span] = clients(result)
    assert [received.span_id for received in upstream.received] == [span.span_id]


def test_a_mounted_adapter_that_is_no_http_adapter_is_traced(program: Run) -> None:
    code = """
        import io, requests
        class Adapter(requests.adapters.BaseAdapter):
            def send(self, request, **kwargs):
                show(request.headers["traceparent"])
                response = requests.Response()
                response.status_code, response.url, response.request = 200, request.url, request
                response.raw = io.BytesIO(b"body")
                return response
            def close(self): pass
        session = requests.Session()
        session.mount("test://", Adapter())
        show(session.get("test://somewhere/x").text)
    """
    result = program(code)
    header, body = result.shown
    [span] = result.spans
    assert body == "body"
    assert header.startswith(f"00-{span.trace_id}-{span.span_id}-")
    assert span["http.response.status_code"] == 200
    assert (span["server.address"], span.get("server.port")) == ("somewhere", None)


@pytest.mark.parametrize("where", ["class", "object"])
def test_an_adapter_that_a_session_chooses_itself_gets_the_header(program: Run, where: str) -> None:
    code = """
        import io, requests
        class Adapter(requests.adapters.BaseAdapter):
            def send(self, request, **kwargs):
                show(request.headers.get("traceparent"))
                response = requests.Response()
                response.status_code, response.url, response.request = 200, request.url, request
                response.raw = io.BytesIO(b"")
                return response
            def close(self): pass
        class Session(requests.Session):
            def get_adapter(self, url): return Adapter()
        requests.get(URL)
        if WHERE == "class":
            session = Session()
        else:
            session = requests.Session()
            session.get_adapter = lambda url: Adapter()
        session.get(URL)
    """
    result = program(f"WHERE = {where!r}\n" + "\n".join(line[8:] for line in code.splitlines()))
    [header] = result.shown
    span = result.spans[1]
    assert header.split("-")[1:3] == [span.trace_id, span.span_id]


def test_an_adapter_that_sends_again_makes_a_span_for_each(program: Run) -> None:
    code = """
        import requests
        class Twice(requests.adapters.HTTPAdapter):
            def send(self, request, **kwargs):
                response = super().send(request, **kwargs)
                return super().send(request, **kwargs) if response.status_code == 503 else response
        session = requests.Session()
        session.mount("http://", Twice())
        show(session.get(URL + "/flaky/1").status_code)
    """
    result = program(code)
    assert result.shown == [200]
    spans = clients(result)
    assert [span["http.response.status_code"] for span in spans] == [503, 200]
    assert [span.get("http.request.resend_count") for span in spans] == [None, 1]


def test_a_unix_socket_in_the_host_s_place_is_the_server_address(program: Run) -> None:
    code = """
        import io, requests
        class Adapter(requests.adapters.HTTPAdapter):
            def send(self, request, **kwargs):
                response = requests.Response()
                response.status_code, response.url, response.request = 200, request.url, request
                response.raw = io.BytesIO(b"")
                return response
        session = requests.Session()
        session.mount("http+unix://", Adapter())
        session.get("http+unix://%2Fvar%2Frun%2Fthing.sock/info")
    """
    [span] = program(code).spans
    assert span["server.address"] == "/var/run/thing.sock"
    assert "server.port" not in span.attributes


def test_strange_requests_are_sent_as_without_us(program: Run, upstream: Upstream) -> None:
    code = """
        import requests
        session = requests.Session()
        def prepared(**changes):
            request = requests.Request("GET", URL + "/x").prepare()
            for name, value in changes.items():
                setattr(request, name, value)
            return session.send(request).status_code
        show(prepared(headers=None))
        show(prepared(headers={"TraceParent": "mine", "X-Own": "1"}))
        show(session.request(b"GET", URL + "/x").status_code)
        show(session.request("brew", URL + "/x").status_code)
        show(session.request("GET", URL + "/x", headers={"Traceparent": "mine"}).status_code)
    """
    result = program(code)
    assert result.shown == [200] * 5
    spans = clients(result)
    assert [one.headers["traceparent"].split("-")[2] for one in upstream.received] == [
        span.span_id for span in spans
    ]
    assert upstream.received[1].headers["x-own"] == "1"
    assert [span.name for span in spans] == ["GET", "GET", "GET", "HTTP", "GET"]
    assert spans[3]["http.request.method"] == "_OTHER"
    assert spans[3]["http.request.method_original"] == "BREW"


def test_a_method_that_is_no_text_is_still_a_request(program: Run) -> None:
    code = """
        import requests
        session = requests.Session()
        for method in (b"GET", 5, None):
            request = requests.Request("GET", URL + "/x").prepare()
            request.method = method
            try:
                show(session.send(request).status_code)
            except Exception as error:
                show(type(error).__name__)
    """
    result = program(code)
    bare = program(code, env={"REMORA_ENABLED": "false"})
    assert result.shown == bare.shown


def test_a_proxy_is_not_the_server(program: Run, upstream: Upstream) -> None:
    code = """
        import requests
        session = requests.Session()
        session.trust_env = False
        show(session.get("http://backend.test:8080/x", proxies={"http": URL}).status_code)
    """
    result = program(code)
    assert result.shown == [200]
    assert upstream.paths() == ["http://backend.test:8080/x"]
    [span] = result.spans
    assert (span["server.address"], span["server.port"]) == ("backend.test", 8080)
    assert upstream.received[0].span_id == span.span_id


def test_a_session_used_again_makes_one_trace_each_time(program: Run, upstream: Upstream) -> None:
    code = """
        import requests
        with requests.Session() as session:
            for n in range(3):
                session.post(URL + f"/{n}", json={"n": n})
    """
    result = program(code)
    spans = clients(result)
    assert [span.name for span in spans] == ["POST"] * 3
    assert len({span.trace_id for span in spans}) == 3
    assert [received.span_id for received in upstream.received] == [span.span_id for span in spans]


def test_what_is_not_sampled_goes_out_as_such_and_makes_no_span(program: Run, upstream: Upstream) -> None:
    code = """
        import requests, remora
        show(requests.get(URL + "/redirect/1").status_code)
        show(remora.status()["spans"]["made"])
    """
    result = program(code, env={"OTEL_TRACES_SAMPLER": "always_off"})
    assert result.shown == [200, 0]
    assert result.spans == []
    assert [received.sampled for received in upstream.received] == [False, False]


def test_no_request_or_response_is_kept_alive(program: Run) -> None:
    code = """
        import gc, weakref, requests
        gc.disable()
        class Response(requests.Response): pass
        session = requests.Session()
        response = session.get(URL + "/redirect/1")
        kept = [weakref.ref(one) for one in (response, response.request, response.history[0])]
        show([one() is not None for one in kept])
        del response
        gc.collect()
        show([one() is None for one in kept])
    """
    result = program(code)
    assert result.shown == [[True] * 3, [True] * 3]


def test_an_exception_is_the_same_object_without_a_frame_of_ours(program: Run) -> None:
    code = """
        import traceback, requests
        error = ValueError("mine")
        class Adapter(requests.adapters.BaseAdapter):
            def send(self, request, **kwargs):
                raise error
            def close(self): pass
        session = requests.Session()
        session.mount("test://", Adapter())
        try:
            session.get("test://x/")
        except ValueError as caught:
            show(caught is error)
            show([frame.name for frame in traceback.extract_tb(caught.__traceback__)])
    """
    result = program(code)
    assert result.shown == [True, ["<module>", "get", "request", "send", "send"]]
    bare = program(code, env={"REMORA_ENABLED": "false"})
    assert bare.shown == result.shown


@on_oldest_and_newest
def test_a_module_imported_before_activation_gives_the_same_spans(
    program: Run, upstream: Upstream, python: Python
) -> None:
    code = """
        import requests
        from requests import get
        import remora
        remora.init()
        show(get(URL + "/redirect/1").status_code)
        import inspect
        show(str(inspect.signature(requests.Session.send)), requests.Session.send.__qualname__)
    """
    early = program(code, env={"REMORA_ENABLED": None}, python=python)
    assert early.shown[0] == 200
    before = [span.attributes for span in clients(early)]
    assert [attributes["http.response.status_code"] for attributes in before] == [302, 200]
    late = program(code, python=python)
    assert late.shown == early.shown
    assert [span.attributes for span in clients(late)[2:]] == before


def test_a_disabled_library_is_left_alone(program: Run, upstream: Upstream) -> None:
    code = """
        import requests, remora
        show(requests.get(URL).status_code)
        show({name: hook["state"] for name, hook in remora.status()["hooks"].items()})
        show(type(requests.Session.send).__name__)
    """
    result = program(code, env={"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "requests, threading, urllib3"})
    code_shown, states, kind = result.shown
    assert (code_shown, kind) == (200, "function")
    assert (states["requests"], states["flask"]) == ("disabled", "waiting")
    assert result.spans == []
    assert "traceparent" not in upstream.received[0].headers


STAND_INS = {
    "responses": """
        import requests, responses
        def run(url):
            with responses.RequestsMock() as mock:
                mock.get("http://mocked/")
                mock.add_passthru(URL)
                sent = sorted(requests.get("http://mocked/").request.headers)
                return sent, mock.calls[0].request.headers.get("traceparent"), requests.get(url).status_code
    """,
    "requests_mock": """
        import requests, requests_mock
        def run(url):
            with requests_mock.Mocker() as mock:
                mock.get("http://mocked/")
                mock.get(url, real_http=True)
                sent = sorted(requests.get("http://mocked/").request.headers)
                return sent, mock.last_request.headers.get("traceparent"), requests.get(url).status_code
    """,
}


@pytest.mark.parametrize("name", STAND_INS)
def test_what_stands_in_for_the_adapter_sees_the_request_as_it_was_made(
    program: Run, upstream: Upstream, name: str
) -> None:
    result = program(STAND_INS[name] + "\n        show(run(URL + '/real'))")
    own = ["Accept", "Accept-Encoding", "Connection", "User-Agent"]
    assert result.shown == [[own, None, 200]]
    # What it lets through carries the span that stands for it.
    [received] = upstream.received
    real = [span for span in clients(result) if span["url.full"].endswith("/real")]
    assert received.span_id in {span.span_id for span in real}
    assert len([span for span in clients(result) if span["url.full"] == "http://mocked/"]) == 1


@on_releases("old", "middle")
def test_a_body_of_unknown_length_carries_the_header_with_older_releases(
    program: Run, upstream: Upstream, python: Python
) -> None:
    code = """
        import requests
        show(requests.post(URL + '/a', data=iter([b"a", b"b"])).status_code)
        show(requests.get(URL + '/b').request.headers.get("traceparent"))
    """
    result = program(code, python=python)
    assert result.shown == [200, None]
    assert [received.span_id for received in upstream.received] == [span.span_id for span in clients(result)]
