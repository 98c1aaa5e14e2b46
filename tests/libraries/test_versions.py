"""Which releases the tests ran with: the table in docs/versions.md is made here."""

import json
import subprocess

from support.paths import ROOT
from support.pythons import AVAILABLE, OLD_RELEASES, PRIMARY, Python

# By distribution, as `pip` names them.
LIBRARIES = (
    "aiohttp", "Django", "fastapi", "Flask", "gunicorn", "httpx", "hypercorn", "kafka-python", "psycopg",
    "psycopg2-binary", "pymongo", "redis", "requests", "SQLAlchemy", "starlette", "urllib3", "uvicorn",
    "valkey",
)  # fmt: skip

HEAD = """# Releases that the tests ran with

Made by the test run (`tests/libraries/test_versions.py`). Every library's own tests run with the newest release on the first and the last CPython that is supported, and its main ones with the older releases; `-` is not installed there.

"""

ASK = """
import importlib.metadata, json, sys
def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
print(json.dumps({name: version(name) for name in sys.argv[1:]}))
"""


def _versions(python: Python) -> dict[str, str | None]:
    command = [python.exe, "-I", "-c", ASK, *LIBRARIES]
    found: dict[str, str | None] = json.loads(subprocess.check_output(command, text=True))
    return found


def test_the_table_of_releases_says_what_ran() -> None:
    columns = {f"{python.version}, {age}": python for age, python in OLD_RELEASES.items()}
    columns |= dict(sorted(AVAILABLE.items()))
    versions = {title: _versions(python) for title, python in columns.items()}
    lines = [
        f"| | {' | '.join(versions)} |",
        f"|---|{'---|' * len(versions)}",
        *(
            f"| {name} | {' | '.join(found[name] or '-' for found in versions.values())} |"
            for name in LIBRARIES
        ),
    ]
    assert all(versions[PRIMARY].values()), versions[PRIMARY]
    for age in OLD_RELEASES:
        pinned = (ROOT / f"tests/requirements-{age}.txt").read_text().splitlines()
        for name, version in (line.split("==") for line in pinned if "==" in line):
            installed = versions[f"3.11, {age}"].get(name, version)
            assert installed is not None
            assert _parts(installed) == _parts(version), (name, age)
    (ROOT / "docs" / "versions.md").write_text(HEAD + "\n".join(lines) + "\n")


def _parts(version: str) -> list[str]:
    """Without trailing zeros: `3.1` is `3.1.0`."""
    parts = version.split(".")
    while parts[-1] == "0":
        parts.pop()
    return parts
