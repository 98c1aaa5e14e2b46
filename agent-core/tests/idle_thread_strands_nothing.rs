//! Spans of a thread that makes no more are found by the exporter's timer, and the first one wakes a dozing exporter.

use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;

mod support;

#[test]
fn a_sweep_finds_what_an_idle_thread_left() {
    let queue = support::install(1 << 20, None, 512);
    assert!(queue.doze(), "nothing was made");
    let (made, have_made) = mpsc::channel();
    let (end, wait) = mpsc::channel::<()>();
    let idle = thread::spawn(move || {
        made.send((support::make(), support::make())).unwrap();
        // Alive, and never to make another span.
        let _ = wait.recv();
    });
    let (first, second) = have_made.recv().unwrap();

    assert_eq!(support::WAKES.load(Ordering::Relaxed), 1, "once, by the first span");
    assert!(!queue.is_dozing());
    assert!(!queue.doze(), "something waits");
    assert!(queue.take().is_none(), "not handed over yet");
    queue.sweep();
    assert_eq!(support::drain(queue), [first, second]);
    support::assert_adds_up(&queue.counters());
    assert!(queue.doze());
    drop(end);
    idle.join().unwrap();
}
