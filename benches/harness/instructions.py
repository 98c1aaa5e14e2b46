"""A second opinion without noise: instructions in user space for an iteration, counted by valgrind.

Two runs of the same unit with different numbers of iterations; their difference leaves start and end out.
All threads count, not the kernel nor the cyclic garbage collector: one full collection more or less would be
several per cent. `perf stat` would be faster, but virtual machines rarely have the counters.
"""

import re
import shutil
import subprocess

from .variants import Variant
from .venvs import BENCHES

FEW, MANY = 20, 100
SEEDS = ("0", "1", "2")


def available() -> bool:
    return shutil.which("valgrind") is not None


def per_iteration(variant: Variant, unit: str, environment: dict[str, str]) -> list[float]:
    """Instructions of one iteration, for each hash seed: where objects lie is worth up to a per cent."""
    return [_difference(variant, unit, environment | {"PYTHONHASHSEED": seed}) for seed in SEEDS]


def _difference(variant: Variant, unit: str, environment: dict[str, str]) -> float:
    return (_run(variant, unit, environment, MANY) - _run(variant, unit, environment, FEW)) / (MANY - FEW)


def _run(variant: Variant, unit: str, environment: dict[str, str], n: int) -> int:
    valgrind = [shutil.which("valgrind"), "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    python = [str(variant.venv / "bin/python"), str(BENCHES / "units" / f"{unit}.py")]
    done = subprocess.run(
        variant.command(*valgrind, *python),
        env=variant.environment(environment),
        input=f"-{n}\n",
        capture_output=True,
        text=True,
        timeout=120,
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not found:
        raise RuntimeError(f"{variant.name} under valgrind: {done.stderr[-300:]}")
    return int(found[1])
