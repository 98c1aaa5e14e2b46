//! Reading objects of the application, which may answer with anything: whatever goes wrong there, nothing is read.

use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBytes, PyString};

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
