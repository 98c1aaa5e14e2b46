//! Generators: an iterator that answers as the original's generator and keeps a span in force while it runs.
//!
//! The span starts with the first step and ends when the generator is exhausted, closed, fails or is thrown away.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Arc;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyAny;

use super::async_generator;
use super::call::{Call, HookResult};
use super::delegate::{self, Delegate};
use super::function::{Behaviour, guarded};
use super::strand::{Start, Step, Strand};
use crate::breaker::Breaker;
use crate::ffi::{LazyType, clear_field, fastcall, intern, method, slot};

/// Around a function that returns generators, of either kind.
pub struct Generators {
    start: Arc<dyn Start>,
    breaker: &'static Breaker,
}

impl Generators {
    /// Faults count in `breaker`.
    pub fn new(start: Arc<dyn Start>, breaker: &'static Breaker) -> Self {
        Self { start, breaker }
    }
}

impl Behaviour for Generators {
    fn call(&self, call: &mut Call<'_>) -> HookResult {
        let py = call.py();
        call.proceed();
        let Some(result) = call.result() else { return Ok(()) };
        if let Some(made) = follow_generator(py, &result, || Arc::clone(&self.start), self.breaker)? {
            call.replace_result(made);
        }
        Ok(())
    }
}

/// What stands for a generator, of either kind, and has a span around its steps; `None` for anything else.
pub fn follow_generator<'py>(
    py: Python<'py>,
    generator: &Bound<'py, PyAny>,
    start: impl FnOnce() -> Arc<dyn Start>,
    breaker: &'static Breaker,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    // SAFETY: a live object.
    let (sync, asynchronous) = unsafe {
        (ffi::PyGen_CheckExact(generator.as_ptr()) != 0, ffi::PyAsyncGen_CheckExact(generator.as_ptr()) != 0)
    };
    if sync || is_generator(generator) {
        wrap(py, generator, start(), breaker).map(Some)
    } else if asynchronous || async_generator::is_async_generator(generator) {
        async_generator::wrap(py, generator, start(), breaker).map(Some)
    } else {
        Ok(None)
    }
}

#[repr(C)]
struct Generator {
    delegate: Delegate,
    weakrefs: *mut ffi::PyObject,
    strand: Strand,
    /// Until the first step.
    start: Option<Arc<dyn Start>>,
    breaker: &'static Breaker,
}

static TYPE: LazyType = LazyType::new(create);

fn is_generator(object: &Bound<'_, PyAny>) -> bool {
    TYPE.is_of(object)
}

fn wrap<'py>(
    py: Python<'py>,
    inner: &Bound<'py, PyAny>,
    start: Arc<dyn Start>,
    breaker: &'static Breaker,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: attached; the fresh object's own fields are written before anyone sees them.
    unsafe {
        let object = TYPE.allocate(py)?;
        let this: *mut Generator = object.cast();
        (&raw mut (*this).strand).write(Strand::default());
        (&raw mut (*this).start).write(Some(start));
        (&raw mut (*this).breaker).write(breaker);
        (*this).delegate.inner = inner.clone().into_ptr();
        Ok(Bound::from_owned_ptr(py, object))
    }
}

impl Generator {
    /// One step of the inner generator, by `work`.
    ///
    /// # Safety
    /// Attached, called by slots of the type; the caller holds a reference.
    unsafe fn resume(this: *mut Self, py: Python<'_>, work: impl FnOnce(*mut ffi::PyObject) -> Step) -> Step {
        // SAFETY: by this function's contract. The generator stays alive through the step by a reference of our own.
        unsafe {
            let inner = (*this).delegate.inner;
            if inner.is_null() {
                return Step::Returned(ffi::Py_NewRef(ffi::Py_None()));
            }
            let inner = Bound::from_borrowed_ptr(py, inner);
            // A generator that is asked while it runs says so itself, and that is not its end.
            let again = (*this).strand.is_running();
            if let Some(start) = (*this).start.take() {
                guarded((*this).breaker, || {
                    (*this).strand = Strand::begin(start, py);
                    Ok(())
                });
            }
            let step = Strand::step(&raw mut (*this).strand, py, || work(inner.as_ptr()));
            if !again {
                match &step {
                    Step::Yielded(_) => Strand::yielded(&raw mut (*this).strand, py),
                    Step::Returned(_) => Strand::end(&raw mut (*this).strand, py, None),
                    Step::Raised(raised) => guarded((*this).breaker, || {
                        Strand::end(&raw mut (*this).strand, py, Some(&raised.value(py)));
                        Ok(())
                    }),
                }
            }
            step
        }
    }
}

