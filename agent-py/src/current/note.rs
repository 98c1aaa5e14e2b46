//! What a span object carries beside its span.

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU16, AtomicU64, AtomicUsize};

use super::span::SpanObject;

/// What hooks of one library tell each other through the span that is in force.
#[derive(Debug)]
pub struct Note {
    /// The address of what a server span serves (a WSGI stream, a part of an ASGI scope), so that an inner
    /// layer of the same request can tell; 0 where there is none.
    pub subject: AtomicUsize,
    /// The address of a WSGI request's `environ`, which counts beside the stream's; 0 where there is none.
    pub environ: AtomicUsize,
    /// The response's status code, or 0.
    pub status: AtomicU16,
    /// The ordinal of the next request that is sent again because of this one's answer (a redirect), or 0.
    pub resends: AtomicU16,
    /// How often the same request was sent before this one.
    pub sent_before: AtomicU16,
    /// How often it was sent again because of its answer (authentication).
    pub round_trips: AtomicU16,
    /// How often a layer further in has begun to send it.
    pub attempts: AtomicU16,
    /// Whether the response's head is there.
    pub answered: AtomicBool,
    /// When the response was complete, an error, before the call's end, in the span clock's ticks; or 0.
    pub completed: AtomicU64,
    /// Whether the body is still to be made.
    pub streamed: AtomicBool,
    /// Whether trailers follow the body.
    pub trailers: AtomicBool,
    /// Whether the body comes in more than one message.
    pub pieces: AtomicBool,
    /// Whether an exception is recorded.
    pub failed: AtomicBool,
    /// Whether `http.route` is set.
    pub routed: AtomicBool,
    /// Whether `http.route` holds where an inner application is mounted, its own route to follow.
    pub mounted: AtomicBool,
    /// Whether its application is known to be mounted nowhere.
    pub rootless: AtomicBool,
    /// Whether the server's name is set, which an inner layer may know better.
    pub addressed: AtomicBool,
    /// Whether a database's name is set, or is known to have none.
    pub named: AtomicBool,
    /// Whether the peer's address is set.
    pub peered: AtomicBool,
    /// Whether a server's hook made it, so that a framework's may take it over.
    pub bare: AtomicBool,
    /// Whether the headers that carry it are left to a layer further in.
    pub pending: AtomicBool,
    /// Whether a layer further in is to send it: what that sends next is this very request.
    pub due: AtomicBool,
    /// Whether something was answered by a cache of the client's own.
    pub cached: AtomicBool,
    /// Whether something was sent, where a cache might have answered.
    pub sent: AtomicBool,
    pub(super) outer: AtomicPtr<SpanObject>,
    pub(super) within: AtomicPtr<SpanObject>,
}

impl Note {
    pub(super) const fn new() -> Self {
        Self {
            subject: AtomicUsize::new(0),
            environ: AtomicUsize::new(0),
            status: AtomicU16::new(0),
            resends: AtomicU16::new(0),
            sent_before: AtomicU16::new(0),
            round_trips: AtomicU16::new(0),
            attempts: AtomicU16::new(0),
            answered: AtomicBool::new(false),
            completed: AtomicU64::new(0),
            streamed: AtomicBool::new(false),
            trailers: AtomicBool::new(false),
            pieces: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            routed: AtomicBool::new(false),
            mounted: AtomicBool::new(false),
            rootless: AtomicBool::new(false),
            addressed: AtomicBool::new(false),
            named: AtomicBool::new(false),
            peered: AtomicBool::new(false),
            bare: AtomicBool::new(false),
            pending: AtomicBool::new(false),
            due: AtomicBool::new(false),
            cached: AtomicBool::new(false),
            sent: AtomicBool::new(false),
            outer: AtomicPtr::new(ptr::null_mut()),
            within: AtomicPtr::new(ptr::null_mut()),
        }
    }
}
