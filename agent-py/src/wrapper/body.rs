//! A response body that is made piece by piece.
//!
//! The span is in force while a piece is made and while the body is closed, and ends there, or when the body is thrown
//! away.

use std::ffi::{CStr, c_int, c_void};
use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyAny;

use super::delegate::{self, Delegate};
use super::function::guarded;
use super::strand::{Step, Strand};
use crate::breaker::Breaker;
use crate::current::Span;
use crate::ffi::{LazyType, clear_field, intern, method, slot, vectorcall};

static BREAKER: Breaker = Breaker::new("body");

#[repr(C)]
struct Body {
    delegate: Delegate,
    weakrefs: *mut ffi::PyObject,
    iterator: *mut ffi::PyObject,
    strand: Strand,
}

static PLAIN: LazyType = LazyType::new(|py| create(py, c"remora._native.Body", false));
/// Around bodies that have a length.
static SIZED: LazyType = LazyType::new(|py| create(py, c"remora._native.SizedBody", true));

/// An iterator with `close` around a WSGI body: the span is in force while a piece is made and ends with the body.
pub fn wrap_body<'py>(body: &Bound<'py, PyAny>, span: Span<'py>) -> PyResult<Bound<'py, PyAny>> {
    wrap_steps(body, Strand::of(Some(span)))
}

/// As [`wrap_body`], around the pieces of a body that ends the span itself.
pub fn wrap_pieces<'py>(pieces: &Bound<'py, PyAny>, span: Span<'py>) -> PyResult<Bound<'py, PyAny>> {
    wrap_steps(pieces, Strand::lent(span))
}

fn wrap_steps<'py>(body: &Bound<'py, PyAny>, strand: Strand) -> PyResult<Bound<'py, PyAny>> {
    let py = body.py();
    let sized = body.get_type().hasattr(intern!(py, "__len__"))?;
    let of = if sized { &SIZED } else { &PLAIN };
    // SAFETY: attached; the fresh object's own fields are written before anyone sees them.
    unsafe {
        let object = of.allocate(py)?;
        let this: *mut Body = object.cast();
        (&raw mut (*this).strand).write(strand);
        (*this).delegate.inner = body.clone().into_ptr();
        Ok(Bound::from_owned_ptr(py, object))
    }
}

impl Body {
    /// Runs `work` on the body, with the span in force, and records what it raises.
    ///
    /// # Safety
    /// Attached, called by slots of the type; the caller holds a reference.
    unsafe fn run(this: *mut Self, py: Python<'_>, work: impl FnOnce(*mut ffi::PyObject) -> Step) -> Step {
        // SAFETY: by this function's contract. The body stays alive through the step by a reference of our own.
        unsafe {
            let inner = (*this).delegate.inner;
            if inner.is_null() {
                return Step::Returned(ffi::Py_NewRef(ffi::Py_None()));
            }
            let inner = Bound::from_borrowed_ptr(py, inner);
            let step = Strand::step(&raw mut (*this).strand, py, || work(inner.as_ptr()));
            if let Step::Raised(raised) = &step {
                guarded(&BREAKER, || {
                    Strand::record(&raw mut (*this).strand, py, &raised.value(py));
                    Ok(())
                });
            }
            step
        }
    }

    /// As [`Self::run`]; makes the iterator where there is none yet.
    unsafe fn iterator(this: *mut Self, py: Python<'_>, inner: *mut ffi::PyObject) -> Result<(), Step> {
        // SAFETY: by this function's contract.
        unsafe {
            if (*this).iterator.is_null() {
                let iterator = ffi::PyObject_GetIter(inner);
                if iterator.is_null() {
                    return Err(Step::raised(py));
                }
                // Made meanwhile by what `__iter__` ran, it stays.
                if (*this).iterator.is_null() {
                    (*this).iterator = iterator;
                } else {
                    ffi::Py_DECREF(iterator);
                }
            }
        }
        Ok(())
    }
}

unsafe extern "C" fn iter(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: iterator slot: attached, a body of ours.
    unsafe {
        let py = Python::assume_attached();
        let body: *mut Body = this.cast();
        let step = Body::run(body, py, |inner| match Body::iterator(body, py, inner) {
            Ok(()) => Step::Yielded(ffi::Py_NewRef(this)),
            Err(step) => step,
        });
        match step {
            Step::Returned(none) => {
                ffi::Py_DECREF(none);
                ffi::Py_NewRef(this)
            }
            other => other.into_next(py),
        }
    }
}

