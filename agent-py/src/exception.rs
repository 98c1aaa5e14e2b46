//! An exception as span data: its type's name, its message, its stack, written without importing `traceback`.

use agent_core::semconv;
use agent_core::span::ActiveSpan;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyString};

use crate::ffi::{innermost, intern, quiet};

/// Frames written at most; of a longer stack the innermost.
const MAX_FRAMES: usize = 64;
/// Exceptions shown at most of those that led to one.
const MAX_CAUSES: usize = 8;

/// The fully qualified name of an exception's class; built-in classes without their module.
pub fn type_name(error: &Bound<'_, PyAny>) -> String {
    let py = error.py();
    let class = error.get_type();
    let text =
        |name| quiet(py, class.getattr(name).and_then(|value| value.extract::<String>())).unwrap_or_default();
    let (module, name) = (text(intern!(py, "__module__")), text(intern!(py, "__qualname__")));
    if module.is_empty() || module == "builtins" { name } else { format!("{module}.{name}") }
}

/// At the end of a program the exception that ended it. In an interactive one it would be the last that was shown.
#[cold]
pub fn last(py: Python<'_>) -> Option<Bound<'_, PyAny>> {
    let sys = quiet(py, PyModule::import(py, intern!(py, "sys")))?;
    if quiet(py, sys.hasattr(intern!(py, "ps1"))) != Some(false) {
        return None;
    }
    quiet(py, sys.getattr_opt(intern!(py, "last_value")))?.filter(|error| !error.is_none())
}

/// Whether an exception is how control flow ends on purpose, not an error: a cancelled task or greenlet, a closed
/// generator, a person's Ctrl-C.
#[cold]
pub fn is_cancellation(error: &Bound<'_, PyAny>) -> bool {
    let py = error.py();
    if error.is_instance_of::<pyo3::exceptions::PyGeneratorExit>()
        || error.is_instance_of::<pyo3::exceptions::PyKeyboardInterrupt>()
    {
        return true;
    }
    // These classes are looked for by name: importing them is not for us.
    error.get_type().mro().iter().any(|class| {
        let Ok(class) = class.cast::<pyo3::types::PyType>() else { return false };
        let is = |name: &str| class.name().is_ok_and(|found| found.to_cow().is_ok_and(|found| found == name));
        if !(is("CancelledError") || is("Cancelled") || is("GreenletExit")) {
            return false;
        }
        let module = class.getattr(intern!(py, "__module__")).and_then(|module| module.extract::<String>());
        quiet(py, module).is_some_and(|module| {
            let package = module.split(['.', '_']).find(|part| !part.is_empty());
            matches!(package, Some("asyncio" | "trio" | "greenlet"))
        })
    })
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
        let message = message(error);
        let stacktrace = quiet(error.py(), stacktrace(error, &type_name, &message)).unwrap_or_default();
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

fn message(error: &Bound<'_, PyAny>) -> String {
    quiet(error.py(), error.str()).map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The traceback and, before it, those of what it came from, as the interpreter prints them but without source lines.
fn stacktrace(error: &Bound<'_, PyAny>, type_name: &str, message: &str) -> PyResult<String> {
    let py = error.py();
    let mut causes: Vec<(Bound<'_, PyAny>, &str)> = Vec::new();
    let mut at = error.clone();
    while causes.len() < MAX_CAUSES {
        let cause = at.getattr(intern!(py, "__cause__"))?;
        let (next, link) = if !cause.is_none() {
            (cause, "The above exception was the direct cause of the following exception:")
        } else if at.getattr(intern!(py, "__suppress_context__"))?.is_truthy()? {
            break;
        } else {
            let context = at.getattr(intern!(py, "__context__"))?;
            (context, "During handling of the above exception, another exception occurred:")
        };
        if next.is_none() || next.is(error) || causes.iter().any(|(seen, _)| seen.is(&next)) {
            break;
        }
        causes.push((next.clone(), link));
        at = next;
    }
    let mut text = String::new();
    for (cause, link) in causes.iter().rev() {
        one_traceback(cause, &self::type_name(cause), &self::message(cause), &mut text)?;
        text.push_str("\n\n");
        text.push_str(link);
        text.push_str("\n\n");
    }
    one_traceback(error, type_name, message, &mut text)?;
    Ok(text)
}

fn one_traceback(
    error: &Bound<'_, PyAny>,
    type_name: &str,
    message: &str,
    text: &mut String,
) -> PyResult<()> {
    use std::fmt::Write;

    let py = error.py();
    let traceback = error.getattr(intern!(py, "__traceback__"))?;
    text.push_str("Traceback (most recent call last):\n");
    for at in innermost(&traceback, MAX_FRAMES)? {
        let code = at.getattr(intern!(py, "tb_frame"))?.getattr(intern!(py, "f_code"))?;
        let file = code.getattr(intern!(py, "co_filename"))?.cast_into::<PyString>()?;
        let function = code.getattr(intern!(py, "co_name"))?.cast_into::<PyString>()?;
        let line: Option<u32> = at.getattr(intern!(py, "tb_lineno"))?.extract()?;
        let (file, function) = (file.to_string_lossy(), function.to_string_lossy());
        let _ = writeln!(text, "  File \"{file}\", line {}, in {function}", line.unwrap_or(0));
    }
    text.push_str(type_name);
    if !message.is_empty() {
        let _ = write!(text, ": {message}");
    }
    Ok(())
}
