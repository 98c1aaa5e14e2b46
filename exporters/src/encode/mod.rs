//! From a [`Batch`] to the bytes of one `ExportTraceServiceRequest`.
//!
//! [`walk`] is the one visitor; [`protobuf`] and [`json`] only know how a field is written. Nothing is allocated per
//! span: the output buffer keeps its size from request to request, the resource and each scope are encoded once.

mod json;
mod protobuf;
pub(crate) mod response;

use agent_core::clock::Timeline;
use agent_core::record::{Entries, Entry, Link, Piece};
use agent_core::span::{FinishedSpan, SpanRef};

use crate::batch::Batch;
use crate::config::Resource;

/// Receivers refuse messages over 4 MiB (the default of gRPC servers): a batch that is larger becomes several
/// requests.
pub const MAX_REQUEST_BYTES: usize = 3 << 20 | 1 << 19;

/// OTLP `SpanFlags`: whether the parent or the linked span is remote is known.
const HAS_IS_REMOTE: u32 = 0x100;
/// OTLP `SpanFlags`: it is.
const IS_REMOTE: u32 = 0x200;

fn flags(of_trace: u8, remote: bool) -> u32 {
    u32::from(of_trace) | HAS_IS_REMOTE | if remote { IS_REMOTE } else { 0 }
}

/// The format of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `application/x-protobuf`.
    Protobuf,
    /// `application/json`, by OTLP's rules: ids in hex, 64-bit integers as text.
    Json,
}

/// What of a span is known before its attributes are read.
struct Head<'a> {
    span: &'a FinishedSpan,
    start: u64,
    end: u64,
    flags: u32,
}

/// What of a span is known once its record was read.
#[derive(Default)]
struct Tail<'a> {
    name: &'a str,
    trace_state: &'a str,
    status_description: &'a str,
}

/// How the fields of a request are written. A format appends to one buffer; cutting that back undoes.
trait Format {
    fn out(&mut self) -> &mut Vec<u8>;
    fn open_request(&mut self);
    fn open_scope(&mut self, id: u16, name: &str);
    fn open_span(&mut self, head: &Head<'_>);
    fn open_attributes(&mut self) {}
    /// `run` is a run of `Span.attributes` in OTLP's protobuf form.
    fn attributes(&mut self, run: &[u8]);
    fn close_attributes(&mut self) {}
    fn open_events(&mut self) {}
    fn event(&mut self, at: u64, name: &str, attributes: Entries<'_>, dropped: u16);
    fn close_events(&mut self) {}
    fn open_links(&mut self) {}
    fn link(&mut self, link: &Link<'_>, attributes: Entries<'_>, dropped: u16);
    fn close_links(&mut self) {}
    fn close_span(&mut self, head: &Head<'_>, tail: &Tail<'_>);
    fn close_scope(&mut self);
    fn close_request(&mut self);
}

/// Writes the spans of `batch` after the first `skip` until `max_bytes` are reached, at least one. Answers how many.
fn walk<F: Format>(f: &mut F, batch: &Batch, timeline: &Timeline, skip: usize, max_bytes: usize) -> usize {
    let (mut seen, mut written) = (0, 0);
    f.open_request();
    'scopes: for &scope in batch.scopes() {
        let mut open = false;
        for span in batch.spans_of(scope) {
            seen += 1;
            if seen <= skip {
                continue;
            }
            let before = f.out().len();
            if !open {
                f.open_scope(scope, span.scope());
            }
            span_fields(f, span, timeline);
            if f.out().len() > max_bytes && written > 0 {
                f.out().truncate(before);
                if open {
                    f.close_scope();
                }
                break 'scopes;
            }
            open = true;
            written += 1;
        }
        if open {
            f.close_scope();
        }
    }
    f.close_request();
    written
}

#[inline]
fn span_fields<F: Format>(f: &mut F, span: SpanRef<'_>, timeline: &Timeline) {
    let header = span.span;
    let head = Head {
        span: header,
        start: timeline.unix_nanos(header.start),
        end: timeline.unix_nanos(header.end),
        flags: flags(header.flags, header.parent_remote),
    };
    let mut tail = Tail { name: span.static_name(), ..Tail::default() };
    let (mut events, mut links) = (false, false);
    f.open_span(&head);
    f.open_attributes();
    for piece in span.entries.pieces() {
        let entry = match piece {
            Piece::Attributes(run) => {
                f.attributes(run);
                continue;
            }
            Piece::Other(entry) => entry,
        };
        match entry {
            Entry::Attribute(..) => {}
            Entry::Event(..) => events = true,
            Entry::Link(..) => links = true,
            Entry::Name(name) => tail.name = name,
            Entry::StatusDescription(text) => tail.status_description = text,
            Entry::TraceState(text) => tail.trace_state = text,
        }
    }
    f.close_attributes();
    if events {
        f.open_events();
        for entry in span.entries {
            if let Entry::Event(at, name, attributes, dropped) = entry {
                f.event(timeline.unix_nanos(at), name, attributes, dropped);
            }
        }
        f.close_events();
    }
    if links {
        f.open_links();
        for entry in span.entries {
            if let Entry::Link(link, attributes, dropped) = entry {
                f.link(&link, attributes, dropped);
            }
        }
        f.close_links();
    }
    f.close_span(&head, &tail);
}

enum Kind {
    Protobuf(protobuf::Protobuf),
    Json(json::Json),
}

/// Encodes batches for one exporter and one fork generation.
pub struct Encoder(Kind);

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            Kind::Protobuf(_) => "Encoder(protobuf)",
            Kind::Json(_) => "Encoder(json)",
        })
    }
}

impl Encoder {
    /// An encoder whose every request carries `resource`.
    pub fn new(encoding: Encoding, resource: &Resource) -> Self {
        Self(match encoding {
            Encoding::Protobuf => Kind::Protobuf(protobuf::Protobuf::new(resource)),
            Encoding::Json => Kind::Json(json::Json::new(resource)),
        })
    }

    /// Encodes the spans of `batch` after the first `skip`, in the visiting order, as one request of at most
    /// `max_bytes` (one span may exceed it). Answers their count; the bytes are in [`Self::bytes`].
    pub fn encode(&mut self, batch: &Batch, timeline: &Timeline, skip: usize, max_bytes: usize) -> usize {
        match &mut self.0 {
            Kind::Protobuf(format) => walk(format, batch, timeline, skip, max_bytes),
            Kind::Json(format) => walk(format, batch, timeline, skip, max_bytes),
        }
    }

    /// The request encoded last.
    pub fn bytes(&mut self) -> &[u8] {
        self.buffer()
    }

    /// Hands the request out without copying it. The next one begins with as much room.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let buffer = self.buffer();
        let next = Vec::with_capacity(buffer.len());
        std::mem::replace(buffer, next)
    }

    /// Frees the buffer of an exporter that has nothing to do.
    pub(crate) fn shrink(&mut self) {
        *self.buffer() = Vec::new();
    }

    fn buffer(&mut self) -> &mut Vec<u8> {
        match &mut self.0 {
            Kind::Protobuf(format) => format.out(),
            Kind::Json(format) => format.out(),
        }
    }
}

/// A request without spans, as a receiver would get it from us: what `doctor` sends.
pub(crate) fn empty_request(encoding: Encoding) -> &'static [u8] {
    match encoding {
        Encoding::Protobuf => b"",
        Encoding::Json => br#"{"resourceSpans":[]}"#,
    }
}
