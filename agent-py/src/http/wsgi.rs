//! The server span of a WSGI request, whichever framework or server the application uses.
//!
//! Nothing of a request is parsed by what can raise: what cannot be read is left out.

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use agent_core::span::SpanSpec;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};

use crate::breaker::Breaker;
use crate::current::{self, Span};
use crate::ffi::{intern, quiet, utf8};
use crate::http::Incoming;
use crate::http::captured_headers::{self, Capture, SERVER_REQUEST, SERVER_RESPONSE};
use crate::http::excluded_urls::ExcludedUrls;
use crate::http::server::{self, Request, Text, latin1};
use crate::suppression::{self, Of};
use crate::wrapper::{self, Call, HookResult};

/// A request's `environ`.
pub struct Environ<'a, 'py>(pub &'a Bound<'py, PyDict>);

impl<'py> Environ<'_, 'py> {
    #[inline]
    fn get(&self, key: &Bound<'py, PyString>) -> Option<Bound<'py, PyString>> {
        quiet(self.0.py(), self.0.get_item(key))??.cast_into::<PyString>().ok()
    }

    /// What tells one request from another. A copy of an `environ` is another dictionary, but has the same stream.
    #[inline]
    pub fn subject(&self) -> usize {
        match self.0.get_item(intern!(self.0.py(), "wsgi.input")) {
            Ok(Some(stream)) if !stream.is_none() => stream.as_ptr() as usize,
            _ => self.0.as_ptr() as usize,
        }
    }

    #[inline]
    fn incoming(&self) -> Incoming {
        let py = self.0.py();
        Incoming::read(|at| match at {
            0 => self.get(intern!(py, "HTTP_TRACEPARENT")),
            1 => self.get(intern!(py, "HTTP_TRACESTATE")),
            _ => self.get(intern!(py, "HTTP_BAGGAGE")),
        })
    }

    /// Whether a span is this request's. A copy has the same stream; where middleware has read that and put another one
    /// there, the `environ` is still the same.
    #[inline]
    pub fn is_of(&self, span: &Span<'_>) -> bool {
        let note = span.note();
        let subject = note.subject.load(Ordering::Relaxed);
        let is_same = || note.environ.load(Ordering::Relaxed) == self.0.as_ptr() as usize;
        subject != 0 && (is_same() || subject == self.subject())
    }

    /// The caller's span, to be in force for a request that gets none of its own: what follows hangs below it. `None`
    /// where the request names none.
    #[cold]
    pub fn pass_on(&self, spec: &SpanSpec, in_force: &Option<Span<'py>>) -> Option<Span<'py>> {
        // The server that calls the framework may have made one, which knows nothing of this application's settings.
        let made = current::hook_span_of(in_force);
        let made = made.filter(|span| span.note().bare.load(Ordering::Relaxed));
        if let Some(span) = made.filter(|span| self.is_of(span)) {
            server::forget(&span, Incoming::read::<Bound<'py, PyString>>(|_| None));
        }
        let span = server::pass_on(self.0.py(), spec, self.incoming(), self.subject())?;
        self.note(&span);
        Some(span)
    }

    /// The call is that of a request which gets no span of its own: the caller's is in force, also while the body is
    /// made.
    #[cold]
    pub fn pass_through(
        &self,
        call: &mut Call<'py>,
        spec: &SpanSpec,
        in_force: Option<Span<'py>>,
    ) -> HookResult {
        let Some(span) = self.pass_on(spec, &in_force) else {
            call.proceed();
            return Ok(());
        };
        {
            let _entered = span.enter(in_force);
            call.proceed();
        }
        self.returned(call, span)
    }

    fn note(&self, span: &Span<'_>) {
        span.note().environ.store(self.0.as_ptr() as usize, Ordering::Relaxed);
    }

    /// The URL as the server saw it, path decoded, nothing redacted: to be compared, not shown.
    #[cold]
    pub fn url(&self) -> String {
        let py = self.0.py();
        let mut out = Vec::new();
        bytes_of(&self.get(intern!(py, "wsgi.url_scheme")), &mut out);
        out.extend_from_slice(b"://");
        match self.get(intern!(py, "HTTP_HOST")) {
            host @ Some(_) => bytes_of(&host, &mut out),
            None => {
                bytes_of(&self.get(intern!(py, "SERVER_NAME")), &mut out);
                out.push(b':');
                bytes_of(&self.get(intern!(py, "SERVER_PORT")), &mut out);
            }
        }
        self.path(&mut out);
        let query = self.get(intern!(py, "QUERY_STRING"));
        if text(&query).is_some_and(|query| !query.is_empty()) {
            out.push(b'?');
            bytes_of(&query, &mut out);
        }
        String::from_utf8_lossy(&out).into_owned()
    }

    fn path(&self, out: &mut Vec<u8>) {
        let py = self.0.py();
        let from = out.len();
        bytes_of(&self.get(intern!(py, "SCRIPT_NAME")), out);
        bytes_of(&self.get(intern!(py, "PATH_INFO")), out);
        if out.len() == from {
            out.push(b'/');
        }
    }

    #[cold]
    fn captured(&self, mut headers: Capture) -> Capture {
        for (key, value) in self.0.items().iter().filter_map(|item| item.extract().ok()) {
            let (key, value): (Bound<'py, PyAny>, Bound<'py, PyAny>) = (key, value);
            let Some(key) = captured_headers::text(&key) else { continue };
            let name = match key.strip_prefix("HTTP_") {
                Some(name) => name,
                None if matches!(key.as_str(), "CONTENT_TYPE" | "CONTENT_LENGTH") => &key,
                None => continue,
            };
            headers.add(&name.replace('_', "-"), || captured_headers::text(&value));
        }
        headers
    }

    /// Starts the request's span, below the caller's or, where the request names none, below the open span in force
    /// (a test client, an application called by another one). `None` where the span in force is this request's.
    pub fn start(&self, spec: &SpanSpec, in_force: &Option<Span<'py>>) -> Option<Span<'py>> {
        let made = current::hook_span_of(in_force);
        if let Some(span) = made.filter(|span| self.is_of(span)) {
            server::adopt(&span, spec);
            return None;
        }
        let span = server::start(self.0.py(), spec, self.subject(), &self.incoming(), in_force.as_ref())?;
        self.note(&span);
        Some(span)
    }

    /// Sets what the request says. Only for a span that records.
    pub fn describe(&self, span: &Span<'py>) {
        let values = Values::of(self.0);
        let rootless = values.0[SCRIPT].as_ref().is_none_or(|script| utf8(script).is_some_and(str::is_empty));
        span.note().rootless.store(rootless, Ordering::Relaxed);
        let port = |at| values.text(at).and_then(|port| port.parse::<u16>().ok());
        let agent = lossy(&values.0[USER_AGENT]);
        let host = values.text(HOST).filter(|host| !host.is_empty());
        let server = if host.is_none() { values.text(SERVER_NAME) } else { None };
        let behind = if values.0[FORWARDED_FOR].is_some() { self.behind_proxy_fix() } else { None };
        let request = Request {
            method: values.text(METHOD),
            path: None,
            query: values.text(QUERY).map(Text::Latin1),
            version: values.text(PROTOCOL),
            peer: text(&behind).or_else(|| values.text(PEER)),
            peer_port: port(PEER_PORT),
            agent: agent.as_deref().map(Text::Latin1),
            host,
            server: server.map(|name| (name, port(SERVER_PORT))),
            scheme: values.text(SCHEME),
            forwarded: values.text(FORWARDED),
            forwarded_for: values.text(FORWARDED_FOR),
            forwarded_host: values.text(FORWARDED_HOST),
            forwarded_proto: values.text(FORWARDED_PROTO),
        };
        span.with(|span| {
            request.describe(span, |out| {
                let from = out.len();
                bytes_of(&values.0[SCRIPT], out);
                bytes_of(&values.0[PATH], out);
                if out.len() == from {
                    out.push(b'/');
                }
            });
        });
        if let Some(headers) = SERVER_REQUEST.capture() {
            let headers = self.captured(headers);
            span.with(|span| headers.set(span));
        }
    }

    /// The peer, where Werkzeug's `ProxyFix` has put the proxy's client in its place.
    #[cold]
    fn behind_proxy_fix(&self) -> Option<Bound<'py, PyString>> {
        let py = self.0.py();
        let before = quiet(py, self.0.get_item(intern!(py, "werkzeug.proxy_fix.orig")))??;
        Environ(before.cast::<PyDict>().ok()?).get(intern!(py, "REMOTE_ADDR"))
    }

    /// The path that the application is mounted at.
    pub fn root(&self) -> Option<Bound<'py, PyString>> {
        self.get(intern!(self.0.py(), "SCRIPT_NAME"))
    }

    /// Whether a response body may still have to be made: it is no list and not what the server made for sending a file.
    pub fn is_streamed(&self, body: &Bound<'py, PyAny>) -> bool {
        !body.is_instance_of::<PyList>() && !body.is_instance_of::<PyTuple>() && !self.is_file_wrapper(body)
    }

    fn is_file_wrapper(&self, body: &Bound<'py, PyAny>) -> bool {
        let wrapper =
            quiet(self.0.py(), self.0.get_item(intern!(self.0.py(), "wsgi.file_wrapper"))).flatten();
        wrapper.is_some_and(|wrapper| body.get_type().is(&wrapper))
    }

    /// The application has returned its body or raised.
    fn returned(&self, call: &mut Call<'py>, span: Span<'py>) -> HookResult {
        let Some(body) = call.result().filter(|body| self.is_streamed(body)) else {
            server::answered(&span);
            span.finish();
            return Ok(());
        };
        // The span lives until the server closes the body, and is in force while a piece of it is made.
        let body = wrapper::wrap_body(&body, span)?;
        call.replace_result(body);
        Ok(())
    }
}

/// What a span wants to know of an `environ`, by the places here.
const NAMES: [&str; 16] = [
    "REQUEST_METHOD",
    "SCRIPT_NAME",
    "PATH_INFO",
    "QUERY_STRING",
    "SERVER_PROTOCOL",
    "REMOTE_ADDR",
    "REMOTE_PORT",
    "HTTP_USER_AGENT",
    "HTTP_HOST",
    "wsgi.url_scheme",
    "HTTP_FORWARDED",
    "HTTP_X_FORWARDED_FOR",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PROTO",
    // Where there is no host.
    "SERVER_NAME",
    "SERVER_PORT",
];
const METHOD: usize = 0;
const SCRIPT: usize = 1;
const PATH: usize = 2;
const QUERY: usize = 3;
const PROTOCOL: usize = 4;
const PEER: usize = 5;
const PEER_PORT: usize = 6;
const USER_AGENT: usize = 7;
const HOST: usize = 8;
const SCHEME: usize = 9;
const FORWARDED: usize = 10;
const FORWARDED_FOR: usize = 11;
const FORWARDED_HOST: usize = 12;
const FORWARDED_PROTO: usize = 13;
const SERVER_NAME: usize = 14;
const SERVER_PORT: usize = 15;

/// These, read in one loop: little code, which is what a request's description costs.
struct Values<'py>([Option<Bound<'py, PyString>>; NAMES.len()]);

