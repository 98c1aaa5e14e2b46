import collections.abc
import contextlib
import gc
import inspect
import types
import weakref

from remora import current_span_id, span, trace, traced

from _spans import made, names


class Special(Exception):
    pass


@traced
def count(n, done=None):
    "Counts."
    mine = current_span_id()
    for i in range(n):
        got = yield i
        assert current_span_id() == mine
        if got is not None:
            yield got
    return done


def test_it_is_a_generator_to_every_check():
    one = count(2)
    assert isinstance(one, types.GeneratorType)
    assert isinstance(one, collections.abc.Generator)
    assert inspect.isgenerator(one)
    assert one.__class__ is types.GeneratorType
    assert one.__name__ == "count"
    assert one.__qualname__ == "count"
    assert repr(one).startswith("<generator object count at ")
    assert one.gi_code is count.__code__
    assert one.gi_frame.f_lineno == count.__code__.co_firstlineno
    assert one.gi_yieldfrom is None
    assert one.gi_running is False
    assert iter(one) is one
    assert inspect.getgeneratorstate(one) == inspect.GEN_CREATED
    next(one)
    assert inspect.getgeneratorstate(one) == inspect.GEN_SUSPENDED
    assert inspect.getgeneratorlocals(one)["i"] == 0
    one.close()
    assert inspect.getgeneratorstate(one) == inspect.GEN_CLOSED
    assert one.gi_frame is None
    assert inspect.isgeneratorfunction(count)
    assert dir(one) == dir(x for x in ())
    weakref.ref(one)
    one.__name__ = "other"
    assert one.__name__ == "other"
    made()


def test_it_yields_returns_and_takes_values():
    assert list(count(3)) == [0, 1, 2]
    one = count(2, "end")
    assert next(one) == 0
    assert one.send("x") == "x"
    assert one.send(None) == 1
    try:
        next(one)
    except StopIteration as stop:
        assert stop.value == "end"
    assert next(one, "nothing") == "nothing"
    assert names() == ["count"] * 2


def test_yield_from_gets_the_return_value_whatever_it_is():
    for value in (None, "end", (1, 2), (), Special("x"), StopIteration(3)):

        def outer(value=value):
            return (yield from count(2, value))

        one = outer()
        assert [next(one), next(one)] == [0, 1]
        try:
            next(one)
        except StopIteration as stop:
            assert stop.value is value
        else:
            raise AssertionError
    made()


def test_send_and_throw_pass_through_yield_from():
    @traced
    def inner():
        try:
            got = yield 1
            yield got
        except Special:
            yield "caught"

    def outer():
        yield from inner()

    one = outer()
    assert next(one) == 1
    assert one.send("value") == "value"
    assert one.throw(Special()) == "caught"
    one.close()
    made()


def test_the_span_is_in_force_only_while_it_runs():
    @traced
    def produce():
        while True:
            yield current_span_id()

    one = produce()
    assert current_span_id() is None
    mine = next(one)
    assert mine is not None
    assert current_span_id() is None
    with span("around") as _:
        around = current_span_id()
        assert next(one) == mine
        assert current_span_id() == around
    one.close()
    outer, inner = made()
    assert inner.id == mine
    assert inner.parent == ""
    assert outer.name == "around"


def test_generators_interleave():
    @traced
    def produce(name):
        mine = current_span_id()
        for _ in range(3):
            with span(name):
                pass
            assert current_span_id() == mine
            yield mine

    pairs = list(zip(produce("a"), produce("b"), strict=True))
    assert len({tuple(pair) for pair in pairs}) == 1
    left, right = pairs[0]
    spans = made()
    assert {one.parent for one in spans if one.name == "a"} == {left}
    assert {one.parent for one in spans if one.name == "b"} == {right}


def test_a_span_left_open_at_a_yield_is_there_again_at_the_next_step():
    @traced
    def produce():
        with span("part"):
            part = current_span_id()
            yield part
            assert current_span_id() == part
            with span("child"):
                pass
        yield current_span_id()

    one = produce()
    part = next(one)
    assert current_span_id() is None
    own = next(one)
    assert list(one) == []
    child, inner, outer = made()
    assert child.parent == inner.id == part
    assert inner.parent == outer.id == own


