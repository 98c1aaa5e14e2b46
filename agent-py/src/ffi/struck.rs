//! An exception of the application's own that struck while we ran some code of its: a signal's handler raised it, and
//! the interpreter runs handlers in whatever Python code the main thread is just in (a Ctrl-C, a soft time limit, a
//! worker that is told to quit). It is not ours to give up: it is raised again as soon as we are out of the way.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Mutex;

use super::intern;
use pyo3::exceptions::{
    PyAttributeError, PyIndexError, PyKeyError, PyKeyboardInterrupt, PyOverflowError, PyTypeError,
    PyUnicodeDecodeError, PyUnicodeEncodeError, PyValueError,
};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyType};

use super::quiet;

/// Signals are numbered from 1 on.
const SIGNALS: c_int = 64;

/// What is to be raised.
static STRUCK: Mutex<Option<PyErr>> = Mutex::new(None);

/// Sees to it that an exception which a signal's handler raised reaches the application. False: it is none.
#[cold]
pub(super) fn hand_back(py: Python<'_>, error: &PyErr) -> bool {
    if !is_struck(py, error) {
        return false;
    }
    let Ok(mut struck) = STRUCK.try_lock() else { return false };
    // SAFETY: attached; a function of the kind that pending calls are, without an argument.
    if struck.is_none() && unsafe { ffi::Py_AddPendingCall(Some(raise), ptr::null_mut()) } < 0 {
        return false;
    }
    // Of two the later: it would have replaced the earlier one.
    *struck = Some(error.clone_ref(py));
    true
}

/// Runs between two instructions of the main thread, as handlers do.
extern "C" fn raise(_: *mut c_void) -> c_int {
    // SAFETY: the interpreter runs pending calls attached.
    let py = unsafe { Python::assume_attached() };
    let struck = STRUCK.try_lock().ok().and_then(|mut struck| struck.take());
    match struck {
        Some(error) => {
            error.restore(py);
            -1
        }
        None => 0,
    }
}

fn is_struck(py: Python<'_>, error: &PyErr) -> bool {
    let class = error.get_type(py);
    if is_usual(py, &class) {
        return false;
    }
    // The interpreter's own handler leaves no trace.
    class.is(PyType::new::<PyKeyboardInterrupt>(py)) || quiet(py, ran_a_handler(py, error)).unwrap_or(false)
}

/// What reads fail with: no handler raises these.
fn is_usual(py: Python<'_>, class: &Bound<'_, PyType>) -> bool {
    [
        PyType::new::<PyAttributeError>(py),
        PyType::new::<PyTypeError>(py),
        PyType::new::<PyValueError>(py),
        PyType::new::<PyKeyError>(py),
        PyType::new::<PyIndexError>(py),
        PyType::new::<PyOverflowError>(py),
        PyType::new::<PyUnicodeDecodeError>(py),
        PyType::new::<PyUnicodeEncodeError>(py),
    ]
    .iter()
    .any(|usual| class.is(usual))
}

/// Whether the exception came through the code of a signal's handler. Nothing here runs code of the application's, but
/// for what a handler that is no function says of itself.
fn ran_a_handler(py: Python<'_>, error: &PyErr) -> PyResult<bool> {
    let Some(first) = error.traceback(py) else { return Ok(false) };
    // There from the interpreter's start on; importing it is not for us.
    let modules = py.import(intern!(py, "sys"))?.getattr(intern!(py, "modules"))?;
    let Some(signals) = modules.cast::<PyDict>()?.get_item(intern!(py, "_signal"))? else { return Ok(false) };
    let handler =
        |signal: c_int| code_of(&quiet(py, signals.call_method1(intern!(py, "getsignal"), (signal,)))?);
    let handlers: Vec<_> = (1..=SIGNALS).filter_map(handler).collect();
    let mut next = (!handlers.is_empty()).then(|| first.into_any());
    while let Some(entry) = next {
        let code = entry.getattr(intern!(py, "tb_frame"))?.getattr(intern!(py, "f_code"))?;
        if handlers.iter().any(|handler| handler.is(&code)) {
            return Ok(true);
        }
        next = Some(entry.getattr(intern!(py, "tb_next"))?).filter(|next| !next.is_none());
    }
    Ok(false)
}

/// The code of a function, a method, what a partial calls.
fn code_of<'py>(handler: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    let py = handler.py();
    let code = |of: &Bound<'py, PyAny>| quiet(py, of.getattr_opt(intern!(py, "__code__"))).flatten();
    code(handler).or_else(|| code(&quiet(py, handler.getattr_opt(intern!(py, "func")))??))
}
