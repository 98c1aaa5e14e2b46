//! aiohttp's server: the SERVER span of a request.
//!
//! `Application._handle` is the request, through all middlewares and sub-applications; it returns the response or
//! raises it. What `RequestHandler.finish_response` then makes of a text is known beforehand, and the span ends; where
//! it is not (a file, a body in pieces, handlers of the application's that are called for the head), the span stays open
//! until that is done. A WebSocket and a stream of events last for as long as the client likes: their request is
//! answered when `StreamResponse.prepare` has sent the head. What runs after that is still below the span, but not in its
//! duration.

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use agent_core::Key;
use agent_core::redact;
use agent_core::span::{SpanKind, SpanSpec};
use pyo3::exceptions::{PyConnectionError, PyException, PyTimeoutError};
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyByteArray, PyBytes, PyDict, PyList, PyString, PyTuple};

use super::aiohttp_client::version_of;
use crate::breaker::Breaker;
use crate::current::{self, Span, StoredSpan};
use crate::exception;
use crate::ffi::{Held, intern, quiet};
use crate::http::captured_headers::{self, SERVER_REQUEST, SERVER_RESPONSE};
use crate::http::excluded_urls::ExcludedUrls;
use crate::http::raw_headers::{
    FORWARDED, FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO, HOST, RawHeaders, USER_AGENT,
};
use crate::http::server::{self, Request, Text};
use crate::instrumentations::{Instrumentation, Needed, Target};
use crate::objects::{Class, attribute, text};
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
        Target::coroutine("aiohttp.web_protocol", "RequestHandler.finish_response", finish_response)
            .once(&KEPT),
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
        let made = current::hook_span_of(&in_force);
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
        let request = self.request.bind(py);
        let found = attribute(&request, intern!(py, "_match_info"));
        set_route(span, found.as_ref());
        let (rest, response) = match outcome {
            Ok(response) => (respond(span, response), Some(response)),
            Err(error) if is_response(error) => (respond(span, error), Some(error)),
            Err(error) => (raised(span, &request, error), None),
        };
        if !(rest.may_tell(found.as_ref()) && keep(span, &request)) {
            if let Some(response) = response {
                capture(span, response);
            }
            span.finish();
        }
        Ok(())
    }
}

/// What the server still has to do for a response.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// What says nothing new.
    Nothing,
    /// It sends head and body, both known but for what the application adds to the head.
    Text,
    /// It makes them.
    All,
}

impl Rest {
    /// Whether the span may learn from it.
    #[inline]
    fn may_tell(self, found: Option<&Bound<'_, PyAny>>) -> bool {
        match self {
            Self::Nothing => false,
            Self::Text => SERVER_RESPONSE.capture().is_some() || found.is_some_and(has_prepare_handlers),
            Self::All => true,
        }
    }

    #[inline]
    fn of(response: &Bound<'_, PyAny>) -> Self {
        static RESPONSE: Class = Class::new("aiohttp.web_response", "Response");
        match attribute(response, intern!(response.py(), "_body")) {
            Some(body) if body.is_instance_of::<PyBytes>() || body.is_instance_of::<PyByteArray>() => {
                Self::Text
            }
            None if RESPONSE.is_base_of(response) => Self::Text,
            body => Self::of_stream(response, body.is_some()),
        }
    }

    #[cold]
    fn of_stream(response: &Bound<'_, PyAny>, has_body: bool) -> Self {
        let is_begun = || {
            attribute(response, intern!(response.py(), "prepared"))
                .is_some_and(|is| quiet(response.py(), is.is_truthy()).unwrap_or(false))
        };
        if is_event_stream(response) || (!has_body && is_begun()) { Self::Nothing } else { Self::All }
    }
}

/// Whether the application has handlers that are called before a head is sent (`on_response_prepare`).
#[inline]
fn has_prepare_handlers(found: &Bound<'_, PyAny>) -> bool {
    let py = found.py();
    let Some(apps) = attribute(found, intern!(py, "_apps")) else { return false };
    let Ok(apps) = apps.cast::<PyList>() else { return false };
    apps.iter().any(|app| {
        let handlers = attribute(&app, intern!(py, "_on_response_prepare"));
        handlers.is_some_and(|handlers| quiet(py, handlers.len()).is_some_and(|count| count > 0))
    })
}

