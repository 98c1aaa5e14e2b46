//! `OTEL_BSP_MAX_QUEUE_SIZE` binds where it is set, however small, and `wake_at` wakes once for each mark passed.

use std::sync::Mutex;
use std::sync::atomic::Ordering;

use agent_core::clock;
use agent_core::queue::Loss;
use agent_core::span::Parent;

mod support;

/// Both tests wake one and the same exporter.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn a_bound_of_one_span_keeps_one_span() {
    let _alone = ALONE.lock();
    let queue = support::new_queue(1 << 20, Some(1), 512);
    let slot = queue.slot();
    for _ in 0..10 {
        slot.push(&support::started(Parent::Root(None)), clock::now());
    }
    let counters = queue.counters();
    support::assert_adds_up(&counters);
    assert_eq!((queue.queued(), counters.lost[Loss::QueueFull as usize]), (1, 9));
}

#[test]
fn each_mark_wakes_once() {
    let _alone = ALONE.lock();
    let queue = support::install(1 << 24, Some(100_000), 256);
    let before = support::WAKES.load(Ordering::Relaxed);
    support::make_many(255);
    let queued = queue.queued();
    assert!(queued < 256);
    assert_eq!(support::WAKES.load(Ordering::Relaxed), before);
    support::make_many(256 * 3 + 1);
    assert_eq!(queue.queued(), 256 * 4);
    assert_eq!(support::WAKES.load(Ordering::Relaxed), before + 4);
}
