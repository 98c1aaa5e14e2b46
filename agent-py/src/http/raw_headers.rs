//! The headers that a server's span wants to know, as bytes, found in one pass over all that came.

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::http::Incoming;

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

/// Those of one request, as they were sent; of a repeated one the first.
#[derive(Default)]
pub struct RawHeaders<'py>([Option<Bound<'py, PyBytes>>; NAMES.len()]);

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
        if self.0[at].is_none() && NAMES[at].eq_ignore_ascii_case(name) {
            self.0[at] = value();
        }
    }

    /// The value's bytes.
    #[inline]
    pub fn get(&self, at: usize) -> Option<&Bound<'py, PyBytes>> {
        self.0[at].as_ref()
    }

    /// The value, if it is UTF-8.
    #[inline]
    pub fn text(&self, at: usize) -> Option<&str> {
        std::str::from_utf8(self.get(at)?.as_bytes()).ok()
    }

    /// The caller's context.
    #[inline]
    pub fn incoming(&self) -> Incoming {
        Incoming::read(|at| self.get(at))
    }
}
