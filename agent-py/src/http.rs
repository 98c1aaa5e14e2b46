//! What all HTTP libraries share: methods, status rules, propagation headers.

use std::sync::Arc;

use agent_core::context::{Carried, RemoteContext};
use agent_core::propagation::{Propagators, w3c};
use agent_core::semconv;
use agent_core::span::ActiveSpan;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyString};

use crate::current::Span;
use crate::settings;

/// The layer of an HTTP library that others build on (urllib3, httpcore).
#[expect(dead_code, reason = "urllib3 comes with the next issue")]
pub const TRANSPORT: u8 = 1;
/// The layer of an HTTP library that applications call.
pub const CLIENT: u8 = 2;

/// A method as the conventions want it, and the original where that is not it.
#[derive(Clone, Copy)]
pub struct Method<'a> {
    /// `http.request.method`.
    pub name: &'a str,
    original: Option<&'a str>,
}

impl<'a> Method<'a> {
    /// Of a method as the application wrote it. Names are case-sensitive (RFC 9110), but a known one in another case is
    /// sent as the known one by most libraries and counts as it.
    #[inline]
    pub fn of(text: &'a str) -> Self {
        let http = &settings::get().http;
        let known = &http.known_methods;
        if http.capture_all_methods || known.iter().any(|known| known == text) {
            return Self { name: text, original: None };
        }
        match known.iter().find(|known| known.eq_ignore_ascii_case(text)) {
            Some(known) => Self { name: known, original: Some(text) },
            None => Self { name: "_OTHER", original: Some(text) },
        }
    }

    /// The method in a span's name.
    pub fn in_name(&self) -> &'a str {
        if self.name == "_OTHER" { "HTTP" } else { self.name }
    }

    /// Sets the attributes.
    #[inline]
    pub fn set(&self, span: &mut ActiveSpan) {
        span.str(&semconv::HTTP_REQUEST_METHOD, self.name);
        if let Some(original) = self.original {
            span.str(&semconv::HTTP_REQUEST_METHOD_ORIGINAL, original);
        }
    }
}

/// Sets the status code and what follows from it. A client's error begins at 400, a server's at 500.
#[inline]
pub fn set_status_code(span: &mut ActiveSpan, code: u16, error_from: u16) {
    span.int(&semconv::HTTP_RESPONSE_STATUS_CODE, i64::from(code));
    if code >= error_from {
        let mut digits = [0; 5];
        span.str(&semconv::ERROR_TYPE, decimal(code, &mut digits));
        span.error("");
    }
}

fn decimal(mut number: u16, digits: &mut [u8; 5]) -> &str {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return std::str::from_utf8(&digits[at..]).unwrap_or("0");
        }
    }
}

/// `network.protocol.version` from what `http.client` and WSGI call 10 and 11, or from `HTTP/1.1`.
pub fn protocol_version(text: &str) -> &str {
    match text.strip_prefix("HTTP/").unwrap_or(text) {
        "2.0" => "2",
        "3.0" => "3",
        version => version,
    }
}

/// What a request carried in.
#[derive(Default)]
pub struct Incoming {
    /// The caller's span.
    pub remote: Option<RemoteContext>,
    /// Trace state and baggage.
    pub carried: Option<Arc<Carried>>,
}

impl Incoming {
    /// Reads the headers that `header` finds, by name (`traceparent`).
    #[inline]
    pub fn read<'a>(header: impl Fn(usize) -> Option<&'a [u8]>) -> Self {
        let propagators = settings::get().propagators;
        if propagators == Propagators::NONE {
            return Self::default();
        }
        let trace_parent = header(0);
        let (state, baggage) = (
            if trace_parent.is_some() { header(1) } else { None },
            if propagators.baggage() { header(2) } else { None },
        );
        if state.is_none() && baggage.is_none() {
            let remote = if propagators.trace_context() {
                trace_parent.and_then(w3c::parse_trace_parent)
            } else {
                None
            };
            return Self { remote, carried: None };
        }
        let (remote, carried) = propagators.extract(trace_parent, state, baggage);
        let empty = carried.trace_state.is_empty() && carried.baggage.is_empty();
        Self { remote, carried: (!empty).then(|| Arc::new(carried)) }
    }

    /// As a new span's parent.
    pub fn parent(&self) -> agent_core::span::Parent<'_> {
        use agent_core::span::Parent;
        match &self.remote {
            Some(remote) => Parent::Remote(remote, self.carried.as_ref()),
            None => Parent::Root(self.carried.as_ref()),
        }
    }
}

/// Writes a span's context as headers: calls `put` with each name and value.
#[inline]
pub fn inject<'py>(
    py: Python<'py>,
    span: &Span<'py>,
    mut put: impl FnMut(&Bound<'py, PyString>, Bound<'py, PyAny>) -> PyResult<()>,
) -> PyResult<()> {
    let propagators = settings::get().propagators;
    let Some((context, carried)) = span.with(|span| {
        let context = RemoteContext { trace_id: span.trace_id, span_id: span.span_id, flags: span.flags };
        (context, span.carried.clone())
    }) else {
        return Ok(());
    };
    if propagators.trace_context() {
        let header = w3c::write_trace_parent(&context);
        let text = std::str::from_utf8(&header).unwrap_or_default();
        put(pyo3::intern!(py, "traceparent"), PyString::new(py, text).into_any())?;
    }
    if let Some(carried) = carried {
        if propagators.trace_context() && !carried.trace_state.is_empty() {
            put(pyo3::intern!(py, "tracestate"), PyString::new(py, &carried.trace_state).into_any())?;
        }
        if propagators.baggage() && !carried.baggage.is_empty() {
            put(pyo3::intern!(py, "baggage"), PyString::new(py, &carried.baggage).into_any())?;
        }
    }
    Ok(())
}

/// The client that the first proxy saw, from `Forwarded` (RFC 7239) or `X-Forwarded-For`.
pub fn forwarded_for(header: &str, rfc: bool) -> Option<&str> {
    let first = header.split(',').next()?.trim();
    let node = if rfc {
        let pair = first
            .split(';')
            .map(str::trim)
            .find(|pair| pair.get(..4).is_some_and(|name| name.eq_ignore_ascii_case("for=")))?;
        pair[4..].trim_matches('"')
    } else {
        first
    };
    let (address, _) = agent_core::redact::split_host_port(node);
    (!address.is_empty()).then_some(address)
}
