//! What all HTTP libraries share: methods, status rules, propagation headers.

pub mod asgi;
pub mod captured_headers;
pub mod client;
pub mod connection;
pub mod excluded_urls;
pub mod head;
mod known;
pub mod peer;
pub mod raw_headers;
pub mod server;
pub mod wsgi;

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use agent_core::context::{Carried, RemoteContext};
use agent_core::fragment::Fragment;
use agent_core::propagation::w3c;
use agent_core::semconv;
use agent_core::span::ActiveSpan;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBytes, PyString};

use crate::current::Span;
use crate::ffi::intern;
use crate::ffi::utf8;
use crate::old_names;
use crate::settings;

// Each client tells a span of its own by its layer; an inner one may be what an outer one sends by.
/// urllib3's layer.
pub const URLLIB3: u8 = 1;
/// That of aiohttp's client.
pub const AIOHTTP: u8 = 2;
/// That of requests.
pub const REQUESTS: u8 = 3;
/// That of httpx.
pub const HTTPX: u8 = 4;

/// Names the span by a request's method alone, as the application wrote it, and sets the attributes.
#[inline]
pub fn set_method(span: &mut ActiveSpan, text: &str) {
    static STANDARD: [OnceLock<Option<Fragment>>; 9] = [const { OnceLock::new() }; 9];
    let (place, name) = match text {
        "GET" => (0, "GET"),
        "POST" => (1, "POST"),
        "PUT" => (2, "PUT"),
        "HEAD" => (3, "HEAD"),
        "PATCH" => (4, "PATCH"),
        "DELETE" => (5, "DELETE"),
        "OPTIONS" => (6, "OPTIONS"),
        "CONNECT" => (7, "CONNECT"),
        "TRACE" => (8, "TRACE"),
        _ => return Method::of(text).set(span),
    };
    // None: not among those that the operator knows.
    let is_known = || settings::get().http.known_methods.iter().any(|known| &**known == name);
    let make = || is_known().then(|| Fragment::new(|span| Method::of(name).set(span)));
    match STANDARD[place].get_or_init(make) {
        Some(fragment) => {
            span.static_name(name);
            span.append(fragment);
        }
        None => Method::of(text).set(span),
    }
}

/// A method as the conventions want it, and the original where that is not it.
#[derive(Clone, Copy)]
struct Method<'a> {
    /// `http.request.method`.
    name: &'a str,
    /// The same, where it is one of the known methods.
    known: Option<&'static str>,
    original: Option<&'a str>,
}

impl<'a> Method<'a> {
    /// Of a method as the application wrote it. Names are case-sensitive (RFC 9110), but a known one in another case is
    /// sent as the known one by most libraries and counts as it.
    #[cold]
    fn of(text: &'a str) -> Self {
        let http = &settings::get().http;
        if let Some(known) = http.known_methods.iter().find(|known| **known == text) {
            return Self { name: text, known: Some(known), original: None };
        }
        let other = Self { name: text, known: None, original: None };
        if http.capture_all_methods {
            return other;
        }
        match http.known_methods.iter().find(|known| known.eq_ignore_ascii_case(text)) {
            Some(known) => Self { name: known, known: Some(known), original: Some(text) },
            None => Self { name: "_OTHER", original: Some(text), ..other },
        }
    }

    #[cold]
    fn set(&self, span: &mut ActiveSpan) {
        match (self.known, self.original) {
            (Some(known), _) => span.static_name(known),
            (None, Some(_)) => span.static_name("HTTP"),
            (None, None) => span.name(self.name),
        }
        span.str(&semconv::HTTP_REQUEST_METHOD, self.name);
        if let Some(original) = self.original {
            span.str(&semconv::HTTP_REQUEST_METHOD_ORIGINAL, original);
        }
        if old_names::http() {
            span.str(&old_names::HTTP_METHOD, self.original.unwrap_or(self.name));
        }
    }
}

/// Sets the status code and what follows from it. A client's error begins at 400, a server's at 500.
#[inline]
pub fn set_status_code(span: &mut ActiveSpan, code: u16, error_from: u16) {
    static GOOD: [OnceLock<Fragment>; 300] = [const { OnceLock::new() }; 300];
    if code < error_from
        && let Some(good) = GOOD.get(usize::from(code).wrapping_sub(100))
    {
        return span.append(good.get_or_init(|| Fragment::new(|span| describe_status(span, code, u16::MAX))));
    }
    describe_status(span, code, error_from);
}

fn describe_status(span: &mut ActiveSpan, code: u16, error_from: u16) {
    span.int(&semconv::HTTP_RESPONSE_STATUS_CODE, i64::from(code));
    if old_names::http() {
        span.int(&old_names::HTTP_STATUS_CODE, i64::from(code));
    }
    if code >= error_from {
        let mut digits = [0; 5];
        span.str(&semconv::ERROR_TYPE, decimal(code, &mut digits));
        span.error("");
    }
}

