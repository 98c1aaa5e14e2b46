"""kafka-python's consumers: loops, polls and their links."""

from collections.abc import Callable

import pytest
from support.otlp import children, find, one
from support.process import Result
from support.pythons import Python, on_releases
from support.servers.kafka import Kafka

from .conftest import Program
from .kafka_program import SETUP, kafka_spans, with_broker

Run = Callable[..., Program]


@pytest.fixture
def run(program: Run, kafka_broker: Kafka) -> Run:
    """As `program`, after `SETUP`."""
    return with_broker(program, kafka_broker)


def test_leaving_a_loop_half_way_ends_the_span_in_bounds(run: Run) -> None:
    code = """
    import gc, threading, remora
    p = producer()
    for n in range(6):
        p.send(TOPIC, b"x", partition=0)
    p.flush()
    made = remora.status()["spans"]["made"]
    def ended():
        return remora.status()["spans"]["made"] - made
    def now():
        return remora.current_span_id()
    # Asked again, it ends.
    c = consumer(TOPIC)
    next(c)
    first = now()
    show(ended(), first is not None)
    next(c)
    show(ended(), now() not in (None, first))
    # A break, and a poll.
    for message in c:
        break
    show(ended(), now() is not None)
    c.poll(0)
    show(now(), ended() >= 3)
    c.close()
    # Closed in the loop, and from another thread.
    made = remora.status()["spans"]["made"]
    c = consumer(TOPIC)
    for message in c:
        c.close()
        show(now(), ended())
    c = consumer(TOPIC)
    next(c)
    thread = threading.Thread(target=c.close)
    thread.start()
    thread.join()
    show(ended())
    # Forgotten.
    c = consumer(TOPIC)
    next(c)
    del c, message
    gc.collect()
    show(now(), ended())
    # Left to the end of the process.
    c = consumer(TOPIC)
    next(c)
    """
    result = run(code, quiet=False)
    assert result.shown == [
        [0, True], [1, True], [2, True], [None, True], [None, 1], 2, [None, 3],
    ]  # fmt: skip
    # Three by asking again, one each closed in the loop, closed elsewhere, forgotten and at the exit.
    assert len(kafka_spans(result, "process")) == 7


def test_threads_and_nested_loops_have_their_own_parents(run: Run) -> None:
    code = """
    import threading
    p = producer()
    for n in range(8):
        p.send(TOPIC, b"x", partition=0)
        p.send(OTHER, b"y", partition=0)
    p.flush()
    lock = threading.Lock()
    shared = consumer(TOPIC)
    def work():
        for n in range(2):
            with lock:
                message = next(shared)
            p.send("work", str(message.offset).encode(), key=str(message.offset).encode())
            time.sleep(0.02)
    threads = [threading.Thread(target=work) for n in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    shared.close()
    outer, inner = consumer(TOPIC), consumer(OTHER)
    for n in range(8):
        next(outer)
        next(inner)
    outer.close()
    inner.close()
    import remora
    show(remora.current_span_id())
    p.close()
    show(TOPIC, OTHER)
    """
    result = run(code)
    none, (topic, other) = result.shown
    assert none is None
    work = find(result.spans, "send work")
    assert len(work) == 8
    by_id = {span.span_id: span for span in result.spans}
    for span in work:
        parent = by_id[span.parent_id or ""]
        assert parent.name == f"process {topic}"
        assert str(parent["messaging.kafka.offset"]) == span["messaging.kafka.message.key"]
        assert parent.end >= span.start
    outer = find(result.spans, f"process {topic}")
    assert len(outer) == 16
    for span in find(result.spans, f"process {other}"):
        assert by_id[span.parent_id or ""].name == f"process {topic}"
        assert len(span.links) == 1


WORKER = """
import threading, remora
p = producer()
start = threading.Event()
def work():
    start.wait()
    for message in consumer(TOPIC):
        if message.offset == 2:
            break
    show(len(drain(consumer(TOPIC), 3)))
def request():
    thread = threading.Thread(target=work)
    thread.start()
    return thread
"""
SEND = """
for n in range(3):
    p.send(TOPIC, b"x", partition=0)
p.flush()
start.set()
thread.join()
"""


def test_a_thread_that_outlives_the_request_that_started_it_works_for_the_messages(run: Run) -> None:
    result = run(f"{WORKER}thread = job(request){SEND}")
    assert result.shown == [3]
    request = one(result.spans, kind="server")
    sends = kafka_spans(result, "send")
    processes = kafka_spans(result, "process")
    assert [(span.trace_id, span.parent_id) for span in processes] == [
        (span.trace_id, span.span_id) for span in sends
    ]
    assert [span.name for span in result.spans if span.trace_id == request.trace_id] == ["GET /job"]


