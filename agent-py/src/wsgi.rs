//! The server span of a WSGI request, whichever framework or server the application uses.
//!
//! Nothing of a request is parsed by what can raise: what cannot be read is left out.

use std::sync::atomic::Ordering;

use agent_core::redact;
use agent_core::semconv;
use agent_core::span::SpanSpec;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use crate::current::{self, Span};
use crate::http::{self, Incoming, Method};

/// A request's `environ`.
pub struct Environ<'a, 'py>(pub &'a Bound<'py, PyDict>);

impl<'py> Environ<'_, 'py> {
    #[inline]
    fn get(&self, key: &Bound<'py, PyString>) -> Option<Bound<'py, PyString>> {
        self.0.get_item(key).ok()??.cast_into::<PyString>().ok()
    }

    /// The address that tells one request's `environ` from another's.
    pub fn subject(&self) -> usize {
        self.0.as_ptr() as usize
    }

    /// Starts the request's span.
    pub fn start(&self, spec: &SpanSpec) -> Option<Span<'py>> {
        let py = self.0.py();
        let headers = |at: usize| match at {
            0 => self.get(intern!(py, "HTTP_TRACEPARENT")),
            1 => self.get(intern!(py, "HTTP_TRACESTATE")),
            _ => self.get(intern!(py, "HTTP_BAGGAGE")),
        };
        let texts = [headers(0), headers(1), headers(2)];
        let incoming =
            Incoming::read(|at| texts[at].as_ref().and_then(|text| text.to_str().ok()).map(str::as_bytes));
        let span = current::start_with(py, spec, incoming.parent())?;
        span.note().subject.store(self.subject(), Ordering::Relaxed);
        Some(span)
    }

    /// Sets what the request says. Only for a span that records.
    pub fn describe(&self, span: &Span<'py>) {
        let py = self.0.py();
        let method = self.get(intern!(py, "REQUEST_METHOD"));
        let script = self.get(intern!(py, "SCRIPT_NAME"));
        let path = self.get(intern!(py, "PATH_INFO"));
        let query = self.get(intern!(py, "QUERY_STRING"));
        let scheme = self.get(intern!(py, "wsgi.url_scheme"));
        let host = self.get(intern!(py, "HTTP_HOST"));
        let protocol = self.get(intern!(py, "SERVER_PROTOCOL"));
        let peer = self.get(intern!(py, "REMOTE_ADDR"));
        let peer_port = self.get(intern!(py, "REMOTE_PORT"));
        let agent = self.get(intern!(py, "HTTP_USER_AGENT"));
        let forwarded = self
            .get(intern!(py, "HTTP_FORWARDED"))
            .map(|text| (true, text))
            .or_else(|| self.get(intern!(py, "HTTP_X_FORWARDED_FOR")).map(|text| (false, text)));
        let server = if host.is_some() { None } else { self.get(intern!(py, "SERVER_NAME")) };
        let server_port = if host.is_some() { None } else { self.get(intern!(py, "SERVER_PORT")) };
        span.with(|span| {
            if let Some(method) = text(&method).map(Method::of) {
                span.name(method.in_name());
                method.set(span);
            }
            let (script, path) = (text(&script).unwrap_or(""), text(&path).unwrap_or(""));
            span.str_with(&semconv::URL_PATH, |out| {
                latin1_path(script, out);
                latin1_path(path, out);
                if script.is_empty() && path.is_empty() {
                    out.push(b'/');
                }
            });
            if let Some(query) = text(&query).filter(|query| !query.is_empty()) {
                span.str_with(&semconv::URL_QUERY, |out| redact::url_query(query.as_bytes(), out));
            }
            let scheme = text(&scheme).unwrap_or("http");
            span.str(&semconv::URL_SCHEME, scheme);
            let (address, port) = match text(&host) {
                Some(host) => {
                    let (address, port) = redact::split_host_port(host);
                    (address, port.or_else(|| redact::default_port(scheme)))
                }
                None => (text(&server).unwrap_or(""), text(&server_port).and_then(|port| port.parse().ok())),
            };
            if !address.is_empty() {
                span.str(&semconv::SERVER_ADDRESS, address);
                if let Some(port) = port {
                    span.int(&semconv::SERVER_PORT, i64::from(port));
                }
            }
            if let Some(protocol) = text(&protocol) {
                span.str(&semconv::NETWORK_PROTOCOL_VERSION, http::protocol_version(protocol));
            }
            let peer = text(&peer).filter(|peer| !peer.is_empty());
            let client = match &forwarded {
                Some((rfc, header)) => {
                    header.to_str().ok().and_then(|header| http::forwarded_for(header, *rfc))
                }
                None => None,
            };
            if let Some(client) = client.or(peer) {
                span.str(&semconv::CLIENT_ADDRESS, client);
            }
            if let Some(peer) = peer {
                span.str(&semconv::NETWORK_PEER_ADDRESS, peer);
                if let Some(port) = text(&peer_port).and_then(|port| port.parse::<u16>().ok()) {
                    span.int(&semconv::NETWORK_PEER_PORT, i64::from(port));
                }
            }
            if let Some(agent) = text(&agent) {
                span.str(&semconv::USER_AGENT_ORIGINAL, agent);
            }
        });
    }

    /// The path that the application is mounted at.
    pub fn script_name(&self) -> Option<Bound<'py, PyString>> {
        self.get(intern!(self.0.py(), "SCRIPT_NAME"))
    }

    /// Whether a response body is what the server made for sending a file.
    pub fn is_file_wrapper(&self, body: &Bound<'py, PyAny>) -> bool {
        let wrapper = self.0.get_item(intern!(self.0.py(), "wsgi.file_wrapper")).ok().flatten();
        wrapper.is_some_and(|wrapper| body.get_type().is(&wrapper))
    }
}

fn text<'a>(value: &'a Option<Bound<'_, PyString>>) -> Option<&'a str> {
    value.as_ref()?.to_str().ok()
}

/// WSGI carries a path's bytes as Latin-1 (PEP 3333): here they are bytes again.
fn latin1_path(path: &str, out: &mut Vec<u8>) {
    if path.is_ascii() {
        out.extend_from_slice(path.as_bytes());
    } else if path.chars().all(|c| u32::from(c) < 256) {
        out.extend(path.chars().map(|c| c as u8));
    } else {
        out.extend_from_slice(path.as_bytes());
    }
}
