//! httpx: one CLIENT span for each request sent, redirects and authentication round trips as siblings.
//!
//! `_send_single_request` is called for every hop, with any transport, and returns at the response's head. How often a
//! request was sent again its object says: the one that a redirect, or a round of authentication, goes on with is one
//! more than the one before.
//!
//! The context is written into the head that h11 has made, where httpx's own transport sends HTTP/1.1 without a proxy;
//! else into the request's headers, which httpx, httpcore and h11 each take apart in Python.

use std::borrow::Cow;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use agent_core::Key;
use agent_core::span::{SpanKind, SpanSpec};
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBool, PyBytes, PyDict, PyList, PyTuple};

use crate::breaker::Breaker;
use crate::current::{self, Exit, Span, StoredSpan};
use crate::ffi::{Held, intern, quiet};
use crate::http;
use crate::http::captured_headers::{CLIENT_REQUEST, CLIENT_RESPONSE};
use crate::http::client::{self, Answer};
use crate::http::excluded_urls::ExcludedUrls;
use crate::http::head;
use crate::http::peer;
use crate::instrumentations::{self, Instrumentation, Target};
use crate::objects::{Class, attribute, length, text};
use crate::remembered::Remembered;
use crate::suppression::{self, Of};
use crate::wrapper::{Call, Flight, HookResult};

/// The library.
pub static LIBRARY: Instrumentation = Instrumentation {
    name: "httpx",
    distribution: "httpx",
    breaker: Breaker::new("httpx"),
    targets: &[
        Target::call("httpx._client", "Client._send_handling_redirects", round),
        Target::call("httpx._client", "Client._send_single_request", send_single_request),
        Target::coroutine("httpx._client", "AsyncClient._send_handling_redirects", round_async),
        Target::coroutine("httpx._client", "AsyncClient._send_single_request", send_single_request_async),
        Target::call("httpx._client", "BaseClient._build_redirect_request", redirect),
        Target::call(HTTPCORE, "h11.Connection.send", send_event).optional(),
        // The fork, of the same build.
        Target::call("httpx2._client", "Client._send_handling_redirects", round).optional(),
        Target::call("httpx2._client", "Client._send_single_request", send_single_request).optional(),
        Target::coroutine("httpx2._client", "AsyncClient._send_handling_redirects", round_async).optional(),
        Target::call("httpx2._client", "BaseClient._build_redirect_request", redirect).optional(),
        Target::coroutine("httpx2._client", "AsyncClient._send_single_request", send_single_request_async)
            .optional(),
    ],
};

/// Its asynchronous twin has the same h11.
const HTTPCORE: &str = "httpcore._sync.http11";

static SCOPE: Key = Key::new("remora.httpx");
static SPEC: SpanSpec = SpanSpec { name: "HTTP", kind: SpanKind::Client, scope: &SCOPE };
static EXCLUDED: ExcludedUrls = ExcludedUrls::of("httpx");

/// What is known of a request that is one sent before.
#[derive(Clone, Copy)]
struct Resent {
    count: u16,
    /// The address of the one that redirects began with.
    origin: usize,
}

/// How often requests were sent before: those of which none was are not in there.
static RESENT: Remembered<Resent> = Remembered::new();
/// Whether there ever was one.
static EVER: AtomicBool = AtomicBool::new(false);

/// Whether a transport that is not httpx's own may ever have got the headers.
static PASSES_HEADERS: AtomicBool = AtomicBool::new(false);

/// Whether a span of httpx may be in force of which a layer further in (aiohttp as the transport) sends the request.
#[inline]
pub fn passes_headers() -> bool {
    PASSES_HEADERS.load(Ordering::Relaxed)
}

fn resent(request: &Bound<'_, PyAny>) -> Resent {
    let known = EVER.load(Ordering::Relaxed).then(|| RESENT.get(request, || None)).flatten();
    known.unwrap_or(Resent { count: 0, origin: address(request) })
}

fn resends(request: &Bound<'_, PyAny>) -> u16 {
    resent(request).count
}

fn set_resent(request: &Bound<'_, PyAny>, resent: Resent) {
    EVER.store(true, Ordering::Relaxed);
    RESENT.set(request, resent);
}

fn address(request: &Bound<'_, PyAny>) -> usize {
    request.as_ptr() as usize
}

/// `_send_handling_redirects`: once for a call, and again for each further round of its authentication.
fn round(call: &mut Call<'_>) -> HookResult {
    count_round(call);
    call.proceed();
    Ok(())
}

fn round_async(call: &mut Call<'_>) -> HookResult<Option<Box<dyn Flight>>> {
    count_round(call);
    Ok(None)
}

