//! What the server spans of WSGI, ASGI and of servers with an interface of their own have in common.
//!
//! A request is described from texts that are borrowed from wherever its server keeps them; nothing of it is parsed by
//! what can raise.

use std::sync::atomic::Ordering;

use agent_core::redact;
use agent_core::semconv;
use agent_core::span::{ActiveSpan, Parent, SpanKind, SpanSpec};
use agent_core::tracer;
use pyo3::prelude::*;
use pyo3::types::PyAny;

use crate::current::{self, Span};
use crate::exception;
use crate::ffi::{intern, quiet};
use crate::http::known::Known;
use crate::http::{self, Incoming};
use crate::objects::attribute;
use crate::old_names;
use crate::settings;
use crate::wrapper;

/// A header or a part of the URL.
#[derive(Clone, Copy)]
pub enum Text<'a> {
    /// As it was sent.
    Bytes(&'a [u8]),
    /// Decoded as Latin-1 (PEP 3333).
    Latin1(&'a str),
}

impl Text<'_> {
    /// Appends the bytes that were sent.
    #[inline]
    pub fn append(self, out: &mut Vec<u8>) {
        match self {
            Self::Bytes(bytes) => out.extend_from_slice(bytes),
            Self::Latin1(text) => latin1(text, out),
        }
    }

    #[inline]
    fn is_empty(self) -> bool {
        match self {
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::Latin1(text) => text.is_empty(),
        }
    }

    /// Appends it as a query, what is secret redacted.
    fn append_query(self, out: &mut Vec<u8>) {
        match self {
            Self::Latin1(text) if !text.is_ascii() => {
                let mut bytes = Vec::with_capacity(text.len());
                latin1(text, &mut bytes);
                redact::url_query(&bytes, out);
            }
            Self::Latin1(text) => redact::url_query(text.as_bytes(), out),
            Self::Bytes(bytes) => redact::url_query(bytes, out),
        }
    }
}

/// What a request says. What is not there is `None`.
#[derive(Default)]
pub struct Request<'a> {
    /// The method as it was sent.
    pub method: Option<&'a str>,
    /// The decoded path, where it is at hand as a text.
    pub path: Option<&'a str>,
    /// The query without its question mark.
    pub query: Option<Text<'a>>,
    /// `1.1` or `HTTP/1.1`.
    pub version: Option<&'a str>,
    /// The other end of the connection.
    pub peer: Option<&'a str>,
    /// Its port.
    pub peer_port: Option<u16>,
    /// The header `User-Agent`.
    pub agent: Option<Text<'a>>,
    /// The header `Host`.
    pub host: Option<&'a str>,
    /// Name and port that the server is reached by, where there is no `host`.
    pub server: Option<(&'a str, Option<u16>)>,
    /// The scheme that the server saw.
    pub scheme: Option<&'a str>,
    /// The header `Forwarded`.
    pub forwarded: Option<&'a str>,
    /// The header `X-Forwarded-For`.
    pub forwarded_for: Option<&'a str>,
    /// The header `X-Forwarded-Host`.
    pub forwarded_host: Option<&'a str>,
    /// The header `X-Forwarded-Proto`.
    pub forwarded_proto: Option<&'a str>,
}

