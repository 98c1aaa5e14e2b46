"""A hook of ours that fails: the application has its result; at the fifth time the hook is out.

Provoked from outside: CPython's own test module lets the n-th allocation fail, inside our hook too.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.process import run_python
from support.programs import SPANS
from support.pythons import Python, on_every_python, on_oldest_and_newest

FAILING = """
try:
    import _testcapi
except ImportError:
    print("skipped")
    sys.exit()
import remora
from concurrent.futures import ThreadPoolExecutor

class Pool(ThreadPoolExecutor):
    def _adjust_thread_count(self):
        pass  # no thread: it would draw on the same allocations

def hook():
    return remora.status()["hooks"][HOOK]

def attempt(n):
    # The n-th allocation fails: in the hook, or in what it is around.
    _testcapi.set_nomemory(n, n + 1)
    try:
        result = call()
    except MemoryError:
        return False
    finally:
        _testcapi.remove_mem_hooks()
    assert type(result) is RESULT, result
    return True

def failing():
    # An allocation that the application survives and our hook does not.
    for n in range(40):
        before = hook()["faults"]
        if attempt(n) and hook()["faults"] > before:
            return n
"""

# A name that a hook wants for the first time cannot be made: a panic, as often as it is tried.
PANICS = """
HOOK, RESULT = "sqlite3", sqlite3.Cursor
cursor = sqlite3.connect(":memory:").cursor()
with remora.span("first"):
    pass  # A span's object is kept for the next one: the first allocation of a hook is the name's.

def call():
    return cursor.execute("select 1")
"""

# A wrapper for the work that is submitted cannot be made: an error.
RAISES = """
from concurrent.futures import Future
HOOK, RESULT = "threading", Future
pool = Pool(1)
pool.submit(int)

@remora.traced
def call():
    return pool.submit(int)

call()
"""


@on_every_python
@pytest.mark.parametrize("fault", [PANICS, RAISES], ids=["panics", "raises"])
def test_a_hook_that_fails_is_counted_and_taken_out_at_the_fifth_time(traced, python: Python, fault: str):
    code = """
n = failing()
assert n is not None
while hook()["state"] == "applied":
    assert attempt(n)
assert hook()["faults"] == 5, hook()
assert hook()["state"] == "tripped"
# From now on calls go straight through.
made = counts()["made"]
for _ in range(20):
    assert type(call()) is RESULT
    attempt(n)
    try:
        cursor.execute("no sql") if HOOK == "sqlite3" else pool.submit()
    except (sqlite3.OperationalError, TypeError) as error:
        kind = type(error)
assert kind is (sqlite3.OperationalError if HOOK == "sqlite3" else TypeError)
if HOOK == "sqlite3":
    assert counts()["made"] == made
assert hook()["faults"] == 5
print("done")
"""
    result = traced(SPANS + FAILING + fault + code, python=python).ok()
    if result.stdout == "skipped\n":
        pytest.skip(f"CPython {python.version} here has no _testcapi")
    first, off = result.agent_lines
    assert "failed: panic" in first or "failed: MemoryError" in first
    assert "the application is not affected" in first
    assert "failed 5 times within 60 s and is switched off" in off


def test_how_many_faults_it_takes_is_a_setting(traced):
    code = """
n = failing()
assert attempt(n)
assert hook()["state"] == "tripped" and hook()["faults"] == 2
"""
    env = {"REMORA_BREAKER_FAULTS": "2"}
    result = traced(SPANS + FAILING + PANICS + code, env=env).ok()
    assert "failed 2 times" in result.agent_lines[-1]


def test_faults_that_are_far_apart_do_not_add_up(traced):
    code = """
n = failing()
for _ in range(3):
    time.sleep(2.1)
    assert attempt(n)
assert hook()["state"] == "applied" and hook()["faults"] == 4
"""
    env = {"REMORA_BREAKER_FAULTS": "2", "REMORA_BREAKER_SECONDS": "1"}
    assert len(traced(SPANS + FAILING + PANICS + code, env=env).ok().agent_lines) == 1


@on_oldest_and_newest
def test_whichever_allocation_fails_the_application_sees_its_result_or_its_own_error(traced, python: Python):
    code = """
import contextvars
from flask import Flask
app = Flask("app")
app.logger.disabled = True

@app.route("/<name>")
def view(name):
    return "hello " + name

client = app.test_client()
client.get("/warm").close()
def ask(n):
    _testcapi.set_nomemory(n, n + 1)
    try:
        return client.get("/you")
    finally:
        _testcapi.remove_mem_hooks()

