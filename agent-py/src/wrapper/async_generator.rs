//! Asynchronous generators: as generators, step by step, where one step is itself awaited.
//!
//! `__anext__`, `asend`, `athrow` and `aclose` give a [`Step`] around the inner generator's own awaitable. The
//! interpreter's hooks for asynchronous generators see the inner one, which is also the one that a loop closes when
//! the outer is thrown away half-way.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Arc;

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyAny;

use super::delegate::{self, Delegate};
use super::function::guarded;
use super::strand::{Start, Step, Strand};
use crate::breaker::Breaker;
use crate::ffi::{LazyType, clear_field, fastcall, intern, method, quiet, slot, vectorcall_method};

#[repr(C)]
struct AsyncGenerator {
    delegate: Delegate,
    weakrefs: *mut ffi::PyObject,
    strand: Strand,
    /// Until the first step.
    start: Option<Arc<dyn Start>>,
    breaker: &'static Breaker,
    /// The address of the awaitable that has begun and not ended; 0 for none.
    active: usize,
}

/// One awaited step.
#[repr(C)]
struct Awaitable {
    delegate: Delegate,
    weakrefs: *mut ffi::PyObject,
    generator: *mut ffi::PyObject,
    /// `aclose`, which ends the generator.
    closing: bool,
}

static GENERATOR: LazyType = LazyType::new(create_generator);
static AWAITABLE: LazyType = LazyType::new(create_awaitable);

pub(super) fn is_async_generator(object: &Bound<'_, PyAny>) -> bool {
    GENERATOR.is_of(object)
}

pub(super) fn wrap<'py>(
    py: Python<'py>,
    inner: &Bound<'py, PyAny>,
    start: Arc<dyn Start>,
    breaker: &'static Breaker,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: attached; the fresh object's own fields are written before anyone sees them.
    unsafe {
        let object = GENERATOR.allocate(py)?;
        let this: *mut AsyncGenerator = object.cast();
        (&raw mut (*this).strand).write(Strand::default());
        (&raw mut (*this).start).write(Some(start));
        (&raw mut (*this).breaker).write(breaker);
        (*this).delegate.inner = inner.clone().into_ptr();
        Ok(Bound::from_owned_ptr(py, object))
    }
}

/// An awaitable around what the inner generator's method `name` gives.
///
/// # Safety
/// Attached; `this` is an asynchronous generator of ours.
unsafe fn step(
    this: *mut ffi::PyObject,
    name: *mut ffi::PyObject,
    args: &[*mut ffi::PyObject],
    closing: bool,
) -> *mut ffi::PyObject {
    // SAFETY: by this function's contract; the fresh object's own fields are written before anyone sees them.
    unsafe {
        let inner = (*this.cast::<Delegate>()).inner;
        if inner.is_null() {
            PyRuntimeError::new_err("asynchronous generator is gone").restore(Python::assume_attached());
            return ptr::null_mut();
        }
        let mut all: smallvec::SmallVec<[*mut ffi::PyObject; 4]> = smallvec::smallvec![inner];
        all.extend_from_slice(args);
        let awaitable = vectorcall_method(name, all.as_ptr(), all.len(), ptr::null_mut());
        if awaitable.is_null() {
            return awaitable;
        }
        let py = Python::assume_attached();
        let Some(object) = quiet(py, AWAITABLE.allocate(py)) else { return awaitable };
        let made: *mut Awaitable = object.cast();
        (*made).closing = closing;
        (*made).delegate.inner = awaitable;
        (*made).generator = ffi::Py_NewRef(this);
        object
    }
}

unsafe extern "C" fn anext(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: slot: attached, an asynchronous generator of ours.
    unsafe { step(this, intern!(Python::assume_attached(), "__anext__").as_ptr(), &[], false) }
}

unsafe extern "C" fn asend(this: *mut ffi::PyObject, value: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: method: attached, an asynchronous generator of ours.
    unsafe { step(this, intern!(Python::assume_attached(), "asend").as_ptr(), &[value], false) }
}

unsafe extern "C" fn athrow(
    this: *mut ffi::PyObject,
    args: *mut *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    // SAFETY: method: attached, an asynchronous generator of ours, `count` arguments.
    unsafe {
        let name = intern!(Python::assume_attached(), "athrow").as_ptr();
        step(this, name, delegate::arguments(args, count), false)
    }
}

unsafe extern "C" fn aclose(this: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: method: attached, an asynchronous generator of ours.
    unsafe { step(this, intern!(Python::assume_attached(), "aclose").as_ptr(), &[], true) }
}

