//! The span in force: a native object in one `ContextVar`.
//!
//! The object holds an [`ActiveSpan`] and no reference to anything of the application. Some objects are kept
//! for reuse with their buffers, so that a span costs no allocation.

#[cfg_attr(Py_GIL_DISABLED, path = "free_none.rs")]
mod free;
mod note;

pub use note::Note;

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU64, Ordering};

use agent_core::local;
use agent_core::span::{ActiveSpan, Parent, SpanSpec};
use agent_core::tracer;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;

use crate::ffi::{TypeSpec, quiet, slot};

/// What a client span stands for, so that an inner layer can tell that the exit is already recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// An HTTP request.
    Http = 1,
    /// A database call.
    Database = 2,
}

#[repr(C)]
struct SpanObject {
    ob_base: ffi::PyObject,
    next: *mut SpanObject,
    busy: AtomicBool,
    /// The kind of exit and, from the third bit, the layer.
    mark: AtomicU8,
    note: Note,
    span: UnsafeCell<ActiveSpan>,
}

static TYPE: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());
static VARIABLE: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());
/// Whether anything has ever been put in force: where nothing is sampled, nothing is.
static USED: AtomicBool = AtomicBool::new(false);
static RESET_FAILED: AtomicU64 = AtomicU64::new(0);

/// How often a context variable could not be reset by its token and was set by value instead.
pub fn reset_failures() -> u64 {
    RESET_FAILED.load(Ordering::Relaxed)
}

/// Buffers beyond this are not kept for the next span.
const KEEP_BYTES: usize = 4096;

// SAFETY: called by the interpreter alone, once, when the last reference to a span object is gone.
unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
    let this: *mut SpanObject = object.cast();
    // SAFETY: called once, with the last reference gone and the GIL held. The object is then either kept by the free
    // list with all its fields, or its span is dropped and its memory freed.
    unsafe {
        // A span that nobody ended (a task that was thrown away) ends with its last reference.
        (*(*this).span.get()).finish();
        (*(*this).span.get()).shrink(KEEP_BYTES);
        let outer = std::mem::replace(&mut (*this).note, Note::new()).outer.into_inner();
        if !outer.is_null() {
            ffi::Py_DECREF(outer.cast());
        }
        let of = ffi::Py_TYPE(object);
        if !free::push(this) {
            ptr::drop_in_place((*this).span.get());
            ffi::PyObject_Free(object.cast());
        }
        ffi::Py_DECREF(of.cast());
    }
}

/// Makes the type and the variable. Once, at load.
pub fn init(py: Python<'_>) -> PyResult<()> {
    let spec = TypeSpec {
        name: c"remora._native.ActiveSpan",
        size: size_of::<SpanObject>(),
        flags: ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION | ffi::Py_TPFLAGS_IMMUTABLETYPE,
        slots: vec![slot(ffi::Py_tp_dealloc, dealloc as *mut c_void)],
        members: vec![],
        getset: vec![],
        methods: vec![],
    };
    // SAFETY: `dealloc` is a destructor; there are no members.
    TYPE.store(unsafe { spec.create(py)? }, Ordering::Release);
    // SAFETY: attached; a valid C string.
    let variable = unsafe { ffi::PyContextVar_New(c"remora_span".as_ptr(), ptr::null_mut()) };
    if variable.is_null() {
        return Err(PyErr::fetch(py));
    }
    VARIABLE.store(variable, Ordering::Release);
    Ok(())
}

/// A reference to a span object.
pub struct Span<'py> {
    object: *mut SpanObject,
    py: Python<'py>,
}

impl Drop for Span<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the reference is ours and `py` shows that we are attached.
        unsafe { ffi::Py_DECREF(self.object.cast()) };
    }
}

impl Clone for Span<'_> {
    fn clone(&self) -> Self {
        // SAFETY: a live object, attached.
        unsafe { ffi::Py_INCREF(self.object.cast()) };
        Self { object: self.object, py: self.py }
    }
}

/// A span object kept by a native object of ours, beyond one call.
pub struct StoredSpan(*mut SpanObject);

// SAFETY: the pointer is only followed and given up with an interpreter attached, as any Python reference.
unsafe impl Send for StoredSpan {}
// SAFETY: as above; what it points to is guarded by its `busy` flag.
unsafe impl Sync for StoredSpan {}

impl StoredSpan {
    fn into_raw(self) -> *mut SpanObject {
        std::mem::ManuallyDrop::new(self).0
    }

