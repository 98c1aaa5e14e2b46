"""A class behind a wrapper of `patch`: made, subclassed, asked."""

import inspect

from remora import patch, traced

import _targets


def counting(calls):
    def wrapper(wrapped, instance, args, kwargs):
        calls.append((instance, args))
        return wrapped(*args, **kwargs)

    return wrapper


def test_a_class_behind_a_wrapper_still_serves_as_one():
    calls = []
    original = _targets.Base
    handle = patch("_targets", "Base", counting(calls))
    try:
        wrapped = _targets.Base
        one = wrapped(3)
        assert type(one) is original
        assert one.value == 3
        assert isinstance(one, wrapped)
        assert issubclass(original, wrapped)
        assert not isinstance(3, wrapped)
        assert inspect.isclass(wrapped)
        assert calls == [(None, (3,))]

        class Sub(wrapped):
            pass

        assert Sub.__mro__ == (Sub, original, object)
        assert Sub.__bases__ == (original,)
        assert isinstance(Sub(), wrapped)
        assert issubclass(Sub, wrapped)
        assert wrapped.kind == "base"
        assert wrapped.static_method() == ("static_method", 1)
        assert wrapped.__name__ == "Base"
        assert wrapped == original
        assert {original: 1}[wrapped] == 1
        assert repr(wrapped) == repr(original)
        assert isinstance(one, wrapped | int)
    finally:
        handle.remove()
    assert _targets.Base is original


def test_generic_classes_are_subscripted():
    import collections

    handle = patch("collections", "OrderedDict", counting([]))
    try:
        assert collections.OrderedDict[str, int] is not None
    finally:
        handle.remove()


def test_a_wrapped_function_is_no_base_class():
    work = traced(lambda: 1)
    assert not hasattr(work, "__mro_entries__")
    try:
        type("Sub", (work,), {})
    except TypeError:
        return
    raise AssertionError("a function served as a base class")


def test_traced_does_not_replace_a_class():
    try:

        @traced
        class Work:
            pass

    except TypeError as error:
        assert "methods" in str(error)
        return
    raise AssertionError("a class was replaced")