#[inline]
fn count_round(call: &Call<'_>) {
    let py = call.py();
    let Some(request) = call.argument(1, intern!(py, "request")) else { return };
    let history = call.argument(3, intern!(py, "history"));
    let history = history.as_ref().and_then(|history| history.cast::<PyList>().ok());
    let before =
        history.filter(|history| !history.is_empty()).and_then(|history| sent_in(&history, &request));
    match before {
        Some(before) => set_resent(&request, Resent { count: before.count.saturating_add(1), ..before }),
        // The application may send one object several times.
        None if resends(&request) > 0 => set_resent(&request, Resent { count: 0, origin: address(&request) }),
        None => {}
    }
}

/// How a request was last sent, itself or as redirects made it, in the rounds before: authentication sends others too
/// (for a token).
#[cold]
fn sent_in(history: &Bound<'_, PyList>, request: &Bound<'_, PyAny>) -> Option<Resent> {
    let name = intern!(request.py(), "request");
    (0..history.len()).rev().find_map(|at| {
        let sent = attribute(&quiet(request.py(), history.get_item(at))?, name)?;
        let before = resent(&sent);
        (sent.is(request) || before.origin == address(request)).then_some(before)
    })
}

/// `_build_redirect_request`.
fn redirect(call: &mut Call<'_>) -> HookResult {
    let before = call.argument(1, intern!(call.py(), "request")).map(|request| resent(&request));
    call.proceed();
    if let (Some(before), Some(next)) = (before, call.result()) {
        set_resent(&next, Resent { count: before.count.saturating_add(1), ..before });
    }
    Ok(())
}

fn send_single_request(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    let in_force = current::current(py);
    let by_h11 = || call.arg(0).is_some_and(|client| goes_by_h11(&client));
    let request = call.argument(1, intern!(py, "request"));
    let span = request.and_then(|request| begin(py, &in_force, &request, by_h11));
    let Some(span) = span else {
        call.proceed();
        return Ok(());
    };
    {
        let _entered = span.enter_call(in_force);
        call.proceed();
    }
    match (call.result(), call.error()) {
        (Some(response), _) => end(py, &span, Ok(&response)),
        (_, Some(error)) => end(py, &span, Err(&error)),
        _ => {}
    }
    Ok(())
}

/// Whether what a client sends is put together by h11, and our hook there writes the headers.
fn goes_by_h11(client: &Bound<'_, PyAny>) -> bool {
    static TRANSPORTS: [Class; 2] =
        [Class::new("httpx", "HTTPTransport"), Class::new("httpx", "AsyncHTTPTransport")];
    // Both libraries say that their classes are of the package. A proxy has another class.
    static POOLS: [Class; 2] =
        [Class::new("httpcore", "ConnectionPool"), Class::new("httpcore", "AsyncConnectionPool")];
    static HOOKED: OnceLock<bool> = OnceLock::new();
    let py = client.py();
    let is_one_of =
        |classes: &[Class], object: &Bound<'_, PyAny>| classes.iter().any(|class| class.is_of(object));
    attribute(client, intern!(py, "_mounts")).is_some_and(|mounts| length(&mounts) == Some(0))
        && attribute(client, intern!(py, "_transport"))
            .filter(|transport| is_one_of(&TRANSPORTS, transport))
            .and_then(|transport| attribute(&transport, intern!(py, "_pool")))
            .filter(|pool| is_one_of(&POOLS, pool))
            .and_then(|pool| attribute(&pool, intern!(py, "_http2")))
            .is_some_and(|http2| http2.is(PyBool::new(py, false)))
        && *HOOKED.get_or_init(|| instrumentations::is_applied_in(&LIBRARY, HTTPCORE))
}

/// `h11.Connection.send`: of a request that waits for it the head takes the span's context.
fn send_event(call: &mut Call<'_>) -> HookResult {
    static REQUEST: Class = Class::new("h11._events", "Request");
    let py = call.py();
    let event = call.argument(1, intern!(py, "event"));
    let span = event.is_some_and(|event| REQUEST.is_of(&event)).then(|| current::current(py)).flatten();
    call.proceed();
    if let Some(span) = span
        && client::is_open(&span, http::HTTPX)
        && span.note().pending.swap(false, Ordering::Relaxed)
    {
        head::write(call, &span);
    }
    Ok(())
}

/// The span of a request, its context in the request's headers or, `by_h11`, to be written by [`send_event`]; `None`
/// where there is to be none.
fn begin<'py>(
    py: Python<'py>,
    in_force: &Option<Span<'py>>,
    request: &Bound<'py, PyAny>,
    by_h11: impl FnOnce() -> bool,
) -> Option<Span<'py>> {
    if suppression::suppressed(py, Of::Http) || EXCLUDED.contain(|| url(request).map(Cow::Owned)) {
        return None;
    }
    let span = current::start(py, &SPEC, in_force)?;
    if span.is_recording() {
        let method = attribute(request, intern!(py, "method"));
        client::describe(&span, text(&method).unwrap_or_default(), url(request).as_deref(), resends(request));
        if let Some(headers) = CLIENT_REQUEST.capture() {
            headers.record(&span, request);
        }
    }
    if by_h11() {
        span.note().pending.store(true, Ordering::Relaxed);
    } else if let Some(headers) = attribute(request, intern!(py, "headers")) {
        // A request that takes no header goes out without one.
        quiet(py, client::inject(py, &span, &headers));
        PASSES_HEADERS.store(true, Ordering::Relaxed);
    }
    span.mark(Exit::Http, http::HTTPX);
    Some(span)
}

