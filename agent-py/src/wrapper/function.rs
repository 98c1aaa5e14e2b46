//! The wrapper types: calling and binding. What they answer to attributes is in `attributes.rs`.

use std::ffi::{CStr, c_int, c_ulong, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyFunction};

use super::attributes;
use super::call::{Call, CallHook};
use crate::breaker::Breaker;
use crate::current::{Span, StoredSpan};
use crate::ffi::{
    LazyType, PyMethod_New, TypeSpec, clear_field, intern, member, method_parts, slot, type_dict, vectorcall,
};

/// What a wrapper does around its original.
pub trait Behaviour: Send + Sync {
    /// Works around one call.
    fn call(&self, call: &mut Call<'_>) -> super::HookResult;

    /// Visits the Python objects that it holds, for the garbage collector.
    fn traverse(&self, visit: &mut dyn FnMut(*mut ffi::PyObject) -> c_int) -> c_int {
        let _ = visit;
        0
    }
}

#[repr(C)]
pub(super) struct Wrapper {
    ob_base: ffi::PyObject,
    vectorcall: ffi::vectorcallfunc,
    pub(super) wrapped: *mut ffi::PyObject,
    weakrefs: *mut ffi::PyObject,
    /// Fast path: a plain hook needs no dynamic dispatch.
    hook: Option<CallHook>,
    behaviour: Option<Box<dyn Behaviour>>,
    /// Whose the calls are, where the wrapper was made for one span.
    pub(super) span: Option<StoredSpan>,
    breaker: &'static Breaker,
    /// Of a bound callable: the wrapper that it was got from; else null.
    outer: *mut ffi::PyObject,
    /// Of a bound callable: what it is bound to; else null.
    instance: *mut ffi::PyObject,
}

/// One type for each way in which a callable behaves as an attribute of a class.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Around functions and C methods: the interpreter calls `o.m()` without making a bound method.
    Method,
    /// Around a function that a class would make a class or static method of by its name.
    Implicit,
    /// Around what binds in its own way.
    Descriptor,
    /// The same, where it wants to be told the class and its name there.
    Named,
    /// Around what does not bind: a built-in function, a partial, an instance with `__call__`.
    Plain,
    /// Around classes, which are also subclassed, asked by `isinstance` and subscripted.
    Class,
    /// Around what a C method of an instance gives: `cursor.execute`.
    Bound,
}

impl Kind {
    /// # Safety
    /// `original` is alive; attached.
    unsafe fn of(original: *mut ffi::PyObject) -> Self {
        // SAFETY: by this function's contract.
        unsafe {
            let of = ffi::Py_TYPE(original);
            if ffi::PyType_Check(original) != 0 {
                Self::Class
            } else if ffi::PyType_GetFlags(of) & ffi::Py_TPFLAGS_METHOD_DESCRIPTOR != 0 {
                Self::Method
            } else if is_told_its_name(of) {
                Self::Named
            } else if (*of).tp_descr_get.is_some() {
                Self::Descriptor
            } else {
                Self::Plain
            }
        }
    }

    const fn name(self) -> &'static CStr {
        match self {
            Self::Method => c"remora._native.MethodWrapper",
            Self::Implicit => c"remora._native.ImplicitMethodWrapper",
            Self::Descriptor => c"remora._native.DescriptorWrapper",
            Self::Named => c"remora._native.NamedDescriptorWrapper",
            Self::Plain => c"remora._native.Wrapper",
            Self::Class => c"remora._native.ClassWrapper",
            Self::Bound => c"remora._native.BoundWrapper",
        }
    }
}

