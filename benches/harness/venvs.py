"""One virtual environment per variant, in the cache folder, made on demand.

Each is keyed by the text of its requirements (and, for remora, by the wheel), so that a second run
installs nothing.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

BENCHES = Path(__file__).resolve().parent.parent
TREE = BENCHES.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "remora"

VARIANTS = ("bare", "remora", "otel", "ddtrace")
_REQUIREMENTS = {"otel": "otel-{libraries}.txt", "ddtrace": "ddtrace.txt"}
_PEER = {"otel": "opentelemetry-distro", "ddtrace": "ddtrace", "remora": "remora"}


def tag(python: Path) -> str:
    """`cp311` for a CPython 3.11 (`cp314t` for a free-threaded one)."""
    code = (
        "import sys; print('cp%d%d%s' % (*sys.version_info[:2],"
        " 't' if hasattr(sys, '_is_gil_enabled') and 't' in sys.abiflags else ''))"
    )
    return subprocess.check_output([python, "-c", code], text=True).strip()


def wheel(python: Path) -> Path | None:
    """The newest wheel of `dist/` for that interpreter, made by `make wheel` where none is there yet."""
    pattern = f"remora-*-{tag(python)}-*.whl"
    if not any((TREE / "dist").glob(pattern)) and (TREE / ".venv/bin/remora").exists():
        subprocess.run(["make", "-s", "wheel", f"PYTHON={python}"], cwd=TREE, check=False)
    return max((TREE / "dist").glob(pattern), key=lambda path: path.stat().st_mtime, default=None)


def venv(variant: str, libraries: str, python: Path) -> Path | None:
    """The environment's folder; `None` where the variant cannot be had (no wheel of ours yet).

    `libraries` is `core` or `more`: which rows the environment is for.
    """
    wants = [BENCHES / "requirements" / f"{libraries}.txt"]
    built = wheel(python) if variant == "remora" else None
    if variant == "remora" and built is None:
        return None
    if variant in _REQUIREMENTS:
        wants.append(BENCHES / "requirements" / _REQUIREMENTS[variant].format(libraries=libraries))

    key = hashlib.sha256(str(python).encode())
    for file in sorted((BENCHES / "requirements").glob("*.txt")):
        key.update(file.read_bytes())
    if built:
        key.update(built.read_bytes())
    suffix = "" if libraries == "core" else f"-{libraries}"
    folder = CACHE / f"bench-venv-{variant}{suffix}-{tag(python)}"
    stamp = folder / "requirements.sha256"
    if stamp.exists() and stamp.read_text() == key.hexdigest():
        return folder

    print(f"benches: installing {folder.name}", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    arguments = [argument for file in wants for argument in ("-r", str(file))]
    _install(folder, python, [*arguments, *([str(built)] if built else [])])
    stamp.write_text(key.hexdigest())
    return folder


def _install(folder: Path, python: Path, arguments: list[str]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = subprocess.run([python, "-m", "venv", folder], capture_output=True, text=True)
    if made.returncode == 0:
        command = [folder / "bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    else:  # Debian's own interpreters come without ensurepip
        uv = shutil.which("uv") or CACHE / "tools/bin/uv"
        if not Path(uv).exists():
            sys.exit(f"benches: {python} cannot make an environment and there is no uv:\n{made.stderr}")
        subprocess.run([uv, "venv", "-q", "--clear", "--python", python, folder], check=True)
        command = [uv, "pip", "install", "-q", "--python", folder / "bin/python"]
    subprocess.run([*command, *arguments], check=True)


def version(variant: str, folder: Path) -> str:
    """`opentelemetry-distro 0.66b1`, read from the environment itself."""
    name = _PEER[variant]
    code = f"from importlib.metadata import version; print({name!r}, version({name!r}))"
    return subprocess.check_output([folder / "bin/python", "-I", "-c", code], text=True).strip()
