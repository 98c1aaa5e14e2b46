"""Flask: what a request says of itself, of its client and of its trace, be it hostile."""

from collections.abc import Callable

import pytest
from support.pythons import Python, on_oldest_and_newest

from .conftest import Program
from .flask_program import APP, servers

Run = Callable[..., Program]

HOSTILE = (
    APP
    + """
@app.route("/x", methods=["GET", "POST"])
def x(): return "x"
long = "x" * (1 << 20)
requests = [
    dict(HTTP_TRACEPARENT="00-zz", HTTP_TRACESTATE="=,=", HTTP_BAGGAGE=";;;"),
    dict(HTTP_TRACEPARENT=long, HTTP_TRACESTATE=long, HTTP_BAGGAGE=long, HTTP_USER_AGENT=long),
    dict(HTTP_TRACEPARENT="00-" + "0" * 32 + "-" + "0" * 16 + "-01"),
    dict(HTTP_TRACEPARENT="\\u00e9\\ud800", HTTP_USER_AGENT="\\ud800x", QUERY_STRING="\\ud800"),
    dict(HTTP_X_FORWARDED_FOR=long, HTTP_FORWARDED='for="[2001:db8::1]:99";;=,'),
    dict(HTTP_FORWARDED="for=unknown"), dict(HTTP_X_FORWARDED_FOR=" , ,"),
    dict(HTTP_HOST="exa mple:99999"), dict(HTTP_HOST="[::1"), dict(HTTP_HOST=""),
    dict(HTTP_HOST=None, SERVER_PORT="http"), dict(REMOTE_ADDR=None, REMOTE_PORT=None),
    dict(SERVER_PROTOCOL=None), dict(QUERY_STRING=None), dict(SCRIPT_NAME=None),
    {"wsgi.input": None}, {"REMOTE_PORT": 4711, "REMOTE_ADDR": b"x", "HTTP_USER_AGENT": 5},
]
for more in requests:
    try:
        show(call("/x", **more)[0])
    except Exception as error:
        show(type(error).__name__)
for method in ("BREW", "get", "G\\u00e9T", long, ""):
    try:
        show(call("/x", method)[0])
    except Exception as error:
        show(type(error).__name__)
for path in ("/caf\\u00c3\\u00a9", "/\\u00ff\\u00fe", "/\\ud800", "", None, "/" + long):
    try:
        show(call(path)[0])
    except Exception as error:
        show(type(error).__name__)
"""
)


@on_oldest_and_newest
def test_hostile_requests_are_answered_as_without_us(program: Run, python: Python) -> None:
    result = program(HOSTILE, python=python)
    bare = program(HOSTILE, env={"REMORA_ENABLED": "false"}, python=python)
    assert result.shown == bare.shown
    assert len(result.shown) == 17 + 5 + 6
    spans = servers(result)
    assert len(spans) == len(result.shown)
    assert all(len(str(value)) <= 64 * 1024 for span in spans for value in span.attributes.values())
    assert len({span.trace_id for span in spans}) == len(spans)
    assert {span.parent_id for span in spans} == {None}
    assert spans[4]["client.address"] == "2001:db8::1"
    assert spans[5]["client.address"] == "192.0.2.7"
    assert spans[6]["client.address"] == "192.0.2.7"
    assert (spans[9]["server.address"], spans[9]["server.port"]) == ("server.test", 8080)
    methods = spans[17:22]
    assert [span["http.request.method"] for span in methods[:4]] == ["_OTHER", "GET", "_OTHER", "_OTHER"]
    assert methods[0]["http.request.method_original"] == "BREW"
    assert methods[0].name == "HTTP"
    assert spans[22]["url.path"] == "/café"
    assert spans[25]["url.path"] == "/"


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("HTTP_X_FORWARDED_FOR", "203.0.113.9, 198.51.100.2"),
        ("HTTP_FORWARDED", 'For="203.0.113.9:4711";proto=https'),
    ],
)
def test_the_client_is_whom_the_first_proxy_saw(program: Run, header: str, value: str) -> None:
    code = APP + f'app.get("/")(lambda: "x")\ncall({header}={value!r})'
    [span] = servers(program(code))
    assert span["client.address"] == "203.0.113.9"
    assert span["network.peer.address"] == "192.0.2.7"
    assert span["url.scheme"] == ("https" if "proto" in value else "http")


def test_the_host_of_the_first_proxy_is_the_server(program: Run) -> None:
    code = APP + (
        'app.get("/")(lambda: "x")\n'
        'call(HTTP_X_FORWARDED_HOST="front.test", HTTP_X_FORWARDED_PROTO="https, http")'
    )
    [span] = servers(program(code))
    assert (span["server.address"], span["server.port"], span["url.scheme"]) == ("front.test", 443, "https")


def test_a_caller_s_trace_goes_on_and_its_decision_is_kept(program: Run) -> None:
    code = (
        APP
        + """
app.get("/")(lambda: "x")
ids = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"
call(HTTP_TRACEPARENT=f"00-{ids}-01", HTTP_TRACESTATE="vendor=1")
call(HTTP_TRACEPARENT=f"00-{ids}-00")
import remora
show(remora.status()["spans"]["sampled_out"])
"""
    )
    result = program(code)
    assert result.shown == [1]
    [span] = servers(result)
    assert (span.trace_id, span.parent_id) == ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")
    assert span.trace_state == "vendor=1"
