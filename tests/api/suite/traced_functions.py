import functools

from _raising import fails
from _spans import made, names
from remora import current_span_id, current_trace_id, span, traced


def test_the_name_is_the_qualified_name_unless_given():
    @traced
    def bare():
        pass

    @traced()
    def called():
        pass

    @traced(name="own name")
    def named():
        pass

    class Work:
        @traced
        def method(self):
            pass

    bare()
    called()
    named()
    Work().method()
    here = "test_the_name_is_the_qualified_name_unless_given.<locals>."
    assert names() == [here + "bare", here + "called", "own name", here + "Work.method"]


def test_every_kind_is_written():
    for number, kind in enumerate(("internal", "server", "client", "producer", "consumer"), 1):
        traced(name=kind, kind=kind)(lambda: None)()
        (one,) = made()
        assert (one.name, one.kind) == (kind, number)


def test_wrong_arguments_raise_at_once():
    assert "'odd'" in fails(ValueError, lambda: traced(kind="odd"))
    fails(TypeError, lambda: traced(5))
    fails(TypeError, lambda: traced("name"))
    fails(TypeError, lambda: traced(name=5))
    fails(TypeError, lambda: traced(lambda: 1, "name"))
    fails(TypeError, lambda: traced(odd=1))


def test_a_class_is_refused_and_its_methods_are_not():
    class Cart:
        @traced(name="made")
        def __init__(self, items):
            self.items = items

    for decorate in (traced, traced(name="cart")):
        text = fails(TypeError, lambda decorate=decorate: decorate(Cart))
        assert f"'{Cart.__qualname__}' is a class" in text
        assert "decorate its methods" in text
    assert Cart(3).items == 3
    assert names() == ["made"]


def test_spans_nest():
    @traced(name="inner")
    def inner():
        return current_trace_id(), current_span_id()

    @traced(name="outer")
    def outer():
        return inner(), (current_trace_id(), current_span_id())

    (inner_trace, inner_id), (outer_trace, outer_id) = outer()
    first, second = made()
    assert (first.name, first.id, first.parent) == ("inner", inner_id, outer_id)
    assert (second.name, second.id, second.parent) == ("outer", outer_id, "")
    assert inner_trace == outer_trace == first.trace == second.trace


def test_two_calls_one_after_the_other_are_two_traces():
    work = traced(lambda: current_trace_id())
    assert work() != work()
    made()


def test_names_of_any_length_and_number_arrive():
    long = "n" * 1000
    traced(name=long)(lambda: None)()
    assert names() == [long]
    traced(name="ünïcode ☃")(lambda: None)()
    assert names() == ["ünïcode ☃"]
    traced(name="")(lambda: None)()
    assert names() == [""]
    wanted = [f"name {i}" for i in range(5000)]
    for name in wanted:
        traced(name=name)(lambda: None)()
    assert names() == wanted


def test_partials_are_named_by_what_they_call():
    def work(x):
        return x

    assert traced(functools.partial(work, 1))() == 1
    assert names() == [work.__qualname__]


def test_the_duration_is_the_calls():
    import time

    traced(name="slow")(time.sleep)(0.05)
    (one,) = made()
    assert one.seconds >= 0.05


def test_a_function_that_starts_spans_in_its_exception_text_is_recorded_whole():
    class Odd(Exception):
        def __str__(self):
            with span("text"):
                return "odd"

    @traced(name="work")
    def work():
        raise Odd

    fails(Odd, work)
    spans = {one.name: one for one in made()}
    assert spans["work"].message == "odd"


def test_threads_do_not_see_each_others_spans():
    import threading

    barrier = threading.Barrier(4)
    seen = []

    @traced(name="work")
    def work():
        mine = current_span_id()
        barrier.wait(10)
        assert current_span_id() == mine
        seen.append(mine)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(seen)) == 4
    assert sorted(one.id for one in made()) == sorted(seen)
