"""Fixtures for all tests; what they hand out is in `tests/support`."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.bad_endpoint import BadEndpoint, Behaviour
from support.certificates import Certificates, make_certificates
from support.collector import Collector
from support.paths import CACHE, ROOT
from support.process import Env, Result, Service, file_env, remora_run, run_python
from support.pythons import AVAILABLE, PRIMARY
from support.servers.kafka import Kafka
from support.servers.mariadb import MariaDB
from support.servers.mongodb import MongoDB
from support.servers.postgresql import PostgreSQL
from support.servers.redis import Cluster as RedisCluster
from support.servers.redis import Redis


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A certificate authority, a server and a client certificate for 127.0.0.1."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def session_collector(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[Collector]:
    """The one Collector of the run; tests take `collector`."""
    collector = Collector(tmp_path_factory.mktemp("collector"), certificates)
    yield collector
    collector.close()


@pytest.fixture
def collector(session_collector: Collector) -> Collector:
    """A running Collector that has seen nothing yet. Not to be stopped: that is for `own_collector`."""
    session_collector.clear()
    return session_collector


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A Kafka broker; each test takes topics of its own."""
    broker = Kafka(tmp_path_factory.mktemp("kafka"))
    yield broker
    broker.close()


@pytest.fixture
def own_collector(tmp_path: Path, certificates: Certificates) -> Iterator[Collector]:
    """A Collector for this test alone, which may stop and start it."""
    folder = tmp_path / "collector"
    folder.mkdir()
    collector = Collector(folder, certificates)
    yield collector
    collector.close()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """A Redis server."""
    server = Redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """A Redis cluster of three nodes."""
    cluster = RedisCluster(tmp_path_factory.mktemp("redis-cluster"))
    yield cluster
    cluster.close()


@pytest.fixture
def bad_endpoint() -> Iterator[Callable[..., BadEndpoint]]:
    """Makes endpoints that misbehave: `bad_endpoint(Answer(503), Answer(200))`."""
    made: list[BadEndpoint] = []

    def make(*behaviours: Behaviour) -> BadEndpoint:
        made.append(BadEndpoint(*behaviours))
        return made[-1]

    yield make
    for endpoint in made:
        endpoint.close()


@pytest.fixture
def grpc_endpoint() -> Iterator[Callable[..., Any]]:
    """Makes gRPC endpoints that answer as told: `grpc_endpoint(Reply(StatusCode.UNAVAILABLE), Reply())`."""
    from support.grpc_endpoint import GrpcEndpoint

    made: list[GrpcEndpoint] = []

    def make(*replies: Any) -> GrpcEndpoint:
        made.append(GrpcEndpoint(*replies))
        return made[-1]

    yield make
    for endpoint in made:
        endpoint.close()


@pytest.fixture
def spans_folder(tmp_path: Path) -> Path:
    """A folder for `otlp_file` outputs."""
    folder = tmp_path / "spans"
    folder.mkdir()
    return folder


@pytest.fixture
def traced(spans_folder: Path) -> Callable[..., Result]:
    """Runs code with the agent on (by `remora.pth`); the result has its `spans`.

    `traced(code, python=…, env=…)`, as `run_python`.
    """

    def call(code: str | Path, *args: str, **options: Any) -> Result:
        return run_python(code, *args, folder=spans_folder, **options)

    return call


@pytest.fixture
def remora(spans_folder: Path) -> Callable[..., Result]:
    """Runs a command by `remora run`: `remora([…], python=…)`, as `remora_run`; its result has `spans`."""

    def call(command: list[str | Path], **options: Any) -> Result:
        return remora_run(command, folder=spans_folder, **options)

    return call


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Starts servers and ends them with the test.

    `service(command, env=…)`: the agent is on and writes to a folder of this service (`Service.spans`),
    unless `env` chooses another exporter; `bare=True` leaves the agent out. `{port}` in the command and the
    variable `PORT` are the service's port.
    """
    started: list[Service] = []

    def start(
        command: list[str | Path], *, env: Env | None = None, bare: bool = False, **options: Any
    ) -> Service:
        folder = tmp_path / f"service-{len(started)}"
        folder.mkdir()
        layers = env if bare else file_env(folder, env)
        started.append(Service(command, env=layers, folder=None if bare else folder, **options))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server, the one of the run."""
    server = PostgreSQL()
    yield server
    server.close()


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """A MariaDB server, the one of the run."""
    server = MariaDB()
    yield server
    server.close()


@pytest.fixture(scope="session")
def mongodb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoDB]:
    """The one MongoDB-protocol server of the run: tests use databases of their own."""
    server = MongoDB(tmp_path_factory.mktemp("mongodb"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def injected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `make inject`, made of the wheels that the test environments were made of."""
    wheels, out = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("injected") / "remora"
    for python in AVAILABLE.values():
        source = ROOT / "dist" if python.version == PRIMARY else CACHE / "test-wheels"
        for wheel in source.glob(f"remora-*-{python.tag}-*.whl"):
            shutil.copy(wheel, wheels)
    subprocess.run([sys.executable, ROOT / ".ci" / "inject", wheels, out], check=True, capture_output=True)
    return out


def pytest_configure() -> None:
    # A background job of a shell starts with SIGINT ignored, and so would every program that a test starts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
