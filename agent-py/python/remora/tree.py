"""`remora tree FILE…`: merges OTLP/JSON-lines files and prints each trace as one waterfall."""

from __future__ import annotations

import errno
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TextIO

from remora import _terminal as terminal
from remora._otlp import Span, Unreadable, spans_of

USAGE = "usage: remora tree FILE…   (OTLP/JSON lines, as REMORA_OTLP_FILE gets them; - is standard input)"


def read(files: list[str]) -> tuple[dict[str, dict[str, Span]], bool]:
    """Traces by id, spans by id in each, and whether every file could be read.

    What cannot be read is said in one line per file. A span that is met twice (a retry) counts once.
    """
    traces: dict[str, dict[str, Span]] = {}
    whole = True
    for name in files:
        skipped, first = 0, ""
        try:
            if name == "-" and sys.stdin is None:
                raise OSError(errno.EBADF, "standard input is closed")
            # Standard input stays open: it may be named twice.
            file: str | int = sys.stdin.fileno() if name == "-" else name
            with open(file, encoding="utf-8", errors="replace", closefd=name != "-") as source:
                for number, line in enumerate(source, 1):
                    if line.isspace():
                        continue
                    try:
                        for span in spans_of(line):
                            traces.setdefault(span.trace, {}).setdefault(span.id, span)
                    except Unreadable as error:
                        skipped += 1
                        first = first or f"line {number}: {error}"
        except OSError as error:
            terminal.complain(f"{name}: {error.strerror}")
            whole = False
        if skipped:
            lines = "1 line" if skipped == 1 else f"{skipped} lines, the first"
            terminal.complain(f"{name}: skipped {lines} ({first})")
    return traces, whole


def link(spans: dict[str, Span]) -> list[Span]:
    """Gives each span its children, by start; returns the roots: no parent, or one that is not here."""
    roots = []
    for span in spans.values():
        parent = spans.get(span.parent)
        if parent is None or parent is span:
            roots.append(span)
        else:
            parent.children.append(span)
    reached: set[str] = set()
    for root in roots:
        reached.update(span.id for span in descend(root))
    for span in spans.values():
        if span.id not in reached:  # on a ring of parents: cut it here
            spans[span.parent].children.remove(span)
            roots.append(span)
            reached.update(below.id for below in descend(span))
    for span in spans.values():
        span.children.sort(key=lambda child: child.start)
    roots.sort(key=lambda root: root.start)
    return roots


def descend(root: Span) -> Iterator[Span]:
    """The span and all below it; no recursion, since a trace may be deeper than Python's stack."""
    waiting = [root]
    while waiting:
        span = waiting.pop()
        yield span
        waiting.extend(span.children)


def align(roots: list[Span]) -> dict[str, int]:
    """Nanoseconds by which another machine's spans are moved into their callers, by service.

    Clocks of two machines differ; a call cannot start before its caller or after it. A consumer may be late.
    """
    moved: dict[str, int] = {}
    waiting = [(root, 0) for root in roots]
    while waiting:
        span, shift = waiting.pop()
        span.start += shift
        span.end += shift
        for child in span.children:
            offset = shift
            if child.where != span.where:
                start = child.start + shift
                if start < span.start or (start > span.end and child.kind != "consumer"):
                    spare = max((span.end - span.start) - (child.end - child.start), 0)
                    offset = span.start + spare // 2 - child.start
                    moved[child.service] = offset
            waiting.append((child, offset))
    return moved


@dataclass(slots=True)
class Signs:
    """What trees and bars are drawn with."""

    branch: str = "├─ "
    last: str = "└─ "
    through: str = "│  "
    gap: str = "   "
    bar: str = "━"
    left: str = "╸"
    right: str = "╺"
    cross: str = "✗"
    dot: str = "·"
    ellipsis: str = "…"
    arrow: str = "↗"


ASCII = Signs("|- ", "`- ", "|  ", "   ", "=", "=", "=", "x", "-", "..", "->")


