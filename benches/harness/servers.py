"""What the units talk to. Everything is on 127.0.0.1, on free ports, and ends with the run."""

import contextlib
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from .venvs import BENCHES, CACHE


class Missing(Exception):
    """A row cannot be measured on this machine; the text says what is missing and where it comes from."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def end(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def ready(process: subprocess.Popen, port: int, seconds: float = 15) -> None:
    """Waits until the port accepts."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args[0]} ended with {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"{process.args[0]} does not listen")


@contextlib.contextmanager
def sink(silent: bool = False) -> Iterator[str]:
    """`sink.py` in a process of its own: its CPU is nobody's. Yields its URL."""
    command = [sys.executable, "-I", str(BENCHES / "harness/sink.py"), *(["--silent"] if silent else [])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        end(process)
        process.stdout.close()


def count(url: str) -> dict[str, int]:
    with urllib.request.urlopen(url + "/count", timeout=10) as response:
        return json.load(response)


def settled(url: str, wanted: int, quiet: float = 3, seconds: float = 60) -> int:
    """The spans that a sink has counted: as many as wanted, or what stays the same for `quiet` seconds."""
    last, since, until = -1, time.monotonic(), time.monotonic() + seconds
    while time.monotonic() < until:
        spans = count(url)["spans"]
        if spans != last:
            last, since = spans, time.monotonic()
        if spans >= wanted or time.monotonic() - since > quiet:
            break
        time.sleep(0.1)
    return last


COLLECTOR = """
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
exporters:
  {exporter}/count: {{endpoint: "{sink}", encoding: json, compression: none, sending_queue: {queue}}}
service:
  telemetry: {{metrics: {{level: none}}, logs: {{level: error}}}}
  pipelines: {{traces: {{receivers: [otlp], exporters: [{exporter}/count]}}}}
"""


@contextlib.contextmanager
def collector(to: str) -> Iterator[str]:
    """A real Collector (`make collector`) that forwards as OTLP/JSON to a sink. Yields its URL."""
    binary = collector_binary()
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.yaml")
        config.write_text(
            COLLECTOR.format(port=port, sink=to, exporter="otlphttp", queue="{queue_size: 100000}")
        )
        process = subprocess.Popen([binary, "--config", config], stderr=subprocess.DEVNULL)
        try:
            ready(process, port)
            yield f"http://127.0.0.1:{port}"
        finally:
            end(process)


def collector_binary() -> Path:
    found = [
        path
        for path in CACHE.glob("collector*/**/*")
        if path.is_file() and os.access(path, os.X_OK) and path.name.startswith(("otelcol", "collector"))
    ]
    if not found:
        raise Missing("no Collector in the cache folder: `make collector`")
    return max(found, key=lambda path: path.stat().st_mtime)


@contextlib.contextmanager
def redis() -> Iterator[int]:
    """Yields a port."""
    binary = shutil.which("redis-server")
    if not binary:
        raise Missing("no redis-server: `apt-get install redis-server`")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        process = subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL)
        try:
            ready(process, port)
            yield port
        finally:
            end(process)


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Yields a connection string. PostgreSQL refuses root: then it runs as `postgres`."""
    folders = [shutil.which("initdb"), *Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    initdb = next((Path(found) for found in folders if found), None)
    if not initdb:
        raise Missing("no initdb: `apt-get install postgresql`")
    user: dict = {}
    if os.geteuid() == 0:
        entry = pwd.getpwnam("postgres")
        user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    port = free_port()
    folder = tempfile.mkdtemp()
    try:
        if user:
            os.chown(folder, user["user"], user["group"])
        make = [initdb, "-A", "trust", "-U", "bench", "-D", folder + "/data"]
        subprocess.run(make, check=True, capture_output=True, **user)
        command = [initdb.with_name("postgres"), "-D", folder + "/data", "-h", "127.0.0.1"]
        process = subprocess.Popen(
            [*command, "-p", str(port), "-k", folder], stderr=subprocess.DEVNULL, cwd=folder, **user
        )
        try:
            ready(process, port)
            yield f"host=127.0.0.1 port={port} user=bench dbname=postgres"
        finally:
            end(process)
    finally:
        shutil.rmtree(folder)
