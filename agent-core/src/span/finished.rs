//! The span after its end: a header in a [`Chunk`], its record in the chunk's arena.

use super::{ActiveSpan, SpanKind, StatusCode};
use crate::clock::Ticks;
use crate::id::{SpanId, TraceId};
use crate::record::Entries;

/// A span's header in a chunk; its record lies in the chunk's arena.
#[derive(Clone, Debug)]
pub struct FinishedSpan {
    /// The trace.
    pub trace_id: TraceId,
    /// This span.
    pub span_id: SpanId,
    /// The parent, or zeros.
    pub parent_span_id: SpanId,
    /// Start.
    pub start: Ticks,
    /// End, never before the start.
    pub end: Ticks,
    pub(super) name: &'static str,
    pub(super) record_start: u32,
    pub(super) record_end: u32,
    pub(super) scope: u16,
    /// Attributes dropped for the limit.
    pub dropped_attributes: u16,
    /// Events dropped for the limit.
    pub dropped_events: u16,
    /// Links dropped for the limit.
    pub dropped_links: u16,
    /// The kind.
    pub kind: SpanKind,
    /// W3C trace flags.
    pub flags: u8,
    /// The status code.
    pub status: StatusCode,
    /// Whether the parent came in with a request.
    pub parent_remote: bool,
}

/// Some finished spans and the bytes of their records: what a thread hands over.
#[derive(Debug, Default)]
pub struct Chunk {
    spans: Vec<FinishedSpan>,
    arena: Vec<u8>,
    apart: bool,
}

/// Room of this size has pages of its own in the C library's allocator (glibc's and musl's `mmap` threshold is 128 KiB),
/// of which only those cost memory that are written to.
const APART_BYTES: usize = 160 * 1024;

/// A span as an encoder sees it.
#[derive(Clone, Copy, Debug)]
pub struct SpanRef<'a> {
    /// Ids, times, kind, status code and dropped counts.
    pub span: &'a FinishedSpan,
    /// Attributes, events, links and the rest, in the order they were set.
    pub entries: Entries<'a>,
}

impl<'a> SpanRef<'a> {
    /// The name given at the start; an [`Entry::Name`](crate::record::Entry::Name) overrides it, the last one wins.
    pub fn static_name(&self) -> &'static str {
        self.span.name
    }

    /// The instrumentation scope's name.
    pub fn scope(&self) -> &'static str {
        crate::keys::scope_name(self.span.scope)
    }

    /// A small number that is equal for spans of one scope.
    pub fn scope_id(&self) -> u16 {
        self.span.scope
    }
}

impl Chunk {
    /// Room for `spans` spans.
    pub fn with_capacity(spans: usize) -> Self {
        Self::with_room(spans, spans * 64)
    }

    /// Room for `spans` spans with `bytes` bytes of records in all.
    pub fn with_room(spans: usize, bytes: usize) -> Self {
        Self { spans: Vec::with_capacity(spans), arena: Vec::with_capacity(bytes), apart: false }
    }

    /// Room that does not lie in the application's heap, to be used again and again. A chunk there, taken by one thread
    /// and freed by another, leaves holes that the application's next large blocks are cut from, which costs it more
    /// than the span did.
    pub(crate) fn apart() -> Self {
        let spans = APART_BYTES / size_of::<FinishedSpan>();
        Self { apart: true, ..Self::with_room(spans, APART_BYTES) }
    }

    /// Gives back the room that is not used: a queue of many chunks with few spans is otherwise full of nothing.
    pub(crate) fn shrink(&mut self) {
        if !self.apart {
            self.spans.shrink_to_fit();
            self.arena.shrink_to_fit();
        }
    }

    /// Makes it empty, to be used again. `None` where it is none that was made for that, or has become too large.
    pub(crate) fn reuse(mut self) -> Option<Self> {
        if !self.apart || self.arena.capacity() > 2 * APART_BYTES {
            return None;
        }
        self.spans.clear();
        self.arena.clear();
        Some(self)
    }

    /// Whether [`Self::apart`] made it.
    pub(crate) fn is_apart(&self) -> bool {
        self.apart
    }

    /// Appends a span.
    #[inline]
    pub fn push(&mut self, span: &ActiveSpan, end: Ticks) {
        let start = self.arena.len();
        self.arena.extend_from_slice(span.record());
        let header = span.header(end, start as u32..self.arena.len() as u32);
        self.spans.push(header);
    }

    /// The count of spans.
    #[inline]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Bytes of records.
    #[inline]
    pub fn arena_len(&self) -> usize {
        self.arena.len()
    }

    /// Bytes that this chunk keeps allocated; of pages of its own, those that it fills.
    pub fn bytes(&self) -> usize {
        let (spans, arena) = match self.apart {
            true => (self.spans.len(), self.arena.len()),
            false => (self.spans.capacity(), self.arena.capacity()),
        };
        spans * size_of::<FinishedSpan>() + arena + size_of::<Self>()
    }

    /// Its spans, in the order they ended.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = SpanRef<'_>> {
        self.spans.iter().map(|span| SpanRef {
            span,
            entries: Entries::of(
                self.arena.get(span.record_start as usize..span.record_end as usize).unwrap_or_default(),
            ),
        })
    }
}
