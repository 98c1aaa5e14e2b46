//! aiohttp's client: one CLIENT span for each call of a session, however many requests it sends.
//!
//! `ClientSession._request` follows redirects and repeats what a dead connection swallowed inside itself; the span is
//! that of the request as it was asked for, and says how often it was sent again. The `ClientRequest` that is sent first
//! knows the URL with the session's base and the parameters in it. The head that a hop is sent with takes the header: in the request's
//! mapping it would be folded, checked character by character and shown to the application.

use std::borrow::Cow;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, OnceLock};

use agent_core::Key;
use agent_core::fragment::Fragment;
use agent_core::span::{ActiveSpan, SpanKind, SpanSpec};
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyTuple};

use super::httpx;

use crate::breaker::Breaker;
use crate::current::{self, Exit, Span, StoredSpan};
use crate::ffi::{Held, intern, quiet};
use crate::http;
use crate::http::captured_headers::{CLIENT_REQUEST, CLIENT_RESPONSE};
use crate::http::client::{self, Answer, UrlParts};
use crate::http::excluded_urls::ExcludedUrls;
use crate::http::head;
use crate::http::peer;
use crate::instrumentations::{self, Instrumentation, Needed, Target};
use crate::objects::{Class, attribute, text};
use crate::suppression::{self, Of};
use crate::wrapper::{Call, Flight, HookResult};

/// The library.
pub static LIBRARY: Instrumentation = Instrumentation {
    name: "aiohttp-client",
    distribution: "aiohttp",
    breaker: Breaker::new("aiohttp-client"),
    targets: &[
        Target::coroutine("aiohttp.client", "ClientSession._request", request),
        Target::call("aiohttp.client_reqrep", "ClientRequest.send", send),
        Target::call(WRITER, "_serialize_headers", serialize).optional().once(&SENT),
    ],
};

const WRITER: &str = "aiohttp.http_writer";

static SCOPE: Key = Key::new("remora.aiohttp-client");
static SPEC: SpanSpec = SpanSpec { name: "HTTP", kind: SpanKind::Client, scope: &SCOPE };
/// By the first request that is sent: servers use what [`serialize`] stands around too, and need it not.
static SENT: Needed = Needed::new();
/// Whether [`serialize`] writes the headers.
static HOOKED: OnceLock<bool> = OnceLock::new();
static EXCLUDED: ExcludedUrls = ExcludedUrls::of("aiohttp-client");

/// One call of a session. What it was called with is kept until it ends, for a request that is never made.
struct Exchange {
    session: Option<Held>,
    method: Option<Held>,
    url: Option<Held>,
    params: Option<Held>,
}

fn request(call: &mut Call<'_>) -> HookResult<Option<Box<dyn Flight>>> {
    let py = call.py();
    if httpx::passes_headers() && is_httpx_s(call) {
        return Ok(None);
    }
    let held = |argument: Option<Borrowed<'_, '_, PyAny>>| argument.map(|argument| Held::new(&argument));
    Ok(Some(Box::new(Exchange {
        session: held(call.arg(0)),
        method: held(call.argument(1, intern!(py, "method"))),
        url: held(call.argument(2, intern!(py, "str_or_url"))),
        params: held(call.keyword(intern!(py, "params")).filter(|params| !params.is_none())),
    })))
}

/// Whether aiohttp is the transport of the httpx request whose span is in force.
#[cold]
fn is_httpx_s(call: &Call<'_>) -> bool {
    let py = call.py();
    let span = current::current(py).filter(|span| client::is_open(span, http::HTTPX));
    let headers = call.keyword(intern!(py, "headers"));
    span.zip(headers).is_some_and(|(span, headers)| client::carry(&headers, &span))
}

/// What is in force while a request is sent that gets no span, inside of one that has one (by a middleware): it is no
/// hop of that.
#[cold]
fn aside<'py>(py: Python<'py>, in_force: &Option<Span<'py>>) -> Option<StoredSpan> {
    in_force.as_ref().filter(|span| client::is_open(span, http::AIOHTTP))?;
    let aside = current::stand_in(py, in_force)?;
    aside.unmark();
    Some(aside.store())
}

