"""A collector that is down, slow or wrong: what can be kept is, every span is accounted for."""

import subprocess
import sys
import threading
import time

import pytest
from support.bad_endpoint import (
    CLOSE_UNANSWERED,
    GARBAGE,
    GARBAGE_BODY,
    Answer,
    Behaviour,
    CloseEarly,
    Hang,
    partial_success,
    retry_after,
)
from support.process import clean_env, run_python
from support.programs import SPANS, labels

ON = {"REMORA_ENABLED": "true"}
# Spans of three batches, each sent for itself; the first ones meet the fault.
WORK = """
import remora
for label in ("first", "second", "third"):
    make(label, 10)
    remora.flush(3)
    counts()
found = counts()
print(found["made"], found["sent"], found["pending"], {k: v for k, v in found["lost"].items() if v})
print(remora.status()["export"]["state"])
"""
ALL = {"first": 10, "second": 10, "third": 10}

PASSING: dict[str, list[Behaviour]] = {
    "502 with a page": [Answer(502, b"<html>bad gateway</html>"), Answer(200)],
    "503": [Answer(503), Answer(503), Answer(200)],
    "504": [Answer(504), Answer(200)],
    "429": [Answer(429), Answer(200)],
    "429 with Retry-After": [retry_after("1"), Answer(200)],
    "503 with a date": [retry_after("Wed, 21 Oct 2015 07:28:00 GMT", 503), Answer(200)],
    "Retry-After of nonsense": [retry_after("soon"), Answer(200)],
    "closing unanswered": [CLOSE_UNANSWERED, Answer(200)],
    "closing after one byte": [CloseEarly(1), Answer(200)],
    "closing within the body": [CloseEarly(400), Answer(200)],
    "reset": [CloseEarly(100, reset=True), Answer(200)],
    "no HTTP": [GARBAGE, Answer(200)],
    "slow": [Answer(200, delay=1), Answer(200)],
}


@pytest.mark.parametrize("fault", PASSING)
def test_after_a_passing_fault_every_span_arrives(bad_endpoint, fault: str):
    endpoint = bad_endpoint(*PASSING[fault])
    result = run_python(SPANS + WORK + "assert flushed()['sent'] == 30", env=endpoint.env(**ON)).ok()
    assert labels(endpoint.accepted) == ALL
    assert len({span.span_id for span in endpoint.accepted}) == 30
    # What went wrong, and that it is well again.
    assert len(result.agent_lines) <= 2, result.stderr


# OTLP: only 429, 502, 503 and 504 may be tried again.
@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 408, 413, 415, 500, 501])
def test_what_is_refused_for_good_is_counted_and_not_repeated(bad_endpoint, status: int):
    endpoint = bad_endpoint(Answer(status))
    result = run_python(SPANS + WORK, env=endpoint.env(**ON)).ok()
    assert result.stdout.splitlines() == ["30 0 0 {'rejected': 30}", "refusing"]
    assert len(endpoint.requests) == 3
    reasons = [line for line in result.agent_lines if "lost" not in line]
    assert len(reasons) == 1
    assert str(status) in reasons[0]
    assert result.agent_lines[-1] == "remora: 30 spans lost (rejected=30), 0 sent"


def test_a_partial_success_counts_what_was_rejected(bad_endpoint):
    endpoint = bad_endpoint(partial_success(4, "too old"), Answer(200))
    result = run_python(SPANS + WORK, env=endpoint.env(**ON)).ok()
    assert result.stdout.splitlines()[0] == "30 26 0 {'rejected': 4}"
    assert len(endpoint.requests) == 3
    assert result.agent_lines[-1].startswith("remora: 4 spans lost (rejected=4), ")


def test_a_partial_success_that_rejects_nothing_is_a_success(bad_endpoint):
    endpoint = bad_endpoint(partial_success(0, "be careful"))
    result = run_python(SPANS + WORK, env=endpoint.env(**ON)).ok()
    assert result.stdout.splitlines()[0] == "30 30 0 {}"


def test_an_accepting_receiver_whose_answer_is_no_protobuf_has_the_spans(bad_endpoint):
    endpoint = bad_endpoint(GARBAGE_BODY)
    result = run_python(SPANS + WORK, env=endpoint.env(**ON)).ok()
    assert result.stdout.splitlines()[0] == "30 30 0 {}"
    assert len(endpoint.requests) == 3
    assert len(result.agent_lines) <= 1


