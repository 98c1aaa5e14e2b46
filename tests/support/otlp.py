"""Spans as the tests look at them, from OTLP/JSON (receiver, `otlp_file`) or protobuf (bad endpoints)."""

import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
STATUSES = ("unset", "ok", "error")


@dataclass(frozen=True)
class Event:
    name: str
    time: int
    attributes: dict[str, Any]
    dropped_attributes: int


@dataclass(frozen=True)
class Link:
    trace_id: str
    span_id: str
    attributes: dict[str, Any]
    trace_state: str
    flags: int


@dataclass(frozen=True, eq=False)
class Span:
    """One span; ids are lower-case hex, times nanoseconds since 1970, `parent_id` None for a root."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str | None
    start: int
    end: int
    attributes: dict[str, Any]
    status: str
    status_message: str
    events: list[Event]
    links: list[Link]
    trace_state: str
    flags: int
    dropped_attributes: int
    dropped_events: int
    dropped_links: int
    resource: dict[str, Any]
    resource_schema_url: str
    scope: str
    scope_version: str
    schema_url: str
    raw: dict[str, Any] = field(repr=False)

    @property
    def service(self) -> str:
        return str(self.resource.get("service.name"))

    @property
    def duration(self) -> int:
        return self.end - self.start

    def __getitem__(self, key: str) -> Any:
        return self.attributes[key]

    def get(self, key: str, default: Any = None) -> Any:
        return self.attributes.get(key, default)


def value_of(value: dict[str, Any]) -> Any:
    """An OTLP AnyValue as the Python value of its type."""
    match value:
        case {"intValue": number}:
            return int(number)
        case {"doubleValue": number}:
            return float(number)
        case {"arrayValue": array}:
            return [value_of(item) for item in array.get("values", [])]
        case {"kvlistValue": pairs}:
            return attributes_of(pairs.get("values", []))
        case {"bytesValue": text}:
            return base64.b64decode(text)
        case {"stringValue": plain} | {"boolValue": plain}:
            return plain
    return None


def attributes_of(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """Attributes as a dictionary; a key that comes twice is an error of the sender."""
    found: dict[str, Any] = {}
    for pair in pairs:
        assert pair["key"] not in found, f"attribute {pair['key']} twice"
        found[pair["key"]] = value_of(pair.get("value", {}))
    return found


def _named(value: int | str, names: tuple[str, ...], prefix: str) -> str:
    # protobuf's JSON writes the enumerations' names, OTLP/JSON their numbers.
    if isinstance(value, str):
        return value.removeprefix(prefix).lower()
    return names[value]


def spans_of(request: dict[str, Any]) -> list[Span]:
    """All spans of one ExportTraceServiceRequest in OTLP/JSON."""
    return list(_spans(request))


def _spans(request: dict[str, Any]) -> Iterator[Span]:
    for of_resource in request.get("resourceSpans", []):
        resource = attributes_of(of_resource.get("resource", {}).get("attributes", []))
        for of_scope in of_resource.get("scopeSpans", []):
            scope = of_scope.get("scope", {})
            for raw in of_scope.get("spans", []):
                status = raw.get("status", {})
                yield Span(
                    # Both JSON forms may leave out what is empty or zero.
                    name=raw.get("name", ""),
                    kind=_named(raw.get("kind", 0), KINDS, "SPAN_KIND_"),
                    trace_id=raw["traceId"],
                    span_id=raw["spanId"],
                    parent_id=raw.get("parentSpanId") or None,
                    start=int(raw.get("startTimeUnixNano", 0)),
                    end=int(raw.get("endTimeUnixNano", 0)),
                    attributes=attributes_of(raw.get("attributes", [])),
                    status=_named(status.get("code", 0), STATUSES, "STATUS_CODE_"),
                    status_message=status.get("message", ""),
                    events=[
                        Event(
                            event.get("name", ""),
                            int(event.get("timeUnixNano", 0)),
                            attributes_of(event.get("attributes", [])),
                            event.get("droppedAttributesCount", 0),
                        )
                        for event in raw.get("events", [])
                    ],
                    links=[
                        Link(
                            link["traceId"],
                            link["spanId"],
                            attributes_of(link.get("attributes", [])),
                            link.get("traceState", ""),
                            link.get("flags", 0),
                        )
                        for link in raw.get("links", [])
                    ],
                    trace_state=raw.get("traceState", ""),
                    flags=raw.get("flags", 0),
                    dropped_attributes=raw.get("droppedAttributesCount", 0),
                    dropped_events=raw.get("droppedEventsCount", 0),
                    dropped_links=raw.get("droppedLinksCount", 0),
                    resource=resource,
                    resource_schema_url=of_resource.get("schemaUrl", ""),
                    scope=scope.get("name", ""),
                    scope_version=scope.get("version", ""),
                    schema_url=of_scope.get("schemaUrl", ""),
                    raw=raw,
                )


def read_files(paths: Iterable[Path | str]) -> list[Span]:
    """The spans of some `otlp_file` outputs, in the files' order; every line must be whole."""
    return [
        span
        for path in paths
        for line in Path(path).read_text(encoding="utf-8").splitlines()
        for span in spans_of(json.loads(line))
    ]