impl Request<'_> {
    /// Sets what the request says. `path` appends the decoded path; it runs no Python.
    #[inline]
    pub fn describe(&self, span: &mut ActiveSpan, path: impl Fn(&mut Vec<u8>)) {
        if let Some(method) = self.method {
            http::set_method(span, method);
        }
        match self.path {
            Some(text) if !text.is_empty() => span.str(&semconv::URL_PATH, text),
            _ => span.str_with(&semconv::URL_PATH, &path),
        }
        let query = self.query.filter(|query| !query.is_empty());
        if let Some(query) = query {
            span.str_with(&semconv::URL_QUERY, |out| query.append_query(out));
        }
        let peer = self.peer.filter(|peer| !peer.is_empty());
        self.set_origin(span);
        self.describe_client(span, peer);
        // No connection comes from port 0: this one is what a proxy said of its client (uvicorn's middleware).
        let peer = peer.filter(|_| self.peer_port != Some(0));
        if let Some(peer) = peer {
            span.str(&semconv::NETWORK_PEER_ADDRESS, peer);
            if let Some(port) = self.peer_port {
                span.int(&semconv::NETWORK_PEER_PORT, i64::from(port));
            }
        }
        if let Some(agent) = self.agent {
            span.str_with(&semconv::USER_AGENT_ORIGINAL, |out| agent.append(out));
        }
        if old_names::http() {
            self.describe_old(span, path, query, peer);
        }
    }

    /// As [`Self::describe_origin`], which nearly all requests make of the same three texts.
    #[inline]
    fn set_origin(&self, span: &mut ActiveSpan) {
        static ORIGINS: Known<3> = Known::new();
        let by_proxy =
            self.forwarded.is_some() || self.forwarded_host.is_some() || self.forwarded_proto.is_some();
        match (self.scheme, self.host, self.version) {
            (Some(scheme), Some(host), Some(version)) if !by_proxy && !host.is_empty() => {
                ORIGINS.set(span, &[host, scheme, version], |span| self.describe_origin(span));
            }
            _ => self.describe_origin(span),
        }
    }

    /// Scheme and host as the first proxy saw them, else as the server did (HTTP semantic conventions, "Setting
    /// `server.address` and `server.port` attributes"), and the protocol's version.
    fn describe_origin(&self, span: &mut ActiveSpan) {
        let proto = self
            .forwarded
            .and_then(|header| http::forwarded(header, "proto"))
            .or_else(|| self.forwarded_proto.and_then(http::first_forwarded))
            .and_then(|proto| ["https", "http"].into_iter().find(|known| known.eq_ignore_ascii_case(proto)));
        let scheme = proto.or(self.scheme).unwrap_or("http");
        span.str(&semconv::URL_SCHEME, scheme);
        let host = self
            .forwarded
            .and_then(|header| http::forwarded(header, "host"))
            .or_else(|| self.forwarded_host.and_then(http::first_forwarded))
            .or(self.host.filter(|host| !host.is_empty()));
        let (address, port) = match (host, self.server) {
            (Some(host), _) => {
                let (address, port) = redact::split_host_port(host);
                (address, port.or_else(|| redact::default_port(scheme)))
            }
            (None, Some(server)) => server,
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
        if let Some(version) = self.version {
            span.str(&semconv::NETWORK_PROTOCOL_VERSION, http::protocol_version(version));
        }
    }

    /// The client as the first proxy saw it, else the peer.
    fn describe_client(&self, span: &mut ActiveSpan, peer: Option<&str>) {
        let client = self
            .forwarded
            .and_then(|header| http::forwarded(header, "for"))
            .or_else(|| self.forwarded_for.and_then(http::first_forwarded))
            .and_then(http::node_address);
        if let Some(client) = client.or(peer) {
            span.str(&semconv::CLIENT_ADDRESS, client);
        }
    }

    #[cold]
    fn describe_old(
        &self,
        span: &mut ActiveSpan,
        path: impl Fn(&mut Vec<u8>),
        query: Option<Text<'_>>,
        peer: Option<&str>,
    ) {
        span.str_with(&old_names::HTTP_TARGET, |out| {
            path(out);
            if let Some(query) = query {
                out.push(b'?');
                query.append_query(out);
            }
        });
        if let Some(host) = self.host {
            span.str_with(&old_names::HTTP_HOST, |out| latin1(host, out));
        }
        if let Some(version) = self.version {
            span.str(&old_names::HTTP_FLAVOR, http::protocol_version(version));
        }
        if let Some(peer) = peer {
            span.str(&old_names::NET_PEER_IP, peer);
            if let Some(port) = self.peer_port {
                span.int(&old_names::NET_PEER_PORT, i64::from(port));
            }
        }
        if let Some(agent) = self.agent {
            span.str_with(&old_names::HTTP_USER_AGENT, |out| agent.append(out));
        }
    }
}