impl<'py> Values<'py> {
    fn of(environ: &Bound<'py, PyDict>) -> Self {
        static KEYS: PyOnceLock<[Py<PyString>; NAMES.len()]> = PyOnceLock::new();
        let py = environ.py();
        let keys = KEYS.get_or_init(py, || NAMES.map(|name| PyString::intern(py, name).unbind()));
        let mut values = Self([const { None }; NAMES.len()]);
        for (at, key) in keys.iter().enumerate() {
            if at == SERVER_NAME && values.text(HOST).is_some_and(|host| !host.is_empty()) {
                break;
            }
            values.0[at] = Environ(environ).get(key.bind(py));
        }
        values
    }

    #[inline(never)]
    fn text(&self, at: usize) -> Option<&str> {
        text(&self.0[at])
    }
}

fn text<'a>(value: &'a Option<Bound<'_, PyString>>) -> Option<&'a str> {
    utf8(value.as_ref()?)
}

/// What has surrogates keeps what has a character.
fn lossy<'a>(value: &'a Option<Bound<'_, PyString>>) -> Option<Cow<'a, str>> {
    value.as_ref().map(|value| utf8(value).map_or_else(|| value.to_string_lossy(), Cow::Borrowed))
}

fn bytes_of(value: &Option<Bound<'_, PyString>>, out: &mut Vec<u8>) {
    if let Some(value) = lossy(value) {
        latin1(&value, out);
    }
}

