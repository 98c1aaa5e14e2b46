//! The server span of an ASGI request, whichever framework or server the application uses.
//!
//! The span starts where the application is called and is in force while its coroutine runs. It ends at the last
//! message of the response, so that what runs in the background afterwards does not count, or with the coroutine where
//! the response never ends or is a WebSocket. Of an error, and of a response in pieces, the exception may come after the
//! last message: that is waited for. Nothing but `send` is looked at: it is wrapped once, by a native callable that
//! returns what the server's own returns.

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use agent_core::clock::{self, Ticks};
use agent_core::semconv;
use agent_core::span::SpanSpec;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

use crate::breaker::Breaker;
use crate::current::{self, Span, StoredSpan};
use crate::exception;
use crate::ffi::{self, intern, quiet, utf8};
use crate::http::captured_headers::{self, Capture, SERVER_REQUEST, SERVER_RESPONSE};
use crate::http::excluded_urls::ExcludedUrls;
use crate::http::raw_headers::{
    FORWARDED, FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO, HOST, RawHeaders, USER_AGENT,
};
use crate::http::server::{self, Request, Text};
use crate::suppression::{self, Of};
use crate::wrapper::{self, Call, Flight, HookResult};

/// Who makes the span: a framework, or a server for an application that has none.
pub struct Server {
    /// Its spans.
    pub spec: SpanSpec,
    /// Its excluded URLs.
    pub excluded: ExcludedUrls,
    /// Its faults.
    pub breaker: &'static Breaker,
    /// Whether a framework's hook further in may take the span over.
    pub bare: bool,
}

impl Server {
    /// Around an ASGI application's `__call__`, with the scope at `first` among the arguments: as an
    /// [`AsyncHook`](wrapper::AsyncHook). `None` for what is no request, and where a hook further out has made this
    /// request's span already, which the framework then takes over.
    pub fn serve(&'static self, call: &mut Call<'_>, first: usize) -> HookResult<Option<Box<dyn Flight>>> {
        let py = call.py();
        let scope = call.argument(first, intern!(py, "scope")).map(|scope| scope.to_owned());
        let Some(scope) = scope.as_ref().and_then(|scope| scope.cast::<PyDict>().ok()).map(Scope) else {
            return Ok(None);
        };
        let Some(websocket) = scope.is_websocket() else { return Ok(None) };
        let send = call.argument(first + 2, intern!(py, "send")).map(|send| send.to_owned());
        let Some(send) = send else { return Ok(None) };
        let in_force = current::current(py);
        let headers = scope.headers();
        let subject = scope.subject(headers.as_ref());
        let made = current::hook_span_of(&in_force);
        if let Some(span) = made.as_ref().filter(|span| is_of(span, subject, &scope, &send)) {
            // A server within a server (uvicorn as gunicorn's worker) leaves it to the framework.
            if self.bare {
                return Ok(None);
            }
            if span.note().bare.load(Ordering::Relaxed)
                && self.excluded.contain(|| Some(Cow::Owned(scope.url())))
            {
                server::forget(span, wanted(headers.as_ref()).incoming());
            }
            server::adopt(span, &self.spec);
            if span.note().mounted.load(Ordering::Relaxed) && scope.any(intern!(py, "endpoint")).is_none() {
                leave_mount(span);
            }
            return Ok(None);
        }
        if suppression::suppressed(py, Of::Any) {
            return Ok(None);
        }
        let headers = wanted(headers.as_ref());
        let incoming = headers.incoming();
        if self.excluded.contain(|| Some(Cow::Owned(scope.url()))) {
            let span = server::pass_on(py, &self.spec, incoming, subject);
            return Ok(span.map(|span| Exchange::board(span)));
        }
        let Some(span) = server::start(py, &self.spec, subject, &incoming, in_force.as_ref()) else {
            return Ok(None);
        };
        if self.bare {
            server::mark_bare(&span);
        }
        if span.is_recording() {
            scope.describe(&span, websocket, &headers);
            let send = wrapper::wrap_for(&send, sending, &span, self.breaker)?;
            call.proceed_replacing(first + 2, intern!(py, "send"), &send);
        }
        Ok(Some(Exchange::board(span)))
    }
}

