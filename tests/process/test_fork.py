"""Forks of every kind: a child has ids, resource and exporter of its own; the parent goes on undisturbed."""

from collections import Counter

import pytest
from support.otlp import Span, one
from support.process import run_python
from support.programs import SPANS, labelled, labels
from support.pythons import Python, on, on_every_python


def processes(spans: list[Span]) -> set[int]:
    return {span.resource["process.pid"] for span in spans}


def instances(spans: list[Span]) -> set[str]:
    return {span.resource["service.instance.id"] for span in spans}


@on_every_python
def test_two_hundred_forks_in_a_loop_each_report_once(traced, python: Python):
    code = """
make("before", 3)
for n in range(200):
    pid = os.fork()
    if pid == 0:
        make("child")
        os._exit(0 if flushed()["made"] == 1 else 1)
    make("parent")
    assert os.waitpid(pid, 0)[1] == 0
assert flushed()["sent"] == 203
"""
    result = traced(SPANS + code, python=python).ok()
    assert result.agent_lines == []
    spans = result.spans
    assert labels(spans) == {"before": 3, "child": 200, "parent": 200}
    assert len({span.span_id for span in spans}) == len({span.trace_id for span in spans}) == 403
    ours, theirs = labelled(spans, "parent") + labelled(spans, "before"), labelled(spans, "child")
    assert processes(ours) == {result.pid}
    assert len(instances(ours)) == 1
    assert len(processes(theirs)) == len(instances(theirs) - instances(ours)) == 200


@on_every_python
def test_siblings_and_grandchildren_differ_in_ids_and_instance(traced, python: Python):
    code = """
# The parent draws nothing of its own before the forks: all start from one state.
pids = []
for n in range(20):
    pid = os.fork()
    if pid == 0:
        inner = os.fork()
        make("grandchild" if inner == 0 else "child", 2)
        flushed()
        status = 0 if inner == 0 else os.waitpid(inner, 0)[1]
        os._exit(1 if status else 0)
    pids.append(pid)
assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 20
"""
    spans = traced(SPANS + code, python=python).ok().spans
    assert labels(spans) == {"child": 40, "grandchild": 40}
    assert len({span.span_id for span in spans}) == len({span.trace_id for span in spans}) == 80
    assert len(processes(spans)) == len(instances(spans)) == 40


@on_every_python
def test_a_fork_that_python_does_not_see(traced, python: Python):
    code = """
import ctypes
fork = ctypes.PyDLL(None).fork
make("parent")
flushed()
for n in range(30):
    make("parent")
    pid = fork()
    if pid == 0:
        make("child")
        os._exit(0 if flushed()["made"] == 1 else 1)
    assert os.waitpid(pid, 0)[1] == 0
"""
    result = traced(SPANS + code, python=python).ok()
    assert labels(result.spans) == {"child": 30, "parent": 31}
    assert len({span.span_id for span in result.spans}) == 61
    assert len(instances(result.spans)) == 31
    assert processes(labelled(result.spans, "parent")) == {result.pid}


@on_every_python
def test_a_span_open_at_the_fork_ends_in_the_parent_only_and_is_the_childs_parent(traced, python: Python):
    code = """
from flask import Flask
app = Flask("app")

@app.route("/")
def view():
    global pid
    pid = os.fork()
    make("child" if pid == 0 else "parent")
    return "done"

answer = app.test_client().get("/").get_data()
make("after")
flushed()
if pid == 0:
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert answer == b"done"
"""
    result = traced(SPANS + code, python=python).ok()
    spans = result.spans
    server = one(spans, kind="server")
    assert server.resource["process.pid"] == result.pid
    child, parent = one(labelled(spans, "child")), one(labelled(spans, "parent"))
    assert child.parent_id == parent.parent_id == server.span_id
    assert child.trace_id == parent.trace_id == server.trace_id
    assert child.resource["process.pid"] not in (None, result.pid)
    # What follows in the child is not under it.
    assert [span.parent_id for span in labelled(spans, "after")] == [None, None]
    assert len(processes(labelled(spans, "after"))) == 2


