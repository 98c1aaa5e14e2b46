"""Two ways in: the wheel in a virtual environment, and one folder injected into a Python without it."""

import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.process import Env, Result, run


@dataclass(frozen=True)
class Way:
    """A launcher, the Python that it is tried with, and the folder that it puts on PYTHONPATH."""

    launcher: Path
    python: Path
    autoload: Path

    def run(self, *command: str | Path, flags: tuple[str, ...] = (), **options: Any) -> Result:
        return run([self.launcher, "run", *flags, *command], **options)

    def run_python(self, code: str, *flags: str, env: Env | None = None, **options: Any) -> Result:
        return self.run(self.python, *flags, "-c", code, env=env, **options)


def package_of(python: Path) -> Path:
    """The package in that interpreter's site-packages."""
    code = "import sysconfig; print(sysconfig.get_path('platlib'))"
    folder = subprocess.run(
        [python, "-I", "-c", code], check=True, capture_output=True, text=True, timeout=30
    )
    return Path(folder.stdout.strip()) / "remora"


@pytest.fixture(scope="session")
def injection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed package and launcher, laid out as `make inject` does it."""
    root = tmp_path_factory.mktemp("injected folder")  # the blank is meant
    shutil.copytree(package_of(Path(sys.executable)), root / "remora")
    (root / "bin").mkdir()
    shutil.copy(Path(sys.executable).parent / "remora", root / "bin")
    return root


@pytest.fixture(scope="session")
def bare_python() -> Path:
    """The interpreter below the virtual environment: no remora in its site-packages."""
    return Path(sys.base_prefix) / "bin" / f"python{sysconfig.get_python_version()}"


@pytest.fixture(params=["wheel", "injected"])
def way(request: pytest.FixtureRequest, injection: Path, bare_python: Path) -> Way:
    if request.param == "wheel":
        python = Path(sys.executable)
        return Way(python.parent / "remora", python, package_of(python) / "autoload")
    return Way(injection / "bin" / "remora", bare_python, injection / "remora" / "autoload")


@pytest.fixture
def site_folder(tmp_path: Path) -> Callable[..., Path]:
    """A folder of the application with the modules given by name and text."""

    def make(**modules: str) -> Path:
        folder = tmp_path / "application"
        folder.mkdir(exist_ok=True)
        for name, text in modules.items():
            (folder / f"{name}.py").write_text(text)
        return folder

    return make
