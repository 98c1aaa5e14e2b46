//! How a call of redis-py's ends where it fails.

use agent_core::semconv;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyTuple, PyType};

use crate::current::Span;
use crate::exception;
use crate::ffi::{intern, quiet};
use crate::objects::{attribute, text};

/// Sets what an exception says, where it is an error.
#[cold]
pub fn failed(span: &Span<'_>, error: &Bound<'_, PyAny>) {
    if is(error, "WatchError") || exception::is_cancellation(error) {
        return;
    }
    let type_name = exception::type_name(error);
    let code = code(error);
    span.with(|span| {
        if let Some(code) = &code {
            span.str(&semconv::DB_RESPONSE_STATUS_CODE, code);
        }
        // The message may quote values: it stays out.
        exception::set_error(span, &type_name, "");
    });
}

/// Whether a class of that name is among those of an exception.
fn is(error: &Bound<'_, PyAny>, class: &str) -> bool {
    error
        .get_type()
        .mro()
        .iter()
        .any(|of| of.cast::<PyType>().is_ok_and(|of| quiet(of.py(), of.name()).is_some_and(|n| n == class)))
}

/// The prefix that the server's answer began with. The library takes the known ones off the message.
fn code(error: &Bound<'_, PyAny>) -> Option<String> {
    const BY_CLASS: [(&str, &str); 13] = [
        ("AskError", "ASK"),
        ("MovedError", "MOVED"),
        ("BusyLoadingError", "LOADING"),
        ("ClusterCrossSlotError", "CROSSSLOT"),
        ("ClusterDownError", "CLUSTERDOWN"),
        ("ExecAbortError", "EXECABORT"),
        ("MasterDownError", "MASTERDOWN"),
        ("ModuleError", "ERR"),
        ("NoPermissionError", "NOPERM"),
        ("NoScriptError", "NOSCRIPT"),
        ("OutOfMemoryError", "OOM"),
        ("ReadOnlyError", "READONLY"),
        ("TryAgainError", "TRYAGAIN"),
    ];
    const KNOWN: [&str; 14] = [
        "BUSY",
        "BUSYGROUP",
        "BUSYKEY",
        "INVALIDOBJ",
        "IOERR",
        "MISCONF",
        "NOAUTH",
        "NOGROUP",
        "NOPROTO",
        "NOREPLICAS",
        "UNBLOCKED",
        "UNKILLABLE",
        "WRONGPASS",
        "WRONGTYPE",
    ];
    let py = error.py();
    // Newer releases keep it.
    let kept = quiet(py, error.getattr_opt(intern!(py, "status_code"))).flatten();
    let is_kept = kept.is_some();
    if let Some(code) = text(&kept.filter(|code| !code.is_none())) {
        return Some(code.to_owned());
    }
    if let Some((_, code)) = BY_CLASS.iter().find(|(class, _)| is(error, class)) {
        return Some((*code).to_owned());
    }
    if !is(error, "ResponseError") {
        return None;
    }
    let args = attribute(error, intern!(py, "args"))?.cast_into_exact::<PyTuple>().ok()?;
    let message = quiet(py, args.get_item(0));
    // Of a pipeline's command the message begins with the command.
    let message = text(&message)?.rsplit("caused error: ").next()?;
    let word = message.split(' ').next()?;
    let looks_so = (2..=32).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_uppercase());
    if KNOWN.contains(&word) || (is_kept && looks_so) {
        Some(word.to_owned())
    } else {
        // `ERR` is taken off by the older ones, which do not say so.
        (!is_kept).then(|| "ERR".to_owned())
    }
}
