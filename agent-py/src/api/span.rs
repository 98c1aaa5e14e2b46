//! `span`: a piece of the application's own code as a span.
//!
//! Hand-written for speed: a `with` block without attributes costs little more than the span itself.

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use agent_core::span::{SpanKind, SpanSpec};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyString, PyTuple};

use super::{SCOPE, attributes, traced};
use crate::breaker::Breaker;
use crate::current::{self, Span, StoredSpan};
use crate::ffi::{TypeSpec, clear_field, fastcall, method, quiet, slot};
use crate::wrapper;

static BREAKER: Breaker = Breaker::new("span");
static SPEC: SpanSpec = SpanSpec { name: "", kind: SpanKind::Internal, scope: &SCOPE };

#[repr(C)]
struct Block {
    ob_base: ffi::PyObject,
    name: *mut ffi::PyObject,
    /// Keys of the attributes, a tuple, or null.
    keys: *mut ffi::PyObject,
    /// Their values, a tuple of settled values, or null. Nothing here can refer back to us: no collector is needed.
    values: *mut ffi::PyObject,
    entered: bool,
    span: Option<StoredSpan>,
    /// What it was put in force with, or null: it holds the context, until the block is left.
    token: *mut ffi::PyObject,
}

static TYPE: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());

// SAFETY: called by the interpreter alone, as a function of the fastcall kind: attached, `count` arguments.
unsafe extern "C" fn make(
    _module: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    kwnames: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: a function with keywords: attached, `count` positional arguments, then one for each name.
    unsafe {
        let py = Python::assume_attached();
        if count != 1 || ffi::PyUnicode_Check(*args) == 0 {
            PyTypeError::new_err("span() takes one positional argument, the name, a str").restore(py);
            return ptr::null_mut();
        }
        let mut values = ptr::null_mut();
        let names = if kwnames.is_null() { 0 } else { ffi::PyTuple_Size(kwnames).unsigned_abs() };
        if names > 0 {
            let given = std::slice::from_raw_parts(args.add(1), names);
            let settled =
                given.iter().map(|value| attributes::settle(&Borrowed::from_ptr(py, *value).to_owned()));
            match PyTuple::new(py, settled.collect::<Vec<_>>()) {
                Ok(tuple) => values = tuple.into_ptr(),
                Err(error) => {
                    error.restore(py);
                    return ptr::null_mut();
                }
            }
        }
        let object = ffi::PyType_GenericAlloc(TYPE.load(Ordering::Relaxed), 0);
        if object.is_null() {
            ffi::Py_XDECREF(values);
            return object;
        }
        let this: *mut Block = object.cast();
        (&raw mut (*this).span).write(None);
        (&raw mut (*this).token).write(ptr::null_mut());
        (*this).name = ffi::Py_NewRef(*args);
        if names > 0 {
            (*this).keys = ffi::Py_NewRef(kwnames);
            (*this).values = values;
        }
        object
    }
}

// SAFETY: called by the interpreter alone, as a method of `Block`: attached, on a live block.
unsafe extern "C" fn enter(object: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: method: attached, a block.
    unsafe {
        let py = Python::assume_attached();
        let this: *mut Block = object.cast();
        if (*this).entered {
            PyRuntimeError::new_err("this span has been entered and not left").restore(py);
            return ptr::null_mut();
        }
        (*this).entered = true;
        wrapper::guarded(&BREAKER, || {
            let parent = current::current(py);
            let Some(span) = traced::begin(py, &SPEC, &parent) else { return Ok(()) };
            if span.is_recording() {
                Block::describe(this, py, &span);
            }
            (*this).token = current::put(py, &span);
            (*this).span = Some(span.store());
            Ok(())
        });
        ffi::Py_NewRef(object)
    }
}

