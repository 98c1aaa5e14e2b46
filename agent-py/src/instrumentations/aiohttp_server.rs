//! aiohttp's server: the SERVER span of a request.
//!
//! `Application._handle` is the request, through all middlewares and sub-applications; it returns the response or
//! raises it. A WebSocket and a stream of events last for as long as the client likes: their request is answered when
//! `StreamResponse.prepare` has sent the head. What runs after that is still below the span, but not in its duration.

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use agent_core::Key;
use agent_core::redact;
use agent_core::span::{SpanKind, SpanSpec};
use pyo3::exceptions::{PyException, PyTimeoutError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBytes, PyString, PyTuple};

use super::aiohttp_client::version_of;
use crate::breaker::Breaker;
use crate::current::{self, Span, StoredSpan};
use crate::exception;
use crate::ffi::{Held, quiet};
use crate::http::captured_headers::{self, SERVER_REQUEST, SERVER_RESPONSE};
use crate::http::excluded_urls::ExcludedUrls;
use crate::http::raw_headers::{
    FORWARDED, FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO, HOST, RawHeaders, USER_AGENT,
};
use crate::http::server::{self, Request, Text};
use crate::instrumentations::{Instrumentation, Target};
use crate::objects::{attribute, text};
use crate::suppression::{self, Of};
use crate::wrapper::{Call, Flight, HookResult};

/// The library.
pub static LIBRARY: Instrumentation = Instrumentation {
    name: "aiohttp-server",
    distribution: "aiohttp",
    breaker: Breaker::new("aiohttp-server"),
    targets: &[
        Target::coroutine("aiohttp.web_app", "Application._handle", handle),
        Target::coroutine("aiohttp.web_response", "StreamResponse.prepare", prepare),
    ],
};

static SCOPE: Key = Key::new("remora.aiohttp-server");
static SPEC: SpanSpec = SpanSpec { name: "HTTP", kind: SpanKind::Server, scope: &SCOPE };
static EXCLUDED: ExcludedUrls = ExcludedUrls::of("aiohttp-server");

/// One request, held until it is answered.
struct Serving {
    request: Held,
    excluded: bool,
}

fn handle(call: &mut Call<'_>) -> HookResult<Option<Box<dyn Flight>>> {
    let py = call.py();
    let Some(request) = call.argument(1, intern!(py, "request")) else { return Ok(None) };
    if server::may_be_for_nobody() && is_for_nobody(&request) {
        return Ok(None);
    }
    Ok(Some(Box::new(Serving { request: Held::new(&request), excluded: false })))
}

/// Whether nobody would ever see the request's span: the application then gets its coroutine as it is.
fn is_for_nobody(request: &Bound<'_, PyAny>) -> bool {
    let py = request.py();
    let Some(message) = attribute(request, intern!(py, "_message")) else { return false };
    let headers = wanted(&message);
    current::current(py).is_none()
        && !suppression::suppressed(py, Of::Any)
        && !EXCLUDED.contain(|| Some(Cow::Owned(url(request, &message, &headers))))
        && server::is_for_nobody(&headers.incoming())
}

impl Flight for Serving {
    fn start(&mut self, py: Python<'_>) -> HookResult<Option<StoredSpan>> {
        if suppression::suppressed(py, Of::Any) {
            return Ok(None);
        }
        let request = self.request.bind(py);
        let subject = request.as_ptr() as usize;
        let in_force = current::current(py);
        // An application that hands the request on to another one.
        let made = in_force.clone().map(Span::of_hook);
        if made.is_some_and(|span| span.note().subject.load(Ordering::Relaxed) == subject) {
            return Ok(None);
        }
        let Some(message) = attribute(&request, intern!(py, "_message")) else { return Ok(None) };
        let headers = wanted(&message);
        if EXCLUDED.contain(|| Some(Cow::Owned(url(&request, &message, &headers)))) {
            self.excluded = true;
            return Ok(server::pass_on(py, &SPEC, headers.incoming(), subject).map(Span::store));
        }
        let span = server::start(py, &SPEC, subject, &headers.incoming(), in_force.as_ref());
        if let Some(span) = span.as_ref().filter(|span| span.is_recording()) {
            describe(span, &request, &message, &headers);
        }
        Ok(span.map(Span::store))
    }

