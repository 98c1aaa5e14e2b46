//! What hooks in several threads share, in one process.

use std::hint;
use std::sync::{Mutex, TryLockError};

use agent_core::generation;

/// A value behind a lock that is never waited for long. A child of a fork begins with one that has forgotten what was
/// its parent's.
///
/// Never call into Python inside [`Self::with`].
pub struct PerProcess<T> {
    state: Mutex<State<T>>,
    forget: fn(&mut T),
}

struct State<T> {
    generation: u32,
    value: T,
}

impl<T> PerProcess<T> {
    /// `forget` empties the value of what ends in the parent. It must run no Python code.
    pub const fn new(value: T, forget: fn(&mut T)) -> Self {
        Self { state: Mutex::new(State { generation: 0, value }), forget }
    }

    /// `None` where a fork inherited the lock taken, or without the GIL where others hold it for long.
    pub fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> Option<R> {
        let mut state = (0..1000).find_map(|_| match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(_) | TryLockError::WouldBlock) => {
                hint::spin_loop();
                None
            }
        })?;
        if state.generation != generation::current() {
            (self.forget)(&mut state.value);
            state.generation = generation::current();
        }
        Some(work(&mut state.value))
    }
}
