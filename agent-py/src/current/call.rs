//! A span in force for one synchronous call, without the context variable.
//!
//! To set the variable and to reset it builds two tries: as much work as all the rest of a database's span. Where the
//! thread does nothing else until the call returns, it is enough that the thread itself remembers the span, together
//! with what the variable held: where that is something else (a task's span, another context) it does not count.
//!
//! Not seen there: a context that is copied inside the call and run by another thread, or later. Greenlets take turns
//! on one thread within calls: once the application has imported `greenlet`, the variable is set as ever.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;

use super::{Entered, Span};
use crate::hook;

static GREENLETS: AtomicBool = AtomicBool::new(false);

/// Waits for `greenlet`.
pub fn install(py: Python<'_>) -> PyResult<()> {
    hook::register(py, "greenlet", wrap_pyfunction!(greenlets, py)?.into_any())
}

#[pyfunction]
fn greenlets(_module: &Bound<'_, PyAny>) {
    GREENLETS.store(true, Ordering::Relaxed);
}

#[derive(Clone, Copy)]
struct InCall {
    /// Null where there is none.
    span: *mut ffi::PyObject,
    /// What the variable held, kept alive by the guard; may be null.
    over: *mut ffi::PyObject,
}

thread_local! {
    static IN_CALL: Cell<InCall> = const { Cell::new(InCall { span: ptr::null_mut(), over: ptr::null_mut() }) };
}

/// The span of the call that this thread is in, where the variable holds `value` as it did when the call began.
#[inline]
pub(super) fn inside(py: Python<'_>, value: *mut ffi::PyObject) -> Option<Span<'_>> {
    let call = IN_CALL.get();
    if call.span.is_null() || call.over != value {
        return None;
    }
    // SAFETY: the guard, which this call is inside of, borrows the span.
    unsafe { Span::from_value(py, ffi::Py_NewRef(call.span)) }
}

/// A span in force until the call is over.
pub struct InForce<'a, 'py> {
    before: InCall,
    /// An owned reference, or null.
    over: *mut ffi::PyObject,
    /// Where the variable was set instead.
    _entered: Option<Entered<'py>>,
    /// The span outlives the guard; the guard stays on its thread.
    span: PhantomData<(&'a Span<'py>, *mut ())>,
}

impl<'py> Span<'py> {
    /// As [`Span::enter`], for a call that is over before this thread does anything else.
    #[inline]
    pub fn enter_call(&self, previous: Option<Span<'py>>) -> InForce<'_, 'py> {
        let before = IN_CALL.get();
        if GREENLETS.load(Ordering::Relaxed) {
            let entered = Some(self.enter(previous));
            return InForce { before, over: ptr::null_mut(), _entered: entered, span: PhantomData };
        }
        super::used(super::BY_CALL);
        let over = super::value(self.py());
        IN_CALL.set(InCall { span: self.as_ptr(), over });
        InForce { before, over, _entered: None, span: PhantomData }
    }
}

impl Drop for InForce<'_, '_> {
    #[inline]
    fn drop(&mut self) {
        IN_CALL.set(self.before);
        // SAFETY: attached, since the guard borrows a span for use while attached; our own reference or null.
        unsafe { ffi::Py_XDECREF(self.over) };
    }
}
