//! The OpenTelemetry API's own way to say "make no span here": context keys, which its exporters and some libraries
//! set. Asked only where the application has imported the API.

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyAny, PyDict};

use crate::ffi::{intern, quiet, variable_value};
use crate::hook;
use crate::objects::attribute;

/// Whether the application has imported the API. Every hook of a framework asks: `sys.modules` is a long way.
static IMPORTED: AtomicBool = AtomicBool::new(false);

/// The variable that the API keeps its context in, once it was found there: a process has one.
static VARIABLE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

const MODULE: &str = "opentelemetry.context";

/// Waits for the API.
pub fn install(py: Python<'_>) -> PyResult<()> {
    hook::register(py, MODULE, wrap_pyfunction!(imported, py)?.into_any())
}

#[pyfunction]
fn imported(_module: &Bound<'_, PyAny>) {
    IMPORTED.store(true, Ordering::Relaxed);
}

/// What is about to be traced.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// An HTTP request, which has a key of its own beside the general one.
    Http,
    /// Anything else.
    Any,
}

/// Whether the context in force says that no span is to be made.
#[inline]
pub fn suppressed(py: Python<'_>, of: Of) -> bool {
    IMPORTED.load(Ordering::Relaxed) && in_force(py, of)
}

#[inline]
fn in_force(py: Python<'_>, of: Of) -> bool {
    let context = VARIABLE.get(py).and_then(|variable| variable_value(variable.bind(py)));
    // Mostly nothing is set.
    let is_empty =
        context.is_some_and(|context| context.cast::<PyDict>().is_ok_and(|context| context.is_empty()));
    !is_empty && asked(py, of).unwrap_or(false)
}

#[cold]
fn asked(py: Python<'_>, of: Of) -> Option<bool> {
    let module = quiet(py, quiet(py, hook::modules(py))?.get_item(intern!(py, MODULE)))??;
    let names = attribute(&module, intern!(py, "__dict__"))?.cast_into::<PyDict>().ok()?;
    let context = in_variable(&names).or_else(|| {
        // Absent while the module is being imported.
        let get_current = quiet(py, names.get_item(intern!(py, "get_current")))??;
        quiet(py, get_current.call0())
    })?;
    let context = context.cast::<PyDict>().ok()?;
    if context.is_empty() {
        return Some(false);
    }
    let set = |key: &Bound<'_, PyAny>| {
        quiet(py, context.get_item(key))
            .flatten()
            .is_some_and(|value| quiet(py, value.is_truthy()) == Some(true))
    };
    let keys = [
        Some(intern!(py, "_SUPPRESS_INSTRUMENTATION_KEY")),
        (of == Of::Http).then(|| intern!(py, "_SUPPRESS_HTTP_INSTRUMENTATION_KEY")),
    ];
    let by_name = keys
        .into_iter()
        .flatten()
        .any(|name| quiet(py, names.get_item(name)).flatten().is_some_and(|key| set(&key)));
    // Older releases, and who follows them, use the plain text.
    Some(by_name || set(intern!(py, "suppress_instrumentation").as_any()))
}

/// The context in force, read from the variable that the API keeps it in: `get_current` is two Python calls, in each
/// hook of a framework that imports the API. `None` where the API keeps it otherwise, or nothing is set.
fn in_variable<'py>(names: &Bound<'py, PyDict>) -> Option<Bound<'py, PyAny>> {
    let py = names.py();
    let runtime = quiet(py, names.get_item(intern!(py, "_RUNTIME_CONTEXT")))??;
    let variable = attribute(&runtime, intern!(py, "_current_context"))?;
    let value = variable_value(&variable)?;
    let _ = VARIABLE.set(py, variable.unbind());
    Some(value)
}
