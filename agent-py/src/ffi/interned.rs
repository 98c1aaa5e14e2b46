//! Names of the application's attributes, keys and methods, as texts of the interpreter's.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;

/// An interned text, made when it is first asked for and kept for good.
///
/// One word, where pyo3's takes four and twice the code: a hook names a dozen things, and what it costs is the cache
/// lines that it touches.
pub struct Interned(AtomicPtr<ffi::PyObject>);

impl Interned {
    /// Not made yet.
    pub const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// The text, which is `text` in every call.
    #[inline]
    pub fn get<'py>(&'static self, py: Python<'py>, text: &str) -> &'py Bound<'py, PyString> {
        if self.0.load(Ordering::Acquire).is_null() {
            self.make(py, text);
        }
        // SAFETY: the word is no longer null and is never written again: it is an owned reference to a text, which is
        // what a `Py` is.
        let made: &'py Py<PyString> = unsafe { &*self.0.as_ptr().cast() };
        made.bind(py)
    }

    #[cold]
    fn make(&self, py: Python<'_>, text: &str) {
        let made = PyString::intern(py, text);
        let first =
            self.0.compare_exchange(ptr::null_mut(), made.as_ptr(), Ordering::AcqRel, Ordering::Acquire);
        if first.is_ok() {
            std::mem::forget(made);
        }
    }
}

/// As pyo3's macro of this name, by an [`Interned`].
macro_rules! intern {
    ($py:expr, $text:expr) => {{
        static NAME: $crate::ffi::Interned = $crate::ffi::Interned::new();
        NAME.get($py, $text)
    }};
}

pub(crate) use intern;
