"""kafka-python: PRODUCER spans for `send`, CLIENT spans for `poll`, CONSUMER spans for loops over a consumer."""

from collections.abc import Callable
from textwrap import dedent

import pytest
from support.otlp import Span, children, find, one
from support.process import Result
from support.pythons import Python, on_oldest_and_newest, on_releases
from support.servers.kafka import Kafka

from .conftest import Program

Run = Callable[..., Program]

# `drain(topic, count)` polls until `count` messages are there.
SETUP = """
import os, sys, time, uuid
import kafka
BROKER = os.environ["BROKER"]
TOPIC, OTHER = "one-" + uuid.uuid4().hex, "two-" + uuid.uuid4().hex

def producer(**settings):
    return kafka.KafkaProducer(bootstrap_servers=BROKER, **settings)

def consumer(*topics, **settings):
    settings = {"auto_offset_reset": "earliest", "consumer_timeout_ms": 3000, **settings}
    return kafka.KafkaConsumer(*topics, bootstrap_servers=BROKER, **settings)

def drain(polled, count):
    messages = []
    while len(messages) < count:
        for batch in polled.poll(200).values():
            messages += batch
    return messages
"""


@pytest.fixture
def run(program: Run, kafka_broker: Kafka) -> Run:
    """As `program`, after `SETUP`."""

    def call(code: str, env: dict[str, str | None] | None = None, **options: object) -> Program:
        layers = {"BROKER": kafka_broker.address, **(env or {})}
        return program(SETUP + dedent(code), env=layers, **options)

    return call


def kafka_spans(result: Result, operation: str) -> list[Span]:
    return [span for span in find(result.spans, scope="remora.kafka") if span.name.split()[0] == operation]


EVERYTHING = """
p = producer(client_id="shop")
headers = [("mine", b"1")]
future = p.send(TOPIC, b"value", b"key", headers, 1)
metadata = future.get(10)
show(metadata.partition, metadata.offset, headers == [("mine", b"1")], future.value is metadata)
p.send(TOPIC, key=b"gone", partition=1).get(10)
p.send(topic=TOPIC, value=b"plain", partition=1, headers=None).get(10)
c = consumer(TOPIC, group_id="readers", client_id="reader")
for message in c:
    show(message.key.decode() if message.key else None, [name for name, _ in message.headers])
    p.send(OTHER, b"made of " + (message.value or b"")).get(10)
    if message.offset == 2:
        break
c.close()
p.send(OTHER, b"afterwards").get(10)
c = consumer(OTHER, group_id="others")
show(len(drain(c, 4)))
c.close()
p.close()
show(TOPIC, OTHER)
"""


def check_everything(result: Program, broker: Kafka) -> None:
    *shown, (topic, other) = result.shown
    assert shown == [
        [1, 0, True, True],
        ["key", ["mine", "traceparent"]],
        ["gone", ["traceparent"]],
        [None, ["traceparent"]],
        4,
    ]
    common = {
        "messaging.system": "kafka",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": topic,
        "messaging.destination.partition.id": "1",
        "messaging.client.id": "shop",
        "server.address": "127.0.0.1",
        "server.port": broker.port,
    }
    sends = find(result.spans, f"send {topic}")
    assert [span.attributes for span in sends] == [
        {**common, "messaging.kafka.message.key": "key", "messaging.kafka.offset": 0},
        {
            **common,
            "messaging.kafka.message.key": "gone",
            "messaging.kafka.message.tombstone": True,
            "messaging.kafka.offset": 1,
        },
        {**common, "messaging.kafka.offset": 2},
    ]
    processes = find(result.spans, f"process {topic}")
    of_consumer = {
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.client.id": "reader",
        "messaging.consumer.group.name": "readers",
    }
    assert [span.attributes for span in processes] == [{**span.attributes, **of_consumer} for span in sends]
    assert {span.kind for span in sends} == {"producer"}
    assert {span.kind for span in processes} == {"consumer"}
    assert {span.status for span in result.spans} == {"unset"}
    # The message's trace goes on where it is worked on, and so does what that work sends.
    for send, process in zip(sends, processes, strict=True):
        assert (process.trace_id, process.parent_id) == (send.trace_id, send.span_id)
        assert [(link.trace_id, link.span_id) for link in process.links] == [(send.trace_id, send.span_id)]
        [inner] = children(result.spans, process)
        assert inner.name == f"send {other}"
        assert process.start <= inner.start <= inner.end <= process.end
    last = find(result.spans, f"send {other}")[-1]
    assert last.parent_id is None
    polls = kafka_spans(result, "poll")
    assert {span.name for span in polls} == {f"poll {other}"}
    assert {span.kind for span in polls} == {"client"}
    assert sum(span["messaging.batch.message_count"] for span in polls) == 4
    assert {span["messaging.operation.type"] for span in polls} == {"receive"}
    linked = {(link.trace_id, link.span_id) for span in polls for link in span.links}
    assert linked == {(span.trace_id, span.span_id) for span in find(result.spans, f"send {other}")}
    assert len(kafka_spans(result, "send")) == 7


