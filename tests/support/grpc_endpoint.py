"""An OTLP/gRPC endpoint that answers with the statuses it is told, `RetryInfo` included."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc

from support.otlp import Span, from_protobuf, spans_of

METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


@dataclass
class Call:
    """One Export call: its metadata, its message, and the status it was answered with."""

    metadata: dict[str, str]
    body: bytes
    at: float
    status: grpc.StatusCode

    @property
    def spans(self) -> list[Span]:
        return spans_of(from_protobuf(self.body))


@dataclass(frozen=True)
class Reply:
    """OK with a message, or a status; `retry_delay` in seconds goes out as google.rpc.RetryInfo."""

    status: grpc.StatusCode = grpc.StatusCode.OK
    body: bytes = b""
    message: str = ""
    retry_delay: int | None = None
    delay: float = 0
    metadata: list[tuple[str, str | bytes]] = field(default_factory=list)


def _field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2, len(data)]) + data


def _details(code: int, message: str, seconds: int) -> bytes:
    # google.rpc.Status { code, message, details: [Any { RetryInfo { retry_delay: Duration { seconds } } }] }
    retry_info = _field(1, b"\x08" + bytes([seconds]))
    any_value = _field(1, b"type.googleapis.com/google.rpc.RetryInfo") + _field(2, retry_info)
    return b"\x08" + bytes([code]) + _field(2, message.encode()) + _field(3, any_value)


class GrpcEndpoint:
    """Plays the replies in order, one per call; the last one is repeated."""

    def __init__(self, *replies: Reply) -> None:
        self._changed = threading.Condition()
        self._script = list(replies) or [Reply()]
        self.calls: list[Call] = []
        self._server = grpc.server(ThreadPoolExecutor(4))
        self._server.add_generic_rpc_handlers((_Handler(self),))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self.url = f"http://127.0.0.1:{self.port}"
        self._server.start()

    def play(self, *replies: Reply) -> None:
        with self._changed:
            self._script = list(replies)

    def env(self, **more: str) -> dict[str, str]:
        """The variables that send an application's traces here, soon."""
        return {
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.url,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            **more,
        }

    @property
    def accepted(self) -> list[Span]:
        """The spans of the calls that were answered with OK."""
        with self._changed:
            taken = [call for call in self.calls if call.status is grpc.StatusCode.OK]
        return [span for call in taken for span in call.spans]

    def wait_for(self, wanted: int | Callable[[Sequence[Call]], object], timeout: float = 20) -> list[Call]:
        """Waits for so many calls, or until the predicate holds of them."""
        enough = (lambda calls: len(calls) >= wanted) if isinstance(wanted, int) else wanted
        with self._changed:
            met = self._changed.wait_for(lambda: enough(self.calls), timeout)
            assert met, f"after {timeout} s: {[call.status for call in self.calls]}"
            return list(self.calls)

    def answer(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        with self._changed:
            reply = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        at = time.monotonic()
        time.sleep(reply.delay)
        metadata = {str(key): str(value) for key, value in context.invocation_metadata()}
        with self._changed:
            self.calls.append(Call(metadata, body, at, reply.status))
            self._changed.notify_all()
        if reply.status is grpc.StatusCode.OK:
            return reply.body
        trailing = list(reply.metadata)
        if reply.retry_delay is not None:
            code = reply.status.value[0]
            trailing.append(("grpc-status-details-bin", _details(code, reply.message, reply.retry_delay)))
        context.set_trailing_metadata(tuple(trailing))
        context.set_code(reply.status)
        context.set_details(reply.message)
        return b""

    def close(self) -> None:
        self._server.stop(0).wait(5)


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, endpoint: GrpcEndpoint) -> None:
        self._endpoint = endpoint

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method != METHOD:
            return None
        # No serialisers: messages are plain bytes.
        return grpc.unary_unary_rpc_method_handler(self._endpoint.answer)
