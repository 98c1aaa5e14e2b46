//! The end of the process: one bounded flush, after everything that the application does at its exit.

use std::sync::Once;

use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict};

use crate::ffi::intern;
use crate::hook;

/// Delivers what is pending within the bound of an exit, by `deliver`. Detached: threads that still run go on
/// meanwhile.
fn flush(py: Python<'_>, deliver: fn()) -> PyResult<Bound<'_, PyCFunction>> {
    PyCFunction::new_closure(py, None, None, move |args, _| {
        crate::messaging::close_all(args.py());
        args.py().detach(deliver)
    })
}

/// Delivers what is pending within the bound of an exit, where nothing of ours runs later.
pub(super) fn deliver(py: Python<'_>) {
    crate::messaging::close_all(py);
    py.detach(exporters::global::shutdown);
}

extern "C" fn at_c_exit() {
    exporters::global::leave();
}

/// Registers the flush with `atexit`, where registered first it runs last, and with the C library for hosts that end
/// past `atexit`: a uWSGI worker that is busy does. After a usual end only what later exit handlers and finalizers did
/// is left to do there.
pub fn register(py: Python<'_>) -> PyResult<()> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: a function of this library, which is never unloaded. It takes no lock and does not touch Python.
        unsafe { libc::atexit(at_c_exit) };
    });
    PyModule::import(py, intern!(py, "atexit"))?
        .call_method1(intern!(py, "register"), (flush(py, exporters::global::shutdown)?,))?;
    Ok(())
}

/// Runs when the application has imported `multiprocessing.util`. A forked child of `multiprocessing` ends by
/// `os._exit`, past `atexit`: a finalizer of its own flushes.
pub fn multiprocessing_child(util: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = util.py();
    let in_child = PyCFunction::new_closure(py, None, None, |args, _| -> PyResult<()> {
        // Spawned children come by here too, and run `atexit`: the end of their exit is later than this one.
        if agent_core::generation::current() > 1 {
            finalize(&args.get_item(0)?, exporters::global::shutdown)?;
        }
        Ok(())
    })?;
    // In the child, whose registry of finalizers starts empty: one of the parent's would be forgotten.
    util.call_method1(intern!(py, "register_after_fork"), (util, in_child))?;
    // `init` in such a child: whether it was forked or spawned cannot be told, so that more may follow.
    if is_child(py)? {
        finalize(util, exporters::global::leave)?;
    }
    Ok(())
}

/// Whether `multiprocessing` has started this process, and works in it.
fn is_child(py: Python<'_>) -> PyResult<bool> {
    let Some(process) = hook::imported(py, "multiprocessing.process")? else { return Ok(false) };
    Ok(!process.call_method0(intern!(py, "parent_process"))?.is_none())
}

fn finalize(util: &Bound<'_, PyAny>, deliver: fn()) -> PyResult<()> {
    let py = util.py();
    let keywords = PyDict::new(py);
    // The lowest priority: after the application's own.
    keywords.set_item(intern!(py, "exitpriority"), i32::MIN)?;
    util.getattr(intern!(py, "Finalize"))?.call((py.None(), flush(py, deliver)?), Some(&keywords))?;
    Ok(())
}
