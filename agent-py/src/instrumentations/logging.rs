//! logging of the standard library: no spans, each record says which span was in force when it was made.
//!
//! `Logger.handle` sees every record before filters, handlers and formats do, whatever factory made it. The names are
//! those of OpenTelemetry's own instrumentation, which formats of applications use already. What a record carries of
//! that name stays: an application may have set it itself. Off unless `OTEL_PYTHON_LOG_CORRELATION` says otherwise.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyString};

use crate::api::ids::hex;
use crate::breaker::Breaker;
use crate::current;
use crate::ffi::{intern, quiet};
use crate::instrumentations::{Instrumentation, Target};
use crate::objects::attribute;
use crate::process;
use crate::wrapper::{Call, HookResult};

/// The library.
pub static LIBRARY: Instrumentation = Instrumentation {
    name: "logging",
    distribution: "",
    breaker: Breaker::new("logging"),
    targets: &[Target::call("logging", "Logger.handle", handle)],
};

fn handle(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    let record = call.argument(1, intern!(py, "record")).map(|record| record.to_owned());
    let fields = record.and_then(|record| attribute(&record, intern!(py, "__dict__")));
    if let Some(Ok(fields)) = fields.as_ref().map(|fields| fields.cast::<PyDict>()) {
        correlate(py, fields)?;
    }
    call.proceed();
    Ok(())
}

fn correlate(py: Python<'_>, fields: &Bound<'_, PyDict>) -> PyResult<()> {
    let span = current::current(py)
        .and_then(|span| span.with(|span| (span.trace_id, span.span_id, span.is_sampled())))
        .filter(|(trace_id, ..)| *trace_id != [0; 16]);
    let nothing = intern!(py, "0");
    let (trace_id, span_id, sampled) = match span {
        Some((trace_id, span_id, sampled)) => (hex(py, trace_id), hex(py, span_id), sampled),
        None => (nothing.clone(), nothing.clone(), false),
    };
    set(fields, intern!(py, "otelTraceID"), trace_id.as_any())?;
    set(fields, intern!(py, "otelSpanID"), span_id.as_any())?;
    set(fields, intern!(py, "otelTraceSampled"), PyBool::new(py, sampled).as_any())?;
    set(fields, intern!(py, "otelServiceName"), service_name(py).as_any())
}

fn set(fields: &Bound<'_, PyDict>, name: &Bound<'_, PyString>, value: &Bound<'_, PyAny>) -> PyResult<()> {
    if quiet(fields.py(), fields.contains(name)) == Some(false) {
        fields.set_item(name, value)
    } else {
        Ok(())
    }
}

fn service_name(py: Python<'_>) -> Bound<'_, PyString> {
    static NAME: PyOnceLock<Py<PyString>> = PyOnceLock::new();
    NAME.get_or_init(py, || PyString::new(py, &process::service_name()).unbind()).bind(py).clone()
}
