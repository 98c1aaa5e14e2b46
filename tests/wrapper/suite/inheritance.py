import abc

from remora import current_span_id, patch, trace, traced

from _spans import made, names
from _targets import Base, Derived


def test_super_reaches_the_wrapped_method():
    handle = trace("_targets", "Base.method")
    try:
        one = Derived()
        assert one.method(2) == ("derived", ("method", one, 2))
        assert names() == ["Base.method"]
    finally:
        handle.remove()


def test_a_method_is_wrapped_where_it_is_defined():
    before = Base.__dict__["static_method"]
    handle = patch("_targets", "Derived.static_method", lambda wrapped, instance, args, kwargs: "patched")
    try:
        assert "static_method" not in Derived.__dict__
        assert Base.static_method() == "patched"
    finally:
        handle.remove()
    assert Base.__dict__["static_method"] is before


def test_an_override_is_not_traced_but_what_it_calls_is():
    class Parent:
        @traced
        def run(self):
            return ["parent", current_span_id()]

    class Child(Parent):
        def run(self):
            return ["child", *super().run()]

    class Grandchild(Child):
        @traced
        def run(self):
            return ["grandchild", current_span_id(), *super().run()]

    result = Grandchild().run()
    assert result[0::2][:2] == ["grandchild", "child"]
    inner, outer = made()
    assert outer.id == result[1]
    assert inner.id == result[-1]
    assert inner.parent == outer.id
    assert inner.trace == outer.trace


def test_diamonds_follow_the_resolution_order():
    class A:
        @traced
        def run(self):
            return ["A"]

    class B(A):
        @traced
        def run(self):
            return ["B", *super().run()]

    class C(A):
        @traced
        def run(self):
            return ["C", *super().run()]

    class D(B, C):
        @traced
        def run(self):
            return ["D", *super().run()]

    assert D().run() == ["D", "B", "C", "A"]
    assert [name.rpartition(".")[0][-1] for name in names()] == ["A", "C", "B", "D"]


def test_abstract_methods_stay_abstract():
    class Shape(abc.ABC):
        @traced
        @abc.abstractmethod
        def outer(self): ...

        @abc.abstractmethod
        @traced
        def inner(self): ...

    assert Shape.__abstractmethods__ == {"outer", "inner"}

    class Square(Shape):
        def outer(self):
            return 1

        def inner(self):
            return 2

    assert Square().outer() == 1


def test_set_name_and_slots_are_as_without_us():
    class Slim:
        __slots__ = ("value",)

        @traced
        def get(self):
            return self.value

    slim = Slim()
    slim.value = 3
    assert slim.get() == 3


def test_special_methods_are_found_by_the_interpreter():
    class Number:
        @traced
        def __len__(self):
            return 3

        @traced
        def __eq__(self, other):
            return True

        @traced
        def __getitem__(self, key):
            return key

        @traced
        def __enter__(self):
            return self

        @traced
        def __exit__(self, *args):
            return True

        @traced
        def __call__(self, x):
            return x

        __hash__ = None

    number = Number()
    assert len(number) == 3
    assert number == 1
    assert number[5] == 5
    assert number(7) == 7
    with number:
        raise ValueError
    assert [name.rpartition(".")[2] for name in names()] == [
        "__len__",
        "__eq__",
        "__getitem__",
        "__call__",
        "__enter__",
        "__exit__",
    ]
