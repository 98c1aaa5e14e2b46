//! Flask: the SERVER span of a request.
//!
//! `Flask.wsgi_app` is the request; `full_dispatch_request` knows the matched rule and returns the response;
//! `handle_exception` sees what no error handler of the application took, `handle_error` of Flask-RESTX and
//! Flask-RESTful what theirs made a 500 of.

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use agent_core::Key;
use agent_core::span::{SpanKind, SpanSpec};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyAny, PyDict, PyList, PyString, PyTuple};

use crate::breaker::Breaker;
use crate::current::{self, Span};
use crate::ffi::{intern, quiet, utf8};
use crate::hook;
use crate::http;
use crate::http::captured_headers::SERVER_RESPONSE;
use crate::http::excluded_urls::ExcludedUrls;
use crate::http::server::{self, Text, failed, record};
use crate::http::wsgi::Environ;
use crate::instrumentations::{Instrumentation, Target};
use crate::objects::attribute;
use crate::suppression::{self, Of};
use crate::wrapper::{self, Call, HookResult};

/// The library.
pub static LIBRARY: Instrumentation = Instrumentation {
    name: "flask",
    distribution: "flask",
    breaker: Breaker::new("flask"),
    targets: &[
        Target::call("flask.app", "Flask.wsgi_app", wsgi_app),
        Target::call("flask.app", "Flask.full_dispatch_request", full_dispatch_request),
        Target::call("flask.app", "Flask.handle_exception", handle_exception),
        Target::call("flask_restx.api", "Api.handle_error", handle_error).optional(),
        Target::call("flask_restful", "Api.handle_error", handle_error).optional(),
    ],
};

static SCOPE: Key = Key::new("remora.flask");
static SPEC: SpanSpec = SpanSpec { name: "HTTP", kind: SpanKind::Server, scope: &SCOPE };
static EXCLUDED: ExcludedUrls = ExcludedUrls::of("flask");

