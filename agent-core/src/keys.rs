//! Attribute keys as small numbers.
//!
//! A [`Key`] is a static of the file that uses it. Its first use enters its name in a process-wide table; from then
//! on a record carries two bytes for it and the encoder finds the name by index. Nothing is locked, nothing freed.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

const CAPACITY: usize = 1024;
static NAMES: [OnceLock<&'static str>; CAPACITY] = [const { OnceLock::new() }; CAPACITY];
static NEXT: AtomicU16 = AtomicU16::new(1);

/// The id of a key that does not fit the table: its name travels in the record.
pub(crate) const INLINE: u16 = u16::MAX;

/// An attribute or event name known at compile time.
#[derive(Debug)]
pub struct Key {
    name: &'static str,
    id: AtomicU16,
}

impl Key {
    /// A key, to be kept in a `static`.
    pub const fn new(name: &'static str) -> Self {
        Self { name, id: AtomicU16::new(0) }
    }

    /// The attribute's name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    #[inline]
    pub(crate) fn id(&self) -> u16 {
        match self.id.load(Ordering::Relaxed) {
            0 => self.register(),
            id => id,
        }
    }

    #[cold]
    fn register(&self) -> u16 {
        // Two threads may both register: both ids then name the same key.
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = match NAMES.get(usize::from(id)) {
            Some(slot) if slot.set(self.name).is_ok() => id,
            _ => INLINE,
        };
        self.id.store(id, Ordering::Release);
        id
    }
}

/// The name behind an id that a record carries.
#[inline]
pub(crate) fn name(id: u16) -> &'static str {
    NAMES.get(usize::from(id)).and_then(OnceLock::get).copied().unwrap_or("")
}
