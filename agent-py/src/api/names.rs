//! Names of spans that last as long as the process, so that a span need not copy them.

use std::collections::HashSet;
use std::sync::Mutex;

/// Distinct names kept; decorated functions that a program keeps making must not grow memory for ever.
const MAX_NAMES: usize = 4096;
/// A longer name is not kept.
const MAX_BYTES: usize = 256;

// Held for a look-up only, never across a call into Python.
static NAMES: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);

/// The kept text that is equal to `name`; `None` where it does not fit: such a name is copied into each span.
pub fn intern(name: &str) -> Option<&'static str> {
    if name.len() > MAX_BYTES {
        return None;
    }
    // Without the GIL a moment's contention, or a fork that inherited the lock taken: copied then.
    let mut names = NAMES.try_lock().ok()?;
    let names = names.get_or_insert_default();
    if let Some(kept) = names.get(name) {
        return Some(kept);
    }
    if names.len() >= MAX_NAMES {
        return None;
    }
    let kept: &'static str = Box::leak(name.into());
    names.insert(kept);
    Some(kept)
}