    fn finish(
        &mut self,
        py: Python<'_>,
        span: Option<&Span<'_>>,
        outcome: Result<&Bound<'_, PyAny>, &Bound<'_, PyAny>>,
    ) -> HookResult {
        let Some(span) = span else { return Ok(()) };
        server::answered(span);
        if self.excluded || !span.is_recording() {
            return Ok(());
        }
        set_route(span, &self.request.bind(py));
        match outcome {
            Ok(response) => respond(span, response),
            Err(error) => raised(span, error),
        }
        span.finish();
        Ok(())
    }
}

/// Sets what a response says. What is none makes the server answer with a 500.
fn respond(span: &Span<'_>, response: &Bound<'_, PyAny>) {
    if let Some(headers) = SERVER_RESPONSE.capture() {
        headers.record(span, response);
    }
    server::set_status(span, status_of(response).unwrap_or(500));
}

fn status_of(response: &Bound<'_, PyAny>) -> Option<u16> {
    let py = response.py();
    quiet(py, attribute(response, intern!(py, "status"))?.extract())
}

#[cold]
fn raised(span: &Span<'_>, error: &Bound<'_, PyAny>) {
    let py = error.py();
    // A response that is raised.
    let is_response = attribute(error, intern!(py, "__http_exception__"))
        .is_some_and(|is| quiet(py, is.is_truthy()).unwrap_or(false));
    if is_response {
        return respond(span, error);
    }
    let sent = span.note().status.load(Ordering::Relaxed);
    if exception::is_cancellation(error) || !error.is_instance_of::<PyException>() {
        server::failed(span, error);
    } else if sent > 0 {
        // The head is out: the client has seen that status.
        server::set_status(span, sent);
        server::failed(span, error);
    } else {
        server::record(span, error);
        let timed_out = error.is_instance_of::<PyTimeoutError>();
        server::set_status(span, if timed_out { 504 } else { 500 });
    }
}

/// Names the span by the route that the request has found. The routes of errors (404, 405) have no resource.
fn set_route(span: &Span<'_>, request: &Bound<'_, PyAny>) {
    let py = request.py();
    let route = attribute(request, intern!(py, "_match_info"))
        .and_then(|found| attribute(&found, intern!(py, "route")))
        .and_then(|route| attribute(&route, intern!(py, "resource")))
        .and_then(|resource| attribute(&resource, intern!(py, "canonical")));
    // A sub-application at the root has an empty one.
    let Some(route) = text(&route).filter(|route| !route.is_empty()) else { return };
    server::set_route(span, None, route);
}

/// A response that sends its head while the handler runs.
struct Preparing {
    span: StoredSpan,
    response: Held,
    request: Held,
}

fn prepare(call: &mut Call<'_>) -> HookResult<Option<Box<dyn Flight>>> {
    let py = call.py();
    // Most responses are prepared when their handler has returned them: no span is in force then.
    let Some(span) = server::server_span(py).filter(Span::is_recording) else { return Ok(None) };
    let (Some(response), Some(request)) = (call.arg(0), call.argument(1, intern!(py, "request"))) else {
        return Ok(None);
    };
    if span.note().subject.load(Ordering::Relaxed) != request.as_ptr() as usize {
        return Ok(None);
    }
    let (response, request) = (Held::new(&response), Held::new(&request));
    Ok(Some(Box::new(Preparing { span: span.store(), response, request })))
}

impl Flight for Preparing {
    fn start(&mut self, _py: Python<'_>) -> HookResult<Option<StoredSpan>> {
        Ok(None)
    }

    fn finish(
        &mut self,
        py: Python<'_>,
        _span: Option<&Span<'_>>,
        outcome: Result<&Bound<'_, PyAny>, &Bound<'_, PyAny>>,
    ) -> HookResult {
        let span = self.span.get(py);
        let response = self.response.bind(py);
        let Some(code) = status_of(&response).filter(|_| outcome.is_ok() && span.is_recording()) else {
            return Ok(());
        };
        if code == 101 || is_event_stream(&response) {
            set_route(&span, &self.request.bind(py));
            respond(&span, &response);
            span.finish();
        } else {
            span.note().status.store(code, Ordering::Relaxed);
        }
        Ok(())
    }
}

fn is_event_stream(response: &Bound<'_, PyAny>) -> bool {
    text(&attribute(response, intern!(response.py(), "content_type"))) == Some("text/event-stream")
}

