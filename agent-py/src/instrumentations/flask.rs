//! Flask: the SERVER span of a request.
//!
//! `Flask.wsgi_app` is the request; `full_dispatch_request` knows the matched rule and returns the response;
//! `handle_exception` sees what no error handler of the application took.

use std::sync::atomic::Ordering;

use agent_core::Key;
use agent_core::semconv;
use agent_core::span::{SpanKind, SpanSpec};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyList, PyString, PyTuple};

use crate::breaker::Breaker;
use crate::current::{self, Span};
use crate::exception;
use crate::http;
use crate::instrumentations::{Instrumentation, Target};
use crate::wrapper::{self, Call, HookResult};
use crate::wsgi::Environ;

/// The library.
pub static LIBRARY: Instrumentation = Instrumentation {
    name: "flask",
    distribution: "flask",
    breaker: Breaker::new("flask"),
    targets: &[
        Target::call("flask.app", "Flask.wsgi_app", wsgi_app),
        Target::call("flask.app", "Flask.full_dispatch_request", full_dispatch_request),
        Target::call("flask.app", "Flask.handle_exception", handle_exception),
    ],
};

static SCOPE: Key = Key::new("remora.flask");
static SPEC: SpanSpec = SpanSpec { name: "HTTP", kind: SpanKind::Server, scope: &SCOPE };

fn wsgi_app(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    let environ = match call.argument(1, intern!(py, "environ")).map(|environ| environ.to_owned()) {
        Some(environ) => environ,
        None => {
            call.proceed();
            return Ok(());
        }
    };
    let Ok(environ) = environ.cast::<PyDict>() else {
        call.proceed();
        return Ok(());
    };
    let environ = Environ(environ);
    let in_force = current::current(py);
    // An application inside another one, on the same request: the outer span is the request's.
    let adopted =
        in_force.as_ref().is_some_and(|span| span.note().subject.load(Ordering::Relaxed) == environ.subject());
    let span = if adopted { None } else { environ.start(&SPEC) };
    let Some(span) = span else {
        call.proceed();
        return Ok(());
    };
    let recording = span.is_recording();
    if recording {
        environ.describe(&span);
    }
    {
        let _entered = span.enter(in_force);
        call.proceed();
    }
    if !recording {
        return Ok(());
    }
    if let Some(error) = call.error() {
        failed(&span, &error);
        span.finish();
        return Ok(());
    }
    let code = span.note().status.load(Ordering::Relaxed);
    if code > 0 {
        span.with(|span| http::set_status_code(span, code, 500));
    }
    let Some(body) = call.result() else { return Ok(()) };
    if span.note().streamed.load(Ordering::Relaxed)
        && !body.is_instance_of::<PyList>()
        && !body.is_instance_of::<PyTuple>()
        && !environ.is_file_wrapper(&body)
    {
        // The span lives until the server closes the body, and is in force while a piece of it is made.
        let body = wrapper::wrap_body(&body, span)?;
        call.replace_result(body);
    } else {
        span.finish();
    }
    Ok(())
}

fn full_dispatch_request(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    let span = current::current(py).filter(|span| span.note().subject.load(Ordering::Relaxed) != 0);
    let Some(span) = span.filter(Span::is_recording) else {
        call.proceed();
        return Ok(());
    };
    let request = request(py, call)?;
    if let Some(request) = &request
        && let Some(rule) = request.getattr_opt(intern!(py, "url_rule"))?
        && !rule.is_none()
    {
        set_route(py, &span, request, &rule)?;
    }
    call.proceed();
    if let Some(response) = call.result() {
        note_response(py, &span, &response);
    }
    Ok(())
}

fn handle_exception(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    let span = current::current(py).filter(|span| span.note().subject.load(Ordering::Relaxed) != 0);
    let Some(span) = span.filter(Span::is_recording) else {
        call.proceed();
        return Ok(());
    };
    // Later releases pass a context before the exception.
    let error = call.arg(2).or_else(|| call.argument(1, intern!(py, "e"))).map(|error| error.to_owned());
    if let Some(error) = error {
        record(&span, &error);
    }
    call.proceed();
    if let Some(response) = call.result() {
        note_response(py, &span, &response);
    }
    Ok(())
}

