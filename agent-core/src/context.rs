//! What crosses a process border.

use crate::id::{SpanId, TraceId};

/// A parent in another process, as its `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteContext {
    /// The trace.
    pub trace_id: TraceId,
    /// The span that made the request.
    pub span_id: SpanId,
    /// W3C trace flags.
    pub flags: u8,
}

/// What travels unchanged through this process beside the ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// `tracestate`, validated, or empty.
    pub trace_state: Box<str>,
    /// `baggage`, validated, or empty.
    pub baggage: Box<str>,
}
