//! What messaging libraries share: attributes that a client's spans have in common, the spans of messages that the
//! application is working on, and those of messages on their way.
//!
//! A message is worked on from its delivery until its consumer is asked for the next one. Its span is in force by value
//! in the context that asked; nothing tells us when the application leaves its loop half-way. So it ends, whichever
//! comes first: when the same consumer is asked again in that context, or anywhere once no context holds the span any
//! more; when the consumer is closed or goes away; when [`MAX_OPEN`] newer ones are open; when the process exits.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use agent_core::fragment::Fragment;
use agent_core::redact;
use agent_core::semconv;
use agent_core::span::{ActiveSpan, SpanKind};
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyString, PyWeakrefReference};
use smallvec::SmallVec;

use crate::current::{self, Span, StoredSpan};
use crate::exception;
use crate::ffi::{self, Held, quiet};
use crate::per_process::PerProcess;

/// An operation of a library, as the conventions name it.
#[derive(Debug, PartialEq, Eq)]
pub struct Operation {
    /// `messaging.system`.
    pub system: &'static str,
    /// `messaging.operation.name`, the first word of the span's name.
    pub name: &'static str,
    /// `messaging.operation.type`.
    pub kind: &'static str,
    /// The port of a server that is named without one.
    pub default_port: u16,
}

/// What the spans of one client and one destination have in common.
#[derive(Default)]
pub struct Constants<'py> {
    /// `messaging.destination.name`; none where the span stands for several.
    pub destination: Option<Bound<'py, PyString>>,
    /// `messaging.client.id`.
    pub client: Option<Bound<'py, PyString>>,
    /// `host:port` of the first server; several are separated by commas.
    pub server: Option<Bound<'py, PyString>>,
    /// `messaging.consumer.group.name`.
    pub group: Option<Bound<'py, PyString>>,
}

struct Seen {
    operation: &'static Operation,
    texts: [Option<Py<PyString>>; 4],
    fragment: Arc<Fragment>,
}

const PLACES: usize = 256;
/// Of longer texts the object is not kept.
const MAX_KEPT: usize = 1024;

/// By the identity of the text objects, which a place keeps alive, so that no other object can have their address.
// Never held across a call into Python; contended, it is passed by.
static SEEN: Mutex<Vec<Option<Seen>>> = Mutex::new(Vec::new());

impl<'py> Constants<'py> {
    fn texts(&self) -> [Option<&Bound<'py, PyString>>; 4] {
        [self.destination.as_ref(), self.client.as_ref(), self.server.as_ref(), self.group.as_ref()]
    }

    /// Names the span and sets these attributes.
    #[inline]
    pub fn set(&self, span: &Span<'py>, operation: &'static Operation) {
        let texts = self.texts();
        let address =
            |text: &Option<&Bound<'py, PyString>>| text.map_or(0, |text| text.as_ptr() as usize >> 4);
        let place = texts.iter().fold(operation.name.len(), |sum, text| sum.wrapping_mul(31) ^ address(text));
        let place = place % PLACES;
        if let Ok(seen) = SEEN.try_lock()
            && let Some(Some(found)) = seen.get(place)
            && found.operation == operation
            && found.texts.iter().zip(texts).all(|(kept, text)| match (kept, text) {
                (Some(kept), Some(text)) => kept.is(text),
                (None, None) => true,
                _ => false,
            })
        {
            span.with(|span| span.append(&found.fragment));
            return;
        }
        self.set_new(span, operation, place);
    }

