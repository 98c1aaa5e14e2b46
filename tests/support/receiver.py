"""The small server behind the Collector: it takes OTLP/JSON and lets tests wait for what they expect."""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from support.otlp import Span, find, spans_of, waterfall


class Receiver:
    """Collects the spans that are posted to `/v1/traces` of `url` (other signals in `metrics`, `logs`)."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._spans: list[Span] = []
        self.requests: list[dict[str, Any]] = []
        self.metrics: list[dict[str, Any]] = []
        self.logs: list[dict[str, Any]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                receiver._take(self.path, body)
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # A kept-alive connection must not hold up the end of the tests.
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def _take(self, path: str, body: dict[str, Any]) -> None:
        with self._changed:
            if path == "/v1/traces":
                self.requests.append(body)
                self._spans += spans_of(body)
            elif path == "/v1/metrics":
                self.metrics.append(body)
            else:
                self.logs.append(body)
            self._changed.notify_all()

    @property
    def spans(self) -> list[Span]:
        """What has arrived so far, in order of arrival."""
        with self._changed:
            return list(self._spans)

    def clear(self) -> None:
        """Forgets everything."""
        with self._changed:
            self._spans.clear()
            self.requests.clear()
            self.metrics.clear()
            self.logs.clear()

    def wait_for(
        self, wanted: int | Callable[[list[Span]], object], timeout: float = 20, **fields: Any
    ) -> list[Span]:
        """Waits for so many spans, or until the predicate holds of them; `fields` select as in `otlp.find`.

        Returns the selected spans; fails with what there is after `timeout` seconds.
        """
        enough = (lambda spans: len(spans) >= wanted) if isinstance(wanted, int) else wanted
        end = time.monotonic() + timeout
        with self._changed:
            while not enough(selected := find(self._spans, **fields)):
                if not self._changed.wait(end - time.monotonic()) and time.monotonic() >= end:
                    raise AssertionError(
                        f"after {timeout} s only {len(selected)} fitting spans of {len(self._spans)}:\n"
                        + waterfall(self._spans)
                    )
            return list(selected)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
