//! What the application may ask.

use agent_core::id;
use agent_core::sql::{self, Dialect};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::current;

/// An id as W3C writes it.
pub fn hex<'py, const N: usize>(py: Python<'py>, bytes: [u8; N]) -> Bound<'py, PyString> {
    let mut text = [0; 32];
    let text = &mut text[..2 * N];
    id::write_hex(&bytes, text);
    PyString::new(py, std::str::from_utf8(text).unwrap_or_default())
}

/// The trace id in force, as W3C writes it; `None` outside any span.
#[pyfunction]
pub fn current_trace_id(py: Python<'_>) -> Option<Bound<'_, PyString>> {
    current::current(py)?.with(|span| span.trace_id).filter(|id| *id != [0; 16]).map(|id| hex(py, id))
}

/// The span id in force, as W3C writes it; `None` outside any span.
#[pyfunction]
pub fn current_span_id(py: Python<'_>) -> Option<Bound<'_, PyString>> {
    current::current(py)?.with(|span| span.span_id).filter(|id| *id != [0; 8]).map(|id| hex(py, id))
}

/// A statement without its literals, and its summary. `dialect` is a `db.system.name`; an unknown one is read with care.
#[pyfunction]
pub fn sanitize_sql(text: &str, dialect: &str) -> (String, String) {
    let analysis = sql::analyze(text, Dialect::from_name(dialect));
    (analysis.sanitized.into_string(), analysis.summary.into_string())
}