    #[cold]
    fn set_new(&self, span: &Span<'py>, operation: &'static Operation, place: usize) {
        let Some(py) = self.texts().into_iter().flatten().next().map(|text| text.py()) else {
            span.with(|span| describe(span, operation, [None; 4]));
            return;
        };
        let texts = self.texts();
        // Surrogates have no UTF-8: such a text is left out.
        let shown = texts.map(|text| text.and_then(|text| quiet(py, text.to_str())));
        let fragment = Arc::new(Fragment::new(|span| describe(span, operation, shown)));
        span.with(|span| span.append(&fragment));
        // A subclass of str may run code when it goes.
        let kept = |text: &Bound<'py, PyString>| {
            text.is_exact_instance_of::<PyString>() && text.len().is_ok_and(|length| length <= MAX_KEPT)
        };
        if !texts.into_iter().flatten().all(kept) {
            return;
        }
        let texts = texts.map(|text| text.map(|text| text.clone().unbind()));
        let fresh = Seen { operation, texts, fragment };
        let replaced = SEEN.try_lock().ok().and_then(|mut seen| {
            if seen.is_empty() {
                seen.resize_with(PLACES, || None);
            }
            seen[place].replace(fresh)
        });
        // Not by their own drop, which would wait until pyo3 is next entered by a way it knows.
        for text in replaced.into_iter().flat_map(|old| old.texts).flatten() {
            drop(text.into_bound(py));
        }
    }
}

fn describe(span: &mut ActiveSpan, operation: &Operation, texts: [Option<&str>; 4]) {
    let [destination, client, server, group] = texts.map(|text| text.filter(|text| !text.is_empty()));
    match destination {
        Some(destination) => span.name_with(|out| {
            out.extend_from_slice(operation.name.as_bytes());
            out.push(b' ');
            out.extend_from_slice(destination.as_bytes());
        }),
        None => span.static_name(operation.name),
    }
    span.str(&semconv::MESSAGING_SYSTEM, operation.system);
    span.str(&semconv::MESSAGING_OPERATION_NAME, operation.name);
    span.str(&semconv::MESSAGING_OPERATION_TYPE, operation.kind);
    if let Some(destination) = destination {
        span.str(&semconv::MESSAGING_DESTINATION_NAME, destination);
    }
    if let Some(group) = group {
        span.str(&semconv::MESSAGING_CONSUMER_GROUP_NAME, group);
    }
    if let Some(client) = client {
        span.str(&semconv::MESSAGING_CLIENT_ID, client);
    }
    let first = server.and_then(|servers| servers.split(',').next()).unwrap_or_default().trim();
    let (host, port) = redact::split_host_port(first.rsplit_once("://").map_or(first, |(_, rest)| rest));
    if !host.is_empty() {
        span.str(&semconv::SERVER_ADDRESS, host);
        span.int(&semconv::SERVER_PORT, i64::from(port.unwrap_or(operation.default_port)));
    }
}

/// Messages of one consumer that are being worked on at most: one for each thread or task that iterates over it.
const MAX_OPEN: usize = 64;
/// Consumers whose spans are followed at most; the spans of others end with the context that they are in force in.
const MAX_CONSUMERS: usize = 4096;

struct Consumer {
    /// A weak reference that tells us when the consumer goes.
    _watch: Held,
    open: Vec<Open>,
}

/// Work on a message.
struct Open {
    span: StoredSpan,
    /// The address of the exception that was being handled already when it began, or 0. Only ever compared.
    handling: usize,
}

impl Consumer {
    /// Those that no context holds any more, and the oldest of too many.
    fn take_forgotten(&mut self, py: Python<'_>, taken: &mut SmallVec<[StoredSpan; 4]>) {
        let mut at = 0;
        while at < self.open.len() {
            if self.open[at].span.is_shared(py) && self.open.len() < MAX_OPEN {
                at += 1;
            } else {
                taken.push(self.open.remove(at).span);
            }
        }
    }
}

/// By the consumer's address.
// Never held across a call into Python; contended (a fork without the GIL), nothing is followed. A span dropped under it
// runs no Python code.
static CONSUMERS: Mutex<Option<HashMap<usize, Consumer>>> = Mutex::new(None);

fn with_consumers<R>(work: impl FnOnce(&mut HashMap<usize, Consumer>) -> R) -> Option<R> {
    Some(work(CONSUMERS.try_lock().ok()?.get_or_insert_default()))
}

/// Called when a consumer has gone.
#[pyclass(frozen, module = "remora._native")]
struct Gone {
    consumer: usize,
}

