"""Servers that fork, recycle and reload: every request that was served is in the Collector."""

import os
import signal
import sys
import time
from collections.abc import Callable

import pytest
from support.collector import Collector
from support.paths import APPS
from support.process import Service

from .served import BIN, GUNICORN, LAUNCHER, ask, get, settings, whole


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
