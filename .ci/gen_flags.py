#!/usr/bin/env python3
"""gen_flags [--check]: writes the flags of config/settings.toml into the launcher, or says they differ."""

import importlib.util
import pathlib
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
LAUNCHER = ROOT / "agent-py/data/scripts/remora"
BEGIN, END = "    # BEGIN flags", "    # END flags"


def variables(table: pathlib.Path) -> list[str]:
    """Every variable of the table, the forms per signal and per library written out."""
    names = []
    for row in tomllib.loads(table.read_text())["setting"]:
        libraries = row.get("libraries")
        if libraries:
            names += [row["name"].replace("{LIBRARY}", name.upper().replace("-", "_")) for name in libraries]
        else:
            names.append(row["name"])
        names += [
            row["name"].replace("OTLP_", f"OTLP_{signal.upper()}_", 1) for signal in row.get("signals", [])
        ]
    return names


def block() -> list[str]:
    spec = importlib.util.spec_from_file_location("_flags", ROOT / "agent-py/python/remora/_flags.py")
    flags = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(flags)
    table = flags.flag_table(variables(ROOT / "config/settings.toml"))
    return [
        "    case $flag in",
        *(f"    {f}) name={v} ;;" for f, v in table.items()),
        "    *) name= ;;",
        "    esac",
    ]


def main() -> None:
    old = LAUNCHER.read_text().splitlines()
    begin = next(number for number, line in enumerate(old) if line.startswith(BEGIN))
    end = next(number for number, line in enumerate(old) if line.startswith(END))
    new = old[: begin + 1] + block() + old[end:]
    if new == old:
        return
    if "--check" in sys.argv:
        sys.exit("the launcher's flags are not those of config/settings.toml: run .ci/gen_flags.py")
    LAUNCHER.write_text("\n".join(new) + "\n")


if __name__ == "__main__":
    main()
