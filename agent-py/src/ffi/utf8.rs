//! The text of a `str`.

use pyo3::Bound;
use pyo3::types::{PyString, PyStringMethods};

use super::quiet;

/// As UTF-8. `None` where it has surrogates, which UTF-8 has not.
#[inline]
pub fn utf8<'a>(text: &'a Bound<'_, PyString>) -> Option<&'a str> {
    ascii(text).or_else(|| quiet(text.py(), text.to_str()))
}

/// What lies in the object as it is in UTF-8: no call into the interpreter, which is most of what reading a short text
/// costs. From 3.14 on pyo3-ffi does not tell.
#[cfg(not(Py_3_14))]
#[inline]
fn ascii<'a>(text: &'a Bound<'_, PyString>) -> Option<&'a str> {
    use pyo3::ffi;
    let object = text.as_ptr();
    // SAFETY: a live `str`. A compact ASCII one has its length in bytes, each below 128, right behind its head, and
    // never changes; the borrow keeps it alive.
    unsafe {
        if ffi::PyUnicode_IS_COMPACT_ASCII(object) == 0 {
            return None;
        }
        let length = usize::try_from(ffi::PyUnicode_GET_LENGTH(object)).ok()?;
        let bytes = std::slice::from_raw_parts(ffi::PyUnicode_DATA(object).cast::<u8>(), length);
        Some(std::str::from_utf8_unchecked(bytes))
    }
}

#[cfg(Py_3_14)]
#[inline]
fn ascii<'a>(_text: &'a Bound<'_, PyString>) -> Option<&'a str> {
    None
}
