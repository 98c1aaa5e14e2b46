"""What import hooks promise that needs a process of its own to be seen."""

from collections.abc import Callable
from pathlib import Path

from support.process import Result, run_python
from support.pythons import Python, on_every_python, on_oldest_and_newest


@on_every_python
def test_a_callback_that_raises_is_reported_and_the_import_goes_on(
    python: Python, traced: Callable[..., Result]
) -> None:
    code = """
import remora
@remora.when_imported("colorsys")
def bad(module):
    raise ValueError("mine")
seen = []
remora.when_imported("colorsys")(seen.append)
import colorsys
assert seen == [colorsys]
assert colorsys.rgb_to_hsv(0, 0, 0) == (0.0, 0.0, 0)
"""
    result = traced(code, python=python.exe).ok()
    assert len(result.agent_lines) == 1
    assert "colorsys" in result.agent_lines[0]
    assert "ValueError: mine" in result.agent_lines[0]


@on_oldest_and_newest
def test_a_deferred_patch_of_a_name_that_is_not_there_is_reported(
    python: Python, traced: Callable[..., Result]
) -> None:
    code = """
import remora
handle = remora.patch("colorsys?", "no_such_name", lambda wrapped, instance, args, kwargs: 1)
import colorsys
assert handle.applied is False
"""
    result = traced(code, python=python.exe).ok()
    assert len(result.agent_lines) == 1
    assert "no_such_name" in result.agent_lines[0]


@on_every_python
def test_a_module_run_with_m_still_runs(
    python: Python, traced: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "runme.py").write_text("import sys\nprint(__name__, __spec__.name, sys.argv[1:])\n")
    (tmp_path / "sitting.py").write_text(
        "import remora\nremora.when_imported('runme')(print)\nimport runpy\n"
        "runpy.run_module('runme', run_name='__main__', alter_sys=True)\n"
    )
    result = traced(tmp_path / "sitting.py", python=python.exe, cwd=tmp_path).ok()
    assert "__main__ runme []" in result.stdout


@on_every_python
def test_patch_trace_and_when_imported_work_without_an_active_agent(python: Python) -> None:
    code = """
import remora, sys
seen = []
remora.when_imported("colorsys")(seen.append)
handle = remora.patch("colorsys?", "rgb_to_hsv", lambda wrapped, instance, args, kwargs: "patched")
traced = remora.trace("colorsys?", "hsv_to_rgb")
import colorsys
assert seen == [colorsys]
assert handle.applied and traced.applied
assert colorsys.rgb_to_hsv(1, 1, 1) == "patched"
assert colorsys.hsv_to_rgb(0, 0, 0) == (0, 0, 0)
@remora.traced
def work():
    return remora.current_span_id()
work()
with remora.span("x"):
    pass
assert remora.status()["active"] is False
"""
    result = run_python(code, python=python.exe)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""


@on_every_python
def test_nothing_is_imported_by_the_api(python: Python, traced: Callable[..., Result]) -> None:
    code = """
import sys
import remora
before = set(sys.modules)
@remora.traced
def work(): pass
@remora.traced
async def run(): pass
@remora.traced
def steps(): yield
work(); run().send
list(steps())
with remora.span("x", a=1): pass
try:
    with remora.span("y"): raise ValueError
except ValueError: pass
try: run().send(None)
except StopIteration: pass
remora.patch("json?", "loads", work)
remora.when_imported("asyncio")(print)
print(sorted(set(sys.modules) - before))
"""
    result = traced(code, python=python.exe, flags=["-W", "ignore"]).ok()
    assert result.stdout.strip() == "[]"


@on_every_python
def test_nothing_is_wrapped_after_deactivation(python: Python, traced: Callable[..., Result]) -> None:
    code = """
import remora._native
remora._native.deactivate()
import sqlite3
assert not hasattr(sqlite3.Cursor.execute, "__wrapped__")
sqlite3.connect(":memory:").execute("select 1")
"""
    assert traced(code, python=python.exe).ok().spans == []
