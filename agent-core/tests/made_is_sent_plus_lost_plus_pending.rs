//! The counters add up at any moment: with threads that come and go, an exporter that sweeps and takes, and a queue
//! that is too small.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use agent_core::queue::Loss;

mod support;

const THREADS: usize = 4;
const ROUNDS: usize = 25;
const SPANS: usize = 400;

#[test]
fn whatever_the_threads_do() {
    let queue = support::install(60_000, None, 128);
    let done = AtomicBool::new(false);
    let sent = thread::scope(|scope| {
        let exporter = scope.spawn(|| {
            let mut sent = 0;
            while !done.load(Ordering::Acquire) {
                queue.sweep();
                if let Some(chunk) = queue.take() {
                    let spans = chunk.len() as u64;
                    queue.release(chunk);
                    if spans.is_multiple_of(2) {
                        queue.sent(spans);
                        sent += spans;
                    } else {
                        queue.lost_of_held(Loss::Rejected, spans);
                    }
                }
                thread::yield_now();
            }
            sent
        });
        for _ in 0..ROUNDS {
            thread::scope(|scope| {
                (0..THREADS).for_each(|_| {
                    scope.spawn(|| support::make_many(SPANS));
                });
            });
            // A scope ends before the thread locals of its threads do, and the exporter is still at work.
            support::assert_adds_up(&queue.counters());
        }
        done.store(true, Ordering::Release);
        exporter.join().unwrap()
    });
    let counters = queue.counters();
    assert_eq!(counters.made, (THREADS * ROUNDS * SPANS) as u64);
    assert_eq!(counters.sent, sent);
    support::assert_adds_up(&counters);
    queue.sweep();
    support::drain(queue);
    assert_eq!(queue.counters().pending, 0);
    support::assert_adds_up(&queue.counters());
}
