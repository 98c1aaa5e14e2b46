"""`@traced` over `@staticmethod` and `@classmethod`, and patches of both."""

import inspect

from remora import patch, trace, traced

from _spans import names
from _targets import Base, Derived


class Work:
    @traced
    @staticmethod
    def apart(x=1):
        "Apart."
        return x

    @traced
    @classmethod
    def run(cls, x=1):
        return cls, x


class Sub(Work):
    pass


def test_it_takes_no_instance():
    assert Work.apart() == 1
    assert Work().apart(2) == 2
    assert Sub().apart(x=3) == 3
    assert names() == ["Work.apart"] * 3
    assert isinstance(inspect.getattr_static(Work, "apart"), staticmethod)
    assert inspect.isfunction(Work.apart)
    assert Work.apart.__doc__ == "Apart."
    assert str(inspect.signature(Work.apart)) == "(x=1)"


def test_a_class_method_gets_the_class_it_is_called_on():
    assert Work.run() == (Work, 1)
    assert Sub.run(2) == (Sub, 2)
    assert Sub().run(x=3) == (Sub, 3)
    assert names() == ["Work.run"] * 3


def test_a_wrapper_of_a_class_method_sees_the_class():
    seen = []

    def wrapper(wrapped, instance, args, kwargs):
        seen.append((instance, args, kwargs))
        return wrapped(*args, **kwargs)

    before = Base.__dict__["class_method"]
    handle = patch("_targets", "Base.class_method", wrapper)
    try:
        assert Base.class_method(2) == ("class_method", Base, 2)
        assert Base().class_method(x=3) == ("class_method", Base, 3)
        assert Derived.class_method(4) == ("derived", ("class_method", Derived, 4))
    finally:
        handle.remove()
    assert seen == [(Base, (2,), {}), (Base, (), {"x": 3}), (Derived, (4,), {})]
    assert Base.__dict__["class_method"] is before


def test_a_wrapper_of_a_static_method_sees_no_instance():
    seen = []

    def wrapper(wrapped, instance, args, kwargs):
        seen.append((instance, args, kwargs))
        return wrapped(*args, **kwargs)

    before = Base.__dict__["static_method"]
    handle = patch("_targets", "Base.static_method", wrapper)
    try:
        assert Base.static_method(2) == ("static_method", 2)
        assert Derived().static_method(x=3) == ("static_method", 3)
    finally:
        handle.remove()
    assert seen == [(None, (2,), {}), (None, (), {"x": 3})]
    assert Base.__dict__["static_method"] is before


def test_trace_wraps_both():
    one = trace("_targets", "Base.static_method")
    two = trace("_targets", "Base.class_method", name="klass", kind="client")
    try:
        assert Base.static_method() == ("static_method", 1)
        assert Derived.class_method() == ("derived", ("class_method", Derived, 1))
        assert names() == ["Base.static_method", "klass"]
    finally:
        one.remove()
        two.remove()
