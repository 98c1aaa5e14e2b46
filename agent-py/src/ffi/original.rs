//! Calls into the application's code, which may not come back.
//!
//! Up to CPython 3.13 a daemon thread that wants the GIL back while the interpreter ends is ended by `pthread_exit`,
//! which unwinds its stack (python/cpython#87135). Frames in C let that pass; ours must not: the standard library
//! aborts the process where such an unwinding meets its own. The thread is held here for good instead, as CPython
//! itself does from 3.14 on; the end of the process takes it away. What is not called through this file must be short.

use std::ptr;

use pyo3::ffi::{PyObject, PySendResult};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::has_stack;

/// Never dropped but by an unwinding that is none of Rust's: the callee is C, through which no panic comes.
struct Hold;

impl Drop for Hold {
    #[cold]
    fn drop(&mut self) {
        loop {
            std::thread::park();
        }
    }
}

mod unwinding {
    use super::{PyObject, PySendResult};

    // SAFETY: as pyo3-ffi declares them, except that they may unwind.
    unsafe extern "C-unwind" {
        pub fn PyObject_Vectorcall(
            callable: *mut PyObject,
            args: *const *mut PyObject,
            nargsf: usize,
            kwnames: *mut PyObject,
        ) -> *mut PyObject;
        pub fn PyObject_VectorcallMethod(
            name: *mut PyObject,
            args: *const *mut PyObject,
            nargsf: usize,
            kwnames: *mut PyObject,
        ) -> *mut PyObject;
        pub fn PyObject_Call(
            callable: *mut PyObject,
            args: *mut PyObject,
            kwargs: *mut PyObject,
        ) -> *mut PyObject;
        pub fn PyIter_Send(
            iterator: *mut PyObject,
            value: *mut PyObject,
            result: *mut *mut PyObject,
        ) -> PySendResult;
    }
}

macro_rules! held {
    ($($(#[$doc:meta])* $name:ident => $target:ident($($arg:ident: $of:ty),*) -> $gives:ty, else $failed:expr;)*) => { $(
        $(#[$doc])*
        ///
        /// # Safety
        /// As the function of the C API of that name.
        #[inline]
        pub unsafe fn $name($($arg: $of),*) -> $gives {
            // Called by its name, it would be pyo3-ffi's function of that name after link-time optimisation, which is
            // said never to unwind: no place to hold a thread would be left. A volatile read has no name.
            static TARGET: unsafe extern "C-unwind" fn($($of),*) -> $gives = unwinding::$target;
            // SAFETY: by this function's contract.
            if !unsafe { has_stack() } {
                return $failed;
            }
            // SAFETY: a static of this type.
            let target = unsafe { ptr::read_volatile(&raw const TARGET) };
            let hold = Hold;
            // SAFETY: by this function's contract.
            let result = unsafe { target($($arg),*) };
            std::mem::forget(hold);
            result
        }
    )* };
}

held! {
    /// `PyObject_Vectorcall`.
    vectorcall => PyObject_Vectorcall(
        callable: *mut PyObject, args: *const *mut PyObject, nargsf: usize, kwnames: *mut PyObject
    ) -> *mut PyObject, else ptr::null_mut();
    /// `PyObject_VectorcallMethod`.
    vectorcall_method => PyObject_VectorcallMethod(
        name: *mut PyObject, args: *const *mut PyObject, nargsf: usize, kwnames: *mut PyObject
    ) -> *mut PyObject, else ptr::null_mut();
    /// `PyObject_Call`.
    call => PyObject_Call(
        callable: *mut PyObject, args: *mut PyObject, kwargs: *mut PyObject
    ) -> *mut PyObject, else ptr::null_mut();
    /// `PyIter_Send`.
    iter_send => PyIter_Send(
        iterator: *mut PyObject, value: *mut PyObject, result: *mut *mut PyObject
    ) -> PySendResult, else PySendResult::PYGEN_ERROR;
}

/// Calls what is the application's with positional arguments.
///
/// # Errors
/// Whatever it raises.
pub fn call_application<'py>(
    callable: &Bound<'py, PyAny>,
    args: impl IntoPyObject<'py, Target = PyTuple, Output = Bound<'py, PyTuple>, Error = PyErr>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = callable.py();
    let args = args.into_pyobject(py)?;
    // SAFETY: attached, live objects; a new reference or null with an exception set.
    unsafe {
        let result = call(callable.as_ptr(), args.as_ptr(), ptr::null_mut());
        Bound::from_owned_ptr_or_err(py, result)
    }
}
