"""The interpreters that tests run on: `.venv`'s own, and the others that `make venvs` has prepared."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.paths import CACHE

SUPPORTED = ("3.11", "3.12", "3.13", "3.14", "3.15")
PRIMARY = "{}.{}".format(*sys.version_info)


@dataclass(frozen=True)
class Python:
    """An interpreter with the wheel and the libraries in its environment.

    `age` is empty where these are the newest releases; else it names `tests/requirements-<age>.txt`.
    """

    version: str
    exe: Path
    age: str = ""

    @property
    def tag(self) -> str:
        return "cp" + self.version.replace(".", "")

    @property
    def launcher(self) -> Path:
        """The `remora` command beside it."""
        return self.exe.parent / "remora"

    @property
    def number(self) -> tuple[int, int]:
        major, minor = self.version.split(".")
        return int(major), int(minor)

    def __fspath__(self) -> str:
        return str(self.exe)

    def __str__(self) -> str:
        return str(self.exe)


def _listed() -> set[str]:
    try:
        return {line.split()[0] for line in (CACHE / "pythons.txt").read_text().splitlines()}
    except FileNotFoundError:
        return set()


def _usable(exe: Path) -> bool:
    return exe.exists() and subprocess.run([exe, "-c", ""], check=False, timeout=30).returncode == 0


def _find() -> dict[str, Python]:
    found = {PRIMARY: Python(PRIMARY, Path(sys.executable))}
    for version in _listed() - {PRIMARY}:
        python = Python(version, CACHE / "venvs" / ("cp" + version.replace(".", "")) / "bin" / "python")
        if _usable(python.exe):
            found[version] = python
    return found


AVAILABLE = _find()
OLD_RELEASES = {
    age: Python("3.11", CACHE / "venvs" / f"cp311-{age}" / "bin" / "python", age) for age in ("old", "middle")
}


def _param(version: str) -> object:
    if version in AVAILABLE:
        return pytest.param(AVAILABLE[version], id=version)
    reason = f"CPython {version} is not on this machine (make pythons venvs)"
    return pytest.param(None, id=version, marks=pytest.mark.skip(reason=reason))


def on(*versions: str) -> pytest.MarkDecorator:
    """Runs the test, with an argument `python`, on each of these versions; missing ones are skipped."""
    return pytest.mark.parametrize("python", [_param(version) for version in versions])


on_every_python = on(*SUPPORTED)
on_oldest_and_newest = on(SUPPORTED[0], SUPPORTED[-1])


def on_releases(*ages: str) -> pytest.MarkDecorator:
    """Runs the test, with an argument `python`, on CPython 3.11 with these ages of the libraries' releases.

    `old`, `middle` (`tests/requirements-<age>.txt`) and `newest`, which is `.venv`.
    """
    pythons = {**OLD_RELEASES, "newest": AVAILABLE[PRIMARY]}
    return pytest.mark.parametrize("python", [pytest.param(pythons[age], id=age) for age in ages])
