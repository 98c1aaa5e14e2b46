"""`benches/train`: the profile that the shipped wheel is compiled with, from a run of the benches' own units.

A hook runs once a request, so its code is never in the first caches: what it costs is the lines of code that
it touches. Knowing which branches are taken, the compiler lays those out in a row, the others elsewhere.
"""

import argparse
import contextlib
import gzip
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from . import rows, servers, wrk
from .kinds import Loop, Served
from .variants import LEFT_OUT, UNSAMPLED, Variant
from .venvs import CACHE, TREE, venv

PROFILE = TREE / "agent-py" / "profile"
ITERATIONS = 400
# A branch goes straight on where most requests do, and most are seen.
WEIGHTS = [({}, 9), (UNSAMPLED, 2), (LEFT_OUT, 2)]
# What runs less often than every second iteration is not on a request's way; it would double the file.
OFTEN = ITERATIONS // 2


def tool() -> Path:
    """rustc's own `llvm-profdata`: the format is the compiler's."""
    sysroot = subprocess.check_output(["rustc", "--print", "sysroot"], text=True).strip()
    found = next(Path(sysroot).glob("lib/rustlib/*/bin/llvm-profdata"), None)
    if not found:
        subprocess.run(["rustup", "component", "add", "llvm-tools"], check=True)
        found = next(Path(sysroot).glob("lib/rustlib/*/bin/llvm-profdata"))
    return found


def build(python: Path, raw: Path | None) -> None:
    """The wheel in `dist/`: one that counts, or the one that is shipped."""
    more = {"RUSTFLAGS": f"-Cprofile-generate={raw}"} if raw else {}
    subprocess.run([TREE / ".ci/wheel", "wheel", python, "dist"], cwd=TREE, env=os.environ | more, check=True)


def loops(row: Loop, variant: Variant, raw: Path) -> None:
    with row.servers() as extra:
        for more, times in WEIGHTS:
            environment = extra | more | {"BENCH_HEADER": "0", "LLVM_PROFILE_FILE": f"{raw}/%m-%p.profraw"}
            process = subprocess.Popen(
                variant.command("python", str(TREE / f"benches/units/{row.unit}.py")),
                env=variant.environment(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            _, _ = process.communicate(f"{ITERATIONS}\n" * times, timeout=300)
            if process.returncode:
                raise RuntimeError(f"{row.unit} ended with {process.returncode}")


def served(row: Served, variant: Variant, raw: Path) -> None:
    port = servers.free_port()
    parts = [part.format(port=port, units=TREE / "benches/units") for part in row.server]
    process = subprocess.Popen(
        variant.command(*parts),
        env=variant.environment({"LLVM_PROFILE_FILE": f"{raw}/%m-%p.profraw"}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    servers.ready(process, port)
    wrk.load(port, 3)
    servers.end(process)


def blocks(text: str) -> Iterator[str]:
    """Of the text form: its head, and each function that runs often."""
    head, *functions = text.split("\n\n")
    lines = head.splitlines()
    yield "\n".join(line for line in lines if line.startswith((":", "# IR")))
    for function in functions:
        counts = re.search(r"# Counter Values:\n((?:\d+\n?)+)", function)
        if counts and max(map(int, counts[1].split())) >= OFTEN:
            yield function


def count(python: Path, raw: Path, sink: str) -> None:
    """Runs what the table runs, with a wheel for this interpreter that counts into `raw`."""
    build(python, raw)
    # What procedural macros counted while it was built.
    shutil.rmtree(raw, ignore_errors=True)
    raw.mkdir()
    found = {libraries: venv("remora", libraries, python) for libraries in ("core", "more")}
    done = set()
    for row in rows.CORE + rows.MORE:
        variant = Variant("remora", found[getattr(row, "libraries", "core")], sink)
        if isinstance(row, Loop) and row.unit not in done:
            done.add(row.unit)
            loops(row, variant, raw)
        elif isinstance(row, Served):
            served(row, variant, raw)
        else:
            continue
        print(f"benches/train: {python.name}: {row.key}", file=sys.stderr, flush=True)


def interpreters() -> list[str]:
    """One that counts references as before 3.12 and one as since, of those that `.ci/pythons` found."""
    found = CACHE / "pythons.txt"
    known = dict(line.split(maxsplit=1) for line in found.read_text().splitlines()) if found.exists() else {}
    return [known[version] for version in ("3.11", "3.13") if version in known] or [sys.executable]


def main() -> int:
    """0: the profile is written, and `dist/` holds wheels made with it."""
    parser = argparse.ArgumentParser(prog="benches/train", description=__doc__)
    parser.add_argument(
        "pythons", nargs="*", metavar="PYTHON",
        help="interpreters to run (3.11 and 3.13); reference counts differ before and from 3.12 on, and with"
        " them most of our functions: name one of each",
    )  # fmt: skip
    names = parser.parse_args().pythons or interpreters()
    pythons = [Path(shutil.which(name) or name).resolve() for name in names]
    llvm_profdata = tool()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="remora-train-")))
        sink = stack.enter_context(servers.sink())
        for at, python in enumerate(pythons):
            # Also after a failure: no wheel that counts is left in dist/.
            stack.callback(build, python, None)
            count(python, folder / f"raw{at}", sink)
        files = sorted(folder.glob("raw*/*.profraw"))
        text, merged = folder / "text", folder / "merged"
        subprocess.run([llvm_profdata, "merge", "--text", "-sparse", "-o", text, *files], check=True)
        text.write_text("\n\n".join(blocks(text.read_text())) + "\n")
        subprocess.run([llvm_profdata, "merge", "-o", merged, text], check=True)
        PROFILE.mkdir(exist_ok=True)
        (PROFILE / "wheel.profdata.gz").write_bytes(gzip.compress(merged.read_bytes(), 9, mtime=0))
        version = subprocess.check_output(["rustc", "-V"], text=True)
        (PROFILE / "rustc").write_text(version)
    return 0