def test_where_nothing_is_recorded_around_a_loop_the_messages_decide(run: Run) -> None:
    code = """
    sampled = [("traceparent", b"00-" + b"ab" * 16 + b"-" + b"cd" * 8 + b"-01")]
    def work():
        for n in range(3):
            # As a producer without the agent.
            type(p).send.__wrapped__(p, TOPIC, b"x", headers=[[], sampled, sampled][n], partition=0)
        p.flush()
        for message in consumer(TOPIC):
            if message.offset == 2:
                return
    import remora
    p = producer()
    with remora.span("job"):
        work()
    """
    env = {"OTEL_TRACES_SAMPLER": "parentbased_always_off"}
    result = run(code, env=env)
    assert [(span.name.split()[0], span.trace_id, span.parent_id) for span in result.spans] == [
        ("process", "ab" * 16, "cd" * 8),
        ("process", "ab" * 16, "cd" * 8),
    ]


def test_links_hold_what_messages_carry_up_to_the_limit(run: Run) -> None:
    code = """
    p = producer()
    old = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
    def send(headers):
        # As a producer without the agent.
        type(p).send.__wrapped__(p, TOPIC, b"x", headers=headers, partition=0)
    send([("traceparent", old.encode()), ("tracestate", b"a=1"), ("other", b"\\xff")])
    send([("traceparent", b"\\xff\\x00 nonsense")])
    send([("traceparent", b"")])
    send([("traceparent", b"nonsense"), ("traceparent", old.encode())])
    send([])
    for n in range(6):
        send([("traceparent", old.encode())])
    p.flush()
    show(len(drain(consumer(TOPIC), 11)))
    for message in consumer(TOPIC):
        pass
    """
    result = run(code, env={"OTEL_SPAN_LINK_COUNT_LIMIT": "4"})
    assert result.shown == [11]
    polls = kafka_spans(result, "poll")
    links = [link for span in polls for link in span.links]
    assert sum(len(span.links) + span.dropped_links for span in polls) == 8
    assert max(len(span.links) for span in polls) <= 4
    assert links[0].trace_id == "ab" * 16
    assert links[0].span_id == "cd" * 8
    assert links[0].trace_state == "a=1"
    # Sampled, and known to be of another process.
    assert links[0].flags == 0x301
    assert links[0].attributes == {"messaging.destination.partition.id": "0", "messaging.kafka.offset": 0}
    processes = kafka_spans(result, "process")
    assert [span.parent_id for span in processes].count("cd" * 8) == 8
    assert [len(span.links) for span in processes] == [1, 0, 0, 1, 0, *[1] * 6]


def test_empty_polls_and_the_heartbeat_make_no_spans_and_failing_ones_do(run: Run) -> None:
    code = """
    c = consumer(TOPIC, group_id="beats", heartbeat_interval_ms=50)
    for n in range(5):
        c.poll(100)
    for message in consumer(TOPIC):
        pass
    c.close()
    for wrong in (lambda: c.poll(0), lambda: next(c)):
        try:
            wrong()
        except BaseException as error:
            show(type(error).__name__)
    """
    result = run(code, quiet=False)
    assert result.shown == ["IllegalStateError", "StopIteration"]
    [failed] = result.spans
    assert (failed.name, failed.status, failed["error.type"]) == (
        "poll", "error", "kafka.errors.IllegalStateError",
    )  # fmt: skip


def test_a_consumer_is_not_kept(run: Run) -> None:
    code = """
    import gc, weakref
    p = producer()
    p.send(TOPIC, b"x").get(10)
    c = consumer(TOPIC)
    for message in c:
        break
    reference, record = weakref.ref(c), id(message)
    c.close()
    del c, message
    gc.collect()
    show(reference() is None)
    """
    assert run(code).shown == [True]


def test_asked_in_worker_threads_of_asyncio_or_through_a_generator_each_span_ends(run: Run) -> None:
    code = """
    import asyncio
    p = producer()
    for n in range(3):
        p.send(TOPIC, b"x", partition=0)
    p.flush()
    async def main():
        c = consumer(TOPIC)
        for n in range(3):
            await asyncio.to_thread(next, c)
        c.close()
    asyncio.run(main())
    def messages():
        yield from consumer(TOPIC)
    for message in messages():
        p.send(OTHER, b"y")
    p.flush()
    show(len([*messages()]))
    """
    result = run(code)
    assert result.shown == [3]
    processes = kafka_spans(result, "process")
    assert len(processes) == 9
    assert [len(children(result.spans, span)) for span in processes] == [0, 0, 0, 1, 1, 1, 0, 0, 0]


def test_a_message_asked_for_in_a_context_that_is_gone_ends_when_the_next_one_is_asked_for(run: Run) -> None:
    code = """
    import contextvars, remora
    p = producer()
    p.send(TOPIC, b"x").get(10)
    made = remora.status()["spans"]["made"]
    c = consumer(TOPIC)
    contextvars.copy_context().run(next, c)
    show(remora.status()["spans"]["made"] - made)
    # No other one comes.
    contextvars.copy_context().run(next, c, None)
    show(remora.status()["spans"]["made"] - made)
    """
    assert run(code).shown == [0, 1]


