//! What all HTTP clients share: how the span of a request that goes out is described, from its start to its end.
//!
//! A library says which argument is the method, the URL, the headers; these functions say what that means.

use std::borrow::Cow;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use agent_core::fragment::Fragment;
use agent_core::redact;
use agent_core::semconv;
use agent_core::span::ActiveSpan;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyString};

use crate::current::{Exit, Span};
use crate::exception;
use crate::ffi::{intern, quiet};
use crate::http;
use crate::http::known::Known;
use crate::objects::text;
use crate::old_names;

/// Names the span and sets what is known before the request is sent: its method, its URL (none where it has no text)
/// and the server that this names. `resends` is how often the same request was sent before; it is set at the end, by
/// [`answered`] or [`failed`], when the library may know better.
pub fn describe(span: &Span<'_>, method: &str, url: Option<&str>, resends: u16) {
    span.note().sent_before.store(resends, Ordering::Relaxed);
    span.with(|span| {
        http::set_method(span, method);
        let Some(url) = url else { return };
        span.str_with(&semconv::URL_FULL, |out| redact::url_full(url, out));
        describe_server(span, url);
        if old_names::http() {
            span.str_with(&old_names::HTTP_URL, |out| redact::url_full(url, out));
        }
    });
}

/// As [`describe`], of a URL that is `prefix` (scheme and authority, redacted) and `target`, for a server that is
/// described already. Not where the old names are wanted.
pub fn describe_target(
    span: &Span<'_>,
    method: &str,
    prefix: &[u8],
    target: &str,
    server: &Fragment,
    resends: u16,
) {
    span.note().sent_before.store(resends, Ordering::Relaxed);
    span.with(|span| {
        http::set_method(span, method);
        span.str_with(&semconv::URL_FULL, |out| {
            out.extend_from_slice(prefix);
            redact::url_target(target.as_bytes(), out);
        });
        span.append(server);
    });
}

/// A URL that comes in parts.
pub struct UrlParts<'a> {
    /// `http`.
    pub scheme: &'a str,
    /// Host and port as they are written.
    pub authority: &'a str,
    /// From the `/` on.
    pub path: &'a str,
    /// After the `?`; empty where there is none.
    pub query: &'a str,
}

/// Sets a request's URL and the server that this names. False, and nothing is set, where it has no authority, or
/// credentials in it.
pub fn set_url(span: &mut ActiveSpan, url: &UrlParts<'_>) -> bool {
    static SERVERS: Known<2> = Known::new();
    if url.authority.is_empty() || url.authority.contains('@') {
        return false;
    }
    let origin = |out: &mut Vec<u8>| {
        out.extend_from_slice(url.scheme.as_bytes());
        out.extend_from_slice(b"://");
        out.extend_from_slice(url.authority.as_bytes());
    };
    let full = |out: &mut Vec<u8>| {
        origin(out);
        out.extend_from_slice(url.path.as_bytes());
        if !url.query.is_empty() {
            out.push(b'?');
            redact::url_query(url.query.as_bytes(), out);
        }
    };
    span.str_with(&semconv::URL_FULL, full);
    SERVERS.set(span, &[url.authority, url.scheme], |span| {
        let mut text = Vec::new();
        origin(&mut text);
        describe_server(span, std::str::from_utf8(&text).unwrap_or_default());
    });
    if old_names::http() {
        span.str_with(&old_names::HTTP_URL, full);
    }
    true
}

/// Sets the server that a URL names.
pub fn describe_server(span: &mut ActiveSpan, url: &str) {
    let parts = redact::split_url(url);
    if let Some(path) = socket_path(parts.host) {
        span.str(&semconv::SERVER_ADDRESS, &path);
        if old_names::http() {
            span.str(&old_names::NET_PEER_NAME, &path);
        }
        return;
    }
    if parts.host.is_empty() {
        return;
    }
    span.str(&semconv::SERVER_ADDRESS, parts.host);
    if let Some(port) = parts.port {
        span.int(&semconv::SERVER_PORT, i64::from(port));
    }
    if old_names::http() {
        span.str(&old_names::NET_PEER_NAME, parts.host);
        if let Some(port) = parts.port {
            span.int(&old_names::NET_PEER_PORT, i64::from(port));
        }
    }
}

/// A Unix domain socket, whose path clients for it take in the place of the host, percent-encoded.
fn socket_path(host: &str) -> Option<Cow<'_, str>> {
    let encoded = host.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("%2f"));
    encoded.then(|| http::percent_decoded(host))
}

/// Writes the span's context into a mapping of headers, in the place of what stands there in any case.
pub fn inject<'py>(py: Python<'py>, span: &Span<'py>, headers: &Bound<'py, PyAny>) -> PyResult<()> {
    let plain = headers.cast_exact::<PyDict>().ok();
    http::inject(py, span, |name, value| {
        if let Some(plain) = plain {
            remove_in_any_case(plain, name)?;
        }
        headers.set_item(name, value)
    })
}

/// A plain dictionary can hold a header's name in several cases: all of them would be sent.
fn remove_in_any_case(headers: &Bound<'_, PyDict>, name: &Bound<'_, PyString>) -> PyResult<()> {
    let name = name.to_str()?;
    for key in headers.keys() {
        if text(&Some(key.clone())).is_some_and(|key| key.eq_ignore_ascii_case(name)) {
            headers.del_item(key)?;
        }
    }
    Ok(())
}

