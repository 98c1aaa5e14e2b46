//! What generators and bodies have in common: a span that is in force only while they run.
//!
//! At each suspension what was in force inside is remembered and what was in force outside is put back, by value; no
//! token outlives one step.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use agent_core::span::SpanSpec;
use pyo3::exceptions::PyStopIteration;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyAny;

use super::outcome::{is_control_flow, record};
use crate::current::{self, Span, StoredSpan};
use crate::ffi::{Raised, iter_send, quiet, vectorcall_method};

/// Makes the span of a generator at its first step.
pub trait Start: Send + Sync {
    /// A span under `parent`, or none.
    fn start<'py>(&self, py: Python<'py>, parent: &Option<Span<'py>>) -> Option<Span<'py>>;

    /// Whether it ends when the first value is there; what happens later is not its.
    fn ends_with_first(&self) -> bool {
        false
    }

    /// Records what the generator failed with.
    fn fail(&self, span: &Span<'_>, error: &Bound<'_, PyAny>) {
        record(span, error);
    }
}

impl Start for SpanSpec {
    fn start<'py>(&self, py: Python<'py>, parent: &Option<Span<'py>>) -> Option<Span<'py>> {
        current::start(py, self, parent)
    }
}

/// How a step ended.
pub(super) enum Step {
    /// At a `yield` (or an `await`), with the value: an owned reference.
    Yielded(*mut ffi::PyObject),
    /// At the end, with the value: an owned reference.
    Returned(*mut ffi::PyObject),
    /// With an exception.
    Raised(Raised),
}

impl Step {
    /// Sends a value into an iterator. `None` is an ordinary next.
    ///
    /// # Safety
    /// Attached, live objects.
    pub(super) unsafe fn send(
        py: Python<'_>,
        iterator: *mut ffi::PyObject,
        value: *mut ffi::PyObject,
    ) -> Self {
        let mut result = ptr::null_mut();
        // SAFETY: by this function's contract; `result` receives an owned reference.
        match unsafe { iter_send(iterator, value, &raw mut result) } {
            ffi::PySendResult::PYGEN_NEXT => Self::Yielded(result),
            ffi::PySendResult::PYGEN_RETURN => Self::Returned(result),
            ffi::PySendResult::PYGEN_ERROR => Self::raised(py),
        }
    }

    /// Calls a method of an iterator (`throw`). A `StopIteration` is the iterator's return.
    ///
    /// # Safety
    /// Attached, live objects; `args` holds `count` arguments with one place in front of them.
    pub(super) unsafe fn call(
        py: Python<'_>,
        iterator: *mut ffi::PyObject,
        name: *mut ffi::PyObject,
        args: &[*mut ffi::PyObject],
    ) -> Self {
        let mut all: smallvec::SmallVec<[*mut ffi::PyObject; 4]> = smallvec::smallvec![iterator];
        all.extend_from_slice(args);
        // SAFETY: by this function's contract.
        let result = unsafe { vectorcall_method(name, all.as_ptr(), all.len(), ptr::null_mut()) };
        if !result.is_null() {
            return Self::Yielded(result);
        }
        let step = Self::raised(py);
        if let Self::Raised(raised) = &step
            && let Ok(stop) = raised.value(py).cast::<PyStopIteration>()
            && let Some(value) = quiet(py, stop.getattr(crate::ffi::intern!(py, "value")))
        {
            return Self::Returned(value.into_ptr());
        }
        step
    }

    pub(super) fn raised(py: Python<'_>) -> Self {
        match Raised::take(py) {
            Some(raised) => Self::Raised(raised),
            // The iterator protocol lets an exhausted one return null alone.
            // SAFETY: attached.
            None => Self::Returned(unsafe { ffi::Py_NewRef(ffi::Py_None()) }),
        }
    }

    /// As `tp_iternext` answers.
    pub(super) fn into_next(self, py: Python<'_>) -> *mut ffi::PyObject {
        match self {
            Self::Yielded(value) => value,
            Self::Returned(value) => {
                // SAFETY: attached; an owned reference.
                let value = unsafe { Bound::from_owned_ptr(py, value) };
                if !value.is_none() {
                    stop(&value);
                }
                ptr::null_mut()
            }
            Self::Raised(raised) => {
                raised.restore(py);
                ptr::null_mut()
            }
        }
    }

    /// As the methods `send` and `throw` answer: the end is a `StopIteration`.
    pub(super) fn into_method(self, py: Python<'_>) -> *mut ffi::PyObject {
        match self {
            Self::Returned(value) => {
                // SAFETY: attached; an owned reference.
                stop(&unsafe { Bound::from_owned_ptr(py, value) });
                ptr::null_mut()
            }
            other => other.into_next(py),
        }
    }

    /// As `am_send` answers.
    ///
    /// # Safety
    /// `result` may be written to.
    pub(super) unsafe fn into_send(
        self,
        py: Python<'_>,
        result: *mut *mut ffi::PyObject,
    ) -> ffi::PySendResult {
        let (value, answer) = match self {
            Self::Yielded(value) => (value, ffi::PySendResult::PYGEN_NEXT),
            Self::Returned(value) => (value, ffi::PySendResult::PYGEN_RETURN),
            Self::Raised(raised) => {
                raised.restore(py);
                (ptr::null_mut(), ffi::PySendResult::PYGEN_ERROR)
            }
        };
        // SAFETY: by this function's contract.
        unsafe { *result = value };
        answer
    }
}