/// Whether a type's objects have `__set_name__`. What is callable and compiled in has none.
///
/// # Safety
/// `of` is a ready type; attached.
unsafe fn is_told_its_name(of: *mut ffi::PyTypeObject) -> bool {
    // SAFETY: by this function's contract; a resolution order is a tuple of ready types that its type keeps alive.
    unsafe {
        let order = (*of).tp_mro;
        if ffi::PyType_GetFlags(of) & ffi::Py_TPFLAGS_HEAPTYPE == 0 || order.is_null() {
            return false;
        }
        let name = intern!(Python::assume_attached(), "__set_name__").as_ptr();
        (0..ffi::PyTuple_Size(order)).any(|at| {
            let dict = type_dict(ffi::PyTuple_GetItem(order, at).cast());
            !dict.is_null() && ffi::PyDict_Contains(dict, name) == 1
        })
    }
}

static TYPES: [LazyType; 7] = [
    LazyType::new(|py| create(py, Kind::Method)),
    LazyType::new(|py| create(py, Kind::Implicit)),
    LazyType::new(|py| create(py, Kind::Descriptor)),
    LazyType::new(|py| create(py, Kind::Named)),
    LazyType::new(|py| create(py, Kind::Plain)),
    LazyType::new(|py| create(py, Kind::Class)),
    LazyType::new(|py| create(py, Kind::Bound)),
];

/// # Safety
/// `object` is alive.
#[inline]
pub(super) unsafe fn is_ours(object: *mut ffi::PyObject) -> bool {
    // SAFETY: by this function's contract.
    let of = unsafe { ffi::Py_TYPE(object) };
    TYPES.iter().any(|kind| kind.peek() == of)
}

/// The original, borrowed.
///
/// # Safety
/// `this` is a wrapper.
#[inline]
pub(super) unsafe fn wrapped(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: by this function's contract.
    unsafe { (*this.cast::<Wrapper>()).wrapped }
}

/// A wrapper that does nothing yet. Takes over the reference to `original`.
///
/// # Safety
/// Attached; `original` is an owned reference.
unsafe fn allocate(
    py: Python<'_>,
    kind: Kind,
    original: *mut ffi::PyObject,
    vectorcall: ffi::vectorcallfunc,
    breaker: &'static Breaker,
) -> PyResult<*mut Wrapper> {
    // SAFETY: attached; the fresh object's own fields are written before anyone sees them. `PyType_GenericAlloc` fills
    // with zeros, which stand for null and `None`, and starts tracking at once, but no collection runs before the
    // writes.
    unsafe {
        let object = match TYPES[kind as usize].allocate(py) {
            Ok(object) => object,
            Err(error) => {
                ffi::Py_DECREF(original);
                return Err(error);
            }
        };
        let this: *mut Wrapper = object.cast();
        (&raw mut (*this).vectorcall).write(vectorcall);
        (&raw mut (*this).hook).write(None);
        (&raw mut (*this).behaviour).write(None);
        (&raw mut (*this).span).write(None);
        (&raw mut (*this).breaker).write(breaker);
        (*this).wrapped = original;
        Ok(this)
    }
}

/// Puts a wrapper around a callable.
pub fn wrap<'py>(
    original: &Bound<'py, PyAny>,
    hook: Option<CallHook>,
    behaviour: Option<Box<dyn Behaviour>>,
    breaker: &'static Breaker,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: a live object.
    let kind = unsafe { Kind::of(original.as_ptr()) };
    wrap_as(kind, original, hook, behaviour, breaker)
}

/// As [`wrap`], for the calls that belong to `span`: the hook finds it by [`Call::span`].
pub fn wrap_for<'py>(
    original: &Bound<'py, PyAny>,
    hook: CallHook,
    span: &Span<'py>,
    breaker: &'static Breaker,
) -> PyResult<Bound<'py, PyAny>> {
    let made = wrap(original, Some(hook), None, breaker)?;
    // SAFETY: a fresh wrapper, which nobody else has seen yet.
    unsafe { (*made.as_ptr().cast::<Wrapper>()).span = Some(span.clone().store()) };
    Ok(made)
}