fn url(request: &Bound<'_, PyAny>) -> Option<String> {
    let py = request.py();
    let url = attribute(request, intern!(py, "url"))?;
    plain_url(&url).or_else(|| quiet(py, quiet(py, url.str())?.to_str()).map(str::to_owned))
}

/// What httpx would make of its URL, from the parts in its tuple: in Python that takes longer than all the rest of the
/// span. `None` where that is more than to put them together.
fn plain_url(url: &Bound<'_, PyAny>) -> Option<String> {
    let py = url.py();
    let parts = attribute(url, intern!(py, "_uri_reference"))?.cast_into::<PyTuple>().ok()?;
    if parts.len() != 7 {
        return None;
    }
    let part = |at| quiet(py, parts.get_item(at));
    let (scheme, user, host, port) = (part(0), part(1), part(2), part(3)?);
    let (path, query, fragment) = (part(4), part(5)?, part(6)?);
    let (scheme, host, path) = (text(&scheme)?, text(&host)?, text(&path)?);
    if scheme.is_empty()
        || host.is_empty()
        || host.contains(':')
        || !text(&user)?.is_empty()
        || !fragment.is_none()
    {
        return None;
    }
    let (mut digits, mut colon) = ([0; 5], "");
    let port = if port.is_none() {
        ""
    } else {
        colon = ":";
        http::decimal(quiet(py, port.extract())?, &mut digits)
    };
    let mark = if query.is_none() { "" } else { "?" };
    let query = Some(query).filter(|query| !query.is_none());
    let query = if query.is_some() { text(&query)? } else { "" };
    Some([scheme, "://", host, colon, port, path, mark, query].concat())
}

fn end(py: Python<'_>, span: &Span<'_>, outcome: Result<&Bound<'_, PyAny>, &Bound<'_, PyAny>>) {
    if span.is_recording() {
        match outcome {
            Ok(response) => answered(py, span, response),
            Err(error) => client::failed(span, error, None),
        }
        span.finish();
    }
    span.unmark();
}

fn answered(py: Python<'_>, span: &Span<'_>, response: &Bound<'_, PyAny>) {
    let code = attribute(response, intern!(py, "status_code")).and_then(|code| quiet(py, code.extract()));
    let extensions = attribute(response, intern!(py, "extensions"));
    let extension = |name| {
        let found = extensions.as_ref()?.cast::<PyDict>().ok()?.get_item(name);
        quiet(py, found).flatten().filter(|value| !value.is_none())
    };
    let version = extension(intern!(py, "http_version"));
    let version = version.as_ref().and_then(|version| version.cast::<PyBytes>().ok());
    let version = version.and_then(|version| std::str::from_utf8(version.as_bytes()).ok());
    if let Some(stream) = extension(intern!(py, "network_stream")) {
        let read = || {
            let name = intern!(py, "server_addr");
            quiet(py, stream.call_method1(intern!(py, "get_extra_info"), (name,)))
        };
        let again = span.note().peered.load(Ordering::Relaxed);
        peer::set(span, &stream, again, || attribute(&stream, intern!(py, "_sock")), read);
    }
    if let Some(headers) = CLIENT_RESPONSE.capture() {
        headers.record(span, response);
    }
    Answer { code, version: version.map(http::protocol_version), retries: 0 }.set(span);
}

/// One asynchronous request; its object only until the first send.
struct Sending {
    request: Option<Held>,
    by_h11: bool,
}

impl Flight for Sending {
    fn start(&mut self, py: Python<'_>) -> HookResult<Option<StoredSpan>> {
        let Some(request) = self.request.take() else { return Ok(None) };
        let in_force = current::current(py);
        Ok(begin(py, &in_force, &request.bind(py), || self.by_h11).map(Span::store))
    }

    fn finish(
        &mut self,
        py: Python<'_>,
        span: Option<&Span<'_>>,
        outcome: Result<&Bound<'_, PyAny>, &Bound<'_, PyAny>>,
    ) -> HookResult {
        if let Some(span) = span {
            end(py, span, outcome);
        }
        Ok(())
    }
}

fn send_single_request_async(call: &mut Call<'_>) -> HookResult<Option<Box<dyn Flight>>> {
    let request = call.argument(1, intern!(call.py(), "request"));
    Ok(request.map(|request| {
        let by_h11 = call.arg(0).is_some_and(|client| goes_by_h11(&client));
        Box::new(Sending { request: Some(Held::new(&request)), by_h11 }) as Box<dyn Flight>
    }))
}