def test_the_span_lasts_from_the_first_step_to_the_end():
    one = count(2)
    assert names() == []
    next(one)
    assert names() == []
    assert list(one) == [1]
    assert names() == ["count"]


def test_one_never_started_makes_no_span():
    count(3).close()
    one = count(3)
    del one
    gc.collect()
    assert names() == []


def test_one_thrown_away_half_way_ends_and_cleans_up_in_its_span():
    cleaned = []

    @traced
    def produce():
        try:
            yield current_span_id()
        finally:
            cleaned.append(current_span_id())

    one = produce()
    mine = next(one)
    del one
    gc.collect()
    assert cleaned == [mine]
    assert current_span_id() is None
    (only,) = made()
    assert only.id == mine
    assert not only.failed


def test_exceptions_are_recorded_and_pass_unchanged():
    @traced
    def fail():
        yield 1
        raise Special("x")

    one = fail()
    next(one)
    try:
        next(one)
    except Special as error:
        import traceback

        assert [frame.name for frame in traceback.extract_tb(error.__traceback__)] == [
            "test_exceptions_are_recorded_and_pass_unchanged",
            "fail",
        ]
    else:
        raise AssertionError
    assert list(one) == []
    (only,) = made()
    assert only.failed
    assert only.message == "x"


def test_throw_and_close_behave():
    one = count(3)
    next(one)
    error = Special("thrown")
    try:
        one.throw(error)
    except Special as caught:
        assert caught is error
    one = count(3)
    try:
        one.throw(Special("before the start"))
    except Special:
        pass
    one = count(3)
    next(one)
    assert one.close() is None
    assert one.close() is None

    @traced
    def stubborn():
        try:
            yield
        except GeneratorExit:
            yield

    one = stubborn()
    next(one)
    try:
        one.close()
    except RuntimeError as stubbornness:
        assert "GeneratorExit" in str(stubbornness)
    else:
        raise AssertionError
    made()
    del one
    gc.collect()


def test_a_running_generator_says_so_and_goes_on():
    holder = []

    @traced
    def again():
        try:
            next(holder[0])
        except ValueError as error:
            yield str(error)
        yield "after"

    holder.append(again())
    assert list(holder[0]) == ["generator already executing", "after"]
    (only,) = made()
    assert not only.failed
    holder.clear()


def test_a_context_manager_is_made_of_it():
    @contextlib.contextmanager
    @traced
    def manage():
        try:
            yield 5
        except Special:
            pass

    with manage() as five:
        assert five == 5
    with manage():
        raise Special
    made()


def test_it_is_consumed_by_c_code():
    assert sum(count(4)) == 6
    assert sorted(count(3), reverse=True) == [2, 1, 0]
    assert dict(zip(count(2), count(2), strict=True)) == {0: 0, 1: 1}
    a, *b = count(3)
    assert (a, b) == (0, [1, 2])
    assert 2 in count(5)
    assert max(count(3), default=None) == 2
    assert [*count(2)] == [0, 1]
    made()


def test_it_cannot_be_pickled_or_copied_as_a_generator_cannot():
    import copy
    import pickle

    for action in (pickle.dumps, copy.copy, copy.deepcopy):
        try:
            action(count(1))
        except TypeError as error:
            assert "'generator'" in str(error)
        else:
            raise AssertionError


def test_generator_methods_and_patches():
    import _targets

    class Work:
        @traced
        def steps(self):
            yield self

        @traced
        @classmethod
        def kinds(cls):
            yield cls

    one = Work()
    assert list(one.steps()) == [one]
    assert list(Work.kinds()) == [Work]
    handle = trace("_targets", "generator")
    try:
        assert list(_targets.generator(2)) == [0, 1]
    finally:
        handle.remove()
    assert len(names()) == 3


def test_two_wrappers_nest():
    twice = traced(name="outer")(count)
    assert list(twice(2)) == [0, 1]
    inner, outer = made()
    assert (inner.name, outer.name) == ("count", "outer")
    assert inner.parent == outer.id


def test_threads_may_take_turns():
    import threading

    one = count(100)
    got = []
    lock = threading.Lock()

    def take():
        while True:
            with lock:
                value = next(one, None)
            if value is None:
                return
            got.append(value)
            assert current_span_id() is None

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(100))
    assert names() == ["count"]