impl Flight for Exchange {
    fn start(&mut self, py: Python<'_>) -> HookResult<Option<StoredSpan>> {
        let in_force = current::current(py);
        if suppression::suppressed(py, Of::Http) || EXCLUDED.contain(|| self.asked_for(py).map(Cow::Owned)) {
            return Ok(aside(py, &in_force));
        }
        let Some(span) = current::start(py, &SPEC, &in_force) else { return Ok(None) };
        span.mark(Exit::Http, http::AIOHTTP);
        Ok(Some(span.store()))
    }

    fn finish(
        &mut self,
        py: Python<'_>,
        span: Option<&Span<'_>>,
        outcome: Result<&Bound<'_, PyAny>, &Bound<'_, PyAny>>,
    ) -> HookResult {
        let Some(span) = span else { return Ok(()) };
        // Tasks that it has started go on under it: what they send is their own.
        span.unmark();
        if !span.is_recording() {
            return Ok(());
        }
        if !span.note().routed.load(Ordering::Relaxed) {
            self.describe(py, span);
        }
        // Counted from the first one on.
        let sent = span.note().sent_before.load(Ordering::Relaxed);
        span.note().sent_before.store(sent.saturating_sub(1), Ordering::Relaxed);
        match outcome {
            Ok(response) => answered(py, span, response),
            Err(error) => {
                let code = attribute(error, intern!(py, "status"))
                    .and_then(|code| quiet(py, code.extract::<u16>()))
                    .filter(|code| (100..600).contains(code));
                client::failed(span, error, code);
            }
        }
        span.finish();
        Ok(())
    }
}

impl Exchange {
    /// The URL with the session's base, if it has one; without the parameters.
    #[cold]
    fn asked_for(&self, py: Python<'_>) -> Option<String> {
        shown(&self.url(py)?)
    }

    fn url<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let url = self.url.as_ref()?.bind(py);
        let built = self.session.as_ref().and_then(|session| {
            quiet(py, session.bind(py).call_method1(intern!(py, "_build_url"), (&*url,)))
        });
        Some(built.unwrap_or_else(|| url.to_owned()))
    }

    /// From the call's own arguments: no request was sent.
    #[cold]
    fn describe(&self, py: Python<'_>, span: &Span<'_>) {
        let method = self.method.as_ref().map(|method| method.bind(py).to_owned());
        let url = self.url(py).map(|url| match &self.params {
            Some(params) => with_params(&url, &params.bind(py)).unwrap_or(url),
            None => url,
        });
        let url = url.map(|url| {
            quiet(py, url.call_method1(intern!(py, "with_fragment"), (py.None(),))).unwrap_or(url)
        });
        let url = url.and_then(|url| shown(&url));
        client::describe(span, text(&method).unwrap_or_default(), url.as_deref(), 0);
    }
}

fn shown(url: &Bound<'_, PyAny>) -> Option<String> {
    text(&quiet(url.py(), url.str()).map(Bound::into_any)).map(str::to_owned)
}

/// Older releases of yarl replace what they cannot add.
fn with_params<'py>(url: &Bound<'py, PyAny>, params: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    let py = url.py();
    let add = attribute(url, intern!(py, "extend_query"))
        .or_else(|| attribute(url, intern!(py, "update_query")))?;
    quiet(py, add.call1((params,)))
}