fn record(span: &Span<'_>, error: &Bound<'_, PyAny>) {
    if !span.note().failed.swap(true, Ordering::Relaxed) {
        let details = exception::Details::of(error);
        span.with(|span| details.record(span));
    }
}

/// The exception left the application: the server answers, we do not know what.
fn failed(span: &Span<'_>, error: &Bound<'_, PyAny>) {
    if exception::is_cancellation(error) {
        return;
    }
    record(span, error);
    let type_name = exception::type_name(error);
    span.with(|span| exception::set_error(span, &type_name, ""));
}

fn note_response(py: Python<'_>, span: &Span<'_>, response: &Bound<'_, PyAny>) {
    let Ok(Some(code)) = response.getattr_opt(intern!(py, "status_code")) else { return };
    if let Ok(code) = code.extract::<u16>() {
        span.note().status.store(code, Ordering::Relaxed);
    }
    let ready = match response.getattr_opt(intern!(py, "response")) {
        Ok(Some(body)) => body.is_exact_instance_of::<PyList>() || body.is_exact_instance_of::<PyTuple>(),
        _ => false,
    };
    let callbacks = response.getattr_opt(intern!(py, "_on_close")).ok().flatten();
    let callbacks = callbacks.is_some_and(|callbacks| callbacks.len().is_ok_and(|count| count > 0));
    span.note().streamed.store(!ready || callbacks, Ordering::Relaxed);
}

/// The request in force: newer releases pass its context, older ones keep it in a context variable.
fn request<'py>(py: Python<'py>, call: &Call<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
    if let Some(context) = call.arg(1) {
        return context.getattr_opt(intern!(py, "request"));
    }
    let modules = PyModule::import(py, intern!(py, "sys"))?.getattr(intern!(py, "modules"))?;
    let Some(globals) = modules.cast::<PyDict>()?.get_item(intern!(py, "flask.globals"))? else { return Ok(None) };
    for name in [intern!(py, "_cv_app"), intern!(py, "_cv_request")] {
        if let Some(variable) = globals.getattr_opt(name)?
            && let Ok(context) = variable.call_method0(intern!(py, "get"))
            && let Some(request) = context.getattr_opt(intern!(py, "request"))?
        {
            return Ok(Some(request));
        }
    }
    // Flask before 2.2.
    let Some(stack) = globals.getattr_opt(intern!(py, "_request_ctx_stack"))? else { return Ok(None) };
    stack.getattr(intern!(py, "top"))?.getattr_opt(intern!(py, "request"))
}

fn set_route(
    py: Python<'_>,
    span: &Span<'_>,
    request: &Bound<'_, PyAny>,
    rule: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let route = rule.getattr(intern!(py, "rule"))?;
    let environ = request.getattr(intern!(py, "environ"))?;
    let environ = environ.cast::<PyDict>()?;
    let script = Environ(environ).script_name();
    let method = environ.get_item(intern!(py, "REQUEST_METHOD"))?;
    let route = route.cast::<PyString>()?;
    let (Ok(route), script) = (route.to_str(), script.as_ref().and_then(|script| script.to_str().ok())) else {
        return Ok(());
    };
    let script = script.unwrap_or("").trim_end_matches('/');
    let method = method.as_ref().and_then(|method| method.cast::<PyString>().ok()?.to_str().ok()).unwrap_or("HTTP");
    span.with(|span| {
        span.name_with(|out| {
            out.extend_from_slice(http::Method::of(method).in_name().as_bytes());
            out.push(b' ');
            out.extend_from_slice(script.as_bytes());
            out.extend_from_slice(route.as_bytes());
        });
        span.str_with(&semconv::HTTP_ROUTE, |out| {
            out.extend_from_slice(script.as_bytes());
            out.extend_from_slice(route.as_bytes());
        });
    });
    Ok(())
}
