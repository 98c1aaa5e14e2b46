"""A server to make requests to, and programs that use libraries under the agent."""

import hashlib
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from textwrap import dedent
from typing import Any

import pytest
from support.process import Result
from support.servers.mongodb import MongoDB
from support.servers.redis import Redis


@dataclass(frozen=True)
class Received:
    """A request as it arrived; `headers` in lower case, a repeated one joined by `, `."""

    method: str
    path: str
    headers: dict[str, str]

    @property
    def trace_id(self) -> str:
        return self.headers["traceparent"].split("-")[1]

    @property
    def span_id(self) -> str:
        return self.headers["traceparent"].split("-")[2]

    @property
    def sampled(self) -> bool:
        return int(self.headers["traceparent"].split("-")[3], 16) & 1 == 1


@dataclass
class Upstream:
    """An HTTP/1.1 server that answers by path and remembers what it received.

    `/status/CODE`, `/redirect/N` (N hops, then 200), `/flaky/N` (503 N times, then 200), `/slow`, `/drop`,
    `/stream` (pieces, with pauses), `/digest` (HTTP digest authentication), anything else 200.
    """

    port: int
    received: list[Received] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def paths(self) -> list[str]:
        return [one.path for one in self.received]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    upstream: Upstream
    failures: dict[str, int]

    def log_message(self, *args: Any) -> None:
        pass

    def _answer(self, code: int, body: bytes = b"ok", **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _drain(self, headers: dict[str, str]) -> None:
        """Reads the body; what is left of one would be taken for the connection's next request."""
        if headers.get("transfer-encoding") != "chunked":
            self.rfile.read(int(headers.get("content-length", 0)))
            return
        while size := int(self.rfile.readline(), 16):
            self.rfile.read(size + len(b"\r\n"))
        self.rfile.readline()

    def _handle(self) -> None:
        headers: dict[str, str] = {}
        for name, value in self.headers.items():
            name = name.lower()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        self._drain(headers)
        self.upstream.received.append(Received(self.command, self.path, headers))
        path = self.path.removeprefix(self.upstream.url).partition("?")[0]
        match path.strip("/").split("/"):
            case ["status", code]:
                self._answer(int(code))
            case ["redirect", "0"]:
                self._answer(200)
            case ["redirect", left]:
                self._answer(302, b"", Location=f"/redirect/{int(left) - 1}")
            case ["flaky", times]:
                left = self.failures.setdefault(path, int(times))
                self.failures[path] = left - 1
                self._answer(503 if left > 0 else 200)
            case ["slow"]:
                time.sleep(1)
                self._answer(200)
            case ["drop"]:
                self.close_connection = True
            case ["stream"]:
                self.send_response(200)
                self.send_header("Connection", "close")
                self.end_headers()
                self.close_connection = True
                for _ in range(4):
                    self.wfile.write(b"x" * 1024)
                    self.wfile.flush()
                    time.sleep(0.15)
            case ["digest"] if "authorization" not in headers:
                nonce = hashlib.md5(b"nonce").hexdigest()
                self._answer(401, WWW_Authenticate=f'Digest realm="r", nonce="{nonce}", qop="auth"')
            case _:
                self._answer(200)

    do_GET = do_POST = do_HEAD = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_BREW = _handle


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """A server in the test's own process."""

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass

    handler = type("Handler", (_Handler,), {"failures": {}})
    server = Server(("127.0.0.1", 0), handler)
    handler.upstream = Upstream(server.server_port)  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield handler.upstream  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()
    thread.join()


# `job(work)` runs `work()` inside the server span of a request, `GET /job`; `show(value)` prints JSON.
PRELUDE = """
import json, os, sys
URL = os.environ.get("URL", "")

def show(*values):
    print(json.dumps(values[0] if len(values) == 1 else list(values)))

def job(work):
    import flask
    app = flask.Flask("job")
    outcome = []
    @app.get("/job")
    def view():
        outcome.append(work())
        return "done"
    assert app.test_client().get("/job").status_code == 200
    return outcome[0]
"""


@dataclass(frozen=True)
class Program(Result):
    """How a program ended, and what it `show`ed."""

    @property
    def shown(self) -> list[Any]:
        return [json.loads(line) for line in self.stdout.splitlines()]


@pytest.fixture
def program(traced: Callable[..., Result], upstream: Upstream) -> Callable[..., Program]:
    """Runs code, after `PRELUDE` and `upstream`'s address in `URL`; it must end well and in silence."""

    def run(
        code: str, *, env: dict[str, str | None] | None = None, quiet: bool = True, **options: Any
    ) -> Program:
        layers: dict[str, str | None] = {"URL": upstream.url, **(env or {})}
        result = traced(PRELUDE + dedent(code), env=layers, **options).ok()
        if quiet:
            assert result.stderr == ""
        return Program(**vars(result))

    return run


@pytest.fixture
def mongo(
    program: Callable[..., Program], mongodb: MongoDB, request: pytest.FixtureRequest
) -> Callable[..., Program]:
    """`program`, with the server's address in `MONGO` and a fresh database's name in `DB`."""
    name = f"t{abs(hash(request.node.nodeid)) % 10**12}"

    def run(code: str, *, env: dict[str, str | None] | None = None, **options: object) -> Program:
        return program(code, env={"MONGO": mongodb.uri, "DB": name, **(env or {})}, **options)

    return run


# What a program of redis-py begins with; valkey-py differs by its names.
REDIS = """
import asyncio, redis, redis.asyncio, warnings
def asynchronous(body, make=lambda: redis.asyncio.Redis(host="127.0.0.1", port=PORT)):
    async def main():
        adb = make()
        try:
            return await body(adb)
        finally:
            await (getattr(adb, "aclose", None) or adb.close)()
    return asyncio.run(main())
def attempt(call, *args, **options):
    try:
        return call(*args, **options)
    except redis.RedisError as error:
        show(type(error).__name__)
"""


def _with_client(program: Callable[..., Program], server: Redis, package: str) -> Callable[..., Program]:
    server.command("flushall")

    def run(
        code: str, *, client: str = 'redis.Redis(host="127.0.0.1", port=PORT)', **options: Any
    ) -> Program:
        code = f"{REDIS}db = {client}\n{dedent(code)}"
        code = code.replace("redis", package).replace("Redis", package.title())
        return program(f"PORT = {server.port}\nPATH = {server.path!r}\n{code}", **options)

    return run


@pytest.fixture
def redis(program: Callable[..., Program], redis_server: Redis) -> Callable[..., Program]:
    """Runs code with a client `db` of an empty server; `asynchronous(body)` runs `body(adb)` with an asyncio client."""
    return _with_client(program, redis_server, "redis")


@pytest.fixture
def valkey(program: Callable[..., Program], redis_server: Redis) -> Callable[..., Program]:
    """As `redis`, the same code with the names of valkey-py."""
    return _with_client(program, redis_server, "valkey")
