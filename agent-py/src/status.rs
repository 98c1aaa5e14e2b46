//! What the agent tells of itself: `status()`, `flush()`, `settings()`, `probe()`.

use std::time::Duration;

use agent_core::queue::Loss;
use agent_core::settings::Origin;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::{agent, current, instrumentations, process, settings};

/// The counters, the export's state and every hook.
#[pyfunction]
pub fn status(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let export = exporters::global::status();
    let counters = export.counters;
    let lost = PyDict::new(py);
    for (reason, count) in Loss::ALL.iter().zip(counters.lost) {
        lost.set_item(reason.name(), count)?;
    }
    let spans = PyDict::new(py);
    spans.set_item("made", counters.made)?;
    spans.set_item("sent", counters.sent)?;
    spans.set_item("pending", counters.pending)?;
    spans.set_item("lost", lost)?;
    spans.set_item("sampled_out", agent_core::tracer::sampled_out())?;
    let queue = PyDict::new(py);
    queue.set_item("bytes", export.queue_bytes)?;
    queue.set_item("max_bytes", export.queue_max_bytes)?;
    let sending = PyDict::new(py);
    sending.set_item("requests", export.requests)?;
    sending.set_item("failures", export.failures)?;
    sending.set_item("last_error", export.last_error)?;
    sending.set_item("state", export.state.name())?;
    let context = PyDict::new(py);
    context.set_item("reset_failed", current::reset_failures())?;
    let status = PyDict::new(py);
    status.set_item("active", agent::is_active())?;
    status.set_item("origin", agent::origin())?;
    status.set_item("version", agent_core::VERSION)?;
    status.set_item("pid", std::process::id())?;
    status.set_item("spans", spans)?;
    status.set_item("queue", queue)?;
    status.set_item("export", sending)?;
    status.set_item("hooks", hooks(py)?)?;
    status.set_item("context", context)?;
    Ok(status)
}

fn hooks(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let hooks = PyDict::new(py);
    for report in instrumentations::report() {
        let breaker = &report.instrumentation.breaker;
        let targets = PyList::empty(py);
        for (target, state) in &report.targets {
            let row = PyDict::new(py);
            row.set_item("module", target.module)?;
            row.set_item("attribute", target.attribute)?;
            row.set_item("state", state.state)?;
            row.set_item("optional", target.optional)?;
            row.set_item("why", (!state.why.is_empty()).then_some(&state.why))?;
            targets.append(row)?;
        }
        let hook = PyDict::new(py);
        hook.set_item("state", report.state())?;
        hook.set_item("faults", breaker.faults())?;
        hook.set_item("targets", targets)?;
        hook.set_item("distribution", report.instrumentation.distribution)?;
        hook.set_item("version", instrumentations::version(py, report.instrumentation))?;
        hooks.set_item(report.instrumentation.name, hook)?;
    }
    Ok(hooks)
}

/// Delivers what is pending now, within `timeout` seconds (default: the export timeout).
#[pyfunction]
#[pyo3(signature = (timeout=None))]
pub fn flush(py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
    let timeout = match timeout {
        None => settings::get().delivery.export_timeout,
        Some(seconds) => seconds_of(seconds)?,
    };
    Ok(py.detach(|| exporters::global::flush(timeout)))
}

/// Each setting with its value and where it came from.
#[pyfunction(name = "settings")]
pub fn settings_rows(py: Python<'_>) -> PyResult<Bound<'_, PyList>> {
    let rows = PyList::empty(py);
    for shown in settings::get().rows() {
        let row = shown.row();
        let entry = PyDict::new(py);
        entry.set_item("name", row.name)?;
        entry.set_item("value", (!shown.value.is_empty()).then_some(&shown.value))?;
        entry.set_item("default", (!row.default.is_empty()).then_some(row.default))?;
        entry.set_item("origin", shown.origin.name())?;
        entry.set_item("type", row.kind.name())?;
        entry.set_item("unit", row.unit)?;
        entry.set_item("help", row.help)?;
        entry.set_item("since", row.since)?;
        entry.set_item("secret", row.secret && shown.origin != Origin::Default)?;
        rows.append(entry)?;
    }
    Ok(rows)
}

/// Sends an empty request by every configured exporter, within `timeout` seconds each.
#[pyfunction]
pub fn probe(py: Python<'_>, timeout: f64) -> PyResult<Bound<'_, PyList>> {
    let timeout = seconds_of(timeout)?;
    // `doctor` asks in a process that is not activated.
    exporters::global::init(process::exporter_config(settings::get()));
    let rows = PyList::empty(py);
    for result in py.detach(|| exporters::global::probe(timeout)) {
        let row = PyDict::new(py);
        row.set_item("exporter", result.exporter)?;
        row.set_item("endpoint", result.endpoint)?;
        row.set_item("protocol", result.protocol)?;
        row.set_item("ok", result.ok)?;
        row.set_item("detail", result.detail)?;
        rows.append(row)?;
    }
    Ok(rows)
}

fn seconds_of(seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| PyValueError::new_err("timeout must be a number of seconds, 0 or more"))
}
