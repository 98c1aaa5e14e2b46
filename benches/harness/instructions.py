"""A second opinion without noise: instructions in user space for an iteration, counted by valgrind.

Two runs of the same unit with different numbers of iterations; their difference leaves start and end out. All
threads count, the kernel does not. `perf stat` would be faster, but virtual machines rarely have the counters.
"""

import re
import shutil
import subprocess

from .variants import Variant
from .venvs import BENCHES

FEW, MANY = 60, 260


def available() -> bool:
    return shutil.which("valgrind") is not None


def per_iteration(variant: Variant, unit: str, environment: dict[str, str]) -> float:
    """Instructions of one iteration."""
    return (_run(variant, unit, environment, MANY) - _run(variant, unit, environment, FEW)) / (MANY - FEW)


def _run(variant: Variant, unit: str, environment: dict[str, str], n: int) -> int:
    valgrind = [shutil.which("valgrind"), "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    python = [str(variant.venv / "bin/python"), str(BENCHES / "units" / f"{unit}.py")]
    done = subprocess.run(
        variant.command(*valgrind, *python),
        env=variant.environment(environment),
        input=f"{n}\n",
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not found:
        raise RuntimeError(f"{variant.name} under valgrind: {done.stderr[-300:]}")
    return int(found[1])