/// Whether a span is that of the request: it has the same subject, goes by the `send` that we have wrapped, or its
/// application of Starlette's is in the scope (whatever stands between may have replaced either of the others).
#[inline]
fn is_of(span: &Span<'_>, subject: usize, scope: &Scope<'_, '_>, send: &Bound<'_, PyAny>) -> bool {
    span.note().subject.load(Ordering::Relaxed) == subject
        || (server::is_serving(span)
            && (wrapper::is_wrapper(send) || scope.any(intern!(send.py(), "app")).is_some()))
}

/// Names the span in force by the route that its request has found, once.
pub fn set_route<'py>(
    py: Python<'py>,
    scope: &Bound<'py, PyDict>,
    route: impl FnOnce() -> Option<Bound<'py, PyAny>>,
) {
    let Some(span) = server::server_span(py).filter(Span::is_recording) else { return };
    // The framework's route hands over to the one that it is made from.
    if span.note().routed.load(Ordering::Relaxed) {
        return;
    }
    let scope = Scope(scope);
    let Some(route) = route().and_then(|route| route.cast_into::<PyString>().ok()) else { return };
    let Some(route) = utf8(&route) else { return };
    match mount(&span) {
        Some(mount) => name(&span, Some(&mount), route),
        None => name(&span, text(&scope.get(intern!(py, "root_path"))), route),
    }
}

fn name(span: &Span<'_>, root: Option<&str>, route: &str) {
    let root = root.filter(|root| !root.is_empty()).map(|root| Text::Bytes(root.as_bytes()));
    server::set_route(span, root, route);
}

/// Where the applications are mounted that have led to a request's route so far.
#[inline]
fn mount(span: &Span<'_>) -> Option<String> {
    if !span.note().mounted.load(Ordering::Relaxed) {
        return None;
    }
    span.with(|span| span.text(semconv::HTTP_ROUTE.name()).map(str::to_owned)).flatten()
}

/// As [`set_route`], of an application that is mounted at `path`: what it does not route itself keeps this name. The
/// scope's `root_path` has the values of the path's parameters, `http.route` is to have their names.
pub fn set_mount<'py>(
    py: Python<'py>,
    scope: &Bound<'py, PyDict>,
    path: impl FnOnce() -> Option<Bound<'py, PyAny>>,
) {
    let Some(span) = server::server_span(py).filter(Span::is_recording) else { return };
    if span.note().routed.load(Ordering::Relaxed) {
        return;
    }
    let Some(path) = path().and_then(|path| path.cast_into::<PyString>().ok()) else { return };
    let Some(path) = quiet(py, path.to_str()).filter(|path| !path.is_empty()) else { return };
    let scope = Scope(scope);
    match mount(&span) {
        Some(mount) => name(&span, Some(&mount), path),
        None => name(&span, text(&scope.get(intern!(py, "app_root_path"))), path),
    }
    span.note().mounted.store(true, Ordering::Relaxed);
    span.note().routed.store(false, Ordering::Relaxed);
}

/// The application is not inside the mounts that the request went through: a first one had no answer, and this is asked
/// in its stead. It finds its route anew.
#[cold]
fn leave_mount(span: &Span<'_>) {
    span.note().mounted.store(false, Ordering::Relaxed);
    span.note().routed.store(false, Ordering::Relaxed);
    span.with(|span| {
        span.replace(semconv::HTTP_ROUTE.name());
        let method = span.text(semconv::HTTP_REQUEST_METHOD.name()).filter(|method| *method != "_OTHER");
        let method = method.unwrap_or("HTTP").to_owned();
        span.name(&method);
    });
}

/// What runs in the background begins: the request is over. Where an exception is being handled, the response is made of
/// that, and it may go on afterwards.
pub fn before_background(span: &Span<'_>) {
    if span.note().completed.load(Ordering::Relaxed) != 0 && ffi::handled(span.py()).is_none() {
        finish_completed(span);
    }
}

/// Ends a span at the moment when its response was complete, where that is known.
#[cold]
fn finish_completed(span: &Span<'_>) {
    match span.note().completed.load(Ordering::Relaxed) {
        0 => span.finish(),
        at => drop(span.with(|span| span.finish_at(Ticks(at)))),
    }
}

/// A request's `scope`.
struct Scope<'a, 'py>(&'a Bound<'py, PyDict>);

