//! `remora._native`: import hook, native wrapper, instrumented libraries, life cycle.
//!
//! `unsafe` about Python lives in `ffi/`, `wrapper/` and `current/`; a library's file has none.

mod agent;
mod api;
mod breaker;
mod current;
mod database;
mod diagnostics;
mod exception;
mod ffi;
mod hook;
mod http;
mod instrumentations;
mod lifecycle;
mod loaders;
mod messaging;
mod objects;
mod old_names;
mod patch;
mod patterns;
mod per_process;
mod process;
mod remembered;
mod settings;
mod status;
mod suppression;
mod wrapper;

use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;

#[pymodule(gil_used = false)]
mod _native {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::agent::{activate, deactivate};
    #[pymodule_export]
    use super::api::config::{Config, config, config_from_env, init as init_from_code};
    #[pymodule_export]
    use super::api::ids::{current_span_id, current_trace_id, sanitize_sql};
    #[pymodule_export]
    use super::api::imports::when_imported;
    #[pymodule_export]
    use super::api::patch::{Patch, patch, trace};
    #[pymodule_export]
    use super::api::traced::traced;
    #[pymodule_export]
    use super::status::{flush, probe, settings_rows, status};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        super::load(module.py())?;
        super::api::span::add(module)?;
        module.add("__version__", agent_core::VERSION)
    }
}

/// Once per process, at import. Starts nothing.
///
/// # Errors
/// `ImportError` in a sub-interpreter: our statics hold objects of one interpreter. From 3.12 on CPython itself refuses
/// before this.
fn load(py: Python<'_>) -> PyResult<()> {
    if !ffi::in_main_interpreter(py) {
        return Err(PyImportError::new_err("remora._native does not support loading in sub-interpreters"));
    }
    agent_core::clock::init();
    diagnostics::uptime_seconds();
    current::init(py)
}