/// The span in force, or the one that it lies within, if it is one that [`start`] made and whose request is still being
/// answered.
#[inline]
pub fn server_span(py: Python<'_>) -> Option<Span<'_>> {
    current::hook_span(py).filter(is_serving)
}

/// Whether a span is a request's that is still being answered.
#[inline]
pub fn is_serving(span: &Span<'_>) -> bool {
    span.note().subject.load(Ordering::Relaxed) != 0
        && span.with(|span| span.kind == SpanKind::Server).unwrap_or(false)
}

/// Starts a request's span, below the caller's or, where the request names none, below the open span in force (a test
/// client, an application called by another one); below that too where it has the same caller: an application inside
/// another one, with the same request in another form. `subject` tells one request from another, until
/// [`answered`]. `None` also where nobody would ever see the span.
#[inline]
pub fn start<'py>(
    py: Python<'py>,
    spec: &SpanSpec,
    subject: usize,
    incoming: &Incoming,
    in_force: Option<&Span<'py>>,
) -> Option<Span<'py>> {
    // A span that has ended is one that this thread or task was started under: not what caused the request.
    let is_open = |span: &ActiveSpan| span.is_recording() || !span.is_sampled();
    let has_caller = |span: &ActiveSpan| match &incoming.remote {
        Some(remote) => span.trace_id == remote.trace_id && span.parent_span_id == remote.span_id,
        None => true,
    };
    let is_parent = |span: &ActiveSpan| has_caller(span) && is_open(span);
    let local = in_force.filter(|span| span.with(|span| is_parent(span)) == Some(true));
    let span = match local {
        Some(parent) => current::start(py, spec, &Some(parent.clone()))?,
        None if in_force.is_none() && is_for_nobody(incoming) => return None,
        None => current::start_with(py, spec, incoming.parent())?,
    };
    span.note().subject.store(subject, Ordering::Relaxed);
    Some(span)
}

/// Whether a request with nothing in force gets a span in vain, and is counted as left out: the sampler begins no trace
/// at all, the caller gave nothing to hand on, and no log record says which span it was made under. What hangs below it
/// then begins where it is made, and is left out there.
#[inline]
pub fn is_for_nobody(incoming: &Incoming) -> bool {
    let nobody = may_be_for_nobody() && incoming.remote.is_none() && incoming.carried.is_none();
    if nobody {
        tracer::count_sampled_out();
    }
    nobody
}

/// Whether that can be, whatever came in.
#[inline]
pub fn may_be_for_nobody() -> bool {
    !tracer::current().sampler.may_sample_root() && !settings::log_correlation()
}

/// Marks a span as one that a server's hook made, which knows nothing of the application.
pub fn mark_bare(span: &Span<'_>) {
    span.note().bare.store(true, Ordering::Relaxed);
}

/// A framework's hook meets its request's span, which a hook further out made: where that is a server's, the span
/// becomes the framework's.
#[inline]
pub fn adopt(span: &Span<'_>, spec: &SpanSpec) {
    if span.note().bare.swap(false, Ordering::Relaxed) {
        span.with(|span| span.set_scope(spec.scope));
    }
    // What is in between may have mounted it somewhere.
    span.note().rootless.store(false, Ordering::Relaxed);
}

/// A framework's hook meets the span of a request that this framework is not to show: what hangs below it hangs below
/// the caller's, or is not recorded.
#[cold]
pub fn forget(span: &Span<'_>, incoming: Incoming) {
    let caller = incoming.passed_on();
    span.with(|span| span.abandon(caller));
}

/// Puts the caller's span in force, for a request that gets none of its own: what follows hangs below it. `None`
/// where the request names none.
#[cold]
pub fn pass_on<'py>(
    py: Python<'py>,
    spec: &SpanSpec,
    incoming: Incoming,
    subject: usize,
) -> Option<Span<'py>> {
    let caller = incoming.passed_on()?;
    let span = current::start_with(py, spec, Parent::Local(&caller))?;
    span.with(|span| *span = caller);
    span.note().subject.store(subject, Ordering::Relaxed);
    Some(span)
}

