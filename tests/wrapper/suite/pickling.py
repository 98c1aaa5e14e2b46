import pickle

from remora import patch, trace, traced

import _targets
from _targets import Base


@traced
def module_level(x):
    return x


class Work:
    @traced
    def method(self):
        return "work"

    @traced
    @classmethod
    def make(cls):
        return cls


def test_a_function_comes_back_as_itself():
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(module_level, protocol)) is module_level


def test_a_method_through_its_class_comes_back_as_itself():
    for protocol in range(4, pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(Work.method, protocol)) is Work.method


def test_a_bound_method_comes_back_bound():
    back = pickle.loads(pickle.dumps(Work().method))
    assert back() == "work"
    assert pickle.loads(pickle.dumps(Work.make))() is Work


def test_an_object_with_patched_methods_is_pickled():
    handle = trace("_targets", "Base.method")
    try:
        assert pickle.loads(pickle.dumps(Base(4))).value == 4
    finally:
        handle.remove()


def test_a_patched_function_is_pickled_by_its_place():
    handle = patch("_targets", "function", lambda wrapped, instance, args, kwargs: "patched")
    try:
        data = pickle.dumps(_targets.function)
        assert pickle.loads(data) is _targets.function
    finally:
        handle.remove()
    # Without us the same bytes are the original.
    assert pickle.loads(data) is _targets.function


def test_a_local_function_fails_as_without_us():
    def local():
        pass

    for one in (local, traced(local)):
        try:
            pickle.dumps(one)
        except (AttributeError, pickle.PicklingError):
            continue
        raise AssertionError("a local function was pickled")


def test_a_class_behind_a_wrapper_is_pickled():
    handle = patch("_targets", "Callable", lambda wrapped, instance, args, kwargs: wrapped(*args, **kwargs))
    try:
        assert pickle.loads(pickle.dumps(_targets.Callable)) is _targets.Callable
    finally:
        handle.remove()


def test_builtin_and_c_method_are_pickled():
    import math

    handle = trace("math", "sqrt")
    try:
        assert pickle.loads(pickle.dumps(math.sqrt)) is math.sqrt
    finally:
        handle.remove()
