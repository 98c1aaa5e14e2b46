//! What a wrapper answers to attributes, comparison, `repr`, `pickle` and the like: what its original answers.

use std::ffi::{c_int, c_void};
use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;

use super::function::{IMPLICIT, Kind, is_ours, wrapped};
use crate::ffi::{fastcall, method, slot, type_dict, utf8};

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

unsafe extern "C" fn or(left: *mut ffi::PyObject, right: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: number slot: attached, live objects, at least one of them a wrapper: types make a union.
    unsafe {
        let inner = |side| if is_ours(side) { wrapped(side) } else { side };
        ffi::PyNumber_Or(inner(left), inner(right))
    }
}

unsafe extern "C" fn subscript(this: *mut ffi::PyObject, key: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: mapping slot: attached, a wrapper of a class.
    unsafe { ffi::PyObject_GetItem(wrapped(this), key) }
}

unsafe extern "C" fn get_wrapped(this: *mut ffi::PyObject, _: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: getter: attached, a wrapper.
    unsafe { ffi::Py_NewRef(wrapped(this)) }
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
        let name = ffi::PyUnicode_FromString(closure.cast());
        if name.is_null() {
            return -1;
        }
        let result = ffi::PyObject_SetAttr(wrapped(this), name, value);
        ffi::Py_DECREF(name);
        result
    }
}

unsafe extern "C" fn reduce(this: *mut ffi::PyObject, protocol: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: method: attached, a wrapper. A text means "by name", as `pickle` and `copy` do with functions and
    // classes, whose own `__reduce_ex__` does not serve. Everything else knows itself how it is made again.
    unsafe {
        let wrapped = wrapped(this);
        if ffi::PyFunction_Check(wrapped) != 0 || ffi::PyType_Check(wrapped) != 0 {
            return ffi::PyObject_GetAttrString(wrapped, c"__qualname__".as_ptr());
        }
        let own = ffi::PyObject_GetAttrString(wrapped, c"__reduce_ex__".as_ptr());
        if own.is_null() {
            return own;
        }
        let result = ffi::PyObject_CallOneArg(own, protocol);
        ffi::Py_DECREF(own);
        result
    }
}

unsafe extern "C" fn dir(this: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: method: attached, a wrapper.
    unsafe { ffi::PyObject_Dir(wrapped(this)) }
}

/// A bound method of a C type is one value, which copies to itself.
unsafe extern "C" fn itself(this: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: method: attached, a live object.
    unsafe { ffi::Py_NewRef(this) }
}

unsafe extern "C" fn mro_entries(this: *mut ffi::PyObject, _bases: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: method: attached, a wrapper; a tuple of one borrowed object.
    unsafe { ffi::PyTuple_Pack(1, wrapped(this)) }
}

unsafe extern "C" fn instance_check(
    this: *mut ffi::PyObject,
    instance: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: method: attached, a wrapper of a class.
    unsafe { truth(ffi::PyObject_IsInstance(instance, wrapped(this))) }
}

unsafe extern "C" fn subclass_check(
    this: *mut ffi::PyObject,
    class: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: method: attached, a wrapper of a class.
    unsafe {
        let inner = if is_ours(class) { wrapped(class) } else { class };
        truth(ffi::PyObject_IsSubclass(inner, wrapped(this)))
    }
}

/// A class says where it has the wrapper: in the place of a function that it would have made a method of.
unsafe extern "C" fn set_name(
    this: *mut ffi::PyObject,
    args: *mut *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    // SAFETY: method: attached, a wrapper, `count` live arguments. A class is ready when it calls this; what its
    // dictionary has is borrowed and is `this`, which the caller holds.
    unsafe {
        if count == 2 && ffi::PyType_Check(*args) != 0 {
            let (class, name) = (*args, *args.add(1));
            let dict = type_dict(class.cast());
            let is_there = !dict.is_null() && ffi::PyDict_GetItemWithError(dict, name) == this;
            let text = Bound::from_borrowed_ptr(Python::assume_attached(), name);
            let text = text.cast::<PyString>().ok().and_then(utf8);
            if let Some(at) = IMPLICIT.iter().position(|known| is_there && text == Some(known)) {
                let make =
                    if at + 1 == IMPLICIT.len() { ffi::PyStaticMethod_New } else { ffi::PyClassMethod_New };
                let made = make(this);
                if made.is_null() {
                    return made;
                }
                let result = ffi::PyObject_SetAttr(class, name, made);
                ffi::Py_DECREF(made);
                if result < 0 {
                    return ptr::null_mut();
                }
            }
        }
        if ffi::PyErr_Occurred().is_null() { ffi::Py_NewRef(ffi::Py_None()) } else { ptr::null_mut() }
    }
}

fn truth(answer: c_int) -> *mut ffi::PyObject {
    // SAFETY: only called by slots, attached.
    if answer < 0 { ptr::null_mut() } else { unsafe { ffi::PyBool_FromLong(answer.into()) } }
}

pub(super) fn add_slots(kind: Kind, slots: &mut Vec<ffi::PyType_Slot>) {
    slots.extend([
        slot(ffi::Py_tp_getattro, getattro as *mut c_void),
        slot(ffi::Py_tp_setattro, setattro as *mut c_void),
        slot(ffi::Py_tp_richcompare, richcompare as *mut c_void),
        slot(ffi::Py_tp_hash, hash as *mut c_void),
        slot(ffi::Py_tp_repr, repr as *mut c_void),
        slot(ffi::Py_tp_str, str as *mut c_void),
    ]);
    if matches!(kind, Kind::Class) {
        slots.push(slot(ffi::Py_nb_or, or as *mut c_void));
        slots.push(slot(ffi::Py_mp_subscript, subscript as *mut c_void));
    }
}

pub(super) fn methods(kind: Kind) -> Vec<ffi::PyMethodDef> {
    let mut methods =
        vec![method(c"__reduce_ex__", reduce, ffi::METH_O), method(c"__dir__", dir, ffi::METH_NOARGS)];
    match kind {
        Kind::Bound => methods.extend([
            method(c"__copy__", itself, ffi::METH_NOARGS),
            method(c"__deepcopy__", itself, ffi::METH_O),
        ]),
        Kind::Class => methods.extend([
            method(c"__mro_entries__", mro_entries, ffi::METH_O),
            method(c"__instancecheck__", instance_check, ffi::METH_O),
            method(c"__subclasscheck__", subclass_check, ffi::METH_O),
        ]),
        Kind::Implicit => methods.push(fastcall(c"__set_name__", set_name)),
        Kind::Method | Kind::Descriptor | Kind::Named | Kind::Plain => {}
    }
    methods
}

pub(super) fn getset(kind: Kind) -> Vec<ffi::PyGetSetDef> {
    let mut delegated = vec![
        c"__class__",
        c"__module__",
        c"__doc__",
        c"__name__",
        c"__qualname__",
        // Up to 3.13, asking a heap type for its annotations leaves an empty dictionary in it, which would then stand
        // before every original's.
        c"__annotations__",
        c"__dict__",
        c"__type_params__",
        c"__annotate__",
        c"__text_signature__",
    ];
    if matches!(kind, Kind::Named) {
        // Looked for on the type alone.
        delegated.push(c"__set_name__");
    }
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
    getset.push(ffi::PyGetSetDef {
        name: c"__wrapped__".as_ptr(),
        get: Some(get_wrapped),
        set: None,
        doc: ptr::null(),
        closure: ptr::null_mut(),
    });
    getset
}