/// From here on an equal address is another request's.
#[inline]
pub fn answered(span: &Span<'_>) {
    span.note().subject.store(0, Ordering::Relaxed);
}

/// Sets the response's status.
#[inline]
pub fn set_status(span: &Span<'_>, code: u16) {
    span.note().status.store(code, Ordering::Relaxed);
    span.with(|span| http::set_status_code(span, code, 500));
}

/// Names a span by its route, after the method that it was named by: `root` is the path that the application is
/// mounted at.
#[inline]
pub fn set_route(span: &Span<'_>, root: Option<Text<'_>>, route: &str) {
    static ROUTES: Known<2> = Known::new();
    let note = span.note();
    let routed = note.routed.swap(true, Ordering::Relaxed) || note.mounted.load(Ordering::Relaxed);
    let root = root.filter(|root| !root.is_empty());
    span.with(|span| {
        let method = span.given_name();
        if root.is_none() && !routed && method != "HTTP" {
            return ROUTES.set(span, &[route, method], |span| describe_route(span, method, root, route));
        }
        // Where a setting lets any method stand, it has no static name.
        let own = (method == "HTTP").then(|| span.text(semconv::HTTP_REQUEST_METHOD.name()));
        let own = own.flatten().filter(|method| *method != "_OTHER").map(str::to_owned);
        if routed {
            // An application inside another one knows the rest of the path.
            span.replace(semconv::HTTP_ROUTE.name());
        }
        describe_route(span, own.as_deref().unwrap_or(method), root, route);
    });
}

fn describe_route(span: &mut ActiveSpan, method: &str, root: Option<Text<'_>>, route: &str) {
    let append = |out: &mut Vec<u8>| {
        let from = out.len();
        if let Some(root) = root {
            root.append(out);
            while out.len() > from && out.last() == Some(&b'/') {
                out.pop();
            }
        }
        out.extend_from_slice(route.as_bytes());
    };
    span.name_with(|out| {
        out.extend_from_slice(method.as_bytes());
        out.push(b' ');
        append(out);
    });
    span.str_with(&semconv::HTTP_ROUTE, append);
}

/// Whether a framework's hook makes this application's spans: the server that calls it then need not. Asked once, when
/// a server has found its application.
pub fn is_hooked(application: &Bound<'_, PyAny>) -> bool {
    let py = application.py();
    application.get_type().mro().iter().any(|class| {
        let Some(names) = attribute(&class, intern!(py, "__dict__")) else { return false };
        // Flask's hook is one call further in.
        [intern!(py, "__call__"), intern!(py, "wsgi_app")]
            .into_iter()
            .any(|name| quiet(py, names.get_item(name)).is_some_and(|found| wrapper::is_wrapper(&found)))
    })
}

/// Adds the exception's event, once.
#[cold]
pub fn record(span: &Span<'_>, error: &Bound<'_, PyAny>) {
    if !span.note().failed.swap(true, Ordering::Relaxed) {
        let details = exception::Details::of(error);
        span.with(|span| details.record(span));
    }
}

/// An exception left the application. Where it answered with an error before, that stays what it failed with; else
/// the server answers, we do not know what.
#[cold]
pub fn failed(span: &Span<'_>, error: &Bound<'_, PyAny>) {
    if exception::is_cancellation(error) {
        return;
    }
    record(span, error);
    if span.note().status.load(Ordering::Relaxed) < 500 {
        let type_name = exception::type_name(error);
        span.with(|span| exception::set_error(span, &type_name, ""));
    }
}

/// Takes the answer back, with the error that it was: the client had gone before it, or was sent another one.
#[cold]
pub fn unanswered(span: &Span<'_>) {
    span.note().status.store(0, Ordering::Relaxed);
    span.with(|span| {
        span.replace(semconv::HTTP_RESPONSE_STATUS_CODE.name());
        span.replace(semconv::ERROR_TYPE.name());
        span.replace(old_names::HTTP_STATUS_CODE.name());
        span.no_error();
    });
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
