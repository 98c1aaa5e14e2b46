//! CPython at arm's length: what pyo3-ffi lacks, and exceptions carried across our own work.
//!
//! Together with `wrapper/` the only place with `unsafe` about Python.

mod raised;
mod typedef;

pub use raised::Raised;
pub use typedef::{TypeSpec, member, method, slot};

use pyo3::ffi::{PyObject, PyTypeObject};

unsafe extern "C" {
    /// Not declared by pyo3-ffi.
    pub fn PyMethod_New(function: *mut PyObject, instance: *mut PyObject) -> *mut PyObject;
}

/// The dictionary of a type, also of one that refuses `setattr`. Borrowed.
///
/// # Safety
/// `of` is a ready type and the GIL is held.
pub unsafe fn type_dict(of: *mut PyTypeObject) -> *mut PyObject {
    #[cfg(Py_3_12)]
    {
        // SAFETY: by this function's contract. The type keeps its dictionary alive, so the reference may be given up.
        unsafe {
            let dict = pyo3::ffi::PyType_GetDict(of);
            pyo3::ffi::Py_XDECREF(dict);
            dict
        }
    }
    #[cfg(not(Py_3_12))]
    {
        // SAFETY: by this function's contract; before 3.12 every ready type has its dictionary in this field.
        unsafe { (*of).tp_dict }
    }
}
