//! requests: one CLIENT span for each request sent, a redirect's hops as siblings.
//!
//! `Session.send` calls an adapter and then itself, for every hop, from inside `resolve_redirects`, which it calls for
//! every response. The span ends as soon as the headers are read: when `HTTPAdapter.send` returns or, with an adapter
//! that is none, at `resolve_redirects`. Hooks of the application run after that, and what they send is their own.

use std::borrow::Cow;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use agent_core::Key;
use agent_core::span::{SpanKind, SpanSpec};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyAny, PyBool, PyDict};

use super::urllib3;

use crate::breaker::Breaker;
use crate::current::{self, Exit, Span};
use crate::ffi::{intern, quiet};
use crate::hook;
use crate::http;
use crate::http::captured_headers::{CLIENT_REQUEST, CLIENT_RESPONSE};
use crate::http::client::{self, Answer, is_answered, version_of_number};
use crate::http::excluded_urls::ExcludedUrls;
use crate::instrumentations::{Instrumentation, Needed, Target};
use crate::objects::{attribute, text};
use crate::suppression::{self, Of};
use crate::wrapper::{self, Call, HookResult};

/// The library.
pub static LIBRARY: Instrumentation = Instrumentation {
    name: "requests",
    distribution: "requests",
    breaker: Breaker::new("requests"),
    targets: &[
        Target::call("requests.sessions", "Session.send", send),
        Target::call("requests.sessions", "SessionRedirectMixin.resolve_redirects", resolve_redirects)
            .once(&FOLLOWING),
        Target::call("requests.adapters", "HTTPAdapter.send", adapter_send),
    ],
};

static SCOPE: Key = Key::new("remora.requests");
static SPEC: SpanSpec = SpanSpec { name: "HTTP", kind: SpanKind::Client, scope: &SCOPE };
static EXCLUDED: ExcludedUrls = ExcludedUrls::of("requests");

/// By a redirect, or a response that did not come by requests' own adapter: [`resolve_redirects`] is called for every
/// response.
static FOLLOWING: Needed = Needed::new();

fn send(call: &mut Call<'_>) -> HookResult {
    let in_force = current::current(call.py());
    if suppression::suppressed(call.py(), Of::Http) {
        call.proceed();
        return Ok(());
    }
    let resends = in_force.as_ref().map_or(0, |span| client::next_resend(span, || is_hop(call)));
    let parent = if resends > 0 { in_force.as_ref().and_then(Span::outer) } else { in_force.clone() };
    let by_urllib3 = call.arg(0).is_some_and(|session| goes_by_urllib3(&session));
    // A session that follows by rules of its own, too.
    if !FOLLOWING.is() && (!by_urllib3 || in_force.as_ref().is_some_and(is_answered)) {
        FOLLOWING.now(call.py(), &LIBRARY);
    }
    exchange(call, in_force, parent, resends, By { urllib3: by_urllib3, adapter: false });
    Ok(())
}

/// Whether `resolve_redirects` sends it, and not what a session's own methods call from there (`rebuild_auth`).
#[cold]
fn is_hop(call: &Call<'_>) -> bool {
    let py = call.py();
    call.keyword(intern!(py, "allow_redirects")).is_some_and(|allowed| allowed.is(PyBool::new(py, false)))
}

fn is_open(span: &Span<'_>) -> bool {
    client::is_open(span, http::REQUESTS)
}

fn adapter_send(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    let in_force = current::current(py);
    let Some(span) = current::hook_span_of(&in_force) else {
        call.proceed();
        return Ok(());
    };
    if is_open(&span) {
        let due = &span.note().due;
        due.store(true, Ordering::Relaxed);
        call.proceed();
        due.store(false, Ordering::Relaxed);
        if let Some(response) = call.result() {
            answered(py, &span, &response);
        }
        return Ok(());
    }
    // The answer is there and the same `Session.send` sends again: an authentication round trip.
    if is_answered(&span) && span.is_sampled() {
        let resends = client::next_round_trip(&span);
        let parent = span.outer();
        exchange(call, in_force, parent, resends, By { urllib3: urllib3::carries(), adapter: true });
        return Ok(());
    }
    call.proceed();
    Ok(())
}

fn resolve_redirects(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    if let Some(span) = current::hook_span(py) {
        if is_open(&span)
            && let Some(response) = call.argument(1, intern!(py, "resp"))
        {
            answered(py, &span, &response);
        }
        if is_answered(&span) {
            // From here on `send` inside this span is a hop: a sibling.
            client::lead_on(&span);
        }
    }
    call.proceed();
    Ok(())
}

