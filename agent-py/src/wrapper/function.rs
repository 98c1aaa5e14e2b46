//! The wrapper type.

use std::ffi::{CStr, c_int, c_ulong, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyAny;

use super::call::{Call, CallHook};
use crate::breaker::Breaker;
use crate::ffi::{PyMethod_New, TypeSpec, member, method, slot};

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

impl Behaviour for CallHook {
    #[inline]
    fn call(&self, call: &mut Call<'_>) -> super::HookResult {
        self(call)
    }
}

#[repr(C)]
struct Wrapper {
    ob_base: ffi::PyObject,
    vectorcall: ffi::vectorcallfunc,
    wrapped: *mut ffi::PyObject,
    weakrefs: *mut ffi::PyObject,
    /// Fast path: a plain hook needs no dynamic dispatch.
    hook: Option<CallHook>,
    behaviour: Option<Box<dyn Behaviour>>,
    breaker: &'static Breaker,
}

/// Around functions and C methods: the interpreter calls `o.m()` without making a bound method.
static METHOD: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());
/// Around any other callable, which in a class is an ordinary attribute.
static PLAIN: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());

/// # Safety
/// `object` is alive.
#[inline]
unsafe fn is_ours(object: *mut ffi::PyObject) -> bool {
    // SAFETY: by this function's contract.
    let of = unsafe { ffi::Py_TYPE(object) };
    of == METHOD.load(Ordering::Relaxed) || of == PLAIN.load(Ordering::Relaxed)
}

/// Puts a wrapper around a callable.
pub fn wrap<'py>(
    original: &Bound<'py, PyAny>,
    hook: Option<CallHook>,
    behaviour: Option<Box<dyn Behaviour>>,
    breaker: &'static Breaker,
) -> PyResult<Bound<'py, PyAny>> {
    let py = original.py();
    // SAFETY: attached; the fresh object's own fields are written before anyone sees them. `PyType_GenericAlloc`
    // starts tracking it at once, but no collection runs between here and the writes, and null fields are skipped.
    unsafe {
        let flags = ffi::PyType_GetFlags(ffi::Py_TYPE(original.as_ptr()));
        let of = if flags & ffi::Py_TPFLAGS_METHOD_DESCRIPTOR == 0 { &PLAIN } else { &METHOD };
        let object = ffi::PyType_GenericAlloc(of.load(Ordering::Acquire), 0);
        if object.is_null() {
            return Err(PyErr::fetch(py));
        }
        let this: *mut Wrapper = object.cast();
        (&raw mut (*this).vectorcall).write(if hook.is_some() { call_hook } else { call_behaviour });
        (&raw mut (*this).hook).write(hook);
        (&raw mut (*this).behaviour).write(behaviour);
        (&raw mut (*this).breaker).write(breaker);
        (*this).wrapped = original.clone().into_ptr();
        Ok(Bound::from_owned_ptr(py, object))
    }
}

/// Whether an object is a wrapper of ours.
pub fn is_wrapper(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: a live object.
    unsafe { is_ours(object.as_ptr()) }
}

/// What is inside a wrapper.
pub fn original<'py>(object: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    if !is_wrapper(object) {
        return None;
    }
    let this: *mut Wrapper = object.as_ptr().cast();
    // SAFETY: a wrapper's `wrapped` is set from the start and never changes.
    Some(unsafe { Bound::from_borrowed_ptr(object.py(), (*this).wrapped) })
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
            return ffi::PyObject_Vectorcall((*this).wrapped, args, nargsf, kwnames);
        };
        let py = Python::assume_attached();
        let mut call = Call::new(py, (*this).wrapped, args, nargsf, kwnames);
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
            return ffi::PyObject_Vectorcall((*this).wrapped, args, nargsf, kwnames);
        };
        let py = Python::assume_attached();
        let mut call = Call::new(py, (*this).wrapped, args, nargsf, kwnames);
        guarded((*this).breaker, || behaviour.call(&mut call));
        call.finish()
    }
}

