"""The parent is right wherever asyncio lets work run: tasks, groups, threads, callbacks, generators left half-way."""

from collections.abc import Callable
from typing import Any

import pytest
from support.otlp import shape
from support.pythons import Python, on_oldest_and_newest
from support.servers.mongodb import MongoDB

from .conftest import Program

# `query(name)` is the span `drop table name`, `find(name)` the span `find name`; `outer(name)` a span around work.
ASYNC = """
import asyncio, contextvars, sqlite3, threading
from concurrent.futures import ThreadPoolExecutor
import pymongo, remora
local = sqlite3.connect(":memory:", check_same_thread=False)
client = pymongo.MongoClient(os.environ["MONGO"])
client.server_info()

def query(name):
    local.execute(f"drop table if exists {name}")

def find(name):
    client.db[name].find_one()

async def step(name, turns=1):
    for _ in range(turns):
        await asyncio.sleep(0)
    query(name)

def run(main):
    async def around():
        await main()
        query("outside")
    asyncio.run(around())
"""
OUTSIDE = ["drop table outside"]


@pytest.fixture
def trees(program: Callable[..., Program], mongodb: MongoDB) -> Callable[..., list[Any]]:
    """Runs an `async def main()`; the trees of its spans, sorted by name at each level."""

    def run(code: str, python: Python) -> list[Any]:
        result = program(ASYNC + code + "\nrun(main)\n", python=python, env={"MONGO": mongodb.uri})
        spans = [
            span
            for span in result.spans
            if span.get("db.operation.name") not in ("endSessions", "buildInfo", "buildinfo")
        ]
        return _sorted(shape(spans))

    return run


def _sorted(trees: list[Any]) -> list[Any]:
    return sorted([tree[0], *_sorted(tree[1:])] for tree in trees)


def below(name: str, *children: str) -> list[Any]:
    return [name, *sorted([child] for child in children)]


@on_oldest_and_newest
def test_tasks_belong_to_where_they_were_made(trees: Callable[..., list[Any]], python: Python) -> None:
    code = """
async def main():
    loop = asyncio.get_running_loop()
    with remora.span("outer"):
        first = asyncio.create_task(step("first", 3))
        with remora.span("inner"):
            second = asyncio.create_task(step("second", 5))
            loop.call_soon(query, "soon")
            loop.call_later(0.01, query, "later")
            late = asyncio.create_task(step("late", 50))
        await first
        await second
        await asyncio.wait_for(step("waited", 2), 5)
        await asyncio.shield(step("shielded"))
        for one in asyncio.as_completed([step("any", 2)]):
            await one
        await asyncio.sleep(0.05)
    other = asyncio.create_task(step("other"), context=contextvars.Context())
    await asyncio.gather(late, other)
"""
    assert trees(code, python) == _sorted(
        [
            OUTSIDE,
            ["drop table other"],
            [
                "outer",
                ["drop table any"],
                ["drop table first"],
                ["drop table shielded"],
                ["drop table waited"],
                below("inner", "drop table second", "drop table soon", "drop table later", "drop table late"),
            ],
        ]
    )


@on_oldest_and_newest
def test_gathered_steps_do_not_mix(trees: Callable[..., list[Any]], python: Python) -> None:
    code = """
async def branch(n):
    with remora.span(f"branch{n}"):
        await asyncio.sleep(0.001 * (7 - n))
        query(f"one{n}")
        await asyncio.gather(step(f"two{n}", n), asyncio.to_thread(find, f"three{n}"))

async def main():
    with remora.span("gather"):
        await asyncio.gather(*(branch(n) for n in range(6)))
        query("after")
"""
    branches = [
        below(f"branch{n}", f"drop table one{n}", f"drop table two{n}", f"find three{n}") for n in range(6)
    ]
    assert trees(code, python) == _sorted([OUTSIDE, ["gather", *branches, ["drop table after"]]])


