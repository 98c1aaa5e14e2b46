//! The headers that a server's span wants to know, as bytes, found in one pass over all that came.

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::http::Incoming;
use crate::settings;

const TRACE_PARENT: usize = 0;
const TRACE_STATE: usize = 1;
const BAGGAGE: usize = 2;
/// The `Host`.
pub const HOST: usize = 3;
/// The `User-Agent`.
pub const USER_AGENT: usize = 4;
/// `Forwarded`, of RFC 7239.
pub const FORWARDED: usize = 5;
/// `X-Forwarded-For`.
pub const FORWARDED_FOR: usize = 6;
/// `X-Forwarded-Host`.
pub const FORWARDED_HOST: usize = 7;
/// `X-Forwarded-Proto`.
pub const FORWARDED_PROTO: usize = 8;
/// By their places; the first three as [`Incoming::read`] asks for them.
const NAMES: [&[u8]; 9] = [
    b"traceparent",
    b"tracestate",
    b"baggage",
    b"host",
    b"user-agent",
    b"forwarded",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
];

/// Those of one request, as they were sent; of a repeated one the first, but all lines of those that are lists.
#[derive(Default)]
pub struct RawHeaders<'py> {
    first: [Option<Bound<'py, PyBytes>>; NAMES.len()],
    /// Further lines of `tracestate` and `baggage`.
    more: Vec<(usize, Bound<'py, PyBytes>)>,
}

impl<'py> RawHeaders<'py> {
    /// Keeps the header if it is one of them, in any case.
    #[inline]
    pub fn see(&mut self, name: &[u8], value: impl FnOnce() -> Option<Bound<'py, PyBytes>>) {
        let at = match name.len() {
            4 => HOST,
            7 => BAGGAGE,
            9 => FORWARDED,
            10 if name[0] | 0x20 == b't' => TRACE_STATE,
            10 => USER_AGENT,
            11 => TRACE_PARENT,
            15 => FORWARDED_FOR,
            16 => FORWARDED_HOST,
            17 => FORWARDED_PROTO,
            _ => return,
        };
        if !NAMES[at].eq_ignore_ascii_case(name) {
            return;
        }
        if self.first[at].is_none() {
            self.first[at] = value();
        } else if at == TRACE_STATE || at == BAGGAGE {
            self.see_again(at, value());
        }
    }

    #[cold]
    fn see_again(&mut self, at: usize, value: Option<Bound<'py, PyBytes>>) {
        self.more.extend(value.map(|value| (at, value)));
    }

    /// The value's bytes.
    #[inline]
    pub fn get(&self, at: usize) -> Option<&Bound<'py, PyBytes>> {
        self.first[at].as_ref()
    }

    /// The value, if it is UTF-8.
    #[inline]
    pub fn text(&self, at: usize) -> Option<&str> {
        std::str::from_utf8(self.get(at)?.as_bytes()).ok()
    }

    /// The caller's context.
    #[inline]
    pub fn incoming(&self) -> Incoming {
        if self.more.is_empty() { Incoming::read(|at| self.get(at)) } else { self.incoming_of_lines() }
    }

    #[cold]
    fn incoming_of_lines(&self) -> Incoming {
        let lines = |of| {
            let more = self.more.iter().filter(move |(at, _)| *at == of).map(|(_, value)| value);
            self.get(of).into_iter().chain(more).map(|value| value.as_bytes())
        };
        let trace_parent = self.get(TRACE_PARENT).map(|value| value.as_bytes());
        let propagators = settings::get().propagators;
        Incoming::of(propagators.extract(trace_parent, lines(TRACE_STATE), lines(BAGGAGE)))
    }
}
