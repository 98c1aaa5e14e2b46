//! The JSON form: protobuf's JSON mapping with OTLP's exceptions.
//! <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>

use std::io::Write;

use agent_core::record::{Entries, Entry, Link, Value};
use agent_core::span::StatusCode;

use super::{Format, Head, Tail};
use crate::config::{Resource, ResourceValue};

/// A comma, unless something was just opened.
#[inline]
fn comma(out: &mut Vec<u8>) {
    if !matches!(out.last(), Some(b'[' | b'{' | b':') | None) {
        out.push(b',');
    }
}

#[inline]
fn key(out: &mut Vec<u8>, name: &str) {
    comma(out);
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn hex(out: &mut Vec<u8>, name: &str, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    key(out, name);
    out.push(b'"');
    for byte in bytes {
        out.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    out.push(b'"');
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| *byte < 0x20 || *byte == b'"' || *byte == b'\\') {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            byte @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', byte]),
            // Into a vector: cannot fail.
            byte => drop(write!(out, "\\u{byte:04x}")),
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

fn text(out: &mut Vec<u8>, name: &str, value: &str) {
    if !value.is_empty() {
        key(out, name);
        string(out, value);
    }
}

/// 64-bit integers are text: JavaScript's numbers would round them.
fn long(out: &mut Vec<u8>, name: &str, value: impl itoa::Integer) {
    key(out, name);
    out.push(b'"');
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    out.push(b'"');
}

fn number(out: &mut Vec<u8>, name: &str, value: u32) {
    if value != 0 {
        key(out, name);
        out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }
}

fn double(out: &mut Vec<u8>, value: f64) {
    key(out, "doubleValue");
    // Into a vector: cannot fail. What JSON has no number for is text, as protobuf's mapping says.
    drop(if value.is_nan() {
        write!(out, "\"NaN\"")
    } else if value.is_infinite() {
        write!(out, "\"{}Infinity\"", if value < 0.0 { "-" } else { "" })
    } else {
        write!(out, "{value:?}")
    });
}

fn array<'a>(out: &mut Vec<u8>, values: impl Iterator<Item = Value<'a>>) {
    key(out, "arrayValue");
    out.extend_from_slice(b"{\"values\":[");
    for value in values {
        comma(out);
        out.push(b'{');
        any_value(out, value);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
}

fn any_value(out: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::Str(text) => {
            key(out, "stringValue");
            string(out, text);
        }
        Value::Int(int) => long(out, "intValue", int),
        Value::Double(value) => double(out, value),
        Value::Bool(bool) => {
            key(out, "boolValue");
            out.extend_from_slice(if bool { b"true" } else { b"false" });
        }
        Value::Array(values) => array(out, values),
    }
}

fn attribute(out: &mut Vec<u8>, name: &str, value: Value<'_>) {
    comma(out);
    out.extend_from_slice(b"{\"key\":");
    string(out, name);
    out.extend_from_slice(b",\"value\":{");
    any_value(out, value);
    out.extend_from_slice(b"}}");
}

fn nested(out: &mut Vec<u8>, attributes: Entries<'_>) {
    key(out, "attributes");
    out.push(b'[');
    self::attributes(out, attributes);
    out.push(b']');
}

fn attributes(out: &mut Vec<u8>, entries: Entries<'_>) {
    for entry in entries {
        if let Entry::Attribute(name, value) = entry {
            attribute(out, name, value);
        }
    }
}

fn resource_object(resource: &Resource) -> Vec<u8> {
    let mut out = b"{\"attributes\":[".to_vec();
    for (name, value) in &resource.attributes {
        match value {
            ResourceValue::Str(text) => attribute(&mut out, name, Value::Str(text)),
            ResourceValue::Int(int) => attribute(&mut out, name, Value::Int(*int)),
            ResourceValue::StrArray(texts) => {
                comma(&mut out);
                out.extend_from_slice(b"{\"key\":");
                string(&mut out, name);
                out.extend_from_slice(b",\"value\":{");
                array(&mut out, texts.iter().map(|text| Value::Str(text)));
                out.extend_from_slice(b"}}");
            }
        }
    }
    out.extend_from_slice(b"]}");
    out
}

/// Writes requests.
pub(super) struct Json {
    out: Vec<u8>,
    resource: Vec<u8>,
}

impl Json {
    pub(super) fn new(resource: &Resource) -> Self {
        Self { out: Vec::new(), resource: resource_object(resource) }
    }
}

impl Format for Json {
    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    fn open_request(&mut self) {
        self.out.clear();
        self.out.extend_from_slice(b"{\"resourceSpans\":[{\"resource\":");
        self.out.extend_from_slice(&self.resource);
        self.out.extend_from_slice(b",\"scopeSpans\":[");
    }

    fn open_scope(&mut self, _id: u16, name: &str) {
        comma(&mut self.out);
        self.out.extend_from_slice(b"{\"scope\":{");
        text(&mut self.out, "name", name);
        text(&mut self.out, "version", agent_core::VERSION);
        self.out.extend_from_slice(b"},\"spans\":[");
    }

    fn open_span(&mut self, head: &Head<'_>) {
        let (out, span) = (&mut self.out, head.span);
        comma(out);
        out.push(b'{');
        hex(out, "traceId", &span.trace_id);
        hex(out, "spanId", &span.span_id);
        if span.parent_span_id != [0; 8] {
            hex(out, "parentSpanId", &span.parent_span_id);
        }
        number(out, "flags", head.flags);
        number(out, "kind", span.kind as u32);
        long(out, "startTimeUnixNano", head.start);
        long(out, "endTimeUnixNano", head.end);
    }

    fn open_attributes(&mut self) {
        key(&mut self.out, "attributes");
        self.out.push(b'[');
    }

    fn attributes(&mut self, run: &[u8]) {
        attributes(&mut self.out, Entries::of(run));
    }

    fn close_attributes(&mut self) {
        self.out.push(b']');
    }

    fn open_events(&mut self) {
        key(&mut self.out, "events");
        self.out.push(b'[');
    }

    fn event(&mut self, at: u64, name: &str, attributes: Entries<'_>, dropped: u16) {
        let out = &mut self.out;
        comma(out);
        out.push(b'{');
        long(out, "timeUnixNano", at);
        text(out, "name", name);
        nested(out, attributes);
        number(out, "droppedAttributesCount", u32::from(dropped));
        out.push(b'}');
    }

    fn close_events(&mut self) {
        self.out.push(b']');
    }

    fn open_links(&mut self) {
        key(&mut self.out, "links");
        self.out.push(b'[');
    }

    fn link(&mut self, link: &Link<'_>, attributes: Entries<'_>, dropped: u16) {
        let out = &mut self.out;
        comma(out);
        out.push(b'{');
        hex(out, "traceId", &link.trace_id);
        hex(out, "spanId", &link.span_id);
        text(out, "traceState", link.trace_state);
        nested(out, attributes);
        number(out, "droppedAttributesCount", u32::from(dropped));
        number(out, "flags", u32::from(link.flags));
        out.push(b'}');
    }

    fn close_links(&mut self) {
        self.out.push(b']');
    }

    fn close_span(&mut self, head: &Head<'_>, tail: &Tail<'_>) {
        let (out, span) = (&mut self.out, head.span);
        text(out, "name", tail.name);
        text(out, "traceState", tail.trace_state);
        number(out, "droppedAttributesCount", u32::from(span.dropped_attributes));
        number(out, "droppedEventsCount", u32::from(span.dropped_events));
        number(out, "droppedLinksCount", u32::from(span.dropped_links));
        if span.status != StatusCode::Unset || !tail.status_description.is_empty() {
            key(out, "status");
            out.push(b'{');
            text(out, "message", tail.status_description);
            number(out, "code", span.status as u32);
            out.push(b'}');
        }
        out.push(b'}');
    }

    fn close_scope(&mut self) {
        self.out.push(b']');
        text(&mut self.out, "schemaUrl", crate::SCHEMA_URL);
        self.out.push(b'}');
    }

    fn close_request(&mut self) {
        self.out.push(b']');
        text(&mut self.out, "schemaUrl", crate::SCHEMA_URL);
        self.out.extend_from_slice(b"}]}");
    }
}
