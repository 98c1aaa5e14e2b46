//! The span in force: a native object in one `ContextVar`.

pub mod call;
#[cfg_attr(Py_GIL_DISABLED, path = "free_none.rs")]
mod free;
mod note;
mod span;
mod start;

pub use span::{Exit, Span, StoredSpan};
pub use start::{cover, may_record, may_start_leaf, stand_in, start, start_exit, start_leaf, start_with};

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU64, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;

use crate::ffi::{intern, quiet};

static VARIABLE: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());
/// In which ways anything has ever been put in force: where nothing is sampled, nothing is.
static USED: AtomicU8 = AtomicU8::new(0);
const BY_VARIABLE: u8 = 1;
const BY_CALL: u8 = 2;

#[inline]
fn used(way: u8) {
    if USED.load(Ordering::Relaxed) & way == 0 {
        USED.fetch_or(way, Ordering::Relaxed);
    }
}

static RESET_FAILED: AtomicU64 = AtomicU64::new(0);

/// How often a context variable could not be reset by its token and was set by value instead.
pub fn reset_failures() -> u64 {
    RESET_FAILED.load(Ordering::Relaxed)
}

/// Makes the type and the variable. Once, at load.
pub fn init(py: Python<'_>) -> PyResult<()> {
    span::init(py)?;
    // SAFETY: attached; a valid C string.
    let variable = unsafe { ffi::PyContextVar_New(c"remora_span".as_ptr(), ptr::null_mut()) };
    if variable.is_null() {
        return Err(PyErr::fetch(py));
    }
    VARIABLE.store(variable, Ordering::Release);
    Ok(())
}

/// The span in force here, if any.
#[inline]
pub fn current(py: Python<'_>) -> Option<Span<'_>> {
    let used = USED.load(Ordering::Relaxed);
    if used == 0 {
        return None;
    }
    let value = value(py);
    if used & BY_CALL != 0
        && let Some(span) = call::inside(py, value)
    {
        // SAFETY: attached; our own reference or null.
        unsafe { ffi::Py_XDECREF(value) };
        return Some(span);
    }
    // SAFETY: attached; our own reference or null.
    unsafe { Span::from_value(py, value) }
}

/// The span in force here that a hook made: [`current`], or where that is the application's own, what it lies within.
#[inline]
pub fn hook_span(py: Python<'_>) -> Option<Span<'_>> {
    current(py).map(Span::of_hook)
}

/// As [`hook_span`], where the span in force is read already.
#[inline]
pub fn hook_span_of<'py>(in_force: &Option<Span<'py>>) -> Option<Span<'py>> {
    in_force.clone().map(Span::of_hook)
}

/// What the variable holds: an owned reference, or null.
#[inline]
fn value(_py: Python<'_>) -> *mut ffi::PyObject {
    let mut value = ptr::null_mut();
    // SAFETY: attached; the variable lives as long as the process; `value` receives a new reference or null.
    unsafe {
        if ffi::PyContextVar_Get(VARIABLE.load(Ordering::Relaxed), ptr::null_mut(), &raw mut value) < 0 {
            ffi::PyErr_Clear();
        }
    }
    value
}

