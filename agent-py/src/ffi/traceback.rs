//! The way through a traceback.
//!
//! Each level of a recursion that fails records the exception, and walks all the levels below it to find the innermost:
//! a step has to cost next to nothing.

use super::intern;
use pyo3::prelude::*;
use pyo3::types::PyAny;

/// The last `most` entries of a traceback (or of `None`), the innermost at the end.
///
/// # Errors
/// Whatever reading `tb_next` raises.
pub fn innermost<'py>(traceback: &Bound<'py, PyAny>, most: usize) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let mut entries = Vec::new();
    let mut at = nth_last_of(traceback, most);
    while !at.is_none() && entries.len() < most {
        let next = at.getattr(intern!(at.py(), "tb_next"))?;
        entries.push(at);
        at = next;
    }
    Ok(entries)
}

#[cfg(not(Py_GIL_DISABLED))]
fn nth_last_of<'py>(traceback: &Bound<'py, PyAny>, n: usize) -> Bound<'py, PyAny> {
    use pyo3::ffi::{PyTraceBack_Check, PyTracebackObject};

    // SAFETY: attached; a live object, checked to be a traceback, keeps all that follow it alive: no Python code runs
    // meanwhile that could cut one off.
    unsafe {
        if PyTraceBack_Check(traceback.as_ptr()) == 0 {
            return traceback.clone();
        }
        let next = |at: &*mut PyTracebackObject| Some((**at).tb_next).filter(|next| !next.is_null());
        let found = nth_last(traceback.as_ptr().cast(), n, next);
        Bound::from_borrowed_ptr(traceback.py(), found.cast())
    }
}

/// Another thread may cut off what follows.
#[cfg(Py_GIL_DISABLED)]
fn nth_last_of<'py>(traceback: &Bound<'py, PyAny>, n: usize) -> Bound<'py, PyAny> {
    let py = traceback.py();
    nth_last(traceback.clone(), n, |at| {
        super::quiet(py, at.getattr(intern!(py, "tb_next"))).filter(|next| !next.is_none())
    })
}

/// The `n`th from the end of what begins with `head`; `head` where there are not as many.
fn nth_last<T: Clone>(head: T, n: usize, next: impl Fn(&T) -> Option<T>) -> T {
    let mut ahead = Some(head.clone());
    for _ in 0..n {
        ahead = ahead.and_then(|at| next(&at));
    }
    let mut found = head;
    while let Some(at) = ahead {
        ahead = next(&at);
        found = next(&found).unwrap_or(found);
    }
    found
}
