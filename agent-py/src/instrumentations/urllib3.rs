//! urllib3: one CLIENT span for each attempt, retries and redirects as siblings.
//!
//! `urlopen` calls `_make_request` and then itself again. Below a library that makes the span itself (requests) an
//! attempt adds the peer to it and sends the headers that carry it.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use agent_core::Key;
use agent_core::fragment::Fragment;
use agent_core::redact;
use agent_core::span::{SpanKind, SpanSpec};
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyMapping};

use crate::breaker::Breaker;
use crate::current::{self, Exit, Span};
use crate::ffi::{intern, quiet};
use crate::http;
use crate::http::captured_headers::{CLIENT_REQUEST, CLIENT_RESPONSE};
use crate::http::client::{self, Answer, version_of_number};
use crate::http::connection;
use crate::http::excluded_urls::ExcludedUrls;
use crate::instrumentations::{self, Instrumentation, Target};
use crate::objects::{attribute, text};
use crate::old_names;
use crate::remembered::Remembered;
use crate::settings;
use crate::suppression::{self, Of};
use crate::wrapper::{Call, HookResult};

/// The library.
pub static LIBRARY: Instrumentation = Instrumentation {
    name: "urllib3",
    distribution: "urllib3",
    breaker: Breaker::new("urllib3"),
    targets: &[
        Target::call("urllib3.connectionpool", "HTTPConnectionPool.urlopen", urlopen).unless(tells_retries),
        Target::call("urllib3.connectionpool", "HTTPConnectionPool._make_request", make_request),
        Target::call("urllib3.connection", "HTTPConnection.endheaders", connection::endheaders),
    ],
};

static SCOPE: Key = Key::new("remora.urllib3");
static SPEC: SpanSpec = SpanSpec { name: "HTTP", kind: SpanKind::Client, scope: &SCOPE };
static EXCLUDED: ExcludedUrls = ExcludedUrls::of("urllib3");

thread_local! {
    /// A pool's address and how many attempts led to the one that it makes next: 1.26 does not tell `_make_request`.
    static NEXT: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// Whether `_make_request` is told by `urlopen` how often the request was sent before.
fn tells_retries(module: &Bound<'_, PyAny>) -> bool {
    let py = module.py();
    let names = attribute(module, intern!(py, "HTTPConnectionPool"))
        .and_then(|pool| attribute(&pool, intern!(py, "_make_request")))
        .and_then(|function| attribute(&function, intern!(py, "__code__")))
        .and_then(|code| attribute(&code, intern!(py, "co_varnames")));
    names.is_some_and(|names| quiet(py, names.contains(intern!(py, "retries"))) == Some(true))
}

fn urlopen(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    if let Some(pool) = call.arg(0)
        && let Some(retries) = call.argument(5, intern!(py, "retries"))
        && !retries.is_none()
    {
        NEXT.set((pool.as_ptr() as usize, history(&retries)));
    }
    call.proceed();
    Ok(())
}

/// How many attempts a `Retry` remembers.
fn history(retries: &Bound<'_, PyAny>) -> usize {
    attribute(retries, intern!(retries.py(), "history"))
        .and_then(|history| quiet(retries.py(), history.len()))
        .unwrap_or(0)
}

fn earlier_attempts(call: &Call<'_>) -> usize {
    let (pool, count) = NEXT.take();
    match call.keyword(intern!(call.py(), "retries")) {
        Some(retries) => history(&retries),
        None if call.arg(0).is_some_and(|own| own.as_ptr() as usize == pool) => count,
        None => 0,
    }
}

fn make_request(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    let in_force = current::current(py);
    let outer = current::hook_span_of(&in_force);
    if let Some(span) = outer.filter(|span| is_request_of(span, call)) {
        attempt_for(call, &span);
        return Ok(());
    }
    if suppression::suppressed(py, Of::Http) || EXCLUDED.contain(|| url(call).map(Cow::Owned)) {
        call.proceed();
        return Ok(());
    }
    let Some(span) = current::start(py, &SPEC, &in_force) else {
        call.proceed();
        return Ok(());
    };
    let recording = span.is_recording();
    if recording {
        describe(call, &span);
    }
    if settings::log_correlation() {
        span.mark(Exit::Http, http::URLLIB3);
        let _entered = span.enter_call(in_force);
        attempt(call, &span);
        span.unmark();
    } else {
        // Nothing in there makes a span: to put it in force would cost more than all the rest of it.
        attempt(call, &span);
    }
    if recording {
        if let Some(response) = call.result() {
            answered(py, &span, &response);
        } else if let Some(error) = call.error() {
            client::failed(&span, &error, None);
        }
        span.finish();
    }
    Ok(())
}

/// Whether what is to be sent is the request of the span in force: requests' adapter says so, or the headers. What an
/// outer library's request sends besides (a token for it, a part of its body) is another one.
#[inline]
fn is_request_of(span: &Span<'_>, call: &Call<'_>) -> bool {
    span.covers(Exit::Http, http::URLLIB3)
        && (span.note().due.load(Ordering::Relaxed) || is_carried(span, call))
}

#[cold]
fn is_carried(span: &Span<'_>, call: &Call<'_>) -> bool {
    let headers = call.argument(5, intern!(call.py(), "headers"));
    headers.is_some_and(|headers| client::carry(&headers, span))
}

/// Sends a request that an outer library has made the span of.
fn attempt_for<'py>(call: &mut Call<'py>, span: &Span<'py>) {
    let note = span.note();
    let before = note.attempts.load(Ordering::Relaxed);
    note.attempts.store(before.saturating_add(1), Ordering::Relaxed);
    let due = note.due.load(Ordering::Relaxed);
    // What is sent inside of this is not.
    note.due.store(false, Ordering::Relaxed);
    if note.pending.load(Ordering::Relaxed) {
        attempt(call, span);
    } else {
        call.proceed();
        set_peer(call, span);
    }
    note.due.store(due, Ordering::Relaxed);
}