/// A number's digits, written into `digits`.
pub fn decimal(mut number: u16, digits: &mut [u8; 5]) -> &str {
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
    /// Reads the headers that `header` finds, by their place in [`HEADERS`](agent_core::propagation::HEADERS). What
    /// no propagator asks for is not looked up.
    #[inline]
    pub fn read<H: Header>(header: impl Fn(usize) -> Option<H>) -> Self {
        let propagators = settings::get().propagators;
        let wanted = |at: usize, when: bool| if when { header(at) } else { None };
        let trace_parent = wanted(0, propagators.trace_context());
        let state = wanted(1, trace_parent.is_some());
        let baggage = wanted(2, propagators.baggage());
        if state.is_none() && baggage.is_none() {
            return Self { remote: bytes(&trace_parent).and_then(w3c::parse_trace_parent), carried: None };
        }
        Self::of(propagators.extract(bytes(&trace_parent), bytes(&state), bytes(&baggage)))
    }

    /// Of what the propagators have read.
    pub fn of((remote, carried): (Option<RemoteContext>, Carried)) -> Self {
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

    /// The caller's span as a parent here: one that only hands its context on.
    pub fn passed_on(self) -> Option<ActiveSpan> {
        let remote = self.remote?;
        let mut span = ActiveSpan::new();
        span.trace_id = remote.trace_id;
        span.span_id = remote.span_id;
        span.flags = remote.flags;
        span.carried = self.carried;
        Some(span)
    }
}

/// Calls `put` with each header that carries a span's context: the name's place in [`HEADERS`](agent_core::propagation::HEADERS), and the value.
#[inline]
pub fn each_header(span: &Span<'_>, mut put: impl FnMut(usize, &str) -> PyResult<()>) -> PyResult<()> {
    let propagators = settings::get().propagators;
    let Some((context, carried)) = span.with(|span| {
        let context = RemoteContext { trace_id: span.trace_id, span_id: span.span_id, flags: span.flags };
        (context, span.carried.clone())
    }) else {
        return Ok(());
    };
    if propagators.trace_context() {
        let header = w3c::write_trace_parent(&context);
        put(0, std::str::from_utf8(&header).unwrap_or_default())?;
    }
    if let Some(carried) = carried {
        if propagators.trace_context() && !carried.trace_state.is_empty() {
            put(1, &carried.trace_state)?;
        }
        if propagators.baggage() && !carried.baggage.is_empty() {
            put(2, &carried.baggage)?;
        }
    }
    Ok(())
}

/// As [`each_header`], with objects.
#[inline]
pub fn inject<'py>(
    py: Python<'py>,
    span: &Span<'py>,
    mut put: impl FnMut(&Bound<'py, PyString>, Bound<'py, PyAny>) -> PyResult<()>,
) -> PyResult<()> {
    each_header(span, |at, value| {
        let name = match at {
            0 => intern!(py, "traceparent"),
            1 => intern!(py, "tracestate"),
            _ => intern!(py, "baggage"),
        };
        put(name, PyString::new(py, value).into_any())
    })
}

/// A header's value as its library has it.
pub trait Header {
    /// What was sent.
    fn bytes(&self) -> Option<&[u8]>;
}

impl Header for Bound<'_, PyString> {
    #[inline]
    fn bytes(&self) -> Option<&[u8]> {
        utf8(self).map(str::as_bytes)
    }
}

impl Header for &Bound<'_, PyBytes> {
    #[inline]
    fn bytes(&self) -> Option<&[u8]> {
        Some(self.as_bytes())
    }
}

fn bytes<H: Header>(header: &Option<H>) -> Option<&[u8]> {
    header.as_ref()?.bytes()
}

/// A parameter (`for`, `host`, `proto`) that the first proxy wrote into `Forwarded` (RFC 7239).
pub fn forwarded<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    header.split(',').next()?.split(';').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        let value = value.trim().trim_matches('"');
        (key.trim().eq_ignore_ascii_case(name) && !value.is_empty()).then_some(value)
    })
}

/// What the first proxy wrote into one of the `X-Forwarded-` headers.
pub fn first_forwarded(header: &str) -> Option<&str> {
    header.split(',').next().map(str::trim).filter(|value| !value.is_empty())
}

/// The address of a node as proxies write it: without its port; none where it is hidden (RFC 7239, section 6).
pub fn node_address(node: &str) -> Option<&str> {
    let (address, _) = agent_core::redact::split_host_port(node);
    let hidden = address.is_empty() || address.starts_with('_') || address.eq_ignore_ascii_case("unknown");
    (!hidden).then_some(address)
}

/// A text without percent-encoding; what is none of it stays as it is.
pub fn percent_decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.filter(|_| *first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}
