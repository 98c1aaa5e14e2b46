//! The propagation headers of a request whose head its library has already put together as bytes: lines before the
//! empty one. For the reason why, see [`connection`](crate::http::connection).

use agent_core::propagation::{HEADERS, w3c};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::current::Span;
use crate::ffi::quiet;
use crate::http;
use crate::wrapper::Call;

const END: &[u8] = b"\r\n\r\n";
/// The bytes of a `traceparent` line.
const ROOM: usize = HEADERS[0].len() + w3c::TRACE_PARENT_LEN + 4;

/// Writes the span's context into the head that a call has returned.
pub fn write(call: &mut Call<'_>, span: &Span<'_>) {
    let py = call.py();
    if let Some(made) = call.result()
        && let Ok(head) = made.cast_exact::<PyBytes>()
        && let Some(head) = quiet(py, with_context(py, span, head.as_bytes())).flatten()
    {
        call.replace_result(head.into_any());
    }
}

/// The head with the span's context in it, in the place of what stands there under these names; `None` where it is no
/// whole head.
fn with_context<'py>(py: Python<'py>, span: &Span<'_>, head: &[u8]) -> PyResult<Option<Bound<'py, PyBytes>>> {
    if !head.ends_with(END) {
        return Ok(None);
    }
    let mut out = Vec::with_capacity(head.len() + ROOM);
    out.extend_from_slice(&head[..head.len() - 2]);
    http::each_header(span, |at, value| {
        remove(&mut out, HEADERS[at]);
        out.extend_from_slice(HEADERS[at].as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
        Ok(())
    })?;
    out.extend_from_slice(b"\r\n");
    Ok(Some(PyBytes::new(py, &out)))
}

/// Takes out the lines under this name. `head` is whole lines, the request's own first.
#[inline]
fn remove(head: &mut Vec<u8>, name: &str) {
    if memchr::memchr_iter(b'\n', head).any(|end| is_named(&head[end + 1..], name)) {
        remove_found(head, name);
    }
}

#[inline]
fn is_named(line: &[u8], name: &str) -> bool {
    line.get(name.len()) == Some(&b':') && line[..name.len()].eq_ignore_ascii_case(name.as_bytes())
}

#[cold]
fn remove_found(head: &mut Vec<u8>, name: &str) {
    let mut at = 0;
    while let Some(end) = memchr::memchr(b'\n', &head[at..]).map(|end| at + end + 1) {
        if is_named(&head[at..], name) {
            head.drain(at..end);
        } else {
            at = end;
        }
    }
}
