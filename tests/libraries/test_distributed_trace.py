"""Two services, A (Flask) calls B (Flask) with requests: one trace."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from support.collector import Collector
from support.otlp import Span, children, find, one, roots, shape
from support.process import Service

APP = """
import os, sqlite3
import flask, requests

app = flask.Flask(os.environ["OTEL_SERVICE_NAME"])
BACKEND = os.environ.get("BACKEND")

@app.get("/front/<int:item>")
def front(item):
    answer = requests.get(f"{BACKEND}/back/{item}")
    return {"received": answer.json()}

@app.get("/back/<int:item>")
def back(item):
    db = sqlite3.connect(":memory:")
    db.execute("select ?", (item,)).fetchone()
    names = ("traceparent", "tracestate", "baggage")
    return {name: flask.request.headers.get(name) for name in names}

app.run("127.0.0.1", int(os.environ["PORT"]))
"""

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"


@pytest.fixture
def pair(service: Callable[..., Service], tmp_path: Path) -> Callable[..., tuple[Service, Service]]:
    """Starts B, then A that calls it; `env` is for both, `a` and `b` for one of them."""
    app = tmp_path / "app.py"
    app.write_text(APP)

    def start(
        a: dict[str, str] | None = None, b: dict[str, str] | None = None, **env: str
    ) -> tuple[Service, Service]:
        command: list[Any] = [sys.executable, app]
        back = service(command, env={"OTEL_SERVICE_NAME": "b", **env, **(b or {})})
        front_env = {"OTEL_SERVICE_NAME": "a", "BACKEND": back.url, **env, **(a or {})}
        return service(command, env=front_env), back

    return start


def get(front: Service, **headers: str) -> dict[str, str | None]:
    """One request to A from outside; what B received of the context."""
    with requests.Session() as session:
        session.trust_env = False
        answer = session.get(f"{front.url}/front/7", headers=headers, timeout=20)
    assert answer.status_code == 200, answer.text
    received: dict[str, str | None] = answer.json()["received"]
    return received


def assert_one_trace(spans: list[Span]) -> Span:
    """A's server, its client, B's server and B's query below one another; gives the first."""
    assert shape(spans) == [["GET /front/<int:item>", ["GET", ["GET /back/<int:item>", ["select"]]]]]
    assert len({span.trace_id for span in spans}) == 1
    [root] = roots(spans)
    [client] = children(spans, root)
    [server] = children(spans, client)
    assert [span.service for span in (root, client, server)] == ["a", "a", "b"]
    assert root.start <= client.start <= client.end <= root.end
    assert client.resource["service.instance.id"] != server.resource["service.instance.id"]
    # OTLP: bit 8 says that the next bit is known, bit 9 that the parent is remote.
    assert [span.flags & 0x300 for span in (client, server)] == [0x100, 0x300]
    return root


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_request_through_both_is_one_trace_in_the_collector(
    pair: Callable[..., tuple[Service, Service]], collector: Collector, protocol: str
) -> None:
    front, _ = pair(**collector.env(protocol))
    get(front)
    spans = collector.wait_for(4)
    assert assert_one_trace(spans).parent_id is None


def test_the_caller_s_trace_its_state_and_its_baggage_travel_through(
    pair: Callable[..., tuple[Service, Service]],
) -> None:
    front, back = pair()
    sent = {
        "traceparent": f"00-{TRACE}-{CALLER}-01",
        "tracestate": "vendor=abc,other=1",
        "baggage": "user=7,tier=gold;since=2020",
    }
    received = get(front, **sent)
    spans = front.stop().spans + back.stop().spans
    root = assert_one_trace(spans)
    assert (root.trace_id, root.parent_id) == (TRACE, CALLER)
    assert {span.trace_state for span in spans} == {"vendor=abc,other=1"}
    client = one(spans, kind="client", scope="remora.requests")
    assert received["traceparent"] == f"00-{TRACE}-{client.span_id}-01"
    assert (received["tracestate"], received["baggage"]) == (sent["tracestate"], sent["baggage"])


def test_baggage_travels_without_a_trace_too(pair: Callable[..., tuple[Service, Service]]) -> None:
    front, back = pair()
    received = get(front, baggage="user=7")
    assert received["baggage"] == "user=7"
    assert received["tracestate"] is None
    assert assert_one_trace(front.stop().spans + back.stop().spans).parent_id is None


def test_a_caller_s_decision_not_to_sample_holds_for_both(
    pair: Callable[..., tuple[Service, Service]],
) -> None:
    front, back = pair()
    received = get(front, traceparent=f"00-{TRACE}-{CALLER}-00", tracestate="vendor=abc", baggage="user=7")
    trace_parent = received["traceparent"] or ""
    assert trace_parent.startswith(f"00-{TRACE}-")
    assert trace_parent.endswith("-00")
    assert (received["tracestate"], received["baggage"]) == ("vendor=abc", "user=7")
    assert front.stop().spans + back.stop().spans == []


def test_the_first_service_s_decision_holds_for_the_second(
    pair: Callable[..., tuple[Service, Service]],
) -> None:
    front, back = pair(a={"OTEL_TRACES_SAMPLER": "parentbased_always_off"})
    received = get(front)
    assert int((received["traceparent"] or "").split("-")[3], 16) & 1 == 0
    assert front.stop().spans + back.stop().spans == []


def test_a_service_that_samples_always_does_so_whatever_the_caller_decided(
    pair: Callable[..., tuple[Service, Service]],
) -> None:
    front, back = pair(a={"OTEL_TRACES_SAMPLER": "always_off"}, b={"OTEL_TRACES_SAMPLER": "always_on"})
    get(front)
    assert front.stop().spans == []
    spans = back.stop().spans
    assert shape(spans) == [["GET /back/<int:item>", ["select"]]]


def test_without_propagators_each_service_has_its_own_trace(
    pair: Callable[..., tuple[Service, Service]],
) -> None:
    front, back = pair(OTEL_PROPAGATORS="none")
    received = get(front, traceparent=f"00-{TRACE}-{CALLER}-01", baggage="user=7")
    assert received == {"traceparent": None, "tracestate": None, "baggage": None}
    spans = front.stop().spans + back.stop().spans
    assert len({span.trace_id for span in spans}) == 2
    assert TRACE not in {span.trace_id for span in spans}
    assert len(find(spans, kind="server")) == 2
