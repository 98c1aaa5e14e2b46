//! Coroutine functions: a real coroutine around the original's.
//!
//! The original is called at once, so that a wrong call raises at the call. Its coroutine then lives in a native
//! [`Ticket`] that is handed to a driver, an `async def` that the interpreter runs: the application gets the driver's
//! coroutine, which is one to every check, under the original's name. The span starts at the first send, in the context
//! that runs it. A coroutine that is never awaited warns once, under the original's name: the driver does, while the
//! ticket closes what was inside.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::OnceLock;

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyAny, PyCode, PyDict, PyString};

use super::call::{Call, HookResult};
use super::delegate::visit_all;
use super::function::{Behaviour, guarded, wrap};
use super::outcome;
use crate::breaker::Breaker;
use crate::current::{self, Span, StoredSpan};
use crate::ffi::{Held, LazyType, Raised, TypeSpec, clear_field, has_stack, intern, member, quiet, slot};

/// An asynchronous hook: looks at the call and says what is to happen around the coroutine that the original returns.
/// `None`: nothing, the application gets the original's coroutine itself.
pub type AsyncHook = fn(&mut Call<'_>) -> HookResult<Option<Box<dyn Flight>>>;

/// What happens around one coroutine, from its first send to its end.
pub trait Flight: Send {
    /// At the first send, in the context that runs it. Returns the span to put in force, if any.
    fn start(&mut self, py: Python<'_>) -> HookResult<Option<StoredSpan>>;

    /// At its end, with what it returned or raised and the span of [`Self::start`], which is no longer in force.
    fn finish(
        &mut self,
        py: Python<'_>,
        span: Option<&Span<'_>>,
        outcome: Result<&Bound<'_, PyAny>, &Bound<'_, PyAny>>,
    ) -> HookResult;
}

/// Makes a [`Flight`] for each call.
pub trait Flights: Send + Sync + 'static {
    /// As [`AsyncHook`].
    fn board(&self, call: &mut Call<'_>) -> HookResult<Option<Box<dyn Flight>>>;
}

impl Flights for AsyncHook {
    fn board(&self, call: &mut Call<'_>) -> HookResult<Option<Box<dyn Flight>>> {
        self(call)
    }
}

/// Around a function that returns coroutines.
pub struct Coroutines<F> {
    flights: F,
    breaker: &'static Breaker,
    /// Made at the first call.
    driver: OnceLock<Held>,
}

impl<F> Coroutines<F> {
    /// Faults count in `breaker`.
    pub fn new(flights: F, breaker: &'static Breaker) -> Self {
        Self { flights, breaker, driver: OnceLock::new() }
    }
}

/// Wraps a coroutine function.
pub fn wrap_async<'py>(
    original: &Bound<'py, PyAny>,
    hook: AsyncHook,
    breaker: &'static Breaker,
) -> PyResult<Bound<'py, PyAny>> {
    wrap(original, None, Some(Box::new(Coroutines::new(hook, breaker))), breaker)
}

impl<F: Flights> Behaviour for Coroutines<F> {
    fn call(&self, call: &mut Call<'_>) -> HookResult {
        let py = call.py();
        let flight = self.flights.board(call)?;
        call.proceed();
        let (Some(flight), Some(inner)) = (flight, call.result()) else { return Ok(()) };
        // SAFETY: a live object.
        if unsafe { ffi::PyCoro_CheckExact(inner.as_ptr()) } == 0 {
            return Ok(());
        }
        let driver = match self.driver.get() {
            Some(driver) => driver,
            None => {
                // Made outside the lock, which is never held across a call into Python.
                let made = Held::new(&driver_like(&call.function())?);
                self.driver.get_or_init(|| made)
            }
        };
        let ticket = Ticket::issue(py, &inner, flight, self.breaker)?;
        // SAFETY: attached; one argument, a live ticket; the result is a new reference or null with an exception set.
        let made = unsafe {
            let made = ffi::PyObject_CallOneArg(driver.as_ptr(), ticket.as_ptr());
            if made.is_null() {
                // The application gets the original's coroutine, which must not be closed with the ticket.
                clear_field(&raw mut (*ticket.as_ptr().cast::<Ticket>()).inner);
            }
            Bound::from_owned_ptr_or_err(py, made)?
        };
        call.replace_result(made);
        Ok(())
    }

    fn traverse(&self, visit: &mut dyn FnMut(*mut ffi::PyObject) -> c_int) -> c_int {
        self.driver.get().map_or(0, |driver| visit(driver.as_ptr()))
    }
}

/// `ticket()` at the first send gives the original's coroutine, `ticket(result)` its result back, `ticket(None, None)`
/// looks at the exception that is being handled.
const DRIVER: &std::ffi::CStr = c"async def driver(ticket):
    try:
        return ticket(await ticket())
    except BaseException:
        ticket(None, None)
        raise
";

