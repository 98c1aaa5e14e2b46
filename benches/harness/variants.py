"""How each variant starts a program: its launcher and its environment."""

import os
from dataclasses import dataclass
from pathlib import Path

from . import venvs

LAUNCHER = {
    "bare": [],
    "control": [],
    "remora": ["remora", "run"],
    "otel": ["opentelemetry-instrument"],
    "ddtrace": ["ddtrace-run"],
}

UNSAMPLED = {"OTEL_TRACES_SAMPLER": "always_off", "DD_TRACE_SAMPLING_RULES": '[{"sample_rate": 0}]'}
# A share that no trace is among: the sampler is asked for each, and what it leaves out is in force still.
LEFT_OUT = {
    "OTEL_TRACES_SAMPLER": "traceidratio",
    "OTEL_TRACES_SAMPLER_ARG": "0.000000001",
    "DD_TRACE_SAMPLING_RULES": '[{"sample_rate": 0.000000001}]',
}
# The whole agent switched off, by each agent's own variable.
OFF = {"OTEL_SDK_DISABLED": "true", "DD_TRACE_ENABLED": "false"}


@dataclass
class Variant:
    """One column of the table. `control` is bare once more: it shows the run's own noise."""

    name: str
    venv: Path
    endpoint: str = ""

    def command(self, *arguments: str) -> list[str]:
        """`arguments` under this variant's launcher."""
        launcher = LAUNCHER[self.name]
        return [str(self.venv / "bin" / name) if i == 0 else name for i, name in enumerate(launcher)] + [
            str(self.venv / "bin" / arguments[0]),
            *arguments[1:],
        ]

    def environment(self, more: dict[str, str] | None = None) -> dict[str, str]:
        """A clean environment: nothing of the caller's OTEL_*, DD_*, REMORA_* or PYTHON* gets in.

        Traces alone, OTLP over HTTP without compression: the peers' metrics, logs and self-telemetry are
        switched off in their favour. Every variant gets as many variables, bare too: requests reads the whole
        environment in each call, and one variable more costs it as much as the limit allows for. The other
        agents' go under names that nobody reads: ddtrace listens to OTEL_* as well, and would export OTLP.
        """
        kept = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
        kept |= {
            "PATH": f"{self.venv / 'bin'}:/usr/local/bin:/usr/bin:/bin",
            # A shell sets it, so that whatever a shell has started has it; remora's launcher is one.
            "PWD": os.getcwd(),
            "PYTHONHASHSEED": "0",
            "BENCH_VARIANT": self.name,
            "OTEL_SERVICE_NAME": "bench",
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint or "http://127.0.0.1:9",
            "DD_TRACE_AGENT_URL": self.endpoint or "http://127.0.0.1:9",
            "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
            "DD_REMOTE_CONFIGURATION_ENABLED": "false",
        }
        foreign = {"ddtrace": "OTEL_"}.get(self.name, "DD_")
        return {
            f"X{name[1:]}" if name.startswith(foreign) else name: value
            for name, value in (kept | (more or {})).items()
        }


def variant(name: str, libraries: str, python: Path) -> Variant | None:
    """`None` where it cannot be had on this machine."""
    folder = venvs.venv("bare" if name == "control" else name, libraries, python)
    return Variant(name, folder) if folder else None