def from_protobuf(body: bytes) -> dict[str, Any]:
    """An ExportTraceServiceRequest in protobuf as OTLP/JSON (ids in hex, unlike protobuf's own JSON)."""
    from google.protobuf.json_format import MessageToDict
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = MessageToDict(ExportTraceServiceRequest.FromString(body))
    for of_resource in request.get("resourceSpans", []):
        for of_scope in of_resource.get("scopeSpans", []):
            for span in of_scope.get("spans", []):
                for item in (span, *span.get("links", [])):
                    for key in ("traceId", "spanId", "parentSpanId"):
                        if key in item:
                            item[key] = base64.b64decode(item[key]).hex()
    return request


def find(spans: Iterable[Span], name: str | None = None, **wanted: Any) -> list[Span]:
    """Spans by name and by fields: `find(spans, kind="client", scope="remora.requests")`."""
    return [
        span
        for span in spans
        if (name is None or span.name == name)
        and all(getattr(span, key) == value for key, value in wanted.items())
    ]


def one(spans: Iterable[Span], name: str | None = None, **wanted: Any) -> Span:
    """The only span that fits; a failure lists what there is."""
    spans = list(spans)
    found = find(spans, name, **wanted)
    assert len(found) == 1, f"{len(found)} spans fit {name!r} {wanted}; there are:\n{waterfall(spans)}"
    return found[0]


def children(spans: Iterable[Span], parent: Span) -> list[Span]:
    """The direct children, in order of their start."""
    return sorted(
        (span for span in spans if span.parent_id == parent.span_id and span.trace_id == parent.trace_id),
        key=lambda span: span.start,
    )


def roots(spans: Iterable[Span]) -> list[Span]:
    """Spans whose parent is none of these spans, in order of their start."""
    spans = list(spans)
    ids = {(span.trace_id, span.span_id) for span in spans}
    return sorted(
        (span for span in spans if (span.trace_id, span.parent_id) not in ids), key=lambda span: span.start
    )


def shape(spans: Iterable[Span]) -> list[Any]:
    """The trees as nested names: `["root", ["child", ["grandchild"]], ["child"]]` for each root."""
    spans = list(spans)

    def tree(span: Span) -> list[Any]:
        return [span.name, *(tree(child) for child in children(spans, span))]

    return [tree(root) for root in roots(spans)]


def waterfall(spans: Iterable[Span]) -> str:
    """The trees as text, for failure messages."""
    spans = list(spans)
    lines: list[str] = []

    def draw(span: Span, depth: int) -> None:
        lines.append(
            f"{'  ' * depth}{span.name} [{span.kind}, {span.scope}, {span.status}] {span.attributes}"
        )
        for child in children(spans, span):
            draw(child, depth + 1)

    for root in roots(spans):
        draw(root, 0)
    return "\n".join(lines) or "(no spans)"
