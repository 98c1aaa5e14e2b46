//! A finished span's way into its chunk and out of the queue.

use agent_core::Key;
use agent_core::clock;
use agent_core::local::with_ids;
use agent_core::queue::{Queue, QueueOptions};
use agent_core::span::{ActiveSpan, Parent, SpanKind, SpanSpec};
use divan::Bencher;
use divan::counter::ItemsCount;

static SCOPE: Key = Key::new("remora.bench");
const SPEC: SpanSpec = SpanSpec { name: "bench", kind: SpanKind::Internal, scope: &SCOPE };

fn queue(max_bytes: usize) -> &'static Queue {
    Queue::leak(QueueOptions {
        max_bytes,
        max_spans: None,
        wake_at: usize::MAX,
        wake_at_bytes: usize::MAX,
        wake: Box::new(|| {}),
    })
}

fn span() -> ActiveSpan {
    let mut span = ActiveSpan::new();
    with_ids(|ids| span.start(&SPEC, Parent::Root(None), ids));
    span
}

fn drain(queue: &Queue) {
    while let Some(chunk) = queue.take() {
        queue.sent(chunk.len() as u64);
        queue.release(chunk);
    }
}

/// 64 spans, handed over as one chunk and taken.
#[divan::bench(sample_size = 100)]
fn chunk_there_and_back(bencher: Bencher) {
    let (queue, span, end) = (queue(1 << 26), span(), clock::now());
    let slot = queue.slot();
    bencher.counter(ItemsCount::new(64_usize)).bench_local(|| {
        (0..64).for_each(|_| slot.push(&span, end));
        drain(queue);
    });
}

/// The same where nothing fits: a full queue must not cost more than one with room.
#[divan::bench(sample_size = 100)]
fn chunk_dropped(bencher: Bencher) {
    let (queue, span, end) = (queue(0), span(), clock::now());
    let slot = queue.slot();
    bencher.counter(ItemsCount::new(64_usize)).bench_local(|| {
        (0..64).for_each(|_| slot.push(&span, end));
    });
}

#[divan::bench(args = [1, 64, 1024], sample_size = 100)]
fn sweep_of_idle_threads(bencher: Bencher, threads: usize) {
    let queue = queue(1 << 26);
    let _slots: Vec<_> = (0..threads).map(|_| queue.slot()).collect();
    bencher.bench_local(|| queue.sweep());
}

fn main() {
    clock::init();
    divan::main();
}
