"""No reference is leaked, none is given up twice."""

import asyncio
import gc
import sqlite3
import sys
import types
import weakref

from remora import patch, span, trace, traced

from _targets import async_generator, coroutine, generator


class Thing:
    pass


def counts(*objects):
    gc.collect()
    return [sys.getrefcount(thing) for thing in objects]


def unchanged(action, *objects):
    for _ in range(3):
        action()
    before, blocks = counts(*objects), sys.getallocatedblocks()
    for _ in range(200):
        action()
    after = counts(*objects)
    assert after == before, (before, after)
    grown = sys.getallocatedblocks() - blocks
    assert grown < 150, f"{grown} blocks more after 200 rounds"


@traced
def identity(x):
    return x


@traced
def fail(x):
    raise ValueError(x)


def failing(thing):
    try:
        fail(thing)
    except ValueError:
        pass


def test_calls_keep_nothing():
    thing = Thing()
    unchanged(lambda: identity(thing), thing, identity)
    unchanged(lambda: identity(x=thing), thing)


def test_exceptions_keep_nothing():
    thing = Thing()
    unchanged(lambda: failing(thing), thing)


def test_wrappers_are_freed():
    def work():
        pass

    unchanged(lambda: traced(work)(), work)


def test_binding_keeps_nothing():
    class Work:
        @traced
        def method(self):
            return self

    one = Work()
    unchanged(lambda: one.method(), one)

    def held():
        method = one.method
        method()

    unchanged(held, one, Work.__dict__["method"])


def test_bound_c_methods_keep_nothing():
    handle = trace("sqlite3", "Cursor.fetchone")
    connection = sqlite3.connect(":memory:")
    try:
        cursor = connection.execute("select 1")

        def held():
            fetch = cursor.fetchone
            fetch()

        unchanged(held, cursor)
    finally:
        connection.close()
        handle.remove()


def test_patches_keep_nothing_once_removed():
    def wrapper(wrapped, instance, args, kwargs):
        return wrapped(*args, **kwargs)

    def once():
        handle = patch("_targets", "Base.method", wrapper)
        handle.remove()

    unchanged(once, wrapper)


def test_a_call_through_a_patch_keeps_nothing():
    import _targets

    thing = Thing()
    handle = patch("_targets", "function", lambda wrapped, instance, args, kwargs: wrapped(*args, **kwargs))
    try:
        unchanged(lambda: _targets.function(thing, key=thing), thing)
    finally:
        handle.remove()


def test_coroutines_keep_nothing():
    thing = Thing()
    run = traced(coroutine)

    async def fail_in():
        raise ValueError(thing)

    failing = traced(fail_in)

    def drive(coro):
        try:
            coro.send(None)
        except (StopIteration, ValueError):
            return
        raise AssertionError

    unchanged(lambda: drive(run(thing)), thing)
    unchanged(lambda: drive(failing()), thing)
    unchanged(lambda: run(thing).close(), thing)


def test_generators_keep_nothing():
    thing = Thing()

    def produce(x):
        yield x
        yield x
        return x

    run = traced(produce)

    def half():
        iterator = run(thing)
        next(iterator)

    def closed():
        iterator = run(thing)
        next(iterator)
        iterator.close()

    def thrown():
        iterator = run(thing)
        next(iterator)
        try:
            iterator.throw(ValueError(thing))
        except ValueError:
            pass

    for action in (lambda: list(run(thing)), half, closed, thrown, lambda: run(thing)):
        unchanged(action, thing)
    assert list(traced(generator)(3)) == [0, 1, 2]


def test_async_generators_keep_nothing():
    thing = Thing()

    async def produce(x):
        yield x
        yield x

    run = traced(produce)

    async def through():
        async for _ in run(thing):
            pass

    async def closed():
        iterator = run(thing)
        await anext(iterator)
        await iterator.aclose()

    loop = asyncio.new_event_loop()
    try:
        for action in (through, closed):
            unchanged(lambda action=action: loop.run_until_complete(action()), thing)
    finally:
        loop.close()
    assert traced(async_generator) is not None


def test_blocks_keep_nothing():
    thing = Thing()

    def once():
        with span("x", thing=thing, number=1, texts=["a", "b"]):
            pass

    unchanged(once, thing)
    unchanged(lambda: span("y", thing=thing), thing)


def test_cycles_through_wrappers_are_collected():
    def make():
        thing = Thing()

        @traced
        def work():
            return thing

        thing.work = work

        async def run():
            return thing

        thing.coroutine = traced(run)()
        thing.coroutine.close()

        def produce():
            yield thing

        thing.generator = traced(produce)()
        next(thing.generator)
        return weakref.ref(thing)

    reference = make()
    gc.collect()
    assert reference() is None


def test_a_cycle_through_the_function_of_a_patch_is_collected():
    module = sys.modules["cyclic"] = types.ModuleType("cyclic")
    module.work = lambda: None
    thing = Thing()

    def around(wrapped, instance, args, kwargs, thing=thing):
        return wrapped(*args, **kwargs)

    handle = patch("cyclic", "work", around)
    thing.wrapper = module.work
    gone = weakref.ref(thing)
    handle.remove()
    del sys.modules["cyclic"], module, handle, around, thing
    gc.collect()
    assert gone() is None
