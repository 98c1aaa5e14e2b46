import asyncio
import contextvars

from _raising import fails
from _spans import made, names
from remora import current_span_id, current_trace_id, span


def test_it_is_current_between_entry_and_exit():
    assert current_span_id() is None
    assert current_trace_id() is None
    with span("outer") as outer:
        outer_id = current_span_id()
        with span("inner"):
            inner_id = current_span_id()
            trace = current_trace_id()
        assert current_span_id() == outer_id
    assert current_span_id() is None
    assert type(outer).__name__ == "Span"
    inner, outer = made()
    assert (inner.id, inner.parent) == (inner_id, outer_id)
    assert (outer.id, outer.parent) == (outer_id, "")
    assert inner.trace == outer.trace == trace
    assert len(trace) == 32
    assert trace == trace.lower()
    assert len(inner_id) == 16
    int(inner_id, 16)


def test_attributes_keep_their_types():
    class Odd:
        def __str__(self):
            return "odd"

    class Mute:
        def __str__(self):
            raise ValueError

    with span(
        "x", text="t", yes=True, no=False, number=3, real=1.5, texts=["a", "b"], pair=("c",), none=None,
        odd=Odd(), mute=Mute(), big=2**70, negative=-(2**63), snow="☃", broken="a\ud800b", empty="",
        **{"db.system": "x", "größe": 1},
    ):  # fmt: skip
        pass
    (one,) = made()
    found = one.attributes
    assert found["text"] == "t"
    assert (found["yes"], found["no"]) == (True, False)
    assert found["number"] == 3
    assert found["real"] == 1.5
    assert found["texts"] == ["a", "b"]
    assert found["pair"] == ["c"]
    assert found["odd"] == "odd"
    assert found["mute"] == ""
    assert found["big"] == str(2**70)
    assert found["negative"] == -(2**63)
    assert found["snow"] == "☃"
    assert found["broken"].startswith("a")
    assert found["empty"] == ""
    assert found["db.system"] == "x"
    assert found["größe"] == 1


def test_lists_are_of_one_type():
    class Number(int):
        def __str__(self):
            return "seven"

    with span(
        "x", ints=[1, -2, 2**63 - 1], reals=(0.5, 2.0), mixed=[1, 2.5], truths=[True, False], none=[],
        texts=["a", 1, None, True], big=[1, 2**63], truth_and_number=[True, 1], own=[Number(7)],
        nested=[[1], [2]],
    ):  # fmt: skip
        pass
    (one,) = made()
    assert one.attributes == {
        "ints": [1, -2, 2**63 - 1],
        "reals": [0.5, 2.0],
        "mixed": [1.0, 2.5],
        "truths": [True, False],
        "none": [],
        "texts": ["a", "1", "None", "True"],
        "big": ["1", str(2**63)],
        "truth_and_number": ["True", "1"],
        "own": ["seven"],
        "nested": ["[1]", "[2]"],
    }
    assert [type(value) for value in one.attributes["mixed"]] == [float, float]


def test_an_attribute_may_be_called_name():
    with span("x", name="other"):
        pass
    (one,) = made()
    assert (one.name, one.attributes) == ("x", {"name": "other"})


def test_values_are_taken_when_the_span_is_made():
    values = ["a"]
    block = span("x", values=values)
    values.append("b")
    with block:
        pass
    assert made()[0].attributes == {"values": ["a"]}


def test_an_exception_is_recorded_and_goes_on():
    error = ValueError("x")
    try:
        with span("x"):
            raise error
    except ValueError as caught:
        assert caught is error
    else:
        raise AssertionError
    (one,) = made()
    assert one.failed
    assert one.message == "x"
    assert one.attributes["error.type"] == "ValueError"
    assert one.events[0][1]["exception.type"] == "ValueError"


def test_it_may_be_used_again_but_not_twice_at_once():
    block = span("x")
    for _ in range(2):
        with block:
            pass
    first, second = made()
    assert first.id != second.id
    with block:
        assert "entered" in fails(RuntimeError, block.__enter__)
    assert block.__exit__(None, None, None) is None
    assert names() == ["x"]


def test_wrong_arguments_raise():
    for action in (lambda: span(), lambda: span(5), lambda: span("a", "b"), lambda: span(name="a")):
        fails(TypeError, action)
    fails(TypeError, lambda: type(span("x"))())


def test_a_span_never_entered_is_none():
    span("x")
    span("y", a=1)
    assert names() == []


def test_it_may_suspend():
    async def work(name):
        with span(name):
            mine = current_span_id()
            await asyncio.sleep(0)
            assert current_span_id() == mine
            with span(name + " child"):
                await asyncio.sleep(0)
            assert current_span_id() == mine
        assert current_span_id() is None

    async def main():
        await asyncio.gather(work("a"), work("b"))

    asyncio.run(main())
    spans = {one.name: one for one in made()}
    assert spans["a child"].parent == spans["a"].id
    assert spans["b child"].parent == spans["b"].id


def test_left_in_another_context_it_leaves_that_one_alone():
    block = span("x")
    contextvars.Context().run(block.__enter__)
    with span("here"):
        mine = current_span_id()
        block.__exit__(None, None, None)
        assert current_span_id() == mine
    assert sorted(names()) == ["here", "x"]


def test_a_child_left_open_is_left_with_its_parent():
    def produce():
        with span("child"):
            yield

    with span("parent"):
        one = produce()
        next(one)
    assert current_span_id() is None
    one.close()
    assert current_span_id() is None
    assert sorted(names()) == ["child", "parent"]


def test_many_attributes_are_cut_at_the_limit_and_counted():
    with span("x", **{f"a{i}": i for i in range(200)}):
        pass
    (one,) = made()
    assert len(one.attributes) == 128
