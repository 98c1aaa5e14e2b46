import asyncio
import contextvars
import gc
import inspect
import sys
import traceback
import types
import warnings
import weakref

from remora import current_span_id, patch, span, trace, traced

from _spans import made, names


class Special(Exception):
    pass


@traced
async def work(x=1, *, error=None, wait=0):
    "Works."
    for _ in range(wait):
        await asyncio.sleep(0)
    if error is not None:
        raise error
    return x


def run(coroutine):
    return asyncio.run(coroutine)


def frames(error):
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


def test_it_is_a_coroutine_to_every_check():
    coroutine = work()
    assert type(coroutine) is types.CoroutineType
    assert asyncio.iscoroutine(coroutine)
    assert inspect.iscoroutine(coroutine)
    assert inspect.isawaitable(coroutine)
    assert coroutine.__name__ == "work"
    assert coroutine.__qualname__ == "work"
    assert repr(coroutine).startswith("<coroutine object work at ")
    assert coroutine.cr_code.co_name == "work"
    assert coroutine.cr_code.co_filename == __file__
    assert coroutine.cr_code.co_firstlineno == work.__code__.co_firstlineno
    assert coroutine.cr_frame.f_lineno == work.__code__.co_firstlineno
    assert coroutine.cr_await is None
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED
    coroutine.close()
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED
    assert inspect.iscoroutinefunction(work)
    assert names() == []


def test_it_returns_and_raises_as_the_original():
    assert run(work(5, wait=2)) == 5
    error = Special("x")

    async def main():
        try:
            await work(error=error)
        except Special as caught:
            assert caught is error
            assert frames(caught) == ["main", "work"]
            assert caught.__context__ is None
        else:
            raise AssertionError

    run(main())
    good, bad = made()
    assert not good.failed
    assert bad.failed
    assert bad.message == "x"
    assert bad.events[0][0] == "exception"
    assert "driver" not in bad.events[0][1]["exception.stacktrace"]


def test_tracebacks_have_no_frame_of_ours_however_deep():
    @traced
    async def outer():
        await asyncio.sleep(0)
        return await middle()

    async def middle():
        return await inner()

    @traced
    async def inner():
        await asyncio.sleep(0)
        raise Special

    async def main():
        try:
            await outer()
        except Special as error:
            return frames(error), [len(list(traceback.walk_tb(error.__traceback__)))]

    assert run(main()) == (["main", "outer", "middle", "inner"], [4])
    made()


def test_an_exception_raised_twice_keeps_its_traceback():
    error = Special()

    async def main():
        for _ in range(2):
            try:
                await work(error=error)
            except Special as caught:
                last = frames(caught)
        return last

    bare = [name for name in run(main()) if name not in ("main", "work")]
    assert bare == []
    made()


def test_a_wrong_call_raises_at_the_call():
    try:
        work(1, 2)
    except TypeError as error:
        assert "work()" in str(error)
        assert frames(error) == ["test_a_wrong_call_raises_at_the_call"]
    else:
        raise AssertionError


def test_never_awaited_warns_once_under_the_original_name():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        work()
        gc.collect()
    assert [str(warning.message) for warning in caught] == ["coroutine 'work' was never awaited"]
    assert caught[0].category is RuntimeWarning
    assert names() == []


def test_closed_before_its_start_is_silent():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        work().close()
        gc.collect()
    assert caught == []
    assert names() == []


def test_awaiting_twice_says_so():
    async def main():
        coroutine = work()
        await coroutine
        try:
            await coroutine
        except RuntimeError as error:
            return str(error)
        return None

    assert run(main()) == "cannot reuse already awaited coroutine"
    assert names() == ["work"]


def test_the_span_is_in_force_while_it_runs_and_across_awaits():
    @traced
    async def inside():
        before = current_span_id()
        await asyncio.sleep(0)
        assert current_span_id() == before
        with span("child"):
            await asyncio.sleep(0)
        assert current_span_id() == before
        return before

    async def main():
        assert current_span_id() is None
        result = await inside()
        assert current_span_id() is None
        return result

    result = run(main())
    child, own = made()
    assert own.id == result
    assert child.parent == own.id


