"""Requests to hosted applications, and what must be in the Collector of them."""

import os
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from support.collector import Collector
from support.otlp import Span
from support.paths import APPS
from support.process import Service

BIN = os.path.dirname(sys.executable)
LAUNCHER = [f"{BIN}/remora", "run"]
GUNICORN = [
    *LAUNCHER,
    f"{BIN}/gunicorn",
    "-b",
    "127.0.0.1:{port}",
    "--chdir",
    str(APPS),
    "--graceful-timeout",
    "10",
]


def get(server: Service, path: str) -> str:
    with urllib.request.urlopen(server.url + path, timeout=20) as answer:
        return str(answer.read().decode())


def ask(server: Service, numbers: range) -> None:
    """One request for each number, four at a time."""
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda number: get(server, f"/work/{number}"), numbers))
    assert answers == [str(number) for number in numbers]


def whole(spans: list[Span], served: int) -> list[Span]:
    """The server spans; each must be there once and have its query."""
    servers = [span for span in spans if span.kind == "server" and span["url.path"].startswith("/work")]
    assert len(servers) == len({span["url.path"] for span in servers}) == served
    queries = {span.parent_id: span for span in spans if span.scope == "remora.sqlite3"}
    assert len(queries) == served
    for server in servers:
        query = queries[server.span_id]
        assert query.resource["process.pid"] == server.resource["process.pid"]
    return servers


def settings(collector: Collector) -> dict[str, str]:
    # Long enough that what is there at the end was sent by the end of a worker.
    return collector.env(OTEL_BSP_SCHEDULE_DELAY="30000")
