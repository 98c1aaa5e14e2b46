//! An exception taken out of the interpreter while we work, to be put back unchanged.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyAny;

use super::struck;

/// What a read gave, its error given up at once. Dropped as it is, a [`PyErr`] (any `Py`) would wait until pyo3 is next
/// entered by a way it knows, which slots of ours are not, and keep its traceback's frames alive meanwhile.
#[inline]
pub fn quiet<T>(py: Python<'_>, result: PyResult<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            give_up(py, error, |_| {});
            None
        }
    }
}

/// Gives up an error at once, unless a signal's handler raised it: that one is raised again later. `look` sees what is
/// given up.
#[cold]
pub fn give_up(py: Python<'_>, error: PyErr, look: impl FnOnce(&PyErr)) {
    if !struck::hand_back(py, &error) {
        look(&error);
    }
    error.restore(py);
    // SAFETY: attached (the token shows it).
    unsafe { ffi::PyErr_Clear() };
}

/// The exception that the calling code is handling.
#[inline]
pub fn handled(py: Python<'_>) -> Option<Bound<'_, PyAny>> {
    // SAFETY: attached (the token shows it); a new reference or null, and no exception is set.
    unsafe { Bound::from_owned_ptr_or_opt(py, ffi::PyErr_GetHandledException()) }
        .filter(|error| !error.is_none())
}

/// The exception that an original raised. Put back by [`Raised::restore`]: the same object, the same traceback.
pub struct Raised {
    #[cfg(Py_3_12)]
    exception: *mut ffi::PyObject,
    #[cfg(not(Py_3_12))]
    triple: [*mut ffi::PyObject; 3],
}

impl Raised {
    /// Takes the current exception; `None` if there is none.
    pub fn take(_py: Python<'_>) -> Option<Self> {
        #[cfg(Py_3_12)]
        {
            // SAFETY: attached (the token shows it); the reference returned is ours.
            let exception = unsafe { ffi::PyErr_GetRaisedException() };
            (!exception.is_null()).then_some(Self { exception })
        }
        #[cfg(not(Py_3_12))]
        {
            let mut triple = [std::ptr::null_mut(); 3];
            let [kind, value, traceback] = &mut triple;
            // SAFETY: attached; three valid out pointers, whose references become ours.
            unsafe {
                ffi::PyErr_Fetch(kind, value, traceback);
                if kind.is_null() {
                    return None;
                }
                ffi::PyErr_NormalizeException(kind, value, traceback);
                if !traceback.is_null() && !value.is_null() {
                    ffi::PyException_SetTraceback(*value, *traceback);
                }
            }
            Some(Self { triple })
        }
    }

    /// The exception.
    pub fn value<'a, 'py>(&'a self, py: Python<'py>) -> Borrowed<'a, 'py, PyAny> {
        #[cfg(Py_3_12)]
        let value = self.exception;
        #[cfg(not(Py_3_12))]
        let value = self.triple[1];
        // SAFETY: a normalised exception object, kept alive by `self`.
        unsafe { Borrowed::from_ptr(py, value) }
    }

    /// Makes it the current exception again.
    pub fn restore(self, _py: Python<'_>) {
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: attached; the references are given back exactly once, `this` is not dropped.
        #[cfg(Py_3_12)]
        unsafe {
            ffi::PyErr_SetRaisedException(this.exception);
        }
        // SAFETY: as above.
        #[cfg(not(Py_3_12))]
        unsafe {
            let [kind, value, traceback] = this.triple;
            ffi::PyErr_Restore(kind, value, traceback);
        }
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        // SAFETY: only made and dropped inside slots, where the GIL is held; the references are ours.
        #[cfg(Py_3_12)]
        unsafe {
            ffi::Py_XDECREF(self.exception);
        }
        #[cfg(not(Py_3_12))]
        for reference in self.triple {
            // SAFETY: as above.
            unsafe { ffi::Py_XDECREF(reference) };
        }
    }
}