    /// The span, for use while attached.
    pub fn get<'py>(&self, py: Python<'py>) -> Span<'py> {
        // SAFETY: the stored reference keeps the object alive; we are attached.
        unsafe { ffi::Py_INCREF(self.0.cast()) };
        Span { object: self.0, py }
    }

    /// Whether anything else holds it: a context in which it is in force, a call under way.
    pub fn is_shared(&self, _py: Python<'_>) -> bool {
        // SAFETY: the stored reference keeps the object alive; we are attached.
        unsafe { ffi::Py_REFCNT(self.0.cast()) > 1 }
    }

    /// Whether it is that span.
    pub fn holds(&self, span: &Span<'_>) -> bool {
        self.0 == span.object
    }
}

impl Drop for StoredSpan {
    fn drop(&mut self) {
        // SAFETY: stored spans live in Python objects, whose destructors run attached.
        unsafe { ffi::Py_DECREF(self.0.cast()) };
    }
}

/// The span in force here, if any.
#[inline]
pub fn current(py: Python<'_>) -> Option<Span<'_>> {
    if !USED.load(Ordering::Relaxed) {
        return None;
    }
    let mut value = ptr::null_mut();
    // SAFETY: attached; the variable lives as long as the process; `value` receives a new reference or null.
    unsafe {
        if ffi::PyContextVar_Get(VARIABLE.load(Ordering::Relaxed), ptr::null_mut(), &raw mut value) < 0 {
            ffi::PyErr_Clear();
            return None;
        }
        if value.is_null() {
            return None;
        }
        if ffi::Py_TYPE(value) != TYPE.load(Ordering::Relaxed) {
            ffi::Py_DECREF(value);
            return None;
        }
    }
    Some(Span { object: value.cast(), py })
}

/// Starts a span under `parent`. It is not in force until [`Span::enter`].
#[inline]
pub fn start<'py>(py: Python<'py>, spec: &SpanSpec, parent: &Option<Span<'py>>) -> Option<Span<'py>> {
    match parent {
        Some(parent) => {
            let span = allocate(py)?;
            parent.with(|parent| span.begin(spec, parent.as_parent()))?;
            Some(span)
        }
        None => start_with(py, spec, Parent::Root(None)),
    }
}

/// Whether [`start_leaf`] can have anything to record.
#[inline]
pub fn may_start_leaf(parent: &Option<Span<'_>>, exit: Exit, layer: u8) -> bool {
    !parent.as_ref().is_some_and(|parent| parent.covers(exit, layer)) && may_sample(parent).unwrap_or(false)
}

/// Whether the sampler may sample what starts under `parent`; `Err` where it would not sample a new trace.
#[inline]
fn may_sample(parent: &Option<Span<'_>>) -> Result<bool, ()> {
    let sampler = &tracer::current().sampler;
    let sampled = match parent {
        Some(parent) => parent.with(|span| match span.as_parent() {
            Parent::Local(span) => Some(span.is_sampled()),
            _ => None,
        }),
        None => Some(None),
    };
    match sampled {
        Some(Some(sampled)) => Ok(sampler.may_sample_under(sampled)),
        Some(None) if sampler.may_sample_root() => Ok(true),
        Some(None) => Err(()),
        // In use further up this very call.
        None => Ok(false),
    }
}

/// Starts a span inside which nothing of ours can start: it is never put in force. `None` where there is nothing to
/// record: not sampled, or an outer layer than `layer` already records this exit.
#[inline]
pub fn start_leaf<'py>(
    py: Python<'py>,
    spec: &SpanSpec,
    parent: &Option<Span<'py>>,
    exit: Exit,
    layer: u8,
) -> Option<Span<'py>> {
    if !may_record(parent, exit, layer) {
        return None;
    }
    start(py, spec, parent).filter(Span::is_recording)
}

/// Starts the span of an exit inside which an inner layer may want to start another: it is marked, and to be put in
/// force even where it is not recorded, so that the decision is taken once. `None` where there is nothing to record.
#[inline]
pub fn start_exit<'py>(
    py: Python<'py>,
    spec: &SpanSpec,
    parent: &Option<Span<'py>>,
    exit: Exit,
    layer: u8,
) -> Option<Span<'py>> {
    if !may_record(parent, exit, layer) {
        return None;
    }
    let span = start(py, spec, parent)?;
    span.mark(exit, layer);
    Some(span)
}

