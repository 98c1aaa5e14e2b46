//! Objects that stand for another one: what they lack themselves, that one answers.

use std::ffi::{CStr, c_int, c_ulong, c_void};
use std::ptr;

use pyo3::ffi;

use crate::ffi::{TypeSpec, member, method, slot};

/// Flags of the types that follow something in steps.
pub(super) const FLAGS: c_ulong =
    ffi::Py_TPFLAGS_HAVE_GC | ffi::Py_TPFLAGS_IMMUTABLETYPE | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;

/// How each of these objects begins.
#[repr(C)]
pub(super) struct Delegate {
    pub(super) ob_base: ffi::PyObject,
    /// What it stands for; null once the collector has cleared it.
    pub(super) inner: *mut ffi::PyObject,
}

/// What `this` stands for, borrowed; `None` stands for what is gone.
///
/// # Safety
/// `this` begins as a [`Delegate`]; attached.
unsafe fn inner(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: by this function's contract.
    unsafe {
        let inner = (*this.cast::<Delegate>()).inner;
        if inner.is_null() { ffi::Py_None() } else { inner }
    }
}

unsafe extern "C" fn getattro(this: *mut ffi::PyObject, name: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: attribute slot: attached, live objects.
    unsafe {
        let own = ffi::PyObject_GenericGetAttr(this, name);
        if !own.is_null() || ffi::PyErr_ExceptionMatches(ffi::PyExc_AttributeError) == 0 {
            return own;
        }
        ffi::PyErr_Clear();
        ffi::PyObject_GetAttr(inner(this), name)
    }
}

unsafe extern "C" fn setattro(
    this: *mut ffi::PyObject,
    name: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
) -> c_int {
    // SAFETY: attribute slot: attached, live objects; a null value deletes.
    unsafe { ffi::PyObject_SetAttr(inner(this), name, value) }
}

unsafe extern "C" fn repr(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: repr slot: attached.
    unsafe { ffi::PyObject_Repr(inner(this)) }
}

unsafe extern "C" fn get(this: *mut ffi::PyObject, closure: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: getter: attached; `closure` is one of the C strings below.
    unsafe { ffi::PyObject_GetAttrString(inner(this), closure.cast()) }
}

unsafe extern "C" fn set(this: *mut ffi::PyObject, value: *mut ffi::PyObject, closure: *mut c_void) -> c_int {
    // SAFETY: setter: attached; `closure` is one of the C strings below; a null value deletes.
    unsafe {
        let name = ffi::PyUnicode_FromString(closure.cast());
        if name.is_null() {
            return -1;
        }
        let result = ffi::PyObject_SetAttr(inner(this), name, value);
        ffi::Py_DECREF(name);
        result
    }
}

unsafe extern "C" fn reduce(this: *mut ffi::PyObject, protocol: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: method: attached.
    unsafe {
        let own = ffi::PyObject_GetAttrString(inner(this), c"__reduce_ex__".as_ptr());
        if own.is_null() {
            return own;
        }
        let result = ffi::PyObject_CallOneArg(own, protocol);
        ffi::Py_DECREF(own);
        result
    }
}

unsafe extern "C" fn dir(this: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: method: attached.
    unsafe { ffi::PyObject_Dir(inner(this)) }
}

/// Slots for attributes.
pub(super) fn slots() -> [ffi::PyType_Slot; 3] {
    [
        slot(ffi::Py_tp_getattro, getattro as *mut c_void),
        slot(ffi::Py_tp_setattro, setattro as *mut c_void),
        slot(ffi::Py_tp_repr, repr as *mut c_void),
    ]
}

/// What a type has itself and must not answer.
pub(super) fn getset() -> Vec<ffi::PyGetSetDef> {
    [c"__class__", c"__doc__", c"__module__", c"__name__", c"__qualname__"]
        .iter()
        .map(|name| ffi::PyGetSetDef {
            name: name.as_ptr(),
            get: Some(get),
            set: Some(set),
            doc: ptr::null(),
            closure: name.as_ptr().cast_mut().cast(),
        })
        .collect()
}

/// Methods of all these types.
pub(super) fn methods() -> Vec<ffi::PyMethodDef> {
    vec![method(c"__reduce_ex__", reduce, ffi::METH_O), method(c"__dir__", dir, ffi::METH_NOARGS)]
}

/// Visits what is not null.
///
/// # Safety
/// The references are null or live; `visit` and `arg` are the collector's.
pub(super) unsafe fn visit_all(
    references: &[*mut ffi::PyObject],
    visit: ffi::visitproc,
    arg: *mut c_void,
) -> c_int {
    for reference in references.iter().copied().filter(|reference| !reference.is_null()) {
        // SAFETY: by this function's contract.
        let result = unsafe { visit(reference, arg) };
        if result != 0 {
            return result;
        }
    }
    0
}

/// A method's arguments.
///
/// # Safety
/// A fast call's own arguments.
pub(super) unsafe fn arguments<'a>(
    args: *mut *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
) -> &'a [*mut ffi::PyObject] {
    if count <= 0 {
        return &[];
    }
    // SAFETY: by this function's contract.
    unsafe { std::slice::from_raw_parts(args, count.unsigned_abs()) }
}

/// A type that stands for what it wraps: what every such type has, and `slots` and `methods` of its own.
pub fn spec(
    name: &'static CStr,
    size: usize,
    weakrefs: usize,
    own_slots: &[ffi::PyType_Slot],
    own_methods: impl IntoIterator<Item = ffi::PyMethodDef>,
) -> TypeSpec {
    let mut slots = own_slots.to_vec();
    slots.extend(self::slots());
    let mut methods = self::methods();
    methods.extend(own_methods);
    TypeSpec {
        name,
        size,
        flags: FLAGS,
        slots,
        members: vec![member(c"__weaklistoffset__", weakrefs)],
        getset: getset(),
        methods,
    }
}