unsafe extern "C" fn next(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: iterator slot: attached, a body of ours.
    unsafe {
        let py = Python::assume_attached();
        let body: *mut Body = this.cast();
        let step = Body::run(body, py, |inner| match Body::iterator(body, py, inner) {
            Ok(()) => {
                let iterator = Bound::from_borrowed_ptr(py, (*body).iterator);
                Step::send(py, iterator.as_ptr(), ffi::Py_None())
            }
            Err(step) => step,
        });
        step.into_next(py)
    }
}

unsafe extern "C" fn close(this: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: method: attached, a body of ours.
    unsafe {
        let py = Python::assume_attached();
        let body: *mut Body = this.cast();
        let step = Body::run(body, py, |inner| {
            let close = ffi::PyObject_GetAttr(inner, intern!(py, "close").as_ptr());
            if close.is_null() {
                if ffi::PyErr_ExceptionMatches(ffi::PyExc_AttributeError) == 0 {
                    return Step::raised(py);
                }
                ffi::PyErr_Clear();
                return Step::Yielded(ffi::Py_NewRef(ffi::Py_None()));
            }
            let result = vectorcall(close, ptr::null(), 0, ptr::null_mut());
            ffi::Py_DECREF(close);
            if result.is_null() { Step::raised(py) } else { Step::Yielded(result) }
        });
        Strand::end(&raw mut (*body).strand, py, None);
        match step {
            // Cleared by the collector.
            Step::Returned(none) => none,
            other => other.into_next(py),
        }
    }
}

unsafe extern "C" fn length(this: *mut ffi::PyObject) -> ffi::Py_ssize_t {
    // SAFETY: sequence slot: attached, a body of ours.
    unsafe {
        let inner = (*this.cast::<Delegate>()).inner;
        if inner.is_null() { 0 } else { ffi::PyObject_Size(inner) }
    }
}

unsafe extern "C" fn traverse(this: *mut ffi::PyObject, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: the collector's slot: a body of ours.
    unsafe {
        let body: *mut Body = this.cast();
        let references = [(*body).delegate.inner, (*body).iterator, ffi::Py_TYPE(this).cast()];
        delegate::visit_all(&references, visit, arg)
    }
}

unsafe extern "C" fn clear(this: *mut ffi::PyObject) -> c_int {
    let this: *mut Body = this.cast();
    // SAFETY: the collector's slot or `dealloc`: attached.
    unsafe {
        let py = Python::assume_attached();
        Strand::last(&raw mut (*this).strand, py, || {
            clear_field(&raw mut (*this).iterator);
            clear_field(&raw mut (*this).delegate.inner);
        });
    }
    0
}

unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
    let this: *mut Body = object.cast();
    // SAFETY: called once with the last reference gone; the order is the one that the C API asks for.
    unsafe {
        ffi::PyObject_GC_UnTrack(object.cast());
        if !(*this).weakrefs.is_null() {
            ffi::PyObject_ClearWeakRefs(object);
        }
        clear(object);
        ptr::drop_in_place(&raw mut (*this).strand);
        let of = ffi::Py_TYPE(object);
        ffi::PyObject_GC_Del(object.cast());
        ffi::Py_DECREF(of.cast());
    }
}

fn create(py: Python<'_>, name: &'static CStr, sized: bool) -> PyResult<*mut ffi::PyTypeObject> {
    let mut slots = vec![
        slot(ffi::Py_tp_iter, iter as *mut c_void),
        slot(ffi::Py_tp_iternext, next as *mut c_void),
        slot(ffi::Py_tp_traverse, traverse as *mut c_void),
        slot(ffi::Py_tp_clear, clear as *mut c_void),
        slot(ffi::Py_tp_dealloc, dealloc as *mut c_void),
    ];
    if sized {
        slots.push(slot(ffi::Py_mp_length, length as *mut c_void));
    }
    let methods = [method(c"close", close, ffi::METH_NOARGS)];
    let weakrefs = std::mem::offset_of!(Body, weakrefs);
    let spec = delegate::spec(name, size_of::<Body>(), weakrefs, &slots, methods);
    // SAFETY: each function has its slot's signature; the member lies inside `Body`.
    unsafe { spec.create(py) }
}
