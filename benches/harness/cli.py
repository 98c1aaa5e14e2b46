"""`benches/run`: reads the arguments, measures the rows, prints the table."""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from . import cpus, report, rows, servers
from .kinds import Line, Missing, Run
from .measure import Unit
from .variants import LAUNCHER


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benches/run", description=__doc__)
    every = [row.key for row in rows.CORE + rows.MORE]
    parser.add_argument("--only", metavar="ROW,…", help=f"these rows alone: {', '.join(every)}")
    parser.add_argument("--set", choices=("core", "more", "all"), default="core", help="which rows (core)")
    parser.add_argument("--rounds", type=int, help="rounds of fresh processes in each row")
    parser.add_argument("--quick", action="store_true", help="few rounds: a look, not a result")
    parser.add_argument("--variants", default=",".join(LAUNCHER), metavar="NAME,…", help="of %(default)s")
    default = os.environ.get("PYTHON") or sys.executable
    parser.add_argument(
        "--python", default=default, metavar="PATH", help="interpreter to measure (%(default)s)"
    )
    parser.add_argument(
        "--no-pin", action="store_true", help="do not keep units and servers on CPUs of their own"
    )
    parser.add_argument("--segment", type=float, default=Unit.SEGMENT, help="seconds of a turn (%(default)s)")
    return parser.parse_args()


def main() -> int:
    """0: every limit that was measured is met; 1: one is not, or a row failed."""
    given = arguments()
    Unit.SEGMENT = given.segment
    cpus.pinned = cpus.pinned and not given.no_pin
    path = shutil.which(given.python)
    if not path:
        sys.exit(f"benches/run: no Python at {given.python}")
    base = subprocess.check_output([path, "-c", "import sys; print(sys._base_executable)"], text=True).strip()
    names = tuple(given.variants.split(","))
    unknown = set(names) - set(LAUNCHER)
    if unknown or "bare" not in names:
        sys.exit(f"benches/run: --variants wants bare and some of {', '.join(LAUNCHER)}")
    chosen = {"core": rows.CORE, "more": rows.MORE, "all": rows.CORE + rows.MORE}[given.set]
    if given.only:
        keys = given.only.split(",")
        chosen = tuple(row for row in rows.CORE + rows.MORE if row.key in keys)
        if wrong := set(keys) - {row.key for row in chosen}:
            sys.exit(f"benches/run: no such row: {', '.join(sorted(wrong))}")

    lines: list[Line] = []
    skipped: dict[str, str] = {}
    failed = False
    with contextlib.ExitStack() as stack:
        traced = [name for name in names if name not in ("bare", "control")]
        with cpus.for_servers():
            sinks = {name: stack.enter_context(servers.sink()) for name in traced}
        run = Run(Path(base).resolve(), names, given.rounds, given.quick, sinks)
        for row in chosen:
            begin = time.monotonic()
            try:
                measured = row.measure(run)
            except Missing as missing:
                skipped[row.key] = str(missing)
                print(f"benches: {row.key} skipped: {missing}", file=sys.stderr, flush=True)
                continue
            except Exception as error:
                # One row's fault must not cost the others' hour.
                skipped[row.key] = f"failed: {error!r}"
                failed = True
                print(f"benches: {row.key} failed: {error!r}", file=sys.stderr, flush=True)
                continue
            for line in measured:
                line.key = row.key
            lines += measured
            took = time.monotonic() - begin
            print(f"benches: {row.key} ({took:.0f} s)", file=sys.stderr, flush=True)
            print(report.table(measured, names), file=sys.stderr, flush=True)
        text = report.write(run, lines, skipped)
    print(text)
    return 1 if failed or any(line.verdict() == "✗" for line in lines) else 0
