"""Redis, with a Unix socket, a cluster of three, and a Sentinel."""

import contextlib
import subprocess
import tempfile
import time
from pathlib import Path

from support.paths import free_port, free_ports
from support.process import stop

SLOTS = 16384


class Redis:
    """One server on a free port of 127.0.0.1 and on the socket `path`; ready when it answers."""

    def __init__(self, folder: Path, *options: str, port: int | None = None, sentinel: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        # A socket's path may have some hundred bytes only.
        self._short = tempfile.TemporaryDirectory(prefix="redis-")
        self.path = f"{self._short.name}/s"
        # A Sentinel writes to its configuration.
        configuration = folder / "redis.conf"
        configuration.write_text("\n".join(options) + "\n")
        log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            ["redis-server", configuration, "--port", str(self.port), "--bind", "127.0.0.1"]
            + ["--unixsocket", self.path, "--dir", folder, "--save", "", "--appendonly", "no"]
            + (["--sentinel"] if sentinel else []),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        log.close()
        end = time.monotonic() + 20
        while self.command("ping") != "PONG":
            if self.process.poll() is not None or time.monotonic() > end:
                self.close()
                raise AssertionError(f"redis-server does not answer:\n{(folder / 'log').read_text()}")
            time.sleep(0.02)

    def command(self, *args: str) -> str:
        """What it answers."""
        command = ["redis-cli", "-h", "127.0.0.1", "-p", str(self.port), *args]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=10).stdout.strip()

    def close(self) -> None:
        """Ends it."""
        stop(self.process)
        self._short.cleanup()


class Cluster:
    """Three masters, a third of the slots each."""

    def __init__(self, folder: Path) -> None:
        self.nodes: list[Redis] = []
        try:
            ports = free_ports(6)
            for port, bus in zip(ports[:3], ports[3:], strict=True):
                options = ("cluster-enabled yes", f"cluster-port {bus}", "cluster-config-file nodes.conf")
                self.nodes.append(Redis(folder / str(port), *options, port=port))
            for at, node in enumerate(self.nodes):
                first, last = SLOTS * at // 3, SLOTS * (at + 1) // 3 - 1
                assert node.command("cluster", "addslotsrange", str(first), str(last)) == "OK"
                node.command("cluster", "set-config-epoch", str(at + 1))
            for port, bus in zip(ports[1:3], ports[4:], strict=True):
                assert self.nodes[0].command("cluster", "meet", "127.0.0.1", str(port), str(bus)) == "OK"
            end = time.monotonic() + 20
            while not all(self._knows_all(node) for node in self.nodes):
                assert time.monotonic() < end, self.nodes[0].command("cluster", "nodes")
                time.sleep(0.05)
        except BaseException:
            self.close()
            raise

    def _knows_all(self, node: Redis) -> bool:
        info = node.command("cluster", "info")
        return all(part in info for part in ("cluster_state:ok", "cluster_slots_ok:16384", "known_nodes:3"))

    @property
    def ports(self) -> list[int]:
        """The nodes' ports."""
        return [node.port for node in self.nodes]

    def close(self) -> None:
        """Ends the nodes."""
        for node in self.nodes:
            with contextlib.suppress(OSError):
                node.close()
