"""A PostgreSQL server of the test run's own."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from support.paths import free_port
from support.process import clean_env

USER = "postgres"
DATABASE = "postgres"


def binaries() -> Path:
    """The newest installed release's folder."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    assert found, "PostgreSQL is missing: .ci/servers-sql installs it"
    return found[-1].parent


class PostgreSQL:
    """Listens on 127.0.0.1 and on a Unix socket in `folder`; everybody may log in as `postgres`."""

    def __init__(self) -> None:
        # Its socket's path must be short, and its user must be able to come here: not pytest's own folder.
        self.folder = Path(tempfile.mkdtemp(prefix="remora-pg-"))
        self.port = free_port()
        # PostgreSQL refuses to run as root.
        self._user = "nobody" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(self.folder, self._user)
        data, bin_folder = self.folder / "data", binaries()
        self._log = (self.folder / "log").open("wb")
        initdb = [bin_folder / "initdb", "-A", "trust", "-U", USER, "-E", "UTF8", "--no-sync", "-D", data]
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.folder,
            "fsync": "off",
            "max_prepared_transactions": 4,
            "shared_buffers": "16MB",
            "max_connections": 40,
        }
        command: list[str | Path] = [bin_folder / "postgres", "-D", data]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        try:
            self._spawn(initdb).wait(60)
            self._process = self._spawn(command)
            self._wait(bin_folder)
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{DATABASE}"

    def _spawn(self, command: list[str | Path]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            env=clean_env(LC_ALL="C"),
            cwd=self.folder,
            user=self._user,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def _wait(self, bin_folder: Path, timeout: float = 30) -> None:
        end = time.monotonic() + timeout
        ask = [bin_folder / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port), "-U", USER]
        while subprocess.run(ask, check=False, env=clean_env()).returncode != 0:
            log = (self.folder / "log").read_text(errors="replace")
            assert self._process.poll() is None, f"PostgreSQL ended:\n{log}"
            assert time.monotonic() < end, f"PostgreSQL does not answer:\n{log}"
            time.sleep(0.05)

    def close(self) -> None:
        process: subprocess.Popen[bytes] | None = getattr(self, "_process", None)
        if process is not None and process.poll() is None:
            # Its way to say: at once.
            process.send_signal(signal.SIGQUIT)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)