/// A stand-in for the span in force while an exit is made of which nothing is to be seen: never recorded, marked so that
/// inner layers make no span, and whatever else starts under it has the same parent as without it.
pub fn cover<'py>(py: Python<'py>, parent: &Option<Span<'py>>, exit: Exit, layer: u8) -> Option<Span<'py>> {
    let cover = stand_in(py, parent)?;
    cover.mark(exit, layer);
    Some(cover)
}

/// Whether an exit can be recorded at all; asked before an id is drawn for it. A trace that the sampler leaves out is
/// counted.
#[inline]
pub fn may_record(parent: &Option<Span<'_>>, exit: Exit, layer: u8) -> bool {
    if parent.as_ref().is_some_and(|parent| parent.covers(exit, layer)) {
        return false;
    }
    may_sample(parent).unwrap_or_else(|()| {
        tracer::count_sampled_out();
        false
    })
}

/// Starts a span under a parent that is not in a context variable.
#[inline]
pub fn start_with<'py>(py: Python<'py>, spec: &SpanSpec, parent: Parent<'_>) -> Option<Span<'py>> {
    let span = allocate(py)?;
    span.begin(spec, parent);
    Some(span)
}

/// An object that stands for `of`, or for no span, and has a note of its own: what several spans of one call share.
/// What starts while it is in force starts under `of`.
#[inline]
pub fn stand_in<'py>(py: Python<'py>, of: &Option<Span<'py>>) -> Option<Span<'py>> {
    let span = allocate(py)?;
    match of {
        Some(of) => {
            of.with(|of| span.with(|span| span.stand_in(Some(of))))??;
            // SAFETY: live objects.
            unsafe {
                (*span.object).mark.store((*of.object).mark.load(Ordering::Relaxed), Ordering::Relaxed)
            };
        }
        None => span.with(|span| span.stand_in(None))?,
    }
    Some(span)
}

