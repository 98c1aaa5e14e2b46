"""An OTLP/HTTP endpoint that misbehaves as told: statuses, garbage, partial success, broken connections."""

import contextlib
import gzip
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from support.otlp import Span, from_protobuf, spans_of


@dataclass
class Request:
    """One request as it came; `status` is what it was answered with (None: not answered, or not in HTTP)."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float
    status: int | None = None

    @property
    def payload(self) -> bytes:
        """The body, decompressed."""
        return gzip.decompress(self.body) if self.headers.get("content-encoding") == "gzip" else self.body

    @property
    def spans(self) -> list[Span]:
        if self.headers.get("content-type", "").startswith("application/json"):
            return spans_of(json.loads(self.payload))
        return spans_of(from_protobuf(self.payload))


@dataclass(frozen=True)
class Answer:
    """A plain HTTP answer, after `delay` seconds."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0


@dataclass(frozen=True)
class Raw:
    """Bytes that need not be HTTP, then the connection is closed."""

    data: bytes


@dataclass(frozen=True)
class CloseEarly:
    """Reads so many bytes of the connection (head included) and closes it, by a reset if wanted."""

    after: int = 1
    reset: bool = False


@dataclass(frozen=True)
class Hang:
    """Reads the request and never answers; the connection stays open until the endpoint is closed."""


Behaviour = Answer | Raw | CloseEarly | Hang

CLOSE_UNANSWERED = Raw(b"")
GARBAGE = Raw(b"\x00\xff\x16\x03garbage that is no HTTP\r\n\r\n" * 8)
GARBAGE_BODY = Answer(200, b"\xff\xff\xff\xff\x0fno protobuf", {"Content-Type": "application/x-protobuf"})


def retry_after(value: str, status: int = 429) -> Answer:
    """`429` or `503` with a Retry-After of seconds or of an HTTP date."""
    return Answer(status, headers={"Retry-After": value})


def partial_success(rejected: int, message: str) -> Answer:
    """ExportTraceServiceResponse { partial_success { rejected_spans, error_message } } in protobuf."""
    text = message.encode()
    assert rejected < 128
    assert len(text) < 100, "one-byte varints only"
    inner = b"\x08" + bytes([rejected]) + b"\x12" + bytes([len(text)]) + text
    body = b"\x0a" + bytes([len(inner)]) + inner
    return Answer(200, body, {"Content-Type": "application/x-protobuf"})


class BadEndpoint:
    """Plays the behaviours in order, one per request; the last one is repeated. `play` replaces them."""

    def __init__(self, *behaviours: Behaviour) -> None:
        self._changed = threading.Condition()
        self._script: list[Behaviour] = list(behaviours) or [Answer()]
        self._open: set[socket.socket] = set()
        self._closing = False
        self.requests: list[Request] = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()
        self._threads: list[threading.Thread] = []

    def play(self, *behaviours: Behaviour) -> None:
        with self._changed:
            self._script = list(behaviours)

    def env(self, **more: str) -> dict[str, str]:
        """The variables that send an application's traces here, soon."""
        return {
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.url,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            **more,
        }

    @property
    def accepted(self) -> list[Span]:
        """The spans of the requests that were answered with 2xx (partial successes wholly)."""
        with self._changed:
            taken = [request for request in self.requests if request.status and 200 <= request.status < 300]
        return [span for request in taken for span in request.spans]

    def wait_for(
        self, wanted: int | Callable[[Sequence[Request]], object], timeout: float = 20
    ) -> list[Request]:
        """Waits for so many requests, or until the predicate holds of them."""
        enough = (lambda requests: len(requests) >= wanted) if isinstance(wanted, int) else wanted
        with self._changed:
            met = self._changed.wait_for(lambda: enough(self.requests), timeout)
            assert met, f"after {timeout} s: {[(r.path, r.status) for r in self.requests]}"
            return list(self.requests)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._changed:
                if self._closing:
                    connection.close()
                    return
                self.connections += 1
                self._open.add(connection)
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            # A client that leaves in the middle is part of the game.
            with contextlib.suppress(OSError, ValueError), connection.makefile("rb") as stream:
                while self._one(connection, stream):
                    pass
        finally:
            with self._changed:
                self._open.discard(connection)
            connection.close()

    def _next(self) -> Behaviour:
        with self._changed:
            return self._script.pop(0) if len(self._script) > 1 else self._script[0]

    def _one(self, connection: socket.socket, stream: "socket.SocketIO") -> bool:  # type: ignore[name-defined]
        first = stream.read(1)
        if not first:
            return False
        behaviour = self._next()
        if isinstance(behaviour, CloseEarly):
            stream.read(behaviour.after - 1)
            if behaviour.reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        request = self._read(first, stream)
        match behaviour:
            case Answer(status=status):
                time.sleep(behaviour.delay)
                self._record(request, status)
                head = f"HTTP/1.1 {status} Told\r\nContent-Length: {len(behaviour.body)}\r\n"
                head += "".join(f"{name}: {value}\r\n" for name, value in behaviour.headers.items())
                connection.sendall(head.encode() + b"\r\n" + behaviour.body)
                return True
            case Raw(data=data):
                self._record(request, None)
                connection.sendall(data)
            case Hang():
                self._record(request, None)
                stream.read(1)
        return False

    def _record(self, request: Request, status: int | None) -> None:
        request.status = status
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()

    @staticmethod
    def _read(first: bytes, stream: "socket.SocketIO") -> Request:  # type: ignore[name-defined]
        method, path, _ = (first + stream.readline()).decode("latin-1").split(" ", 2)
        headers: dict[str, str] = {}
        while line := stream.readline().strip():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(stream.readline(), 16):
                body += stream.read(size)
                stream.readline()
            stream.readline()
        else:
            body = stream.read(int(headers.get("content-length", 0)))
        return Request(method, path, headers, body, time.monotonic())

    def close(self) -> None:
        """Ends every connection and thread; the port refuses from then on."""
        with self._changed:
            self._closing = True
            connections = list(self._open)
        # Wakes accept(): closing alone does not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._acceptor.join(5)
        for thread in self._threads:
            thread.join(5)