/// As [`wrap`] around a function that a class which has it by one of the names of [`IMPLICIT`] would make a class or
/// static method of, since it is a function: the wrapper asks to be made one.
pub fn wrap_implicit<'py>(
    original: &Bound<'py, PyFunction>,
    behaviour: Box<dyn Behaviour>,
    breaker: &'static Breaker,
) -> PyResult<Bound<'py, PyAny>> {
    wrap_as(Kind::Implicit, original, None, Some(behaviour), breaker)
}

/// What `type.__new__` makes class methods of, and last what it makes a static method of.
pub const IMPLICIT: [&str; 3] = ["__init_subclass__", "__class_getitem__", "__new__"];

fn wrap_as<'py>(
    kind: Kind,
    original: &Bound<'py, PyAny>,
    hook: Option<CallHook>,
    behaviour: Option<Box<dyn Behaviour>>,
    breaker: &'static Breaker,
) -> PyResult<Bound<'py, PyAny>> {
    let py = original.py();
    let vectorcall = if hook.is_some() { call_hook } else { call_behaviour };
    // SAFETY: attached, a reference of our own; the wrapper is complete before it is handed out.
    unsafe {
        let this = allocate(py, kind, original.clone().into_ptr(), vectorcall, breaker)?;
        (*this).hook = hook;
        (*this).behaviour = behaviour;
        Ok(Bound::from_owned_ptr(py, this.cast()))
    }
}

/// Makes a wrapper do nothing any more, where it cannot be taken out because others hold it.
pub fn disarm(object: &Bound<'_, PyAny>) {
    if is_wrapper(object) {
        let this: *mut Wrapper = object.as_ptr().cast();
        // SAFETY: a wrapper. The field is one word that is only ever one of our functions, all of which hold for this
        // wrapper; the rest stays, since a call may be on its way.
        unsafe { (*this).vectorcall = pass_through };
    }
}

/// Whether an object is a wrapper of ours.
pub fn is_wrapper(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: a live object.
    unsafe { is_ours(object.as_ptr()) }
}

unsafe extern "C" fn pass_through(
    callable: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargsf: usize,
    kwnames: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls this slot with a wrapper and a vectorcall's arguments, passed on as they came.
    unsafe { vectorcall(wrapped(callable), args, nargsf, kwnames) }
}

unsafe extern "C" fn call_hook(
    callable: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargsf: usize,
    kwnames: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    let this: *mut Wrapper = callable.cast();
    // SAFETY: the interpreter calls this slot attached, with a wrapper and a vectorcall's arguments. Attaching anew
    // would abort under 3.15's `site` (PyO3 asks `Py_IsInitialized`).
    unsafe {
        let Some(hook) = (*this).hook.filter(|_| !(*this).breaker.is_open()) else {
            return vectorcall((*this).wrapped, args, nargsf, kwnames);
        };
        let py = Python::assume_attached();
        let mut call = Call::new(py, this, args, nargsf, kwnames);
        guarded((*this).breaker, || hook(&mut call));
        call.finish()
    }
}

unsafe extern "C" fn call_behaviour(
    callable: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargsf: usize,
    kwnames: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    let this: *mut Wrapper = callable.cast();
    // SAFETY: as in `call_hook`. The caller holds a reference to the wrapper, so its behaviour lives through the call.
    unsafe {
        let Some(behaviour) = (*this).behaviour.as_deref().filter(|_| !(*this).breaker.is_open()) else {
            return vectorcall((*this).wrapped, args, nargsf, kwnames);
        };
        let py = Python::assume_attached();
        let mut call = Call::new(py, this, args, nargsf, kwnames);
        guarded((*this).breaker, || behaviour.call(&mut call));
        call.finish()
    }
}

