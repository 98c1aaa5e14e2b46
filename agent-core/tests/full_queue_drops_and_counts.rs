//! A full queue never blocks and never grows: what does not fit is dropped and counted, what fitted is kept.

use std::sync::atomic::Ordering;

use agent_core::queue::Loss;

mod support;

#[test]
fn beyond_the_bound_of_bytes_spans_are_dropped_and_counted() {
    let queue = support::install(100_000, None, 512);
    support::make_many(100_000);
    let full = queue.counters();
    support::assert_adds_up(&full);
    assert_eq!(full.made, 100_000);
    assert!(full.lost[Loss::QueueFull as usize] > 90_000);
    assert!(queue.bytes() <= 100_000);
    // The exporter hears of it, to make room.
    assert!(support::WAKES.load(Ordering::Relaxed) > 0);

    let kept = support::drain(queue).len() as u64;
    queue.sweep();
    let partial = support::drain(queue).len() as u64;
    let drained = queue.counters();
    support::assert_adds_up(&drained);
    assert_eq!((drained.sent, drained.pending), (kept + partial, 0));
    assert_eq!(queue.bytes(), 0);

    // There is room again.
    support::make_many(64);
    assert_eq!(queue.counters().lost, full.lost);
}