def test_other_work_of_an_executor_is_not_under_the_message_that_work_before_it_left(run: Run) -> None:
    code = """
    import asyncio, remora
    from concurrent.futures import ThreadPoolExecutor
    p = producer()
    for n in range(2):
        p.send(TOPIC, b"x", partition=0)
    p.flush()
    c = consumer(TOPIC)
    def one():
        for message in c:
            return remora.current_span_id()
    pool = ThreadPoolExecutor(1)
    for n in range(2):
        show(pool.submit(one).result() is not None)
        show(pool.submit(remora.current_span_id).result())
    async def main():
        show(await asyncio.get_running_loop().run_in_executor(pool, remora.current_span_id))
    asyncio.run(main())
    with remora.span("work"):
        show(pool.submit(remora.current_span_id).result() == remora.current_span_id())
    c.close()
    """
    assert run(code).shown == [True, None, True, None, None, True]


@on_releases("old", "newest")
def test_the_message_that_an_exception_ended_a_loop_at_says_so(run: Run, python: Python) -> None:
    code = """
    p = producer()
    for n in range(2):
        p.send(TOPIC, b"x", partition=0)
    p.flush()
    def in_finally():
        c = consumer(TOPIC)
        try:
            for message in c: raise ValueError("secret")
        finally:
            c.close()
    def caught():
        c = consumer(TOPIC)
        try:
            for message in c: raise KeyError("secret")
        except KeyError:
            c.close()
    def within_the_body():
        c = consumer(TOPIC)
        for message in c:
            try: raise OSError
            except OSError: pass
            if message.offset == 1: break
        c.close()
    def handled_before():
        try: raise OSError
        except OSError:
            c = consumer(TOPIC)
            for message in c: break
            c.close()
    def interrupted():
        c = consumer(TOPIC)
        try:
            for message in c: raise KeyboardInterrupt
        except KeyboardInterrupt:
            c.close()
    def collected():
        import gc
        for message in consumer(TOPIC): break
        try: raise OSError
        except OSError:
            gc.collect()
    for work in (in_finally, caught, within_the_body, handled_before, interrupted, collected):
        try: work()
        except ValueError: show("raised")
    """
    result = run(code, python=python)
    assert result.shown == ["raised"]
    processes = kafka_spans(result, "process")
    assert [(span.status, span.get("error.type")) for span in processes] == [
        ("error", "ValueError"), ("error", "KeyError"), *[("unset", None)] * 5,
    ]  # fmt: skip
    assert {span.status_message for span in processes} == {""}


@on_releases("old", "newest")
def test_the_message_that_a_program_ended_at_says_so(
    traced: Callable[..., Result], kafka_broker: Kafka, python: Python
) -> None:
    code = (
        SETUP
        + """
p = producer()
p.send(TOPIC, b"x").get(10)
for message in consumer(TOPIC):
    raise ValueError("secret")
"""
    )
    result = traced(code, env={"BROKER": kafka_broker.address}, python=python)
    assert result.returncode == 1
    assert result.stderr.endswith("ValueError: secret\n")
    [process] = kafka_spans(result, "process")
    assert (process.status, process["error.type"]) == ("error", "ValueError")


def test_a_poll_of_several_topics_names_them_on_its_links_and_one_with_a_limit_counts_what_it_brought(
    run: Run,
) -> None:
    code = """
    p = producer()
    for n in range(3):
        p.send(TOPIC, b"x", partition=0)
        p.send(OTHER, b"y", partition=1)
    p.flush()
    c = consumer()
    both = [kafka.TopicPartition(TOPIC, 0), kafka.TopicPartition(OTHER, 1)]
    c.assign(both)
    # Both places are known: one request asks for both.
    for place in both:
        c.seek(place, 0)
    left = 6
    while left:
        batches = c.poll(200, max_records=4)
        if batches:
            left -= sum(map(len, batches.values()))
            show({place.topic: len(batch) for place, batch in batches.items()})
    c.close()
    """
    result = run(code)
    several, rest = result.shown
    assert sum(several.values()) == 4
    assert len(several) == 2
    first, second = kafka_spans(result, "poll")
    assert (first.name, first["messaging.batch.message_count"], len(first.links)) == ("poll", 4, 4)
    assert "messaging.destination.name" not in first.attributes
    assert "messaging.destination.partition.id" not in first.attributes
    on_links = [link.attributes["messaging.destination.name"] for link in first.links]
    assert {topic: on_links.count(topic) for topic in several} == several
    partitions = {
        link.attributes["messaging.destination.name"]: link.attributes["messaging.destination.partition.id"]
        for link in first.links
    }
    assert sorted(partitions.values()) == ["0", "1"]
    [(topic, count)] = rest.items()
    assert (second.name, second["messaging.batch.message_count"]) == (f"poll {topic}", count)
    assert second["messaging.destination.partition.id"] == partitions[topic]
    assert all("messaging.destination.name" not in link.attributes for link in second.links)