@on_oldest_and_newest
def test_a_group_whose_task_fails_leaves_the_parent_in_force(
    trees: Callable[..., list[Any]], python: Python
) -> None:
    code = """
async def fails():
    with remora.span("fails"):
        await step("before")
        raise ValueError("mine")

async def waits():
    with remora.span("waits"):
        try:
            await asyncio.sleep(60)
        finally:
            query("cleanup")

async def main():
    with remora.span("group"):
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(waits())
                group.create_task(fails())
        except* ValueError:
            query("handled")
        try:
            async with asyncio.timeout(0.01):
                await waits()
        except TimeoutError:
            query("late")
"""
    waits = below("waits", "drop table cleanup")
    assert trees(code, python) == _sorted(
        [
            OUTSIDE,
            [
                "group",
                ["drop table handled"],
                ["drop table late"],
                below("fails", "drop table before"),
                waits,
                waits,
            ],
        ]
    )


@on_oldest_and_newest
def test_threads_of_executors_get_the_span_and_keep_nothing(
    trees: Callable[..., list[Any]], python: Python
) -> None:
    code = """
def nested(name):
    with remora.span(name):
        find(name)
        thread = threading.Thread(target=find, args=(name + "thread",))
        thread.start()
        thread.join()

async def main():
    loop = asyncio.get_running_loop()
    pool = ThreadPoolExecutor(1)
    with remora.span("outer"):
        await asyncio.to_thread(find, "plain")
        await loop.run_in_executor(None, find, "default")
        await loop.run_in_executor(pool, nested, "own")
        pending = loop.run_in_executor(pool, find, "pending")
        back = asyncio.run_coroutine_threadsafe
        await asyncio.to_thread(lambda: query("there"))
        await asyncio.to_thread(lambda: back(step("back"), loop).result(5))
    await pending
    await loop.run_in_executor(pool, find, "free")
    await asyncio.to_thread(find, "alone")
    pool.shutdown()
"""
    assert trees(code, python) == _sorted(
        [
            OUTSIDE,
            ["find alone"],
            ["find free"],
            [
                "outer",
                ["drop table back"],
                ["drop table there"],
                ["find default"],
                ["find pending"],
                ["find plain"],
                below("own", "find own", "find ownthread"),
            ],
        ]
    )


@on_oldest_and_newest
def test_generators_left_half_way_leave_no_span_behind(
    trees: Callable[..., list[Any]], python: Python
) -> None:
    code = """
import contextlib, gc

@remora.traced(name="numbers")
async def numbers(label):
    try:
        for n in range(5):
            await step(f"{label}{n}")
            yield n
    finally:
        query(f"{label}end")

async def plain(label):
    for n in range(5):
        await step(f"{label}{n}")
        yield n

async def main():
    with remora.span("broken"):
        async for n in numbers("broken"):
            query(f"use{n}")
            if n == 1:
                break
        query("afterbreak")
        gc.collect()
        await asyncio.sleep(0.01)
    with remora.span("closed"):
        async with contextlib.aclosing(numbers("closed")) as all:
            await anext(all)
        query("afterclose")
    generator = plain("plain")
    with remora.span("here"):
        await anext(generator)
    with remora.span("there"):
        await asyncio.create_task(take(generator))
    await generator.aclose()

async def take(generator):
    await anext(generator)
"""
    assert trees(code, python) == _sorted(
        [
            OUTSIDE,
            [
                "broken",
                ["drop table afterbreak"],
                ["drop table use0"],
                ["drop table use1"],
                below("numbers", "drop table broken0", "drop table broken1", "drop table brokenend"),
            ],
            [
                "closed",
                ["drop table afterclose"],
                below("numbers", "drop table closed0", "drop table closedend"),
            ],
            below("here", "drop table plain0"),
            below("there", "drop table plain1"),
        ]
    )


@on_oldest_and_newest
def test_a_thread_with_a_context_of_the_application_s_keeps_it(
    trees: Callable[..., list[Any]], python: Python
) -> None:
    code = """
async def main():
    with remora.span("outer"):
        copied, empty = contextvars.copy_context(), contextvars.Context()
        threads = [threading.Thread(target=find, args=["plain"])]
        if sys.version_info >= (3, 14):
            threads.append(threading.Thread(target=find, args=["copied"], context=copied))
            threads.append(threading.Thread(target=find, args=["empty"], context=empty))
        else:
            threads.append(threading.Thread(target=copied.run, args=[find, "copied"]))
            threads.append(threading.Thread(target=empty.run, args=[find, "empty"]))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
"""
    expected = [OUTSIDE, ["find empty"], below("outer", "find plain", "find copied")]
    assert trees(code, python) == _sorted(expected)
