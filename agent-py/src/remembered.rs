//! What is known of objects of the application (a connection, an engine) without keeping them alive.
//!
//! A place is found by the object's address; that the object there is still the same one, a weak reference shows.

use std::sync::Mutex;

use pyo3::prelude::*;
use pyo3::types::{PyAny, PyWeakrefMethods, PyWeakrefReference};

use crate::ffi::quiet;

/// Some values by the identity of an object. Two objects that fall on one place take turns.
// The lock is never held across a call into Python that could run code; contended, it is passed by.
pub struct Remembered<T: 'static> {
    places: Mutex<Vec<Option<Place<T>>>>,
}

struct Place<T> {
    address: usize,
    object: Py<PyWeakrefReference>,
    value: T,
}

const PLACES: usize = 512;

impl<T: Clone> Remembered<T> {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self { places: Mutex::new(Vec::new()) }
    }

    /// Lets `work` see what is known of `object`; else what `read` finds out, which is kept if it finds anything. `work`
    /// may run under the lock: it calls no Python.
    #[inline]
    pub fn with<R>(
        &self,
        object: &Bound<'_, PyAny>,
        read: impl FnOnce() -> Option<T>,
        work: impl FnOnce(&T) -> R,
    ) -> Option<R> {
        let address = object.as_ptr() as usize;
        let place = place_of(address);
        if let Ok(places) = self.places.try_lock()
            && let Some(Some(found)) = places.get(place)
            && found.address == address
            // What is alive at this address is `object`; a reference to what was there before is dead.
            && found.object.bind(object.py()).upgrade().is_some()
        {
            return Some(work(&found.value));
        }
        let value = read()?;
        let result = work(&value);
        self.keep(object, place, value);
        Some(result)
    }

    /// A copy of it.
    pub fn get(&self, object: &Bound<'_, PyAny>, read: impl FnOnce() -> Option<T>) -> Option<T> {
        self.with(object, read, T::clone)
    }

    /// Keeps it in the place of what was known.
    pub fn set(&self, object: &Bound<'_, PyAny>, value: T) {
        self.keep(object, place_of(object.as_ptr() as usize), value);
    }

    #[cold]
    fn keep(&self, object: &Bound<'_, PyAny>, place: usize, value: T) {
        let py = object.py();
        let Some(reference) = quiet(py, PyWeakrefReference::new(object)) else { return };
        let fresh = Place { address: object.as_ptr() as usize, object: reference.unbind(), value };
        let replaced = self.places.try_lock().ok().and_then(|mut places| {
            if places.is_empty() {
                places.resize_with(PLACES, || None);
            }
            places[place].replace(fresh)
        });
        // Not by its own drop, which would wait until pyo3 is next entered by a way it knows.
        drop(replaced.map(|old| old.object.into_bound(py)));
    }
}

#[inline]
fn place_of(address: usize) -> usize {
    (address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) % PLACES
}
