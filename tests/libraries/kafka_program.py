"""Programs that use kafka-python."""

from collections.abc import Callable
from textwrap import dedent

from support.otlp import Span, find
from support.process import Result
from support.servers.kafka import Kafka

from .conftest import Program

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


def with_broker(program: Callable[..., Program], broker: Kafka) -> Callable[..., Program]:
    """`program`, after `SETUP`."""

    def run(code: str, env: dict[str, str | None] | None = None, **options: object) -> Program:
        layers = {"BROKER": broker.address, **(env or {})}
        return program(SETUP + dedent(code), env=layers, **options)

    return run


def kafka_spans(result: Result, operation: str) -> list[Span]:
    return [span for span in find(result.spans, scope="remora.kafka") if span.name.split()[0] == operation]
