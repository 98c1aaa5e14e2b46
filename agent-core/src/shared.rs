//! Pieces of records that very many spans have in common: written once for the life of the process, and named in each
//! record by a number.
//!
//! A span of a statement that runs all the time then writes some bytes instead of some hundreds, and the exporter finds
//! the rest where it found it for the span before. Nothing is locked, nothing freed: what is kept is bounded, and what
//! comes later is copied.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

const PLACES: usize = 1024;
/// Bytes kept at most.
const MAX_BYTES: usize = 512 * 1024;
/// Nothing longer is kept: of a long text copying is the lesser part of what it costs.
const LONGEST: usize = 4 * 1024;

static KEPT: [OnceLock<&'static [u8]>; PLACES] = [const { OnceLock::new() }; PLACES];
static NEXT: AtomicU16 = AtomicU16::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

/// Keeps a copy of `piece`, or finds the one kept before. `None`: it is too long, or there is no room left.
#[cold]
pub(crate) fn keep(piece: &[u8]) -> Option<u16> {
    if piece.len() > LONGEST {
        return None;
    }
    let used = usize::from(NEXT.load(Ordering::Acquire));
    if let Some(known) = KEPT[..used].iter().position(|kept| kept.get() == Some(&piece)) {
        return u16::try_from(known).ok();
    }
    let room = |bytes: usize| Some(bytes + piece.len()).filter(|bytes| *bytes <= MAX_BYTES);
    BYTES.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).ok()?;
    // Two threads may both keep a piece: both numbers then stand for it.
    let free = |next: u16| (usize::from(next) < PLACES).then_some(next + 1);
    let number = NEXT.fetch_update(Ordering::AcqRel, Ordering::Acquire, free).ok()?;
    KEPT[usize::from(number)].set(Box::leak(piece.into())).ok().map(|()| number)
}

/// The piece of that number.
#[inline]
pub(crate) fn piece(number: u16) -> Option<&'static [u8]> {
    KEPT.get(usize::from(number)).and_then(OnceLock::get).copied()
}
