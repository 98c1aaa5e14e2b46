//! A thread's end hands its chunk over, its slot serves the next thread, and what is finished after its thread locals
//! were dropped is neither lost nor put where another thread writes.

use std::cell::RefCell;
use std::thread;

use agent_core::clock;
use agent_core::span::{ActiveSpan, Parent};

mod support;

struct Late(ActiveSpan);

impl Drop for Late {
    fn drop(&mut self) {
        self.0.finish();
        support::make();
    }
}

thread_local! {
    static LATE: RefCell<Option<Late>> = const { RefCell::new(None) };
}

#[test]
fn a_thread_of_one_span_takes_the_room_of_one_span() {
    let queue = support::new_queue(1 << 24, None, 1_000_000);
    let mut large = support::started(Parent::Root(None));
    large.str("statement", &"x".repeat(10_000));
    let slot = queue.slot();
    (0..64).for_each(|_| slot.push(&large, clock::now()));
    queue.sweep();
    support::drain(queue);
    slot.push(&support::started(Parent::Root(None)), clock::now());
    slot.release();
    assert!((1..400).contains(&queue.bytes()), "{}", queue.bytes());
}

#[test]
fn nothing_of_an_ended_thread_is_lost() {
    let queue = support::install(1 << 24, None, 1_000_000);
    thread::spawn(|| support::make_many(3)).join().unwrap();
    assert_eq!(support::drain(queue).len(), 3, "handed over without a sweep");

    // Thread locals are dropped in some order: whichever comes first, all spans arrive.
    for early in [true, false] {
        thread::spawn(move || {
            if early {
                support::make();
            }
            LATE.with_borrow_mut(|late| *late = Some(Late(support::started(Parent::Root(None)))));
            if !early {
                support::make();
            }
        })
        .join()
        .unwrap();
        queue.sweep();
        assert_eq!(support::drain(queue).len(), 3);
        support::assert_adds_up(&queue.counters());
    }
    for _ in 0..1_000 {
        thread::spawn(support::make).join().unwrap();
    }
    assert_eq!(support::drain(queue).len(), 1_000);
    let counters = queue.counters();
    assert_eq!((counters.made, counters.pending), (1_009, 0));
}
