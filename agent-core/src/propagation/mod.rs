//! What enters and leaves the process with a request: `traceparent`, `tracestate` and `baggage`.
//!
//! Input is any bytes that a peer may send: nothing here panics, and what does not follow its specification is
//! dropped without a word. Reading a request without `tracestate` and `baggage` allocates nothing; writing never
//! does.

pub mod baggage;
pub mod w3c;

use crate::context::{Carried, RemoteContext};

/// The headers that we read and write, lower case, as they are put on a request.
pub const HEADERS: [&str; 3] = ["traceparent", "tracestate", "baggage"];

/// The propagators in force, from `OTEL_PROPAGATORS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Propagators {
    bits: u8,
}

impl Propagators {
    /// Nothing is read and nothing is written.
    pub const NONE: Self = Self { bits: 0 };
    /// W3C Trace Context alone.
    pub const TRACE_CONTEXT: Self = Self { bits: 1 };
    /// W3C Baggage alone.
    pub const BAGGAGE: Self = Self { bits: 2 };
    /// `tracecontext,baggage`, the specification's default.
    pub const DEFAULT: Self = Self { bits: 3 };

    /// The propagator that `OTEL_PROPAGATORS` calls `name`.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "tracecontext" => Some(Self::TRACE_CONTEXT),
            "baggage" => Some(Self::BAGGAGE),
            "none" => Some(Self::NONE),
            _ => None,
        }
    }

    /// Both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self { bits: self.bits | other.bits }
    }

    /// Whether `traceparent` and `tracestate` travel.
    #[inline]
    pub const fn trace_context(self) -> bool {
        self.bits & Self::TRACE_CONTEXT.bits != 0
    }

    /// Whether `baggage` travels.
    #[inline]
    pub const fn baggage(self) -> bool {
        self.bits & Self::BAGGAGE.bits != 0
    }

    /// Reads what a request carried; several lines of one header are given one by one, in their order. Of a
    /// request with an unusable `traceparent` the `tracestate` is not looked at, as W3C demands; baggage stands
    /// on its own.
    pub fn extract<'a>(
        self,
        trace_parent: Option<&'a [u8]>,
        trace_state: impl IntoIterator<Item = &'a [u8]>,
        baggage: impl IntoIterator<Item = &'a [u8]>,
    ) -> (Option<RemoteContext>, Carried) {
        let mut carried = Carried::default();
        let remote = if self.trace_context() { trace_parent.and_then(w3c::parse_trace_parent) } else { None };
        if remote.is_some() {
            carried.trace_state = w3c::parse_trace_state(trace_state);
        }
        if self.baggage() {
            carried.baggage = baggage::parse(baggage);
        }
        (remote, carried)
    }
}

impl Default for Propagators {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Without the optional white space (space and tab) that HTTP allows around a value.
fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}
