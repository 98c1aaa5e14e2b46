//! Django: the SERVER span of a request, and the spans of statements whose driver makes none.
//!
//! The handlers' `__call__` is the request, or `BaseHandler.get_response` where there is none (the test client);
//! `resolve_request` knows the route, `response_for_exception` what no code of the application took. A response that
//! is streamed is handed on as it is: it carries the span, which is in force while a piece is made and ends with
//! `close`, or with the response.

#[path = "django/queries.rs"]
mod queries;

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use agent_core::Key;
use agent_core::semconv;
use agent_core::span::{SpanKind, SpanSpec};
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyString};

use crate::breaker::Breaker;
use crate::current::{self, Span, StoredSpan};
use crate::ffi::{intern, quiet};
use crate::http::asgi::Server;
use crate::http::captured_headers::SERVER_RESPONSE;
use crate::http::excluded_urls::ExcludedUrls;
use crate::http::server::{self, Text};
use crate::http::wsgi::Environ;
use crate::instrumentations::{Instrumentation, Target};
use crate::objects::{self, attribute};
use crate::settings;
use crate::suppression::{self, Of};
use crate::wrapper::{self, Call, Flight, HookResult};

/// The library.
pub static LIBRARY: Instrumentation = Instrumentation {
    name: "django",
    distribution: "Django",
    breaker: Breaker::new("django"),
    targets: &[
        Target::call("django.core.handlers.wsgi", "WSGIHandler.__call__", wsgi_call),
        Target::coroutine("django.core.handlers.asgi", "ASGIHandler.__call__", asgi_call),
        Target::call("django.core.handlers.base", "BaseHandler.get_response", get_response),
        Target::coroutine("django.core.handlers.base", "BaseHandler.get_response_async", get_response_async),
        Target::call("django.core.handlers.base", "BaseHandler.resolve_request", resolve_request),
        Target::call("django.core.handlers.exception", "response_for_exception", response_for_exception),
        Target::call("django.http.response", "HttpResponseBase.close", close),
        Target::call("django.http.response", "StreamingHttpResponse.__iter__", iterate),
        Target::call(
            "django.contrib.staticfiles.handlers",
            "StaticFilesHandlerMixin.get_response",
            get_response,
        )
        .optional(),
        Target::call("django.db.backends.utils", "CursorWrapper._execute", queries::execute),
        Target::call("django.db.backends.utils", "CursorWrapper._executemany", queries::executemany),
    ],
};

static SCOPE: Key = Key::new("remora.django");
static SERVER: Server = Server {
    spec: SpanSpec { name: "HTTP", kind: SpanKind::Server, scope: &SCOPE },
    excluded: ExcludedUrls::of("django"),
    breaker: &LIBRARY.breaker,
    bare: false,
};

