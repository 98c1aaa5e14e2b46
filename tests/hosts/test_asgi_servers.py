"""Servers of ASGI applications, alone and as workers of gunicorn: one SERVER span for each request, none lost."""

import sys
from collections.abc import Callable

import pytest
from support.collector import Collector
from support.otlp import Span
from support.paths import APPS
from support.process import Service

from .served import GUNICORN, LAUNCHER, ask, settings, whole

UVICORN = [*LAUNCHER, sys.executable, "-m", "uvicorn", "--port", "{port}", "--app-dir", str(APPS)]
HYPERCORN = [
    *LAUNCHER,
    sys.executable,
    "-m",
    "hypercorn",
    "-b",
    "127.0.0.1:{port}",
    "--graceful-timeout",
    "1",
]

Serve = Callable[..., list[Span]]


@pytest.fixture
def serve(service: Callable[..., Service], collector: Collector) -> Serve:
    """Starts a server, asks 40 times, stops it: gives its server spans."""

    def served(*command: str) -> list[Span]:
        server = service([*command], env=settings(collector), cwd=APPS, bare=True)
        ask(server, range(40))
        result = server.stop()
        assert "remora:" not in result.stdout
        return whole(collector.spans, 40)

    return served


APPLICATIONS = [
    ("hosted_asgi:app", "remora.fastapi"),
    ("hosted_asgi:bare", "remora.asgi"),
    ("hosted_asgi:behind", "remora.fastapi"),
]


@pytest.mark.parametrize(
    "worker",
    [
        "asgi",
        "uvicorn_worker.UvicornWorker",
        "uvicorn_worker.UvicornH11Worker",
        "uvicorn.workers.UvicornWorker",
    ],
)
@pytest.mark.parametrize(("application", "scope"), APPLICATIONS)
def test_gunicorn_with_a_worker_for_asgi_loses_no_request(
    serve: Serve, worker: str, application: str, scope: str
) -> None:
    servers = serve(*GUNICORN, "-w", "2", "-k", worker, application)
    assert {span.scope for span in servers} == {scope}


def test_gunicorn_with_a_worker_for_asgi_and_preload_loses_no_request(serve: Serve) -> None:
    serve(*GUNICORN, "-w", "2", "-k", "uvicorn_worker.UvicornWorker", "--preload", "hosted_asgi:app")


@pytest.mark.parametrize("options", [[], ["--workers", "2"]], ids=["", "workers"])
@pytest.mark.parametrize(("application", "scope"), [*APPLICATIONS, ("hosted_asgi:asgi2", "remora.asgi")])
def test_uvicorn_loses_no_request(serve: Serve, options: list[str], application: str, scope: str) -> None:
    servers = serve(*UVICORN, *options, application)
    assert {span.scope for span in servers} == {scope}


@pytest.mark.parametrize(
    ("interface", "application", "scope"),
    [
        ("asgi3", "hosted_asgi:bare", "remora.asgi"),
        ("asgi2", "hosted_asgi:asgi2", "remora.asgi"),
        ("wsgi", "hosted_asgi:wsgi", "remora.wsgi"),
        ("wsgi", "hosted:app", "remora.flask"),
    ],
)
def test_uvicorn_has_one_span_for_each_request_by_any_interface(
    serve: Serve, interface: str, application: str, scope: str
) -> None:
    servers = serve(*UVICORN, "--interface", interface, application)
    assert {(span.scope, span["http.response.status_code"]) for span in servers} == {(scope, 200)}
    assert {span.parent_id for span in servers} == {None}


@pytest.mark.parametrize(("application", "scope"), [*APPLICATIONS, ("wsgi:hosted_asgi:wsgi", "remora.wsgi")])
def test_hypercorn_loses_no_request(serve: Serve, application: str, scope: str) -> None:
    servers = serve(*HYPERCORN, application)
    assert {span.scope for span in servers} == {scope}
