//! Making a heap type from slots, members, getters and methods, once per process.

use std::ffi::{CStr, c_int, c_uint, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

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

/// A heap type that is made when its first object is: a process that traces nothing has none of them.
pub struct LazyType {
    made: AtomicPtr<ffi::PyTypeObject>,
    make: fn(Python<'_>) -> PyResult<*mut ffi::PyTypeObject>,
}

impl LazyType {
    /// One that `make` makes.
    pub const fn new(make: fn(Python<'_>) -> PyResult<*mut ffi::PyTypeObject>) -> Self {
        Self { made: AtomicPtr::new(ptr::null_mut()), make }
    }

    /// Whether an object is of exactly this type.
    #[inline]
    pub fn is_of(&self, object: &Bound<'_, PyAny>) -> bool {
        object.get_type_ptr() == self.peek()
    }

    /// The type; null before it is made.
    #[inline]
    pub fn peek(&self) -> *mut ffi::PyTypeObject {
        self.made.load(Ordering::Acquire)
    }

    /// An object of it, its own fields all zero; an owned reference.
    #[inline]
    pub fn allocate(&self, py: Python<'_>) -> PyResult<*mut ffi::PyObject> {
        let mut of = self.peek();
        if of.is_null() {
            of = self.create(py)?;
        }
        // SAFETY: attached; a ready type.
        let object = unsafe { ffi::PyType_GenericAlloc(of, 0) };
        if object.is_null() { Err(PyErr::fetch(py)) } else { Ok(object) }
    }

    #[cold]
    fn create(&self, py: Python<'_>) -> PyResult<*mut ffi::PyTypeObject> {
        let made = (self.make)(py)?;
        let first = self.made.compare_exchange(ptr::null_mut(), made, Ordering::AcqRel, Ordering::Acquire);
        Ok(match first {
            Ok(_) => made,
            Err(first) => {
                // Another thread was first.
                // SAFETY: attached; our own reference to a type that nobody has seen.
                unsafe { ffi::Py_DECREF(made.cast()) };
                first
            }
        })
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