#[pymethods]
impl Gone {
    fn __call__(&self, reference: &Bound<'_, PyAny>) {
        // Whatever is being handled while the collector runs has nothing to do with a message.
        end_all(reference.py(), self.consumer);
    }
}

/// Whether the span of a message has ever been put in force.
static OPENED: AtomicBool = AtomicBool::new(false);

/// Whether one may have been left in force somewhere.
#[inline]
pub fn has_opened() -> bool {
    OPENED.load(Ordering::Relaxed)
}

/// Puts a message's span in force, from now until its consumer is asked for the next one.
pub fn open<'py>(consumer: &Bound<'py, PyAny>, span: Span<'py>, outer: Option<&Span<'py>>) {
    let py = consumer.py();
    let address = consumer.as_ptr() as usize;
    span.note().subject.store(address, Ordering::Relaxed);
    span.set_outer(outer);
    OPENED.store(true, Ordering::Relaxed);
    current::set(py, Some(&span));
    if !span.is_recording() {
        return;
    }
    let room = with_consumers(|all| all.contains_key(&address) || all.len() < MAX_CONSUMERS);
    if room != Some(true) {
        return;
    }
    let watch = if with_consumers(|all| all.contains_key(&address)) == Some(true) {
        None
    } else {
        let gone = Bound::new(py, Gone { consumer: address });
        let watch = gone.and_then(|gone| PyWeakrefReference::new_with(consumer, gone));
        quiet(py, watch).map(|watch| Held::new(watch.as_any()))
    };
    let handling = ffi::handled(py).map_or(0, |error| error.as_ptr() as usize);
    let mut ended: SmallVec<[StoredSpan; 4]> = SmallVec::new();
    with_consumers(|all| {
        let entry = match (all.entry(address), watch) {
            (std::collections::hash_map::Entry::Occupied(entry), _) => entry.into_mut(),
            (std::collections::hash_map::Entry::Vacant(entry), Some(watch)) => {
                entry.insert(Consumer { _watch: watch, open: Vec::new() })
            }
            _ => return,
        };
        entry.take_forgotten(py, &mut ended);
        entry.open.push(Open { span: span.store(), handling });
    });
    ended.iter().for_each(|span| span.get(py).finish());
}

/// Whether it stands for a message's work, and if so the address of the consumer that gave the message.
fn consumer_of(span: &Span<'_>) -> Option<usize> {
    let subject = span.note().subject.load(Ordering::Relaxed);
    (subject != 0 && span.with(|span| span.kind) == Some(SpanKind::Consumer)).then_some(subject)
}

