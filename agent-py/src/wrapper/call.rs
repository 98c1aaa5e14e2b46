//! One call of a wrapped callable, as a hook sees it.
//!
//! A hook works around [`Call::proceed`]. Whatever it does, the original runs exactly once and its result or its
//! exception, the same object, goes back to the application: after a fault before `proceed` the slot calls the
//! original itself, after a fault behind it the outcome is already kept here.

use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyString, PyTuple};

use super::function::Wrapper;
use crate::breaker::Breaker;
use crate::current::Span;
use crate::ffi::{Raised, give_up, vectorcall};

/// Why a hook gave up. Counted by the circuit breaker, never raised.
#[derive(Debug)]
pub struct Fault(Box<PyErr>);

impl From<PyErr> for Fault {
    #[cold]
    fn from(error: PyErr) -> Self {
        Self(Box::new(error))
    }
}

impl<'a, 'py> From<pyo3::CastError<'a, 'py>> for Fault {
    #[cold]
    fn from(error: pyo3::CastError<'a, 'py>) -> Self {
        Self(Box::new(error.into()))
    }
}

impl Fault {
    /// Counts it and gives it up.
    #[cold]
    pub(super) fn count(self, py: Python<'_>, breaker: &'static Breaker) {
        give_up(py, *self.0, |error| breaker.fault(&error.to_string()));
    }
}

/// What a hook returns.
pub type HookResult<T = ()> = Result<T, Fault>;

/// A synchronous hook.
pub type CallHook = fn(&mut Call<'_>) -> HookResult;

enum Outcome {
    Pending,
    Returned(*mut ffi::PyObject),
    Raised(Raised),
}

/// Whether a keyword's name is that text. Nearly all others are told by their length.
#[inline]
fn is_same(candidate: &Bound<'_, PyAny>, name: &Bound<'_, PyString>) -> bool {
    candidate.cast::<PyString>().is_ok_and(|candidate| {
        // SAFETY: attached; two live texts.
        let lengths = unsafe {
            [ffi::PyUnicode_GetLength(candidate.as_ptr()), ffi::PyUnicode_GetLength(name.as_ptr())]
        };
        lengths[0] == lengths[1] && candidate.as_any().eq(name).unwrap_or(false)
    })
}

/// One call of a wrapped callable.
pub struct Call<'py> {
    py: Python<'py>,
    wrapper: *const Wrapper,
    wrapped: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargsf: usize,
    kwnames: *mut ffi::PyObject,
    /// 1 where `wrapped` is bound to the first argument already and is called without it.
    bound: usize,
    outcome: Outcome,
}

impl<'py> Call<'py> {
    /// # Safety
    /// The pointers are a vectorcall's own, of this wrapper, valid for as long as the call lasts.
    #[inline]
    pub(super) unsafe fn new(
        py: Python<'py>,
        wrapper: *const Wrapper,
        args: *const *mut ffi::PyObject,
        nargsf: usize,
        kwnames: *mut ffi::PyObject,
    ) -> Self {
        // SAFETY: by this function's contract.
        let wrapped = unsafe { (*wrapper).wrapped };
        Self { py, wrapper, wrapped, args, nargsf, kwnames, bound: 0, outcome: Outcome::Pending }
    }

    /// A call through a bound callable: `args` starts with what it is bound to, of which `wrapped` knows.
    ///
    /// # Safety
    /// As for [`Self::new`]; there is at least one positional argument.
    #[inline]
    pub(super) unsafe fn new_bound(
        py: Python<'py>,
        wrapper: *const Wrapper,
        wrapped: *mut ffi::PyObject,
        args: *const *mut ffi::PyObject,
        positional: usize,
        kwnames: *mut ffi::PyObject,
    ) -> Self {
        let outcome = Outcome::Pending;
        Self { py, wrapper, wrapped, args, nargsf: positional, kwnames, bound: 1, outcome }
    }

