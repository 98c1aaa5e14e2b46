//! The span's two lives: [`ActiveSpan`] while the call runs, [`FinishedSpan`] in a chunk afterwards.
//!
//! Here is what both have: kind, status, trace flags.

mod active;
mod finished;

use crate::keys::Key;

pub use active::{ActiveSpan, Parent};
pub use finished::{Chunk, FinishedSpan, SpanRef};

/// OTLP `Span.SpanKind`, with its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SpanKind {
    /// Work inside the process.
    Internal = 1,
    /// Serves a remote request.
    Server = 2,
    /// Makes a remote request.
    Client = 3,
    /// Hands a message to a broker.
    Producer = 4,
    /// Handles a message from a broker.
    Consumer = 5,
}

/// OTLP `Status.StatusCode`, with its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StatusCode {
    /// Nothing was said.
    Unset = 0,
    /// The application said that it went well.
    Ok = 1,
    /// The operation failed.
    Error = 2,
}

/// W3C trace flag: the trace is recorded.
pub const SAMPLED: u8 = 1;
/// W3C trace flag of level 2: the last seven bytes of the trace id are random. True of every id of ours; of others'
/// it is passed on as it came. <https://www.w3.org/TR/trace-context-2/#random-trace-id-flag>
pub const RANDOM: u8 = 2;

/// What a callsite knows of its spans before any call.
#[derive(Clone, Copy, Debug)]
pub struct SpanSpec {
    /// The name, where it is the same for every call; else empty until [`ActiveSpan::name`].
    pub name: &'static str,
    /// The kind.
    pub kind: SpanKind,
    /// The instrumentation scope, `remora.<library>`.
    pub scope: &'static Key,
}
