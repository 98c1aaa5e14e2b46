//! Reading objects of the application, which may answer with anything: whatever goes wrong there, nothing is read.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBytes, PyDict, PyList, PyString, PyTuple, PyType};

use crate::ffi::{intern, quiet, utf8};

/// An attribute; none where it is missing, is `None` or raises.
#[inline]
pub fn attribute<'py>(of: &Bound<'py, PyAny>, name: &Bound<'py, PyString>) -> Option<Bound<'py, PyAny>> {
    quiet(of.py(), of.getattr_opt(name)).flatten().filter(|value| !value.is_none())
}

/// A value's text, where it is a `str` that has UTF-8 or `bytes` that are.
#[inline]
pub fn text<'a>(value: &'a Option<Bound<'_, PyAny>>) -> Option<&'a str> {
    let value = value.as_ref()?;
    match value.cast::<PyString>() {
        Ok(text) => utf8(text),
        Err(_) => std::str::from_utf8(value.cast::<PyBytes>().ok()?.as_bytes()).ok(),
    }
}

/// A class of the application's libraries, told by its names; it is not imported.
pub struct Class {
    module: &'static str,
    name: &'static str,
    /// The first one found, kept alive: from then on an address is enough.
    found: AtomicPtr<ffi::PyObject>,
    /// The first ones found that are others, kept alive.
    others: [AtomicPtr<ffi::PyObject>; 2],
}

impl Class {
    /// The class `name` of the module that defines it.
    pub const fn new(module: &'static str, name: &'static str) -> Self {
        let found = AtomicPtr::new(ptr::null_mut());
        Self { module, name, found, others: [const { AtomicPtr::new(ptr::null_mut()) }; 2] }
    }

    /// Whether an object is of this class, and of no subclass.
    #[inline]
    pub fn is_of(&self, object: &Bound<'_, PyAny>) -> bool {
        let of = object.get_type_ptr().cast();
        self.found.load(Ordering::Relaxed) == of
            || (!self.is_other(of)
                && (self.is_named(object.get_type()) || self.is_none_of(object.get_type())))
    }

    #[inline]
    fn is_other(&self, class: *mut ffi::PyObject) -> bool {
        self.others.iter().any(|other| other.load(Ordering::Relaxed) == class)
    }

    /// False: it remembers that.
    #[cold]
    fn is_none_of(&self, class: Bound<'_, PyType>) -> bool {
        if let Some(free) = self.others.iter().find(|other| other.load(Ordering::Relaxed).is_null()) {
            // Two threads would leave one reference too many behind.
            free.store(class.into_ptr(), Ordering::Relaxed);
        }
        false
    }

    /// Whether an object is of this class or of a subclass, whatever it says itself.
    #[inline]
    pub fn is_base_of(&self, object: &Bound<'_, PyAny>) -> bool {
        let of = object.get_type_ptr();
        let found: *mut ffi::PyTypeObject = self.found.load(Ordering::Relaxed).cast();
        if !found.is_null() {
            // SAFETY: two live types.
            return found == of || unsafe { ffi::PyType_IsSubtype(of, found) } != 0;
        }
        !self.is_other(of.cast()) && self.is_among_bases(object)
    }

    #[cold]
    fn is_among_bases(&self, object: &Bound<'_, PyAny>) -> bool {
        let class = object.get_type();
        let is_it = |class: Bound<'_, PyAny>| class.cast_into().is_ok_and(|class| self.is_named(class));
        class.mro().iter().any(is_it) || self.is_none_of(class)
    }

    #[cold]
    fn is_named(&self, class: Bound<'_, PyType>) -> bool {
        let py = class.py();
        let names = [(intern!(py, "__module__"), self.module), (intern!(py, "__qualname__"), self.name)];
        let is_it = names.iter().all(|(name, wanted)| text(&attribute(&class, name)) == Some(wanted));
        if is_it && self.found.load(Ordering::Relaxed).is_null() {
            // Two threads would leave one reference too many behind.
            self.found.store(class.into_ptr(), Ordering::Relaxed);
        }
        is_it
    }
}

/// The length of a tuple, a list, a dict, or of what is derived from one, as the interpreter keeps it: a `__len__` of
/// the application's is not asked. `None` of anything else.
#[inline]
pub fn length(value: &Bound<'_, PyAny>) -> Option<usize> {
    if let Ok(tuple) = value.cast::<PyTuple>() {
        Some(tuple.len())
    } else if let Ok(list) = value.cast::<PyList>() {
        Some(list.len())
    } else {
        value.cast::<PyDict>().ok().map(|dict| dict.len())
    }
}

/// The first item of a tuple, a list, or of what is derived from one.
#[inline]
pub fn first<'py>(value: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    if let Ok(list) = value.cast::<PyList>() {
        if list.is_empty() { None } else { quiet(value.py(), list.get_item(0)) }
    } else {
        value.cast::<PyTuple>().ok()?.iter_borrowed().next().map(|item| item.to_owned())
    }
}