@on_oldest_and_newest
def test_messages_are_followed_from_producer_to_loop_and_poll(
    run: Run, kafka_broker: Kafka, python: Python
) -> None:
    check_everything(run(EVERYTHING, python=python), kafka_broker)


@on_releases("old")
def test_an_old_release_is_followed_alike(run: Run, kafka_broker: Kafka, python: Python) -> None:
    check_everything(run(EVERYTHING, python=python), kafka_broker)


def test_imported_before_activation_the_spans_are_the_same(run: Run, kafka_broker: Kafka) -> None:
    result = run("import remora\nremora.init()\n" + EVERYTHING, env={"REMORA_ENABLED": None})
    check_everything(result, kafka_broker)


def test_the_result_and_the_headers_are_the_application_s(run: Run) -> None:
    code = """
    class Odd:
        def __str__(self): raise RuntimeError
        def __getattr__(self, name): raise RuntimeError
    def attempt(*args, **kwargs):
        try:
            future = p.send(*args, **kwargs)
            show(type(future).__name__, future.get(10).serialized_value_size)
        except BaseException as error:
            # The context that a message carries counts among its bytes.
            show(type(error).__name__, str(error).replace("2000156", "2000088"))
    p = producer(client_id="x", max_block_ms=800)
    attempt()
    attempt(TOPIC)
    attempt(TOPIC, "text")
    attempt(TOPIC, Odd())
    attempt(5, b"x")
    attempt("\\ud800", b"x")
    attempt("no good: topic", b"x")
    attempt(TOPIC, b"x", 5)
    attempt(TOPIC, b"x", headers=())
    attempt(TOPIC, b"x", headers=5)
    attempt(TOPIC, b"x", headers=[("a", None)])
    attempt(TOPIC, b"x", headers=[("a",)])
    attempt(TOPIC, b"x", headers=["ab"])
    attempt(TOPIC, b"x", nonsense=1)
    attempt(TOPIC, b"x", None, None, None, None, None, None)
    attempt(TOPIC, b"x", topic=TOPIC)
    attempt(TOPIC, b"x" * 20)
    attempt(TOPIC, b"x", partition=77)
    attempt(TOPIC, b"x" * 2_000_000)
    attempt(**{"topic": TOPIC, "value": b"xy", "key": b"\\xff\\xfe"})
    """
    # Topics are made anew in each run and show in messages.
    code = code.replace("def attempt", 'TOPIC = "odd"\n    def attempt', 1)
    result = run(code)
    bare = run(code, env={"REMORA_ENABLED": "false"})
    assert result.shown == bare.shown
    assert len(result.shown) == 20
    spans = kafka_spans(result, "send")
    assert len(spans) == 20
    assert sum(span.status == "error" for span in spans) == 18
    assert all(span["error.type"] for span in spans if span.status == "error")
    assert "messaging.kafka.message.key" not in spans[-1].attributes


@on_releases("old", "newest")
def test_a_message_that_is_not_delivered_is_an_error_and_its_future_is_as_without_us(
    run: Run, python: Python
) -> None:
    code = """
    p = producer(max_request_size=5_000_000)
    p.send(TOPIC, b"first").get(10)
    # More than the broker takes.
    lost = p.send(TOPIC, b"x" * 2_000_000)
    seen = []
    lost.add_callback(seen.append)
    lost.add_errback(lambda error: seen.append(type(error).__name__))
    try:
        lost.get(10)
    except Exception as error:
        time.sleep(0.1)
        show(type(error).__name__, seen == [type(error).__name__], error is lost.exception)
    """
    result = run(code, quiet=False, python=python)
    [[error, *same]] = result.shown
    assert same == [True, True]
    sent, lost = kafka_spans(result, "send")
    assert sent.status == "unset"
    assert lost.status == "error"
    assert lost["error.type"] == f"kafka.errors.{error}"


def test_a_future_that_is_never_done_is_not_kept_and_its_span_ends_with_it(run: Run) -> None:
    code = """
    import weakref, gc, remora
    from kafka.future import Future
    class Fate(Future):
        pass
    class Accumulator:
        def append(self, *args, **kwargs):
            fate = Fate()
            fates.append(weakref.ref(fate))
            return (fate, False, False, False)
    fates = []
    p = producer()
    p.partitions_for(TOPIC)
    own, p._accumulator = p._accumulator, Accumulator()
    fate = p.send(TOPIC, b"x")
    show(fate.is_done, remora.status()["spans"]["made"])
    del fate
    show(fates[0]() is None, remora.status()["spans"]["made"])
    p.send(TOPIC, b"x").success(None)
    show(remora.status()["spans"]["made"])
    for n in range(17_000):
        fates.append(p.send(TOPIC, b"x"))
    show(remora.status()["spans"]["made"])
    p._accumulator = own
    fates.clear()
    """
    result = run(code)
    assert result.shown == [[False, 0], [True, 1], 2, 2 + 17_000 - 16 * 1024]
    assert len(kafka_spans(result, "send")) == 2 + 17_000


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


