"""What the collector has cleared may still be asked: by what else of the same garbage goes after it."""

import asyncio
import ctypes
import os
import sys

import flask
from remora import traced
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


def ask(*calls):
    """Whatever it answers, it is an answer, and no exception of ours."""
    for call in calls:
        try:
            call()
        except SystemError:
            raise
        except BaseException as error:
            assert type(error).__name__ != "PanicException", error


def test_a_generator():
    for begun in (False, True):
        made = traced(generator)(3)
        if begun:
            next(made)
        cleared(made)
        ask(
            lambda: next(made), lambda: made.send(1), lambda: made.throw(ValueError("x")),
            lambda: repr(made), lambda: made.gi_frame, lambda: dir(made), made.close,
        )  # fmt: skip


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
        ask(lambda: repr(made), lambda: made.ag_frame)

    asyncio.run(main(False))
    asyncio.run(main(True))


def test_a_step_of_an_asynchronous_generator():
    for name in ("__anext__", "aclose"):
        step = getattr(traced(async_generator)(3), name)()
        cleared(step)
        ask(
            lambda: next(step), lambda: step.send(None), lambda: step.throw(ValueError("x")),
            lambda: repr(step), step.close,
        )  # fmt: skip


def test_a_response_body():
    app = flask.Flask("collected")
    app.route("/")(lambda: flask.Response(generator(3)))
    for begun in (False, True):
        body = app.wsgi_app(create_environ("/"), lambda *head: None)
        if begun:
            iter(body)
        cleared(body)
        ask(lambda: next(body), lambda: iter(body), lambda: len(body), lambda: repr(body), body.close)


def test_a_bound_method_of_c():
    bound = traced(sys.stdout.write)
    ask(lambda: cleared(bound)(""), lambda: repr(bound))
    path = traced(os.fspath)
    assert cleared(path)("x") == "x"
