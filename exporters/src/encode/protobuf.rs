//! The protobuf form. <https://protobuf.dev/programming-guides/encoding/>
//!
//! One pass: attributes are in this form already, a span's length is patched in behind it (two bytes kept, more moved
//! in where it needs them), and the few enclosing messages have lengths of a fixed four bytes, which every decoder
//! reads.

use agent_core::record::{Array, Entries, Link, Value};
use agent_core::span::StatusCode;
use agent_core::wire::{BYTES, FIXED32, FIXED64, VARINT, array_item, attribute, bytes, fixed64, tag, varint};

use super::{Format, Head, Tail};
use crate::config::{Resource, ResourceValue};

#[inline]
fn text(out: &mut Vec<u8>, field: u8, text: &str) {
    if !text.is_empty() {
        bytes(out, tag(field, BYTES), text.as_bytes());
    }
}

#[inline]
fn count(out: &mut Vec<u8>, field: u8, value: u16) {
    if value != 0 {
        out.push(tag(field, VARINT));
        varint(out, u64::from(value));
    }
}

/// A message whose length is patched in afterwards. Two bytes are kept for it.
#[inline]
fn open(out: &mut Vec<u8>, tag: u8) -> usize {
    out.extend_from_slice(&[tag, 0, 0]);
    out.len()
}

#[inline]
fn close(out: &mut Vec<u8>, start: usize) {
    let len = out.len() - start;
    if (0x80..0x4000).contains(&len) {
        out[start - 2..start].copy_from_slice(&[len as u8 | 0x80, (len >> 7) as u8]);
    } else {
        close_moving(out, start, len);
    }
}

#[cold]
fn close_moving(out: &mut Vec<u8>, start: usize, len: usize) {
    let mut prefix = Vec::with_capacity(5);
    varint(&mut prefix, len as u64);
    out.splice(start - 2..start, prefix);
}

/// A message with a length of four bytes, whatever it is: up to 256 MiB.
fn open_wide(out: &mut Vec<u8>, tag: u8) -> usize {
    out.extend_from_slice(&[tag, 0, 0, 0, 0]);
    out.len()
}

fn close_wide(out: &mut [u8], start: usize) {
    let len = out.len() - start;
    let wide =
        [len as u8 | 0x80, (len >> 7) as u8 | 0x80, (len >> 14) as u8 | 0x80, (len >> 21) as u8 & 0x7f];
    out[start - 4..start].copy_from_slice(&wide);
}

fn resource_message(resource: &Resource) -> Vec<u8> {
    let mut message = Vec::new();
    for (key, value) in &resource.attributes {
        match value {
            ResourceValue::Str(text) => attribute(&mut message, tag(1, BYTES), key, Value::Str(text)),
            ResourceValue::Int(int) => attribute(&mut message, tag(1, BYTES), key, Value::Int(*int)),
            ResourceValue::StrArray(texts) => {
                let mut array = Vec::new();
                texts.iter().for_each(|text| array_item(&mut array, Value::Str(text)));
                attribute(&mut message, tag(1, BYTES), key, Value::Array(Array::of(&array)));
            }
        }
    }
    message
}

/// Writes requests.
pub(super) struct Protobuf {
    out: Vec<u8>,
    /// `Resource`, as field 1 of `ResourceSpans`.
    resource: Vec<u8>,
    /// `InstrumentationScope`, as field 1 of `ScopeSpans`, by scope id.
    scopes: Vec<Vec<u8>>,
    resource_spans: usize,
    scope_spans: usize,
    span: usize,
}

impl Protobuf {
    pub(super) fn new(resource: &Resource) -> Self {
        let mut field = Vec::new();
        bytes(&mut field, tag(1, BYTES), &resource_message(resource));
        Self {
            out: Vec::new(),
            resource: field,
            scopes: Vec::new(),
            resource_spans: 0,
            scope_spans: 0,
            span: 0,
        }
    }
}

fn scope_message(name: &str) -> Vec<u8> {
    let mut scope = Vec::new();
    text(&mut scope, 1, name);
    text(&mut scope, 2, agent_core::VERSION);
    let mut field = Vec::new();
    bytes(&mut field, tag(1, BYTES), &scope);
    field
}

