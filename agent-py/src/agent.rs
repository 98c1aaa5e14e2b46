//! Activation: from a loaded extension to an agent that watches.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use agent_core::settings::LogLevel;
use agent_core::tracer::{self, Tracer};
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict};

use crate::breaker::{self, Breaker};
use crate::diagnostics::{self, Level};
use crate::ffi::intern;
use crate::patch::Site;
use crate::suppression;
use crate::wrapper::{self, CallHook};
use crate::{current, hook, instrumentations, lifecycle, process, settings};

static STARTED: AtomicBool = AtomicBool::new(false);
static ORIGIN: OnceLock<String> = OnceLock::new();
static FORK: Breaker = Breaker::new("fork");

/// Whether the agent is active in this process.
pub fn is_active() -> bool {
    ORIGIN.get().is_some()
}

/// Where it was activated from; empty if it is not.
pub fn origin() -> &'static str {
    ORIGIN.get().map_or("", String::as_str)
}

/// Reads the settings and installs everything, once per process. False: the agent stays out.
#[pyfunction]
pub fn activate(py: Python<'_>, origin: &str) -> PyResult<bool> {
    start(py, origin, &[])
}

/// As [`activate`], with settings from code before those of the environment.
pub fn start(py: Python<'_>, origin: &str, overrides: &[(String, String)]) -> PyResult<bool> {
    if STARTED.swap(true, Ordering::AcqRel) {
        return Ok(is_active());
    }
    // A fault of ours is caught and reported where it happens; the default hook would print it as well.
    std::panic::set_hook(Box::new(|_| {}));
    let said = settings::resolve(overrides);
    let settings = settings::get();
    diagnostics::set_level(settings.log_level.into());
    for line in &said {
        diagnostics::warn(line);
    }
    let unknown: Vec<String> = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
    for line in agent_core::settings::unknown(unknown.iter().map(String::as_str)) {
        diagnostics::warn(line.text());
    }
    if settings.sdk_disabled {
        diagnostics::debug("OTEL_SDK_DISABLED is true: nothing is installed");
        return Ok(false);
    }
    if settings.keeps_out() {
        diagnostics::debug("REMORA_ENABLED is not true: nothing is installed");
        return Ok(false);
    }
    if let Some(other) = other_agent(py)?.filter(|_| !settings.force) {
        diagnostics::warn(&format!(
            "{other} is active in this process: remora stays out (REMORA_FORCE=true overrides)"
        ));
        return Ok(false);
    }
    breaker::configure(settings.breaker.faults, settings.breaker.window.as_secs());
    tracer::install(Tracer { sampler: settings.sampler, limits: settings.limits });
    process::collect(py)?;
    exporters::global::init(process::exporter_config(settings));
    agent_core::local::set_queue_source(exporters::global::queue_source);
    lifecycle::register_fork();
    lifecycle::register_exit(py)?;
    if settings.delivery.sigterm_flush {
        lifecycle::register_signals(py, settings.delivery.exit_timeout)?;
    }
    hook::install(py)?;
    watch_processes(py)?;
    suppression::install(py)?;
    current::call::install(py)?;
    instrumentations::install(py, |name| settings.disabled.contains(name))?;
    if let Err(error) = lifecycle::hide_folder(py) {
        diagnostics::debug(&format!("os.environ shows the launcher's folder: {error}"));
    }
    let _ = ORIGIN.set(origin.to_owned());
    diagnostics::debug(&format!("active, by {origin}, process {}", std::process::id()));
    Ok(true)
}

/// Takes every wrapper of a library out again: what was there before is there again, the identical objects. What is
/// pending is still delivered.
#[pyfunction]
pub fn deactivate(py: Python<'_>) {
    instrumentations::remove(py);
}

/// What concerns every process, library or not: forks and the end of children and workers.
fn watch_processes(py: Python<'_>) -> PyResult<()> {
    let children = PyCFunction::new_closure(py, None, None, |args, _| -> PyResult<()> {
        lifecycle::multiprocessing_child(&args.get_item(0)?)
    })?;
    hook::register(py, "multiprocessing.util", children.into_any())?;
    lifecycle::register_workers(py)?;
    // Before 3.12 no fork warns: nothing needs to stop.
    if cfg!(not(Py_3_12)) {
        return Ok(());
    }
    let Some(os) = hook::imported(py, "os")? else { return Ok(()) };
    for name in ["fork", "forkpty"] {
        let around = |original: &Bound<'_, PyAny>| {
            wrapper::wrap(original, Some(lifecycle::around_fork as CallHook), None, &FORK).map(Bound::unbind)
        };
        let site = Site::replace(&os, name, &|original| Ok(around(original)?.into_bound(original.py())));
        if let Err(error) = site {
            diagnostics::debug(&format!("os.{name} is not watched: {error}"));
        }
    }
    Ok(())
}

/// Another agent that is at work in this process, by what it leaves in `sys.modules` or on the path.
fn other_agent(py: Python<'_>) -> PyResult<Option<&'static str>> {
    const AGENTS: [(&str, &str, &str); 4] = [
        ("ddtrace", "ddtrace.bootstrap.sitecustomize", "ddtrace/bootstrap"),
        ("newrelic", "newrelic.agent", "newrelic/bootstrap"),
        ("elasticapm", "elasticapm.instrumentation.wrapper", "elasticapm/instrumentation/wrapper"),
        (
            "opentelemetry-instrument",
            "opentelemetry.instrumentation.auto_instrumentation",
            "opentelemetry/instrumentation/auto_instrumentation",
        ),
    ];
    let sys = PyModule::import(py, intern!(py, "sys"))?;
    let modules = sys.getattr(intern!(py, "modules"))?.cast_into::<PyDict>()?;
    let path = std::env::var("PYTHONPATH").unwrap_or_default();
    for (name, module, folder) in AGENTS {
        if modules.contains(module)? || path.contains(folder) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

impl From<LogLevel> for Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::None => Self::Off,
            LogLevel::Error => Self::Error,
            LogLevel::Warn => Self::Warn,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
        }
    }
}

impl From<exporters::Level> for Level {
    fn from(level: exporters::Level) -> Self {
        match level {
            exporters::Level::Error => Self::Error,
            exporters::Level::Warn => Self::Warn,
            exporters::Level::Info => Self::Info,
            exporters::Level::Debug => Self::Debug,
        }
    }
}
