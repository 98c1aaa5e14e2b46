import types

from remora import traced

from _targets import Base, function


def test_module_and_names_are_the_originals():
    one = traced(function)
    assert one.__module__ == "_targets"
    assert one.__name__ == "function"
    assert one.__qualname__ == "function"
    assert one.__doc__ == "What it does."
    assert traced(Base.method).__qualname__ == "Base.method"


def test_class_is_the_originals():
    one = traced(function)
    assert one.__class__ is types.FunctionType
    assert isinstance(one, types.FunctionType)
    assert traced(one).__class__ is types.FunctionType
    assert isinstance(traced(len), types.BuiltinFunctionType)


def test_names_can_be_set_and_are_set_on_the_original():
    def work():
        "Before."

    one = traced(work)
    one.__name__ = "other"
    one.__qualname__ = "far.other"
    one.__module__ = "elsewhere"
    one.__doc__ = "After."
    one.extra = 5
    assert (work.__name__, work.__qualname__, work.__module__) == ("other", "far.other", "elsewhere")
    assert (work.__doc__, work.extra, one.extra) == ("After.", 5, 5)
    assert one.__dict__ is work.__dict__
    del one.extra
    assert not hasattr(work, "extra")
    try:
        one.missing  # noqa: B018
    except AttributeError as error:
        assert "'function' object has no attribute 'missing'" in str(error)
    else:
        raise AssertionError


def test_the_wrapper_types_cannot_be_changed_or_called():
    kind = type(traced(function))
    for action in (lambda: setattr(kind, "x", 1), lambda: kind(function)):
        try:
            action()
        except TypeError:
            continue
        raise AssertionError


def test_equality_and_hash_are_the_originals():
    one, two = traced(function), traced(function)
    assert one == function
    assert function == one
    assert one == two
    assert hash(one) == hash(function)
    assert {function: 1}[one] == 1
    assert one != len
    assert repr(one) == repr(function)
    assert str(one) == str(function)
