import asyncio
import collections.abc
import contextlib
import gc
import inspect
import sys
import types

from remora import current_span_id, span, trace, traced

from _spans import made, names


class Special(Exception):
    pass


@traced
async def count(n):
    "Counts."
    mine = current_span_id()
    for i in range(n):
        await asyncio.sleep(0)
        assert current_span_id() == mine
        got = yield i
        assert current_span_id() == mine
        if got is not None:
            yield got


def run(coroutine):
    return asyncio.run(coroutine)


def test_it_is_an_async_generator_to_every_check():
    one = count(1)
    assert isinstance(one, types.AsyncGeneratorType)
    assert isinstance(one, collections.abc.AsyncGenerator)
    assert inspect.isasyncgen(one)
    assert inspect.isasyncgenfunction(count)
    assert one.__class__ is types.AsyncGeneratorType
    assert one.__name__ == "count"
    assert one.__qualname__ == "count"
    assert repr(one).startswith("<async_generator object count at ")
    assert one.ag_code is count.__code__
    assert one.ag_frame is not None
    assert one.ag_running is False
    assert one.ag_await is None
    assert aiter(one) is one
    if sys.version_info >= (3, 12):
        assert inspect.getasyncgenstate(one) == inspect.AGEN_CREATED
    step = one.__anext__()
    assert inspect.isawaitable(step)
    assert isinstance(step, collections.abc.Coroutine)
    step.close()


def test_it_yields_and_takes_values():
    async def main():
        assert [i async for i in count(3)] == [0, 1, 2]
        one = count(2)
        assert await anext(one) == 0
        assert await one.asend("x") == "x"
        assert await one.asend(None) == 1
        try:
            await anext(one)
        except StopAsyncIteration:
            pass
        else:
            raise AssertionError
        assert await anext(one, "nothing") == "nothing"
        async with contextlib.aclosing(count(5)) as five:
            async for i in five:
                if i == 2:
                    break

    run(main())
    assert names() == ["count"] * 3


def test_the_span_is_in_force_only_while_it_runs():
    @traced
    async def produce():
        while True:
            await asyncio.sleep(0)
            yield current_span_id()

    async def main():
        one = produce()
        mine = await anext(one)
        assert mine is not None
        assert current_span_id() is None
        with span("around"):
            around = current_span_id()
            assert await anext(one) == mine
            assert current_span_id() == around
        await one.aclose()
        return mine

    mine = run(main())
    outer, inner = made()
    assert inner.id == mine
    assert outer.name == "around"


def test_tasks_of_other_contexts_may_take_turns():
    async def main():
        one = count(6)
        got = []

        async def take(name):
            with span(name):
                mine = current_span_id()
                got.append(await anext(one))
                assert current_span_id() == mine

        for i in range(6):
            await asyncio.create_task(take(f"taker {i}"))
        async for _ in one:
            raise AssertionError
        assert got == list(range(6))
        assert current_span_id() is None

    run(main())
    assert names().count("count") == 1


def test_other_tasks_do_not_see_the_span_while_it_awaits():
    seen = []

    @traced
    async def produce():
        for _ in range(3):
            await asyncio.sleep(0)
            yield 1

    async def main():
        async def watch():
            for _ in range(6):
                seen.append(current_span_id())
                await asyncio.sleep(0)

        watcher = asyncio.create_task(watch())
        async for _ in produce():
            pass
        await watcher

    run(main())
    assert set(seen) == {None}
    made()


def test_exceptions_are_recorded_and_pass_unchanged():
    @traced
    async def fail():
        yield 1
        await asyncio.sleep(0)
        raise Special("x")

    async def main():
        import traceback

        try:
            async for _ in fail():
                pass
        except Special as error:
            return [frame.name for frame in traceback.extract_tb(error.__traceback__)]

    assert run(main()) == ["main", "fail"]
    (only,) = made()
    assert only.failed
    assert only.message == "x"


