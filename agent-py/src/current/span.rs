//! The object that a span is while it is made. It holds an [`ActiveSpan`] and no reference to anything of the
//! application. Some objects are kept for reuse with their buffers, so that a span costs no allocation.

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, Ordering};

use agent_core::local;
use agent_core::span::{ActiveSpan, Parent, SpanSpec};
use pyo3::ffi;
use pyo3::prelude::*;

use super::free;
use super::note::Note;
use crate::ffi::{TypeSpec, slot};

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
pub(super) struct SpanObject {
    ob_base: ffi::PyObject,
    pub(super) next: *mut SpanObject,
    busy: AtomicBool,
    /// The kind of exit and, from the third bit, the layer.
    mark: AtomicU8,
    note: Note,
    span: UnsafeCell<ActiveSpan>,
}

static TYPE: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());

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
        let note = std::mem::replace(&mut (*this).note, Note::new());
        ffi::Py_XDECREF(note.outer.into_inner().cast());
        ffi::Py_XDECREF(note.within.into_inner().cast());
        let of = ffi::Py_TYPE(object);
        if !free::push(this) {
            ptr::drop_in_place((*this).span.get());
            ffi::PyObject_Free(object.cast());
        }
        ffi::Py_DECREF(of.cast());
    }
}

/// Makes the type. Once, at load.
pub(super) fn init(py: Python<'_>) -> PyResult<()> {
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

/// One that has not started.
#[inline]
pub(super) fn allocate(py: Python<'_>) -> Option<Span<'_>> {
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
    pub(super) fn begin(&self, spec: &SpanSpec, parent: Parent<'_>) {
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

    /// Whether `layer` itself has marked it.
    #[inline]
    pub fn is_marked(&self, exit: Exit, layer: u8) -> bool {
        // SAFETY: a live object.
        unsafe { (*self.object).mark.load(Ordering::Relaxed) == exit as u8 | layer << 2 }
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

    /// A span of the application's own that has just started under `parent`: a hook further in is to find the request
    /// or the exit that it lies within.
    #[inline]
    pub fn lie_within(&self, parent: &Span<'py>) {
        // SAFETY: a live object.
        let marked = unsafe { (*parent.object).mark.load(Ordering::Relaxed) } != 0;
        let within = if marked || parent.note().subject.load(Ordering::Relaxed) != 0 {
            parent.object
        } else {
            parent.note().within.load(Ordering::Acquire)
        };
        if !within.is_null() {
            // SAFETY: attached; a live object, which `parent` is or keeps alive. Nothing is there yet: the span is new.
            unsafe { ffi::Py_INCREF(within.cast()) };
            self.note().within.store(within, Ordering::Release);
        }
    }

    /// The span that a hook made: this one or, where it is the application's own, the one that it lies within.
    #[inline]
    pub(super) fn of_hook(self) -> Self {
        let within = self.note().within.load(Ordering::Acquire);
        if within.is_null() {
            return self;
        }
        // SAFETY: attached; a live object, which `self` keeps alive until it is given up behind this.
        unsafe { ffi::Py_INCREF(within.cast()) };
        Span { object: within, py: self.py }
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

    /// The object, borrowed.
    #[inline]
    pub(super) fn as_ptr(&self) -> *mut ffi::PyObject {
        self.object.cast()
    }

    /// Of what a context variable holds.
    ///
    /// # Safety
    /// `value` is an owned reference, or null.
    #[inline]
    pub(super) unsafe fn from_value(py: Python<'py>, value: *mut ffi::PyObject) -> Option<Self> {
        // SAFETY: attached; by this function's contract.
        unsafe {
            if value.is_null() {
                return None;
            }
            if ffi::Py_TYPE(value) != TYPE.load(Ordering::Relaxed) {
                ffi::Py_DECREF(value);
                return None;
            }
        }
        Some(Self { object: value.cast(), py })
    }

    /// Takes over what another one is marked as.
    pub(super) fn mark_as(&self, other: &Span<'_>) {
        // SAFETY: live objects.
        unsafe { (*self.object).mark.store((*other.object).mark.load(Ordering::Relaxed), Ordering::Relaxed) };
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

    /// Whether both are one span.
    pub fn is(&self, other: &Span<'_>) -> bool {
        self.object == other.object
    }
}
