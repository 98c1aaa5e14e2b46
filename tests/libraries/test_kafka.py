"""kafka-python: PRODUCER spans for `send`, CLIENT spans for `poll`, CONSUMER spans for loops over a consumer."""

from collections.abc import Callable

import pytest
from support.otlp import children, find, one
from support.pythons import Python, on_oldest_and_newest, on_releases
from support.servers.kafka import Kafka

from .conftest import Program
from .kafka_program import kafka_spans, with_broker

Run = Callable[..., Program]


@pytest.fixture
def run(program: Run, kafka_broker: Kafka) -> Run:
    """As `program`, after `SETUP`."""
    return with_broker(program, kafka_broker)


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


# What is sent stays on its way: nothing ends its future.
ON_ITS_WAY = """
    from kafka.future import Future
    class Accumulator:
        def append(self, *args, **kwargs):
            return (Future(), False, False, False)
    p = producer()
    p.partitions_for(TOPIC)
    own, p._accumulator = p._accumulator, Accumulator()
"""


def test_what_is_still_on_its_way_at_the_end_of_the_process_has_spans(run: Run) -> None:
    # Older releases give up what nobody has flushed; their thread, which nothing ends, holds the futures.
    code = """
    import threading
    futures = [p.send(TOPIC, b"x") for n in range(5)]
    threading.Thread(target=lambda held: time.sleep(60), args=(futures,), daemon=True).start()
    p._accumulator = own
    """
    spans = kafka_spans(run(ON_ITS_WAY + code), "send")
    assert [span.status for span in spans] == ["unset"] * 5


def test_a_delivery_that_is_told_again_ends_no_other_message_s_span(run: Run) -> None:
    code = """
    import remora
    def made():
        return remora.status()["spans"]["made"]
    first = p.send(TOPIC, b"x")
    [told] = first._callbacks
    first.success(None)
    show(made())
    second = p.send(TOPIC, b"x")
    told(None)
    show(made())
    second.success(None)
    show(made())
    p._accumulator = own
    """
    assert run(ON_ITS_WAY + code).shown == [1, 1, 2]


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


def test_headers_in_a_list_of_the_application_s_kind_carry_the_context_too(run: Run) -> None:
    code = """
    class Mine(list):
        def __iter__(self):
            yield from list.__iter__(self)
            yield ("made", b"2")
    class Faulty(list):
        def __iter__(self): raise RuntimeError("mine")
    p = producer()
    headers = Mine([("mine", b"1")])
    p.send(TOPIC, b"x", headers=headers, partition=0).get(10)
    show(type(headers).__name__, list.__len__(headers))
    try:
        p.send(TOPIC, b"x", headers=Faulty([("mine", b"1")]), partition=0)
    except RuntimeError as error:
        show(str(error))
    [message] = drain(consumer(TOPIC), 1)
    show([name for name, _ in message.headers])
    """
    assert run(code).shown == [["Mine", 1], "mine", ["mine", "made", "traceparent"]]
