//! Making a heap type from slots, members, getters and methods, once per process.

use std::ffi::{CStr, c_int, c_uint, c_void};
use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;

/// One slot of a type.
pub const fn slot(slot: c_int, function: *mut c_void) -> ffi::PyType_Slot {
    ffi::PyType_Slot { slot, pfunc: function }
}

/// A read-only member that names an offset inside the object (`__vectorcalloffset__` and its like).
pub const fn member(name: &'static CStr, offset: usize) -> ffi::PyMemberDef {
    ffi::PyMemberDef {
        name: name.as_ptr(),
        type_code: ffi::Py_T_PYSSIZET,
        offset: offset as ffi::Py_ssize_t,
        flags: ffi::Py_READONLY,
        doc: ptr::null(),
    }
}

/// A method of one or no argument, by `flags`.
pub const fn method(name: &'static CStr, function: ffi::PyCFunction, flags: c_int) -> ffi::PyMethodDef {
    ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunction: function },
        ml_flags: flags,
        ml_doc: ptr::null(),
    }
}

/// A method of any number of positional arguments.
pub const fn fastcall(name: &'static CStr, function: ffi::PyCFunctionFast) -> ffi::PyMethodDef {
    ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFast: function },
        ml_flags: ffi::METH_FASTCALL,
        ml_doc: ptr::null(),
    }
}

/// What a heap type is made of. The tables are leaked: a type lives as long as the process.
pub struct TypeSpec {
    /// `module.name`.
    pub name: &'static CStr,
    /// `size_of` the object.
    pub size: usize,
    /// Beside `Py_TPFLAGS_DEFAULT`.
    pub flags: std::ffi::c_ulong,
    /// The slots, without terminator.
    pub slots: Vec<ffi::PyType_Slot>,
    /// Members, without terminator.
    pub members: Vec<ffi::PyMemberDef>,
    /// Getters and setters, without terminator.
    pub getset: Vec<ffi::PyGetSetDef>,
    /// Methods, without terminator.
    pub methods: Vec<ffi::PyMethodDef>,
}

fn terminated<T>(mut table: Vec<T>) -> *mut c_void {
    // SAFETY: all-zero is the documented terminator of each of these C tables.
    table.push(unsafe { std::mem::zeroed() });
    Box::leak(table.into_boxed_slice()).as_mut_ptr().cast()
}

impl TypeSpec {
    /// Makes the type. The reference is never given up.
    ///
    /// # Safety
    /// The slots' functions have the signatures that their slot numbers ask for, and the members' offsets lie inside
    /// an object of `size` bytes.
    pub unsafe fn create(self, py: Python<'_>) -> PyResult<*mut ffi::PyTypeObject> {
        let Self { name, size, flags, mut slots, members, getset, methods } = self;
        if !members.is_empty() {
            slots.push(slot(ffi::Py_tp_members, terminated(members)));
        }
        if !getset.is_empty() {
            slots.push(slot(ffi::Py_tp_getset, terminated(getset)));
        }
        if !methods.is_empty() {
            slots.push(slot(ffi::Py_tp_methods, terminated(methods)));
        }
        let mut spec = ffi::PyType_Spec {
            name: name.as_ptr(),
            basicsize: size as c_int,
            itemsize: 0,
            flags: (ffi::Py_TPFLAGS_DEFAULT | flags) as c_uint,
            slots: terminated(slots).cast(),
        };
        // SAFETY: by this function's contract; the tables are terminated and live for ever.
        let made = unsafe { ffi::PyType_FromSpec(&raw mut spec) };
        if made.is_null() { Err(PyErr::fetch(py)) } else { Ok(made.cast()) }
    }
}