/// Around a WSGI application as its server calls it.
pub fn serve(
    call: &mut Call<'_>,
    spec: &SpanSpec,
    excluded: &ExcludedUrls,
    breaker: &'static Breaker,
) -> HookResult {
    let py = call.py();
    let environ = call.arg(0).map(|environ| environ.to_owned());
    let start_response = call.arg(1).map(|start_response| start_response.to_owned());
    let environ = environ.as_ref().and_then(|environ| environ.cast::<PyDict>().ok()).map(Environ);
    let (Some(environ), Some(start_response)) = (environ, start_response) else { return Ok(()) };
    if suppression::suppressed(py, Of::Any) {
        return Ok(());
    }
    let in_force = current::current(py);
    if excluded.contain(|| Some(Cow::Owned(environ.url()))) {
        return environ.pass_through(call, spec, in_force);
    }
    let Some(span) = environ.start(spec, &in_force) else { return Ok(()) };
    server::mark_bare(&span);
    if !span.is_recording() {
        {
            let _entered = span.enter(in_force);
            call.proceed();
        }
        called(&span);
        return environ.returned(call, span);
    }
    environ.describe(&span);
    let start_response = wrapper::wrap_for(&start_response, responding, &span, breaker)?;
    {
        let _entered = span.enter(in_force);
        call.proceed_replacing(1, intern!(py, "start_response"), &start_response);
    }
    called(&span);
    if let Some(error) = call.error() {
        server::failed(&span, &error);
    }
    environ.returned(call, span)
}