unsafe extern "C" fn next(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: iterator slot: attached, a generator of ours.
    unsafe {
        let py = Python::assume_attached();
        Generator::resume(this.cast(), py, |inner| Step::send(py, inner, ffi::Py_None())).into_next(py)
    }
}

unsafe extern "C" fn am_send(
    this: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    // SAFETY: send slot: attached, a generator of ours, a place for the result.
    unsafe {
        let py = Python::assume_attached();
        Generator::resume(this.cast(), py, |inner| Step::send(py, inner, value)).into_send(py, result)
    }
}

unsafe extern "C" fn send(this: *mut ffi::PyObject, value: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: method: attached, a generator of ours.
    unsafe {
        let py = Python::assume_attached();
        Generator::resume(this.cast(), py, |inner| Step::send(py, inner, value)).into_method(py)
    }
}

unsafe extern "C" fn throw(
    this: *mut ffi::PyObject,
    args: *mut *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    // SAFETY: method: attached, a generator of ours, `count` arguments.
    unsafe {
        let py = Python::assume_attached();
        let args = delegate::arguments(args, count);
        let name = intern!(py, "throw").as_ptr();
        Generator::resume(this.cast(), py, |inner| Step::call(py, inner, name, args)).into_method(py)
    }
}

unsafe extern "C" fn close(this: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: method: attached, a generator of ours.
    unsafe {
        let py = Python::assume_attached();
        let generator: *mut Generator = this.cast();
        // Closed before its first step, it has done nothing.
        if !(*generator).strand.is_running() {
            (*generator).start = None;
        }
        let step = Generator::resume(generator, py, |inner| {
            match Step::call(py, inner, intern!(py, "close").as_ptr(), &[]) {
                // What `close` returned; the generator is at its end.
                Step::Yielded(result) => Step::Returned(result),
                other => other,
            }
        });
        match step {
            Step::Returned(result) => result,
            other => other.into_method(py),
        }
    }
}

unsafe extern "C" fn traverse(this: *mut ffi::PyObject, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: the collector's slot: a generator of ours.
    unsafe { delegate::visit_all(&[(*this.cast::<Delegate>()).inner, ffi::Py_TYPE(this).cast()], visit, arg) }
}

unsafe extern "C" fn clear(this: *mut ffi::PyObject) -> c_int {
    let this: *mut Generator = this.cast();
    // SAFETY: the collector's slot or `dealloc`: attached. What the generator does when it is thrown away half-way, it
    // does with its span in force.
    unsafe {
        (*this).start = None;
        let py = Python::assume_attached();
        Strand::last(&raw mut (*this).strand, py, || clear_field(&raw mut (*this).delegate.inner));
    }
    0
}

unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
    let this: *mut Generator = object.cast();
    // SAFETY: called once with the last reference gone; the order is the one that the C API asks for.
    unsafe {
        ffi::PyObject_GC_UnTrack(object.cast());
        if !(*this).weakrefs.is_null() {
            ffi::PyObject_ClearWeakRefs(object);
        }
        clear(object);
        ptr::drop_in_place(&raw mut (*this).strand);
        ptr::drop_in_place(&raw mut (*this).start);
        let of = ffi::Py_TYPE(object);
        ffi::PyObject_GC_Del(object.cast());
        ffi::Py_DECREF(of.cast());
    }
}

fn create(py: Python<'_>) -> PyResult<*mut ffi::PyTypeObject> {
    let slots = [
        slot(ffi::Py_tp_iter, ffi::PyObject_SelfIter as *mut c_void),
        slot(ffi::Py_tp_iternext, next as *mut c_void),
        slot(ffi::Py_am_send, am_send as *mut c_void),
        slot(ffi::Py_tp_traverse, traverse as *mut c_void),
        slot(ffi::Py_tp_clear, clear as *mut c_void),
        slot(ffi::Py_tp_dealloc, dealloc as *mut c_void),
    ];
    let methods = [
        method(c"send", send, ffi::METH_O),
        fastcall(c"throw", throw),
        method(c"close", close, ffi::METH_NOARGS),
    ];
    let weakrefs = std::mem::offset_of!(Generator, weakrefs);
    let spec = delegate::spec(c"remora._native.Generator", size_of::<Generator>(), weakrefs, &slots, methods);
    // SAFETY: each function has its slot's signature; the member lies inside `Generator`.
    unsafe { spec.create(py) }
}
