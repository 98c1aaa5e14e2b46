"""The fixtures themselves: a test that stands on sand proves nothing."""

import gzip
import http.client
import json
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from support import otlp
from support.bad_endpoint import (
    CLOSE_UNANSWERED,
    GARBAGE,
    Answer,
    CloseEarly,
    Hang,
    partial_success,
    retry_after,
)
from support.process import clean_env, run, run_python
from support.pythons import AVAILABLE, PRIMARY, Python, on_every_python

TRACE = "0af7651916cd43dd8448eb211c80319c"


def request_of(*names: str) -> bytes:
    """An ExportTraceServiceRequest in OTLP/JSON: the first name is the root, the others are its children."""
    spans = [
        {
            "traceId": TRACE,
            "spanId": f"{number + 1:016x}",
            **({"parentSpanId": f"{1:016x}"} if number else {}),
            "name": name,
            "kind": 2,
            "startTimeUnixNano": str(1_700_000_000_000_000_000 + number),
            "endTimeUnixNano": "1700000000000001000",
            "attributes": [
                {"key": "text", "value": {"stringValue": "ä"}},
                {"key": "big", "value": {"intValue": str(2**60)}},
                {
                    "key": "list",
                    "value": {"arrayValue": {"values": [{"boolValue": True}, {"doubleValue": 0.5}]}},
                },
            ],
            "status": {"code": 2, "message": "why"},
            "events": [{"name": "exception", "timeUnixNano": "1700000000000000500"}],
        }
        for number, name in enumerate(names)
    ]
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "ground"}}]}
    scope = {"name": "remora.ground", "version": "1"}
    return json.dumps(
        {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": scope, "spans": spans}]}]}
    ).encode()


def post(
    url: str, body: bytes, context: ssl.SSLContext | None = None, timeout: float = 10, **headers: str
) -> tuple[int, bytes]:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", **headers})
    with urllib.request.urlopen(request, timeout=timeout, context=context) as answer:
        return answer.status, answer.read()


def test_the_collector_forwards_a_span_posted_by_hand(collector):
    post(f"{collector.plain.http}/v1/traces", request_of("root", "first", "second"))
    # Answered means forwarded: nothing is queued between the Collector's two sides.
    assert len(collector.spans) == 3
    root = otlp.one(collector.spans, "root", kind="server")
    assert root.parent_id is None
    assert root.attributes == {"text": "ä", "big": 2**60, "list": [True, 0.5]}
    assert (root.status, root.status_message) == ("error", "why")
    assert root.service == "ground"
    assert (root.scope, root.scope_version) == ("remora.ground", "1")
    assert root.events[0].name == "exception"
    assert otlp.shape(collector.spans) == [["root", ["first"], ["second"]]]


def test_each_test_sees_a_collector_without_earlier_spans(collector):
    assert collector.spans == []


def test_the_collector_takes_gzip(collector):
    body = gzip.compress(request_of("packed"), 1)
    post(f"{collector.plain.http}/v1/traces", body, **{"Content-Encoding": "gzip"})
    assert [span.name for span in collector.wait_for(1, name="packed")] == ["packed"]


def test_the_tls_receiver_is_trusted_by_its_own_ca_only(collector, certificates):
    url = f"{collector.tls.http}/v1/traces"
    post(url, request_of("private"), ssl.create_default_context(cafile=certificates.ca))
    assert otlp.one(collector.spans).name == "private"
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        post(url, request_of("stranger"), ssl.create_default_context(cafile=certificates.other_ca))


def test_the_mtls_receiver_wants_a_client_certificate(collector, certificates):
    url = f"{collector.mtls.http}/v1/traces"
    known = ssl.create_default_context(cafile=certificates.ca)
    known.load_cert_chain(certificates.client_cert, certificates.client_key)
    post(url, request_of("known"), known)
    with pytest.raises(OSError):  # noqa: PT011  which one depends on who notices first
        post(url, request_of("unknown"), ssl.create_default_context(cafile=certificates.ca))
    assert [span.name for span in collector.spans] == ["known"]


def test_the_grpc_receivers_take_a_span(collector, certificates):
    import grpc
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from support.grpc_endpoint import METHOD

    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    spans.add(trace_id=b"\x01" * 16, span_id=b"\x02" * 8, name="by grpc")
    credentials = grpc.ssl_channel_credentials(
        certificates.ca.read_bytes(),
        certificates.client_key.read_bytes(),
        certificates.client_cert.read_bytes(),
    )
    for channel in (
        grpc.insecure_channel(f"127.0.0.1:{collector.plain.grpc_port}"),
        grpc.secure_channel(f"127.0.0.1:{collector.mtls.grpc_port}", credentials),
    ):
        with channel:
            channel.unary_unary(METHOD)(request.SerializeToString(), timeout=10)
    assert [span.trace_id for span in collector.wait_for(2, name="by grpc")] == ["01" * 16] * 2


def test_a_stopped_collector_refuses_and_comes_back_on_its_ports(own_collector):
    url = f"{own_collector.plain.http}/v1/traces"
    own_collector.stop()
    with pytest.raises(urllib.error.URLError, match="refused"):
        post(url, request_of("lost"))
    own_collector.start()
    post(url, request_of("kept"))
    assert [span.name for span in own_collector.spans] == ["kept"]


def test_waiting_in_vain_names_what_there_is(collector):
    post(f"{collector.plain.http}/v1/traces", request_of("only"))
    with pytest.raises(AssertionError, match="only"):
        collector.wait_for(2, timeout=0.1)


def test_a_bad_endpoint_plays_its_answers_in_order(bad_endpoint):
    endpoint = bad_endpoint(retry_after("3"), Answer(503), partial_success(2, "no"), Answer(200))
    with pytest.raises(urllib.error.HTTPError, match="429") as refused:
        post(endpoint.url, request_of("a"))
    assert refused.value.headers["Retry-After"] == "3"
    refused.value.close()
    with pytest.raises(urllib.error.HTTPError, match="503") as refused:
        post(endpoint.url, request_of("b"))
    refused.value.close()
    assert post(endpoint.url, request_of("c"))[1] == b"\x0a\x06\x08\x02\x12\x02no"
    post(endpoint.url, request_of("d"))
    post(endpoint.url, request_of("e"))
    assert [request.status for request in endpoint.requests] == [429, 503, 200, 200, 200]
    assert [span.name for span in endpoint.accepted] == ["c", "d", "e"]


def test_partial_success_is_what_the_protocol_says():
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    told = ExportTraceServiceResponse.FromString(partial_success(7, "too many").body)
    assert told.partial_success.rejected_spans == 7
    assert told.partial_success.error_message == "too many"


@pytest.mark.parametrize("behaviour", [CLOSE_UNANSWERED, GARBAGE, CloseEarly(40), CloseEarly(40, reset=True)])
def test_a_bad_endpoint_breaks_connections(bad_endpoint, behaviour):
    endpoint = bad_endpoint(behaviour, Answer(200))
    with pytest.raises((OSError, http.client.HTTPException)):
        post(endpoint.url, request_of("a"))
    post(endpoint.url, request_of("b"))
    assert [span.name for span in endpoint.accepted] == ["b"]


def test_a_hanging_endpoint_lets_go_when_it_is_closed(bad_endpoint):
    endpoint = bad_endpoint(Hang())
    with socket.create_connection(("127.0.0.1", endpoint.port)) as client:
        client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        endpoint.wait_for(1)
        endpoint.close()
        assert client.recv(1) == b""


def test_a_grpc_endpoint_answers_statuses_with_retry_info(grpc_endpoint):
    import grpc
    from support.grpc_endpoint import METHOD, Reply

    busy = Reply(grpc.StatusCode.RESOURCE_EXHAUSTED, message="busy", retry_delay=1)
    endpoint = grpc_endpoint(busy, Reply())
    with grpc.insecure_channel(f"127.0.0.1:{endpoint.port}") as channel:
        export = channel.unary_unary(METHOD)
        with pytest.raises(grpc.RpcError) as refused:
            export(b"", timeout=10)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        details = dict(refused.value.trailing_metadata())["grpc-status-details-bin"]
        assert b"google.rpc.RetryInfo" in details
        export(b"", timeout=10)
    assert [call.status.name for call in endpoint.wait_for(2)] == ["RESOURCE_EXHAUSTED", "OK"]


def test_programs_start_without_the_callers_settings(monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "caller")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    result = run_python(
        "import os; print(sorted(k for k in os.environ if k[:4] in ('OTEL', 'REMO', 'PYTH')))"
    )
    assert result.ok().stdout == "['PYTHONDONTWRITEBYTECODE']\n"
    assert clean_env({"HOME": None}).get("HOME") is None


def test_a_program_that_does_not_end_is_killed_with_its_children():
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(99)'])"
    start = time.monotonic()
    with pytest.raises(AssertionError, match="still running after 1 s"):
        run([sys.executable, "-c", code], timeout=1)
    assert time.monotonic() - start < 20


def test_a_service_is_ready_when_it_listens_and_ends_with_its_test(service):
    served = service([sys.executable, "-m", "http.server", "{port}", "--bind", "127.0.0.1"], bare=True)
    with urllib.request.urlopen(served.url, timeout=10) as answer:
        assert answer.status == 200
    assert served.stop().returncode != 0
    assert '"GET / HTTP/1.1" 200' in served.output


def test_a_service_that_does_not_start_shows_why(service):
    with pytest.raises(AssertionError, match="boom"):
        service([sys.executable, "-c", "raise SystemExit('boom')"], bare=True)


def test_spans_are_read_from_files(tmp_path):
    (tmp_path / "1.jsonl").write_bytes(request_of("a").replace(b"\n", b"") + b"\n" + request_of("b") + b"\n")
    assert [span.name for span in otlp.read_files(tmp_path.glob("*.jsonl"))] == ["a", "b"]


@on_every_python
def test_every_interpreter_has_its_own_wheel(python: Python):
    code = (
        "import sys, flask, requests, remora._native as n; print('%d.%d' % sys.version_info[:2], n.__file__)"
    )
    version, path = run_python(code, python=python.exe).ok().stdout.split()
    assert version == python.version
    assert f"cpython-{python.tag[2:]}-" in Path(path).name
    assert python.launcher.exists()


def test_one_injected_folder_holds_the_extension_of_every_interpreter(injected):
    found = {path.name.split("-")[1] for path in (injected / "remora").glob("_native.*.so")}
    assert found == {python.tag[2:] for python in AVAILABLE.values()}
    assert AVAILABLE[PRIMARY].tag[2:] in found
    assert (injected / "bin" / "remora").stat().st_mode & 0o111
