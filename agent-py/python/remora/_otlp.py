"""Reads OTLP/JSON lines: one ExportTraceServiceRequest per line, as `otlp_file` and the Collector write them.

A file is read line by line and only what `remora tree` shows is kept of a span.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from remora._terminal import clean

_KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
_STATUS_ERROR = (2, "2", "STATUS_CODE_ERROR")


@dataclass(slots=True)
class Span:
    """One span. Times are nanoseconds since the epoch; `where` tells processes apart."""

    trace: str
    id: str
    parent: str
    name: str
    service: str
    where: str
    kind: str
    start: int
    end: int
    error: str | None  # its text, "" if the span failed without one
    status: str  # of HTTP
    suffix: str  # what a client's short name leaves out
    statement: str
    links: tuple[str, ...]
    children: list[Span] = field(default_factory=list)


class Unreadable(ValueError):
    """A line that is no OTLP/JSON."""


def _value(value: Any) -> Any:
    if not isinstance(value, dict) or not value:
        return None
    kind, inner = next(iter(value.items()))
    if kind == "arrayValue":
        return [_value(item) for item in inner.get("values", ())]
    if kind == "kvlistValue":
        return _attributes(inner.get("values", ()))
    return inner


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair["key"]: _value(pair.get("value")) for pair in pairs or ()}


def _text(value: Any) -> str:
    return "" if value is None else clean(str(value))


def _kind(kind: Any) -> str:
    if isinstance(kind, str):
        return kind.removeprefix("SPAN_KIND_").lower()
    return _KINDS[kind] if isinstance(kind, int) and 0 <= kind < len(_KINDS) else "unspecified"


def _error(span: dict[str, Any], attributes: dict[str, Any]) -> str | None:
    """The text of a failure, the exception first; None where the span did not fail."""
    status = span.get("status") or {}
    if status.get("code") not in _STATUS_ERROR:
        return None
    for event in reversed(span.get("events") or ()):
        if event.get("name") == "exception":
            about = _attributes(event.get("attributes"))
            parts = (_text(about.get("exception.type")), _text(about.get("exception.message")))
            return ": ".join(part for part in parts if part)
    message, kind = _text(status.get("message")), _text(attributes.get("error.type"))
    code = _text(attributes.get("db.response.status_code"))
    if kind.isdigit():  # the HTTP status, which has its own column
        return message
    return ": ".join(part for part in (kind, code, message) if part)


def _suffix(kind: str, name: str, attributes: dict[str, Any]) -> str:
    if kind != "client" or attributes.get("http.request.method") is None:
        return ""
    target = _text(attributes.get("url.full")) or _text(attributes.get("server.address"))
    target = target.removeprefix("http://").removeprefix("https://")
    return "" if target in name else target


def _span(raw: dict[str, Any], service: str, where: str) -> Span:
    attributes = _attributes(raw.get("attributes"))
    kind, name = _kind(raw.get("kind")), _text(raw.get("name")) or "(no name)"
    return Span(
        trace=str(raw["traceId"]).lower(),
        id=str(raw["spanId"]).lower(),
        parent=str(raw.get("parentSpanId") or "").lower().strip("0") and str(raw["parentSpanId"]).lower(),
        name=name,
        service=service,
        where=where,
        kind=kind,
        start=int(raw.get("startTimeUnixNano") or 0),
        end=int(raw.get("endTimeUnixNano") or 0),
        error=_error(raw, attributes),
        status=_text(attributes.get("http.response.status_code")),
        suffix=_suffix(kind, name, attributes),
        statement=_text(attributes.get("db.query.text", attributes.get("db.statement"))),
        links=tuple(str(link.get("traceId", "")).lower() for link in raw.get("links") or ()),
    )


def spans_of(line: str) -> Iterator[Span]:
    """The spans of one line. Raises `Unreadable`; a line of metrics or logs has none."""
    try:
        request = json.loads(line)
    except ValueError as error:
        cut = "cut short" if not line.endswith("\n") or line.startswith("{") else "not JSON"
        raise Unreadable(cut) from error
    except RecursionError as error:
        raise Unreadable("nested too deeply") from error
    if not isinstance(request, dict):
        raise Unreadable("no OTLP request")
    if "resourceSpans" not in request:
        if not request or "resourceMetrics" in request or "resourceLogs" in request:
            return
        raise Unreadable("no OTLP request")
    try:
        for group in request["resourceSpans"]:
            about = _attributes((group.get("resource") or {}).get("attributes"))
            service = _text(about.get("service.name")) or "?"
            where = f"{service}/{about.get('service.instance.id', about.get('process.pid'))}"
            for scope in group.get("scopeSpans") or ():
                for raw in scope.get("spans") or ():
                    yield _span(raw, service, where)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise Unreadable("a span that is no OTLP") from error
