"""One order through seven processes: what every library makes of it is one trace in the Collector."""

import json
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.collector import Collector
from support.otlp import Span, children, one, roots, waterfall
from support.paths import APPS
from support.process import Service
from support.servers.kafka import Kafka
from support.servers.mongodb import MongoDB
from support.servers.postgresql import PostgreSQL
from support.servers.redis import Redis

BIN = Path(sys.executable).parent
LAUNCHER = [BIN / "remora", "run"]
GUNICORN = [*LAUNCHER, BIN / "gunicorn", "-w", "1", "-b", "127.0.0.1:{port}"]
UVICORN = [*LAUNCHER, BIN / "uvicorn", "--port", "{port}"]

# (service, scope, kind, name), each with what is below it. Order among siblings is that of their starts.
ORDER: list[Any] = [
    ("front", "fastapi", "server", "GET /orders/{item}"),
    [
        ("front", "httpx", "client", "GET"),
        [
            ("stock", "flask", "server", "GET /stock/<item>"),
            [("stock", "sqlite3", "client", "select")],
            [("stock", "redis", "client", "SET")],
            [
                ("stock", "requests", "client", "GET"),
                [
                    ("prices", "django", "server", "GET /prices/<item>"),
                    [("prices", "psycopg", "client", "select")],
                    [("prices", "sqlalchemy", "client", "select")],
                    [
                        ("prices", "urllib3", "client", "GET"),
                        [("taxes", "wsgi", "server", "GET")],
                    ],
                    [
                        ("prices", "urllib3", "client", "GET"),
                        [("rates", "asgi", "server", "GET")],
                    ],
                ],
            ],
        ],
    ],
    [
        ("front", "aiohttp-client", "client", "GET"),
        [
            ("notes", "aiohttp-server", "server", "GET /notes/{item}"),
            [("notes", "pymongo", "client", "find notes")],
        ],
    ],
    [
        ("front", "starlette", "internal", "announce"),
        [
            ("front", "kafka", "producer", "send {topic}"),
            [
                ("shipping", "kafka", "consumer", "process {topic}"),
                [("shipping", "sqlite3", "client", "select")],
            ],
        ],
    ],
]


class Shop:
    """The seven processes, in an order in which each finds what it asks."""

    def __init__(
        self, start: Callable[..., Service], collector: Collector, common: dict[str, str], topic: str
    ) -> None:
        self.services: dict[str, Service] = {}
        self._start, self._collector, self._common = start, collector, {**common, "TOPIC": topic}
        self._launch("taxes", [*GUNICORN, "plain:taxes"])
        self._launch("rates", [*UVICORN, "--interface", "asgi3", "plain:rates"], "grpc")
        self._launch("prices", [*GUNICORN, "prices:app"], "grpc")
        self._launch("stock", [*GUNICORN, "stock:app"])
        self._launch("notes", [*LAUNCHER, sys.executable, "notes.py"], "grpc")
        self._launch("shipping", [*LAUNCHER, sys.executable, "shipping.py"])
        self._launch("front", [*UVICORN, "front:app"])

    def _launch(self, name: str, command: list[Any], protocol: str = "http/protobuf") -> None:
        urls = {other.upper(): service.url for other, service in self.services.items()}
        env = self._collector.env(
            protocol,
            OTEL_SERVICE_NAME=name,
            OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=tests",
            OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
            # Nothing is sent before the end.
            OTEL_BSP_SCHEDULE_DELAY="60000",
            **self._common,
        )
        folder = APPS / "order"
        self.services[name] = self._start(command, env={**env, **urls}, cwd=folder, bare=True)

    def order(self, item: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.services['front'].url}/orders/{item}", timeout=30) as answer:
            answered: dict[str, Any] = json.load(answer)
        end = time.monotonic() + 30
        while "shipped" not in self.services["shipping"].output:
            assert time.monotonic() < end, self.services["shipping"].output
            time.sleep(0.02)
        return answered

    def stop(self) -> None:
        """SIGTERM to each; nobody says anything of a loss."""
        for name, service in self.services.items():
            output = service.stop().stdout
            assert "remora:" not in output, f"{name}:\n{output}"


def tree(spans: list[Span], span: Span, topic: str) -> list[Any]:
    """As `ORDER` has it."""
    scope = span.scope.removeprefix("remora.")
    named = (span.service, scope, span.kind, span.name.replace(topic, "{topic}"))
    return [named, *(tree(spans, child, topic) for child in children(spans, span))]


@pytest.fixture
def shop(
    service: Callable[..., Service],
    collector: Collector,
    postgresql: PostgreSQL,
    redis_server: Redis,
    mongodb: MongoDB,
    kafka_broker: Kafka,
) -> Shop:
    common = {
        "DATABASE": postgresql.url,
        "REDIS": str(redis_server.port),
        "MONGODB": mongodb.uri,
        "BROKER": kafka_broker.address,
    }
    return Shop(service, collector, common, topic="orders-of-every-library")


def test_one_order_through_every_library_is_one_trace_that_arrives_with_sigterm(
    shop: Shop, collector: Collector
) -> None:
    answered = shop.order("anchor")
    price = {"item": "anchor", "price": 42, "currency": "EUR"}
    assert answered == {"stock": {"left": 3, "price": price}, "note": "None"}
    assert collector.spans == []
    shop.stop()
    spans = collector.spans
    [root] = roots(spans)
    assert tree(spans, root, "orders-of-every-library") == ORDER, waterfall(spans)
    assert {span.trace_id for span in spans} == {root.trace_id}
    assert {span.status for span in spans} == {"unset"}
    for span in spans:
        # The parent's clock is another's, on this machine the same: nothing begins before what caused it.
        above = next((other for other in spans if other.span_id == span.parent_id), span)
        assert above.start <= span.start <= span.end
        assert bool(span.flags & 0x200) == (span.service != above.service)
    resources = {span.service: span.resource for span in spans}
    assert len(resources) == len({resource["service.instance.id"] for resource in resources.values()}) == 7
    for name, resource in resources.items():
        server = shop.services[name].pid
        # gunicorn's workers are its children; the others are what was started.
        own = name not in {"taxes", "prices", "stock"}
        assert (resource["process.pid"] == server) == own
        assert resource["deployment.environment.name"] == "tests"
        assert resource["telemetry.sdk.language"] == "python"
    message = one(spans, kind="consumer")
    assert [link.span_id for link in message.links] == [message.parent_id]