impl<'py> Span<'py> {
    /// Puts it in force until the guard is left or dropped. Only within one call: across a suspension use
    /// [`set`].
    #[inline]
    pub fn enter(&self, previous: Option<Span<'py>>) -> Entered<'py> {
        let token = set_variable(self.as_ptr());
        Entered { token, previous, py: self.py() }
    }
}

/// Puts no span in force until the guard is dropped. Only within one call.
pub fn hide<'py>(py: Python<'py>, previous: Option<Span<'py>>) -> Entered<'py> {
    // SAFETY: attached; None is immortal, or borrowed for the call only.
    let token = set_variable(unsafe { ffi::Py_None() });
    Entered { token, previous, py }
}

/// Puts a span in force across suspensions: the token that [`reset`] takes, an owned reference, or null.
pub fn put(_py: Python<'_>, span: &Span<'_>) -> *mut ffi::PyObject {
    set_variable(span.as_ptr())
}

/// Puts back what was in force before [`put`], more cheaply than [`set`] does. False where the context that runs now
/// is another one, and nothing is changed.
///
/// # Safety
/// `token` is alive, or null; no exception is pending.
pub unsafe fn reset(_py: Python<'_>, token: *mut ffi::PyObject) -> bool {
    if token.is_null() {
        return false;
    }
    // SAFETY: attached; by this function's contract.
    unsafe {
        let done = without_collection(|| ffi::PyContextVar_Reset(VARIABLE.load(Ordering::Relaxed), token));
        if done < 0 {
            ffi::PyErr_Clear();
        }
        done == 0
    }
}

/// What was in force before [`put`] gave out `token`.
///
/// # Safety
/// As for [`reset`].
#[cold]
pub unsafe fn before<'py>(py: Python<'py>, token: *mut ffi::PyObject) -> Option<Span<'py>> {
    // SAFETY: attached; by this function's contract.
    let token = unsafe { Bound::from_borrowed_ptr_or_opt(py, token) }?;
    Span::from_object(&quiet(py, token.getattr(intern!(py, "old_value")))?)
}

/// Sets the span in force by value: for suspensions, where no token is kept.
pub fn set(py: Python<'_>, span: Option<&Span<'_>>) {
    // SAFETY: attached; None is immortal or borrowed for the call only.
    let value = span.map_or_else(|| unsafe { ffi::Py_None() }, Span::as_ptr);
    let token = set_variable(value);
    // SAFETY: attached; our reference or null.
    unsafe { ffi::Py_XDECREF(token) };
    let _ = py;
}

/// Sets the span in force inside a context that nothing runs in yet. Nothing happens where something does, or where
/// `context` is none.
pub fn set_in(context: &Bound<'_, PyAny>, span: &Span<'_>) {
    let context_object = context.as_ptr();
    // SAFETY: attached; a live object, checked to be a context; it is left again at once, on the same thread.
    unsafe {
        if ffi::PyContext_CheckExact(context_object) == 0 {
            return;
        }
        if ffi::PyContext_Enter(context_object) < 0 {
            return ffi::PyErr_Clear();
        }
        set(context.py(), Some(span));
        if ffi::PyContext_Exit(context_object) < 0 {
            ffi::PyErr_Clear();
        }
    }
}

/// CPython 3.11 can crash when a collection runs inside the trie rebuild of a set (python/cpython#148891).
#[inline]
fn without_collection<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(not(Py_3_12))]
    {
        // SAFETY: only called attached; the state is put back.
        let enabled = unsafe { ffi::PyGC_Disable() };
        let result = work();
        if enabled != 0 {
            // SAFETY: as above.
            unsafe { ffi::PyGC_Enable() };
        }
        result
    }
    #[cfg(Py_3_12)]
    work()
}

#[inline]
fn set_variable(value: *mut ffi::PyObject) -> *mut ffi::PyObject {
    used(BY_VARIABLE);
    // SAFETY: attached (all callers hold a token); the variable lives as long as the process.
    let token =
        without_collection(|| unsafe { ffi::PyContextVar_Set(VARIABLE.load(Ordering::Relaxed), value) });
    if token.is_null() {
        // SAFETY: attached.
        unsafe { ffi::PyErr_Clear() };
    }
    token
}

/// A span in force. Leaving it puts back what was in force before.
pub struct Entered<'py> {
    token: *mut ffi::PyObject,
    previous: Option<Span<'py>>,
    py: Python<'py>,
}

impl Drop for Entered<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.token.is_null() {
            return;
        }
        let variable = VARIABLE.load(Ordering::Relaxed);
        // SAFETY: attached; the token is ours. No exception is pending here: `Call` takes an original's exception
        // away before hooks go on.
        let failed = unsafe {
            let result = without_collection(|| ffi::PyContextVar_Reset(variable, self.token));
            ffi::Py_DECREF(self.token);
            result < 0
        };
        if failed {
            // SAFETY: attached.
            unsafe { ffi::PyErr_Clear() };
            RESET_FAILED.fetch_add(1, Ordering::Relaxed);
            set(self.py, self.previous.as_ref());
        }
    }
}
