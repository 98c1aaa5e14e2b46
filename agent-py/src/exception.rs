//! An exception as span data: its type's name, its message, its stack, written without importing `traceback`.

use agent_core::semconv;
use agent_core::span::ActiveSpan;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyString};

/// Frames written at most; of a longer stack the innermost.
const MAX_FRAMES: usize = 64;

/// The fully qualified name of an exception's class; built-in classes without their module.
pub fn type_name(error: &Bound<'_, PyAny>) -> String {
    let py = error.py();
    let class = error.get_type();
    let text = |name| class.getattr(name).and_then(|value| value.extract::<String>()).unwrap_or_default();
    let (module, name) = (text(intern!(py, "__module__")), text(intern!(py, "__qualname__")));
    if module.is_empty() || module == "builtins" { name } else { format!("{module}.{name}") }
}

/// Whether an exception is how control flow ends on purpose, not an error: a cancelled task, a closed generator.
pub fn is_cancellation(error: &Bound<'_, PyAny>) -> bool {
    let name = error.get_type().name();
    error.is_instance_of::<pyo3::exceptions::PyGeneratorExit>()
        || name
            .is_ok_and(|name| name.to_cow().is_ok_and(|name| name == "CancelledError" || name == "Cancelled"))
}

/// Sets status and `error.type` from an exception.
pub fn set_error(span: &mut ActiveSpan, type_name: &str, description: &str) {
    span.str(&semconv::ERROR_TYPE, type_name);
    span.error(description);
}

/// What an exception event holds; read from Python before the span is touched.
pub struct Details {
    /// `exception.type`.
    pub type_name: String,
    /// `exception.message`.
    pub message: String,
    /// `exception.stacktrace`.
    pub stacktrace: String,
}

impl Details {
    /// Reads an exception. Its `__str__` may raise or come back to us: the message is then empty.
    pub fn of(error: &Bound<'_, PyAny>) -> Self {
        let type_name = type_name(error);
        let message = error.str().map(|text| text.to_string_lossy().into_owned()).unwrap_or_default();
        let stacktrace = stacktrace(error, &type_name, &message).unwrap_or_default();
        Self { type_name, message, stacktrace }
    }

    /// Adds the `exception` event.
    pub fn record(&self, span: &mut ActiveSpan) {
        span.event(&semconv::EXCEPTION, |event| {
            event.str(&semconv::EXCEPTION_TYPE, &self.type_name);
            event.str(&semconv::EXCEPTION_MESSAGE, &self.message);
            event.str(&semconv::EXCEPTION_STACKTRACE, &self.stacktrace);
        });
    }
}

fn stacktrace(error: &Bound<'_, PyAny>, type_name: &str, message: &str) -> PyResult<String> {
    use std::fmt::Write;

    let py = error.py();
    let mut frames = Vec::new();
    let mut at = error.getattr(intern!(py, "__traceback__"))?;
    while !at.is_none() {
        let code = at.getattr(intern!(py, "tb_frame"))?.getattr(intern!(py, "f_code"))?;
        let file = code.getattr(intern!(py, "co_filename"))?.cast_into::<PyString>()?;
        let function = code.getattr(intern!(py, "co_name"))?.cast_into::<PyString>()?;
        let line: Option<u32> = at.getattr(intern!(py, "tb_lineno"))?.extract()?;
        frames.push((file, line, function));
        at = at.getattr(intern!(py, "tb_next"))?;
    }
    let mut text = String::from("Traceback (most recent call last):\n");
    for (file, line, function) in frames.iter().skip(frames.len().saturating_sub(MAX_FRAMES)) {
        let (file, function) = (file.to_string_lossy(), function.to_string_lossy());
        let _ = writeln!(text, "  File \"{file}\", line {}, in {function}", line.unwrap_or(0));
    }
    text.push_str(type_name);
    if !message.is_empty() {
        let _ = write!(text, ": {message}");
    }
    Ok(text)
}