impl Awaitable {
    /// Resumes the awaitable by `work`.
    ///
    /// # Safety
    /// Attached, called by slots of the type; the caller holds a reference.
    unsafe fn resume(this: *mut Self, py: Python<'_>, work: impl FnOnce(*mut ffi::PyObject) -> Step) -> Step {
        // SAFETY: by this function's contract. What runs stays alive through the step by references of our own.
        unsafe {
            let inner = (*this).delegate.inner;
            if inner.is_null() {
                return Step::Returned(ffi::Py_NewRef(ffi::Py_None()));
            }
            let inner = Bound::from_borrowed_ptr(py, inner);
            let generator = Bound::from_borrowed_ptr(py, (*this).generator);
            let of: *mut AsyncGenerator = generator.as_ptr().cast();
            // A second awaitable while another one is under way fails by itself, and that is not the generator's end.
            if (*of).active != 0 && (*of).active != this as usize {
                return work(inner.as_ptr());
            }
            (*of).active = this as usize;
            let start = (*of).start.take();
            if let Some(start) = start.filter(|_| !(*this).closing) {
                guarded((*of).breaker, || {
                    (*of).strand = Strand::begin(start, py);
                    Ok(())
                });
            }
            let step = Strand::step(&raw mut (*of).strand, py, || work(inner.as_ptr()));
            match &step {
                Step::Yielded(_) => {}
                Step::Returned(_) => {
                    (*of).active = 0;
                    if (*this).closing {
                        Strand::end(&raw mut (*of).strand, py, None);
                    } else {
                        Strand::yielded(&raw mut (*of).strand, py);
                    }
                }
                Step::Raised(raised) => {
                    (*of).active = 0;
                    guarded((*of).breaker, || {
                        Strand::end(&raw mut (*of).strand, py, Some(&raised.value(py)));
                        Ok(())
                    });
                }
            }
            step
        }
    }
}

unsafe extern "C" fn next(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: iterator slot: attached, an awaitable of ours. Its end is a `StopIteration` even without a value.
    unsafe {
        let py = Python::assume_attached();
        Awaitable::resume(this.cast(), py, |inner| Step::send(py, inner, ffi::Py_None())).into_method(py)
    }
}

unsafe extern "C" fn am_send(
    this: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    // SAFETY: send slot: attached, an awaitable of ours, a place for the result.
    unsafe {
        let py = Python::assume_attached();
        Awaitable::resume(this.cast(), py, |inner| Step::send(py, inner, value)).into_send(py, result)
    }
}

unsafe extern "C" fn send(this: *mut ffi::PyObject, value: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: method: attached, an awaitable of ours.
    unsafe {
        let py = Python::assume_attached();
        Awaitable::resume(this.cast(), py, |inner| Step::send(py, inner, value)).into_method(py)
    }
}

unsafe extern "C" fn throw(
    this: *mut ffi::PyObject,
    args: *mut *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    // SAFETY: method: attached, an awaitable of ours, `count` arguments.
    unsafe {
        let py = Python::assume_attached();
        let args = delegate::arguments(args, count);
        let name = intern!(py, "throw").as_ptr();
        Awaitable::resume(this.cast(), py, |inner| Step::call(py, inner, name, args)).into_method(py)
    }
}

unsafe extern "C" fn close(this: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: method: attached, an awaitable of ours. What the generator does now it does with its span in force.
    unsafe {
        let py = Python::assume_attached();
        let awaitable: *mut Awaitable = this.cast();
        let generator = Bound::from_borrowed_ptr(py, (*awaitable).generator);
        let of: *mut AsyncGenerator = generator.as_ptr().cast();
        if (*of).active == this as usize {
            (*of).active = 0;
        }
        let Some(inner) = Bound::from_borrowed_ptr_or_opt(py, (*awaitable).delegate.inner) else {
            // Cleared by the collector, which has closed it.
            return ffi::Py_NewRef(ffi::Py_None());
        };
        let name = intern!(py, "close").as_ptr();
        let step = Strand::step(&raw mut (*of).strand, py, || Step::call(py, inner.as_ptr(), name, &[]));
        step.into_next(py)
    }
}

unsafe extern "C" fn traverse_generator(
    this: *mut ffi::PyObject,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the collector's slot: a generator of ours.
    unsafe { delegate::visit_all(&[(*this.cast::<Delegate>()).inner, ffi::Py_TYPE(this).cast()], visit, arg) }
}

unsafe extern "C" fn clear_generator(this: *mut ffi::PyObject) -> c_int {
    let this: *mut AsyncGenerator = this.cast();
    // SAFETY: the collector's slot or `dealloc`: attached. The loop's finaliser hook, which runs here, copies the context
    // for the task that closes the inner generator: what that does belongs to this span.
    unsafe {
        (*this).start = None;
        let py = Python::assume_attached();
        Strand::last(&raw mut (*this).strand, py, || clear_field(&raw mut (*this).delegate.inner));
    }
    0
}

