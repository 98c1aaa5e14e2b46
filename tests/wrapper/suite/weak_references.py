import gc
import weakref

from remora import trace, traced

from _targets import Base


def test_a_function_is_referred_to_weakly():
    work = traced(lambda: 1)
    gone = []
    reference = weakref.ref(work, gone.append)
    assert reference() is work
    assert weakref.proxy(work)() == 1
    table = weakref.WeakKeyDictionary({work: 5})
    assert table[work] == 5
    del work
    gc.collect()
    assert reference() is None
    assert gone == [reference]


def test_a_bound_method_is_referred_to_weakly():
    handle = trace("_targets", "Base.method")
    try:
        one = Base()
        reference = weakref.WeakMethod(one.method)
        assert reference()() == ("method", one, 1)
        assert reference() == one.method
        del one
        gc.collect()
        assert reference() is None
    finally:
        handle.remove()


def test_an_object_is_collected_with_its_patched_methods():
    handle = trace("_targets", "Base.method")
    try:
        one = Base()
        one.bound = one.method
        reference = weakref.ref(one)
        del one
        gc.collect()
        assert reference() is None
    finally:
        handle.remove()
