//! `when_imported`.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyAny;

use crate::hook;

/// A decorator: the callback is called with the module once it is imported, at once if it already is.
#[pyfunction]
pub fn when_imported(module: String) -> WhenImported {
    WhenImported { module }
}

/// What `when_imported` returns.
#[pyclass(frozen, module = "remora._native")]
pub struct WhenImported {
    module: String,
}

#[pymethods]
impl WhenImported {
    fn __call__<'py>(&self, py: Python<'py>, callback: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        if !callback.is_callable() {
            return Err(PyTypeError::new_err("when_imported: the callback is not callable"));
        }
        hook::install(py)?;
        hook::register(py, &self.module, callback.clone())?;
        Ok(callback)
    }
}