unsafe extern "C" fn dealloc_generator(object: *mut ffi::PyObject) {
    let this: *mut AsyncGenerator = object.cast();
    // SAFETY: called once with the last reference gone; the order is the one that the C API asks for.
    unsafe {
        ffi::PyObject_GC_UnTrack(object.cast());
        if !(*this).weakrefs.is_null() {
            ffi::PyObject_ClearWeakRefs(object);
        }
        clear_generator(object);
        ptr::drop_in_place(&raw mut (*this).strand);
        ptr::drop_in_place(&raw mut (*this).start);
        let of = ffi::Py_TYPE(object);
        ffi::PyObject_GC_Del(object.cast());
        ffi::Py_DECREF(of.cast());
    }
}

unsafe extern "C" fn traverse_awaitable(
    this: *mut ffi::PyObject,
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    // SAFETY: the collector's slot: an awaitable of ours.
    unsafe {
        let awaitable: *mut Awaitable = this.cast();
        let references = [(*awaitable).delegate.inner, (*awaitable).generator, ffi::Py_TYPE(this).cast()];
        delegate::visit_all(&references, visit, arg)
    }
}

unsafe extern "C" fn clear_awaitable(this: *mut ffi::PyObject) -> c_int {
    let this: *mut Awaitable = this.cast();
    // SAFETY: the collector's slot or `dealloc`: attached. The generator stays until the object goes: a finaliser may
    // still come here.
    unsafe {
        let of: *mut AsyncGenerator = (*this).generator.cast();
        if !of.is_null() && (*of).active == this as usize {
            (*of).active = 0;
        }
        clear_field(&raw mut (*this).delegate.inner);
    }
    0
}

unsafe extern "C" fn dealloc_awaitable(object: *mut ffi::PyObject) {
    let this: *mut Awaitable = object.cast();
    // SAFETY: called once with the last reference gone; the order is the one that the C API asks for.
    unsafe {
        ffi::PyObject_GC_UnTrack(object.cast());
        if !(*this).weakrefs.is_null() {
            ffi::PyObject_ClearWeakRefs(object);
        }
        clear_awaitable(object);
        clear_field(&raw mut (*this).generator);
        let of = ffi::Py_TYPE(object);
        ffi::PyObject_GC_Del(object.cast());
        ffi::Py_DECREF(of.cast());
    }
}

fn create_generator(py: Python<'_>) -> PyResult<*mut ffi::PyTypeObject> {
    let slots = [
        slot(ffi::Py_am_aiter, ffi::PyObject_SelfIter as *mut c_void),
        slot(ffi::Py_am_anext, anext as *mut c_void),
        slot(ffi::Py_tp_traverse, traverse_generator as *mut c_void),
        slot(ffi::Py_tp_clear, clear_generator as *mut c_void),
        slot(ffi::Py_tp_dealloc, dealloc_generator as *mut c_void),
    ];
    let methods = [
        method(c"asend", asend, ffi::METH_O),
        fastcall(c"athrow", athrow),
        method(c"aclose", aclose, ffi::METH_NOARGS),
    ];
    let weakrefs = std::mem::offset_of!(AsyncGenerator, weakrefs);
    let spec = delegate::spec(
        c"remora._native.AsyncGenerator",
        size_of::<AsyncGenerator>(),
        weakrefs,
        &slots,
        methods,
    );
    // SAFETY: each function has its slot's signature; the member lies inside `AsyncGenerator`.
    unsafe { spec.create(py) }
}

fn create_awaitable(py: Python<'_>) -> PyResult<*mut ffi::PyTypeObject> {
    let slots = [
        slot(ffi::Py_am_await, ffi::PyObject_SelfIter as *mut c_void),
        slot(ffi::Py_am_send, am_send as *mut c_void),
        slot(ffi::Py_tp_iter, ffi::PyObject_SelfIter as *mut c_void),
        slot(ffi::Py_tp_iternext, next as *mut c_void),
        slot(ffi::Py_tp_traverse, traverse_awaitable as *mut c_void),
        slot(ffi::Py_tp_clear, clear_awaitable as *mut c_void),
        slot(ffi::Py_tp_dealloc, dealloc_awaitable as *mut c_void),
    ];
    let methods = [
        method(c"send", send, ffi::METH_O),
        fastcall(c"throw", throw),
        method(c"close", close, ffi::METH_NOARGS),
    ];
    let weakrefs = std::mem::offset_of!(Awaitable, weakrefs);
    let spec = delegate::spec(c"remora._native.Awaitable", size_of::<Awaitable>(), weakrefs, &slots, methods);
    // SAFETY: each function has its slot's signature; the member lies inside `Awaitable`.
    unsafe { spec.create(py) }
}