/// Whether each adapter that a session may get ends in requests' own, and our hook in urllib3 writes the headers.
fn goes_by_urllib3(session: &Bound<'_, PyAny>) -> bool {
    let py = session.py();
    let is_own = |adapter: Bound<'_, PyAny>| {
        attribute(&adapter.get_type(), intern!(py, "send"))
            .is_some_and(|send| wrapper::is_wrapper(&send) || is_stand_in(&send))
    };
    urllib3::carries()
        && gets_own_adapters(session)
        && attribute(session, intern!(py, "adapters")).is_some_and(|adapters| {
            adapters
                .cast::<PyDict>()
                .is_ok_and(|adapters| adapters.iter().all(|(_, adapter)| is_own(adapter)))
        })
}

/// Whether requests writes a request to the connection itself: before 2.29 one whose length it does not know.
#[inline]
fn goes_past_urllib3(request: &Bound<'_, PyAny>) -> bool {
    static WRITES: OnceLock<bool> = OnceLock::new();
    let writes = WRITES.get().copied().unwrap_or_else(|| {
        let writes = writes_itself(request.py()).unwrap_or(false);
        *WRITES.get_or_init(|| writes)
    });
    writes && is_of_no_length(request)
}

#[cold]
fn writes_itself(py: Python<'_>) -> Option<bool> {
    let module = quiet(py, hook::imported(py, "requests.adapters")).flatten()?;
    let send = attribute(&attribute(&module, intern!(py, "HTTPAdapter"))?, intern!(py, "send"))?;
    let names = attribute(&attribute(&send, intern!(py, "__code__"))?, intern!(py, "co_names"))?;
    quiet(py, names.contains(intern!(py, "putrequest")))
}

#[cold]
fn is_of_no_length(request: &Bound<'_, PyAny>) -> bool {
    let py = request.py();
    let headers = attribute(request, intern!(py, "headers"));
    let has_length = headers.and_then(|headers| quiet(py, headers.contains(intern!(py, "Content-Length"))));
    attribute(request, intern!(py, "body")).is_some() && has_length != Some(true)
}

/// Whether it is requests' own function that gets a session its adapters: another one may get any.
fn gets_own_adapters(session: &Bound<'_, PyAny>) -> bool {
    static OWN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = session.py();
    let function = attribute(session, intern!(py, "get_adapter"))
        .and_then(|method| attribute(&method, intern!(py, "__func__")));
    function.is_some_and(|function| match OWN.get(py) {
        Some(own) if own.is(&function) => true,
        None if is_get_adapter(&function) => OWN.get_or_init(py, || function.clone().unbind()).is(&function),
        _ => is_stand_in(&function),
    })
}

/// Whether a function is of a package that stands in for requests' adapter in tests: what it lets through goes by that
/// adapter, and what it compares with a test's expectations is the request as the application made it.
#[cold]
fn is_stand_in(function: &Bound<'_, PyAny>) -> bool {
    let module = attribute(function, intern!(function.py(), "__module__"));
    let package = text(&module).and_then(|module| module.split('.').next());
    let is_one = matches!(package, Some("responses" | "requests_mock"));
    if is_one {
        FOLLOWING.now(function.py(), &LIBRARY);
    }
    is_one
}

#[cold]
fn is_get_adapter(function: &Bound<'_, PyAny>) -> bool {
    let py = function.py();
    let names = [
        (intern!(py, "__module__"), "requests.sessions"),
        (intern!(py, "__qualname__"), "Session.get_adapter"),
    ];
    names.iter().all(|(name, wanted)| text(&attribute(function, name)) == Some(wanted))
}

/// What sends a request.
#[derive(Clone, Copy)]
struct By {
    /// urllib3, which the headers are left to.
    urllib3: bool,
    /// requests' own adapter, called for it now.
    adapter: bool,
}

/// Sends one request under a span of its own; one that is excluded as the application made it.
fn exchange<'py>(
    call: &mut Call<'py>,
    in_force: Option<Span<'py>>,
    parent: Option<Span<'py>>,
    resends: u16,
    by: By,
) {
    let py = call.py();
    if EXCLUDED.contain(|| url(call).map(Cow::Owned)) {
        unseen(call, in_force, parent, resends, by);
        return;
    }
    let Some(span) = current::start(py, &SPEC, &parent) else {
        call.proceed();
        return;
    };
    let recording = span.is_recording();
    if let Some(request) = call.argument(1, intern!(py, "request")) {
        if recording {
            describe(py, &span, &request, resends);
        }
        if by.urllib3 && !goes_past_urllib3(&request) {
            span.note().pending.store(true, Ordering::Relaxed);
        } else {
            // A request that takes no header goes out without one.
            quiet(py, inject(py, &span, &request));
        }
    }
    span.note().due.store(by.adapter, Ordering::Relaxed);
    span.mark(Exit::Http, http::REQUESTS);
    span.set_outer(parent.as_ref());
    {
        let _entered = span.enter_call(in_force);
        call.proceed();
    }
    if !recording {
        span.unmark();
    } else if is_open(&span) {
        if let Some(error) = call.error() {
            failed(py, &span, &error);
        } else if let Some(response) = call.result() {
            answered(py, &span, &response);
        }
        span.finish();
        span.unmark();
    }
}

