//! The headers that a server's span wants to know, as bytes, found in one pass over all that came.

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::http::Incoming;

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
        if !matches!(name.len(), 4 | 7 | 9 | 10 | 11 | 15 | 16 | 17) {
            return;
        }
        let Some(at) = NAMES.iter().position(|wanted| wanted.eq_ignore_ascii_case(name)) else { return };
        if self.0[at].is_none() {
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
