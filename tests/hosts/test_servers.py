"""Servers that fork, recycle and reload: every request that was served is in the Collector."""

import os
import signal
import sys
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
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
    servers = [
        span for span in spans if span.kind == "server" and span.get("http.route", "").startswith("/work")
    ]
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


@pytest.mark.parametrize("worker", ["sync", "gthread"])
@pytest.mark.parametrize("preload", [False, True], ids=["", "preload"])
def test_gunicorn_loses_no_request_when_it_stops(
    service: Callable[..., Service], collector: Collector, worker: str, preload: bool
):
    options = ["-w", "2", "-k", worker, *(["--threads", "4"] if worker == "gthread" else [])]
    options += ["--preload"] if preload else []
    server = service([*GUNICORN, *options, "hosted:app"], env=settings(collector), bare=True)
    ask(server, range(60))
    result = server.stop()
    assert result.returncode == 0, result.stdout
    assert "remora:" not in result.stdout
    servers = whole(collector.spans, 60)
    pids = {span.resource["process.pid"] for span in servers}
    assert server.pid not in pids
    assert len({span.resource["service.instance.id"] for span in servers}) == len(pids)


def test_gunicorn_loses_no_request_when_it_recycles_its_workers(
    service: Callable[..., Service], collector: Collector
):
    options = ["-w", "2", "--max-requests", "7", "--max-requests-jitter", "3"]
    server = service([*GUNICORN, *options, "hosted:app"], env=settings(collector), bare=True)
    for number in range(60):
        assert get(server, f"/work/{number}") == str(number)
    server.stop()
    servers = whole(collector.spans, 60)
    assert len({span.resource["process.pid"] for span in servers}) > 4


@pytest.mark.parametrize("preload", [False, True], ids=["", "preload"])
def test_gunicorn_loses_no_request_when_it_reloads(
    service: Callable[..., Service], collector: Collector, preload: bool
):
    options = ["-w", "2", *(["--preload"] if preload else [])]
    server = service([*GUNICORN, *options, "hosted:app"], env=settings(collector), bare=True)
    before = {get(server, "/pid") for _ in range(10)}
    ask(server, range(30))
    os.kill(server.pid, signal.SIGHUP)
    end = time.monotonic() + 20
    while {get(server, "/pid")} & before or {get(server, "/pid")} & before:
        assert time.monotonic() < end
        time.sleep(0.05)
    ask(server, range(30, 60))
    assert server.stop().returncode == 0
    whole(collector.spans, 60)


def test_a_worker_that_is_terminated_while_it_is_idle_has_sent_everything(
    service: Callable[..., Service], collector: Collector
):
    server = service([*GUNICORN, "-w", "1", "hosted:app"], env=settings(collector), bare=True)
    worker = int(get(server, "/pid"))
    ask(server, range(10))
    os.kill(worker, signal.SIGTERM)
    end = time.monotonic() + 20
    while int(get(server, "/pid")) == worker:
        assert time.monotonic() < end
        time.sleep(0.05)
    server.stop()
    whole(collector.spans, 10)


@pytest.mark.parametrize("form", ["module", "script", "flask"])
def test_the_development_server_ended_by_sigterm_loses_no_request(
    service: Callable[..., Service], collector: Collector, form: str
):
    command = {
        "module": [sys.executable, "-m", "hosted", "{port}"],
        "script": [sys.executable, str(APPS / "hosted.py"), "{port}"],
        "flask": [f"{BIN}/flask", "--app", "hosted", "run", "-p", "{port}"],
    }[form]
    server = service([*LAUNCHER, *command], env=settings(collector), cwd=APPS, bare=True)
    ask(server, range(20))
    # Nobody handles the signal: it kills, after the flush.
    assert server.stop().returncode == -signal.SIGTERM
    whole(collector.spans, 20)


@pytest.mark.parametrize(
    "options", [[], ["--enable-threads"], ["--lazy-apps"], ["--threads", "3"]], ids=" ".join
)
def test_uwsgi_loses_no_request(service: Callable[..., Service], collector: Collector, options: list[str]):
    command = [f"{BIN}/uwsgi", "--http-socket", "127.0.0.1:{port}", "--master", "--die-on-term", "-p", "2"]
    command += ["--chdir", str(APPS), "--module", "hosted:app", "--venv", sys.prefix, "--need-app", *options]
    server = service([*LAUNCHER, *command], env=settings(collector), bare=True)
    ask(server, range(40))
    result = server.stop()
    servers = whole(collector.spans, 40)
    assert server.pid not in {span.resource["process.pid"] for span in servers}, result.stdout
