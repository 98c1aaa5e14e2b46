"""The public API, each file of `suite/` in a process of its own on every interpreter."""

from pathlib import Path

import pytest
from support.process import run_python
from support.pythons import Python, on_every_python

HERE = Path(__file__).parent
RUNNER = HERE.parent / "wrapper" / "run_suite.py"
SUITES = sorted(path for path in (HERE / "suite").glob("*.py") if not path.stem.startswith("_"))


@on_every_python
@pytest.mark.parametrize("suite", SUITES, ids=lambda path: path.stem)
def test_every_promise_holds(python: Python, suite: Path, spans_folder: Path) -> None:
    result = run_python(RUNNER, str(suite), python=python.exe, folder=spans_folder, flags=["-X", "dev"])
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    assert not result.agent_lines, result.stderr