class Painter:
    """Prints traces in the width of the terminal."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.columns = max(shutil.get_terminal_size((120, 24)).columns, 60)
        self.colour = terminal.coloured(out)
        self.signs = Signs() if terminal.unicode_safe(out, "├─└│━╸╺✗·…↗µ") else ASCII
        self.hues: dict[str, str] = {}

    def paint(self, text: str, *codes: str) -> str:
        return "".join(codes) + text + terminal.RESET if self.colour and codes and text.strip() else text

    def hue(self, service: str) -> str:
        return self.hues.setdefault(service, terminal.HUES[len(self.hues) % len(terminal.HUES)])

    def trace(self, identity: str, spans: dict[str, Span]) -> None:
        """One trace: a heading, then a row per span with its details below."""
        roots = link(spans)
        moved = align(roots)
        start = min(span.start for span in spans.values())
        end = max(max(span.start, span.end) for span in spans.values())
        self.heading(identity, spans, start, end - start)

        rows = list(self.rows(roots, spans))
        service = min(max(terminal.width(span.service) for span in spans.values()), 20)
        bar = max(self.columns // 4, 16)
        room = self.columns - service - bar - 21
        label = min(max(terminal.width(text) for text, _, _ in rows), room)
        bar = min(self.columns - service - label - 21, 60)
        for text, below, span in rows:
            self.row(text, span, service, label, self.bar(span, start, end, bar))
            self.details(below, span, service, roots)
        for name, offset in sorted(moved.items()):
            note = f"the clock of {name} was moved by {self.duration(abs(offset))} to fit its callers"
            self.line(self.paint(f"{self.signs.ellipsis} {note}", terminal.DIM))
        self.line("")

    def heading(self, identity: str, spans: dict[str, Span], start: int, length: int) -> None:
        errors = sum(span.error is not None for span in spans.values())
        services = len({span.service for span in spans.values()})
        try:
            when = datetime.fromtimestamp(start / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        except (OverflowError, OSError, ValueError):
            when = "?"
        parts = [counted(len(spans), "span"), counted(services, "service"), self.duration(length)]
        text = f" {self.signs.dot} ".join(["", when, *parts])
        if errors:
            text += f" {self.signs.dot} " + self.paint(counted(errors, "error"), terminal.RED)
        self.line(self.paint(f"trace {terminal.clean(identity)}", terminal.BOLD) + text)

    def rows(self, roots: list[Span], spans: dict[str, Span]) -> Iterator[tuple[str, str, Span]]:
        """Depth first: the text with its branch, the prefix of the lines below it, the span."""
        signs = self.signs
        waiting = [(root, "", "") for root in reversed(roots)]
        while waiting:
            span, branch, prefix = waiting.pop()
            below = prefix + (signs.through if span.children else signs.gap)
            yield branch + " ".join(filter(None, (span.name, span.suffix))), below, span
            for place, child in enumerate(reversed(span.children)):
                onward = prefix + (signs.gap if place == 0 else signs.through)
                waiting.append((child, prefix + (signs.last if place == 0 else signs.branch), onward))

    def row(self, text: str, span: Span, service: int, label: int, bar: str) -> None:
        signs = self.signs
        failed = span.error is not None
        cells = [
            self.paint(
                terminal.pad(terminal.fit(span.service, service, signs.ellipsis), service),
                self.hue(span.service),
            ),
            self.label(text, span, label),
            self.paint(terminal.fit(span.status, 5, "").rjust(5), *([terminal.RED] if failed else [])),
            self.paint(signs.cross if failed else " ", terminal.RED),
            self.duration(span.end - span.start).rjust(8),
            self.paint(bar, terminal.RED if failed else self.hue(span.service)),
        ]
        self.line(f"{cells[0]}  {cells[1]} {cells[2]} {cells[3]} {cells[4]}  {cells[5]}".rstrip())

    def label(self, text: str, span: Span, columns: int) -> str:
        """The name after its branch; what does not fit is cut from the branch first, then from the name."""
        name = " ".join(filter(None, (span.name, span.suffix)))
        branch = text[: len(text) - len(name)]
        room = columns - min(terminal.width(name), max(columns // 2, 8))
        if terminal.width(branch) > room:
            branch = self.signs.ellipsis + branch[len(branch) - max(room - len(self.signs.ellipsis), 0) :]
        name = terminal.fit(name, columns - terminal.width(branch), self.signs.ellipsis)
        plain = name[: len(span.name)] if span.suffix else name
        filler = " " * (columns - terminal.width(branch) - terminal.width(name))
        shown = plain + self.paint(name[len(plain) :], terminal.DIM)
        return self.paint(branch, terminal.DIM) + shown + filler

    def details(self, prefix: str, span: Span, service: int, roots: list[Span]) -> None:
        signs = self.signs
        lines: list[tuple[str, str]] = []
        if span.statement:
            lines.append((span.statement, terminal.DIM))
        if span.error:
            lines.append((f"{signs.cross} {span.error}", terminal.RED))
        lines += [
            (f"{signs.arrow} linked to trace {terminal.clean(trace)}", terminal.DIM) for trace in span.links
        ]
        if span.parent and any(span is root for root in roots):
            lines.append((f"its parent {terminal.clean(span.parent)} is not in these files", terminal.DIM))
        if not lines:
            return
        room = self.columns - service - 2
        if terminal.width(prefix) > room // 2:
            prefix = signs.ellipsis + prefix[-(room // 2) :]
        for text, code in lines:
            text = terminal.fit(text, room - terminal.width(prefix), signs.ellipsis)
            self.line(" " * (service + 2) + self.paint(prefix, terminal.DIM) + self.paint(text, code))

    def bar(self, span: Span, start: int, end: int, columns: int) -> str:
        """Where the span lies in the trace, to half a column."""
        halves, length = columns * 2, max(end - start, 1)
        first = min((span.start - start) * halves // length, halves - 1)
        after = max(first + 1, min(-(-(span.end - start) * halves // length), halves))
        signs, cells = self.signs, []
        for cell in range(first // 2, (after + 1) // 2):
            left, right = first <= cell * 2 < after, first <= cell * 2 + 1 < after
            cells.append(signs.bar if left and right else signs.left if left else signs.right)
        return " " * (first // 2) + "".join(cells)

    def duration(self, nanoseconds: int) -> str:
        text = terminal.duration(nanoseconds)
        return text if self.signs is not ASCII else text.replace("µ", "u")

    def line(self, text: str) -> None:
        self.out.write(text + "\n")


def counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def main(arguments: list[str]) -> int:
    """0: something was shown and every file was read; 1: not; 2: wrong usage."""
    if not arguments or any(argument in ("-h", "--help") for argument in arguments):
        print(USAGE, file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    traces, whole = read(arguments)
    if not traces:
        terminal.complain("no spans in " + ", ".join(arguments))
        return 1
    painter = Painter(sys.stdout)
    for identity, spans in sorted(traces.items(), key=lambda item: min(s.start for s in item[1].values())):
        painter.trace(identity, spans)
    return 0 if whole else 1