/// Through a bound callable: the hook sees the arguments with the instance in front, as it would through the class.
unsafe extern "C" fn call_bound(
    callable: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    nargsf: usize,
    kwnames: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    let this: *mut Wrapper = callable.cast();
    // SAFETY: as in `call_hook`; `outer` is a wrapper, or null once the collector has cleared this one. The copied
    // arguments live as long as the caller's.
    unsafe {
        let outer: *mut Wrapper = (*this).outer.cast();
        if outer.is_null() || (*outer).vectorcall as usize == pass_through as *const () as usize {
            return vectorcall((*this).wrapped, args, nargsf, kwnames);
        }
        let positional = nargsf & !ffi::PY_VECTORCALL_ARGUMENTS_OFFSET;
        let names = if kwnames.is_null() { 0 } else { ffi::PyTuple_Size(kwnames).unsigned_abs() };
        let mut all: smallvec::SmallVec<[*mut ffi::PyObject; 8]> = smallvec::SmallVec::new();
        all.push((*this).instance);
        if positional + names > 0 {
            all.extend_from_slice(std::slice::from_raw_parts(args, positional + names));
        }
        let py = Python::assume_attached();
        let mut call = Call::new_bound(py, outer, (*this).wrapped, all.as_ptr(), positional + 1, kwnames);
        let breaker = (*outer).breaker;
        if !breaker.is_open() {
            guarded(breaker, || match ((*outer).hook, (*outer).behaviour.as_deref()) {
                (Some(hook), _) => hook(&mut call),
                (None, Some(behaviour)) => behaviour.call(&mut call),
                (None, None) => Ok(()),
            });
        }
        call.finish()
    }
}

/// Runs a hook; a panic or an error of it is counted and goes no further.
#[inline]
pub fn guarded(breaker: &'static Breaker, work: impl FnOnce() -> super::HookResult) {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => {}
        // SAFETY: hooks run in slots, attached.
        Ok(Err(fault)) => fault.count(unsafe { Python::assume_attached() }, breaker),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            breaker.fault(&format!("panic: {}", text.as_deref().unwrap_or("unknown")));
        }
    }
}

unsafe extern "C" fn descr_get(
    this: *mut ffi::PyObject,
    instance: *mut ffi::PyObject,
    owner: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: a descriptor slot: attached, live objects, `instance` and `owner` may be null.
    unsafe {
        let wrapped = wrapped(this);
        let of = ffi::Py_TYPE(wrapped);
        if of == &raw mut ffi::PyFunction_Type {
            if instance.is_null() || instance == ffi::Py_None() {
                return ffi::Py_NewRef(this);
            }
            return PyMethod_New(this, instance);
        }
        let Some(get) = (*of).tp_descr_get else { return ffi::Py_NewRef(this) };
        let bound = get(wrapped, instance, owner);
        if bound.is_null() {
            return bound;
        }
        if bound == wrapped {
            ffi::Py_DECREF(bound);
            return ffi::Py_NewRef(this);
        }
        if let Some((function, on)) = method_parts(bound)
            && function == wrapped
        {
            let method = PyMethod_New(this, on);
            ffi::Py_DECREF(bound);
            return method;
        }
        bind(this, bound, if instance.is_null() { owner } else { instance })
    }
}

/// A wrapper around what an original gave when it was bound. Takes over the reference to `bound`.
///
/// # Safety
/// Attached; `this` is a wrapper, `instance` alive or null.
unsafe fn bind(
    this: *mut ffi::PyObject,
    bound: *mut ffi::PyObject,
    instance: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: by this function's contract; a C method knows what it is bound to (for a class method not the instance).
    unsafe {
        let on = if ffi::PyCFunction_Check(bound) != 0 { ffi::PyCFunction_GetSelf(bound) } else { instance };
        if on.is_null() || ffi::PyCallable_Check(bound) == 0 {
            return bound;
        }
        let outer: *mut Wrapper = this.cast();
        let py = Python::assume_attached();
        match allocate(py, Kind::Bound, bound, call_bound, (*outer).breaker) {
            Ok(made) => {
                (*made).outer = ffi::Py_NewRef(this);
                (*made).instance = ffi::Py_NewRef(on);
                made.cast()
            }
            Err(error) => {
                error.restore(py);
                ptr::null_mut()
            }
        }
    }
}

