"""A signal strikes while a hook reads an object of the application's: what its handler raises arrives there, as it would
have a moment later; it is no fault of the hook's."""

import json

import pytest
from support.pythons import Python, on_every_python

# The text of the exception that a span records is made while a signal arrives: as many times as `times`.
PROGRAM = """
import functools, json, os, signal
import remora

class Limit(Exception):
    pass

class Handler:
    def on_signal(self, *_):
        self.give_up()
    def give_up(self):
        raise RAISED

def on_signal(*_):
    raise RAISED

class Detailed(Exception):
    def __str__(self):
        os.kill(os.getpid(), SIGNAL)
        return "detailed"

@remora.traced
def work():
    raise Detailed

def attempt():
    try:
        try:
            work()
        except Detailed:
            # A bare handler would have struck by now.
            for _ in range(100):
                pass
            return "nothing"
    except BaseException as error:
        return type(error).__name__

HOW
outcomes = [attempt() for _ in range(10)]
print(json.dumps([sorted(set(outcomes)), remora.status()["spans"]["made"]]))
"""
FUNCTION = "RAISED, SIGNAL = Limit, signal.SIGUSR1; signal.signal(SIGNAL, on_signal)"
METHOD = "RAISED, SIGNAL = SystemExit(3), signal.SIGTERM; signal.signal(SIGNAL, Handler().on_signal)"
PARTIAL = (
    "RAISED, SIGNAL = TimeoutError, signal.SIGALRM; signal.signal(SIGNAL, functools.partial(on_signal, 1))"
)
CTRL_C = "SIGNAL = signal.SIGINT"


@on_every_python
@pytest.mark.parametrize(
    ("how", "raised"),
    [(FUNCTION, "Limit"), (METHOD, "SystemExit"), (PARTIAL, "TimeoutError"), (CTRL_C, "KeyboardInterrupt")],
    ids=["function", "method", "partial", "Ctrl-C"],
)
def test_what_a_handler_raises_reaches_the_application(traced, python: Python, how: str, raised: str) -> None:
    result = traced(PROGRAM.replace("HOW", how), python=python).ok()
    assert json.loads(result.stdout) == [[raised], 10]
    # Where the hook's fault would be said.
    assert result.stderr == ""


def test_what_an_object_raises_itself_stays_with_us(traced) -> None:
    how = """
RAISED, SIGNAL = Limit, signal.SIGUSR1
signal.signal(SIGNAL, on_signal)
def own(self):
    raise TimeoutError("of its own")
Detailed.__str__ = own
"""
    result = traced(PROGRAM.replace("HOW", how)).ok()
    assert json.loads(result.stdout) == [["nothing"], 10]