/// Where a streamed response carries its span.
fn place(py: Python<'_>) -> &Bound<'_, PyString> {
    intern!(py, "_remora_span")
}

fn wsgi_call(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    let environ = call.argument(1, intern!(py, "environ")).map(|environ| environ.to_owned());
    let Some(environ) = environ.as_ref().and_then(|environ| environ.cast::<PyDict>().ok()).map(Environ)
    else {
        call.proceed();
        return Ok(());
    };
    serve(call, &environ, |_| ());
    Ok(())
}

fn asgi_call(call: &mut Call<'_>) -> HookResult<Option<Box<dyn Flight>>> {
    SERVER.serve(call, 1)
}

/// The test client has no other entry. Below a handler the request has its span already.
fn get_response(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    let Some(request) = call.argument(1, intern!(py, "request")).map(|request| request.to_owned()) else {
        call.proceed();
        return Ok(());
    };
    let meta = attribute(&request, intern!(py, "META"));
    let Some(environ) = meta.as_ref().and_then(|meta| meta.cast::<PyDict>().ok()).map(Environ) else {
        call.proceed();
        return Ok(());
    };
    match current::hook_span(py).filter(|span| environ.is_of(span)) {
        Some(span) => {
            traced_attributes(&span, &request);
            call.proceed();
            if let Some(response) = call.result() {
                note_response(&span, &response);
            }
        }
        None => serve(call, &environ, |span| describe(span, &request)),
    }
    Ok(())
}

/// The asynchronous test client has no other entry either.
fn get_response_async(call: &mut Call<'_>) -> HookResult<Option<Box<dyn Flight>>> {
    let py = call.py();
    let (Some(handler), Some(request)) = (call.arg(0), call.argument(1, intern!(py, "request"))) else {
        return Ok(None);
    };
    // An `ASGIHandler`: what calls it makes the span.
    if attribute(&handler, intern!(py, "chunk_size")).is_some() {
        if let Some(span) = server::server_span(py) {
            traced_attributes(&span, &request);
        }
        return Ok(None);
    }
    // Made like the `environ` of a WSGI request.
    let meta = attribute(&request, intern!(py, "META"));
    let Some(environ) = meta.as_ref().and_then(|meta| meta.cast::<PyDict>().ok()).map(Environ) else {
        return Ok(None);
    };
    if suppression::suppressed(py, Of::Any) || SERVER.excluded.contain(|| Some(Cow::Owned(environ.url()))) {
        return Ok(None);
    }
    let Some(span) = environ.start(&SERVER.spec, &current::current(py)) else { return Ok(None) };
    if span.is_recording() {
        environ.describe(&span);
        describe(&span, &request);
    }
    Ok(Some(Box::new(Asked { span: Some(span.store()) })))
}

/// A request of the asynchronous test client.
struct Asked {
    span: Option<StoredSpan>,
}

impl Flight for Asked {
    fn start(&mut self, _py: Python<'_>) -> HookResult<Option<StoredSpan>> {
        Ok(self.span.take())
    }

    fn finish(
        &mut self,
        _py: Python<'_>,
        span: Option<&Span<'_>>,
        outcome: Result<&Bound<'_, PyAny>, &Bound<'_, PyAny>>,
    ) -> HookResult {
        if let Some(span) = span {
            over(span, outcome.ok(), outcome.err());
        }
        Ok(())
    }
}

/// The call is a request's: with a span of its own in force, unless it has one already or is to have none.
fn serve<'py>(call: &mut Call<'py>, environ: &Environ<'_, 'py>, describe: impl FnOnce(&Span<'py>)) {
    let py = call.py();
    if suppression::suppressed(py, Of::Any) {
        return call.proceed();
    }
    let in_force = current::current(py);
    if SERVER.excluded.contain(|| Some(Cow::Owned(environ.url()))) {
        let caller = environ.pass_on(&SERVER.spec, &in_force);
        let _entered = caller.as_ref().map(|caller| caller.enter(in_force));
        return call.proceed();
    }
    let Some(span) = environ.start(&SERVER.spec, &in_force) else { return call.proceed() };
    if span.is_recording() {
        environ.describe(&span);
        describe(&span);
    }
    {
        let _entered = span.enter(in_force);
        call.proceed();
    }
    over(&span, call.result().as_deref(), call.error().as_deref());
}

/// A request's handler has returned or raised.
fn over<'py>(span: &Span<'py>, response: Option<&Bound<'py, PyAny>>, error: Option<&Bound<'py, PyAny>>) {
    server::answered(span);
    if let Some(error) = error {
        if span.is_recording() {
            server::failed(span, error);
        }
        return span.finish();
    }
    // The test client's handler, or a handler that makes its responses another way.
    if !span.note().answered.load(Ordering::Relaxed)
        && let Some(response) = response
    {
        note_response(span, response);
    }
    if !span.note().streamed.load(Ordering::Relaxed) {
        span.finish();
    }
}

fn note_response<'py>(span: &Span<'py>, response: &Bound<'py, PyAny>) {
    let py = response.py();
    span.note().answered.store(true, Ordering::Relaxed);
    if is_streaming(response)
        && let Some(names) = quiet(py, response.getattr(intern!(py, "__dict__")))
        && let Ok(names) = names.cast::<PyDict>()
        && quiet(py, names.set_item(place(py), span.as_object())).is_some()
    {
        span.note().streamed.store(true, Ordering::Relaxed);
    }
    if !span.is_recording() {
        return;
    }
    let code = attribute(response, intern!(py, "status_code"));
    if let Some(code) = code.and_then(|code| quiet(py, code.extract::<u16>())) {
        server::set_status(span, code);
    }
    if let Some(headers) = SERVER_RESPONSE.capture() {
        headers.record(span, response);
    }
}

