//! The exchange of a chunk and the doze protocol under loom: every order of their steps, and every value that the
//! memory model lets a load see. The model is of `src/exchange.rs` itself, compiled here with loom's atomics.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p agent-core --test loom_exchange --release`
#![cfg(loom)]

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicBool, Ordering, fence};

    /// loom lets a plain store slip between the two halves of another thread's exchange, which no processor and no
    /// memory model does: here a store is an exchange too.
    pub(crate) struct AtomicPtr<T>(loom::sync::atomic::AtomicPtr<T>);

    impl<T> AtomicPtr<T> {
        pub(crate) fn new(value: *mut T) -> Self {
            Self(loom::sync::atomic::AtomicPtr::new(value))
        }

        pub(crate) fn swap(&self, value: *mut T, order: Ordering) -> *mut T {
            self.0.swap(value, order)
        }

        pub(crate) fn store(&self, value: *mut T, order: Ordering) {
            assert!(self.0.swap(value, order).is_null(), "a chunk was overwritten");
        }
    }
}

#[path = "../src/exchange.rs"]
mod exchange;

use exchange::{Doze, Exchange};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

/// What a thread does with each finished span, after [`agent_core::queue::Slot::push`].
fn push(slot: &Exchange<Vec<u32>>, span: u32) -> bool {
    let taken = slot.take();
    let begun = taken.is_none();
    let mut chunk = taken.unwrap_or_default();
    chunk.push(span);
    slot.put(chunk);
    begun
}

#[test]
fn each_span_is_taken_once_and_in_order() {
    loom::model(|| {
        let slot = Arc::new(Exchange::new());
        let exporter = {
            let slot = slot.clone();
            thread::spawn(move || [slot.take(), slot.take()].into_iter().flatten().flat_map(|c| *c).collect())
        };
        (1..=3).for_each(|span| {
            push(&slot, span);
        });
        let mut seen: Vec<u32> = exporter.join().unwrap();
        // The thread ends.
        seen.extend(slot.take().into_iter().flat_map(|chunk| *chunk));
        assert_eq!(seen, [1, 2, 3]);
    });
}

#[test]
fn a_dozing_exporter_is_woken_by_the_first_span() {
    loom::model(|| {
        let slot = Arc::new(Exchange::new());
        let doze = Arc::new(Doze::new());
        let (made, taken, wakes) =
            (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let worker = {
            let (slot, doze, made, wakes) = (slot.clone(), doze.clone(), made.clone(), wakes.clone());
            thread::spawn(move || {
                for span in 1..=2 {
                    let taken = slot.take();
                    let begun = taken.is_none();
                    let mut chunk: Box<Vec<u32>> = taken.unwrap_or_default();
                    chunk.push(span);
                    made.store(made.load(Ordering::Relaxed) + 1, Ordering::Release);
                    slot.put(chunk);
                    if begun && doze.added() {
                        wakes.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        };
        if let Some(chunk) = slot.take() {
            taken.fetch_add(chunk.len(), Ordering::AcqRel);
        }
        let asleep =
            doze.doze(|| made.load(Ordering::Acquire).saturating_sub(taken.load(Ordering::Acquire)) == 0);
        worker.join().unwrap();
        let left = made.load(Ordering::Acquire) - taken.load(Ordering::Acquire);
        assert_eq!(left, slot.take().map_or(0, |chunk| chunk.len()));
        // Whoever sleeps while something waits was woken; nobody is woken twice for one sleep.
        let wakes = wakes.load(Ordering::Relaxed);
        assert!(wakes <= 1);
        assert!(wakes == 1 || !asleep || left == 0, "{left} spans wait for a sleeper");
        assert_eq!(doze.is_dozing(), asleep && wakes == 0);
    });
}
