//! CPython at arm's length: what pyo3-ffi lacks, and exceptions carried across our own work.
//!
//! Together with `wrapper/` the only place with `unsafe` about Python.

mod held;
mod original;
mod raised;
#[cfg(not(Py_3_14))]
mod stack;
mod typedef;
mod utf8;

pub use held::Held;
pub use original::{call_application, iter_send, vectorcall, vectorcall_method};
pub use raised::{Raised, discard, quiet};
#[cfg(not(Py_3_14))]
pub use stack::has_stack;
pub use typedef::{LazyType, TypeSpec, fastcall, member, method, slot};
pub use utf8::utf8;

use pyo3::ffi::{PyObject, PyTypeObject};
use pyo3::{Bound, PyAny, ffi};

// Not declared by pyo3-ffi.
// SAFETY: the declarations of `methodobject.h` and `classobject.h`, the same in 3.11 to 3.15.
unsafe extern "C" {
    static mut PyMethod_Type: PyTypeObject;
    /// A bound method.
    pub fn PyMethod_New(function: *mut PyObject, instance: *mut PyObject) -> *mut PyObject;
    fn PyMethod_Function(method: *mut PyObject) -> *mut PyObject;
    fn PyMethod_Self(method: *mut PyObject) -> *mut PyObject;
}

/// CPython looks itself.
///
/// # Safety
/// None is needed: it is `unsafe` as before 3.14.
#[cfg(Py_3_14)]
#[inline]
pub const unsafe fn has_stack() -> bool {
    true
}

/// Function and instance of a bound method, borrowed; `None` for anything else.
///
/// # Safety
/// `object` is alive and the GIL is held.
pub unsafe fn method_parts(object: *mut PyObject) -> Option<(*mut PyObject, *mut PyObject)> {
    // SAFETY: by this function's contract; the type is checked before its fields are read.
    unsafe {
        (pyo3::ffi::Py_TYPE(object) == &raw mut PyMethod_Type)
            .then(|| (PyMethod_Function(object), PyMethod_Self(object)))
    }
}

/// Clears one field of an object of ours, as `Py_CLEAR` does: null first, then the reference is given up.
///
/// # Safety
/// `field` holds null or an owned reference and the GIL is held.
pub unsafe fn clear_field(field: *mut *mut PyObject) {
    // SAFETY: by this function's contract.
    unsafe {
        let old = std::ptr::replace(field, std::ptr::null_mut());
        pyo3::ffi::Py_XDECREF(old);
    }
}

/// Whether the calling thread runs the interpreter that the process began with.
pub fn in_main_interpreter(_py: pyo3::Python<'_>) -> bool {
    // SAFETY: attached (the token shows it): there is a current interpreter.
    unsafe { pyo3::ffi::PyInterpreterState_GetID(pyo3::ffi::PyInterpreterState_Get()) == 0 }
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

/// Whether a module's name waits for its first use (PEP 810).
pub fn is_lazy_import(value: &Bound<'_, PyAny>) -> bool {
    #[cfg(Py_3_15)]
    {
        // SAFETY: the declaration of `lazyimportobject.h`, of which only the address is used.
        unsafe extern "C" {
            static mut PyLazyImport_Type: PyTypeObject;
        }
        pyo3::types::PyAnyMethods::get_type_ptr(value) == &raw mut PyLazyImport_Type
    }
    #[cfg(not(Py_3_15))]
    {
        let _ = value;
        false
    }
}

/// What a context variable holds, or its default. `None` where it holds nothing or is none.
pub fn variable_value<'py>(variable: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    let mut value = std::ptr::null_mut();
    // SAFETY: attached; a live object, checked to be a context variable. The value is a new reference or null.
    unsafe {
        if ffi::PyContextVar_CheckExact(variable.as_ptr()) == 0 {
            return None;
        }
        if ffi::PyContextVar_Get(variable.as_ptr(), std::ptr::null_mut(), &raw mut value) < 0 {
            ffi::PyErr_Clear();
        }
        Bound::from_owned_ptr_or_opt(variable.py(), value)
    }
}