fn is_streaming(response: &Bound<'_, PyAny>) -> bool {
    let py = response.py();
    attribute(response, intern!(py, "streaming"))
        .is_some_and(|streaming| quiet(py, streaming.is_truthy()) == Some(true))
}

/// The span that a streamed response carries.
fn carried<'py>(response: &Bound<'py, PyAny>) -> Option<Span<'py>> {
    if !is_streaming(response) {
        return None;
    }
    Span::from_object(&attribute(response, place(response.py()))?)
}

fn close(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    let Some(span) = call.arg(0).and_then(|response| carried(&response)) else {
        call.proceed();
        return Ok(());
    };
    {
        let _entered = span.enter(current::current(py));
        call.proceed();
    }
    if let Some(error) = call.error() {
        wrapper::record(&span, &error);
    }
    span.finish();
    Ok(())
}

fn iterate(call: &mut Call<'_>) -> HookResult {
    let span = call.arg(0).and_then(|response| carried(&response));
    call.proceed();
    let (Some(span), Some(pieces)) = (span, call.result()) else { return Ok(()) };
    let pieces = wrapper::wrap_pieces(&pieces, span)?;
    call.replace_result(pieces);
    Ok(())
}

fn resolve_request(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    let span = server::server_span(py).filter(Span::is_recording);
    call.proceed();
    let Some(span) = span else { return Ok(()) };
    if let (Some(found), Some(request)) = (call.result(), call.argument(1, intern!(py, "request"))) {
        set_route(&span, &found, &request);
    }
    Ok(())
}

fn set_route(span: &Span<'_>, found: &Bound<'_, PyAny>, request: &Bound<'_, PyAny>) {
    let py = found.py();
    let route = attribute(found, intern!(py, "route"));
    let Some(route) = objects::text(&route) else { return };
    // Django has put there what it takes as the root: decoded, and what a setting says instead.
    let meta = attribute(request, intern!(py, "META"));
    let root = meta
        .as_ref()
        .and_then(|meta| meta.cast::<PyDict>().ok())
        .and_then(|meta| quiet(py, meta.get_item(intern!(py, "SCRIPT_NAME"))).flatten());
    let root = objects::text(&root).map(|root| Text::Bytes(root.as_bytes()));
    server::set_route(span, root, &format!("/{route}"));
}

/// What only the request object says.
fn describe(span: &Span<'_>, request: &Bound<'_, PyAny>) {
    set_path(span, request);
    traced_attributes(span, request);
}

/// Django has written the decoded path into the request's `environ` by now.
fn set_path(span: &Span<'_>, request: &Bound<'_, PyAny>) {
    let path = attribute(request, intern!(request.py(), "path"));
    if let Some(path) = objects::text(&path).filter(|path| !path.is_ascii()) {
        span.with(|span| {
            span.replace(semconv::URL_PATH.name());
            span.str(&semconv::URL_PATH, path);
        });
    }
}

fn response_for_exception(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    let span = server::server_span(py).filter(Span::is_recording);
    call.proceed();
    let (Some(span), Some(error)) = (span, call.argument(1, intern!(py, "exc"))) else { return Ok(()) };
    let code = call.result().and_then(|response| attribute(&response, intern!(py, "status_code")));
    // What Django answers with a client error (a missing page, a refused upload) is none of the server's.
    if code.and_then(|code| quiet(py, code.extract::<u16>())).is_none_or(|code| code >= 500) {
        server::record(&span, &error);
    }
    Ok(())
}

/// What the operator wants to see of each request object (`OTEL_PYTHON_DJANGO_TRACED_REQUEST_ATTRS`).
#[inline]
fn traced_attributes(span: &Span<'_>, request: &Bound<'_, PyAny>) {
    let wanted = &settings::get().http.django_traced_request_attrs;
    if !wanted.is_empty() && span.is_recording() {
        read_attributes(span, request, wanted);
    }
}

#[cold]
fn read_attributes(span: &Span<'_>, request: &Bound<'_, PyAny>, wanted: &[String]) {
    let py = request.py();
    for name in wanted {
        // Reading one may run code of the application.
        let Some(value) = attribute(request, &PyString::new(py, name)) else { continue };
        let Some(value) = quiet(py, value.str()) else { continue };
        let value = value.to_string_lossy();
        span.with(|span| span.str(name.as_str(), &value));
    }
}
