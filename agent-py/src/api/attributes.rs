//! Attribute values as Python gives them.

use agent_core::record::Value;
use agent_core::span::ActiveSpan;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::ffi::quiet;

/// A value that holds no other object of the application: what is no text, truth or number becomes a tuple (a list or
/// tuple) or a text. A `__str__` that raises gives an empty one.
pub fn settle<'py>(value: &Bound<'py, PyAny>) -> Bound<'py, PyAny> {
    let py = value.py();
    if value.is_exact_instance_of::<PyString>()
        || value.is_exact_instance_of::<PyBool>()
        || value.is_exact_instance_of::<PyInt>()
        || value.is_exact_instance_of::<PyFloat>()
    {
        return value.clone();
    }
    if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        let items: Vec<_> = value.try_iter().into_iter().flatten().flatten().collect();
        if let Some(tuple) = quiet(py, PyTuple::new(py, alike(py, items))) {
            return tuple.into_any();
        }
    }
    text(value)
}

fn text<'py>(value: &Bound<'py, PyAny>) -> Bound<'py, PyAny> {
    let py = value.py();
    quiet(py, value.str()).unwrap_or_else(|| PyString::new(py, "")).into_any()
}

/// An array is of one type: of truths, of integers, of numbers where one of them has a fraction, else of texts.
fn alike<'py>(py: Python<'py>, items: Vec<Bound<'py, PyAny>>) -> Vec<Bound<'py, PyAny>> {
    let integer = |item: &Bound<'py, PyAny>| {
        item.is_exact_instance_of::<PyInt>() && quiet(py, item.extract::<i64>()).is_some()
    };
    let real = |item: &Bound<'py, PyAny>| item.is_exact_instance_of::<PyFloat>();
    if items.iter().all(Bound::is_exact_instance_of::<PyBool>) || items.iter().all(integer) {
        items
    } else if items.iter().all(|item| real(item) || integer(item)) {
        let number = |item: &Bound<'py, PyAny>| {
            let value = quiet(py, item.extract::<f64>()).unwrap_or(f64::NAN);
            PyFloat::new(py, value).into_any()
        };
        items.iter().map(number).collect()
    } else {
        items.iter().map(text).collect()
    }
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
    } else if let Ok(items) = value.cast_exact::<PyTuple>() {
        let texts: Vec<_> = items
            .iter_borrowed()
            .filter_map(|text| Some(text.cast::<PyString>().ok()?.to_string_lossy().into_owned()))
            .collect();
        if texts.is_empty() {
            span.array(key, items.iter_borrowed().filter_map(|item| number(&item)));
        } else {
            span.str_array(key, texts.iter().map(String::as_str));
        }
    } else if let Some(number) = quiet(value.py(), value.extract::<i64>()) {
        span.int(key, number);
    } else if let Some(text) = quiet(value.py(), value.str()) {
        // An integer beyond 64 bits has no OTLP form but its digits.
        span.str(key, &text.to_string_lossy());
    }
}

/// Of a settled array.
fn number(item: &Bound<'_, PyAny>) -> Option<Value<'static>> {
    Some(if let Ok(truth) = item.cast_exact::<PyBool>() {
        Value::Bool(truth.is_true())
    } else if let Ok(number) = item.cast_exact::<PyFloat>() {
        Value::Double(number.value())
    } else {
        Value::Int(quiet(item.py(), item.extract::<i64>())?)
    })
}