/// The span in force where it is a session's that waits for its response.
fn waiting(py: Python<'_>) -> Option<Span<'_>> {
    current::hook_span(py).filter(|span| client::is_open(span, http::AIOHTTP))
}

/// The first request of a call is what was asked for.
fn describe(py: Python<'_>, span: &Span<'_>, method: &str, request: &Bound<'_, PyAny>) {
    // A client has no route: described.
    span.note().routed.store(true, Ordering::Relaxed);
    let url = attribute(request, intern!(py, "url"));
    if let Some(url) = &url
        && URLS.set(span, method, url)
    {
        return;
    }
    let url = url.and_then(|url| quiet(py, url.str())).map(Bound::into_any);
    client::describe(span, method, text(&url), 0);
}

/// Of longer ones nothing is kept.
const LONGEST_URL: usize = 1024;

static URLS: Urls = Urls(Mutex::new([const { Place { asked: 0, kept: None } }; 32]));

/// URLs of late with what spans show of them. yarl gives out one object for one text.
// Never locked across a call into Python; contended, it is passed by.
struct Urls(Mutex<[Place; 32]>);

struct Place {
    /// The address of what was asked for last and is not kept.
    asked: usize,
    /// It cannot change, and is kept alive so that no other one has its address.
    kept: Option<(Held, Fragment)>,
}

impl Urls {
    /// Sets method and URL. False, and nothing is set, where that takes yarl's own text.
    fn set(&self, span: &Span<'_>, method: &str, url: &Bound<'_, PyAny>) -> bool {
        let address = url.as_ptr() as usize;
        let Ok(mut places) = self.0.try_lock() else { return false };
        let place = &mut places[(address >> 4) % 32];
        if let Some((of, fragment)) = &place.kept
            && of.as_ptr() == url.as_ptr()
        {
            span.with(|span| {
                http::set_method(span, method);
                span.append(fragment);
            });
            return true;
        }
        let again = place.asked == address;
        place.asked = address;
        drop(places);
        if again && self.learn(url).is_some() {
            return self.set(span, method, url);
        }
        let describe = |span: &mut ActiveSpan, parts: &UrlParts<'_>| {
            let whole = client::set_url(span, parts);
            if whole {
                http::set_method(span, method);
            }
            whole
        };
        with_parts(url, |parts| span.with(|span| describe(span, parts))) == Some(Some(true))
    }

    /// `None` where it is nothing to be kept.
    #[cold]
    fn learn(&self, url: &Bound<'_, PyAny>) -> Option<()> {
        static URL: Class = Class::new("yarl", "URL");
        if !URL.is_of(url) {
            return None;
        }
        let mut whole = false;
        let make = |parts: &UrlParts<'_>| {
            let is_short = parts.authority.len() + parts.path.len() + parts.query.len() <= LONGEST_URL;
            is_short.then(|| Fragment::copied(|span| whole = client::set_url(span, parts)))
        };
        let fresh = (Held::new(url), with_parts(url, make)??);
        if !whole {
            return None;
        }
        let mut places = self.0.try_lock().ok()?;
        let old = places[(url.as_ptr() as usize >> 4) % 32].kept.replace(fresh);
        drop(places);
        drop(old);
        Some(())
    }
}

/// What yarl's text of a request's URL is put together from: to ask for it, in Python, takes longer than all the rest
/// of the span. `None` where there is more to it. A request's URL has no fragment.
fn with_parts<R>(url: &Bound<'_, PyAny>, work: impl FnOnce(&UrlParts<'_>) -> R) -> Option<R> {
    let py = url.py();
    let (scheme, netloc) = (attribute(url, intern!(py, "_scheme")), attribute(url, intern!(py, "_netloc")));
    let (path, query) = (attribute(url, intern!(py, "_path")), attribute(url, intern!(py, "_query")));
    let (scheme, authority) = (text(&scheme)?, text(&netloc)?);
    let (path, query) = (text(&path)?, text(&query)?);
    // A port that the scheme implies is left out.
    let implied = authority.ends_with(":80") || authority.ends_with(":443");
    let is_plain = !scheme.is_empty() && !implied && path.starts_with('/');
    is_plain.then(|| work(&UrlParts { scheme, authority, path, query }))
}