    /// The token.
    #[inline]
    pub fn py(&self) -> Python<'py> {
        self.py
    }

    /// The original.
    pub(super) fn function(&self) -> Bound<'py, PyAny> {
        // SAFETY: the wrapper keeps it alive for the call.
        unsafe { Bound::from_borrowed_ptr(self.py, self.wrapped) }
    }

    /// The span that the wrapper was made for ([`wrap_for`](super::wrap_for)).
    #[inline]
    pub fn span(&self) -> Option<Span<'py>> {
        // SAFETY: the wrapper outlives the call, and the field is written before anyone calls it.
        unsafe { (*self.wrapper).span.as_ref() }.map(|span| span.get(self.py))
    }

    /// The count of positional arguments, `self` among them for methods.
    #[inline]
    pub fn positional(&self) -> usize {
        self.nargsf & !ffi::PY_VECTORCALL_ARGUMENTS_OFFSET
    }

    /// The positional argument at `index`; `self` is at 0 for methods.
    #[inline]
    pub fn arg(&self, index: usize) -> Option<Borrowed<'_, 'py, PyAny>> {
        if index >= self.positional() {
            return None;
        }
        // SAFETY: within the vectorcall's positional arguments, which the caller keeps alive.
        Some(unsafe { Borrowed::from_ptr(self.py, *self.args.add(index)) })
    }

    /// The argument at `index` or by keyword.
    #[inline]
    pub fn argument(&self, index: usize, name: &Bound<'py, PyString>) -> Option<Borrowed<'_, 'py, PyAny>> {
        self.arg(index).or_else(|| self.keyword(name))
    }

    /// The argument passed by keyword.
    pub fn keyword(&self, name: &Bound<'py, PyString>) -> Option<Borrowed<'_, 'py, PyAny>> {
        let at = self.keyword_index(name)?;
        // SAFETY: keyword values follow the positional arguments, one for each name.
        Some(unsafe { Borrowed::from_ptr(self.py, *self.args.add(at)) })
    }

    fn keyword_index(&self, name: &Bound<'py, PyString>) -> Option<usize> {
        let names = self.keyword_names()?;
        // Keyword names in calls from code are interned, and so is `name`; `**kwargs` may bring others.
        let at = names
            .iter_borrowed()
            .position(|candidate| candidate.is(name))
            .or_else(|| names.iter_borrowed().position(|candidate| is_same(&candidate, name)))?;
        Some(self.positional() + at)
    }

    fn keyword_names(&self) -> Option<Borrowed<'_, 'py, PyTuple>> {
        if self.kwnames.is_null() {
            return None;
        }
        // SAFETY: a vectorcall's `kwnames` is null or a tuple, alive for the call.
        unsafe { Borrowed::from_ptr(self.py, self.kwnames) }.cast::<PyTuple>().ok()
    }

    /// Runs the original with the arguments as they came.
    #[inline]
    pub fn proceed(&mut self) {
        // SAFETY: the arguments are passed on as they came.
        unsafe { self.run(self.args, self.nargsf) }
    }

    /// Runs the original with another object in the place of the argument at `index` or by keyword `name`. Where the
    /// caller did not pass that argument it is run as it came.
    pub fn proceed_replacing(
        &mut self,
        index: usize,
        name: &Bound<'py, PyString>,
        value: &Bound<'py, PyAny>,
    ) {
        let at = if index < self.positional() { Some(index) } else { self.keyword_index(name) };
        let Some(at) = at else { return self.proceed() };
        let total = self.positional() + self.keyword_names().map_or(0, |names| names.len());
        // One spare place in front: the original may be called with PY_VECTORCALL_ARGUMENTS_OFFSET.
        let mut args: smallvec::SmallVec<[*mut ffi::PyObject; 9]> =
            smallvec::SmallVec::with_capacity(total + 1);
        args.push(ptr::null_mut());
        // SAFETY: `args` of the call holds `total` pointers.
        args.extend_from_slice(unsafe { std::slice::from_raw_parts(self.args, total) });
        args[at + 1] = value.as_ptr();
        // SAFETY: a copy of the call's own arguments, one of them exchanged for a live object; the place in front
        // may be written to.
        unsafe {
            self.run(args.as_ptr().add(1), self.positional() | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET);
        }
    }

    /// As [`Self::proceed_replacing`]; where the caller did not pass that argument it is passed by keyword.
    pub fn proceed_passing(
        &mut self,
        index: usize,
        name: &Bound<'py, PyString>,
        value: &Bound<'py, PyAny>,
    ) -> PyResult<()> {
        if index < self.positional() || self.keyword_index(name).is_some() {
            self.proceed_replacing(index, name, value);
            return Ok(());
        }
        let given = self.keyword_names();
        let count = given.as_ref().map_or(0, |names| names.len());
        let names = match &given {
            None => PyTuple::new(self.py, [name])?,
            Some(given) => PyTuple::new(
                self.py,
                given
                    .iter()
                    .chain(std::iter::once(name.clone().into_any()))
                    .collect::<smallvec::SmallVec<[_; 8]>>(),
            )?,
        };
        let total = self.positional() + count;
        // One spare place in front: the original may be called with PY_VECTORCALL_ARGUMENTS_OFFSET.
        let mut args: smallvec::SmallVec<[*mut ffi::PyObject; 10]> =
            smallvec::SmallVec::with_capacity(total + 2);
        args.push(ptr::null_mut());
        if total > 0 {
            // SAFETY: `args` of the call holds `total` pointers.
            args.extend_from_slice(unsafe { std::slice::from_raw_parts(self.args, total) });
        }
        args.push(value.as_ptr());
        let own = std::mem::replace(&mut self.kwnames, names.as_ptr());
        // SAFETY: a copy of the call's own arguments with one more, live, and its name at the end of the names; the
        // place in front may be written to.
        unsafe {
            self.run(args.as_ptr().add(1), self.positional() | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET);
        }
        self.kwnames = own;
        Ok(())
    }

    /// # Safety
    /// `args` and `nargsf` describe a valid vectorcall together with the call's keyword names.
    #[inline]
    unsafe fn run(&mut self, args: *const *mut ffi::PyObject, nargsf: usize) {
        if !matches!(self.outcome, Outcome::Pending) {
            return;
        }
        // SAFETY: by this function's contract; the wrapper keeps `wrapped` alive. A bound original is called without
        // the first argument.
        let result = unsafe {
            if self.bound == 0 {
                vectorcall(self.wrapped, args, nargsf, self.kwnames)
            } else {
                let positional = (nargsf & !ffi::PY_VECTORCALL_ARGUMENTS_OFFSET) - 1;
                vectorcall(self.wrapped, args.add(1), positional, self.kwnames)
            }
        };
        self.conclude(result);
    }

    /// Takes what a call returned: an owned reference, or null with an exception set.
    #[inline]
    fn conclude(&mut self, result: *mut ffi::PyObject) {
        self.outcome = if result.is_null() { self.raised() } else { Outcome::Returned(result) };
    }

    /// Lets the application's own code stand for the original, with what it returned or raised as the outcome.
    pub(crate) fn instead(&mut self, run: impl FnOnce(&Self) -> PyResult<Bound<'py, PyAny>>) {
        if !matches!(self.outcome, Outcome::Pending) {
            return;
        }
        let result = match run(self) {
            Ok(result) => result.into_ptr(),
            Err(error) => {
                error.restore(self.py);
                ptr::null_mut()
            }
        };
        self.conclude(result);
    }

    /// The original, bound to the first argument where `method` says that this is what it is called on; with that
    /// argument.
    pub(crate) fn original(&self, method: bool) -> PyResult<(Bound<'py, PyAny>, Option<Bound<'py, PyAny>>)> {
        // SAFETY: the wrapper keeps the original alive for the call.
        let wrapped = unsafe { Bound::from_borrowed_ptr(self.py, self.wrapped) };
        let Some(instance) = self.arg(0).filter(|_| method || self.bound > 0) else {
            return Ok((wrapped, None));
        };
        let instance = instance.to_owned();
        if self.bound > 0 {
            return Ok((wrapped, Some(instance)));
        }
        // SAFETY: live objects, attached; a descriptor's `__get__` takes a null owner.
        let bound = unsafe {
            match (*ffi::Py_TYPE(self.wrapped)).tp_descr_get {
                None => return Ok((wrapped, None)),
                Some(get) => get(self.wrapped, instance.as_ptr(), ffi::Py_TYPE(instance.as_ptr()).cast()),
            }
        };
        // SAFETY: a new reference or null with an exception set.
        Ok((unsafe { Bound::from_owned_ptr_or_err(self.py, bound)? }, Some(instance)))
    }

    /// The positional arguments from `from` on, and the keyword arguments.
    pub(crate) fn arguments(
        &self,
        from: usize,
    ) -> PyResult<(Bound<'py, PyTuple>, Option<Bound<'py, PyDict>>)> {
        let positional =
            (from..self.positional()).filter_map(|at| self.arg(at).map(|value| value.to_owned()));
        let args = PyTuple::new(self.py, positional.collect::<smallvec::SmallVec<[_; 8]>>())?;
        let Some(names) = self.keyword_names() else { return Ok((args, None)) };
        let kwargs = PyDict::new(self.py);
        for (at, name) in names.iter_borrowed().enumerate() {
            // SAFETY: keyword values follow the positional arguments, one for each name.
            kwargs.set_item(name, unsafe {
                Borrowed::from_ptr(self.py, *self.args.add(self.positional() + at))
            })?;
        }
        Ok((args, Some(kwargs)))
    }

    #[cold]
    fn raised(&self) -> Outcome {
        match Raised::take(self.py) {
            Some(raised) => Outcome::Raised(raised),
            // The original broke the protocol: hand exactly that on.
            None => Outcome::Returned(ptr::null_mut()),
        }
    }

    /// What the original returned.
    #[inline]
    pub fn result(&self) -> Option<Borrowed<'_, 'py, PyAny>> {
        match self.outcome {
            Outcome::Returned(result) if !result.is_null() => {
                // SAFETY: a live object that the outcome owns.
                Some(unsafe { Borrowed::from_ptr(self.py, result) })
            }
            _ => None,
        }
    }

    /// What the original raised.
    #[inline]
    pub fn error(&self) -> Option<Borrowed<'_, 'py, PyAny>> {
        match &self.outcome {
            Outcome::Raised(raised) => Some(raised.value(self.py)),
            _ => None,
        }
    }

    /// Gives the application this object, which stands for the original's result. Ignored if it raised.
    pub fn replace_result(&mut self, with: Bound<'py, PyAny>) {
        if let Outcome::Returned(result) = self.outcome
            && !result.is_null()
        {
            self.outcome = Outcome::Returned(with.into_ptr());
            // SAFETY: the outcome owned this reference.
            unsafe { ffi::Py_DECREF(result) };
        }
    }

    /// Ends the call: the value for the slot to return, with the original's exception set where it raised.
    #[inline]
    pub(super) fn finish(mut self) -> *mut ffi::PyObject {
        if matches!(self.outcome, Outcome::Pending) {
            self.proceed();
        }
        match std::mem::replace(&mut self.outcome, Outcome::Returned(ptr::null_mut())) {
            Outcome::Returned(result) => result,
            Outcome::Raised(raised) => {
                raised.restore(self.py);
                ptr::null_mut()
            }
            Outcome::Pending => ptr::null_mut(),
        }
    }
}