fn wsgi_app(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    let environ = call.argument(1, intern!(py, "environ")).map(|environ| environ.to_owned());
    let Some(environ) = environ.as_ref().and_then(|environ| environ.cast::<PyDict>().ok()).map(Environ)
    else {
        call.proceed();
        return Ok(());
    };
    if suppression::suppressed(py, Of::Any) {
        call.proceed();
        return Ok(());
    }
    let in_force = current::current(py);
    if EXCLUDED.contain(|| Some(Cow::Owned(environ.url()))) {
        return environ.pass_through(call, &SPEC, in_force);
    }
    // None: an application inside another one, on the same request. The outer span is the request's.
    let Some(span) = environ.start(&SPEC, &in_force) else {
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
    server::answered(&span);
    if recording {
        let error = call.error();
        let code = span.note().status.load(Ordering::Relaxed);
        // What was raised after a response that was none of an error is answered by the server.
        if code >= 500 || code > 0 && error.is_none() {
            span.with(|span| http::set_status_code(span, code, 500));
        }
        if let Some(error) = error {
            failed(&span, &error);
        }
    }
    if span.note().streamed.load(Ordering::Relaxed)
        && let Some(body) = call.result()
        && environ.is_streamed(&body)
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
    let Some(span) = server::server_span(py) else {
        call.proceed();
        return Ok(());
    };
    if !span.is_recording() {
        call.proceed();
        note_body(call, &span);
        return Ok(());
    }
    // Newer releases pass the context, whose request has the matched rule by now.
    let context = call.arg(1).map(|context| context.to_owned()).or_else(|| context_in_force(py));
    if let Some(request) = context.and_then(|context| attribute(&context, intern!(py, "request"))) {
        if is_another(&span, &request) {
            call.proceed();
            return Ok(());
        }
        set_route(py, &span, &request);
    }
    call.proceed();
    if let Some(response) = call.result() {
        note_response(py, &span, &response);
    }
    Ok(())
}

fn handle_exception(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    let Some(span) = server::server_span(py) else {
        call.proceed();
        return Ok(());
    };
    if !span.is_recording() {
        call.proceed();
        note_body(call, &span);
        return Ok(());
    }
    // Newer releases pass the context before the exception.
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

/// Whether the application dispatches a request that it has made up (`test_request_context`) within one that was
/// received.
fn is_another(span: &Span<'_>, request: &Bound<'_, PyAny>) -> bool {
    span.note().routed.load(Ordering::Relaxed)
        && attribute(request, intern!(request.py(), "environ"))
            .and_then(|environ| environ.cast_into::<PyDict>().ok())
            .is_some_and(|environ| !Environ(&environ).is_of(span))
}

/// Extensions that answer what a resource has raised, before Flask sees it.
fn handle_error(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    let span = server::server_span(py).filter(Span::is_recording);
    call.proceed();
    let (Some(span), Some(error)) = (span, call.argument(1, intern!(py, "e"))) else { return Ok(()) };
    let Some(response) = call.result() else { return Ok(()) };
    let code = attribute(&response, intern!(py, "status_code"));
    let code = code.and_then(|code| quiet(py, code.extract::<u16>())).unwrap_or(0);
    // What Werkzeug can make a response of was raised as one.
    if code >= 500 && attribute(&error, intern!(py, "get_response")).is_none() {
        record(&span, &error);
    }
    Ok(())
}

fn note_response(py: Python<'_>, span: &Span<'_>, response: &Bound<'_, PyAny>) {
    // What the property `status_code` returns.
    let code = attribute(response, intern!(py, "_status_code"))
        .or_else(|| attribute(response, intern!(py, "status_code")));
    if let Some(code) = code.and_then(|code| quiet(py, code.extract::<u16>())) {
        span.note().status.store(code, Ordering::Relaxed);
    }
    if let Some(headers) = SERVER_RESPONSE.capture() {
        headers.record(span, response);
    }
    span.note().streamed.store(is_streamed(py, response), Ordering::Relaxed);
}

/// Of a response of which nothing is recorded: while its body is made, the span is in force all the same.
fn note_body(call: &Call<'_>, span: &Span<'_>) {
    if let Some(response) = call.result() {
        span.note().streamed.store(is_streamed(call.py(), &response), Ordering::Relaxed);
    }
}

/// Whether code of the application is still to run for a response.
fn is_streamed(py: Python<'_>, response: &Bound<'_, PyAny>) -> bool {
    let ready = attribute(response, intern!(py, "response"))
        .is_some_and(|body| body.is_exact_instance_of::<PyList>() || body.is_exact_instance_of::<PyTuple>());
    // What is passed through (a file) is the server's own business, and has to reach it untouched.
    if ready {
        attribute(response, intern!(py, "_on_close"))
            .is_some_and(|callbacks| callbacks.len().is_ok_and(|count| count > 0))
    } else {
        !attribute(response, intern!(py, "direct_passthrough"))
            .is_some_and(|passed| passed.is_truthy().unwrap_or(false))
    }
}

/// The request's context where it is not passed: in a context variable or, before 2.2, on a stack.
fn context_in_force(py: Python<'_>) -> Option<Bound<'_, PyAny>> {
    static GET: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let find = || globals(py).and_then(|globals| getter(&globals)).map(Bound::unbind).ok_or(());
    let known = GET.get_or_try_init(py, find).ok();
    if let Some(context) = known.and_then(|get| quiet(py, get.bind(py).call0())) {
        return Some(context);
    }
    let globals = globals(py)?;
    match getter(&globals) {
        // Flask imported a second time has another variable.
        Some(get) => quiet(py, get.call0()),
        None => {
            let stack = quiet(py, globals.get_item(intern!(py, "_request_ctx_stack")))??;
            attribute(&stack, intern!(py, "top"))
        }
    }
}

fn globals(py: Python<'_>) -> Option<Bound<'_, PyDict>> {
    let module = quiet(py, hook::imported(py, "flask.globals"))??;
    quiet(py, module.getattr(intern!(py, "__dict__")))?.cast_into().ok()
}

fn getter<'py>(globals: &Bound<'py, PyDict>) -> Option<Bound<'py, PyAny>> {
    let py = globals.py();
    let named = |name| quiet(py, globals.get_item(name)).flatten();
    let variable = named("_cv_request").or_else(|| named("_cv_app"))?;
    quiet(py, variable.getattr(intern!(py, "get")))
}

fn set_route(py: Python<'_>, span: &Span<'_>, request: &Bound<'_, PyAny>) {
    let rule =
        attribute(request, intern!(py, "url_rule")).and_then(|rule| attribute(&rule, intern!(py, "rule")));
    let Some(rule) = rule.and_then(|rule| rule.cast_into::<PyString>().ok()) else { return };
    let Some(rule) = utf8(&rule) else { return };
    if span.note().rootless.load(Ordering::Relaxed) {
        return server::set_route(span, None, rule);
    }
    let environ = attribute(request, intern!(py, "environ"));
    let Some(environ) = environ.and_then(|environ| environ.cast_into::<PyDict>().ok()) else { return };
    let root = Environ(&environ).root();
    server::set_route(span, root.as_ref().and_then(utf8).map(Text::Latin1), rule);
}