/// A driver with an original's name, file and line: `repr`, warnings and `asyncio`'s debug output show those.
fn driver_like<'py>(original: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    static TEMPLATE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = original.py();
    let template = TEMPLATE.get_or_try_init(py, || {
        let names = PyDict::new(py);
        py.run(DRIVER, Some(&names), None)?;
        names.as_any().get_item(intern!(py, "driver")).map(Bound::unbind)
    })?;
    let template = template.bind(py);
    let code = template.getattr(intern!(py, "__code__"))?;
    let changed = PyDict::new(py);
    // A mock's code is a mock.
    let of = quiet(py, original.getattr_opt(intern!(py, "__code__"))).flatten();
    let of = of.filter(|of| of.is_exact_instance_of::<PyCode>());
    for name in [
        intern!(py, "co_name"),
        intern!(py, "co_qualname"),
        intern!(py, "co_filename"),
        intern!(py, "co_firstlineno"),
    ] {
        if let Some(of) = &of
            && let Some(Some(value)) = quiet(py, of.getattr_opt(name))
        {
            changed.set_item(name, value)?;
        }
    }
    if changed.contains(intern!(py, "co_firstlineno"))? {
        changed.set_item(intern!(py, "co_linetable"), one_line(&code)?)?;
    }
    let code = code.call_method(intern!(py, "replace"), (), Some(&changed))?;
    let made = template.get_type().call1((code, template.getattr(intern!(py, "__globals__"))?))?;
    for name in [intern!(py, "__name__"), intern!(py, "__qualname__")] {
        if let Some(Some(value)) = quiet(py, original.getattr_opt(name))
            && value.is_instance_of::<PyString>()
        {
            made.setattr(name, value)?;
        }
    }
    Ok(made)
}

/// A line table that puts all of a code object on its first line: entries of kind 13 ("no columns") without a line
/// step, eight code units each at most (CPython, `Objects/locations.md`).
fn one_line<'py>(code: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = code.py();
    let units = code.getattr(intern!(py, "co_code"))?.len()? / 2;
    let mut table = Vec::new();
    let mut left = units;
    while left > 0 {
        let here = left.min(8);
        table.extend_from_slice(&[0x80 | 13 << 3 | (here as u8 - 1), 0]);
        left -= here;
    }
    Ok(pyo3::types::PyBytes::new(py, &table).into_any())
}

#[repr(C)]
struct Ticket {
    ob_base: ffi::PyObject,
    vectorcall: ffi::vectorcallfunc,
    /// The original's coroutine until the first send.
    inner: *mut ffi::PyObject,
    /// Until the end.
    flight: Option<Box<dyn Flight>>,
    span: Option<StoredSpan>,
    /// What the span was put in force with, or null.
    token: *mut ffi::PyObject,
    breaker: &'static Breaker,
}

static TYPE: LazyType = LazyType::new(create);

impl Ticket {
    fn issue<'py>(
        py: Python<'py>,
        inner: &Bound<'py, PyAny>,
        flight: Box<dyn Flight>,
        breaker: &'static Breaker,
    ) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: attached; the fresh object's own fields are written before anyone sees them.
        unsafe {
            let object = TYPE.allocate(py)?;
            let this: *mut Self = object.cast();
            (&raw mut (*this).vectorcall).write(call);
            (&raw mut (*this).flight).write(Some(flight));
            (&raw mut (*this).span).write(None);
            (&raw mut (*this).token).write(ptr::null_mut());
            (&raw mut (*this).breaker).write(breaker);
            (*this).inner = inner.clone().into_ptr();
            Ok(Bound::from_owned_ptr(py, object))
        }
    }

    /// # Safety
    /// `this` is a ticket, attached. Nothing of it is borrowed while Python code may run: a hook can come back here.
    unsafe fn begin(this: *mut Self, py: Python<'_>) -> *mut ffi::PyObject {
        // SAFETY: by this function's contract.
        unsafe {
            let inner = ptr::replace(&raw mut (*this).inner, ptr::null_mut());
            if inner.is_null() {
                PyRuntimeError::new_err("cannot reuse already awaited coroutine").restore(py);
                return inner;
            }
            let flight = (*this).flight.take();
            guarded((*this).breaker, || {
                let Some(mut flight) = flight else { return Ok(()) };
                let span = flight.start(py)?;
                (*this).flight = Some(flight);
                if let Some(span) = span {
                    (*this).token = current::put(py, &span.get(py));
                    (*this).span = Some(span);
                }
                Ok(())
            });
            inner
        }
    }

    /// # Safety
    /// As for [`Self::begin`]; no exception is pending.
    unsafe fn end(this: *mut Self, py: Python<'_>, outcome: Result<&Bound<'_, PyAny>, &Bound<'_, PyAny>>) {
        // SAFETY: by this function's contract.
        unsafe {
            let (flight, span) = ((*this).flight.take(), (*this).span.take());
            let span = span.map(|span| span.get(py));
            if let Some(span) = &span {
                outcome::leave(py, span, (*this).token);
            }
            clear_field(&raw mut (*this).token);
            if let Some(mut flight) = flight {
                guarded((*this).breaker, || flight.finish(py, span.as_ref(), outcome));
            }
        }
    }
}

