//! CPython at arm's length: what pyo3-ffi lacks, and exceptions carried across our own work.
//!
//! Together with `wrapper/` the only place with `unsafe` about Python.

mod held;
mod interned;
mod original;
mod raised;
#[cfg(not(Py_3_14))]
mod stack;
mod struck;
mod traceback;
mod typedef;
mod utf8;

pub use held::Held;
pub use interned::Interned;
pub(crate) use interned::intern;
pub use original::{call_application, iter_send, vectorcall, vectorcall_method};
pub use raised::{Raised, give_up, handled, quiet};
#[cfg(not(Py_3_14))]
pub use stack::has_stack;
pub use traceback::innermost;
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

/// Sets an attribute of a heap type that refuses `setattr`, and the slots that go with a special method. As
/// `PyObject_SetAttr`: negative, with an exception, where that fails.
///
/// # Safety
/// `of` is a ready heap type, `name` a `str`, `value` alive, and the GIL is held.
pub unsafe fn set_in_immutable(
    of: *mut PyTypeObject,
    name: *mut PyObject,
    value: *mut PyObject,
) -> std::ffi::c_int {
    // SAFETY: by this function's contract. The flag is all that keeps `type`'s own setter from a heap type; it is down
    // for this one call, in which nothing of the application runs: what was there before, the caller keeps alive.
    unsafe {
        let flags = &raw mut (*of).tp_flags;
        #[cfg(not(Py_GIL_DISABLED))]
        let before = {
            let before = *flags;
            *flags = before & !ffi::Py_TPFLAGS_IMMUTABLETYPE;
            before
        };
        #[cfg(Py_GIL_DISABLED)]
        let before = (*flags).fetch_and(!ffi::Py_TPFLAGS_IMMUTABLETYPE, std::sync::atomic::Ordering::Relaxed);
        // A metaclass has no say: it might be the application's.
        let set = ffi::PyType_Type.tp_setattro.unwrap_or(ffi::PyObject_SetAttr);
        let result = set(of.cast(), name, value);
        #[cfg(not(Py_GIL_DISABLED))]
        {
            *flags |= before & ffi::Py_TPFLAGS_IMMUTABLETYPE;
        }
        #[cfg(Py_GIL_DISABLED)]
        (*flags).fetch_or(before & ffi::Py_TPFLAGS_IMMUTABLETYPE, std::sync::atomic::Ordering::Relaxed);
        result
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