/// Ends the work on the message that this consumer gave last in this context, and on messages of other consumers within
/// it; what was in force outside is in force again. Work that ended elsewhere is no longer in force either.
pub fn leave(py: Python<'_>, consumer: usize) {
    let mut inner: SmallVec<[Span<'_>; 2]> = SmallVec::new();
    let (mut left, mut all_over) = (0, true);
    let mut at = current::current(py);
    while let Some(span) = at {
        let Some(of) = consumer_of(&span) else { break };
        all_over &= span.is_sampled() && !span.is_recording();
        at = span.outer();
        inner.push(span);
        if of == consumer || all_over {
            left = inner.len();
        }
        if of == consumer {
            break;
        }
    }
    let Some(last) = left.checked_sub(1) else {
        end_forgotten(py, consumer);
        return;
    };
    inner.truncate(left);
    current::set(py, inner[last].outer().as_ref());
    for span in &inner {
        span.finish();
        let Some(of) = consumer_of(span) else { continue };
        let ended = with_consumers(|all| {
            let open = &mut all.get_mut(&of)?.open;
            open.iter().position(|one| one.span.holds(span)).map(|at| open.remove(at))
        });
        drop(ended);
    }
}

/// Ends the work on messages that were asked for in contexts which are gone: in an executor's thread.
#[cold]
fn end_forgotten(py: Python<'_>, consumer: usize) {
    let mut ended: SmallVec<[StoredSpan; 4]> = SmallVec::new();
    with_consumers(|all| all.get_mut(&consumer).map(|entry| entry.take_forgotten(py, &mut ended)));
    ended.iter().for_each(|span| span.get(py).finish());
}

/// What the work on a message in this context came to, where an exception is being handled that was not when it began.
#[cold]
fn set_failure(py: Python<'_>, error: &Bound<'_, PyAny>) {
    let Some(span) = current::current(py) else { return };
    let Some(consumer) = consumer_of(&span) else { return };
    let new = with_consumers(|all| {
        let open = all.get(&consumer)?.open.iter().find(|open| open.span.holds(&span))?;
        Some(open.handling != error.as_ptr() as usize)
    });
    if new == Some(Some(true)) && !exception::is_cancellation(error) {
        let type_name = exception::type_name(error);
        span.with(|span| exception::set_error(span, &type_name, ""));
    }
}

/// A consumer is closed: it gives no more messages.
pub fn close(py: Python<'_>, consumer: usize) {
    // In a `finally` or a `with`, or where the exception that ended the loop has been caught.
    if let Some(error) = ffi::handled(py) {
        set_failure(py, &error);
    }
    end_all(py, consumer);
}

/// Ends the work on all messages of a consumer, in whatever context.
fn end_all(py: Python<'_>, consumer: usize) {
    leave(py, consumer);
    if let Some(Some(gone)) = with_consumers(|all| all.remove(&consumer)) {
        gone.open.iter().for_each(|open| open.span.get(py).finish());
    }
}

/// Messages that wait for their delivery at most.
const MAX_WAITING: usize = 16 * 1024;

/// Spans of messages on their way to a server.
struct Waiting {
    /// Of the newest: every span has a stamp of its own, for places are used again.
    stamp: u64,
    places: Vec<(u64, Option<StoredSpan>)>,
    free: Vec<usize>,
}

impl Waiting {
    /// A span dropped here runs no Python code.
    fn forget(&mut self) {
        self.places.clear();
        self.free.clear();
    }
}

static WAITING: PerProcess<Waiting> =
    PerProcess::new(Waiting { stamp: 0, places: Vec::new(), free: Vec::new() }, Waiting::forget);

/// Where a span waits.
pub struct Place {
    at: usize,
    stamp: u64,
}

/// Lets a span wait for its message's delivery. `None` where too many wait.
pub fn wait(span: StoredSpan) -> Option<Place> {
    WAITING
        .with(|waiting| {
            let at = match waiting.free.pop() {
                Some(at) => at,
                None if waiting.places.len() < MAX_WAITING => {
                    waiting.places.push((0, None));
                    waiting.places.len() - 1
                }
                None => return None,
            };
            waiting.stamp += 1;
            let stamp = waiting.stamp;
            *waiting.places.get_mut(at)? = (stamp, Some(span));
            Some(Place { at, stamp })
        })
        .flatten()
}

/// The span that waits there, once.
pub fn waited(place: &Place) -> Option<StoredSpan> {
    WAITING
        .with(|waiting| {
            let (_, span) = waiting.places.get_mut(place.at).filter(|(stamp, _)| *stamp == place.stamp)?;
            let span = span.take()?;
            waiting.free.push(place.at);
            Some(span)
        })
        .flatten()
}

/// Ends what is still open or on its way, at the exit of the process.
pub fn close_all(py: Python<'_>) {
    if let Some(error) = exception::last(py) {
        set_failure(py, &error);
    }
    let all = with_consumers(std::mem::take).unwrap_or_default();
    all.values().flat_map(|consumer| &consumer.open).for_each(|open| open.span.get(py).finish());
    let waiting = WAITING.with(|waiting| {
        waiting.free.clear();
        std::mem::take(&mut waiting.places)
    });
    let waiting = waiting.unwrap_or_default();
    waiting.iter().filter_map(|(_, span)| span.as_ref()).for_each(|span| span.get(py).finish());
}