unsafe extern "C" fn call(
    this: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargsf: usize,
    _kwnames: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls this slot attached, from the driver only, with a ticket and the driver's arguments.
    unsafe {
        let py = Python::assume_attached();
        let this: *mut Ticket = this.cast();
        match nargsf & !ffi::PY_VECTORCALL_ARGUMENTS_OFFSET {
            // What is awaited runs in the driver's frame, without us: here is the place to look.
            0 if !has_stack() => {
                (*this).flight = None;
                ptr::null_mut()
            }
            0 => Ticket::begin(this, py),
            1 => {
                let result = Bound::from_borrowed_ptr(py, *args);
                Ticket::end(this, py, Ok(&result));
                result.into_ptr()
            }
            _ => {
                if let Some(error) = Bound::from_owned_ptr_or_opt(py, ffi::PyErr_GetHandledException()) {
                    cut_traceback(&error);
                    Ticket::end(this, py, Err(&error));
                }
                ffi::Py_NewRef(ffi::Py_None())
            }
        }
    }
}

/// Takes the driver's own entry, the outermost so far, off a traceback; the bare `raise` that follows adds none.
fn cut_traceback(error: &Bound<'_, PyAny>) {
    let py = error.py();
    if let Some(trace) = quiet(py, error.getattr(intern!(py, "__traceback__")))
        && let Some(Some(next)) = quiet(py, trace.getattr_opt(intern!(py, "tb_next")))
        // Raised by the driver itself (thrown in before the first send): the one entry stands for the original's.
        && !next.is_none()
    {
        // SAFETY: attached; an exception and a traceback.
        unsafe { ffi::PyException_SetTraceback(error.as_ptr(), next.as_ptr()) };
    }
}

unsafe extern "C" fn traverse(this: *mut ffi::PyObject, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: the collector's slot: a ticket, whose fields are null or live.
    unsafe {
        let ticket: *mut Ticket = this.cast();
        visit_all(&[(*ticket).inner, (*ticket).token, ffi::Py_TYPE(this).cast()], visit, arg)
    }
}

unsafe extern "C" fn clear(this: *mut ffi::PyObject) -> c_int {
    let this: *mut Ticket = this.cast();
    // SAFETY: the collector's slot: attached, a ticket. What was never awaited is closed, so that it does not warn: the
    // driver does. An exception that is pending while we are thrown away stays as it is.
    unsafe {
        clear_field(&raw mut (*this).token);
        let inner = ptr::replace(&raw mut (*this).inner, ptr::null_mut());
        if !inner.is_null() {
            let py = Python::assume_attached();
            let pending = Raised::take(py);
            let closed = ffi::PyObject_CallMethodNoArgs(inner, intern!(py, "close").as_ptr());
            if closed.is_null() {
                ffi::PyErr_WriteUnraisable(inner);
            }
            ffi::Py_XDECREF(closed);
            ffi::Py_DECREF(inner);
            if let Some(pending) = pending {
                pending.restore(py);
            }
        }
    }
    0
}

unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
    let this: *mut Ticket = object.cast();
    // SAFETY: called once with the last reference gone; the order is the one that the C API asks for.
    unsafe {
        ffi::PyObject_GC_UnTrack(object.cast());
        clear(object);
        ptr::drop_in_place(&raw mut (*this).flight);
        ptr::drop_in_place(&raw mut (*this).span);
        let of = ffi::Py_TYPE(object);
        ffi::PyObject_GC_Del(object.cast());
        ffi::Py_DECREF(of.cast());
    }
}

fn create(py: Python<'_>) -> PyResult<*mut ffi::PyTypeObject> {
    let spec = TypeSpec {
        name: c"remora._native.Ticket",
        size: size_of::<Ticket>(),
        flags: ffi::Py_TPFLAGS_HAVE_GC
            | ffi::Py_TPFLAGS_HAVE_VECTORCALL
            | ffi::Py_TPFLAGS_IMMUTABLETYPE
            | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION,
        slots: vec![
            slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut c_void),
            slot(ffi::Py_tp_traverse, traverse as *mut c_void),
            slot(ffi::Py_tp_clear, clear as *mut c_void),
            slot(ffi::Py_tp_dealloc, dealloc as *mut c_void),
        ],
        members: vec![member(c"__vectorcalloffset__", std::mem::offset_of!(Ticket, vectorcall))],
        getset: vec![],
        methods: vec![],
    };
    // SAFETY: each function has its slot's signature; the member lies inside `Ticket`.
    unsafe { spec.create(py) }
}
