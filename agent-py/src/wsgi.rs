//! The server span of a WSGI request, whichever framework or server the application uses.
//!
//! Nothing of a request is parsed by what can raise: what cannot be read is left out.

use std::sync::atomic::Ordering;

use agent_core::redact;
use agent_core::semconv;
use agent_core::span::{ActiveSpan, Parent, SpanKind, SpanSpec};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::captured_headers::{self, Capture, SERVER_REQUEST};
use crate::current::{self, Entered, Span};
use crate::ffi::quiet;
use crate::http::{self, Incoming, Method};
use crate::old_names;

/// A request's `environ`.
pub struct Environ<'a, 'py>(pub &'a Bound<'py, PyDict>);

/// The span in force, if it is one that [`Environ::start`] made and whose request is still being answered.
pub fn server_span(py: Python<'_>) -> Option<Span<'_>> {
    current::current(py).filter(|span| {
        span.note().subject.load(Ordering::Relaxed) != 0
            && span.with(|span| span.kind == SpanKind::Server).unwrap_or(false)
    })
}

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

    /// Puts the caller's span in force, for a request that gets none of its own: what follows hangs below it. `None`
    /// where the request names none.
    #[cold]
    pub fn pass_on(&self, spec: &SpanSpec, in_force: Option<Span<'py>>) -> Option<Entered<'py>> {
        let caller = self.incoming().passed_on()?;
        let span = current::start_with(self.0.py(), spec, Parent::Local(&caller))?;
        span.with(|span| *span = caller);
        Some(span.enter(in_force))
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

    /// The old names of what [`Self::describe`] sets from the request itself.
    #[cold]
    fn describe_old(&self, span: &Span<'py>) {
        let py = self.0.py();
        let host = self.get(intern!(py, "HTTP_HOST"));
        let query = self.get(intern!(py, "QUERY_STRING"));
        let protocol = self.get(intern!(py, "SERVER_PROTOCOL"));
        let peer = self.get(intern!(py, "REMOTE_ADDR"));
        let peer_port = self.get(intern!(py, "REMOTE_PORT"));
        let agent = self.get(intern!(py, "HTTP_USER_AGENT"));
        span.with(|span| {
            span.str_with(&old_names::HTTP_TARGET, |out| {
                self.path(out);
                if let Some(query) = text(&query).filter(|query| !query.is_empty()) {
                    out.push(b'?');
                    url_query(query, out);
                }
            });
            if host.is_some() {
                span.str_with(&old_names::HTTP_HOST, |out| bytes_of(&host, out));
            }
            if let Some(protocol) = text(&protocol) {
                span.str(&old_names::HTTP_FLAVOR, http::protocol_version(protocol));
            }
            if let Some(peer) = text(&peer).filter(|peer| !peer.is_empty()) {
                span.str(&old_names::NET_PEER_IP, peer);
                if let Some(port) = text(&peer_port).and_then(|port| port.parse::<u16>().ok()) {
                    span.int(&old_names::NET_PEER_PORT, i64::from(port));
                }
            }
            if agent.is_some() {
                span.str_with(&old_names::HTTP_USER_AGENT, |out| bytes_of(&agent, out));
            }
        });
    }

    /// Starts the request's span, below the caller's or, where the request names none, below the open span in force
    /// (a test client, an application called by another one). `None` where the span in force is this request's.
    pub fn start(&self, spec: &SpanSpec, in_force: &Option<Span<'py>>) -> Option<Span<'py>> {
        let py = self.0.py();
        let subject = self.subject();
        let in_force = in_force.as_ref();
        if in_force.is_some_and(|span| span.note().subject.load(Ordering::Relaxed) == subject) {
            return None;
        }
        let incoming = self.incoming();
        // A span that has ended is one that this thread was started under: not what caused the request.
        let local = in_force.filter(|span| {
            incoming.remote.is_none()
                && span.with(|span| span.is_recording() || !span.is_sampled()).unwrap_or(false)
        });
        let span = match local {
            Some(parent) => current::start(py, spec, &Some(parent.clone()))?,
            None => current::start_with(py, spec, incoming.parent())?,
        };
        span.note().subject.store(subject, Ordering::Relaxed);
        Some(span)
    }

    /// Sets what the request says. Only for a span that records.
    pub fn describe(&self, span: &Span<'py>) {
        let py = self.0.py();
        let method = self.get(intern!(py, "REQUEST_METHOD"));
        let script = self.get(intern!(py, "SCRIPT_NAME"));
        let path = self.get(intern!(py, "PATH_INFO"));
        let query = self.get(intern!(py, "QUERY_STRING"));
        let protocol = self.get(intern!(py, "SERVER_PROTOCOL"));
        let peer = self.get(intern!(py, "REMOTE_ADDR"));
        let peer_port = self.get(intern!(py, "REMOTE_PORT"));
        let agent = self.get(intern!(py, "HTTP_USER_AGENT"));
        let origin = Origin::of(self);
        span.with(|span| {
            if let Some(method) = text(&method).map(Method::of) {
                method.set(span);
            }
            span.str_with(&semconv::URL_PATH, |out| {
                let from = out.len();
                bytes_of(&script, out);
                bytes_of(&path, out);
                if out.len() == from {
                    out.push(b'/');
                }
            });
            if let Some(query) = text(&query).filter(|query| !query.is_empty()) {
                span.str_with(&semconv::URL_QUERY, |out| url_query(query, out));
            }
            let peer = text(&peer).filter(|peer| !peer.is_empty());
            origin.describe(span, peer);
            if let Some(protocol) = text(&protocol) {
                span.str(&semconv::NETWORK_PROTOCOL_VERSION, http::protocol_version(protocol));
            }
            if let Some(peer) = peer {
                span.str(&semconv::NETWORK_PEER_ADDRESS, peer);
                if let Some(port) = text(&peer_port).and_then(|port| port.parse::<u16>().ok()) {
                    span.int(&semconv::NETWORK_PEER_PORT, i64::from(port));
                }
            }
            if agent.is_some() {
                span.str_with(&semconv::USER_AGENT_ORIGINAL, |out| bytes_of(&agent, out));
            }
        });
        if let Some(headers) = SERVER_REQUEST.capture() {
            let headers = self.captured(headers);
            span.with(|span| headers.set(span));
        }
        if old_names::http() {
            self.describe_old(span);
        }
    }

    /// The method, and the path that the application is mounted at.
    pub fn method_and_root(&self) -> (Option<Bound<'py, PyString>>, Option<Bound<'py, PyString>>) {
        let py = self.0.py();
        (self.get(intern!(py, "REQUEST_METHOD")), self.get(intern!(py, "SCRIPT_NAME")))
    }

    /// Whether a response body is what the server made for sending a file.
    pub fn is_file_wrapper(&self, body: &Bound<'py, PyAny>) -> bool {
        let wrapper =
            quiet(self.0.py(), self.0.get_item(intern!(self.0.py(), "wsgi.file_wrapper"))).flatten();
        wrapper.is_some_and(|wrapper| body.get_type().is(&wrapper))
    }
}

/// Scheme, host and client as the first proxy saw them, else as the server did (HTTP semantic conventions, "Setting
/// `server.address` and `server.port` attributes").
struct Origin<'py> {
    forwarded: Option<Bound<'py, PyString>>,
    forwarded_for: Option<Bound<'py, PyString>>,
    forwarded_host: Option<Bound<'py, PyString>>,
    forwarded_proto: Option<Bound<'py, PyString>>,
    scheme: Option<Bound<'py, PyString>>,
    host: Option<Bound<'py, PyString>>,
    server: Option<(Bound<'py, PyString>, Option<Bound<'py, PyString>>)>,
}

impl<'py> Origin<'py> {
    fn of(environ: &Environ<'_, 'py>) -> Self {
        let py = environ.0.py();
        let host = environ.get(intern!(py, "HTTP_HOST")).filter(|host| !matches!(host.len(), Ok(0) | Err(_)));
        let server = match host {
            Some(_) => None,
            None => environ
                .get(intern!(py, "SERVER_NAME"))
                .map(|name| (name, environ.get(intern!(py, "SERVER_PORT")))),
        };
        Self {
            forwarded: environ.get(intern!(py, "HTTP_FORWARDED")),
            forwarded_for: environ.get(intern!(py, "HTTP_X_FORWARDED_FOR")),
            forwarded_host: environ.get(intern!(py, "HTTP_X_FORWARDED_HOST")),
            forwarded_proto: environ.get(intern!(py, "HTTP_X_FORWARDED_PROTO")),
            scheme: environ.get(intern!(py, "wsgi.url_scheme")),
            host,
            server,
        }
    }

    fn describe(&self, span: &mut ActiveSpan, peer: Option<&str>) {
        let forwarded = text(&self.forwarded);
        let proto = forwarded
            .and_then(|header| http::forwarded(header, "proto"))
            .or_else(|| text(&self.forwarded_proto).and_then(http::first_forwarded))
            .and_then(|proto| ["https", "http"].into_iter().find(|known| known.eq_ignore_ascii_case(proto)));
        let scheme = proto.or(text(&self.scheme)).unwrap_or("http");
        span.str(&semconv::URL_SCHEME, scheme);
        let host = forwarded
            .and_then(|header| http::forwarded(header, "host"))
            .or_else(|| text(&self.forwarded_host).and_then(http::first_forwarded))
            .or(text(&self.host));
        let (address, port) = match (host, &self.server) {
            (Some(host), _) => {
                let (address, port) = redact::split_host_port(host);
                (address, port.or_else(|| redact::default_port(scheme)))
            }
            (None, Some((name, port))) => {
                (quiet(name.py(), name.to_str()).unwrap_or(""), text(port).and_then(|port| port.parse().ok()))
            }
            (None, None) => ("", None),
        };
        if !address.is_empty() {
            span.str(&semconv::SERVER_ADDRESS, address);
            if let Some(port) = port {
                span.int(&semconv::SERVER_PORT, i64::from(port));
            }
        }
        if old_names::http() {
            span.str(&old_names::HTTP_SCHEME, scheme);
            if !address.is_empty() {
                span.str(&old_names::NET_HOST_NAME, address);
                if let Some(port) = port {
                    span.int(&old_names::NET_HOST_PORT, i64::from(port));
                }
            }
        }
        let client = forwarded
            .and_then(|header| http::forwarded(header, "for"))
            .or_else(|| text(&self.forwarded_for).and_then(http::first_forwarded))
            .and_then(http::node_address);
        if let Some(client) = client.or(peer) {
            span.str(&semconv::CLIENT_ADDRESS, client);
        }
    }
}

fn text<'a>(value: &'a Option<Bound<'_, PyString>>) -> Option<&'a str> {
    let value = value.as_ref()?;
    quiet(value.py(), value.to_str())
}

fn url_query(query: &str, out: &mut Vec<u8>) {
    if query.is_ascii() {
        return redact::url_query(query.as_bytes(), out);
    }
    let mut bytes = Vec::with_capacity(query.len());
    latin1(query, &mut bytes);
    redact::url_query(&bytes, out);
}

fn bytes_of(value: &Option<Bound<'_, PyString>>, out: &mut Vec<u8>) {
    let Some(value) = value else { return };
    match quiet(value.py(), value.to_str()) {
        Some(text) => latin1(text, out),
        // Surrogates: what has a character stays.
        None => out.extend_from_slice(value.to_string_lossy().as_bytes()),
    }
}

/// WSGI carries bytes as Latin-1 (PEP 3333): here they are bytes again.
#[inline]
pub fn latin1(text: &str, out: &mut Vec<u8>) {
    if text.is_ascii() || text.chars().any(|c| u32::from(c) > 255) {
        out.extend_from_slice(text.as_bytes());
    } else {
        out.extend(text.chars().map(|c| c as u8));
    }
}