/// What the requests of a pool have in common.
struct Pool {
    /// The URL up to the target.
    prefix: String,
    /// The same as it may be shown.
    shown: Vec<u8>,
    /// The server.
    place: Fragment,
}

static POOLS: Remembered<Arc<Pool>> = Remembered::new();

impl Pool {
    #[cold]
    fn read(pool: &Bound<'_, PyAny>) -> Option<Arc<Self>> {
        let py = pool.py();
        let (scheme, host) = (attribute(pool, intern!(py, "scheme")), attribute(pool, intern!(py, "host")));
        let (scheme, host) = (text(&scheme).unwrap_or("http"), text(&host)?);
        let port = attribute(pool, intern!(py, "port")).and_then(|port| quiet(py, port.extract::<u16>()));
        let port = port.filter(|port| Some(*port) != redact::default_port(scheme));
        let mut prefix = String::with_capacity(scheme.len() + host.len() + 12);
        prefix.push_str(scheme);
        prefix.push_str("://");
        if host.contains(':') && !host.starts_with('[') {
            prefix.push('[');
            prefix.push_str(host);
            prefix.push(']');
        } else {
            prefix.push_str(host);
        }
        if let Some(port) = port {
            prefix.push(':');
            prefix.push_str(http::decimal(port, &mut [0; 5]));
        }
        let place = Fragment::new(|span| client::describe_server(span, &prefix));
        let mut shown = Vec::new();
        redact::url_full(&prefix, &mut shown);
        Some(Arc::new(Self { prefix, shown, place }))
    }
}

fn target<'py>(call: &Call<'py>) -> Option<Bound<'py, PyAny>> {
    call.argument(3, intern!(call.py(), "url")).map(|target| target.to_owned())
}

/// The URL that the pool and the target of the request make up; the target alone where it is one (by a proxy).
fn url(call: &Call<'_>) -> Option<String> {
    let target = target(call);
    let target = text(&target)?;
    if !target.starts_with('/') && target.contains("://") {
        return Some(target.to_owned());
    }
    let slash = if target.starts_with('/') { "" } else { "/" };
    POOLS.with(
        &*call.arg(0)?,
        || Pool::read(&*call.arg(0)?),
        |pool| format!("{}{slash}{target}", pool.prefix),
    )
}

