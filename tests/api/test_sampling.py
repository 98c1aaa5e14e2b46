"""What is not sampled is not recorded, and each trace that would have begun is counted."""

from collections.abc import Callable

import pytest
from support.process import Result
from support.pythons import Python, on_oldest_and_newest

CODE = """
import asyncio
import remora
@remora.traced
def work():
    return remora.current_span_id()
@remora.traced
async def run():
    return work()
@remora.traced
def steps():
    yield work()
def all_of_them():
    with remora.span("block", a=1):
        return [work(), asyncio.run(run()), *steps()]
all_of_them()
print(remora.status()["spans"]["made"], remora.status()["spans"]["sampled_out"])
"""


# The decision for the outermost span holds for all within.
@on_oldest_and_newest
@pytest.mark.parametrize("sampler", ["always_off", "parentbased_always_off", "parentbased_traceidratio"])
def test_nothing_is_recorded_and_all_is_counted(
    python: Python, sampler: str, traced: Callable[..., Result]
) -> None:
    env = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": "0"}
    result = traced(CODE, python=python.exe, env=env).ok()
    assert result.spans == []
    assert result.stdout.split() == ["0", "1"]


@on_oldest_and_newest
def test_children_of_a_sampled_span_are_all_recorded(python: Python, traced: Callable[..., Result]) -> None:
    env = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "1"}
    result = traced(CODE, python=python.exe, env=env).ok()
    assert len(result.spans) == 6
    assert len({span.trace_id for span in result.spans}) == 1
    assert result.stdout.split() == ["6", "0"]


REQUESTS = """
import asyncio, http.server, threading
import remora, requests

class Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.headers.get("traceparent", "").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
threading.Thread(target=server.serve_forever, daemon=True).start()

def sent():
    version, trace, _, flags = requests.get(f"http://127.0.0.1:{server.server_port}").text.split("-")
    assert trace == remora.current_trace_id()
    return trace, flags

@remora.traced
def work():
    return {sent(), sent()}

@remora.traced
async def run():
    return {sent(), sent()}

@remora.traced
def steps():
    yield sent()
    yield sent()

def block():
    with remora.span("block"):
        return {sent(), sent(), *work()}

for found in (block(), work(), asyncio.run(run()), {*steps()}):
    [(trace, flags)] = found
    print(trace, flags)
    assert remora.current_trace_id() is None
"""


@on_oldest_and_newest
@pytest.mark.parametrize("sampler", ["always_off", "parentbased_always_off", "parentbased_traceidratio"])
def test_what_is_sent_from_under_an_unsampled_span_is_one_unsampled_trace(
    python: Python, sampler: str, traced: Callable[..., Result]
) -> None:
    env = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": "0"}
    result = traced(REQUESTS, python=python.exe, env=env).ok()
    assert result.spans == []
    lines = [line.split() for line in result.stdout.splitlines()]
    # Bit 2: the trace's id is random.
    assert [flags for _, flags in lines] == ["02"] * 4
    assert len({trace for trace, _ in lines}) == 4