/// `ClientRequest.send`: once for every hop and every repetition.
fn send(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    let (Some(span), Some(request)) = (waiting(py), call.arg(0)) else {
        if httpx::passes_headers() {
            set_httpx_s_peer(call);
        }
        return Ok(());
    };
    let method = attribute(&request, intern!(py, "method"));
    // What a proxy is asked before the request itself.
    if text(&method) == Some("CONNECT") {
        return Ok(());
    }
    let before = span.note().sent_before.load(Ordering::Relaxed);
    if span.is_recording() {
        if before == 0 {
            describe(py, &span, text(&method).unwrap_or_default(), &request);
            if let Some(captured) = CLIENT_REQUEST.capture() {
                captured.record(&span, &request);
            }
        }
        set_peer(call, &span, before > 0);
    }
    span.note().sent_before.store(before.saturating_add(1), Ordering::Relaxed);
    if !HOOKED.get().copied().unwrap_or_else(|| hook_writer(py))
        && let Some(headers) = attribute(&request, intern!(py, "headers"))
    {
        quiet(py, client::inject(py, &span, &headers));
    }
    Ok(())
}

#[cold]
fn hook_writer(py: Python<'_>) -> bool {
    SENT.now(py, &LIBRARY);
    let hooked = instrumentations::is_applied_in(&LIBRARY, WRITER);
    *HOOKED.get_or_init(|| hooked)
}

/// Where the httpx request goes whose span is in force, if we are its transport.
#[cold]
fn set_httpx_s_peer(call: &Call<'_>) {
    let py = call.py();
    let in_force = current::current(py);
    let span = in_force.filter(|span| client::is_open(span, http::HTTPX) && span.is_recording());
    let headers = call.arg(0).and_then(|request| attribute(&request, intern!(py, "headers")));
    if let Some((span, headers)) = span.zip(headers)
        && client::carry(&headers, &span)
    {
        set_peer(call, &span, span.note().peered.swap(true, Ordering::Relaxed));
    }
}

/// The head of a message, which both sides of aiohttp put together by this function.
fn serialize(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    let line = call.argument(0, intern!(py, "status_line")).map(|line| line.to_owned());
    let asks = text(&line).is_some_and(|line| !line.starts_with("HTTP/") && !line.starts_with("CONNECT "));
    let span = asks.then(|| waiting(py)).flatten();
    call.proceed();
    if let Some(span) = span {
        head::write(call, &span);
    }
    Ok(())
}

/// Where the request goes. By the time that there is a response its connection may have been given back, or be closed.
fn set_peer(call: &Call<'_>, span: &Span<'_>, again: bool) {
    let py = call.py();
    let Some(connection) = call.argument(1, intern!(py, "conn")) else { return };
    // What the property of this name would return, which is a call into Python.
    let transport = attribute(&connection, intern!(py, "_protocol"))
        .and_then(|protocol| attribute(&protocol, intern!(py, "transport")))
        .or_else(|| attribute(&connection, intern!(py, "transport")));
    let Some(transport) = transport else { return };
    let read = || {
        let name = intern!(py, "peername");
        quiet(py, transport.call_method1(intern!(py, "get_extra_info"), (name,)))
    };
    peer::set(span, &transport, again, || None, read);
}

fn answered(py: Python<'_>, span: &Span<'_>, response: &Bound<'_, PyAny>) {
    if let Some(headers) = CLIENT_RESPONSE.capture() {
        headers.record(span, response);
    }
    let code = attribute(response, intern!(py, "status")).and_then(|code| quiet(py, code.extract()));
    let version = attribute(response, intern!(py, "version"));
    Answer { code, version: version.and_then(|version| version_of(&version)), retries: 0 }.set(span);
}

/// A version is a pair of numbers.
pub fn version_of(version: &Bound<'_, PyAny>) -> Option<&'static str> {
    /// aiohttp has one object for each version.
    static COMMON: OnceLock<Held> = OnceLock::new();
    if COMMON.get().is_some_and(|common| common.as_ptr() == version.as_ptr()) {
        return Some("1.1");
    }
    let pair = version.cast::<PyTuple>().ok()?;
    let number =
        |at| pair.get_borrowed_item(at).ok().and_then(|number| quiet(pair.py(), number.extract::<u16>()));
    let text = client::version_of_number(number(0)?.saturating_mul(10).saturating_add(number(1)?));
    if text == Some("1.1") {
        COMMON.get_or_init(|| Held::new(version));
    }
    text
}
