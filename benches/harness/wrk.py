"""Servers under wrk, in turns."""

import itertools
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from .measure import Shares
from .servers import Missing, end, free_port, ready
from .variants import Variant
from .venvs import BENCHES

SECONDS = 2
# Spans wait at most this long for their export (OTEL_BSP_SCHEDULE_DELAY's default, and some).
SETTLE = 6


def tree(pid: int) -> list[int]:
    """The process and everything below it."""
    pids = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            pids += tree(int(child))
    return pids


def cpu(pid: int) -> int:
    """Nanoseconds of CPU of all living threads of the process tree."""
    return sum(
        int(file.read_text().split()[0])
        for each in tree(pid)
        for file in Path(f"/proc/{each}/task").glob("*/schedstat")
    )


def load(port: int, seconds: float) -> int:
    """Requests done."""
    command = ["wrk", "-t1", "-c4", f"-d{seconds}s", f"http://127.0.0.1:{port}/items/7"]
    output = subprocess.check_output(command, text=True)
    if "Non-2xx" in output:
        raise RuntimeError(output)
    return int(re.search(r"(\d+) requests in", output)[1])


def interleave(
    variants: dict[str, Variant], server: tuple[str, ...], rounds: int, pairs: int
) -> tuple[dict[str, Shares], dict[str, list[float]]]:
    """Servers of all variants stand side by side, each is loaded in its turn.

    A turn's CPU is counted until the same server's next turn, so that what it exports later is in it.
    """
    if not shutil.which("wrk"):
        raise Missing("no wrk: `apt-get install wrk`")
    shares = {name: Shares() for name in variants}
    throughput: dict[str, list[float]] = {name: [] for name in variants}
    for round_ in range(rounds):
        running: dict[str, tuple[subprocess.Popen, int]] = {}
        try:
            for name, variant in variants.items():
                port = free_port()
                parts = [part.format(port=port, units=BENCHES / "units") for part in server]
                process = subprocess.Popen(
                    variant.command(*parts),
                    env=variant.environment(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                running[name] = process, port
            for process, port in running.values():
                ready(process, port)
                load(port, 1)
            time.sleep(SETTLE)
            marks: dict[str, list[tuple[int, int]]] = {name: [] for name in running}
            ended = dict.fromkeys(running, time.monotonic())
            # Another one begins each round; within a round the distance between one's turns stays the same.
            names = list(running)
            names = names[round_ % len(names) :] + names[: round_ % len(names)]
            for _ in range(pairs):
                for name in names:
                    process, port = running[name]
                    time.sleep(max(0, ended[name] + SETTLE - time.monotonic()))
                    before = cpu(process.pid)
                    marks[name].append((before, load(port, SECONDS)))
                    ended[name] = time.monotonic()
            time.sleep(SETTLE)
            for name, (process, _) in running.items():
                marks[name].append((cpu(process.pid), 0))
        finally:
            for process, _ in running.values():
                end(process)
        per = {
            name: [(after - before) / done for (before, done), (after, _) in itertools.pairwise(ends)]
            for name, ends in marks.items()
        }
        for name, costs in per.items():
            shares[name].rounds.append(median(a / b for a, b in zip(costs, per["bare"], strict=True)) - 1)
            shares[name].cost.append(median(costs))
            shares[name].pairs += len(costs)
            done = [mark[1] for mark in marks[name][:-1]]
            throughput[name].append(sum(done) / sum(mark[1] for mark in marks["bare"][:-1]))
        print(f"\r  {server[0]}: round {round_ + 1}/{rounds}", end="", file=sys.stderr, flush=True)
    print("\r\033[K", end="", file=sys.stderr, flush=True)
    return shares, throughput
