//! Reading objects of the application, which may answer with anything: whatever goes wrong there, nothing is read.

use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBytes, PyDict, PyList, PyString, PyTuple};

use crate::ffi::quiet;

/// An attribute; none where it is missing, is `None` or raises.
#[inline]
pub fn attribute<'py>(of: &Bound<'py, PyAny>, name: &Bound<'py, PyString>) -> Option<Bound<'py, PyAny>> {
    quiet(of.py(), of.getattr_opt(name)).flatten().filter(|value| !value.is_none())
}

/// A value's text, where it is a `str` that has UTF-8 or `bytes` that are.
#[inline]
pub fn text<'a>(value: &'a Option<Bound<'_, PyAny>>) -> Option<&'a str> {
    let value = value.as_ref()?;
    match value.cast::<PyString>() {
        Ok(text) => quiet(value.py(), text.to_str()),
        Err(_) => std::str::from_utf8(value.cast::<PyBytes>().ok()?.as_bytes()).ok(),
    }
}

/// The length of a container of the interpreter's own; asking another one would run the application's code.
#[inline]
pub fn length(value: &Bound<'_, PyAny>) -> Option<usize> {
    if let Ok(tuple) = value.cast_exact::<PyTuple>() {
        Some(tuple.len())
    } else if let Ok(list) = value.cast_exact::<PyList>() {
        Some(list.len())
    } else {
        value.cast_exact::<PyDict>().ok().map(|dict| dict.len())
    }
}