def test_a_receiver_is_given_the_time_that_it_asks_for(bad_endpoint):
    endpoint = bad_endpoint(retry_after("2"), Answer(200))
    code = 'make("work")\nuntil(lambda: counts()["sent"] == 1)'
    run_python(SPANS + code, env=endpoint.env(**ON)).ok()
    first, second = endpoint.requests
    assert second.at - first.at >= 2


def test_spans_of_an_outage_arrive_when_the_collector_comes_back(own_collector, tmp_path):
    flag = tmp_path / "down"
    code = f"""
flag = {str(flag)!r}
make("before", 5)
until(lambda: counts()["sent"] == 5)
print("ready", flush=True)
until(lambda: os.path.exists(flag))
make("outage", 50)
until(lambda: __import__("remora").status()["export"]["state"] == "failing")
assert counts()["pending"] == 50
os.unlink(flag)
until(lambda: counts()["sent"] == 55, 40)
make("after", 5)
assert flushed()["sent"] == 60
assert not any(counts()["lost"].values())
"""

    def outage() -> None:
        own_collector.wait_for(5)
        own_collector.stop()
        flag.touch()
        while flag.exists():
            time.sleep(0.05)
        own_collector.start()

    thread = threading.Thread(target=outage)
    thread.start()
    try:
        result = run_python(SPANS + code, env=own_collector.env(**ON), timeout=55)
    finally:
        flag.unlink(missing_ok=True)
        thread.join()
    result.ok()
    assert labels(own_collector.spans) == {"before": 5, "outage": 50, "after": 5}
    down, up = result.agent_lines
    assert "retrying" in down
    assert "again" in up


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_an_outage_is_said_once_and_the_exit_is_quick(bad_endpoint, protocol: str):
    endpoint = bad_endpoint()
    endpoint.close()
    env = endpoint.env(**ON, OTEL_EXPORTER_OTLP_PROTOCOL=protocol)
    code = """
for n in range(20):
    make("work", 10)
    time.sleep(0.1)
assert counts()["pending"] == 200
"""
    result = run_python(SPANS + code, env=env).ok()
    why, lost = result.agent_lines
    assert "connection refused" in why
    assert lost == "remora: 200 spans lost (exit=200), 0 sent"


# How long the interpreter takes to end, from what it does last until we see it gone.
EXITS = {
    "refused, first seen at the exit": (False, {}, 0.3),
    "refused, known": (False, {"OTEL_BSP_SCHEDULE_DELAY": "50"}, 0.3),
    "silent": (True, {}, 2.0),
    "silent, own bound": (True, {"REMORA_EXIT_TIMEOUT": "700"}, 0.7),
    "refused, own bound": (False, {"REMORA_EXIT_TIMEOUT": "100"}, 0.1),
    "silent, no time at all": (True, {"REMORA_EXIT_TIMEOUT": "0"}, 0.0),
}


@pytest.mark.parametrize("how", EXITS)
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_the_exit_is_bounded(bad_endpoint, how: str, protocol: str):
    silent, settings, bound = EXITS[how]
    endpoint = bad_endpoint(Hang())
    if not silent:
        endpoint.close()
    code = """
make("work", 7)
time.sleep(0.2)
print(repr(time.time()), flush=True)
"""
    env = endpoint.env(**ON)
    env["OTEL_BSP_SCHEDULE_DELAY"] = "5000"
    env["OTEL_EXPORTER_OTLP_PROTOCOL"] = protocol
    env |= settings
    result = run_python(SPANS + code, env=env).ok()
    took = time.time() - float(result.stdout)
    assert result.agent_lines[-1] == "remora: 7 spans lost (exit=7), 0 sent"
    # A second of slack for a loaded machine.
    assert took < bound + 1.0


def test_a_slow_receiver_is_waited_for_at_the_exit(bad_endpoint):
    endpoint = bad_endpoint(Answer(200, delay=0.8))
    env = endpoint.env(**ON, OTEL_BSP_SCHEDULE_DELAY="5000")
    result = run_python(SPANS + 'make("work", 7)', env=env).ok()
    assert result.agent_lines == []
    assert labels(endpoint.accepted) == {"work": 7}


def test_a_silent_receiver_is_given_up_after_the_timeout_and_tried_again(bad_endpoint):
    endpoint = bad_endpoint(Hang(), Answer(200))
    env = endpoint.env(**ON, OTEL_EXPORTER_OTLP_TIMEOUT="500")
    code = 'make("work", 7)\nuntil(lambda: counts()["sent"] == 7)'
    result = run_python(SPANS + code, env=env).ok()
    assert labels(endpoint.accepted) == {"work": 7}
    assert "500" in result.agent_lines[0] or "0.5" in result.agent_lines[0]