/// Sets the response's status. What is no response makes the server answer with a 500.
fn respond(span: &Span<'_>, response: &Bound<'_, PyAny>) -> Rest {
    server::set_status(span, status_of(response).unwrap_or(500));
    Rest::of(response)
}

#[inline]
fn capture(span: &Span<'_>, response: &Bound<'_, PyAny>) {
    if let Some(headers) = SERVER_RESPONSE.capture() {
        headers.record(span, response);
    }
}

/// What is behind a property of aiohttp's, which would be a call into Python; the property, where that is not there.
#[inline]
fn behind<'py>(
    of: &Bound<'py, PyAny>,
    own: &Bound<'py, PyString>,
    property: &Bound<'py, PyString>,
) -> Option<Bound<'py, PyAny>> {
    attribute(of, own).or_else(|| attribute(of, property))
}

fn status_of(response: &Bound<'_, PyAny>) -> Option<u16> {
    let py = response.py();
    // What aiohttp sends, whatever a subclass says.
    quiet(py, behind(response, intern!(py, "_status"), intern!(py, "status"))?.extract())
}

/// Whether what was raised is a response.
#[cold]
fn is_response(error: &Bound<'_, PyAny>) -> bool {
    let py = error.py();
    attribute(error, intern!(py, "__http_exception__"))
        .is_some_and(|is| quiet(py, is.is_truthy()).unwrap_or(false))
}

#[cold]
fn raised(span: &Span<'_>, request: &Bound<'_, PyAny>, error: &Bound<'_, PyAny>) -> Rest {
    let sent = span.note().status.load(Ordering::Relaxed);
    let is_gone = error.is_instance_of::<PyConnectionError>() && is_gone(request);
    if sent > 0 {
        // The head is out: the client has seen that status.
        server::set_status(span, sent);
    }
    if is_gone {
        return Rest::Nothing;
    }
    if sent > 0 || exception::is_cancellation(error) || !error.is_instance_of::<PyException>() {
        server::failed(span, error);
        return Rest::Nothing;
    }
    server::record(span, error);
    let timed_out = error.is_instance_of::<PyTimeoutError>();
    server::set_status(span, if timed_out { 504 } else { 500 });
    Rest::Text
}

/// Whether the client has gone: nobody receives an answer.
#[cold]
fn is_gone(request: &Bound<'_, PyAny>) -> bool {
    let py = request.py();
    let Some(protocol) = attribute(request, intern!(py, "_protocol")) else { return false };
    let Some(transport) = attribute(&protocol, intern!(py, "transport")) else { return true };
    let closing = quiet(py, transport.call_method0(intern!(py, "is_closing")));
    closing.is_some_and(|closing| quiet(py, closing.is_truthy()).unwrap_or(false))
}

/// By the first span that is kept: [`finish_response`].
static KEPT: Needed = Needed::new();

fn kept_as(py: Python<'_>) -> &Bound<'_, PyString> {
    intern!(py, "_remora_span")
}

/// Leaves the span with the request, for [`finish_response`] to end; where that is never called it ends with the
/// request. False where the request does not come from aiohttp's server, which would call it.
#[cold]
fn keep(span: &Span<'_>, request: &Bound<'_, PyAny>) -> bool {
    let py = request.py();
    let is_served = attribute(request, intern!(py, "_protocol"))
        .and_then(|protocol| attribute(&protocol, intern!(py, "_current_request")))
        .is_some_and(|current| current.is(request));
    if !is_served || LIBRARY.breaker.is_open() {
        return false;
    }
    KEPT.now(py, &LIBRARY);
    let own = attribute(request, intern!(py, "__dict__")).and_then(|own| own.cast_into::<PyDict>().ok());
    own.is_some_and(|own| quiet(py, own.set_item(kept_as(py), span.as_object())).is_some())
}

#[cold]
fn take<'py>(request: &Bound<'py, PyAny>) -> Option<Span<'py>> {
    let py = request.py();
    // To ask for the dictionary would make one.
    let kept = attribute(request, kept_as(py))?;
    let own = attribute(request, intern!(py, "__dict__"))?.cast_into::<PyDict>().ok()?;
    quiet(py, own.del_item(kept_as(py)));
    Span::from_object(&kept)
}