impl Format for Protobuf {
    fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    fn open_request(&mut self) {
        self.out.clear();
        self.resource_spans = open_wide(&mut self.out, tag(1, BYTES));
        self.out.extend_from_slice(&self.resource);
    }

    fn open_scope(&mut self, id: u16, name: &str) {
        self.scope_spans = open_wide(&mut self.out, tag(2, BYTES));
        let id = usize::from(id);
        if self.scopes.len() <= id {
            self.scopes.resize_with(id + 1, Vec::new);
        }
        if self.scopes[id].is_empty() {
            self.scopes[id] = scope_message(name);
        }
        self.out.extend_from_slice(&self.scopes[id]);
    }

    #[inline]
    fn open_span(&mut self, head: &Head<'_>) {
        let span = head.span;
        self.span = open(&mut self.out, tag(2, BYTES));
        // What every span has, put together first: one append instead of a dozen.
        let mut run = [0; 18 + 10 + 18 + 3 + 6];
        run[0..2].copy_from_slice(&[tag(1, BYTES), 16]);
        run[2..18].copy_from_slice(&span.trace_id);
        run[18..20].copy_from_slice(&[tag(2, BYTES), 8]);
        run[20..28].copy_from_slice(&span.span_id);
        run[28..30].copy_from_slice(&[tag(6, VARINT), span.kind as u8]);
        run[30] = tag(7, FIXED64);
        run[31..39].copy_from_slice(&head.start.to_le_bytes());
        run[39] = tag(8, FIXED64);
        run[40..48].copy_from_slice(&head.end.to_le_bytes());
        // Field 16: the tag has two bytes.
        run[48..50].copy_from_slice(&[0x80 | FIXED32, 1]);
        run[50..54].copy_from_slice(&head.flags.to_le_bytes());
        self.out.extend_from_slice(&run[..54]);
        if span.parent_span_id != [0; 8] {
            let mut run = [tag(4, BYTES), 8, 0, 0, 0, 0, 0, 0, 0, 0];
            run[2..].copy_from_slice(&span.parent_span_id);
            self.out.extend_from_slice(&run);
        }
    }

    #[inline]
    fn attributes(&mut self, run: &[u8]) {
        self.out.extend_from_slice(run);
    }

    fn event(&mut self, at: u64, name: &str, attributes: Entries<'_>, dropped: u16) {
        let out = &mut self.out;
        let event = open(out, tag(11, BYTES));
        fixed64(out, 1, at);
        text(out, 2, name);
        out.extend_from_slice(attributes.bytes());
        count(out, 4, dropped);
        close(out, event);
    }

    fn link(&mut self, link: &Link<'_>, attributes: Entries<'_>, dropped: u16) {
        let out = &mut self.out;
        let message = open(out, tag(13, BYTES));
        bytes(out, tag(1, BYTES), &link.trace_id);
        bytes(out, tag(2, BYTES), &link.span_id);
        text(out, 3, link.trace_state);
        out.extend_from_slice(attributes.bytes());
        count(out, 5, dropped);
        if link.flags != 0 {
            out.push(tag(6, FIXED32));
            out.extend_from_slice(&u32::from(link.flags).to_le_bytes());
        }
        close(out, message);
    }

    #[inline]
    fn close_span(&mut self, head: &Head<'_>, tail: &Tail<'_>) {
        let (out, span) = (&mut self.out, head.span);
        text(out, 5, tail.name);
        text(out, 3, tail.trace_state);
        count(out, 10, span.dropped_attributes);
        count(out, 12, span.dropped_events);
        count(out, 14, span.dropped_links);
        if span.status != StatusCode::Unset || !tail.status_description.is_empty() {
            let status = open(out, tag(15, BYTES));
            text(out, 2, tail.status_description);
            count(out, 3, span.status as u16);
            close(out, status);
        }
        close(out, self.span);
    }

    fn close_scope(&mut self) {
        text(&mut self.out, 3, crate::SCHEMA_URL);
        close_wide(&mut self.out, self.scope_spans);
    }

    fn close_request(&mut self) {
        text(&mut self.out, 3, crate::SCHEMA_URL);
        close_wide(&mut self.out, self.resource_spans);
    }
}