def test_the_span_starts_where_it_runs_and_not_where_it_is_made():
    async def main():
        with span("maker"):
            coroutine = work()
        with span("runner"):
            await coroutine
        with span("task"):
            task = asyncio.create_task(work())
        await task

    run(main())
    spans = {}
    for one in made():
        spans.setdefault(one.name, []).append(one)
    first, second = spans["work"]
    assert first.parent == spans["runner"][0].id
    assert second.parent == spans["task"][0].id


def test_tasks_gathered_have_their_own_spans():
    seen = []

    @traced
    async def one(i):
        mine = current_span_id()
        for _ in range(i):
            await asyncio.sleep(0)
            assert current_span_id() == mine
        seen.append(mine)
        return i

    async def main():
        with span("all"):
            return await asyncio.gather(*(one(i) for i in range(20)))

    assert run(main()) == list(range(20))
    spans = made()
    parent = spans[-1]
    assert parent.name == "all"
    assert {child.parent for child in spans[:-1]} == {parent.id}
    assert sorted(child.id for child in spans[:-1]) == sorted(seen)


def test_wait_for_cancellation_and_as_completed_work():
    @traced
    async def slow():
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            assert current_span_id() is not None
            raise

    async def main():
        try:
            await asyncio.wait_for(slow(), 0.01)
        except TimeoutError:
            pass
        else:
            raise AssertionError
        task = asyncio.create_task(slow())
        await asyncio.sleep(0)
        task.cancel("why")
        try:
            await task
        except asyncio.CancelledError as error:
            assert error.args == ("why",)
        assert task.cancelled()
        done = [await one for one in asyncio.as_completed([work(1), work(1)])]
        assert done == [1, 1]
        async with asyncio.TaskGroup() as group:
            a = group.create_task(work(7), name="seven")
        assert a.result() == 7
        async with asyncio.timeout(5):
            assert await asyncio.shield(work(8)) == 8

    run(main())
    spans = made()
    assert [one.failed for one in spans] == [False] * len(spans)
    assert [one.name.rpartition(".")[2] for one in spans][:2] == ["slow", "slow"]
    assert len(spans) == 6


def test_send_throw_and_close_reach_the_original():
    class Once:
        def __await__(self):
            got = yield "asked"
            return got

    steps = []

    @traced
    async def talk():
        try:
            steps.append(await Once())
            steps.append(await Once())
        except Special:
            steps.append("caught")
            return "end"
        finally:
            steps.append("finally")

    coroutine = talk()
    assert coroutine.send(None) == "asked"
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_SUSPENDED
    assert inspect.iscoroutine(coroutine.cr_await)
    assert coroutine.send("answer") == "asked"
    try:
        coroutine.throw(Special())
    except StopIteration as stop:
        assert stop.value == "end"
    assert steps == ["answer", "caught", "finally"]
    steps.clear()
    coroutine = talk()
    coroutine.send(None)
    coroutine.close()
    assert steps == ["finally"]
    coroutine = talk()
    try:
        coroutine.throw(Special("early"))
    except Special as error:
        assert frames(error)[-1] == "talk"
    assert [one.failed for one in made()] == [False, False]


def test_a_stop_iteration_inside_becomes_what_it_does_without_us():
    @traced
    async def stop():
        raise StopIteration

    try:
        run(stop())
    except RuntimeError as error:
        assert "StopIteration" in str(error)
    else:
        raise AssertionError
    (one,) = made()
    assert one.failed


def test_it_is_collected_half_way_and_its_span_ends():
    @traced
    async def forever():
        await asyncio.Event().wait()

    loop = asyncio.new_event_loop()
    try:

        async def main():
            task = asyncio.create_task(forever())
            await asyncio.sleep(0)
            task.cancel()

        loop.run_until_complete(main())
        loop.run_until_complete(asyncio.sleep(0))

        async def bare():
            coroutine = forever()
            coroutine.send(None)
            reference = weakref.ref(coroutine)
            del coroutine
            gc.collect()
            assert reference() is None
            assert current_span_id() is None

        loop.run_until_complete(bare())
    finally:
        loop.close()
    assert [one.failed for one in made()] == [False, False]


