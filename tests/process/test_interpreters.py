"""Odd ways to start Python, lazy imports, sub-interpreters: the agent works, or stays out and says so."""

import textwrap

import pytest
from support.bad_endpoint import Answer
from support.otlp import one
from support.process import run_python
from support.programs import SPANS, labels
from support.pythons import Python, on, on_every_python, on_oldest_and_newest

WAYS = {
    "isolated": (["-I"], {}),
    "no environment": (["-E"], {}),
    "development mode": (["-X", "dev"], {}),
    "import times": (["-X", "importtime"], {}),
    "optimised": (["-OO"], {}),
    "unbuffered": (["-u"], {}),
    "fault handler": (["-X", "faulthandler"], {}),
    "debug allocator": ([], {"PYTHONMALLOC": "debug"}),
    "C allocator": ([], {"PYTHONMALLOC": "malloc"}),
    "traced allocations": (["-X", "tracemalloc=5"], {}),
}


@on_oldest_and_newest
@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_start_python_is_traced(traced, python: Python, way: str):
    flags, env = WAYS[way]
    code = """
make("work", 50)
pid = os.fork()
if pid == 0:
    make("child")
elif os.waitpid(pid, 0)[1]:  # no assert: -OO leaves them out
    sys.exit("the child failed")
_db.close()
"""
    result = traced(SPANS + code, python=python, flags=flags, env=env).ok()
    assert result.stdout == ""
    assert labels(result.spans) == {"work": 50, "child": 1}
    if way != "import times":
        assert result.stderr == ""


@on_every_python
def test_a_whole_program_on_every_interpreter(traced, bad_endpoint, python: Python):
    web = bad_endpoint(Answer(200, b"hi"))
    code = f"""
import requests
from flask import Flask
app = Flask("app")

@app.route("/<name>")
def view(name):
    make("query")
    return requests.get("{web.url}/" + name).text

assert app.test_client().get("/x").get_data() == b"hi"
assert flushed()["sent"] == 3
hooks = __import__("remora").status()["hooks"]
assert all(hooks[name]["state"] == "applied" for name in ("flask", "requests", "sqlite3")), hooks
"""
    result = traced(SPANS + code, python=python).ok()
    server = one(result.spans, kind="server")
    client, query = one(result.spans, scope="remora.requests"), one(result.spans, scope="remora.sqlite3")
    assert client.parent_id == query.parent_id == server.span_id
    assert server["http.route"] == "/<name>"
    assert web.requests[0].headers["traceparent"] == f"00-{client.trace_id}-{client.span_id}-03"


LAZY = """
lazy import requests
lazy from flask import Flask
import sys
assert "requests" not in sys.modules and "flask" not in sys.modules
assert "requests" in globals()
import remora
hooks = remora.status()["hooks"]
assert hooks["requests"]["state"] == hooks["flask"]["state"] == "waiting"
assert "requests" not in sys.modules
print(requests.get({url!r}).text)
assert "requests" in sys.modules and "flask" not in sys.modules
assert remora.status()["hooks"]["requests"]["state"] == "applied"
app = Flask("app")
answer = app.test_client().get("/nothing")
assert answer.get_data() and answer.status_code == 404
answer.close()
"""


@on("3.15")
def test_a_lazy_import_stays_lazy_and_its_first_use_is_traced(traced, bad_endpoint, tmp_path, python: Python):
    web = bad_endpoint(Answer(200, b"hi"))
    program = tmp_path / "program.py"
    program.write_text(LAZY.format(url=web.url))
    result = traced(program, python=python).ok()
    assert result.stdout == "hi\n"
    assert result.stderr == ""
    assert one(result.spans, kind="client").scope == "remora.requests"
    assert one(result.spans, kind="server")["http.response.status_code"] == 404


@on("3.15")
def test_with_all_imports_lazy_nothing_is_imported_by_us_and_everything_is_traced(
    traced, bad_endpoint, tmp_path, python: Python
):
    web = bad_endpoint(Answer(200, b"hi"))
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            f"""
            import sys
            import requests
            import sqlite3
            print(sorted(name for name in sys.modules if not name.startswith(("remora", "encodings"))))
            print(requests.get("{web.url}").text)
            print(sqlite3.connect(":memory:").execute("select 1").fetchall())
            """
        )
    )
    with_us = traced(program, python=python, flags=["-X", "lazy_imports=all"]).ok()
    bare = run_python(program, python=python, flags=["-X", "lazy_imports=all"]).ok()
    # `atexit` is built in; what we added to the list is nothing else.
    modules, *rest = with_us.stdout.splitlines()
    bare_modules, *bare_rest = bare.stdout.splitlines()
    assert set(eval(modules)) - set(eval(bare_modules)) <= {"atexit"}
    assert rest == bare_rest == ["hi", "[(1,)]"]
    assert sorted(span.scope for span in with_us.spans) == ["remora.requests", "remora.sqlite3"]


@on("3.14", "3.15")
def test_workers_in_sub_interpreters_compute_as_without_us_and_one_line_says_that_we_stay_out(
    traced, tmp_path, python: Python
):
    program = tmp_path / "program.py"
    program.write_text(
        SPANS
        + """
import math
from concurrent.futures import InterpreterPoolExecutor
if __name__ == "__main__":
    make("main")
    with InterpreterPoolExecutor(3) as pool:
        print(list(pool.map(math.factorial, range(8))))
    make("main")
"""
    )
    with_us, bare = traced(program, python=python).ok(), run_python(program, python=python).ok()
    assert with_us.stdout == bare.stdout
    assert len(with_us.agent_lines) == 1
    assert "sub-interpreter" in with_us.agent_lines[0]
    assert labels(with_us.spans) == {"main": 2}


@on("3.14", "3.15")
def test_work_given_to_sub_interpreters_inside_a_span_is_computed_as_without_us(
    traced, tmp_path, python: Python
):
    program = tmp_path / "program.py"
    program.write_text(
        SPANS
        + """
from concurrent.futures import InterpreterPoolExecutor, ThreadPoolExecutor
import remora
def square(x):
    return x * x
class Threads(ThreadPoolExecutor):
    pass
if __name__ == "__main__":
    with InterpreterPoolExecutor(1) as pool, remora.span("work"):
        print(pool.submit(square, 4).result(), list(pool.map(pow, (2, 3), (2, 2))), pool.submit(len, [1]).result())
    with Threads(1) as pool, remora.span("work"):
        pool.submit(make, "threaded").result()
"""
    )
    with_us, bare = traced(program, python=python).ok(), run_python(program, python=python).ok()
    assert with_us.stdout == bare.stdout == "16 [4, 9] 1\n"
    inside = one(span for span in with_us.spans if span.name != "work")
    assert inside.parent_id in {span.span_id for span in with_us.spans if span.name == "work"}
