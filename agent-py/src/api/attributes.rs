//! Attribute values as Python gives them.

use agent_core::span::ActiveSpan;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::ffi::quiet;

/// A value that holds no other object of the application: what is no text, truth or number becomes a tuple of texts (a
/// list or tuple) or a text. A `__str__` that raises gives an empty one.
pub fn settle<'py>(value: &Bound<'py, PyAny>) -> Bound<'py, PyAny> {
    let py = value.py();
    if value.is_exact_instance_of::<PyString>()
        || value.is_exact_instance_of::<PyBool>()
        || value.is_exact_instance_of::<PyInt>()
        || value.is_exact_instance_of::<PyFloat>()
    {
        return value.clone();
    }
    let text = |value: &Bound<'py, PyAny>| quiet(py, value.str()).unwrap_or_else(|| PyString::new(py, ""));
    if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        let texts: Vec<_> =
            value.try_iter().into_iter().flatten().flatten().map(|item| text(&item)).collect();
        if let Ok(tuple) = PyTuple::new(py, texts) {
            return tuple.into_any();
        }
    }
    text(value).into_any()
}

/// Sets one attribute from a settled value.
pub fn set(span: &mut ActiveSpan, key: &str, value: &Bound<'_, PyAny>) {
    if let Ok(text) = value.cast_exact::<PyString>() {
        match quiet(text.py(), text.to_str()) {
            Some(text) => span.str(key, text),
            // A lone surrogate has no UTF-8.
            None => span.str(key, &text.to_string_lossy()),
        }
    } else if let Ok(truth) = value.cast_exact::<PyBool>() {
        span.bool(key, truth.is_true());
    } else if let Ok(number) = value.cast_exact::<PyFloat>() {
        span.double(key, number.value());
    } else if let Ok(texts) = value.cast_exact::<PyTuple>() {
        let texts: Vec<_> = texts
            .iter_borrowed()
            .filter_map(|text| Some(text.cast::<PyString>().ok()?.to_string_lossy().into_owned()))
            .collect();
        span.str_array(key, texts.iter().map(String::as_str));
    } else if let Some(number) = quiet(value.py(), value.extract::<i64>()) {
        span.int(key, number);
    } else if let Some(text) = quiet(value.py(), value.str()) {
        // An integer beyond 64 bits has no OTLP form but its digits.
        span.str(key, &text.to_string_lossy());
    }
}
