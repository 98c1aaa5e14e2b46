"""Which CPUs measure and which serve: moving between them, or sharing one, is noise."""

import contextlib
import os
from collections.abc import Iterator

pinned = len(os.sched_getaffinity(0)) > 1


def for_units(command: list[str]) -> list[str]:
    """`command` on the last CPU."""
    return ["taskset", "-c", str(max(os.sched_getaffinity(0))), *command] if pinned else command


@contextlib.contextmanager
def for_servers() -> Iterator[None]:
    """What is started inside runs on the other CPUs."""
    every = os.sched_getaffinity(0)
    if pinned:
        os.sched_setaffinity(0, every - {max(every)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, every)
