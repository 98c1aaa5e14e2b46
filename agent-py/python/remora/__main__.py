"""`remora doctor`, `remora tree`, `remora config`, `remora version`, `remora --help`.

The launcher runs this file by its path, so that the current folder cannot stand in the way of `remora`.
"""

from __future__ import annotations

import contextlib
import os
import sys
from io import TextIOWrapper
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

USAGE = """\
usage: remora run [--FLAG VALUE …] CMD…    run CMD with every Python below it traced
       remora doctor                       would traces flow from this Python, and if not, why
       remora tree FILE…                   traces of OTLP/JSON-lines files as waterfalls
       remora config                       every setting, its value and where it came from
       remora version                      version of the package
"""


def _package() -> None:
    """Makes `import remora` find the package around this file, wherever that lies."""
    import importlib.util

    folder = Path(__file__).resolve().parent
    # Started by path, this folder is first on sys.path: its modules would shadow others of the same name.
    sys.path[:] = [entry for entry in sys.path if not entry or Path(entry).resolve() != folder]
    if "remora" in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(
        "remora", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["remora"] = module
    # Without an extension for this Python there still are `remora tree` and `remora doctor`.
    with contextlib.suppress(ImportError):
        spec.loader.exec_module(module)


def _help() -> int:
    import remora._native as native
    from remora._flags import flag_of

    print(USAGE)
    print("flags of `remora run`, each with a value; the variable in brackets does the same:")
    for row in native.settings():
        flag = flag_of(row["name"])
        if flag is None:
            continue
        default = (
            ""
            if row["default"] in (None, "")
            else f" (default {row['default']}{row['unit'] and ' ' + row['unit']})"
        )
        print(f"  --{flag}  [{row['name']}]\n      {row['help']}{default}")
    return 0


def main(arguments: list[str]) -> int:
    """Runs one subcommand; its exit status, 2 for wrong usage."""
    if sys.stdout is None:  # closed by who started us
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  until the end
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        status = _run(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # `remora tree … | head`: the rest is not wanted.
        _drop(sys.stdout)
        return 0
    except OSError as error:
        _drop(sys.stdout)
        try:
            print(f"remora: {error.strerror or error}", file=sys.stderr, flush=True)
        except OSError:
            _drop(sys.stderr)
        return 1
    except ImportError as error:
        if (error.name or "").startswith("remora"):
            print(f"remora: no extension for {sys.executable}: {error}", file=sys.stderr)
            return 1
        raise
    except KeyboardInterrupt:
        return 130


def _drop(stream: TextIO) -> None:
    """What is left to be written goes nowhere, and the exit does not complain about it."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _run(arguments: list[str]) -> int:
    command = arguments[0] if arguments else "help"
    if command in ("help", "--help", "-h"):
        if arguments:
            return _help()
        print(USAGE, end="", file=sys.stderr)
        return 2
    if command in ("version", "--version", "-V"):
        import remora._native as native

        print(native.__version__)
        return 0
    if command == "tree":
        from remora import tree

        return tree.main(arguments[1:])
    if command == "config":
        from remora import settings

        return settings.main(arguments[1:])
    if command == "doctor":
        from remora import doctor

        return doctor.main(arguments[1:])
    if command == "run":
        print("remora: run belongs to the launcher script: remora run CMD…", file=sys.stderr)
        return 2
    print(f"remora: unknown command {command} (remora --help lists them)", file=sys.stderr)
    return 2


if __name__ == "__main__":
    if not __package__:
        _package()
    sys.exit(main(sys.argv[1:]))
