//! A queue for the tests of one file, and spans to put into it.
#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses its part")]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use agent_core::Key;
use agent_core::id::SpanId;
use agent_core::local::{set_queue_source, with_ids};
use agent_core::queue::{Counters, Queue, QueueOptions};
use agent_core::span::{ActiveSpan, Parent, SpanKind, SpanSpec};

pub static SCOPE: Key = Key::new("remora.test");
pub const SPEC: SpanSpec = SpanSpec { name: "test", kind: SpanKind::Internal, scope: &SCOPE };
pub static WAKES: AtomicUsize = AtomicUsize::new(0);

/// A queue that counts its calls for the exporter in [`WAKES`].
pub fn new_queue(max_bytes: usize, max_spans: Option<usize>, wake_at: usize) -> &'static Queue {
    Queue::leak(QueueOptions {
        max_bytes,
        max_spans,
        wake_at,
        wake_at_bytes: usize::MAX,
        wake: Box::new(|| {
            WAKES.fetch_add(1, Ordering::Relaxed);
        }),
    })
}

/// Makes one queue the queue of this test process.
pub fn install(max_bytes: usize, max_spans: Option<usize>, wake_at: usize) -> &'static Queue {
    static QUEUE: OnceLock<&'static Queue> = OnceLock::new();
    set_queue_source(|| QUEUE.get().copied());
    QUEUE.get_or_init(|| new_queue(max_bytes, max_spans, wake_at))
}

pub fn started(parent: Parent<'_>) -> ActiveSpan {
    let mut span = ActiveSpan::new();
    with_ids(|ids| span.start(&SPEC, parent, ids));
    span
}

/// One whole span.
pub fn make() -> SpanId {
    let mut span = started(Parent::Root(None));
    span.finish();
    span.span_id
}

pub fn make_many(count: usize) {
    for _ in 0..count {
        make();
    }
}

/// Takes what was handed over, as sent; returns the spans' ids.
pub fn drain(queue: &Queue) -> Vec<SpanId> {
    let mut ids = Vec::new();
    while let Some(chunk) = queue.take() {
        ids.extend(chunk.iter().map(|span| span.span.span_id));
        queue.sent(chunk.len() as u64);
        queue.release(chunk);
    }
    ids
}

pub fn assert_adds_up(counters: &Counters) {
    let lost: u64 = counters.lost.iter().sum();
    assert_eq!(counters.made, counters.sent + lost + counters.pending, "{counters:?}");
}