fn finish_response(call: &mut Call<'_>) -> HookResult<Option<Box<dyn Flight>>> {
    let py = call.py();
    let (Some(request), Some(response)) =
        (call.argument(1, intern!(py, "request")), call.argument(2, intern!(py, "resp")))
    else {
        return Ok(None);
    };
    let Some(span) = take(&request) else { return Ok(None) };
    let (request, response) = (Held::new(&request), Held::new(&response));
    Ok(Some(Box::new(Answering { span: Some(span.store()), request, response })))
}

/// A response while the server makes and sends it.
struct Answering {
    span: Option<StoredSpan>,
    request: Held,
    response: Held,
}

impl Flight for Answering {
    fn start(&mut self, _py: Python<'_>) -> HookResult<Option<StoredSpan>> {
        Ok(self.span.take())
    }

    fn finish(
        &mut self,
        py: Python<'_>,
        span: Option<&Span<'_>>,
        outcome: Result<&Bound<'_, PyAny>, &Bound<'_, PyAny>>,
    ) -> HookResult {
        let Some(span) = span.filter(|span| span.is_recording()) else { return Ok(()) };
        let response = self.response.bind(py);
        match outcome {
            // With what it sent in the place of something that is no response.
            Ok(result) => match result.cast::<PyTuple>().map(|result| result.get_item(0)) {
                Ok(Ok(sent)) => answered(span, &sent),
                _ => answered(span, &response),
            },
            Err(error) => {
                if has_sent(&self.request.bind(py)) {
                    answered(span, &response);
                } else {
                    server::unanswered(span);
                }
                server::failed(span, error);
            }
        }
        span.finish();
        Ok(())
    }
}

/// Sets what a response says when it has been sent.
#[cold]
fn answered(span: &Span<'_>, response: &Bound<'_, PyAny>) {
    capture(span, response);
    let Some(code) = status_of(response) else { return };
    if code != span.note().status.load(Ordering::Relaxed) {
        server::unanswered(span);
        server::set_status(span, code);
    }
}

/// Whether any of the answer has left.
#[cold]
fn has_sent(request: &Bound<'_, PyAny>) -> bool {
    let py = request.py();
    attribute(request, intern!(py, "_payload_writer"))
        .and_then(|writer| attribute(&writer, intern!(py, "output_size")))
        .is_some_and(|size| quiet(py, size.is_truthy()).unwrap_or(false))
}

/// Names the span by the route that the request has found. The routes of errors (404, 405) have no resource.
fn set_route(span: &Span<'_>, found: Option<&Bound<'_, PyAny>>) {
    let Some(found) = found else { return };
    let py = found.py();
    let route = behind(found, intern!(py, "_route"), intern!(py, "route"))
        .and_then(|route| behind(&route, intern!(py, "_resource"), intern!(py, "resource")))
        .and_then(|resource| canonical(&resource));
    // A sub-application at the root has an empty one.
    let Some(route) = text(&route).filter(|route| !route.is_empty()) else { return };
    server::set_route(span, None, route);
}

/// A resource's path as the application wrote it.
#[inline]
fn canonical<'py>(resource: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    static PLAIN: Class = Class::new("aiohttp.web_urldispatcher", "PlainResource");
    static DYNAMIC: Class = Class::new("aiohttp.web_urldispatcher", "DynamicResource");
    let py = resource.py();
    let property = intern!(py, "canonical");
    if DYNAMIC.is_of(resource) {
        return behind(resource, intern!(py, "_formatter"), property);
    }
    if PLAIN.is_of(resource) {
        return behind(resource, intern!(py, "_path"), property);
    }
    attribute(resource, property)
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
            set_route(&span, attribute(&self.request.bind(py), intern!(py, "_match_info")).as_ref());
            server::set_status(&span, code);
            capture(&span, &response);
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
