"""What the collector has cleared may still be asked: by what else of the same garbage goes after it."""

import asyncio
import ctypes
import sqlite3

import flask
from remora import trace, traced
from werkzeug.test import create_environ

from _targets import async_generator, generator

TP_CLEAR = 51  # of CPython's `typeslots.h`
slot_of = ctypes.pythonapi.PyType_GetSlot
slot_of.argtypes, slot_of.restype = [ctypes.py_object, ctypes.c_int], ctypes.c_void_p
CLEAR = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object)


def cleared(thing):
    """The object as the collector leaves it that found it in a cycle."""
    # `__class__` would be that of what it stands for.
    assert CLEAR(slot_of(type(thing), TP_CLEAR))(thing) == 0
    return thing


def ask(thing, *questions):
    """Whatever it answers, it is an answer, and no fault of ours."""
    for question in questions:
        try:
            question(thing)
        except SystemError:
            raise
        except BaseException as error:
            assert type(error).__name__ != "PanicException", error


def throw(thing):
    thing.throw(ValueError("x"))


def close(thing):
    thing.close()


def test_a_generator():
    for begun in (False, True):
        made = traced(generator)(3)
        if begun:
            next(made)
        ask(cleared(made), next, lambda it: it.send(1), throw, repr, dir, lambda it: it.gi_frame, close)


def test_an_asynchronous_generator():
    async def main(begun):
        made = traced(async_generator)(3)
        if begun:
            await anext(made)
        cleared(made)
        for step in (made.__anext__, lambda: made.asend(1), lambda: made.athrow(ValueError), made.aclose):
            try:
                await step()
            except (RuntimeError, StopAsyncIteration):
                pass
        ask(made, repr, lambda it: it.ag_frame)

    asyncio.run(main(False))
    asyncio.run(main(True))


def test_a_step_of_an_asynchronous_generator():
    for name in ("__anext__", "aclose"):
        step = getattr(traced(async_generator)(3), name)()
        ask(cleared(step), next, lambda it: it.send(None), throw, repr, close)


def test_a_response_body():
    app = flask.Flask("collected")
    app.route("/")(lambda: flask.Response(generator(3)))
    for begun in (False, True):
        body = app.wsgi_app(create_environ("/"), lambda *head: None)
        if begun:
            iter(body)
        ask(cleared(body), next, iter, len, repr, close)


def test_a_bound_method_of_c():
    handle = trace("sqlite3", "Cursor.fetchone")
    connection = sqlite3.connect(":memory:")
    try:
        bound = cleared(connection.execute("select 1").fetchone)
        assert bound() == (1,)
        ask(bound, repr, lambda it: it.__self__)
    finally:
        connection.close()
        handle.remove()
