"""The table as text and as JSON."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from . import venvs
from .kinds import Line, Run
from .venvs import BENCHES, TREE

HEADS = {
    "bare": "bare",
    "control": "bare again",
    "remora": "remora",
    "otel": "OpenTelemetry",
    "ddtrace": "ddtrace",
}


def machine(run: Run) -> list[str]:
    """Which Python, which CPU, which peers: what a number is worth nothing without."""
    code = (
        "import sys, sysconfig; print(sys.version.replace(chr(10), ' '));"
        " print(sysconfig.get_config_var('CONFIG_ARGS'))"
    )
    version, built = subprocess.check_output([run.python, "-c", code], text=True).strip().splitlines()
    cpu = next(
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    pgo = "with PGO" if "enable-optimizations" in built else "without PGO"
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=TREE, capture_output=True, text=True
    ).stdout.strip()
    lines = [
        f"Python {version} ({pgo})",
        f"{cpu}, {os.cpu_count()} CPUs, {platform.system()} {platform.release()}",
        f"{time.strftime('%F %H:%M UTC', time.gmtime())}, tree {commit}, load {os.getloadavg()[0]:.2f}",
    ]
    peers = []
    for name in run.names:
        if name not in ("bare", "control", *run.missing):
            peers.append(venvs.version(name, venvs.venv(name, "core", run.python)))
    if peers:
        lines.append(", ".join(peers))
    if run.missing:
        lines.append(f"not measured: {', '.join(sorted(run.missing))}")
    return lines


def limit(form: str, value: float | None) -> str:
    if value is None:
        return ""
    return form.format(round(100 * value, 2) if form.endswith("%") else value)


def table(lines: Iterable[Line], names: tuple[str, ...]) -> str:
    heads = ["", *(HEADS[name] for name in names), "must", "aim", ""]
    rows = [heads, ["---"] * len(heads)]
    for line in lines:
        limits = [limit(line.limit, value) for value in (line.must, line.aim)]
        rows.append([line.title, *(line.cells.get(name, "–") for name in names), *limits, line.verdict()])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def write(run: Run, lines: list[Line], skipped: dict[str, str]) -> str:
    """Writes `results/latest.md` and `.json`; returns the text."""
    facts = machine(run)
    text = "\n".join(f"- {fact}" for fact in facts) + "\n\n" + table(lines, run.names) + "\n"
    notes = [f"- {line.key}: {note}" for line in lines for note in line.notes]
    notes += [f"- {key}: skipped, {why}" for key, why in skipped.items()]
    if notes:
        text += "\n" + "\n".join(notes) + "\n"
    text += "\nShares are medians of paired ratios [quartiles of that median by resampling the rounds].\n"
    results = BENCHES / "results"
    results.mkdir(exist_ok=True)
    (results / "latest.md").write_text(text)
    data = {
        "machine": facts,
        "rows": [
            {
                "key": line.key,
                "title": line.title,
                "value": line.value,
                "must": line.must,
                "aim": line.aim,
                "verdict": line.verdict(),
                "cells": line.cells,
                "notes": line.notes,
                "data": line.data,
            }
            for line in lines
        ],
        "skipped": skipped,
    }
    (results / "latest.json").write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    return text
