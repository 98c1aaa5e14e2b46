//! Two agreements between the thread that fills a chunk and the one that empties it: who holds the chunk
//! ([`Exchange`]), and who has to wake whom ([`Doze`]).
//!
//! Nothing here locks or waits. `tests/loom_exchange.rs` compiles this file with loom's atomics and tries every
//! order of its steps.
#![expect(unsafe_code, reason = "a box owned through an atomic pointer")]

use std::ptr;

use crate::sync::{AtomicBool, AtomicPtr, Ordering, fence};

/// A place for one box. Whoever takes it owns it until it is put back.
pub(crate) struct Exchange<T>(AtomicPtr<T>);

impl<T> Exchange<T> {
    pub(crate) fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// What lies here. None: nothing, or another thread has it at this moment.
    #[inline]
    pub(crate) fn take(&self) -> Option<Box<T>> {
        let taken = self.0.swap(ptr::null_mut(), Ordering::Acquire);
        // SAFETY: a non-null pointer came out of a box in `put`, and the swap made it ours alone.
        (!taken.is_null()).then(|| unsafe { Box::from_raw(taken) })
    }

    /// Puts a box here, where nothing lies: called by the one thread that fills it, after its own [`Self::take`].
    /// What another call may have put meanwhile is leaked, never freed twice.
    #[inline]
    pub(crate) fn put(&self, value: Box<T>) {
        self.0.store(Box::into_raw(value), Ordering::Release);
    }
}

/// Whether the emptying thread sleeps without a timer and wants to hear of the next thing to do.
pub(crate) struct Doze(AtomicBool);

impl Doze {
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// The emptying thread goes to sleep, unless `is_empty` says no. True: whoever adds something next wakes it.
    pub(crate) fn doze(&self, is_empty: impl FnOnce() -> bool) -> bool {
        self.0.store(true, Ordering::Relaxed);
        // Pairs with the fence in `added`: either we see what was added, or its thread sees us dozing.
        fence(Ordering::SeqCst);
        let empty = is_empty();
        if !empty {
            self.rouse();
        }
        empty
    }

    /// Something was added and can be seen. True for one caller per sleep: it has to wake the sleeper.
    #[inline]
    pub(crate) fn added(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::AcqRel)
    }

    /// The emptying thread is at work again.
    pub(crate) fn rouse(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether the next addition has to wake it.
    pub(crate) fn is_dozing(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
