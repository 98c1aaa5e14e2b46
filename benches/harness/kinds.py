"""The kinds of row: how each is measured. Which rows there are, with their limits, is in `rows.py`."""

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from . import cpus, instructions, servers, variants, wrk
from .measure import Shares, Unit, interleave
from .servers import Missing
from .variants import Variant
from .venvs import CACHE, TREE

PEERS = ("otel", "ddtrace")


@dataclass
class Line:
    """One line of the table. `value` is remora's, in the unit of `must` and `aim`."""

    title: str
    cells: dict[str, str]
    value: float | None = None
    must: float | None = None
    aim: float | None = None
    limit: str = "{:g}"
    at_least: bool = False
    notes: list[str] = field(default_factory=list)
    data: dict = field(default_factory=dict)
    invalid: bool = False
    key: str = ""
    """The row's; set by the driver."""

    def verdict(self) -> str:
        if self.value is None or self.must is None:
            return ""
        if self.invalid:
            return "✗"
        sign = -1 if self.at_least else 1
        if sign * self.value > sign * self.must:
            return "✗"
        if self.aim is not None and sign * self.value > sign * self.aim:
            return "✓"
        return "✓ aim" if self.aim is not None else "✓"


@dataclass
class Run:
    """What one call of `benches/run` measures with."""

    python: Path
    names: tuple[str, ...]
    rounds: int | None
    quick: bool
    sinks: dict[str, str]
    missing: set[str] = field(default_factory=set)

    def variants(self, libraries: str) -> dict[str, Variant]:
        found = {}
        for name in self.names:
            if name in self.missing:
                continue
            try:
                variant = variants.variant(name, libraries, self.python)
            except subprocess.CalledProcessError as error:
                # A peer that has no release for this Python costs its column, not the table.
                print(f"benches: no {name}: {error}", file=sys.stderr, flush=True)
                variant = None
            if variant is None:
                self.missing.add(name)
                continue
            variant.endpoint = self.sinks.get(name, "")
            found[name] = variant
        return found

    def count(self, normal: int, quick: int) -> int:
        return quick if self.quick else self.rounds or normal


def percent(share: float, signed: bool = True) -> str:
    digits = 0 if abs(share) >= 1 else 1 if abs(share) >= 0.1 else 2
    return f"{100 * share:{'+' if signed else ''},.{digits}f} %"


def share_cell(shares: Shares, base: Shares | None = None) -> str:
    text = percent(shares.share)
    if len(shares.rounds) > 1:
        text += " [{} … {}]".format(*(percent(edge)[:-2] for edge in shares.spread))
    if base is not None:
        text += f", {(median(shares.cost) - median(base.cost)) / 1000:+,.2f} µs"
    return text


