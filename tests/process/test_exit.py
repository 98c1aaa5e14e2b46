"""The end of a process: status and output are as without the agent, and what is pending is sent, in time."""

from pathlib import Path

import pytest
from support.process import run_python
from support.programs import SPANS, labels
from support.pythons import Python, on_every_python, on_oldest_and_newest

ENDS = {
    "end": 'make("work")',
    "exit": 'make("work"); sys.exit(3)',
    "exit with a text": 'make("work"); sys.exit("sorry")',
    "exception": 'make("work"); 1 / 0',
    "os._exit": 'make("work"); os._exit(5)',
    "exit of the C library": 'make("work"); import ctypes; ctypes.CDLL(None).exit(6)',
    "abort": 'make("work"); os.kill(os.getpid(), signal.SIGABRT)',
    "kill": 'make("work"); os.kill(os.getpid(), signal.SIGKILL)',
    "exit in a thread": 'make("work"); t = threading.Thread(target=sys.exit, args=(2,)); t.start(); t.join()',
    "closed stderr": 'make("work"); os.close(2)',
    "broken atexit": "atexit.register(int, 'no number'); make('work')",
    "exit in atexit": "atexit.register(sys.exit, 3); make('work')",
    "daemon thread": """
def forever():
    while True:
        make("daemon")
threading.Thread(target=forever, daemon=True).start()
time.sleep(0.2)
""",
    "raised in a thread": """
import faulthandler
t = threading.Thread(target=lambda: 1 / 0)
t.start()
t.join()
""",
}


def holds(file: Path, text: bytes) -> bool:
    with file.open("rb") as lines:
        return any(text in line for line in lines)


@on_oldest_and_newest
@pytest.mark.parametrize("how", ENDS)
def test_status_and_output_are_as_without_us(traced, python: Python, how: str):
    with_us, bare = traced(SPANS + ENDS[how], python=python), run_python(SPANS + ENDS[how], python=python)
    assert with_us.returncode == bare.returncode
    assert with_us.stdout == bare.stdout
    if "thread" not in how:
        # Threads have numbers and addresses.
        assert with_us.stderr.replace(str(with_us.pid), "") == bare.stderr.replace(str(bare.pid), "")
    if how not in ("os._exit", "abort", "kill", "daemon thread", "raised in a thread"):
        assert labels(with_us.spans) == {"work": 1}
    if how == "daemon thread":
        # As fast as they can be made, they fill files that take too long to parse.
        assert any(holds(file, b"as daemon") for file in with_us.folder.glob("*.jsonl"))


@on_every_python
def test_what_the_applications_exit_handlers_do_is_sent(traced, python: Python):
    code = """
atexit.register(make, "first_registered")
@atexit.register
def _last_registered():
    make("last_registered")
    threads = [threading.Thread(target=make, args=("thread",))]
make("work")
def late():
    time.sleep(0.2)
    make("late")
# Not a daemon: the interpreter waits for it before the handlers run.
threading.Thread(target=late).start()
"""
    result = traced(SPANS + code, python=python).ok()
    assert labels(result.spans) == {"first_registered": 1, "last_registered": 1, "work": 1, "late": 1}


def test_a_child_that_ends_normally_flushes_too(traced):
    code = """
make("parent")
pid = os.fork()
if pid:
    assert os.waitpid(pid, 0)[1] == 4 << 8
else:
    make("child")
    sys.exit(4)
"""
    assert labels(traced(SPANS + code).ok().spans) == {"parent": 1, "child": 1}


@pytest.mark.timeout(240)
def test_three_hundred_thousand_spans_at_full_speed_all_arrive(own_collector):
    # The Collector answers by itself, as real ones do, not when our receiver has read the spans.
    own_collector.stop()
    own_collector.edit(
        lambda settings: settings["exporters"]["otlphttp/receiver"].update(
            sending_queue={"enabled": True, "num_consumers": 1, "queue_size": 100_000}
        )
    )
    own_collector.start()
    env = own_collector.env(REMORA_ENABLED="true")
    del env["OTEL_BSP_SCHEDULE_DELAY"]
    code = """
make("burst", 300_000)
assert not any(counts()["lost"].values())
"""
    result = run_python(SPANS + code, env=env, timeout=120).ok()
    assert result.agent_lines == []
    spans = own_collector.wait_for(300_000, timeout=120)
    assert len({span.span_id for span in spans}) == len(spans) == 300_000


def test_an_exit_with_a_full_queue_balances_and_says_what_was_lost(traced, bad_endpoint):
    endpoint = bad_endpoint()
    endpoint.close()
    env = endpoint.env(REMORA_QUEUE_MAX_BYTES="100000", REMORA_RETRY_MAX_BYTES="50000")
    result = traced(SPANS + 'make("burst", 50_000)\nprint(counts()["made"])', env=env).ok()
    assert result.stdout == "50000\n"
    last = result.agent_lines[-1]
    assert last.startswith("remora: 50,000 spans lost (")
    assert last.endswith("), 0 sent")
    reasons = dict(pair.split("=") for pair in last.partition("(")[2].partition(")")[0].split(", "))
    assert sum(map(int, reasons.values())) == 50_000
    assert set(reasons) <= {"queue_full", "retry_full", "exit"}


LATE = {
    "exit handler": """
import atexit
atexit.register(lambda: make("late"))
import remora
remora.init()
""",
    "finalizer": """
import remora
remora.init()
class Late:
    def __del__(self, span=remora.span):
        with span("select 1 as late", **{"db.query.text": "select 1 as late"}):
            pass
late = Late()
""",
    "finalizer, and nothing before": """
import remora
remora.init()
make = lambda label: None
class Late:
    def __del__(self, span=remora.span):
        for label in ("work", "late"):
            with span(label, **{"db.query.text": "select 1 as " + label}):
                pass
late = Late()
""",
}


@pytest.mark.parametrize("how", LATE)
def test_what_comes_after_the_exit_flush_is_sent_or_counted(traced, bad_endpoint, how: str):
    code = SPANS + LATE[how] + 'make("work")'
    result = traced(code, env={"REMORA_ENABLED": None}).ok()
    assert labels(result.spans) == {"work": 1, "late": 1}
    assert result.stderr == ""
    endpoint = bad_endpoint()
    endpoint.close()
    lost = traced(code, env=endpoint.env(REMORA_ENABLED=None, OTEL_BSP_SCHEDULE_DELAY="60000")).ok()
    assert lost.agent_lines[-1] == "remora: 2 spans lost (exit=2), 0 sent"