#[inline]
fn allocate(py: Python<'_>) -> Option<Span<'_>> {
    let kept = free::pop();
    if !kept.is_null() {
        // SAFETY: a kept object has all its fields and gave up its type's reference; initialising its head brings it
        // back to life with one reference.
        unsafe {
            ffi::PyObject_Init(kept.cast(), TYPE.load(Ordering::Relaxed));
            (*kept).mark.store(0, Ordering::Relaxed);
        }
        return Some(Span { object: kept, py });
    }
    allocate_new(py)
}

#[cold]
fn allocate_new(py: Python<'_>) -> Option<Span<'_>> {
    // SAFETY: attached; the fresh object's own fields are written before anyone sees them.
    unsafe {
        let object: *mut SpanObject = ffi::PyType_GenericAlloc(TYPE.load(Ordering::Relaxed), 0).cast();
        if object.is_null() {
            ffi::PyErr_Clear();
            return None;
        }
        (&raw mut (*object).busy).write(AtomicBool::new(false));
        (&raw mut (*object).mark).write(AtomicU8::new(0));
        (&raw mut (*object).note).write(Note::new());
        (&raw mut (*object).span).write(UnsafeCell::new(ActiveSpan::new()));
        Some(Span { object, py })
    }
}

impl<'py> Span<'py> {
    #[inline]
    fn begin(&self, spec: &SpanSpec, parent: Parent<'_>) {
        // SAFETY: the object was allocated by our caller and nobody else has a reference yet.
        let span = unsafe { &mut *(*self.object).span.get() };
        local::with_ids(|ids| span.start(spec, parent, ids));
    }

    /// The token.
    pub fn py(&self) -> Python<'py> {
        self.py
    }

    /// Runs `work` on the span; `None` if it is in use further up this very call (a value's `__str__` that came back
    /// to us) or, without the GIL, by another thread for long.
    #[inline]
    pub fn with<R>(&self, work: impl FnOnce(&mut ActiveSpan) -> R) -> Option<R> {
        struct Busy<'a>(&'a AtomicBool);
        impl Drop for Busy<'_> {
            #[inline]
            fn drop(&mut self) {
                self.0.store(false, Ordering::Release);
            }
        }
        // SAFETY: a live object.
        let busy = unsafe { &(*self.object).busy };
        if !Self::acquire(busy) {
            return None;
        }
        let _busy = Busy(busy);
        // SAFETY: `busy` makes this the only reference to the span.
        Some(work(unsafe { &mut *(*self.object).span.get() }))
    }

    #[cfg(not(Py_GIL_DISABLED))]
    #[inline]
    fn acquire(busy: &AtomicBool) -> bool {
        if busy.load(Ordering::Relaxed) {
            return false;
        }
        busy.store(true, Ordering::Relaxed);
        true
    }

    #[cfg(Py_GIL_DISABLED)]
    fn acquire(busy: &AtomicBool) -> bool {
        (0..1000).any(|_| {
            let won = !busy.swap(true, Ordering::Acquire);
            if !won {
                std::hint::spin_loop();
            }
            won
        })
    }

    /// Whether attributes go anywhere.
    #[inline]
    pub fn is_recording(&self) -> bool {
        self.with(|span| span.is_recording()).unwrap_or(false)
    }

    /// Whether its trace is sampled, also once it has ended.
    #[inline]
    pub fn is_sampled(&self) -> bool {
        self.with(|span| span.is_sampled()).unwrap_or(false)
    }

    /// Marks it as the one span of an exit, made by `layer` (the higher, the further out).
    #[inline]
    pub fn mark(&self, exit: Exit, layer: u8) {
        // SAFETY: a live object.
        unsafe { (*self.object).mark.store(exit as u8 | layer << 2, Ordering::Relaxed) };
    }

    /// Whether an outer layer than `layer` already records this exit.
    #[inline]
    pub fn covers(&self, exit: Exit, layer: u8) -> bool {
        // SAFETY: a live object.
        let mark = unsafe { (*self.object).mark.load(Ordering::Relaxed) };
        mark & 3 == exit as u8 && mark >> 2 > layer
    }

    /// The exit is over: what follows under this span is recorded again.
    pub fn unmark(&self) {
        // SAFETY: a live object.
        unsafe { (*self.object).mark.store(0, Ordering::Relaxed) };
    }

    /// What hooks of one library tell each other.
    #[inline]
    pub fn note(&self) -> &Note {
        // SAFETY: a live object, which `self` keeps alive; everything in a note is atomic.
        unsafe { &(*self.object).note }
    }

    /// Remembers the span that was in force outside, for spans that are to be its siblings.
    pub fn set_outer(&self, outer: Option<&Span<'py>>) {
        if let Some(outer) = outer {
            let old = self.note().outer.swap(outer.clone().store().into_raw(), Ordering::AcqRel);
            if !old.is_null() {
                // SAFETY: the note owned this reference.
                unsafe { ffi::Py_DECREF(old.cast()) };
            }
        }
    }

    /// The span that was in force outside.
    pub fn outer(&self) -> Option<Span<'py>> {
        let outer = self.note().outer.load(Ordering::Acquire);
        // SAFETY: null or a live object that the note keeps alive as long as `self` lives.
        (!outer.is_null()).then(|| unsafe {
            ffi::Py_INCREF(outer.cast());
            Span { object: outer, py: self.py }
        })
    }

    /// Ends it now.
    #[inline]
    pub fn finish(&self) {
        self.with(ActiveSpan::finish);
    }

    /// Keeps it beyond this call.
    pub fn store(self) -> StoredSpan {
        let this = std::mem::ManuallyDrop::new(self);
        StoredSpan(this.object)
    }

    /// As an object that can be kept in a dictionary of the application's.
    pub fn as_object(&self) -> Bound<'py, PyAny> {
        // SAFETY: a live object, attached.
        unsafe { Bound::from_borrowed_ptr(self.py, self.object.cast()) }
    }

    /// The span that [`Self::as_object`] gave away.
    pub fn from_object(object: &Bound<'py, PyAny>) -> Option<Self> {
        if object.get_type_ptr() != TYPE.load(Ordering::Relaxed) {
            return None;
        }
        Some(Self { object: object.clone().into_ptr().cast(), py: object.py() })
    }

    /// Puts it in force until the guard is left or dropped. Only within one call: across a suspension use
    /// [`set`].
    #[inline]
    pub fn enter(&self, previous: Option<Span<'py>>) -> Entered<'py> {
        let token = set_variable(self.object.cast());
        Entered { token, previous, py: self.py }
    }

    /// Whether both are one span.
    pub fn is(&self, other: &Span<'_>) -> bool {
        self.object == other.object
    }
}

/// Puts no span in force until the guard is dropped. Only within one call.
pub fn hide<'py>(py: Python<'py>, previous: Option<Span<'py>>) -> Entered<'py> {
    // SAFETY: attached; None is immortal, or borrowed for the call only.
    let token = set_variable(unsafe { ffi::Py_None() });
    Entered { token, previous, py }
}