def test_inside_a_request_the_request_is_the_parent(run: Run) -> None:
    code = """
    import remora
    p = producer()
    def work():
        p.send(TOPIC, b"x").get(10)
        c = consumer(TOPIC)
        for message in c:
            p.send(OTHER, b"y").get(10)
            break
        c.close()
        drain(consumer(TOPIC), 1)
        return remora.current_span_id()
    show(job(work))
    show(remora.current_span_id(), TOPIC, OTHER)
    """
    result = run(code)
    request = one(result.spans, kind="server")
    span_id, (after, topic, other) = result.shown
    assert span_id == request.span_id
    assert after is None
    names = [span.name for span in children(result.spans, request)]
    assert names == [f"send {topic}", f"process {topic}", f"poll {topic}"]
    process = one(result.spans, f"process {topic}")
    assert process.links[0].span_id == one(result.spans, f"send {topic}").span_id
    assert [span.name for span in children(result.spans, process)] == [f"send {other}"]


def test_not_sampled_the_context_goes_on_and_nothing_is_made(run: Run) -> None:
    code = """
    import remora
    p = producer()
    p.send(TOPIC, b"x", partition=0).get(10)
    c = consumer(TOPIC)
    for message in c:
        sampled = p.send(OTHER, b"y", partition=0)
        break
    sampled.get(10)
    c.close()
    before, after = dict(message.headers), dict(drain(consumer(OTHER), 1)[0].headers)
    show(before["traceparent"].decode(), after["traceparent"].decode())
    show(remora.status()["spans"]["made"])
    """
    result = run(code, env={"OTEL_TRACES_SAMPLER": "always_off"})
    (before, after), made = result.shown
    assert before.split("-")[1] == after.split("-")[1]
    assert before[-2:] == after[-2:] == "02"
    assert made == 0
    assert result.spans == []


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
    for message in consumer(TOPIC, consumer_timeout_ms=500):
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
    assert links[0].flags & 1
    assert links[0].attributes == {"messaging.destination.partition.id": "0", "messaging.kafka.offset": 0}
    processes = kafka_spans(result, "process")
    assert [span.parent_id for span in processes].count("cd" * 8) == 8
    assert [len(span.links) for span in processes] == [1, 0, 0, 1, 0, *[1] * 6]


def test_a_message_that_is_passed_on_carries_the_new_context_once(run: Run) -> None:
    code = """
    p = producer()
    headers = [("traceparent", b"00-" + b"ab" * 16 + b"-" + b"cd" * 8 + b"-01"), ("tracestate", b"a=1"),
               ("mine", b"2"), ("baggage", b"user=1")]
    given = list(headers)
    p.send(TOPIC, b"x", headers=headers).get(10)
    show(headers == given)
    [message] = drain(consumer(TOPIC), 1)
    show([[name, value.decode()] for name, value in message.headers])
    """
    result = run(code)
    same, headers = result.shown
    [span] = kafka_spans(result, "send")
    context = f"00-{span.trace_id}-{span.span_id}-03"
    assert same is True
    assert headers == [["mine", "2"], ["baggage", "user=1"], ["traceparent", context]]


def test_brokers_before_headers_get_none_and_no_propagator_adds_none(run: Run) -> None:
    code = """
    import kafka.producer.kafka as module
    class Future:
        is_done, exception, value = True, None, None
    class Old(kafka.KafkaProducer):
        def __init__(self): self.config = {"api_version": (0, 10, 2)}; self._closed = True
        def __del__(self): pass
    real = producer()
    show([name for name, _ in real.send(TOPIC, b"x").get(10) and drain(consumer(TOPIC), 1)[0].headers])
    try:
        Old().send(TOPIC, b"x", b"k")
    except Exception as error:
        show(type(error).__name__)
    """
    result = run(code, env={"OTEL_PROPAGATORS": "none"})
    assert result.shown == [[], "IllegalStateError"]
    assert len(kafka_spans(result, "send")) == 2


def test_empty_polls_and_the_heartbeat_make_no_spans_and_failing_ones_do(run: Run) -> None:
    code = """
    c = consumer(TOPIC, group_id="beats", heartbeat_interval_ms=50)
    for n in range(5):
        c.poll(100)
    for message in consumer(TOPIC, consumer_timeout_ms=200):
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
        yield from consumer(TOPIC, consumer_timeout_ms=300)
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