def test_a_coroutine_closed_in_another_context_leaves_that_context_alone():
    class Pause:
        def __await__(self):
            yield

    @traced
    async def paused():
        await Pause()

    first = contextvars.Context()
    coroutine = paused()
    first.run(coroutine.send, None)
    with span("other") as _:
        mine = current_span_id()
        coroutine.close()
        assert current_span_id() == mine
    assert sorted(names()) == ["other", f"{paused.__qualname__}"]


def test_tasks_that_share_a_context_do_not_leave_spans_behind():
    async def main():
        context = contextvars.copy_context()
        tasks = [asyncio.create_task(work(wait=n), context=context) for n in (3, 1, 2)]
        await asyncio.gather(*tasks)
        assert context.run(current_span_id) is None

    run(main())
    assert names() == ["work"] * 3


def test_methods_and_every_decorator_order_work():
    class Work:
        @traced
        async def method(self):
            return self

        @traced
        @classmethod
        async def outer(cls):
            return cls

        @staticmethod
        @traced
        async def inner(x):
            return x

        @traced
        async def __call__(self):
            return "called"

    async def main():
        one = Work()
        assert await one.method() is one
        assert await Work.outer() is Work
        assert await one.inner(3) == 3
        assert await one() == "called"

    assert inspect.iscoroutinefunction(Work.method)
    assert inspect.iscoroutinefunction(Work().method)
    assert inspect.iscoroutinefunction(Work.outer)
    run(main())
    assert len(names()) == 4


def test_partials_and_callable_objects_are_followed():
    import functools

    class Work:
        async def __call__(self, x):
            await asyncio.sleep(0)
            return x, current_span_id()

    async def main():
        value, within = await traced(name="object")(Work())(3)
        assert value == 3
        other, inside = await traced(name="partial")(functools.partial(Work().__call__, 4))()
        assert other == 4
        return within, inside

    ids = run(main())
    spans = made()
    assert [one.name for one in spans] == ["object", "partial"]
    assert tuple(one.id for one in spans) == ids


def test_what_only_looks_like_a_coroutine_function_is_followed():
    from unittest import mock

    double = traced(name="double")(mock.AsyncMock(return_value=4))

    async def main():
        # Were each call a fault, tracing would be off by the last.
        return [await double() for _ in range(6)]

    assert run(main()) == [4] * 6
    assert [one.name for one in made()] == ["double"] * 6


def test_two_wrappers_nest():
    twice = traced(name="outer")(work)
    assert run(twice(3)) == 3
    inner, outer = made()
    assert (inner.name, outer.name) == ("work", "outer")
    assert inner.parent == outer.id


def test_trace_and_patch_take_coroutine_functions():
    import _targets

    handle = trace("_targets", "Base.async_method", kind="client")
    try:
        one = _targets.Base()
        assert run(one.async_method()) is one
        (made_one,) = made()
        assert made_one.kind == 3
    finally:
        handle.remove()

    async def wrapper(wrapped, instance, args, kwargs):
        return ("wrapped", await wrapped(*args, **kwargs))

    handle = patch("_targets", "coroutine", wrapper)
    try:
        assert run(_targets.coroutine(2)) == ("wrapped", 2)
    finally:
        handle.remove()


def test_the_origin_of_a_coroutine_is_the_applications():
    sys.set_coroutine_origin_tracking_depth(2)
    try:
        coroutine = work()
        assert coroutine.cr_origin[0][2] == "test_the_origin_of_a_coroutine_is_the_applications"
        coroutine.close()
    finally:
        sys.set_coroutine_origin_tracking_depth(0)


def test_types_coroutine_is_left_as_it_is():
    @traced
    @types.coroutine
    def old():
        yield from asyncio.sleep(0).__await__()
        return 5

    async def main():
        return await old()

    assert run(main()) == 5
    made()


def test_a_task_shows_the_original_in_its_text():
    async def main():
        task = asyncio.create_task(work(wait=1))
        text = repr(task)
        await task
        return text

    text = run(main())
    assert "coro=<work() " in text
    assert __file__ in text
    made()
