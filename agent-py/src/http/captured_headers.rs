//! Headers that the operator wants to see in spans (`OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_*`).

use std::sync::OnceLock;

use agent_core::settings::Http;
use agent_core::span::ActiveSpan;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBytes, PyString, PyTuple};
use regex_lite::Regex;

use crate::current::Span;
use crate::ffi::{intern, quiet};
use crate::http::server::latin1;
use crate::patterns::{self, Finds};
use crate::settings;

/// Never shown, whatever is asked for.
const SECRET: [&str; 5] = ["authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"];
const REDACTED: &str = "[REDACTED]";

const REQUEST: &str = "http.request.header.";
const RESPONSE: &str = "http.response.header.";

/// Requests that come in.
pub static SERVER_REQUEST: Headers =
    Headers::new(REQUEST, "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST", |http| {
        &http.capture_server_request
    });
/// Our responses.
pub static SERVER_RESPONSE: Headers =
    Headers::new(RESPONSE, "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE", |http| {
        &http.capture_server_response
    });
/// Requests that go out.
pub static CLIENT_REQUEST: Headers =
    Headers::new(REQUEST, "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_REQUEST", |http| {
        &http.capture_client_request
    });
/// Their responses.
pub static CLIENT_RESPONSE: Headers =
    Headers::new(RESPONSE, "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_RESPONSE", |http| {
        &http.capture_client_response
    });
static SANITIZED: Headers =
    Headers::new("", "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS", |http| {
        &http.sanitize_fields
    });

/// One of these settings, compiled at the first request that asks.
pub struct Headers {
    prefix: &'static str,
    variable: &'static str,
    setting: fn(&Http) -> &[String],
    patterns: OnceLock<Option<Box<[Regex]>>>,
}

impl Headers {
    const fn new(prefix: &'static str, variable: &'static str, setting: fn(&Http) -> &[String]) -> Self {
        Self { prefix, variable, setting, patterns: OnceLock::new() }
    }

    #[inline]
    fn patterns(&self) -> Option<&[Regex]> {
        self.patterns.get_or_init(|| self.compile()).as_deref()
    }

    #[cold]
    fn compile(&self) -> Option<Box<[Regex]>> {
        patterns::compile(self.variable, (self.setting)(&settings::get().http), Finds::Name)
    }

    /// Where headers are to be captured: something to show them to.
    #[inline]
    pub fn capture(&'static self) -> Option<Capture> {
        Some(Capture { prefix: self.prefix, wanted: self.patterns()?, found: Vec::new() })
    }
}

/// The wanted ones among the headers it is shown.
pub struct Capture {
    prefix: &'static str,
    wanted: &'static [Regex],
    found: Vec<(String, Vec<String>)>,
}

impl Capture {
    /// Takes a header if it is wanted. The value is only read where it may be shown.
    pub fn add(&mut self, name: &str, value: impl FnOnce() -> Option<String>) {
        if !patterns::find(self.wanted, name) {
            return;
        }
        let hidden = SECRET.iter().any(|secret| secret.eq_ignore_ascii_case(name))
            || SANITIZED.patterns().is_some_and(|secret| patterns::find(secret, name));
        let Some(value) = (if hidden { Some(REDACTED.to_owned()) } else { value() }) else { return };
        let attribute = format!("{}{}", self.prefix, name.to_ascii_lowercase());
        match self.found.iter_mut().find(|(known, _)| *known == attribute) {
            Some((_, values)) => values.push(value),
            None => self.found.push((attribute, vec![value])),
        }
    }

    /// Sets the wanted ones of a request or a response of a library: of its attribute `headers`.
    #[cold]
    pub fn record(self, span: &Span<'_>, of: &Bound<'_, PyAny>) {
        let headers = quiet(of.py(), of.getattr_opt(intern!(of.py(), "headers"))).flatten();
        if let Some(headers) = headers.filter(|headers| !headers.is_none()) {
            self.record_items(span, &headers);
        }
    }

    /// As [`Self::record`], of the headers themselves.
    #[cold]
    pub fn record_items(mut self, span: &Span<'_>, headers: &Bound<'_, PyAny>) {
        self.add_items(headers);
        span.with(|span| self.set(span));
    }

    /// Takes the wanted ones of an object whose `items()` are pairs of text or bytes.
    fn add_items(&mut self, headers: &Bound<'_, PyAny>) {
        let py = headers.py();
        let items = quiet(py, headers.call_method0(intern!(py, "items")));
        let Some(items) = items.and_then(|items| quiet(py, items.try_iter())) else { return };
        for item in items {
            let Some(item) = quiet(py, item) else { return };
            let Ok(pair) = item.cast::<PyTuple>() else { return };
            if let (Ok(name), Ok(value)) = (pair.get_borrowed_item(0), pair.get_borrowed_item(1))
                && let Some(name) = text(&name)
            {
                self.add(&name, || text(&value));
            }
        }
    }

    /// Sets the attributes, each an array of texts (HTTP semantic conventions, `http.request.header.<key>`). A later
    /// response of the same request takes the place of an earlier one.
    pub fn set(self, span: &mut ActiveSpan) {
        for (name, values) in &self.found {
            span.replace(name);
            span.str_array(name.as_str(), values.iter().map(String::as_str));
        }
    }
}

/// What text or bytes say; bytes in Latin-1 text, as WSGI has them, are bytes again.
pub fn text(value: &Bound<'_, PyAny>) -> Option<String> {
    let mut bytes = Vec::new();
    match value.cast::<PyString>() {
        Ok(text) => latin1(&text.to_string_lossy(), &mut bytes),
        Err(_) => bytes.extend_from_slice(value.cast::<PyBytes>().ok()?.as_bytes()),
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