@dataclass
class Loop:
    """A unit that runs in turns with bare; process CPU, export included."""

    key: str
    title: str
    unit: str
    must: float | None = None
    aim: float | None = None
    libraries: str = "core"
    environment: dict[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    header: bool = False
    """Also against a bare that sends one constant header."""
    calls: bool = False
    """The unit measures its own reference; remora's cost is said in calls of it, by the calling thread."""
    only: tuple[str, ...] = ()
    traces: bool = True
    counted: bool = False
    """Instructions too: for limits near the noise."""
    rounds: int = 12
    pairs: int = 20

    def measure(self, run: Run) -> list[Line]:
        found = run.variants(self.libraries)
        if self.only:
            found = {name: variant for name, variant in found.items() if name in self.only}
        if "remora" not in found and set(self.only) == {"remora"}:
            raise Missing("no remora wheel yet (`make build`)")
        with self.servers() as extra:
            environment = self.environment | extra | ({"BENCH_HEADER": "0"} if self.header else {})
            units = {name: (variant, environment) for name, variant in found.items()}
            if self.header and "bare" in found:
                units["bare + header"] = (found["bare"], environment | {"BENCH_HEADER": "1"})
            before = {name: servers.count(url)["exports"] for name, url in run.sinks.items()}
            shares = interleave(units, self.unit, run.count(self.rounds, 2), 6 if run.quick else self.pairs)
            counted = self.instructions(run, units)
            after = {name: servers.count(url)["exports"] for name, url in run.sinks.items()}
        line = self.calls_line(shares) if self.calls else self.share_line(shares)
        line.data = {name: value.as_json() for name, value in shares.items()}
        line.notes += counted
        for name in shares:
            # ddtrace hands unsampled traces to its agent all the same.
            if name == "ddtrace" and not self.traces:
                continue
            if name in before and (after[name] > before[name]) != self.traces:
                line.notes.append(f"{name}: {'nothing was' if self.traces else 'something was'} exported")
                # An agent that does not do its work is fast: its number must not count.
                line.invalid |= name == "remora"
        return [line]

    def share_line(self, shares: dict[str, Shares]) -> Line:
        base = shares["bare"]
        cells = {name: share_cell(value, base) for name, value in shares.items()}
        cells["bare"] = f"{median(base.cost) / 1000:,.2f} µs"
        line = Line(self.title, cells, None, self.must, self.aim, "+{:.3g} %")
        if "remora" in shares:
            line.value = shares["remora"].share
            line.notes.append(f"remora, calling thread alone: {percent(median(shares['remora'].thread))}")
        if "bare + header" in shares:
            line.notes.append(f"bare plus one constant header: {share_cell(shares['bare + header'])}")
            if "remora" in shares:
                rest = (1 + shares["remora"].share) / (1 + shares["bare + header"].share) - 1
                line.notes.append(f"remora against bare plus that header: {percent(rest)}")
        return line

    def calls_line(self, shares: dict[str, Shares]) -> Line:
        bare = median(shares["bare"].cost)
        cells = {
            name: f"{median(value.thread):,.1f} calls, {median(value.thread) * bare:+,.0f} ns"
            for name, value in shares.items()
        }
        cells["bare"] = f"{bare:.0f} ns"
        value = median(shares["remora"].thread) if "remora" in shares else None
        return Line(self.title, cells, value, self.must, self.aim, "{:g} calls")

    def instructions(self, run: Run, units: dict[str, tuple[Variant, dict]]) -> list[str]:
        if not self.counted or run.quick or "remora" not in units or not instructions.available():
            return []
        counts = {
            name: instructions.per_iteration(variant, self.unit, environment)
            for name, (variant, environment) in units.items()
            if name in ("bare", "remora", "bare + header")
        }
        bare = counts.pop("bare")
        shares = ", ".join(
            f"{name} {percent(median(a / b for a, b in zip(count, bare, strict=True)) - 1)}"
            for name, count in counts.items()
        )
        return [f"instructions in user space: bare {median(bare):,.0f}, {shares}"]

    @contextlib.contextmanager
    def servers(self) -> Iterator[dict[str, str]]:
        with contextlib.ExitStack() as stack:
            extra = {}
            with cpus.for_servers():
                if "upstream" in self.needs:
                    extra["BENCH_UPSTREAM"] = stack.enter_context(servers.sink())
                if "redis" in self.needs:
                    extra["BENCH_REDIS"] = str(stack.enter_context(servers.redis()))
                if "postgres" in self.needs:
                    extra["BENCH_POSTGRES"] = stack.enter_context(servers.postgres())
            yield extra


INSIDE = (
    "import sys; n = len(sys.modules); import os; "
    "print('@', n, next(line.split()[1] for line in open('/proc/self/status') if 'VmHWM' in line))"
)


@dataclass
class Startup:
    """`python -c pass`: CPU of the whole process by `wait4`; modules and peak memory as seen from inside."""

    key: str
    title: str
    rounds: int = 15

    def measure(self, run: Run) -> list[Line]:
        found = run.variants("core")
        shares = {name: Shares() for name in found}
        for variant in found.values():  # byte code and page cache
            self.cpu(variant)
        for round_ in range(run.count(self.rounds, 4)):
            taken: dict[str, list[float]] = {name: [] for name in found}
            for turn in range(8):
                names = [name for name in found if turn == 0 or name not in PEERS]
                for name in reversed(names) if (turn + round_) % 2 else names:
                    taken[name].append(self.cpu(found[name]))
            for name, values in taken.items():
                shares[name].rounds.append(median(values) / median(taken["bare"]) - 1)
                shares[name].cost.append(median(values) * 1e9)
                shares[name].pairs += len(values)
        modules, memory = {}, {}
        for name, variant in found.items():
            modules[name], memory[name] = self.inside(variant)

        base = shares["bare"]
        cells = {
            name: f"{percent(value.share)}, {(median(value.cost) - median(base.cost)) / 1e6:+,.1f} ms"
            for name, value in shares.items()
        }
        cells["bare"] = f"{median(base.cost) / 1e6:.1f} ms"
        share = shares["remora"].share if "remora" in shares else None
        cpu = Line(f"{self.title}: CPU added", cells, share, 0.30, 0.20, "+{:.3g} %")
        cpu.data = {name: value.as_json() for name, value in shares.items()}
        return [
            cpu,
            self.difference(f"{self.title}: modules added", modules, "{:+,.0f}", 6, None, "{:g}"),
            self.difference(f"{self.title}: memory added", memory, "{:+,.1f} MiB", 4, None, "{:g} MiB"),
        ]

    @staticmethod
    def difference(title: str, values: dict[str, float], cell: str, must, aim, limit: str) -> Line:
        more = {name: value - values["bare"] for name, value in values.items()}
        cells = {name: cell.format(value) for name, value in more.items()}
        cells["bare"] = cell.format(values["bare"]).lstrip("+")
        line = Line(title, cells, more.get("remora"), must, aim, limit)
        line.data = values
        return line

    @staticmethod
    def cpu(variant: Variant) -> float:
        command = variant.command("python", "-c", "pass")
        pid = os.posix_spawn(command[0], command, variant.environment())
        _, status, usage = os.wait4(pid, 0)
        if status:
            raise RuntimeError(f"{variant.name}: status {status}")
        return usage.ru_utime + usage.ru_stime

    @staticmethod
    def inside(variant: Variant) -> tuple[float, float]:
        """Medians of 5. VmHWM, not ru_maxrss: that one keeps the peak of what ran before exec."""
        modules, memory = [], []
        for _ in range(5):
            output = subprocess.check_output(
                variant.command("python", "-c", INSIDE), env=variant.environment(), text=True
            )
            _, count, peak = output.split()[-3:]
            modules.append(int(count))
            memory.append(int(peak) / 1024)
        return median(modules), median(memory)


@dataclass
class Served:
    """A real server under wrk: CPU of its process tree for each request done."""

    key: str
    title: str
    server: tuple[str, ...]
    must: float
    aim: float
    libraries: str = "core"
    rounds: int = 5
    pairs: int = 3

    def measure(self, run: Run) -> list[Line]:
        shares, throughput = wrk.interleave(
            run.variants(self.libraries), self.server, run.count(self.rounds, 1), self.pairs
        )
        base = shares["bare"]
        cells = {name: share_cell(value, base) for name, value in shares.items()}
        cells["bare"] = f"{median(base.cost) / 1000:,.0f} µs"
        line = Line(
            self.title,
            cells,
            shares["remora"].share if "remora" in shares else None,
            self.must,
            self.aim,
            "+{:.3g} %",
        )
        rates = ", ".join(
            f"{name} {median(value):.2f}" for name, value in throughput.items() if name != "bare"
        )
        line.notes = [f"throughput in shares of bare: {rates}; {base.pairs} pairs"]
        line.data = {name: value.as_json() for name, value in shares.items()} | {"throughput": throughput}
        return [line]


@dataclass
class Burst:
    """Many no-op spans and a normal exit: how many are counted behind a real Collector."""

    key: str
    title: str
    spans: int = 300_000

    def measure(self, run: Run) -> list[Line]:
        binary = servers.collector_binary()
        cells, value, data = {"bare": "–"}, None, {}
        for name, variant in run.variants("core").items():
            if name in ("bare", "control"):
                continue
            arrived, rates = [], []
            for _ in range(1 if run.quick else 3):
                with contextlib.ExitStack() as stack:
                    to = stack.enter_context(servers.sink())
                    # ddtrace speaks its agent's protocol: the sink itself stands in for the agent.
                    endpoint = to if name == "ddtrace" else stack.enter_context(servers.collector(to))
                    variant.endpoint = endpoint
                    took, _ = exit_after(variant, self.spans, 300)
                    rates.append(self.spans / took)
                    arrived.append(servers.settled(to, self.spans) / self.spans)
            data[name] = {"arrived": arrived, "spans_per_second": rates}
            cells[name] = f"{percent(min(arrived), False)} at {median(rates) / 1000:,.0f}k/s"
            if name == "remora":
                value = min(arrived)
        line = Line(self.title, cells, value, 1.0, None, "{:.3g} %", at_least=True, data=data)
        line.notes.append(f"worst of {1 if run.quick else 3}; Collector: {binary.parent.name}")
        return [line]


def exit_after(variant: Variant, spans: int, timeout: float) -> tuple[float, float]:
    """Seconds that the loop took, and seconds from its end to the end of the process."""
    process = subprocess.run(
        variant.command("python", str(TREE / "benches/units/burst.py")),
        env=variant.environment({"BENCH_SPANS": str(spans)}),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=timeout,
        check=True,
    )
    end = time.monotonic()
    line = next(line for line in process.stdout.splitlines() if line.startswith("@"))
    took, left = (float(value) for value in line[1:].split())
    return took, end - left


@dataclass
class Exit:
    """A hundred spans and a normal exit while nobody takes them."""

    key: str
    title: str

    def measure(self, run: Run) -> list[Line]:
        lines = []
        with servers.sink(silent=True) as silent:
            refused = f"http://127.0.0.1:{servers.free_port()}"
            for kind, endpoint, must in (("refused", refused, 0.3), ("silent", silent, 2.0)):
                cells, data, own = {}, {}, 0.0
                for name, variant in run.variants("core").items():
                    if name == "control":
                        continue
                    variant.endpoint = endpoint
                    times = 1 if run.quick or name in PEERS else 5
                    rounds = [exit_after(variant, 100, 300)[1] for _ in range(times)]
                    data[name] = rounds
                    if name == "bare":
                        own = median(rounds)
                    cells[name] = f"{max(rounds):.2f} s"
                # The interpreter's own end is not ours; the limit is stated in tenths.
                value = round(max(data["remora"]) - own, 1) if "remora" in data else None
                lines.append(Line(f"{self.title}: {kind}", cells, value, must, None, "{:g} s", data=data))
        return lines


@dataclass
class Encode:
    """The exporter's own bench, off the GIL: `encode_cost` prints `encode_gzip1_ns_per_span=…`."""

    key: str
    title: str

    def measure(self, run: Run) -> list[Line]:
        if not (TREE / "exporters/examples/encode_cost.rs").exists():
            raise Missing("no exporters/examples/encode_cost.rs")
        command = ["cargo", "run", "-q", "--release", "-p", "exporters", "--example", "encode_cost"]
        environment = {"CARGO_TARGET_DIR": str(CACHE / "target-bench")} | os.environ
        rounds = []
        for _ in range(1 if run.quick else 5):
            output = subprocess.check_output(command, cwd=TREE, env=environment, text=True)
            found = re.findall(r"encode_gzip1_ns_per_span=([\d.]+)", output)
            if not found:
                raise RuntimeError(f"encode_cost printed no encode_gzip1_ns_per_span: {output!r}")
            rounds.append(float(found[-1]) / 1000)
        value = median(rounds)
        cells = {"bare": "–", "remora": f"{value:.2f} µs a span"}
        return [Line(self.title, cells, value, 1.3, 1.0, "{:g} µs", data={"rounds": rounds})]


__all__ = ["Burst", "Encode", "Exit", "Line", "Loop", "Missing", "Run", "Served", "Startup", "Unit"]
