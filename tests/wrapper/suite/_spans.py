"""The spans that this process has made, for checks of their own process."""

import json
import os
from pathlib import Path
from typing import Any

import remora

_seen = 0


def _value(value: dict[str, Any]) -> Any:
    match value:
        case {"intValue": number}:
            return int(number)
        case {"arrayValue": array}:
            return [_value(item) for item in array.get("values", [])]
    return next(iter(value.values()), None)


def _attributes(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    return {pair["key"]: _value(pair["value"]) for pair in pairs}


class Span:
    """One span, with what checks ask."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.name: str = raw.get("name", "")
        self.kind: int = raw["kind"]
        self.id: str = raw["spanId"]
        self.trace: str = raw["traceId"]
        self.parent: str = raw.get("parentSpanId", "")
        self.attributes = _attributes(raw.get("attributes", []))
        status = raw.get("status", {})
        self.failed = status.get("code", 0) == 2
        self.message: str = status.get("message", "")
        self.events = [
            (event["name"], _attributes(event.get("attributes", []))) for event in raw.get("events", [])
        ]
        self.seconds = (int(raw["endTimeUnixNano"]) - int(raw["startTimeUnixNano"])) / 1e9


def made() -> list[Span]:
    """The spans finished since the last call, in order of their end."""
    global _seen
    assert remora.flush(10)
    path = Path(os.environ["REMORA_OTLP_FILE"].replace("%p", str(os.getpid())))
    lines = path.read_text().splitlines() if path.exists() else []
    new, _seen = lines[_seen:], len(lines)
    return [
        Span(raw)
        for line in new
        for resource in json.loads(line)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for raw in scope["spans"]
    ]


def names() -> list[str]:
    """The names of `made()`."""
    return [span.name for span in made()]