@on_every_python
@pytest.mark.parametrize("action", ["error", "always"])
def test_with_warnings_shown_or_raised_no_fork_warns_because_of_us(traced, python: Python, action: str):
    code = """
for n in range(20):
    make("parent")
    flushed()
    assert "remora-export" in thread_names()
    make("pending")
    pid = os.fork() if n % 2 else os.forkpty()[0]
    if pid == 0:
        os._exit(0 if len(os.listdir("/proc/self/task")) == 1 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    # Something is pending: the thread runs again.
    until(lambda: "remora-export" in thread_names())
assert flushed()["sent"] == 40
"""
    result = traced(SPANS + code, python=python, env={"PYTHONWARNINGS": f"{action}::DeprecationWarning"}).ok()
    assert result.stderr == ""
    assert labels(result.spans) == {"parent": 20, "pending": 20}


@on("3.12", "3.13", "3.14", "3.15")
@pytest.mark.parametrize("action", ["error", "always"])
def test_with_a_thread_of_the_application_a_fork_warns_as_without_us(traced, python: Python, action: str):
    code = """
import threading, time, os
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
try:
    import sqlite3
    database = sqlite3.connect(":memory:")
    database.execute("select 1")
    database.close()
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    print(os.waitpid(pid, 0)[1], flush=True)
except DeprecationWarning as warning:
    print("multi-threaded" in str(warning), flush=True)
os._exit(0)
"""
    with_us = traced(code, python=python, flags=["-W", action])
    bare = run_python(code, python=python, flags=["-W", action])
    assert with_us.returncode == bare.returncode == 0
    assert with_us.stdout == bare.stdout
    assert with_us.stderr.replace(str(with_us.pid), "") == bare.stderr.replace(str(bare.pid), "")
    assert action == "error" or "multi-threaded" in bare.stderr


@on("3.11", "3.12", "3.15")
def test_forks_while_spans_are_on_their_way_lose_nothing(python: Python, collector):
    """Nor double anything, but where a fork has waited for its bound of 450 ms: what was in flight is sent again."""
    code = """
import time
slow = 0
for n in range(60):
    make("parent", 200)
    before = time.monotonic()
    pid = os.fork()
    slow += time.monotonic() - before > 0.4
    if pid == 0:
        make("child", 5)
        os._exit(0 if flushed()["sent"] == 5 else 1)
    make("parent", 100)
    assert os.waitpid(pid, 0)[1] == 0
counted = flushed()
assert counted["sent"] == 60 * 300, counted
print(slow, flush=True)
"""
    env = collector.env(OTEL_BSP_SCHEDULE_DELAY="5", REMORA_ENABLED="true")
    slow = int(run_python(SPANS + code, python=python, env=env).ok().stdout)
    spans = collector.spans
    distinct = {span.span_id: span for span in spans}
    assert labels(distinct.values()) == {"parent": 60 * 300, "child": 300}
    assert len(spans) == len(distinct) or slow > 0


def test_a_failing_fork_is_the_applications_to_see(traced):
    code = """
import resource
make("parent")
flushed()
hook = os.register_at_fork(before=lambda: None)
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
try:
    os.setuid(65534)
    os.fork()
except OSError as error:
    print(type(error).__name__)
make("parent")
assert flushed()["sent"] == 2
"""
    result = traced(SPANS + code, env={"REMORA_OTLP_FILE": "/dev/null"}).ok()
    assert result.stdout in ("BlockingIOError\n", "")


@pytest.mark.timeout(120)
@on("3.11", "3.15")
def test_forks_from_many_threads_do_not_hang(traced, python: Python):
    code = """
import warnings
warnings.simplefilter("ignore")
def work():
    for n in range(20):
        make("thread")
        pid = os.fork()
        if pid == 0:
            make("child")
            os._exit(0 if flushed()["made"] == 1 else 1)
        assert os.waitpid(pid, 0)[1] == 0
    done.append(1)
done = []
import remora
# Not sqlite: it has locks of its own, which a child inherits as they are.
def make(label):
    spans[label]()
spans = {label: remora.traced(name=label)(lambda: None) for label in ("thread", "child")}
threads = [threading.Thread(target=work) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert len(done) == 4
assert flushed()["sent"] == 80
"""
    result = traced(SPANS + code, python=python, timeout=90).ok()
    assert Counter(span.name for span in result.spans) == {"thread": 80, "child": 80}
    assert len({span.span_id for span in result.spans}) == 160