/// One pass over the bytes is cheaper than asking the application's mapping for each.
fn wanted<'py>(message: &Bound<'py, PyAny>) -> RawHeaders<'py> {
    let mut found = RawHeaders::default();
    each_header(message, |name, value| found.see(name, || Some(value.clone())));
    found
}

fn each_header<'py>(message: &Bound<'py, PyAny>, mut see: impl FnMut(&[u8], &Bound<'py, PyBytes>)) {
    let Some(headers) = attribute(message, intern!(message.py(), "raw_headers")) else { return };
    let Ok(headers) = headers.cast::<PyTuple>() else { return };
    for pair in headers.iter_borrowed() {
        let Ok(pair) = pair.cast::<PyTuple>() else { continue };
        if let (Ok(name), Ok(value)) = (pair.get_borrowed_item(0), pair.get_borrowed_item(1))
            && let (Ok(name), Ok(value)) = (name.cast::<PyBytes>(), value.cast::<PyBytes>())
        {
            see(name.as_bytes(), &value);
        }
    }
}

fn describe(
    span: &Span<'_>,
    request: &Bound<'_, PyAny>,
    message: &Bound<'_, PyAny>,
    headers: &RawHeaders<'_>,
) {
    let py = request.py();
    let method = attribute(request, intern!(py, "_method"));
    let version = attribute(request, intern!(py, "_version"));
    let peer = attribute(request, intern!(py, "_transport_peername"));
    // A Unix domain socket's is a path, an IPv6 one's has four parts.
    let peer = peer.as_ref().and_then(|peer| peer.cast::<PyTuple>().ok());
    let part = |at| peer.and_then(|peer| quiet(py, peer.get_item(at)));
    let (address, port) = (part(0), part(1).and_then(|port| quiet(py, port.extract::<u16>())));
    let target = target(message);
    let target = target.as_ref().map(|target| target.to_string_lossy()).unwrap_or_default();
    let (path, query) = path_and_query(&target);
    let request = Request {
        method: text(&method),
        path: Some(path),
        query: Some(Text::Bytes(query.as_bytes())),
        version: version.as_ref().and_then(version_of),
        peer: text(&address),
        peer_port: port,
        agent: headers.get(USER_AGENT).map(|agent| Text::Bytes(agent.as_bytes())),
        host: headers.text(HOST),
        server: None,
        scheme: Some(scheme(request)),
        forwarded: headers.text(FORWARDED),
        forwarded_for: headers.text(FORWARDED_FOR),
        forwarded_host: headers.text(FORWARDED_HOST),
        forwarded_proto: headers.text(FORWARDED_PROTO),
    };
    span.with(|span| request.describe(span, |out| out.extend_from_slice(path.as_bytes())));
    if let Some(mut captured) = SERVER_REQUEST.capture() {
        each_header(message, |name, value| {
            if let Ok(name) = std::str::from_utf8(name) {
                captured.add(name, || captured_headers::text(value));
            }
        });
        span.with(|span| captured.set(span));
    }
}

/// The request's target as it was sent; bytes outside UTF-8 are surrogates.
fn target<'py>(message: &Bound<'py, PyAny>) -> Option<Bound<'py, PyString>> {
    attribute(message, intern!(message.py(), "path"))?.cast_into().ok()
}

/// A path may begin with two slashes; only what does not begin with one can have a host.
fn path_and_query(target: &str) -> (&str, &str) {
    if target.starts_with('/') {
        return target.split_once('?').unwrap_or((target, ""));
    }
    let parts = redact::split_url(target);
    (if parts.path.is_empty() { "/" } else { parts.path }, parts.query)
}

fn scheme(request: &Bound<'_, PyAny>) -> &'static str {
    match attribute(request, intern!(request.py(), "_transport_sslcontext")) {
        Some(_) => "https",
        None => "http",
    }
}

/// The URL as it came, to be compared, not shown.
#[cold]
fn url(request: &Bound<'_, PyAny>, message: &Bound<'_, PyAny>, headers: &RawHeaders<'_>) -> String {
    let target = target(message);
    let target = target.as_ref().map(|target| target.to_string_lossy()).unwrap_or_default();
    if !target.starts_with('/') {
        return target.into_owned();
    }
    format!("{}://{}{target}", scheme(request), headers.text(HOST).unwrap_or_default())
}