def test_the_application_never_waits_for_the_collector(bad_endpoint):
    endpoint = bad_endpoint(Hang())
    code = """
start = time.monotonic()
make("work", 20_000)
took = time.monotonic() - start
assert counts()["made"] == 20_000
# Far less than one timeout of the export.
assert took < 5, took
os._exit(0)
"""
    run_python(SPANS + code, env=endpoint.env(**ON)).ok()


@pytest.mark.parametrize(
    "settings",
    [
        {"REMORA_QUEUE_MAX_BYTES": "20000", "REMORA_RETRY_MAX_BYTES": "20000"},
        {"OTEL_BSP_MAX_QUEUE_SIZE": "100", "REMORA_RETRY_MAX_BYTES": "20000"},
    ],
    ids=["bytes", "spans"],
)
def test_a_full_queue_drops_counts_and_holds_its_bound(bad_endpoint, settings: dict[str, str]):
    endpoint = bad_endpoint(Answer(503))
    code = """
import remora
made = 0
for n in range(100):
    make("work", 300)
    made += 300
    status = remora.status()
    assert status["queue"]["bytes"] <= status["queue"]["max_bytes"], status
    if n % 10 == 0:
        time.sleep(0.05)
# Exact when nothing is on its way between two counters.
time.sleep(0.5)
found = counts()
assert found["made"] == made
assert found["lost"]["queue_full"] + found["lost"]["retry_full"] > 0, found
assert found["pending"] > 0
print(found)
"""
    result = run_python(SPANS + code, env=endpoint.env(**ON, **settings)).ok()
    lost = [line for line in result.agent_lines if "spans lost" in line]
    # Once while it goes on, and at the exit.
    assert 1 <= len(lost) <= 2, result.stderr
    assert lost[-1].startswith("remora: 30,000 spans lost (")
    assert lost[-1].endswith(", 0 sent")


def test_what_does_not_fit_among_the_requests_waits_in_the_queue(bad_endpoint):
    endpoint = bad_endpoint(Answer(503))
    code = 'make("work", 30_000)\ntime.sleep(1)\nfound = counts()\nassert found["pending"] == 30_000, found'
    run_python(SPANS + code, env=endpoint.env(**ON, REMORA_RETRY_MAX_BYTES="30000")).ok()


def test_after_a_full_queue_spans_flow_again(bad_endpoint):
    endpoint = bad_endpoint(Answer(503))
    code = """
make("burst", 30_000)
until(lambda: counts()["lost"]["queue_full"] + counts()["lost"]["retry_full"] > 0)
print("full", flush=True)
sys.stdin.readline()
"""
    settings = {"REMORA_QUEUE_MAX_BYTES": "200000", "REMORA_RETRY_MAX_BYTES": "50000"}
    process = subprocess.Popen(
        [sys.executable, "-c", SPANS + code + 'make("after", 5)\nassert flushed(20)["pending"] == 0'],
        env=clean_env(endpoint.env(**ON, **settings)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "full\n"
        endpoint.play(Answer(200))
        _, stderr = process.communicate("\n", 50)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, stderr
    assert labels(endpoint.accepted)["after"] == 5


def test_grpc_statuses_are_kept_or_refused_as_specified(grpc_endpoint):
    import grpc
    from support.grpc_endpoint import Reply

    code = grpc.StatusCode
    endpoint = grpc_endpoint(Reply(code.UNAVAILABLE), Reply(code.RESOURCE_EXHAUSTED, retry_delay=1), Reply())
    result = run_python(SPANS + WORK + "assert flushed()['sent'] == 30", env=endpoint.env(**ON)).ok()
    assert labels(endpoint.accepted) == ALL
    assert len(result.agent_lines) <= 2
    # Without RetryInfo an exhausted resource is not to be tried again, nor is a wrong argument.
    for status in (
        code.INVALID_ARGUMENT,
        code.UNIMPLEMENTED,
        code.PERMISSION_DENIED,
        code.RESOURCE_EXHAUSTED,
    ):
        refusing = grpc_endpoint(Reply(status))
        result = run_python(SPANS + WORK, env=refusing.env(**ON)).ok()
        assert result.stdout.splitlines()[0] == "30 0 0 {'rejected': 30}", status
        assert len(refusing.calls) == 3
