"""Methods of C types that refuse `setattr`."""

import inspect
import sqlite3
import types

from remora import patch, trace

from _spans import names


def test_it_is_called_traced_and_put_back():
    before = sqlite3.Cursor.__dict__["fetchone"]
    handle = trace("sqlite3", "Cursor.fetchone")
    connection = sqlite3.connect(":memory:")
    try:
        cursor = connection.execute("select 1")
        names()
        assert cursor.fetchone() == (1,)
        assert names() == ["Cursor.fetchone"]
        assert type(cursor) is sqlite3.Cursor
    finally:
        handle.remove()
        connection.close()
    assert sqlite3.Cursor.__dict__["fetchone"] is before


def test_a_bound_c_method_is_a_builtin():
    handle = trace("sqlite3", "Cursor.fetchall")
    connection = sqlite3.connect(":memory:")
    try:
        cursor = connection.execute("select 1 union select 2")
        fetch = cursor.fetchall
        assert isinstance(fetch, types.BuiltinMethodType)
        assert inspect.isbuiltin(fetch)
        assert inspect.isroutine(fetch)
        assert not inspect.ismethod(fetch)
        assert fetch.__self__ is cursor
        assert fetch.__name__ == "fetchall"
        assert fetch.__qualname__ == "Cursor.fetchall"
        assert repr(fetch).startswith("<built-in method fetchall of sqlite3.Cursor object at ")
        assert fetch == cursor.fetchall
        assert hash(fetch) == hash(cursor.fetchall)
        assert not hasattr(fetch, "__func__")
        assert not hasattr(type(fetch), "__get__")
        names()
        assert fetch() == [(1,), (2,)]
        assert names() == ["Cursor.fetchall"]
        descriptor = sqlite3.Cursor.fetchall
        assert inspect.ismethoddescriptor(descriptor)
        assert isinstance(descriptor, types.MethodDescriptorType)
        assert repr(descriptor) == "<method 'fetchall' of 'sqlite3.Cursor' objects>"
        assert descriptor(cursor) == []
        assert names() == ["Cursor.fetchall"]
    finally:
        connection.close()
        handle.remove()
    # Held by the application beyond the patch: it passes through.
    assert isinstance(fetch, types.BuiltinMethodType)


def test_a_bound_c_method_takes_every_kind_of_argument():
    seen = []

    def wrapper(wrapped, instance, args, kwargs):
        seen.append((instance, args, kwargs))
        return wrapped(*args, **kwargs)

    handle = patch("sqlite3", "Cursor.fetchmany", wrapper)
    connection = sqlite3.connect(":memory:")
    try:
        cursor = connection.execute("select 1 union select 2 union select 3")
        fetch = cursor.fetchmany
        assert fetch() == [(1,)]
        assert fetch(size=1) == [(2,)]
        assert cursor.fetchmany(5) == [(3,)]
        assert list(map(fetch, [1])) == [[]]
        assert seen == [(cursor, (), {}), (cursor, (), {"size": 1}), (cursor, (5,), {}), (cursor, (1,), {})]
    finally:
        connection.close()
        handle.remove()


def test_a_class_method_of_a_c_type_gets_the_class():
    import datetime

    seen = []

    def wrapper(wrapped, instance, args, kwargs):
        seen.append(instance)
        return wrapped(*args, **kwargs)

    handle = patch("datetime", "date.fromordinal", wrapper)
    try:
        assert datetime.date.fromordinal(1) == datetime.date(1, 1, 1)
        assert datetime.date(1, 1, 1).fromordinal(2) == datetime.date(1, 1, 2)
        assert seen == [datetime.date, datetime.date]
    finally:
        handle.remove()
    assert datetime.date.fromordinal(1) == datetime.date(1, 1, 1)


def test_a_subclass_in_python_reaches_it():
    handle = trace("sqlite3", "Cursor.fetchone")

    class Mine(sqlite3.Cursor):
        def fetchone(self):
            return ("mine", super().fetchone())

    connection = sqlite3.connect(":memory:")
    try:
        cursor = connection.cursor(Mine)
        cursor.execute("select 1")
        names()
        assert cursor.fetchone() == ("mine", (1,))
        assert names() == ["Cursor.fetchone"]
    finally:
        connection.close()
        handle.remove()


def test_errors_of_the_c_method_are_its_own():
    handle = trace("sqlite3", "Cursor.fetchone")
    connection = sqlite3.connect(":memory:")
    try:
        cursor = connection.cursor()
        for call in (
            lambda: cursor.fetchone(1),
            lambda: sqlite3.Cursor.fetchone(),
            lambda: sqlite3.Cursor.fetchone(1),
        ):
            try:
                call()
            except TypeError:
                continue
            raise AssertionError
    finally:
        connection.close()
        handle.remove()


def test_a_special_method_is_reached_by_its_slot_too():
    class Before(sqlite3.Connection):
        pass

    class Mine(sqlite3.Connection):
        def __init__(self, path):
            super().__init__(path)

    seen = []

    def wrapper(wrapped, instance, args, kwargs):
        seen.append((type(instance), args, kwargs))
        return wrapped(*args, **kwargs)

    original = sqlite3.Connection.__dict__["__init__"]
    handle = patch("sqlite3", "Connection.__init__", wrapper)
    try:
        for make in (sqlite3.connect, sqlite3.Connection, Before, Mine):
            make(":memory:").close()
        sqlite3.Connection(database=":memory:").close()
        for args, options in (((), {}), ((5,), {}), ((":memory:",), {"timeout": "wrong"})):
            try:
                sqlite3.Connection(*args, **options)
            except TypeError:
                continue
            raise AssertionError
    finally:
        handle.remove()
    assert [one for one, _, _ in seen[:5]] == [
        sqlite3.Connection, sqlite3.Connection, Before, Mine, sqlite3.Connection,
    ]  # fmt: skip
    assert seen[4][1:] == ((), {"database": ":memory:"})
    assert len(seen) == 8
    assert sqlite3.Connection.__dict__["__init__"] is original
    for make in (sqlite3.connect, sqlite3.Connection, Before, Mine):
        make(":memory:").close()
    assert len(seen) == 8
    # The type refuses as before.
    try:
        sqlite3.Connection.__init__ = original
    except TypeError:
        return
    raise AssertionError