/// The server has called the application. Where no framework has met the request's span, its application may be called
/// while the body is made: by middleware that is a generator.
fn called(span: &Span<'_>) {
    if !span.note().bare.load(Ordering::Relaxed) {
        server::answered(span);
    }
}

/// Around a server's `start_response`.
fn responding(call: &mut Call<'_>) -> HookResult {
    call.proceed();
    // What the server refuses (it has sent the first head already) is not what the client sees.
    if call.error().is_some() {
        return Ok(());
    }
    if let Some(span) = call.span().filter(Span::is_recording) {
        look_at_head(&span, call);
    }
    Ok(())
}

fn look_at_head(span: &Span<'_>, call: &Call<'_>) {
    let status = call.arg(0).and_then(|status| status.to_owned().cast_into::<PyString>().ok());
    if let Some(code) = text(&status).and_then(|status| status.get(..3)).and_then(|code| code.parse().ok()) {
        if span.note().answered.swap(true, Ordering::Relaxed) {
            // A framework has said so already, or nothing was sent of the first head: an error was found before the body.
            server::unanswered(span);
        }
        server::set_status(span, code);
    }
    if let (Some(mut capture), Some(headers)) = (SERVER_RESPONSE.capture(), call.arg(1))
        && let Ok(headers) = headers.cast::<PyList>()
    {
        for pair in headers.iter() {
            if let Ok(pair) = pair.cast::<PyTuple>()
                && let (Ok(name), Ok(value)) = (pair.get_item(0), pair.get_item(1))
                && let Some(name) = captured_headers::text(&name)
            {
                capture.add(&name, || captured_headers::text(&value));
            }
        }
        span.with(|span| capture.set(span));
    }
}
