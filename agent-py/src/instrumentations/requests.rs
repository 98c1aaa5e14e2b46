//! requests: one CLIENT span for each request sent, a redirect's hops as siblings.
//!
//! `Session.send` calls itself for every hop from inside `resolve_redirects`, which it calls for every response, with
//! the headers just read: there the span ends.

use std::sync::atomic::Ordering;

use agent_core::Key;
use agent_core::redact;
use agent_core::semconv;
use agent_core::span::{SpanKind, SpanSpec};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyString};

use crate::breaker::Breaker;
use crate::current::{self, Exit, Span};
use crate::exception;
use crate::http::{self, Method};
use crate::instrumentations::{Instrumentation, Target};
use crate::wrapper::{Call, HookResult};

/// The library.
pub static LIBRARY: Instrumentation = Instrumentation {
    name: "requests",
    distribution: "requests",
    breaker: Breaker::new("requests"),
    targets: &[
        Target::call("requests.sessions", "Session.send", send),
        Target::call("requests.sessions", "SessionRedirectMixin.resolve_redirects", resolve_redirects),
    ],
};

static SCOPE: Key = Key::new("remora.requests");
static SPEC: SpanSpec = SpanSpec { name: "HTTP", kind: SpanKind::Client, scope: &SCOPE };

fn send(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    let in_force = current::current(py);
    if in_force.as_ref().is_some_and(|span| span.covers(Exit::Http, http::CLIENT)) {
        call.proceed();
        return Ok(());
    }
    let resends = in_force.as_ref().map_or(0, |span| match span.note().resends.load(Ordering::Relaxed) {
        0 => 0,
        hop => {
            span.note().resends.store(hop.saturating_add(1), Ordering::Relaxed);
            hop
        }
    });
    let parent = if resends > 0 { in_force.as_ref().and_then(Span::outer) } else { in_force.clone() };
    let Some(span) = current::start(py, &SPEC, &parent) else {
        call.proceed();
        return Ok(());
    };
    if let Some(request) = call.argument(1, intern!(py, "request")) {
        if span.is_recording() {
            describe(py, &span, &request, resends)?;
        }
        inject(py, &span, &request)?;
    }
    span.mark(Exit::Http, http::CLIENT);
    span.set_outer(parent.as_ref());
    {
        let _entered = span.enter(in_force);
        call.proceed();
    }
    span.unmark();
    if span.is_recording() {
        if let Some(error) = call.error() {
            failed(py, &span, &error)?;
        } else if let Some(response) = call.result() {
            finish(py, &span, &response)?;
        }
        span.finish();
    }
    Ok(())
}

fn resolve_redirects(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    if let Some(span) = current::current(py)
        && span.covers(Exit::Http, http::CLIENT - 1)
        && let Some(response) = call.argument(1, intern!(py, "resp"))
    {
        if span.is_recording() {
            finish(py, &span, &response)?;
        }
        // From here on `send` inside this span is a hop: a sibling.
        span.unmark();
        span.note().resends.store(1, Ordering::Relaxed);
    }
    call.proceed();
    Ok(())
}

fn describe(py: Python<'_>, span: &Span<'_>, request: &Bound<'_, PyAny>, resends: u16) -> PyResult<()> {
    let method = request.getattr(intern!(py, "method"))?;
    let url = request.getattr(intern!(py, "url"))?;
    let method = method.cast::<PyString>().ok().and_then(|text| text.to_str().ok());
    let url = url.cast::<PyString>().ok().and_then(|text| text.to_str().ok());
    span.with(|span| {
        if let Some(method) = method.map(Method::of) {
            span.name(method.in_name());
            method.set(span);
        }
        if let Some(url) = url {
            span.str_with(&semconv::URL_FULL, |out| redact::url_full(url, out));
            let parts = redact::split_url(url);
            if !parts.host.is_empty() {
                span.str(&semconv::SERVER_ADDRESS, parts.host);
                if let Some(port) = parts.port {
                    span.int(&semconv::SERVER_PORT, i64::from(port));
                }
            }
        }
        if resends > 0 {
            span.int(&semconv::HTTP_REQUEST_RESEND_COUNT, i64::from(resends));
        }
    });
    Ok(())
}

fn inject<'py>(py: Python<'py>, span: &Span<'py>, request: &Bound<'py, PyAny>) -> PyResult<()> {
    let mut headers = request.getattr(intern!(py, "headers"))?;
    if headers.is_none() {
        let modules = PyModule::import(py, intern!(py, "sys"))?.getattr(intern!(py, "modules"))?;
        let Some(structures) = modules.cast::<PyDict>()?.get_item(intern!(py, "requests.structures"))? else {
            return Ok(());
        };
        headers = structures.getattr(intern!(py, "CaseInsensitiveDict"))?.call0()?;
        request.setattr(intern!(py, "headers"), &headers)?;
    }
    http::inject(py, span, |name, value| headers.set_item(name, value))
}

/// Sets what the response says and ends the span.
fn finish(py: Python<'_>, span: &Span<'_>, response: &Bound<'_, PyAny>) -> PyResult<()> {
    let code: Option<u16> = response.getattr(intern!(py, "status_code"))?.extract().ok();
    let raw = response.getattr_opt(intern!(py, "raw"))?;
    let version: Option<i64> =
        raw.as_ref().and_then(|raw| raw.getattr_opt(intern!(py, "version")).ok().flatten()?.extract().ok());
    let retried = raw.as_ref().and_then(|raw| retries(py, raw).ok()).unwrap_or(0);
    span.with(|span| {
        if let Some(code) = code {
            http::set_status_code(span, code, 400);
        }
        match version {
            Some(10) => span.str(&semconv::NETWORK_PROTOCOL_VERSION, "1.0"),
            Some(11) => span.str(&semconv::NETWORK_PROTOCOL_VERSION, "1.1"),
            Some(20) => span.str(&semconv::NETWORK_PROTOCOL_VERSION, "2"),
            _ => {}
        }
        if retried > 0 {
            span.replace(semconv::HTTP_REQUEST_RESEND_COUNT.name());
            span.int(&semconv::HTTP_REQUEST_RESEND_COUNT, retried as i64);
        }
        span.finish();
    });
    Ok(())
}

/// How often urllib3 sent the request again below us.
fn retries(py: Python<'_>, raw: &Bound<'_, PyAny>) -> PyResult<usize> {
    let Some(retries) = raw.getattr_opt(intern!(py, "retries"))? else { return Ok(0) };
    match retries.getattr_opt(intern!(py, "history"))? {
        Some(history) => history.len(),
        None => Ok(0),
    }
}

#[cold]
fn failed(py: Python<'_>, span: &Span<'_>, error: &Bound<'_, PyAny>) -> PyResult<()> {
    if let Ok(response) = error.getattr(intern!(py, "response"))
        && !response.is_none()
        && let Ok(code) = response.getattr(intern!(py, "status_code"))
        && let Ok(code) = code.extract::<u16>()
    {
        span.with(|span| span.int(&semconv::HTTP_RESPONSE_STATUS_CODE, i64::from(code)));
    }
    if !exception::is_cancellation(error) {
        let type_name = exception::type_name(error);
        span.with(|span| exception::set_error(span, &type_name, ""));
    }
    Ok(())
}

