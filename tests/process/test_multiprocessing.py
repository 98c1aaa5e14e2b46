"""Children of `multiprocessing`, pools and `subprocess`: their spans arrive, however they end."""

from pathlib import Path

from support.otlp import Span
from support.process import run_python
from support.programs import SPANS, labels
from support.pythons import Python, on_every_python, on_oldest_and_newest


def owners(spans: list[Span], label: str) -> set[int]:
    return {span.resource["process.pid"] for span in spans if span["db.query.text"].endswith(label)}


PROCESSES = """
import multiprocessing

def work(label):
    make(label)
    return os.getpid()

def fail(label):
    make(label)
    sys.exit(3)

if __name__ == "__main__":
    make("parent")
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        children = [context.Process(target=work, args=(method,)) for _ in range(2)]
        children.append(context.Process(target=fail, args=(method + "_failing",)))
        for child in children:
            child.start()
        for child in children:
            child.join(30)
        assert [child.exitcode for child in children] == [0, 0, 3]
"""


@on_every_python
def test_children_of_every_start_method_report(traced, tmp_path: Path, python: Python):
    program = tmp_path / "program.py"
    program.write_text(SPANS + PROCESSES)
    result = traced(program, python=python).ok()
    assert result.agent_lines == []
    spans = result.spans
    wanted = {"parent": 1}
    for method in ("fork", "spawn", "forkserver"):
        wanted |= {method: 2, f"{method}_failing": 1}
        assert len(owners(spans, method)) == 2
        assert result.pid not in owners(spans, method)
    assert labels(spans) == wanted


POOLS = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

def work(number):
    make("pool")
    return number * number

if __name__ == "__main__":
    numbers = list(range(40))
    squares = [number * number for number in numbers]
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        # Its exit terminates the workers.
        with context.Pool(2) as pool:
            assert pool.map(work, numbers) == squares
            # A worker that was asked to stop while it sent its result has nothing left to do.
            time.sleep(0.2)
        with context.Pool(2, maxtasksperchild=3) as pool:
            assert pool.map(work, numbers, chunksize=1) == squares
            pool.close()
            pool.join()
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            assert list(pool.map(work, numbers)) == squares
"""


@on_oldest_and_newest
def test_workers_of_pools_report_every_task(traced, tmp_path: Path, python: Python):
    program = tmp_path / "program.py"
    program.write_text(SPANS + POOLS)
    result = traced(program, python=python).ok()
    assert result.agent_lines == []
    assert labels(result.spans) == {"pool": 240}
    assert len({span.span_id for span in result.spans}) == 240


def test_the_applications_own_finalizers_run_before_ours(traced, tmp_path: Path):
    program = tmp_path / "program.py"
    program.write_text(
        SPANS
        + """
import multiprocessing, multiprocessing.util

def work():
    multiprocessing.util.Finalize(None, make, args=("finalizer",), exitpriority=-5)
    make("child")

if __name__ == "__main__":
    for method in ("fork", "spawn"):
        child = multiprocessing.get_context(method).Process(target=work)
        child.start()
        child.join(30)
"""
    )
    assert labels(traced(program).ok().spans) == {"child": 2, "finalizer": 2}


INITIALISED = """
import multiprocessing

def work(label):
    import remora
    assert remora.init()
    make(label)
    if label == "spawn":
        atexit.register(make, "atexit")

def parent(label):
    # Its own child was told by nobody.
    child = multiprocessing.get_context("fork").Process(target=work, args=(label,))
    child.start()
    child.join(30)

if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        child = multiprocessing.get_context(method).Process(target=work, args=(method,))
        child.start()
        child.join(30)
        assert child.exitcode == 0
    child = multiprocessing.get_context("spawn").Process(target=parent, args=("grandchild",))
    child.start()
    child.join(30)
"""


@on_oldest_and_newest
def test_children_that_activate_the_agent_themselves_report(traced, tmp_path: Path, python: Python):
    program = tmp_path / "program.py"
    program.write_text(SPANS + INITIALISED)
    env = {"REMORA_ENABLED": None, "OTEL_BSP_SCHEDULE_DELAY": "60000"}
    result = traced(program, python=python, env=env).ok()
    assert result.stderr == ""
    methods = {"fork": 1, "spawn": 1, "forkserver": 1, "grandchild": 1}
    assert labels(result.spans) == {**methods, "atexit": 1}


@on_oldest_and_newest
def test_children_of_subprocess_report_and_end_as_without_us(traced, python: Python):
    code = """
import subprocess
make("parent")
child = SPANS + "make('child'); print('out'); print('err', file=sys.stderr); sys.exit(4)"
for options in ({}, {"preexec_fn": lambda: make("preexec")}, {"start_new_session": True, "close_fds": False}):
    done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, **options)
    assert (done.returncode, done.stdout, done.stderr) == (4, "out\\n", "err\\n"), done
assert subprocess.run(["sh", "-c", "kill -TERM $$"]).returncode == -15
assert os.system("exit 5") == 5 << 8
"""
    result = traced(f"SPANS = {SPANS!r}\n{SPANS}{code}", python=python).ok()
    assert result.stderr == ""
    found = labels(result.spans)
    assert found == {"parent": 1, "child": 3}
    assert len(owners(result.spans, "child")) == 3


def test_no_descriptor_of_ours_reaches_a_program_that_is_started(traced):
    code = """
import subprocess
make("parent")
flushed()
list_open = "import os; print(sorted(os.listdir('/proc/self/fd')))"
for close_fds in (True, False):
    command = [sys.executable, "-ISc", list_open]
    print(subprocess.run(command, capture_output=True, text=True, close_fds=close_fds).stdout)
"""
    with_us = traced(SPANS + code).ok()
    bare = run_python(SPANS.replace("import remora", "") + code.replace("flushed()", "")).ok()
    assert with_us.stdout == bare.stdout
