//! Putting a wrapper in the place of an attribute, and taking it out again.
//!
//! Only what lies in a module's or a class's own dictionary is looked at: nothing is imported, no lazy name is made
//! to resolve, no descriptor runs.

use pyo3::exceptions::{PyAttributeError, PyTypeError};
use pyo3::ffi as py_ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyType};

use crate::ffi;
use crate::ffi::intern;

/// Makes the replacement of a callable.
pub type Make<'a, 'py> = &'a dyn Fn(&Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>>;

/// As [`Make`]; told whether the first argument is what the callable is called on.
pub type MakeAs<'a, 'py> = &'a dyn Fn(&Bound<'py, PyAny>, bool) -> PyResult<Bound<'py, PyAny>>;

/// A replaced attribute.
pub struct Site {
    owner: Py<PyAny>,
    name: Py<PyString>,
    original: Py<PyAny>,
    replacement: Py<PyAny>,
}

impl Site {
    /// The Python objects that it holds, for the garbage collector.
    pub fn objects(&self) -> [&Py<PyAny>; 3] {
        [&self.owner, &self.original, &self.replacement]
    }

    /// Replaces `path` (dotted, below `module`).
    ///
    /// # Errors
    /// `AttributeError` where the module has no such attribute of its own, `TypeError` where it is no callable;
    /// whatever `make` raises.
    pub fn replace<'py>(module: &Bound<'py, PyAny>, path: &str, make: Make<'_, 'py>) -> PyResult<Self> {
        Self::replace_as(module, path, &|original, _| make(original))
    }

    /// As [`Self::replace`].
    ///
    /// # Errors
    /// As [`Self::replace`].
    pub fn replace_as<'py>(module: &Bound<'py, PyAny>, path: &str, make: MakeAs<'_, 'py>) -> PyResult<Self> {
        let py = module.py();
        let mut owner = module.clone();
        let mut names = path.split('.').peekable();
        while let Some(part) = names.next() {
            let name = PyString::intern(py, part);
            let (definer, value) = own_attribute(&owner, &name)?;
            if names.peek().is_some() {
                owner = value;
                continue;
            }
            let method = definer.is_instance_of::<PyType>() && value.get_type().name()? != "staticmethod";
            let replacement = rebuild(&value, &|original| make(original, method))?;
            if replacement.is(&value) {
                return Err(PyTypeError::new_err(format!("'{name}' has nothing to call")));
            }
            set(&definer, &name, &replacement)?;
            return Ok(Self {
                owner: definer.unbind(),
                name: name.unbind(),
                original: value.unbind(),
                replacement: replacement.unbind(),
            });
        }
        Err(PyAttributeError::new_err("no attribute named"))
    }

    /// Whether there is something at `path`, for [`Self::replace`] to replace.
    pub fn is_there(module: &Bound<'_, PyAny>, path: &str) -> bool {
        let py = module.py();
        let mut owner = module.clone();
        path.split('.').all(|part| {
            let found = ffi::quiet(py, own_attribute(&owner, &PyString::intern(py, part)));
            found.map(|(_, value)| owner = value).is_some()
        })
    }

    /// Puts the identical original back, unless somebody else has replaced ours meanwhile. Says whether it did.
    pub fn restore(&self, py: Python<'_>) -> PyResult<bool> {
        let owner = self.owner.bind(py);
        let name = self.name.bind(py);
        match own_attribute(owner, name) {
            Ok((_, now)) if now.is(&self.replacement) => {
                set(owner, name, self.original.bind(py))?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

/// The attribute as it lies in a dictionary, and the object in whose dictionary that is: for a class, the class of
/// its resolution order that defines it.
fn own_attribute<'py>(
    owner: &Bound<'py, PyAny>,
    name: &Bound<'py, PyString>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let py = owner.py();
    if let Ok(class) = owner.cast::<PyType>() {
        for base in class.mro().iter() {
            // SAFETY: the resolution order holds ready types; attached.
            let dict = unsafe { ffi::type_dict(base.as_ptr().cast()) };
            // SAFETY: a borrowed dictionary that its type keeps alive.
            if let Some(dict) = unsafe { Bound::from_borrowed_ptr_or_opt(py, dict) }
                && let Some(value) = dict.cast::<PyDict>()?.get_item(name)?
            {
                return Ok((base, value));
            }
        }
    } else if let Some(value) = own_names(owner)?.get_item(name)? {
        if ffi::is_lazy_import(&value) {
            return Err(PyAttributeError::new_err(format!("'{name}' is a lazy import of another module")));
        }
        return Ok((owner.clone(), value));
    }
    Err(PyAttributeError::new_err(format!("{} has no attribute '{name}'", describe(owner))))
}

/// The dictionary of what is no class. Of a module without asking it: a lazy one would run.
fn own_names<'py>(owner: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
    match owner.cast::<PyModule>() {
        Ok(module) => Ok(module.dict()),
        Err(_) => Ok(owner.getattr(intern!(owner.py(), "__dict__"))?.cast_into::<PyDict>()?),
    }
}

fn describe(object: &Bound<'_, PyAny>) -> String {
    object
        .getattr(intern!(object.py(), "__name__"))
        .and_then(|name| name.extract::<String>())
        .unwrap_or_else(|_| "object".to_owned())
}

/// Wraps what is inside a descriptor and makes the same kind of descriptor around it. A property that cannot be read
/// has nothing inside: it comes back itself.
///
/// # Errors
/// `TypeError` where there is nothing to call; whatever `make` raises.
pub fn rebuild<'py>(value: &Bound<'py, PyAny>, make: Make<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = value.py();
    let kind = value.get_type();
    let kind_name = kind.name()?;
    match kind_name.to_cow()?.as_ref() {
        "staticmethod" | "classmethod" => {
            let rebuilt = kind.call1((make(&value.getattr(intern!(py, "__func__"))?)?,))?;
            let names = |of: &Bound<'py, PyAny>| of.getattr_opt(intern!(py, "__dict__"));
            if let (Some(from), Some(to)) = (names(value)?, names(&rebuilt)?) {
                to.call_method1(intern!(py, "update"), (from,))?;
            }
            Ok(rebuilt)
        }
        "property" => {
            let part = |name| value.getattr(name);
            let getter = part(intern!(py, "fget"))?;
            if getter.is_none() {
                return Ok(value.clone());
            }
            let args = (
                make(&getter)?,
                part(intern!(py, "fset"))?,
                part(intern!(py, "fdel"))?,
                part(intern!(py, "__doc__"))?,
            );
            kind.call1(args)
        }
        "cached_property" => {
            let rebuilt = kind.call1((make(&value.getattr(intern!(py, "func"))?)?,))?;
            let name = value.getattr(intern!(py, "attrname"))?;
            rebuilt.call_method1(intern!(py, "__set_name__"), (py.None(), name))?;
            Ok(rebuilt)
        }
        _ if value.is_callable() => make(value),
        other => Err(PyTypeError::new_err(format!("a {other} cannot be wrapped"))),
    }
}

