import copy
import functools
import sqlite3

from remora import trace, traced

from _targets import Base


@traced
def work(x):
    return x


def test_a_function_copies_to_itself():
    assert copy.copy(work) is work
    assert copy.deepcopy(work) is work
    local = traced(lambda: 1)
    assert copy.copy(local) is local
    assert copy.deepcopy([local])[0] is local


def test_a_bound_method_copies_to_an_equal_one():
    handle = trace("_targets", "Base.method")
    try:
        one = Base(3)
        assert copy.copy(one.method)() == one.method()
        assert copy.deepcopy(one.method)()[0] == "method"
        assert copy.deepcopy(one).value == 3
    finally:
        handle.remove()


def test_a_bound_c_method_copies_to_itself():
    handle = trace("sqlite3", "Cursor.fetchall")
    connection = sqlite3.connect(":memory:")
    try:
        fetch = connection.execute("select 1").fetchall
        assert copy.copy(fetch) is fetch
        assert copy.deepcopy(fetch) is fetch
        assert fetch() == [(1,)]
    finally:
        connection.close()
        handle.remove()


def test_a_partial_copies_as_a_partial():
    part = traced(functools.partial(int, base=2))
    assert copy.copy(part)("101") == 5