unsafe extern "C" fn traverse(this: *mut ffi::PyObject, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: the collector's slot: a wrapper of ours, whose fields are null or live.
    unsafe {
        let this: *mut Wrapper = this.cast();
        let of = ffi::Py_TYPE(this.cast()).cast();
        for reference in [(*this).wrapped, (*this).outer, (*this).instance, of] {
            if !reference.is_null() {
                let result = visit(reference, arg);
                if result != 0 {
                    return result;
                }
            }
        }
        match &(*this).behaviour {
            Some(behaviour) => behaviour.traverse(&mut |object| visit(object, arg)),
            None => 0,
        }
    }
}

unsafe extern "C" fn clear(this: *mut ffi::PyObject) -> c_int {
    // A cycle through a wrapper is broken at its original, since functions clear themselves, or here where an instance
    // holds its own bound method. `wrapped` stays: a wrapper that is still reachable by a finaliser must answer.
    let this: *mut Wrapper = this.cast();
    // SAFETY: the collector's slot: a wrapper, whose fields are null or owned.
    unsafe {
        clear_field(&raw mut (*this).outer);
        clear_field(&raw mut (*this).instance);
    }
    0
}

unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
    let this: *mut Wrapper = object.cast();
    // SAFETY: called once with the last reference gone; the order is the one that the C API asks for.
    unsafe {
        ffi::PyObject_GC_UnTrack(object.cast());
        if !(*this).weakrefs.is_null() {
            ffi::PyObject_ClearWeakRefs(object);
        }
        ptr::drop_in_place(&raw mut (*this).behaviour);
        ptr::drop_in_place(&raw mut (*this).span);
        ffi::Py_XDECREF((*this).wrapped);
        ffi::Py_XDECREF((*this).outer);
        ffi::Py_XDECREF((*this).instance);
        let of = ffi::Py_TYPE(object);
        ffi::PyObject_GC_Del(object.cast());
        ffi::Py_DECREF(of.cast());
    }
}

fn create(py: Python<'_>, kind: Kind) -> PyResult<*mut ffi::PyTypeObject> {
    let mut slots = vec![
        slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut c_void),
        slot(ffi::Py_tp_traverse, traverse as *mut c_void),
        slot(ffi::Py_tp_clear, clear as *mut c_void),
        slot(ffi::Py_tp_dealloc, dealloc as *mut c_void),
    ];
    let mut flags: c_ulong = 0;
    match kind {
        Kind::Method | Kind::Implicit => {
            flags = ffi::Py_TPFLAGS_METHOD_DESCRIPTOR;
            slots.push(slot(ffi::Py_tp_descr_get, descr_get as *mut c_void));
        }
        Kind::Descriptor | Kind::Named => slots.push(slot(ffi::Py_tp_descr_get, descr_get as *mut c_void)),
        Kind::Plain | Kind::Class | Kind::Bound => {}
    }
    attributes::add_slots(kind, &mut slots);
    let spec = TypeSpec {
        name: kind.name(),
        size: size_of::<Wrapper>(),
        flags: ffi::Py_TPFLAGS_HAVE_GC
            | ffi::Py_TPFLAGS_HAVE_VECTORCALL
            | flags
            | ffi::Py_TPFLAGS_IMMUTABLETYPE
            | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION,
        slots,
        members: vec![
            member(c"__vectorcalloffset__", std::mem::offset_of!(Wrapper, vectorcall)),
            member(c"__weaklistoffset__", std::mem::offset_of!(Wrapper, weakrefs)),
        ],
        getset: attributes::getset(kind),
        methods: attributes::methods(kind),
    };
    // SAFETY: each function has its slot's signature; the members lie inside `Wrapper`.
    unsafe { spec.create(py) }
}
