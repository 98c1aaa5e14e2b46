//! A reference kept by a native object of ours.

use std::ptr::NonNull;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyAny;

/// Unlike [`Py`], given up at once where it is dropped: pyo3 would put that off until it is next entered by a way it
/// knows, which our slots are not.
pub struct Held(NonNull<ffi::PyObject>);

// SAFETY: as any Python reference, only followed and given up with an interpreter attached.
unsafe impl Send for Held {}
// SAFETY: as above.
unsafe impl Sync for Held {}

impl Held {
    /// Keeps a reference of its own.
    pub fn new(object: &Bound<'_, PyAny>) -> Self {
        // SAFETY: a `Bound` is never null; the reference is taken over.
        Self(unsafe { NonNull::new_unchecked(object.clone().into_ptr()) })
    }

    /// The object, for use while attached.
    pub fn bind<'a, 'py>(&'a self, py: Python<'py>) -> Borrowed<'a, 'py, PyAny> {
        // SAFETY: kept alive by `self`.
        unsafe { Borrowed::from_ptr(py, self.0.as_ptr()) }
    }

    /// For the garbage collector.
    pub fn as_ptr(&self) -> *mut ffi::PyObject {
        self.0.as_ptr()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: lives in Python objects only, whose destructors run attached.
        unsafe { ffi::Py_DECREF(self.0.as_ptr()) };
    }
}
