//! The end of the process: one bounded flush, after everything that the application does at its exit.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyCFunction;

/// Registers the flush with `atexit`. Registered first it runs last.
pub fn register(py: Python<'_>) -> PyResult<()> {
    let flush = PyCFunction::new_closure(py, None, None, |args, _| {
        args.py().detach(exporters::global::shutdown);
    })?;
    PyModule::import(py, intern!(py, "atexit"))?.call_method1(intern!(py, "register"), (flush,))?;
    Ok(())
}

/// Runs when the application has imported `multiprocessing.util`. A child of `multiprocessing` ends by `os._exit`,
/// past `atexit`: its own finalizer flushes. It must be registered in the child, whose registry starts empty.
pub fn multiprocessing_child(util: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = util.py();
    let in_child = PyCFunction::new_closure(py, None, None, |args, _| -> PyResult<()> {
        let py = args.py();
        let util = args.get_item(0)?;
        let flush = PyCFunction::new_closure(py, None, None, |args, _| {
            args.py().detach(exporters::global::shutdown);
        })?;
        let keywords = pyo3::types::PyDict::new(py);
        // The lowest priority: after the application's own.
        keywords.set_item(intern!(py, "exitpriority"), i32::MIN)?;
        util.getattr(intern!(py, "Finalize"))?.call((py.None(), flush), Some(&keywords))?;
        Ok(())
    })?;
    util.call_method1(intern!(py, "register_after_fork"), (util, in_child))?;
    Ok(())
}
