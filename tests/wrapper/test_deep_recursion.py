"""Recursion as deep as the application allows ends as it does without us, or in a `RecursionError`; never in a fault."""

from collections.abc import Callable

from support.process import Result
from support.pythons import Python, on_every_python

PROGRAM = """
import asyncio
import sys
import threading
from remora import traced

@traced
def down(n):
    return 0 if n == 0 else 1 + down(n - 1)

@traced
def steps(n):
    if n:
        yield from steps(n - 1)
    else:
        yield DEPTH

@traced
async def awaited(n):
    return 0 if n == 0 else 1 + await awaited(n - 1)

def run():
    sys.setrecursionlimit(3 * DEPTH)
    for way in (
        lambda: down(DEPTH), lambda: next(steps(DEPTH)), lambda: asyncio.run(awaited(DEPTH)),
    ):
        try:
            assert way() == DEPTH
        except RecursionError:
            pass
        assert down(50) == 50
    print("done")

def in_thread(size):
    threading.stack_size(size)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
"""


@on_every_python
def test_the_main_thread_never_runs_out_of_stack(python: Python, traced: Callable[..., Result]) -> None:
    code = f"DEPTH = 25_000\n{PROGRAM}\nrun()\n"
    # Unsampled: else each level would write the stack that it failed with.
    env = {"OTEL_TRACES_SAMPLER": "always_off"}
    assert traced(code, python=python.exe, env=env).ok().stdout == "done\n"


@on_every_python
def test_a_thread_with_a_small_stack_never_runs_out_of_it(
    python: Python, traced: Callable[..., Result]
) -> None:
    # Without us it needs no stack, or so little.
    code = f"DEPTH = 1_000\n{PROGRAM}\nfor size in (512 * 1024, 1024 * 1024):\n    in_thread(size)\n"
    assert traced(code, python=python.exe).ok().stdout == "done\ndone\n"


@on_every_python
def test_a_stack_that_is_made_larger_meanwhile_is_used(python: Python, traced: Callable[..., Result]) -> None:
    code = f"""
import resource
DEPTH = 12_000
{PROGRAM}
down(10)
soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
if hard == resource.RLIM_INFINITY:
    resource.setrlimit(resource.RLIMIT_STACK, (64 * 1024 * 1024, hard))
    sys.setrecursionlimit(20_000)
    # From 3.12 on CPython bounds it otherwise.
    assert sys.version_info >= (3, 12) or down(DEPTH) == DEPTH
"""
    traced(code, python=python.exe, env={"OTEL_TRACES_SAMPLER": "always_off"}).ok()
