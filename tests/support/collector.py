"""A real OpenTelemetry Collector that forwards what it receives, as OTLP/JSON, to a `Receiver`."""

import json
import subprocess
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.certificates import Certificates
from support.otlp import Span
from support.paths import CACHE, free_ports
from support.process import stop
from support.receiver import Receiver

BINARY = CACHE / "collector-0.165.0" / "otelcol"


@dataclass(frozen=True)
class Endpoints:
    """Base addresses of one receiver of the Collector."""

    http: str
    grpc: str
    http_port: int
    grpc_port: int


class Collector:
    """One Collector process with three receivers: `plain`, `tls` (server certificate), `mtls` (and client's).

    It answers a sender only after the span has reached `receiver` (no queue, no batch, no retry in between).
    """

    def __init__(self, folder: Path, certificates: Certificates) -> None:
        assert BINARY.exists(), f"{BINARY} is missing: make collector"
        self.certificates = certificates
        self.receiver = Receiver()
        ports = free_ports(7)
        self.plain = self._endpoints("http", ports[0], ports[1])
        self.tls = self._endpoints("https", ports[2], ports[3])
        self.mtls = self._endpoints("https", ports[4], ports[5])
        self.health = f"http://127.0.0.1:{ports[6]}/"
        self.log = folder / "collector.log"
        self.config = folder / "collector.json"
        # The Collector reads YAML, of which JSON is a part.
        self.config.write_text(json.dumps(self._settings(ports[6]), indent=1))
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @staticmethod
    def _endpoints(scheme: str, http: int, grpc: int) -> Endpoints:
        return Endpoints(f"{scheme}://127.0.0.1:{http}", f"{scheme}://127.0.0.1:{grpc}", http, grpc)

    def _settings(self, health_port: int) -> dict[str, Any]:
        tls = {
            "cert_file": str(self.certificates.server_cert),
            "key_file": str(self.certificates.server_key),
        }

        def protocols(endpoints: Endpoints, **more: Any) -> dict[str, Any]:
            return {
                "protocols": {
                    "http": {"endpoint": f"127.0.0.1:{endpoints.http_port}", **more},
                    "grpc": {"endpoint": f"127.0.0.1:{endpoints.grpc_port}", **more},
                }
            }

        receivers = {
            "otlp": protocols(self.plain),
            "otlp/tls": protocols(self.tls, tls=tls),
            "otlp/mtls": protocols(self.mtls, tls={**tls, "client_ca_file": str(self.certificates.ca)}),
        }
        pipeline = {"receivers": list(receivers), "exporters": ["otlphttp/receiver"]}
        return {
            "receivers": receivers,
            "exporters": {
                "otlphttp/receiver": {
                    "endpoint": self.receiver.url,
                    "encoding": "json",
                    "compression": "none",
                    "sending_queue": {"enabled": False},
                    "retry_on_failure": {"enabled": False},
                }
            },
            "extensions": {"health_check": {"endpoint": f"127.0.0.1:{health_port}"}},
            "service": {
                "extensions": ["health_check"],
                "telemetry": {"metrics": {"level": "none"}},
                "pipelines": {"traces": pipeline, "metrics": pipeline, "logs": pipeline},
            },
        }

    # A test sees the spans through the Collector object, wherever they are kept.
    @property
    def spans(self) -> list[Span]:
        return self.receiver.spans

    def wait_for(
        self, wanted: int | Callable[[list[Span]], object], timeout: float = 20, **fields: Any
    ) -> list[Span]:
        """As `Receiver.wait_for`."""
        return self.receiver.wait_for(wanted, timeout, **fields)

    def clear(self) -> None:
        self.receiver.clear()

    def env(self, protocol: str = "http/protobuf", **more: str) -> dict[str, str]:
        """The variables that send an application's traces here, soon."""
        endpoint = self.plain.grpc if protocol == "grpc" else self.plain.http
        return {
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            **more,
        }

    def edit(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Changes the settings of the next `start`."""
        settings = json.loads(self.config.read_text())
        change(settings)
        self.config.write_text(json.dumps(settings, indent=1))

    def start(self, timeout: float = 20) -> None:
        """Starts the process (again, after `stop`: on the same ports) and waits until it is ready."""
        assert self._process is None
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [BINARY, "--config", self.config], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        end = time.monotonic() + timeout
        while True:
            try:
                with urllib.request.urlopen(self.health, timeout=1):
                    return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > end:
                    self.stop()
                    raise AssertionError(f"the Collector did not start:\n{self.log.read_text()}") from None
                time.sleep(0.02)

    def stop(self) -> None:
        """Ends the process; the receiver and what it holds stay."""
        if self._process is not None:
            stop(self._process)
            self._process = None

    def close(self) -> None:
        self.stop()
        self.receiver.close()