impl Block {
    /// # Safety
    /// Attached; `this` is a block.
    unsafe fn describe(this: *mut Self, py: Python<'_>, span: &Span<'_>) {
        // SAFETY: by this function's contract; the fields are null or live and of the types that `make` gave them.
        unsafe {
            let name = Borrowed::from_ptr(py, (*this).name);
            let name = name.cast_unchecked::<PyString>();
            span.with(|span| match quiet(py, name.to_str()) {
                Some(name) => span.name(name),
                None => span.name(&name.to_string_lossy()),
            });
            if (*this).keys.is_null() {
                return;
            }
            let keys = Borrowed::from_ptr(py, (*this).keys);
            let values = Borrowed::from_ptr(py, (*this).values);
            let pairs =
                keys.cast_unchecked::<PyTuple>().iter().zip(values.cast_unchecked::<PyTuple>().iter());
            span.with(|span| {
                for (key, value) in pairs {
                    attributes::set(span, &key.cast_unchecked::<PyString>().to_string_lossy(), &value);
                }
            });
        }
    }
}

// SAFETY: called by the interpreter alone, as a method of `Block`: attached, on a live block.
unsafe extern "C" fn exit(
    object: *mut ffi::PyObject,
    args: *mut *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    // SAFETY: method: attached, a block, `count` arguments: class, exception, traceback.
    unsafe {
        let py = Python::assume_attached();
        let this: *mut Block = object.cast();
        (*this).entered = false;
        if let Some(span) = (*this).span.take() {
            let span = span.get(py);
            wrapper::guarded(&BREAKER, || {
                wrapper::leave(py, &span, (*this).token);
                clear_field(&raw mut (*this).token);
                if count > 1 && *args.add(1) != ffi::Py_None() {
                    wrapper::record(&span, &Borrowed::<'_, '_, PyAny>::from_ptr(py, *args.add(1)));
                }
                span.finish();
                Ok(())
            });
        }
        ffi::Py_NewRef(ffi::Py_None())
    }
}

// SAFETY: called by the interpreter alone, once, when the last reference to a block is gone.
unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
    let this: *mut Block = object.cast();
    // SAFETY: called once with the last reference gone, attached. Spans run no Python code when they go.
    unsafe {
        ffi::Py_XDECREF((*this).name);
        ffi::Py_XDECREF((*this).keys);
        ffi::Py_XDECREF((*this).values);
        ptr::drop_in_place(&raw mut (*this).span);
        ffi::Py_XDECREF((*this).token);
        let of = ffi::Py_TYPE(object);
        ffi::PyObject_Free(object.cast());
        ffi::Py_DECREF(of.cast());
    }
}

/// Adds `span` and its type to the module.
pub fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let spec = TypeSpec {
        name: c"remora._native.Span",
        size: size_of::<Block>(),
        flags: ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION | ffi::Py_TPFLAGS_IMMUTABLETYPE,
        slots: vec![slot(ffi::Py_tp_dealloc, dealloc as *mut c_void)],
        members: vec![],
        getset: vec![],
        methods: vec![method(c"__enter__", enter, ffi::METH_NOARGS), fastcall(c"__exit__", exit)],
    };
    // SAFETY: each function has the signature of its slot or flags. The definition of the function is leaked, as the
    // function may outlive everything here.
    unsafe {
        let of = spec.create(py)?;
        TYPE.store(of, Ordering::Release);
        module.add("Span", Bound::<PyAny>::from_borrowed_ptr(py, of.cast()))?;
        let definition: &'static mut ffi::PyMethodDef = Box::leak(Box::new(ffi::PyMethodDef {
            ml_name: c"span".as_ptr(),
            ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: make },
            ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
            ml_doc: c"span(name, /, **attributes)\n--\n\nA span for a `with` block.".as_ptr(),
        }));
        let name = PyString::new(py, "remora._native");
        let function = ffi::PyCFunction_NewEx(definition, ptr::null_mut(), name.as_ptr());
        module.add("span", Bound::from_owned_ptr_or_err(py, function)?)
    }
}
