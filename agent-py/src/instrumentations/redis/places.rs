//! Things seen before, by the identity of the object that stands for them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyAny;

const PLACES: usize = 256;

/// The places. The lock is never held across a call into Python.
#[inline]
pub fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts `fresh` into its place. What was there is the caller's to give up, attached and without the lock.
pub fn put<T>(places: &Mutex<Vec<Option<T>>>, place: usize, fresh: T) -> Option<T> {
    let mut all = locked(places);
    if all.is_empty() {
        all.resize_with(PLACES, || None);
    }
    all.get_mut(place)?.replace(fresh)
}

/// Where what is known of an object lies.
#[inline]
pub fn place_of(object: &Bound<'_, PyAny>, more: usize) -> usize {
    ((object.as_ptr() as usize >> 4) + more * 37) % PLACES
}
