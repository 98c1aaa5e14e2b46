"""Programs that are started and observed; whatever happens, none of them outlives its test."""

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from support.otlp import Span, read_files
from support.paths import free_port

# A variable with the value None is removed.
Env = Mapping[str, str | None]


def clean_env(*layers: Env | None, **more: str | None) -> dict[str, str]:
    """The test run's environment without settings of tracing and of Python, then the layers on top."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "REMORA_", "PYTHON", "PYTEST_", "COV_"))
    }
    # Nothing is written beside the sources that programs import.
    env["PYTHONDONTWRITEBYTECODE"] = "1"
    for layer in (*layers, more):
        for name, value in (layer or {}).items():
            if value is None:
                env.pop(name, None)
            else:
                env[name] = value
    return env


def file_env(folder: Path | str, *layers: Env | None, **more: str | None) -> dict[str, str | None]:
    """The variables that switch the agent on (by the wheel's .pth) and write spans into `folder`."""
    env: dict[str, str | None] = {
        "REMORA_ENABLED": "true",
        "OTEL_TRACES_EXPORTER": "otlp_file",
        "REMORA_OTLP_FILE": f"{folder}/%p.jsonl",
    }
    for layer in (*layers, more):
        env.update(layer or {})
    return env


def stop(process: subprocess.Popen[bytes], sig: int = signal.SIGTERM, timeout: float = 10) -> int:
    """Ends a process politely, then by force; returns its status."""
    if process.poll() is None:
        process.send_signal(sig)
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    # The leader's children stay in its group (and session) even when it has ended.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@dataclass(frozen=True)
class Result:
    """How a program ended. `spans` are those of its `otlp_file` outputs, of all its processes, by start."""

    returncode: int
    stdout: str
    stderr: str
    pid: int
    seconds: float
    folder: Path | None = None

    @property
    def spans(self) -> list[Span]:
        assert self.folder is not None, "this program was run without a folder for spans"
        return sorted(read_files(sorted(self.folder.glob("*.jsonl"))), key=lambda span: span.start)

    def ok(self) -> "Result":
        """This result, if the program ended with 0; else its output as the failure."""
        assert self.returncode == 0, f"status {self.returncode}\n{self.stdout}\n{self.stderr}"
        return self

    @property
    def agent_lines(self) -> list[str]:
        """What the agent said on stderr."""
        return [line for line in self.stderr.splitlines() if line.startswith("remora:")]


def appended() -> IO[bytes]:
    """A file for a program's stderr, that many may write to: only such a one can be opened a second time."""
    file = tempfile.TemporaryFile()  # noqa: SIM115  the caller's
    fcntl.fcntl(file, fcntl.F_SETFL, fcntl.fcntl(file, fcntl.F_GETFL) | os.O_APPEND)
    return file


def run(
    command: Sequence[str | Path],
    *,
    env: Env | None = None,
    cwd: Path | str | None = None,
    stdin: str | None = None,
    timeout: float = 40,
    folder: Path | None = None,
) -> Result:
    """Runs a program to its end; `env` lies over `clean_env`. What it left behind in its group is killed."""
    start = time.monotonic()
    # Files, not pipes: a grandchild that keeps a pipe open must not keep us waiting.
    with tempfile.TemporaryFile() as out, appended() as err, tempfile.TemporaryFile() as given:
        given.write((stdin or "").encode())
        given.seek(0)
        process = subprocess.Popen(
            [str(part) for part in command],
            env=clean_env(env),
            cwd=cwd,
            stdin=given,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            process.wait(timeout)
            late = ""
        except subprocess.TimeoutExpired:
            late = f"still running after {timeout} s: {command}"
        finally:
            seconds = time.monotonic() - start
            _kill_group(process)
        out.seek(0)
        err.seek(0)
        result = Result(
            process.returncode,
            out.read().decode("utf-8", "replace"),
            err.read().decode("utf-8", "replace"),
            process.pid,
            seconds,
            folder,
        )
    assert not late, f"{late}\n{result.stdout}\n{result.stderr}"
    return result


def run_python(
    code: str | Path,
    *args: str,
    python: str | Path = sys.executable,
    flags: Sequence[str] = (),
    env: Env | None = None,
    cwd: Path | str | None = None,
    timeout: float = 40,
    folder: Path | None = None,
) -> Result:
    """Runs Python code (a text for `-c`, a Path for a file). `folder`: the agent is on, spans go there."""
    source = [str(code)] if isinstance(code, Path) else ["-c", code]
    if folder is not None:
        env = file_env(folder, env)
    return run([python, *flags, *source, *args], env=env, cwd=cwd, timeout=timeout, folder=folder)


def remora_run(
    command: Sequence[str | Path],
    *,
    python: str | Path = sys.executable,
    flags: Sequence[str] = (),
    env: Env | None = None,
    cwd: Path | str | None = None,
    timeout: float = 40,
    folder: Path | None = None,
) -> Result:
    """Runs `remora run FLAGS COMMAND` by the launcher beside that interpreter."""
    if folder is not None:
        # `remora run` switches the agent on itself: nothing else may do it here.
        env = file_env(folder, {"REMORA_ENABLED": None}, env)
    launcher = Path(python).parent / "remora"
    return run([launcher, "run", *flags, *command], env=env, cwd=cwd, timeout=timeout, folder=folder)


class Service:
    """A server process that listens on `port`; ready when it takes connections."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        port: int | None = None,
        env: Env | None = None,
        cwd: Path | str | None = None,
        timeout: float = 30,
        folder: Path | None = None,
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self._log = appended()  # closed in close()
        self._started = time.monotonic()
        self.process = subprocess.Popen(
            [str(part).replace("{port}", str(self.port)) for part in command],
            env=clean_env(env, {"PORT": str(self.port)}),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        self.pid = self.process.pid
        end = time.monotonic() + timeout
        while not self._listens():
            if self.process.poll() is not None or time.monotonic() > end:
                log = self.output
                self.close()
                raise AssertionError(f"{command} does not listen on {self.port}:\n{log}")
            time.sleep(0.02)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    @property
    def output(self) -> str:
        """Both streams so far."""
        # pread: the child shares this file's offset.
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode("utf-8", "replace")

    @property
    def spans(self) -> list[Span]:
        """The spans of its `otlp_file` outputs, by start; complete once it has been stopped."""
        assert self.folder is not None, "this service was started without a folder for spans"
        return sorted(read_files(sorted(self.folder.glob("*.jsonl"))), key=lambda span: span.start)

    def stop(self, sig: int = signal.SIGTERM, timeout: float = 15) -> Result:
        """Sends the signal and waits for the end."""
        status = stop(self.process, sig, timeout)
        seconds = time.monotonic() - self._started
        return Result(status, self.output, self.output, self.pid, seconds, self.folder)

    def close(self) -> None:
        """Kills what is left of the service's process group."""
        _kill_group(self.process)
        self._log.close()
