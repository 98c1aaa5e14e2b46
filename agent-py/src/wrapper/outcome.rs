//! How what a span stands for ended, and what is in force after it.

use agent_core::semconv;
use agent_core::span::StatusCode;
use pyo3::exceptions::{PyStopAsyncIteration, PyStopIteration, PySystemExit};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyAny;

use crate::current::{self, Span};
use crate::exception;
use crate::ffi::{intern, quiet};

/// Whether an exception is how something ends in good order: exhausted, closed, cancelled, a wished exit.
pub(super) fn is_control_flow(error: &Bound<'_, PyAny>) -> bool {
    let py = error.py();
    if error.is_instance_of::<PyStopIteration>() || error.is_instance_of::<PyStopAsyncIteration>() {
        return true;
    }
    if error.is_instance_of::<PySystemExit>() {
        let code = quiet(py, error.getattr(intern!(py, "code")));
        return code.is_some_and(|code| !quiet(py, code.is_truthy()).unwrap_or(true));
    }
    exception::is_cancellation(error)
}

/// Records an exception that left what the span stands for: event and, where it has not failed before, `error.type` and
/// status. No exception is pending.
#[cold]
pub fn record(span: &Span<'_>, error: &Bound<'_, PyAny>) {
    if !span.is_recording() || is_control_flow(error) {
        return;
    }
    let details = exception::Details::of(error);
    span.with(|span| {
        details.record(span);
        // What it failed with before (an answer's status code) stays.
        if span.text(semconv::ERROR_TYPE.name()).is_none() {
            span.str(&semconv::ERROR_TYPE, &details.type_name);
        }
        if span.status() != StatusCode::Error {
            span.error(&details.message);
        }
    });
}

/// Puts in force again what was so before a span that lived across suspensions, by the token that it was put in force
/// with where that holds. Where another context runs now, which never had this span in force, nothing is changed.
///
/// # Safety
/// `token` is alive, or null; no exception is pending.
pub unsafe fn leave(py: Python<'_>, span: &Span<'_>, token: *mut ffi::PyObject) {
    let Some(now) = current::current(py) else { return };
    // A child may have been left in force by a generator that was dropped half-way.
    let is_child = || {
        let own = span.with(|span| span.span_id);
        own.is_some() && now.with(|now| now.parent_span_id) == own
    };
    // SAFETY: by this function's contract.
    let left = now.is(span) && unsafe { current::reset(py, token) };
    if !left && (now.is(span) || is_child()) {
        // SAFETY: as above.
        current::set(py, unsafe { current::before(py, token) }.as_ref());
    }
}
