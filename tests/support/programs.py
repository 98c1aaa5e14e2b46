"""Texts for programs that tests start: spans that can be told apart, and the agent's counts in balance."""

from collections.abc import Iterable

from support.otlp import Span

# Each `make` is one span, of a statement that carries the label.
SPANS = """
import atexit, os, signal, sqlite3, sys, threading, time

_db = sqlite3.connect(":memory:", check_same_thread=False)

def make(label, count=1):
    for _ in range(count):
        _db.execute("select 1 as " + label)

def counts():
    import remora
    spans = remora.status()["spans"]
    assert spans["made"] == spans["sent"] + sum(spans["lost"].values()) + spans["pending"], spans
    return spans

def flushed(timeout=20.0):
    import remora
    assert remora.flush(timeout), remora.status()
    return counts()

def until(condition, timeout=20.0):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)

def thread_names():
    names = []
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/comm") as file:
                names.append(file.read().strip())
        except OSError:
            pass  # it ended meanwhile
    return names
"""

# stderr is a full pipe that stays open and is never read.
UNREAD_STDERR = """
_reader, _writer = os.pipe()
os.set_blocking(_writer, False)
try:
    while True:
        os.write(_writer, bytes(4096))
except BlockingIOError:
    os.set_blocking(_writer, True)
os.dup2(_writer, 2)
"""


def label_of(span: Span) -> str:
    """What `make` was called with."""
    return str(span["db.query.text"]).rpartition(" as ")[2]


def labelled(spans: Iterable[Span], label: str) -> list[Span]:
    """The spans that `make(label)` made."""
    return [span for span in spans if "db.query.text" in span.attributes and label_of(span) == label]


def labels(spans: Iterable[Span]) -> dict[str, int]:
    """How many spans there are of each label."""
    found: dict[str, int] = {}
    for span in spans:
        if "db.query.text" in span.attributes:
            found[label_of(span)] = found.get(label_of(span), 0) + 1
    return found
