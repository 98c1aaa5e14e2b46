//! Attribute keys as small numbers.
//!
//! A [`Key`] is a static of the file that uses it. Its first use enters its name in a process-wide table; from then
//! on a record carries two bytes for it and the encoder finds the name by index. Nothing is locked, nothing freed.
//! Keys of one name share its entry. When the table is full, a key's name travels in the record, and a scope of that
//! late is named [`OTHER_SCOPE`].

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
        let used = usize::from(NEXT.load(Ordering::Acquire)).min(CAPACITY);
        let known = NAMES[..used].iter().position(|name| name.get() == Some(&self.name));
        // Two threads may both register a name: both ids then stand for it.
        let id = known.or_else(|| {
            let next = NEXT.fetch_update(Ordering::AcqRel, Ordering::Acquire, |next| {
                (usize::from(next) < CAPACITY).then_some(next + 1)
            });
            next.ok().map(usize::from).filter(|next| NAMES[*next].set(self.name).is_ok())
        });
        let id = id.and_then(|id| u16::try_from(id).ok()).unwrap_or(INLINE);
        self.id.store(id, Ordering::Release);
        id
    }
}

/// The name of a scope that the table has no room for.
pub const OTHER_SCOPE: &str = "remora";

/// The name behind the id of a scope.
#[inline]
pub(crate) fn scope_name(id: u16) -> &'static str {
    NAMES.get(usize::from(id)).and_then(OnceLock::get).copied().unwrap_or(OTHER_SCOPE)
}

/// The name behind an id that a record carries.
#[inline]
pub(crate) fn name(id: u16) -> &'static str {
    NAMES.get(usize::from(id)).and_then(OnceLock::get).copied().unwrap_or("")
}
