//! Activation and what the agent tells of itself.

use std::sync::atomic::{AtomicBool, Ordering};

use agent_core::tracer::{self, Tracer};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::{breaker, diagnostics, hook, instrumentations, settings};

static ACTIVE: AtomicBool = AtomicBool::new(false);

/// Installs everything, once. False: stays out.
#[pyfunction]
pub fn activate(py: Python<'_>, origin: &str) -> PyResult<bool> {
    let _ = origin;
    if ACTIVE.swap(true, Ordering::AcqRel) {
        return Ok(true);
    }
    for line in settings::resolve(&[]) {
        diagnostics::warn(&line);
    }
    let settings = settings::get();
    breaker::configure(settings.breaker.faults, settings.breaker.window.as_secs());
    tracer::install(Tracer { sampler: settings.sampler, limits: settings.limits });
    hook::install(py)?;
    instrumentations::install(py, |name| settings.disabled.contains(name))?;
    Ok(true)
}

/// The counters.
#[pyfunction]
pub fn status(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let status = PyDict::new(py);
    let hooks = PyDict::new(py);
    for report in instrumentations::report() {
        let targets: Vec<String> = report
            .targets
            .iter()
            .map(|(t, s)| format!("{}:{} {} {}", t.module, t.attribute, s.state, s.why))
            .collect();
        hooks.set_item(report.instrumentation.name, (report.instrumentation.breaker.faults(), targets))?;
    }
    status.set_item("hooks", hooks)?;
    Ok(status)
}