impl<'py> Scope<'_, 'py> {
    #[inline]
    fn any(&self, key: &Bound<'py, PyString>) -> Option<Bound<'py, PyAny>> {
        quiet(self.0.py(), self.0.get_item(key)).flatten()
    }

    #[inline]
    fn get(&self, key: &Bound<'py, PyString>) -> Option<Bound<'py, PyString>> {
        self.any(key)?.cast_into().ok()
    }

    /// `None` for what is no request (`lifespan`).
    #[inline]
    fn is_websocket(&self) -> Option<bool> {
        let py = self.0.py();
        match text(&self.get(intern!(py, "type")))? {
            "http" => Some(false),
            "websocket" => Some(true),
            _ => None,
        }
    }

    #[inline]
    fn headers(&self) -> Option<Bound<'py, PyAny>> {
        self.any(intern!(self.0.py(), "headers"))
    }

    /// What tells the request from another, through copies of the scope. Starlette replaces the header list whenever
    /// headers are looked at.
    #[inline]
    fn subject(&self, headers: Option<&Bound<'py, PyAny>>) -> usize {
        let asgi = self.any(intern!(self.0.py(), "asgi")).filter(|asgi| asgi.is_instance_of::<PyDict>());
        asgi.as_ref().or(headers).map_or(self.0.as_ptr(), Bound::as_ptr) as usize
    }

    /// A WebSocket begins as a `GET` and, since HTTP/2, as a `CONNECT` (RFC 8441).
    fn method(&self, websocket: bool) -> Option<Bound<'py, PyString>> {
        let py = self.0.py();
        if !websocket {
            return self.get(intern!(py, "method"));
        }
        let version = self.get(intern!(py, "http_version"));
        let extended = text(&version).is_some_and(|version| !version.starts_with("1."));
        Some(if extended { intern!(py, "CONNECT") } else { intern!(py, "GET") }.clone())
    }

    /// Address and port of one end.
    fn end(&self, key: &Bound<'py, PyString>) -> (Option<Bound<'py, PyString>>, Option<u16>) {
        let Some(end) = self.any(key) else { return (None, None) };
        let at = |index| item(&end, index);
        let port = at(1).and_then(|port| quiet(self.0.py(), port.extract::<u16>()));
        (at(0).and_then(|address| address.cast_into().ok()), port)
    }

    fn path(&self, out: &mut Vec<u8>, path: &Option<Bound<'py, PyString>>) {
        match path.as_ref().map(|path| path.to_string_lossy()).filter(|path| !path.is_empty()) {
            Some(path) => out.extend_from_slice(path.as_bytes()),
            None => out.push(b'/'),
        }
    }

    /// Sets what the request says. Only for a span that records.
    fn describe(&self, span: &Span<'py>, websocket: bool, headers: &RawHeaders<'py>) {
        let py = self.0.py();
        let method = self.method(websocket);
        let path = self.get(intern!(py, "path"));
        let query = self.any(intern!(py, "query_string"));
        let query = query.as_ref().and_then(|query| query.cast::<PyBytes>().ok());
        let version = self.get(intern!(py, "http_version"));
        let scheme = self.get(intern!(py, "scheme"));
        let (peer, peer_port) = self.end(intern!(py, "client"));
        let host = headers.text(HOST).filter(|host| !host.is_empty());
        let (server, server_port) = match host {
            Some(_) => (None, None),
            None => self.end(intern!(py, "server")),
        };
        let request = Request {
            method: text(&method),
            path: text(&path),
            query: query.map(|query| Text::Bytes(query.as_bytes())),
            version: text(&version),
            peer: text(&peer),
            peer_port,
            agent: headers.get(USER_AGENT).map(|agent| Text::Bytes(agent.as_bytes())),
            host,
            server: text(&server).map(|name| (name, server_port)),
            scheme: text(&scheme),
            forwarded: headers.text(FORWARDED),
            forwarded_for: headers.text(FORWARDED_FOR),
            forwarded_host: headers.text(FORWARDED_HOST),
            forwarded_proto: headers.text(FORWARDED_PROTO),
        };
        span.with(|span| request.describe(span, |out| self.path(out, &path)));
        if let Some(capture) = SERVER_REQUEST.capture() {
            let captured = captured(self.headers().as_ref(), capture);
            span.with(|span| captured.set(span));
        }
    }

    /// The URL as the server saw it, path decoded, nothing redacted: to be compared, not shown.
    #[cold]
    fn url(&self) -> String {
        let py = self.0.py();
        let mut out = Vec::new();
        let scheme = self.get(intern!(py, "scheme"));
        out.extend_from_slice(text(&scheme).unwrap_or("http").as_bytes());
        out.extend_from_slice(b"://");
        match wanted(self.headers().as_ref()).get(HOST) {
            Some(host) => out.extend_from_slice(host.as_bytes()),
            None => {
                let (server, port) = self.end(intern!(py, "server"));
                out.extend_from_slice(text(&server).unwrap_or_default().as_bytes());
                if let Some(port) = port {
                    out.extend_from_slice(format!(":{port}").as_bytes());
                }
            }
        }
        self.path(&mut out, &self.get(intern!(py, "path")));
        let query = self.any(intern!(py, "query_string"));
        if let Some(Ok(query)) = query.as_ref().map(|query| query.cast::<PyBytes>())
            && !query.as_bytes().is_empty()
        {
            out.push(b'?');
            out.extend_from_slice(query.as_bytes());
        }
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// Those that a span wants to know.
#[inline]
fn wanted<'py>(headers: Option<&Bound<'py, PyAny>>) -> RawHeaders<'py> {
    let mut found = RawHeaders::default();
    let Some(headers) = headers else { return found };
    let mut take = |pair: &Bound<'py, PyAny>| {
        // Nearly all servers give tuples, whose items need no references of our own.
        if let Ok(pair) = pair.cast::<PyTuple>() {
            if let (Ok(name), Ok(value)) = (pair.get_borrowed_item(0), pair.get_borrowed_item(1))
                && let Ok(name) = name.cast::<PyBytes>()
            {
                found.see(name.as_bytes(), || value.to_owned().cast_into().ok());
            }
            return;
        }
        let Some(name) = item(pair, 0) else { return };
        let Ok(name) = name.cast::<PyBytes>() else { return };
        found.see(name.as_bytes(), || item(pair, 1).and_then(|value| value.cast_into().ok()));
    };
    if let Ok(list) = headers.cast::<PyList>() {
        list.iter().for_each(|pair| take(&pair));
    } else if let Ok(tuple) = headers.cast::<PyTuple>() {
        tuple.iter_borrowed().for_each(|pair| take(&pair));
    }
    found
}