/// Runs a hook; a panic or an error of it is counted and goes no further.
#[inline]
pub fn guarded(breaker: &'static Breaker, work: impl FnOnce() -> super::HookResult) {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => {}
        Ok(Err(fault)) => breaker.fault(&fault.to_string()),
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
    _owner: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: a descriptor slot: attached, live objects, `instance` may be null. What has no `__get__` itself (a
    // built-in function, a partial) does not bind.
    unsafe {
        let binds = (*ffi::Py_TYPE(wrapped(this))).tp_descr_get.is_some();
        if instance.is_null() || instance == ffi::Py_None() || !binds {
            return ffi::Py_NewRef(this);
        }
        PyMethod_New(this, instance)
    }
}

unsafe extern "C" fn traverse(this: *mut ffi::PyObject, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: the collector's slot: a wrapper of ours, whose fields are null or live.
    unsafe {
        let this: *mut Wrapper = this.cast();
        for reference in [(*this).wrapped, ffi::Py_TYPE(this.cast()).cast()] {
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
    // A cycle through a wrapper is broken at its original: functions clear themselves.
    let _ = this;
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
        ffi::Py_XDECREF((*this).wrapped);
        let of = ffi::Py_TYPE(object);
        ffi::PyObject_GC_Del(object.cast());
        ffi::Py_DECREF(of.cast());
    }
}

unsafe fn wrapped(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: only called by slots of the wrapper type.
    unsafe { (*this.cast::<Wrapper>()).wrapped }
}

unsafe extern "C" fn getattro(this: *mut ffi::PyObject, name: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: attribute slot: attached, live objects.
    unsafe {
        let own = ffi::PyObject_GenericGetAttr(this, name);
        if !own.is_null() || ffi::PyErr_ExceptionMatches(ffi::PyExc_AttributeError) == 0 {
            return own;
        }
        ffi::PyErr_Clear();
        ffi::PyObject_GetAttr(wrapped(this), name)
    }
}

unsafe extern "C" fn setattro(
    this: *mut ffi::PyObject,
    name: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
) -> c_int {
    // SAFETY: attribute slot: attached, live objects; a null value deletes, as `PyObject_SetAttr` has it.
    unsafe { ffi::PyObject_SetAttr(wrapped(this), name, value) }
}

unsafe extern "C" fn richcompare(
    this: *mut ffi::PyObject,
    other: *mut ffi::PyObject,
    operation: c_int,
) -> *mut ffi::PyObject {
    // SAFETY: comparison slot: attached, live objects.
    unsafe {
        let inner = if is_ours(other) { wrapped(other) } else { other };
        ffi::PyObject_RichCompare(wrapped(this), inner, operation)
    }
}

unsafe extern "C" fn hash(this: *mut ffi::PyObject) -> ffi::Py_hash_t {
    // SAFETY: hash slot: attached, a wrapper.
    unsafe { ffi::PyObject_Hash(wrapped(this)) }
}

unsafe extern "C" fn repr(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: repr slot: attached, a wrapper.
    unsafe { ffi::PyObject_Repr(wrapped(this)) }
}

unsafe extern "C" fn str(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: str slot: attached, a wrapper.
    unsafe { ffi::PyObject_Str(wrapped(this)) }
}

unsafe extern "C" fn get_wrapped(this: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: getter: attached, a wrapper.
    unsafe { ffi::Py_NewRef(wrapped(this)) }
}

unsafe extern "C" fn get_class(this: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: getter: attached, a wrapper.
    unsafe { ffi::Py_NewRef(ffi::Py_TYPE(wrapped(this)).cast()) }
}

/// Attributes that the type object itself has, and that would therefore hide the original's. `closure` is the name.
unsafe extern "C" fn get_from_wrapped(this: *mut ffi::PyObject, closure: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: getter: attached, a wrapper; `closure` is one of the C strings below.
    unsafe { ffi::PyObject_GetAttrString(wrapped(this), closure.cast()) }
}

unsafe extern "C" fn set_on_wrapped(
    this: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    closure: *mut c_void,
) -> c_int {
    // SAFETY: setter: attached, a wrapper; `closure` is one of the C strings below; a null value deletes.
    unsafe {
        if value.is_null() {
            let name = ffi::PyUnicode_FromString(closure.cast());
            if name.is_null() {
                return -1;
            }
            let result = ffi::PyObject_SetAttr(wrapped(this), name, ptr::null_mut());
            ffi::Py_DECREF(name);
            return result;
        }
        ffi::PyObject_SetAttrString(wrapped(this), closure.cast(), value)
    }
}

unsafe extern "C" fn reduce(this: *mut ffi::PyObject, _protocol: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: method: attached, a wrapper. A text means "by name", as for functions.
    unsafe { ffi::PyObject_GetAttrString(wrapped(this), c"__qualname__".as_ptr()) }
}

unsafe extern "C" fn dir(this: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: method: attached, a wrapper.
    unsafe { ffi::PyObject_Dir(wrapped(this)) }
}

/// Makes the types. Once, at load.
pub fn init(py: Python<'_>) -> PyResult<()> {
    METHOD.store(
        create(py, c"remora._native.MethodWrapper", ffi::Py_TPFLAGS_METHOD_DESCRIPTOR)?,
        Ordering::Release,
    );
    PLAIN.store(create(py, c"remora._native.Wrapper", 0)?, Ordering::Release);
    Ok(())
}

fn create(py: Python<'_>, name: &'static CStr, flags: c_ulong) -> PyResult<*mut ffi::PyTypeObject> {
    let delegated = [
        c"__module__",
        c"__doc__",
        c"__name__",
        c"__qualname__",
        c"__annotations__",
        c"__dict__",
        c"__type_params__",
        c"__annotate__",
        c"__text_signature__",
    ];
    let mut getset: Vec<ffi::PyGetSetDef> = delegated
        .iter()
        .map(|name| ffi::PyGetSetDef {
            name: name.as_ptr(),
            get: Some(get_from_wrapped),
            set: Some(set_on_wrapped),
            doc: ptr::null(),
            closure: name.as_ptr().cast_mut().cast(),
        })
        .collect();
    for (name, get) in [(c"__wrapped__", get_wrapped as ffi::getter), (c"__class__", get_class)] {
        getset.push(ffi::PyGetSetDef {
            name: name.as_ptr(),
            get: Some(get),
            set: None,
            doc: ptr::null(),
            closure: ptr::null_mut(),
        });
    }
    let spec = TypeSpec {
        name,
        size: size_of::<Wrapper>(),
        flags: ffi::Py_TPFLAGS_HAVE_GC
            | ffi::Py_TPFLAGS_HAVE_VECTORCALL
            | flags
            | ffi::Py_TPFLAGS_IMMUTABLETYPE
            | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION,
        slots: vec![
            slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut c_void),
            slot(ffi::Py_tp_descr_get, descr_get as *mut c_void),
            slot(ffi::Py_tp_traverse, traverse as *mut c_void),
            slot(ffi::Py_tp_clear, clear as *mut c_void),
            slot(ffi::Py_tp_dealloc, dealloc as *mut c_void),
            slot(ffi::Py_tp_getattro, getattro as *mut c_void),
            slot(ffi::Py_tp_setattro, setattro as *mut c_void),
            slot(ffi::Py_tp_richcompare, richcompare as *mut c_void),
            slot(ffi::Py_tp_hash, hash as *mut c_void),
            slot(ffi::Py_tp_repr, repr as *mut c_void),
            slot(ffi::Py_tp_str, str as *mut c_void),
        ],
        members: vec![
            member(c"__vectorcalloffset__", std::mem::offset_of!(Wrapper, vectorcall)),
            member(c"__weaklistoffset__", std::mem::offset_of!(Wrapper, weakrefs)),
        ],
        getset,
        methods: vec![
            method(c"__reduce_ex__", reduce, ffi::METH_O),
            method(c"__dir__", dir, ffi::METH_NOARGS),
        ],
    };
    // SAFETY: each function has its slot's signature; the members lie inside `Wrapper`.
    unsafe { spec.create(py) }
}
