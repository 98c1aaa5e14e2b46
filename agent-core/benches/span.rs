//! A whole span, start to finish, by shape; beside each the price where the trace is not sampled.
//!
//! The queue is drained inside the measurement, as often as it takes to stay small.

use std::sync::OnceLock;

use agent_core::Key;
use agent_core::clock;
use agent_core::context::RemoteContext;
use agent_core::local::{set_queue_source, with_ids};
use agent_core::queue::{Queue, QueueOptions};
use agent_core::span::{ActiveSpan, Parent, SAMPLED, SpanKind, SpanSpec};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};

static SCOPE: Key = Key::new("remora.bench");
static KEYS: [Key; 8] = [
    Key::new("http.request.method"),
    Key::new("url.path"),
    Key::new("url.scheme"),
    Key::new("server.address"),
    Key::new("server.port"),
    Key::new("http.route"),
    Key::new("http.response.status_code"),
    Key::new("user_agent.original"),
];
const SPEC: SpanSpec = SpanSpec { name: "bench", kind: SpanKind::Server, scope: &SCOPE };
const BATCH: usize = 512;

fn queue() -> &'static Queue {
    static QUEUE: OnceLock<&'static Queue> = OnceLock::new();
    QUEUE.get_or_init(|| {
        Queue::leak(QueueOptions {
            max_bytes: 1 << 26,
            max_spans: None,
            wake_at: usize::MAX,
            wake_at_bytes: usize::MAX,
            wake: Box::new(|| {}),
        })
    })
}

fn remote(sampled: bool) -> RemoteContext {
    RemoteContext { trace_id: [7; 16], span_id: [8; 8], flags: if sampled { SAMPLED } else { 0 } }
}

/// `BATCH` spans, each what `fill` makes of it.
fn spans(bencher: Bencher, sampled: bool, fill: impl Fn(&mut ActiveSpan) + Sync) {
    let remote = remote(sampled);
    bencher.counter(ItemsCount::new(BATCH)).bench(|| {
        let mut span = ActiveSpan::new();
        for _ in 0..BATCH {
            with_ids(|ids| span.start(&SPEC, Parent::Remote(black_box(&remote), None), ids));
            fill(&mut span);
            span.finish();
        }
        while let Some(chunk) = queue().take() {
            queue().sent(chunk.len() as u64);
            queue().release(chunk);
        }
    });
}

#[divan::bench(args = [true, false], threads = [1, 2, 8])]
fn no_attribute(bencher: Bencher, sampled: bool) {
    spans(bencher, sampled, |_| {});
}

#[divan::bench(args = [true, false])]
fn eight_attributes(bencher: Bencher, sampled: bool) {
    spans(bencher, sampled, |span| {
        for key in &KEYS[..6] {
            span.str(key, black_box("some.value"));
        }
        span.int(&KEYS[6], black_box(200));
        span.str(&KEYS[7], black_box("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"));
    });
}

/// 128 attributes, as many as the limit lets in.
#[divan::bench(args = [true, false])]
fn wide(bencher: Bencher, sampled: bool) {
    spans(bencher, sampled, |span| (0..128).for_each(|i| span.int(&KEYS[i % 8], black_box(7))));
}

fn main() {
    clock::init();
    set_queue_source(|| Some(queue()));
    divan::main();
}
