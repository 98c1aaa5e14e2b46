"""Interleaved pairs: bare and the others take turns of a fraction of a second."""

import math
import os
import random
import subprocess
import sys
from dataclasses import dataclass, field
from statistics import median, quantiles

from . import cpus
from .variants import Variant
from .venvs import BENCHES


@dataclass
class Shares:
    """What a variant costs more than bare, as paired ratios less 1; one value for each round of processes."""

    rounds: list[float] = field(default_factory=list)
    thread: list[float] = field(default_factory=list)
    cost: list[float] = field(default_factory=list)
    pairs: int = 0

    @property
    def share(self) -> float:
        return median(self.rounds) if self.rounds else math.nan

    @property
    def spread(self) -> tuple[float, float]:
        """The quartiles of the median itself, by resampling the rounds (2,000 times, seeded)."""
        if len(self.rounds) < 2:
            return (self.share, self.share)
        draw = random.Random(1)
        again = [median(draw.choices(self.rounds, k=len(self.rounds))) for _ in range(2000)]
        low, _, high = quantiles(again, n=4)
        return low, high

    def as_json(self) -> dict:
        low, high = self.spread
        return {
            "share": self.share,
            "low": low,
            "high": high,
            "thread_share": median(self.thread) if self.thread else None,
            "cost_us": median(self.cost) / 1000 if self.cost else None,
            "rounds": self.rounds,
            "pairs": self.pairs,
        }


class Unit:
    """A child process that runs `units/<name>.py` and answers how much CPU N iterations took."""

    def __init__(self, variant: Variant, name: str, environment: dict[str, str]):
        command = variant.command("python", str(BENCHES / "units" / f"{name}.py"))
        self.process = subprocess.Popen(
            cpus.for_units(command),
            env=variant.environment(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if "BENCH_STDERR" in os.environ else subprocess.DEVNULL,
            text=True,
            bufsize=1,
        )
        self.answer()
        self.n = self.calibrate()

    def answer(self) -> list[int]:
        # Other lines are a peer's chatter.
        for line in self.process.stdout:
            if line.startswith("@"):
                return [int(value) for value in line[1:].split()]
        raise RuntimeError(f"the unit ended with {self.process.wait()} (BENCH_STDERR=1 shows why)")

    def measure(self, n: int) -> list[int]:
        self.process.stdin.write(f"{n}\n")
        return self.answer()

    def calibrate(self) -> int:
        """Also the warm-up: iterations that take about the segment's length of wall time."""
        n, segment = 8, Unit.SEGMENT * 1e9
        while True:
            wall = max(self.measure(n)[1], 1)
            if wall > segment / 4:
                return max(1, round(n * segment / wall))
            n = min(n * 8, max(n + 1, round(n * segment / wall)))

    def others(self) -> int:
        """Exports what is pending; the CPU of that and of all threads but the calling one so far."""
        self.process.stdin.write("flush\n")
        return self.answer()[0]

    def end(self) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    SEGMENT = 0.15
    """Seconds of one turn."""


def interleave(
    units: dict[str, tuple[Variant, dict]], name: str, rounds: int, pairs: int
) -> dict[str, Shares]:
    """Bare and every other variant in turns, `rounds` times with fresh processes.

    All live at once; the one whose turn it is runs, the others wait in a read. Ratios are of neighbours in
    time. Peers get every fourth turn: what they cost more is far above the noise. The order is
    drawn anew for each pair, so that neither drift nor what ran before favours one.

    Spans are exported when the agent thinks fit. What its threads take for that in a round, with a flush at
    the end, is shared out among the round's iterations: a flush after each turn would be an export every
    fraction of a second, where agents wait for seconds.
    """
    shares = {key: Shares() for key in units}
    order = random.Random(1)
    for round_ in range(rounds):
        alive: dict[str, Unit] = {}
        try:
            for key in order.sample(list(units), len(units)):
                variant, environment = units[key]
                # One seed for all of a round, and objects elsewhere in each process: luck is not cost.
                luck = {"PYTHONHASHSEED": str(round_), "BENCH_SCATTER": f"{order.randrange(10**9):09}"}
                alive[key] = Unit(variant, name, environment | luck)
            before = {key: unit.others() for key, unit in alive.items()}
            turns: list[dict[str, list[float]]] = []
            for pair in range(pairs):
                turn = [key for key in units if pair % 4 == 0 or key.split()[0] not in ("otel", "ddtrace")]
                per = {}
                for key in order.sample(turn, len(turn)):
                    per[key] = [value / alive[key].n for value in alive[key].measure(alive[key].n)]
                turns.append(per)
            others = {}
            for key, unit in alive.items():
                count = sum(key in per for per in turns)
                others[key] = (unit.others() - before[key]) / (unit.n * count)
            for key in alive:
                own = [per[key] for per in turns if key in per]
                # A unit with a reference of its own (`@traced`) is its own pair.
                bare = [
                    per[key][2:3] * 2 or [per["bare"][0] + others["bare"], per["bare"][0]]
                    for per in turns
                    if key in per
                ]
                process = [(v[0] + others[key]) / b[0] - 1 for v, b in zip(own, bare, strict=True)]
                thread = [v[0] / b[-1] - 1 for v, b in zip(own, bare, strict=True)]
                shares[key].rounds.append(median(process))
                shares[key].thread.append(median(thread))
                shares[key].cost.append(median(v[0] + others[key] for v in own))
                shares[key].pairs += len(own)
        finally:
            for unit in alive.values():
                unit.end()
        print(f"\r  {name}: round {round_ + 1}/{rounds}", end="", file=sys.stderr, flush=True)
    print("\r\033[K", end="", file=sys.stderr, flush=True)
    return shares