fn set<'py>(
    owner: &Bound<'py, PyAny>,
    name: &Bound<'py, PyString>,
    value: &Bound<'py, PyAny>,
) -> PyResult<()> {
    match owner.setattr(name, value) {
        Err(error) if error.is_instance_of::<PyTypeError>(owner.py()) => match owner.cast::<PyType>() {
            Ok(class) => set_in_type(class, name, value),
            Err(_) => Err(error),
        },
        result => result,
    }
}

/// A C type that refuses `setattr`: its own dictionary takes the wrapper, and the caches are told.
fn set_in_type<'py>(
    class: &Bound<'py, PyType>,
    name: &Bound<'py, PyString>,
    value: &Bound<'py, PyAny>,
) -> PyResult<()> {
    let py = class.py();
    let of: *mut py_ffi::PyTypeObject = class.as_ptr().cast();
    // A special method is called by its slot, which stays as it is where only the dictionary changes.
    // SAFETY: attached; `class` is a ready type.
    let is_heap_type = unsafe { py_ffi::PyType_HasFeature(of, py_ffi::Py_TPFLAGS_HEAPTYPE) } != 0;
    if is_heap_type && name.to_cow()?.starts_with("__") {
        // SAFETY: attached; a ready heap type, a `str` and a live object. What is replaced, a `Site` holds.
        if unsafe { ffi::set_in_immutable(of, name.as_ptr(), value.as_ptr()) } < 0 {
            return Err(PyErr::fetch(py));
        }
        return Ok(());
    }
    // SAFETY: attached; `class` is a ready type and its dictionary a live dict, which is told of the change before
    // anything else can run.
    unsafe {
        let dict = ffi::type_dict(of);
        if dict.is_null() || py_ffi::PyDict_SetItem(dict, name.as_ptr(), value.as_ptr()) < 0 {
            return Err(PyErr::take(py).unwrap_or_else(|| PyTypeError::new_err("the type has no dictionary")));
        }
        py_ffi::PyType_Modified(of);
    }
    Ok(())
}