/// Puts a span in force across suspensions: the token that [`reset`] takes, an owned reference, or null.
pub fn put(_py: Python<'_>, span: &Span<'_>) -> *mut ffi::PyObject {
    set_variable(span.object.cast())
}

/// Puts back what was in force before [`put`], more cheaply than [`set`] does. False where the context that runs now
/// is another one, and nothing is changed.
///
/// # Safety
/// `token` is alive, or null; no exception is pending.
pub unsafe fn reset(_py: Python<'_>, token: *mut ffi::PyObject) -> bool {
    if token.is_null() {
        return false;
    }
    // SAFETY: attached; by this function's contract.
    unsafe {
        let done = without_collection(|| ffi::PyContextVar_Reset(VARIABLE.load(Ordering::Relaxed), token));
        if done < 0 {
            ffi::PyErr_Clear();
        }
        done == 0
    }
}

/// What was in force before [`put`] gave out `token`.
///
/// # Safety
/// As for [`reset`].
#[cold]
pub unsafe fn before<'py>(py: Python<'py>, token: *mut ffi::PyObject) -> Option<Span<'py>> {
    // SAFETY: attached; by this function's contract.
    let token = unsafe { Bound::from_borrowed_ptr_or_opt(py, token) }?;
    Span::from_object(&quiet(py, token.getattr(intern!(py, "old_value")))?)
}

/// Sets the span in force by value: for suspensions, where no token is kept.
pub fn set(py: Python<'_>, span: Option<&Span<'_>>) {
    // SAFETY: attached; None is immortal or borrowed for the call only.
    let value = span.map_or_else(|| unsafe { ffi::Py_None() }, |span| span.object.cast());
    let token = set_variable(value);
    // SAFETY: attached; our reference or null.
    unsafe { ffi::Py_XDECREF(token) };
    let _ = py;
}

/// Sets the span in force inside a context that nothing runs in yet. Nothing happens where something does, or where
/// `context` is none.
pub fn set_in(context: &Bound<'_, PyAny>, span: &Span<'_>) {
    let context_object = context.as_ptr();
    // SAFETY: attached; a live object, checked to be a context; it is left again at once, on the same thread.
    unsafe {
        if ffi::PyContext_CheckExact(context_object) == 0 {
            return;
        }
        if ffi::PyContext_Enter(context_object) < 0 {
            return ffi::PyErr_Clear();
        }
        set(context.py(), Some(span));
        if ffi::PyContext_Exit(context_object) < 0 {
            ffi::PyErr_Clear();
        }
    }
}

/// CPython 3.11 can crash when a collection runs inside the trie rebuild of a set (python/cpython#148891).
#[inline]
fn without_collection<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(not(Py_3_12))]
    {
        // SAFETY: only called attached; the state is put back.
        let enabled = unsafe { ffi::PyGC_Disable() };
        let result = work();
        if enabled != 0 {
            // SAFETY: as above.
            unsafe { ffi::PyGC_Enable() };
        }
        result
    }
    #[cfg(Py_3_12)]
    work()
}

#[inline]
fn set_variable(value: *mut ffi::PyObject) -> *mut ffi::PyObject {
    USED.store(true, Ordering::Relaxed);
    // SAFETY: attached (all callers hold a token); the variable lives as long as the process.
    let token =
        without_collection(|| unsafe { ffi::PyContextVar_Set(VARIABLE.load(Ordering::Relaxed), value) });
    if token.is_null() {
        // SAFETY: attached.
        unsafe { ffi::PyErr_Clear() };
    }
    token
}

/// A span in force. Leaving it puts back what was in force before.
pub struct Entered<'py> {
    token: *mut ffi::PyObject,
    previous: Option<Span<'py>>,
    py: Python<'py>,
}

impl Drop for Entered<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.token.is_null() {
            return;
        }
        let variable = VARIABLE.load(Ordering::Relaxed);
        // SAFETY: attached; the token is ours. No exception is pending here: `Call` takes an original's exception
        // away before hooks go on.
        let failed = unsafe {
            let result = without_collection(|| ffi::PyContextVar_Reset(variable, self.token));
            ffi::Py_DECREF(self.token);
            result < 0
        };
        if failed {
            // SAFETY: attached.
            unsafe { ffi::PyErr_Clear() };
            RESET_FAILED.fetch_add(1, Ordering::Relaxed);
            set(self.py, self.previous.as_ref());
        }
    }
}