/// An item of a tuple or a list.
#[inline]
fn item<'py>(of: &Bound<'py, PyAny>, at: usize) -> Option<Bound<'py, PyAny>> {
    let found = match of.cast::<PyTuple>() {
        Ok(tuple) => tuple.get_item(at),
        Err(_) => of.cast::<PyList>().ok()?.get_item(at),
    };
    quiet(of.py(), found)
}

#[cold]
fn captured(headers: Option<&Bound<'_, PyAny>>, mut capture: Capture) -> Capture {
    let pairs = headers.and_then(|headers| quiet(headers.py(), headers.try_iter()));
    // An iterator would be used up.
    let pairs = pairs.filter(|pairs| !headers.is_some_and(|headers| headers.is(pairs)));
    for pair in pairs.into_iter().flatten() {
        let Some(pair) = headers.and_then(|headers| quiet(headers.py(), pair)) else { break };
        if let (Some(name), Some(value)) = (item(&pair, 0), item(&pair, 1))
            && let Some(name) = captured_headers::text(&name)
        {
            capture.add(&name, || captured_headers::text(&value));
        }
    }
    capture
}

#[inline]
fn text<'a>(value: &'a Option<Bound<'_, PyString>>) -> Option<&'a str> {
    utf8(value.as_ref()?)
}

/// Around the server's `send`.
fn sending(call: &mut Call<'_>) -> HookResult {
    if let Some(span) = call.span().filter(Span::is_recording)
        && let Some(message) = call.arg(0).map(|message| message.to_owned())
        && let Ok(message) = message.cast_into::<PyDict>()
    {
        look_at(&span, &Scope(&message));
    }
    call.proceed();
    Ok(())
}