/// What a response's head says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer<'a> {
    /// The status code.
    pub code: Option<u16>,
    /// `network.protocol.version`: `1.1`, `2`.
    pub version: Option<&'a str>,
    /// How often the library below sent the same request before, under this one span.
    pub retries: usize,
}

impl Answer<'_> {
    /// Sets it on the span of the request.
    #[inline]
    pub fn set(&self, span: &Span<'_>) {
        // Nearly all of them are one of these.
        static GOOD: [OnceLock<Fragment>; 300] = [const { OnceLock::new() }; 300];
        let resends = usize::from(span.note().sent_before.load(Ordering::Relaxed)) + self.retries;
        let good = match (self.code, self.version) {
            (Some(code), Some("1.1")) => GOOD.get(usize::from(code).wrapping_sub(100)),
            _ => None,
        };
        span.with(|span| {
            match good {
                Some(good) => {
                    span.append(good.get_or_init(|| Fragment::new(|span| self.describe(span))));
                }
                None => self.describe(span),
            }
            set_resends(span, resends);
        });
    }

    fn describe(&self, span: &mut ActiveSpan) {
        if let Some(code) = self.code {
            http::set_status_code(span, code, 400);
        }
        if let Some(version) = self.version {
            span.str(&semconv::NETWORK_PROTOCOL_VERSION, version);
            if old_names::http() {
                span.str(&old_names::HTTP_FLAVOR, version);
            }
        }
    }
}

fn set_resends(span: &mut ActiveSpan, resends: usize) {
    if resends > 0 {
        span.int(&semconv::HTTP_REQUEST_RESEND_COUNT, resends as i64);
    }
}

/// The version as `http.client` says it: 10, 11 and, by others' extension, 20, 30.
pub fn version_of_number(number: u16) -> Option<&'static str> {
    match number {
        10 => Some("1.0"),
        11 => Some("1.1"),
        20 => Some("2"),
        30 => Some("3"),
        _ => None,
    }
}

/// Sets what an exception says that came in place of a response; `code` is that of a response that it carries.
#[cold]
pub fn failed(span: &Span<'_>, error: &Bound<'_, PyAny>, code: Option<u16>) {
    let type_name = (!exception::is_cancellation(error)).then(|| exception::type_name(error));
    let resends = span.note().sent_before.load(Ordering::Relaxed);
    span.with(|span| {
        match (code, &type_name) {
            (Some(code), _) if code >= 400 => http::set_status_code(span, code, 400),
            (code, type_name) => {
                if let Some(code) = code {
                    http::set_status_code(span, code, u16::MAX);
                }
                if let Some(type_name) = type_name {
                    exception::set_error(span, type_name, "");
                }
            }
        }
        set_resends(span, usize::from(resends));
    });
}

/// Whether it is the span of a request, made by the library of this layer, whose answer is not there yet.
#[inline]
pub fn is_open(span: &Span<'_>, layer: u8) -> bool {
    span.is_marked(Exit::Http, layer)
}

/// Whether headers to be sent carry this very span: an outer library has put it there and sends by the one that asks.
/// Without that, what is sent inside an outer library's request is another one (a token, a part of the body).
#[cold]
pub fn carry(headers: &Bound<'_, PyAny>, span: &Span<'_>) -> bool {
    let py = headers.py();
    let mut carried = false;
    let compare = |at: usize, value: &str| {
        // The first of them names the span.
        if at == 0 {
            let header = quiet(py, headers.get_item(intern!(py, "traceparent")));
            carried = text(&header) == Some(value);
        }
        Ok(())
    };
    quiet(py, http::each_header(span, compare));
    carried
}

/// Whether it is the span of a request whose answer is there.
pub fn is_answered(span: &Span<'_>) -> bool {
    span.note().answered.load(Ordering::Relaxed)
}

/// From here on what `span`'s answer leads to (a redirect's hops) is sent inside it.
pub fn lead_on(span: &Span<'_>) {
    let note = span.note();
    if note.resends.load(Ordering::Relaxed) == 0 {
        let sent = note.sent_before.load(Ordering::Relaxed);
        let next = sent.saturating_add(note.round_trips.load(Ordering::Relaxed)).saturating_add(1);
        note.resends.store(next, Ordering::Relaxed);
    }
}

/// The ordinal of the request to be sent, if it is one that `span` [leads to](lead_on), else 0.
#[inline]
pub fn next_resend(span: &Span<'_>, is_one: impl FnOnce() -> bool) -> u16 {
    let counter = &span.note().resends;
    let ordinal = counter.load(Ordering::Relaxed);
    if ordinal == 0 || !is_one() {
        return 0;
    }
    counter.store(ordinal.saturating_add(1), Ordering::Relaxed);
    ordinal
}

/// The ordinal of a request that is `span`'s sent again, by who got its answer.
pub fn next_round_trip(span: &Span<'_>) -> u16 {
    let note = span.note();
    let trips = note.round_trips.load(Ordering::Relaxed).saturating_add(1);
    note.round_trips.store(trips, Ordering::Relaxed);
    note.sent_before.load(Ordering::Relaxed).saturating_add(trips)
}

/// How often a layer further in has sent the request again; `None` where it has not told.
#[inline]
pub fn retries(span: &Span<'_>) -> Option<u16> {
    span.note().attempts.load(Ordering::Relaxed).checked_sub(1)
}
