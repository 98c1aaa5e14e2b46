"""What starts inside a synchronous call of a library: the span in force there is the thread's, not the variable's."""

from collections.abc import Callable

from support.otlp import Span, find, one
from support.pythons import Python, on_oldest_and_newest

from .conftest import Program

Run = Callable[..., Program]

# SQLite calls the function `probe` while SQLAlchemy's span is in force.
ENGINE = """
import asyncio, contextvars, sys, threading
import sqlalchemy as sa
import remora
engine = sa.create_engine("sqlite://")
db = engine.connect()
def call(probe):
    db.connection.driver_connection.create_function("probe", 0, probe)
    return db.execute(sa.text("select probe()")).scalar()
"""


def statements(result: Program) -> list[Span]:
    return find(result.spans, scope="remora.sqlalchemy")


@on_oldest_and_newest
def test_whatever_starts_in_the_call_is_its_child(program: Run, python: Python) -> None:
    code = (
        ENGINE
        + """
async def task():
    with remora.span("task"):
        await asyncio.sleep(0)
async def tasks():
    await asyncio.gather(task(), task())
def work(name):
    with remora.span(name):
        pass
def probe():
    work("plain")
    thread = threading.Thread(target=work, args=("thread",))
    thread.start()
    thread.join()
    asyncio.run(tasks())
    contextvars.copy_context().run(work, "copy")
    return remora.current_span_id()
show(call(probe))
show(remora.current_span_id())
work("after")
with remora.span("outer"):
    call(lambda: work("inner"))
    show("greenlet" in sys.modules)
"""
    )
    result = program(code, python=python)
    first, second = statements(result)
    assert result.shown == [first.span_id, None, False]
    for name in ("plain", "thread", "task", "copy"):
        assert {span.parent_id for span in find(result.spans, name=name)} == {first.span_id}, name
    assert len(find(result.spans, name="task")) == 2
    assert not one(result.spans, name="after").parent_id
    assert second.parent_id == one(result.spans, name="outer").span_id
    assert one(result.spans, name="inner").parent_id == second.span_id


@on_oldest_and_newest
def test_a_thread_that_inherits_the_context_is_its_child(program: Run, python: Python) -> None:
    """From 3.14 on, where it is asked for: what the thread copies does not hold the call's span."""
    code = (
        ENGINE
        + """
show(getattr(sys.flags, "thread_inherit_context", None))
def work():
    with remora.span("thread"):
        pass
def probe():
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
with remora.span("outer"):
    call(probe)
"""
    )
    result = program(code, python=python, env={"PYTHON_THREAD_INHERIT_CONTEXT": "1"})
    assert result.shown == [1 if python.number >= (3, 14) else None]
    assert one(result.spans, name="thread").parent_id == one(statements(result)).span_id


def test_an_exception_ends_it(program: Run) -> None:
    code = (
        ENGINE
        + """
def fails():
    raise ValueError
try:
    call(fails)
except sa.exc.OperationalError:
    show(remora.current_span_id())
"""
    )
    result = program(code)
    assert result.shown == [None]
    assert one(statements(result)).status == "error"


def test_another_thread_does_not_see_it(program: Run) -> None:
    code = (
        ENGINE
        + """
asked, told, seen = threading.Event(), threading.Event(), []
def bystander():
    asked.wait()
    with remora.span("bystander"):
        seen.append(remora.current_span_id())
    told.set()
thread = threading.Thread(target=bystander)
thread.start()
def probe():
    asked.set()
    told.wait()
call(probe)
thread.join()
"""
    )
    result = program(code)
    assert len(statements(result)) == 1
    assert not one(result.spans, name="bystander").parent_id


def test_a_worker_that_starts_in_the_call_inherits_nothing(program: Run) -> None:
    code = (
        ENGINE
        + """
from concurrent.futures import ThreadPoolExecutor
def work(name):
    with remora.span(name):
        pass
def probe():
    global pool
    pool = ThreadPoolExecutor(1)
    pool.submit(work, "submitted").result()
def blocking():
    with engine.connect() as mine:
        mine.connection.driver_connection.create_function("probe", 0, probe)
        mine.execute(sa.text("select probe()"))
async def main():
    # The worker runs it with nothing in force.
    await asyncio.get_running_loop().run_in_executor(None, blocking)
asyncio.run(main())
pool.submit(work, "later").result()
"""
    )
    result = program(code)
    assert one(result.spans, name="submitted").parent_id == one(statements(result)).span_id
    assert not one(result.spans, name="later").parent_id


def test_a_log_record_in_the_call_has_its_ids(program: Run) -> None:
    code = (
        ENGINE
        + """
import io, logging
out = io.StringIO()
logging.basicConfig(stream=out, format="%(otelSpanID)s")
call(lambda: logging.error("inside"))
show(out.getvalue().strip())
"""
    )
    result = program(code, env={"OTEL_PYTHON_LOG_CORRELATION": "true"})
    assert result.shown == [one(statements(result)).span_id]


def test_greenlets_take_turns_in_the_call(program: Run) -> None:
    code = (
        ENGINE
        + """
import greenlet
def other():
    with engine.connect() as second:
        second.execute(sa.text("select 2"))
        with remora.span("of the other"):
            pass
def probe():
    greenlet.greenlet(other).switch()
    with remora.span("of the first"):
        pass
call(probe)
"""
    )
    result = program(code)
    first = one([span for span in statements(result) if "probe" in span["db.query.text"]])
    second = one([span for span in statements(result) if "probe" not in span["db.query.text"]])
    # A greenlet begins with a context of its own.
    assert not second.parent_id
    assert not one(result.spans, name="of the other").parent_id
    assert one(result.spans, name="of the first").parent_id == first.span_id