/// Raises `StopIteration` with a value, which may itself be a tuple or an exception.
fn stop(value: &Bound<'_, PyAny>) {
    // SAFETY: attached; the exception object is made before it is set, so that it is not unpacked.
    unsafe {
        if value.is_none() {
            ffi::PyErr_SetNone(ffi::PyExc_StopIteration);
            return;
        }
        let stop = ffi::PyObject_CallOneArg(ffi::PyExc_StopIteration, value.as_ptr());
        if !stop.is_null() {
            ffi::PyErr_SetObject(ffi::PyExc_StopIteration, stop);
            ffi::Py_DECREF(stop);
        }
    }
}

/// The span of something that runs in steps.
#[derive(Default)]
pub(super) struct Strand {
    span: Option<StoredSpan>,
    /// What was in force inside at the last suspension, where that is another span.
    inside: Option<StoredSpan>,
    /// A step is on its way.
    running: bool,
    /// What made the span, where that says how it ends.
    how: Option<Arc<dyn Start>>,
    /// The span is somebody else's to end.
    lent: bool,
}

impl Strand {
    pub(super) fn of(span: Option<Span<'_>>) -> Self {
        Self { span: span.map(Span::store), ..Self::default() }
    }

    /// With the span that `start` makes here and now.
    pub(super) fn begin(start: Arc<dyn Start>, py: Python<'_>) -> Self {
        let span = start.start(py, &current::current(py));
        Self { span: span.map(Span::store), how: Some(start), ..Self::default() }
    }

    /// A value is there.
    ///
    /// # Safety
    /// As for [`Self::end`].
    pub(super) unsafe fn yielded(this: *mut Self, py: Python<'_>) {
        // SAFETY: by this function's contract.
        unsafe {
            if (*this).span.is_some() && (*this).how.as_ref().is_some_and(|how| how.ends_with_first()) {
                Self::end(this, py, None);
            }
        }
    }

    /// Of a span that ends elsewhere.
    pub(super) fn lent(span: Span<'_>) -> Self {
        Self { lent: true, ..Self::of(Some(span)) }
    }

    pub(super) fn is_running(&self) -> bool {
        self.running
    }

    /// Runs `work` with the span in force.
    ///
    /// # Safety
    /// Attached; `this` lives through the call. Nothing of it is borrowed while `work` runs: it may come back here.
    /// `work` leaves no exception pending.
    pub(super) unsafe fn step<R>(this: *mut Self, py: Python<'_>, work: impl FnOnce() -> R) -> R {
        // SAFETY: by this function's contract.
        unsafe {
            if (*this).running {
                return work();
            }
            let Some(span) = (*this).span.as_ref().map(|span| span.get(py)) else { return work() };
            let inside = (*this).inside.take().map(|inside| inside.get(py));
            (*this).running = true;
            let entered = inside.as_ref().unwrap_or(&span).enter(current::current(py));
            let result = work();
            let now = current::current(py).filter(|now| !now.is(&span));
            (*this).inside = now.map(Span::store);
            drop(entered);
            (*this).running = false;
            result
        }
    }

    /// Ends the span, once. No exception is pending.
    ///
    /// # Safety
    /// Attached; `this` is alive.
    pub(super) unsafe fn end(this: *mut Self, py: Python<'_>, error: Option<&Bound<'_, PyAny>>) {
        // SAFETY: by this function's contract; the fields are taken out before anything runs.
        unsafe {
            drop((*this).inside.take());
            if let Some(span) = (*this).span.take() {
                let span = span.get(py);
                match (error, (*this).how.take()) {
                    (Some(error), Some(how)) if !is_control_flow(error) => how.fail(&span, error),
                    (Some(_), Some(_)) => {}
                    (Some(error), None) => record(&span, error),
                    (None, _) => {}
                }
                if !(*this).lent {
                    // With its body a request is over.
                    span.note().subject.store(0, Ordering::Relaxed);
                    span.finish();
                }
            }
        }
    }

    /// Records an exception without ending the span.
    ///
    /// # Safety
    /// As for [`Self::end`].
    pub(super) unsafe fn record(this: *mut Self, py: Python<'_>, error: &Bound<'_, PyAny>) {
        // SAFETY: by this function's contract.
        if let Some(span) = unsafe { (*this).span.as_ref().map(|span| span.get(py)) } {
            record(&span, error);
        }
    }

    /// Runs `work` in a destructor, where an exception may be pending: with the span in force, which then ends.
    ///
    /// # Safety
    /// Attached; `this` is alive.
    pub(super) unsafe fn last(this: *mut Self, py: Python<'_>, work: impl FnOnce()) {
        let pending = Raised::take(py);
        // SAFETY: by this function's contract; nothing is pending now.
        unsafe {
            Self::step(this, py, work);
            Self::end(this, py, None);
        }
        if let Some(pending) = pending {
            pending.restore(py);
        }
    }
}
