"""Where things are: the tree, the cache folder of the Makefile's targets, free ports."""

import os
import socket
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
APPS = ROOT / "tests" / "apps"
CACHE = Path(
    os.environ.get("REMORA_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "remora"
)


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on; all held at once, so that they differ."""
    held = [socket.socket() for _ in range(count)]
    try:
        for sock in held:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in held]
    finally:
        for sock in held:
            sock.close()


def free_port() -> int:
    """One port of 127.0.0.1 that nobody listens on."""
    return free_ports(1)[0]