fn describe(call: &Call<'_>, span: &Span<'_>) {
    let py = call.py();
    let method = call.argument(2, intern!(py, "method")).map(|method| method.to_owned());
    let method = text(&method).unwrap_or_default();
    let attempts = u16::try_from(earlier_attempts(call)).unwrap_or(u16::MAX);
    let target = target(call);
    let by_pool = match (text(&target), call.arg(0)) {
        (Some(target), Some(pool)) if target.starts_with('/') && !old_names::http() => {
            let set = |known: &Arc<Pool>| {
                client::describe_target(span, method, &known.shown, target, &known.place, attempts);
            };
            POOLS.with(&pool, || Pool::read(&pool), set).is_some()
        }
        _ => false,
    };
    if !by_pool {
        client::describe(span, method, url(call).as_deref(), attempts);
    }
    if let Some(capture) = CLIENT_REQUEST.capture()
        && let Some(headers) = call.argument(5, intern!(py, "headers"))
    {
        capture.record_items(span, &headers);
    }
}

/// Whether an attempt carries the span in force where that [waits](crate::current::Note::pending) for it.
#[inline]
pub fn carries() -> bool {
    static HOOKED: OnceLock<bool> = OnceLock::new();
    !LIBRARY.breaker.is_open() && *HOOKED.get_or_init(|| instrumentations::is_applied(&LIBRARY))
}

/// Sends the request with the span's context.
fn attempt<'py>(call: &mut Call<'py>, span: &Span<'py>) {
    let py = call.py();
    let connection = call.argument(1, intern!(py, "conn")).map(|connection| connection.to_owned());
    if let Some(connection) = connection.and_then(connection::that_takes_lines) {
        if !connection::carrying(span, &connection, || call.proceed()) {
            set_peer(call, span);
        }
        return;
    }
    match quiet(py, with_context(call, span)).flatten() {
        Some(headers) => call.proceed_replacing(5, intern!(py, "headers"), &headers),
        None => call.proceed(),
    }
    set_peer(call, span);
}

/// A copy of the headers to be sent, with the span's context: the caller's own may be sent elsewhere by someone else.
fn with_context<'py>(call: &Call<'py>, span: &Span<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = call.py();
    let Some(headers) = call.argument(5, intern!(py, "headers")) else { return Ok(None) };
    let headers = if headers.is_none() {
        PyDict::new(py).into_any()
    } else if let Ok(plain) = headers.cast_exact::<PyDict>() {
        plain.copy()?.into_any()
    } else if let Some(copied) = quiet(py, headers.call_method0(intern!(py, "copy"))) {
        copied
    } else {
        let copied = PyDict::new(py);
        let mapping = headers.cast::<PyMapping>()?;
        copied.update(&mapping)?;
        copied.into_any()
    };
    client::inject(py, span, &headers)?;
    Ok(Some(headers))
}

/// For a head that our hook in the connection has not seen go.
#[cold]
fn set_peer(call: &Call<'_>, span: &Span<'_>) {
    let py = call.py();
    if !span.is_recording() {
        return;
    }
    let Some(connection) = call.argument(1, intern!(py, "conn")) else { return };
    // Closed at the response's head where the server keeps no connection: the body still comes from it.
    let socket = attribute(&connection, intern!(py, "sock"))
        .or_else(|| call.result().and_then(|response| socket_of(&response)));
    if let Some(socket) = socket {
        connection::set_peer(span, &socket);
    }
}

#[cold]
fn socket_of<'py>(response: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    let py = response.py();
    // urllib3 1.26 has `http.client`'s own response here.
    let inner = attribute(response, intern!(py, "_fp"));
    let file = attribute(inner.as_ref().unwrap_or(response), intern!(py, "fp"))?;
    attribute(&attribute(&file, intern!(py, "raw"))?, intern!(py, "_sock"))
}

fn answered(py: Python<'_>, span: &Span<'_>, response: &Bound<'_, PyAny>) {
    let number = |name| attribute(response, name).and_then(|number| quiet(py, number.extract::<u16>()));
    let code = number(intern!(py, "status"));
    let version = number(intern!(py, "version")).and_then(version_of_number);
    if let Some(headers) = CLIENT_RESPONSE.capture() {
        headers.record(span, response);
    }
    Answer { code, version, retries: 0 }.set(span);
}
