"""PYTHONPATH reaches Pythons that no extension fits: they run as if nothing were there, after one line."""

import os
import re
from pathlib import Path

import pytest
from support.process import run

OLD = ("2.7", "3.6", "3.7", "3.8", "3.9", "3.10")


def find(version: str) -> Path | None:
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for folder in sorted(root.glob(f"{version}.*/bin")):
        exe = folder / f"python{version}"
        if exe.exists():
            return exe
    for folder in os.get_exec_path():
        exe = Path(folder) / f"python{version}"
        if exe.exists() and run([exe, "-c", ""]).returncode == 0:
            return exe
    return None


@pytest.fixture(scope="session", params=OLD)
def old(request):
    exe = find(request.param)
    if exe is None:
        pytest.skip(f"CPython {request.param} is not on this machine")
    return exe


def test_the_launched_one_says_it_in_one_line_and_runs(injection, old):
    code = "import sys; print([p for p in sys.path if 'autoload' in p], 'sitecustomize' in sys.modules)"
    result = run([injection / "bin" / "remora", "run", old, "-c", code]).ok()
    assert re.sub(r"[(),]", "", result.stdout) == "[] False\n"
    assert result.stderr.count("\n") == 1
    assert result.agent_lines


def test_its_children_are_silent(injection, old):
    result = run([injection / "bin" / "remora", "run", "sh", "-c", f"{old} -c 'print(1)'; exit 3"])
    assert (result.returncode, result.stdout, result.stderr) == (3, "1\n", "")


def test_its_own_sitecustomize_runs(injection, old, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.stdout.write('mine ' + __name__ + '\\n')")
    env = {"PYTHONPATH": str(tmp_path)}
    result = run([injection / "bin" / "remora", "run", old, "-c", "import sitecustomize"], env=env).ok()
    assert result.stdout == "mine sitecustomize\n"


def test_not_enabled_is_silent(injection, old):
    env = {"PYTHONPATH": str(injection / "remora" / "autoload"), "REMORA_ENABLED": "false"}
    result = run([old, "-c", "print(1)"], env=env).ok()
    assert (result.stdout, result.stderr) == ("1\n", "")
