"""A server of the MongoDB protocol: FerretDB on SQLite, built by `.ci/servers-mongo`."""

import re
import socket
import subprocess
import time
from pathlib import Path

from support.paths import CACHE, free_port
from support.process import stop

_MODULE = Path(__file__).parent / "ferretdb" / "go.mod"


class MongoDB:
    """The server, with its databases in `folder`."""

    def __init__(self, folder: Path, timeout: float = 30) -> None:
        found = re.search(
            r"^require github\.com/FerretDB/FerretDB v(\S+)$", _MODULE.read_text(), re.MULTILINE
        )
        assert found
        binary = CACHE / f"ferretdb-{found[1]}" / "ferretdb"
        assert binary.exists(), f"{binary} is missing: .ci/servers-mongo builds it"
        self.port = free_port()
        self.uri = f"mongodb://127.0.0.1:{self.port}"
        log = folder / "ferretdb.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [binary, f"127.0.0.1:{self.port}", folder],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        end = time.monotonic() + timeout
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > end:
                self.close()
                raise AssertionError(f"FerretDB did not start:\n{log.read_text()}")
            time.sleep(0.02)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def close(self) -> None:
        stop(self._process)
