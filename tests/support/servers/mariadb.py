"""A MariaDB server of the test run's own."""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from support.paths import free_port
from support.process import clean_env, stop

USER = "shop"
PASSWORD = "not-a-secret"
DATABASE = "shop"


class MariaDB:
    """Listens on 127.0.0.1 and on a Unix socket, `socket`; `USER` with `PASSWORD` owns `DATABASE`."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="remora-my-"))
        self.port = free_port()
        self.socket = self.folder / "s"
        server = shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        assert server, "MariaDB is missing: .ci/servers-sql installs it"
        data = self.folder / "data"
        self._log = (self.folder / "log").open("wb")
        # Only root is asked for a user to run as, and may stay what it is.
        user = ["--user=root"] if os.geteuid() == 0 else []
        common = ["--no-defaults", f"--datadir={data}", *user]
        init = self.folder / "init.sql"
        init.write_text(
            f"create user '{USER}'@'%' identified by '{PASSWORD}';\n"
            f"grant all on *.* to '{USER}'@'%' with grant option;\n"
            f"create database {DATABASE};\n"
        )
        try:
            install = ["mariadb-install-db", *common, "--auth-root-authentication-method=normal"]
            status = self._spawn([*install, "--skip-test-db"]).wait(60)
            assert status == 0, self.log
            self._process = self._spawn(
                [
                    server,
                    *common,
                    f"--socket={self.socket}",
                    f"--port={self.port}",
                    "--bind-address=127.0.0.1",
                    f"--init-file={init}",
                    "--innodb-buffer-pool-size=16M",
                    "--innodb-flush-log-at-trx-commit=0",
                    "--skip-log-bin",
                    "--skip-name-resolve",
                ]
            )
            self._wait(server)
        except BaseException:
            self.close()
            raise

    @property
    def log(self) -> str:
        """What it has said so far."""
        return (self.folder / "log").read_text(errors="replace")

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            # Servers that share one remove each other's temporary tables as they start.
            env=clean_env({"TMPDIR": str(self.folder)}),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def _wait(self, server: str, timeout: float = 40) -> None:
        end = time.monotonic() + timeout
        # It takes connections only after its init file has run.
        while "ready for connections" not in self.log:
            assert self._process.poll() is None, f"{server} ended:\n{self.log}"
            assert time.monotonic() < end, f"{server} is not ready:\n{self.log}"
            time.sleep(0.05)

    def close(self) -> None:
        process: subprocess.Popen[bytes] | None = getattr(self, "_process", None)
        if process is not None:
            stop(process)
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)