for n in range(400):
    attempt(n % 40)
    try:
        # What Flask leaves behind in the context when it runs out of memory is not our subject.
        answer = contextvars.copy_context().run(ask, n)
    except Exception:
        continue
    assert answer.status_code in (200, 500)
    answer.close()
assert remora.current_trace_id() is None
assert client.get("/you").get_data() == b"hello you"
assert cursor.execute("select 1").fetchone() == (1,)
counts()
print("alive")
"""
    # Never taken out, so that every allocation is met.
    env = {"REMORA_BREAKER_FAULTS": "1000000"}
    result = traced(SPANS + FAILING + PANICS + code, python=python, env=env).ok()
    assert result.stdout.splitlines()[-1] in ("alive", "skipped")


def test_work_that_cannot_be_called_is_the_applications_fault_not_ours(traced):
    code = """
from concurrent.futures import ThreadPoolExecutor
from flask import Flask
import remora
app = Flask("app")

@app.route("/")
def view():
    with ThreadPoolExecutor(1) as pool:
        for _ in range(10):
            try:
                pool.submit(42).result()
            except TypeError as error:
                print(error)
    return "done"

app.test_client().get("/").close()
print(remora.status()["hooks"]["threading"]["faults"])
"""
    result = traced(SPANS + code).ok()
    assert result.stdout == "'int' object is not callable\n" * 10 + "0\n"
    assert result.agent_lines == []


@pytest.fixture
def fake(tmp_path: Path) -> Callable[..., Path]:
    """A folder with files of these names and texts, to be found before the real modules."""

    def make(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / "fake" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path / "fake"

    return make


@on_oldest_and_newest
def test_a_target_that_lacks_what_we_hook_is_left_alone_and_shown(traced, fake, python: Python):
    folder = fake(
        {
            "requests/__init__.py": "from . import sessions",
            "requests/sessions.py": "class Session:\n    pass\n",
            "flask/__init__.py": "",
            "flask/app.py": "Flask = None",
        }
    )
    code = """
import json, remora, requests, flask.app
hooks = remora.status()["hooks"]
targets = [target for name in ("requests", "flask") for target in hooks[name]["targets"]]
targets = [target for target in targets if target["module"] in ("requests.sessions", "flask.app")]
print(json.dumps([(target["attribute"], target["state"], target["why"]) for target in targets]))
"""
    result = traced(code, python=python, env={"PYTHONPATH": str(folder)}).ok()
    for attribute, state, why in json.loads(result.stdout):
        assert (attribute, state) == (attribute, "missing")
        assert why


HOSTILE = """
class Meta(type):
    def __getattribute__(cls, name):
        raise RuntimeError("hands off " + name)

class Session(metaclass=Meta):
    def send(self, request):
        return "sent"

class Odd:
    def __getattr__(self, name):
        raise RuntimeError("no " + name)
    def __call__(self, *args):
        return "odd"

Flask = Odd()
SessionRedirectMixin = 7
"""


@on_oldest_and_newest
def test_objects_that_raise_when_they_are_looked_at_are_no_danger(traced, fake, python: Python):
    folder = fake(
        {
            "requests/__init__.py": "from . import sessions",
            "requests/sessions.py": HOSTILE,
            "flask/__init__.py": "",
            "flask/app.py": HOSTILE,
        }
    )
    code = """
import requests, flask.app
print(requests.sessions.Session().send(None), flask.app.Flask())
print(requests.sessions.SessionRedirectMixin)
"""
    env = {"PYTHONPATH": str(folder)}
    with_us, bare = traced(code, python=python, env=env).ok(), run_python(code, python=python, env=env).ok()
    assert with_us.stdout == bare.stdout
    assert "Traceback" not in with_us.stderr


ONCE = """
import os
if os.environ.pop("ONCE", None):
    1 / 0
class Session:
    def send(self, request):
        return "sent"
"""


@on_oldest_and_newest
def test_a_module_that_fails_to_import_fails_as_without_us_and_can_be_tried_again(
    traced, fake, python: Python
):
    folder = fake(
        {
            "requests/__init__.py": "",
            "requests/sessions.py": ONCE,
        }
    )
    code = """
import os, sys, traceback
os.environ["ONCE"] = "1"
try:
    import requests.sessions
except ZeroDivisionError:
    traceback.print_exc(file=sys.stdout)
assert "requests.sessions" not in sys.modules
import requests.sessions
loader = requests.sessions.__loader__
print(requests.sessions.Session().send(None), type(loader), "exec_module" in vars(loader))
"""
    env = {"PYTHONPATH": str(folder)}
    with_us, bare = traced(code, python=python, env=env).ok(), run_python(code, python=python, env=env).ok()
    assert with_us.stdout == bare.stdout