def test_athrow_and_aclose_reach_the_original():
    steps = []

    @traced
    async def produce():
        try:
            yield 1
        except Special:
            steps.append(("caught", current_span_id() is not None))
            yield 2
        finally:
            await asyncio.sleep(0)
            steps.append(("finally", current_span_id() is not None))

    async def main():
        one = produce()
        await anext(one)
        assert await one.athrow(Special()) == 2
        await one.aclose()
        await one.aclose()
        fresh = produce()
        await fresh.aclose()
        thrown = produce()
        try:
            await thrown.athrow(Special("early"))
        except Special:
            pass

    run(main())
    assert steps == [("caught", True), ("finally", True)]
    spans = made()
    assert [one.failed for one in spans] == [False, True]


def test_cancellation_is_no_error():
    @traced
    async def forever():
        yield 1
        await asyncio.sleep(30)

    async def main():
        async def take():
            async for _ in forever():
                pass

        task = asyncio.create_task(take())
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    run(main())
    (only,) = made()
    assert not only.failed


def test_left_half_way_it_is_closed_by_the_loop_and_the_span_ends():
    closed = []

    @traced
    async def produce():
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(0)
            closed.append(1)

    async def main():
        async for _ in produce():
            break
        gc.collect()
        await asyncio.sleep(0.01)

    run(main())
    assert closed == [1]
    assert [one.failed for one in made()] == [False]


def test_the_loop_closes_what_is_still_open_at_its_end():
    closed = []

    @traced
    async def produce():
        try:
            yield 1
        finally:
            closed.append(1)

    held = []

    async def main():
        held.append(produce())
        await anext(held[0])

    run(main())
    assert closed == [1]
    held.clear()
    gc.collect()
    assert names() == [produce.__qualname__]


def test_hooks_of_the_interpreter_see_each_generator_once():
    first, last = [], []
    old = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(first.append, last.append)
    try:

        @traced
        async def produce():
            yield 1

        one = produce()
        step = one.__anext__()
        try:
            step.send(None)
        except StopIteration as stop:
            assert stop.value == 1
        assert len(first) == 1
        assert type(first[0]) is types.AsyncGeneratorType
        first.clear()
        del one, step
        gc.collect()
        assert len(last) == 1
        try:
            last.pop().aclose().send(None)
        except StopIteration:
            pass
    finally:
        sys.set_asyncgen_hooks(*old)
    made()


def test_a_second_step_while_one_is_under_way_says_so():
    @traced
    async def produce():
        await asyncio.sleep(0.01)
        yield 1
        yield 2

    async def main():
        one = produce()
        task = asyncio.create_task(one.asend(None))
        await asyncio.sleep(0)
        try:
            await anext(one)
        except RuntimeError as error:
            assert "already running" in str(error)
        else:
            raise AssertionError
        assert await task == 1
        assert await anext(one) == 2
        await one.aclose()

    run(main())
    (only,) = made()
    assert not only.failed


def test_an_async_context_manager_is_made_of_it():
    @contextlib.asynccontextmanager
    @traced
    async def manage():
        try:
            yield 5
        except Special:
            pass

    async def main():
        async with manage() as five:
            assert five == 5
        async with manage():
            raise Special

    run(main())
    made()


def test_methods_and_patches():
    import _targets

    class Work:
        @traced
        async def steps(self):
            yield self

    async def main():
        one = Work()
        assert [x async for x in one.steps()] == [one]
        handle = trace("_targets", "async_generator")
        try:
            assert [x async for x in _targets.async_generator(2)] == [0, 1]
        finally:
            handle.remove()

    run(main())
    assert len(names()) == 2


def test_two_wrappers_nest():
    twice = traced(name="outer")(count)

    async def main():
        return [i async for i in twice(2)]

    assert run(main()) == [0, 1]
    inner, outer = made()
    assert (inner.name, outer.name) == ("count", "outer")
    assert inner.parent == outer.id
