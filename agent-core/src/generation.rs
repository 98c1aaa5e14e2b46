//! Which side of a fork we are on.
//!
//! A `pthread_atfork` child handler calls [`bump`]; everything that must not be shared with the parent (ids,
//! chunks, pipeline) remembers the generation it was made in and compares it with [`current`]: one relaxed load.
//! No lock is taken around a fork, so none can be inherited locked.

use std::sync::atomic::{AtomicU32, Ordering};

static GENERATION: AtomicU32 = AtomicU32::new(1);

/// The generation of this process: 1 until the first fork, one more in every child. Never 0.
#[inline]
pub fn current() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// Begins a new generation. Async-signal-safe: one atomic add.
pub fn bump() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}
