"""What a line on a terminal needs: width of text, colour, durations a person can read."""

from __future__ import annotations

import os
import sys
import unicodedata
from typing import TextIO

RESET = "\x1b[0m"
BOLD = "\x1b[1m"
DIM = "\x1b[2m"
RED = "\x1b[31m"
GREEN = "\x1b[32m"
YELLOW = "\x1b[33m"
# Told apart on dark and light backgrounds; red means an error.
HUES = tuple(f"\x1b[{code}m" for code in (36, 35, 34, 33, 32, 96, 95, 94))


def clean(text: str) -> str:
    """Text from a file, on one line and without control characters: it must not steer the terminal."""
    if text.isascii() and text.isprintable():
        return text
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def width(text: str) -> int:
    """Columns that the text takes: two for wide characters, none for combining ones."""
    if text.isascii():
        return len(text)
    columns = 0
    for character in text:
        if unicodedata.combining(character) or character in "\u200b\u200c\u200d\ufe0f":
            continue
        columns += 2 if unicodedata.east_asian_width(character) in "WF" else 1
    return columns


def fit(text: str, columns: int, ellipsis: str = "…") -> str:
    """The text in at most so many columns, cut with an ellipsis."""
    if width(text) <= columns:
        return text
    kept, used, room = [], 0, max(columns - width(ellipsis), 0)
    for character in text:
        used += width(character)
        if used > room:
            break
        kept.append(character)
    return "".join(kept) + (ellipsis if columns > 0 else "")


def pad(text: str, columns: int) -> str:
    """The text, filled with spaces up to so many columns."""
    return text + " " * (columns - width(text))


def duration(nanoseconds: int) -> str:
    """Three digits and a unit, at most eight columns: `830 µs`, `48.3 ms`, `1.24 s`, `2:03 min`."""
    if nanoseconds < 0:
        return "?"
    for limit, unit, scale in (
        (1_000_000, "µs", 1e3),
        (1_000_000_000, "ms", 1e6),
        (60_000_000_000, "s", 1e9),
    ):
        # What would be rounded up to 1000 belongs to the next unit.
        if nanoseconds < limit * 0.9995:
            value = nanoseconds / scale
            digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
            return f"{value:.{digits}f} {unit}"
    seconds = round(nanoseconds / 1e9)
    if seconds < 3600:
        return f"{seconds // 60}:{seconds % 60:02} min"
    return f"{seconds // 3600}:{seconds % 3600 // 60:02} h"


def coloured(stream: TextIO) -> bool:
    """Colour only where a person looks (and has not said no: no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def unicode_safe(stream: TextIO, needed: str) -> bool:
    """Whether the stream's encoding has these signs."""
    try:
        needed.encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def complain(text: str) -> None:
    """One line on stderr."""
    print(f"remora: {clean(text)}", file=sys.stderr)