#[inline]
fn look_at(span: &Span<'_>, message: &Scope<'_, '_>) {
    let py = message.0.py();
    let note = span.note();
    let is_set = |key| message.any(key).is_some_and(|value| quiet(py, value.is_truthy()) == Some(true));
    match text(&message.get(intern!(py, "type"))).unwrap_or_default() {
        "http.response.start" | "websocket.http.response.start" => {
            note.trailers.store(is_set(intern!(py, "trailers")), Ordering::Relaxed);
            begin(span, message);
        }
        "http.response.body" | "http.response.zerocopysend" => {
            if is_set(intern!(py, "more_body")) {
                note.pieces.store(true, Ordering::Relaxed);
            } else if !note.trailers.load(Ordering::Relaxed) {
                end_response(span);
            }
        }
        "http.response.pathsend" if !note.trailers.load(Ordering::Relaxed) => end_response(span),
        "http.response.trailers" if !is_set(intern!(py, "more_trailers")) => end_response(span),
        "websocket.accept" if !note.answered.swap(true, Ordering::Relaxed) => {
            server::set_status(span, 101);
            capture(span, message);
        }
        // Before it was accepted: the server refuses the handshake.
        "websocket.close" if !note.answered.swap(true, Ordering::Relaxed) => {
            server::set_status(span, 403);
        }
        _ => {}
    }
}

fn begin(span: &Span<'_>, message: &Scope<'_, '_>) {
    let py = message.0.py();
    // A second head is the application's mistake, which the server refuses.
    if span.note().answered.swap(true, Ordering::Relaxed) {
        return;
    }
    let status = message.any(intern!(py, "status"));
    if let Some(code) = status.and_then(|status| quiet(py, status.extract::<u16>())) {
        server::set_status(span, code);
    }
    capture(span, message);
}

fn capture(span: &Span<'_>, message: &Scope<'_, '_>) {
    if let Some(capture) = SERVER_RESPONSE.capture() {
        let captured = captured(message.headers().as_ref(), capture);
        span.with(|span| captured.set(span));
    }
}

/// The response is complete. After an error the exception may still come, with the end of the coroutine; so it may
/// after a body in pieces: Starlette's `BaseHTTPMiddleware` sends an end to a body that failed half-way.
fn end_response(span: &Span<'_>) {
    let is_error = span.note().status.load(Ordering::Relaxed) >= 500;
    if !is_error && !span.note().pieces.load(Ordering::Relaxed) {
        span.finish();
    } else {
        span.note().completed.store(clock::now().0, Ordering::Relaxed);
    }
}

/// A request while the application's coroutine runs.
struct Exchange {
    span: Option<StoredSpan>,
}

impl Exchange {
    fn board(span: Span<'_>) -> Box<dyn Flight> {
        Box::new(Self { span: Some(span.store()) })
    }
}

impl Flight for Exchange {
    fn start(&mut self, _py: Python<'_>) -> HookResult<Option<StoredSpan>> {
        Ok(self.span.take())
    }

    fn finish(
        &mut self,
        _py: Python<'_>,
        span: Option<&Span<'_>>,
        outcome: Result<&Bound<'_, PyAny>, &Bound<'_, PyAny>>,
    ) -> HookResult {
        let Some(span) = span else { return Ok(()) };
        server::answered(span);
        if span.is_recording() {
            match outcome {
                Err(error) if !(is_disconnect(error) || exception::is_cancellation(error)) => {
                    server::failed(span, error);
                    span.finish();
                    return Ok(());
                }
                // Starlette answers this exception too, before it lets it go on.
                Err(error) if answered_with_error(span) && is_disconnect(error) => server::unanswered(span),
                _ => {}
            }
            // What came behind the answer was not its.
            finish_completed(span);
        }
        Ok(())
    }
}

/// Whether the response was complete, and an error.
#[cold]
fn answered_with_error(span: &Span<'_>) -> bool {
    let note = span.note();
    note.completed.load(Ordering::Relaxed) != 0 && note.status.load(Ordering::Relaxed) >= 500
}

/// Whether an exception says that the client went away, which is not the application's failure.
#[cold]
fn is_disconnect(error: &Bound<'_, PyAny>) -> bool {
    let name = exception::type_name(error);
    let known = ["starlette.requests.ClientDisconnect", "starlette.websockets.WebSocketDisconnect"];
    known.contains(&name.as_str()) || name.ends_with(".ClientDisconnected")
}
