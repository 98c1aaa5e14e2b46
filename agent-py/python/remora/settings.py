"""`remora config`: every setting, its value and where it came from. Secrets are never shown."""

from __future__ import annotations

import re
import sys

from remora import _terminal as terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from remora._native import _Setting

# A password may hold anything but a blank: the last `@` ends it.
_CREDENTIALS = re.compile(r"(?<=://)\S*@")


def masked(text: str) -> str:
    """The text on one line, without the credentials of a URL."""
    return _CREDENTIALS.sub("***@", terminal.clean(text))


def shown(row: _Setting) -> str:
    """A setting's value for a person: masked where it is secret, with its unit, `-` where there is none."""
    value = row["value"]
    if value in (None, ""):
        return "-"
    if row["secret"]:
        return "***"
    text = masked(str(value))
    return f"{text} {row['unit']}" if row["unit"] else text


def main(arguments: list[str]) -> int:
    """0, or 1 where a value could not be used; 2: wrong usage."""
    import remora._native as native

    if arguments:
        print("usage: remora config", file=sys.stdout if arguments[0] in ("-h", "--help") else sys.stderr)
        return 0 if arguments[0] in ("-h", "--help") else 2
    rows = native.settings()
    colour = terminal.coloured(sys.stdout)
    names = max((len(row["name"]) for row in rows), default=0)
    values = min(max((terminal.width(shown(row)) for row in rows), default=0), 48)
    for row in rows:
        line = f"{row['name']:{names}}  {terminal.pad(shown(row), values)}  {row['origin']}"
        code = {"default": terminal.DIM, "fallback": terminal.RED}.get(row["origin"], "")
        print(f"{code}{line}{terminal.RESET}" if colour and code else line)
    return int(any(row["origin"] == "fallback" for row in rows))