/// Sends a request that is excluded: urllib3 makes no span of it either. The hops after it go on counting.
#[cold]
fn unseen<'py>(
    call: &mut Call<'py>,
    in_force: Option<Span<'py>>,
    parent: Option<Span<'py>>,
    resends: u16,
    by: By,
) {
    let Some(cover) = current::stand_in(call.py(), &parent) else {
        call.proceed();
        return;
    };
    cover.set_outer(parent.as_ref());
    cover.note().sent_before.store(resends, Ordering::Relaxed);
    cover.note().due.store(by.adapter, Ordering::Relaxed);
    cover.mark(Exit::Http, http::REQUESTS);
    let _entered = cover.enter_call(in_force);
    call.proceed();
    cover.unmark();
}

#[cold]
fn url(call: &Call<'_>) -> Option<String> {
    let py = call.py();
    let request = call.argument(1, intern!(py, "request"))?;
    text(&attribute(&request, intern!(py, "url"))).map(str::to_owned)
}

fn describe(py: Python<'_>, span: &Span<'_>, request: &Bound<'_, PyAny>, resends: u16) {
    let method = attribute(request, intern!(py, "method"));
    let url = attribute(request, intern!(py, "url"));
    client::describe(span, text(&method).unwrap_or_default(), text(&url), resends);
    if let Some(headers) = CLIENT_REQUEST.capture() {
        headers.record(span, request);
    }
}

fn inject<'py>(py: Python<'py>, span: &Span<'py>, request: &Bound<'py, PyAny>) -> PyResult<()> {
    let mut headers = request.getattr(intern!(py, "headers"))?;
    if headers.is_none() {
        let Some(structures) = hook::imported(py, "requests.structures")? else { return Ok(()) };
        headers = structures.getattr(intern!(py, "CaseInsensitiveDict"))?.call0()?;
        request.setattr(intern!(py, "headers"), &headers)?;
    }
    client::inject(py, span, &headers)
}

/// Sets what the response says and ends the span: what follows under it is recorded again.
fn answered(py: Python<'_>, span: &Span<'_>, response: &Bound<'_, PyAny>) {
    let code = status_code(py, response);
    if code.is_none_or(|code| code / 100 == 3) {
        FOLLOWING.now(py, &LIBRARY);
    }
    if span.is_recording() {
        finish(py, span, response, code);
    }
    span.unmark();
    span.note().answered.store(true, Ordering::Relaxed);
}

fn finish(py: Python<'_>, span: &Span<'_>, response: &Bound<'_, PyAny>, code: Option<u16>) {
    let raw = attribute(response, intern!(py, "raw"));
    let version =
        raw.as_ref().and_then(|raw| quiet(py, attribute(raw, intern!(py, "version"))?.extract::<u16>()));
    if let Some(headers) = CLIENT_RESPONSE.capture() {
        headers.record(span, response);
    }
    let retries = match client::retries(span) {
        Some(retries) => usize::from(retries),
        None => raw.as_ref().and_then(|raw| retries(py, raw)).unwrap_or(0),
    };
    Answer { code, version: version.and_then(version_of_number), retries }.set(span);
    span.finish();
}

fn status_code(py: Python<'_>, response: &Bound<'_, PyAny>) -> Option<u16> {
    quiet(py, attribute(response, intern!(py, "status_code"))?.extract())
}

/// How often urllib3 sent the request again below us, without our hook there.
#[cold]
fn retries(py: Python<'_>, raw: &Bound<'_, PyAny>) -> Option<usize> {
    attribute(&attribute(raw, intern!(py, "retries"))?, intern!(py, "history"))
        .and_then(|history| quiet(py, history.len()))
}

#[cold]
fn failed(py: Python<'_>, span: &Span<'_>, error: &Bound<'_, PyAny>) {
    let code = attribute(error, intern!(py, "response")).and_then(|response| status_code(py, &response));
    let before = &span.note().sent_before;
    let retries = client::retries(span).unwrap_or(0);
    before.store(before.load(Ordering::Relaxed).saturating_add(retries), Ordering::Relaxed);
    client::failed(span, error, code);
}
