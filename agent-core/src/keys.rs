//! Names known at compile time: attributes, events, scopes.
//!
//! A [`Key`] is a static of the file that uses it. A scope is also a small number: its first use enters its name in a
//! process-wide table, and the exporter finds it by index. Nothing is locked, nothing freed. Keys of one name share
//! its entry. When the table is full, a scope is named [`OTHER_SCOPE`].

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

const CAPACITY: usize = 256;
static NAMES: [OnceLock<&'static str>; CAPACITY] = [const { OnceLock::new() }; CAPACITY];
static NEXT: AtomicU16 = AtomicU16::new(1);

/// The id of a scope that does not fit the table.
const OTHER: u16 = u16::MAX;

/// The name of an attribute, an event or a scope.
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

    /// The name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Its number as a scope.
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
        // Two threads may both enter a name: both ids then stand for it.
        let id = known.or_else(|| {
            let next = NEXT.fetch_update(Ordering::AcqRel, Ordering::Acquire, |next| {
                (usize::from(next) < CAPACITY).then_some(next + 1)
            });
            next.ok().map(usize::from).filter(|next| NAMES[*next].set(self.name).is_ok())
        });
        let id = id.and_then(|id| u16::try_from(id).ok()).unwrap_or(OTHER);
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
