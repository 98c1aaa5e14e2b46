"""Spans reach a real Collector: every protocol, compression and way of securing it; settings decide how."""

import re
import uuid

import pytest
from support.collector import Collector
from support.process import run_python
from support.programs import SPANS, labels

WORK = 'make("work", 20)\nassert flushed()["sent"] == 20'
ON = {"REMORA_ENABLED": "true"}


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("protocol", ["http/protobuf", "http/json", "grpc"])
def test_every_protocol_and_compression_arrives(collector: Collector, protocol: str, compression: str):
    env = collector.env(protocol, OTEL_EXPORTER_OTLP_COMPRESSION=compression, **ON)
    result = run_python(SPANS + WORK, env=env).ok()
    assert result.stderr == ""
    assert labels(collector.spans) == {"work": 20}


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("receiver", ["tls", "mtls"])
def test_tls_with_a_ca_of_ones_own_and_client_certificates(
    collector: Collector, protocol: str, receiver: str
):
    certificates, endpoints = collector.certificates, getattr(collector, receiver)
    env = collector.env(protocol, OTEL_EXPORTER_OTLP_CERTIFICATE=str(certificates.ca), **ON)
    env["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoints.grpc if protocol == "grpc" else endpoints.http
    if receiver == "mtls":
        env["OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"] = str(certificates.client_cert)
        env["OTEL_EXPORTER_OTLP_CLIENT_KEY"] = str(certificates.client_key)
    assert run_python(SPANS + WORK, env=env).ok().stderr == ""
    assert labels(collector.spans) == {"work": 20}


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize(
    ("receiver", "ca", "says"),
    [
        ("tls", "other_ca", "certificate"),
        ("tls", None, "certificate"),
        ("mtls", "ca", "certificate"),
        ("tls", "missing", "OTEL_EXPORTER_OTLP_CERTIFICATE"),
    ],
)
def test_what_is_wrong_with_tls_is_one_clear_line(
    collector: Collector, tmp_path, protocol: str, receiver: str, ca: str | None, says: str
):
    endpoints = getattr(collector, receiver)
    env = collector.env(protocol, **ON)
    env["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoints.grpc if protocol == "grpc" else endpoints.http
    if ca is not None:
        path = tmp_path / "no-such.pem" if ca == "missing" else getattr(collector.certificates, ca)
        env["OTEL_EXPORTER_OTLP_CERTIFICATE"] = str(path)
    result = run_python(SPANS + 'make("work", 3)\ntime.sleep(1)', env=env).ok()
    # The reason, then what was lost at the exit.
    assert len(result.agent_lines) == 2, result.stderr
    assert says in result.agent_lines[0]
    assert result.agent_lines[1] == "remora: 3 spans lost (exit=3), 0 sent"
    assert collector.spans == []


def test_the_file_of_tls_is_named_by_the_variable_that_named_it(collector: Collector, tmp_path):
    env = collector.env(OTEL_EXPORTER_OTLP_CERTIFICATE=str(collector.certificates.ca), **ON)
    env["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.tls.http
    env["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE"] = str(tmp_path / "no-such.pem")
    result = run_python("import remora\nwith remora.span('one'): pass\nremora.flush(1)", env=env).ok()
    assert result.agent_lines[0].startswith("remora: OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE: ")


def test_the_form_of_the_signal_wins_over_the_general_one(collector: Collector, bad_endpoint):
    wrong = bad_endpoint()
    env = {
        **wrong.env(**ON),
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.plain.http}/v1/traces",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "gzip",
    }
    run_python(SPANS + WORK, env=env).ok()
    assert labels(collector.spans) == {"work": 20}
    assert wrong.requests == []


def test_path_headers_and_compression_are_as_specified(bad_endpoint):
    endpoint = bad_endpoint()
    env = endpoint.env(**ON, OTEL_EXPORTER_OTLP_COMPRESSION="gzip")
    env["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"{endpoint.url}/base/"
    env["OTEL_EXPORTER_OTLP_HEADERS"] = "X-Token=a%20b,x-second=2"
    run_python(SPANS + WORK, env=env).ok()
    for request in endpoint.requests:
        assert (request.method, request.path) == ("POST", "/base/v1/traces")
        assert request.headers["content-type"] == "application/x-protobuf"
        assert request.headers["content-encoding"] == "gzip"
        assert request.headers["x-token"] == "a b"
        assert request.headers["x-second"] == "2"
        assert re.match(r"remora|OTel", request.headers["user-agent"])
        # gzip of level 1 says so in its extra flags.
        assert request.body[8] == 4
    assert labels(endpoint.accepted) == {"work": 20}


def test_the_resource_tells_service_process_and_host(collector: Collector):
    env = collector.env(**ON, OTEL_SERVICE_NAME="shop")
    env["OTEL_RESOURCE_ATTRIBUTES"] = (
        "service.version=1.2,deployment.environment.name=test%20bed,service.name=no"
    )
    code = """
make("parent")
flushed()
pid = os.fork()
if pid == 0:
    make("child")
    flushed()
    os._exit(0)
os.waitpid(pid, 0)
"""
    result = run_python(SPANS + code, env=env).ok()
    parent, child = sorted(collector.spans, key=lambda span: span.start)
    resource = parent.resource
    assert resource["service.name"] == "shop"
    assert resource["service.version"] == "1.2"
    assert resource["deployment.environment.name"] == "test bed"
    assert resource["telemetry.sdk.language"] == "python"
    for key in (
        "telemetry.sdk.name",
        "telemetry.sdk.version",
        "telemetry.distro.name",
        "telemetry.distro.version",
    ):
        assert resource[key]
    assert resource["telemetry.distro.name"] == "remora"
    assert resource["process.pid"] == result.pid
    assert resource["process.runtime.name"] == "cpython"
    for key in (
        "process.executable.path",
        "process.runtime.version",
        "process.command",
        "host.name",
        "host.arch",
    ):
        assert resource[key], key
    for span in (parent, child):
        identity = uuid.UUID(span.resource["service.instance.id"])
        assert (identity.version, identity.variant) == (4, uuid.RFC_4122)
        assert span.scope == "remora.sqlite3"
        assert span.scope_version == resource["telemetry.distro.version"]
        assert span.schema_url.startswith("https://opentelemetry.io/schemas/")
        assert span.resource_schema_url == span.schema_url
    differs = {key for key in resource if resource[key] != child.resource.get(key)}
    assert differs == {"process.pid", "process.parent_pid", "service.instance.id"}
    assert child.resource["process.parent_pid"] == result.pid


def test_what_the_operator_names_wins_over_what_is_detected(collector: Collector):
    env = collector.env(**ON, OTEL_RESOURCE_ATTRIBUTES="service.instance.id=mine,host.name=box")
    env["OTEL_EXPERIMENTAL_RESOURCE_DETECTORS"] = "otel,host"
    run_python(SPANS + WORK, env=env).ok()
    resource = collector.spans[0].resource
    assert (resource["service.instance.id"], resource["host.name"]) == ("mine", "box")
    assert not any(key.startswith("process.") for key in resource)


def test_limits_cut_values_and_count_what_is_dropped(collector: Collector):
    env = collector.env(**ON, OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT="2", OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT="3")
    run_python(SPANS + WORK, env=env).ok()
    assert len(collector.spans) == 20
    for span in collector.spans:
        assert len(span.attributes) == 2
        assert span.dropped_attributes >= 1
        assert all(len(value) <= 3 for value in span.attributes.values() if isinstance(value, str))


def test_batches_are_as_large_as_told(bad_endpoint):
    endpoint = bad_endpoint()
    env = endpoint.env(**ON, OTEL_BSP_MAX_EXPORT_BATCH_SIZE="10")
    run_python(SPANS + 'make("work", 100)\nassert flushed()["sent"] == 100', env=env).ok()
    assert labels(endpoint.accepted) == {"work": 100}
    assert max(len(request.spans) for request in endpoint.requests) <= 10


def test_an_idle_process_is_left_alone_and_the_next_span_arrives_on_schedule(collector: Collector):
    code = """
make("first")
until(lambda: counts()["sent"] == 1)
time.sleep(0.5)
tasks = [task for task in os.listdir("/proc/self/task") if task != str(os.getpid())]
def switches():
    return [line for task in tasks for line in open(f"/proc/self/task/{task}/status") if "voluntary" in line]
before = switches()
time.sleep(1)
assert switches() == before
make("second")
until(lambda: counts()["sent"] == 2)
"""
    run_python(SPANS + code, env=collector.env(**ON)).ok()
    assert labels(collector.spans) == {"first": 1, "second": 1}


def test_none_makes_no_thread_and_keeps_nothing():
    code = """
make("work", 100)
assert thread_names() == [thread_names()[0]]
found = counts()
assert found["pending"] == found["made"] == 0, found
"""
    assert run_python(SPANS + code, env={**ON, "OTEL_TRACES_EXPORTER": "none"}).ok().stderr == ""
