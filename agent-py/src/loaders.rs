//! Loaders of other finders, made to tell the import hook when a module of its table has run.
//!
//! The loader gets `exec_module` on its *instance*, so that type, `__spec__` and `__loader__` stay as they were. What was
//! there is there again before the last module runs that it is wanted for.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyType};
use pyo3::{PyTraverseError, PyVisit};

use crate::ffi::{call_application, intern, quiet};
use crate::hook::{self, execute};

/// Has the hooks of a module run after it.
///
/// # Errors
/// Where the loader allows for no hook; whatever it raises.
pub fn arm<'py>(spec: &Bound<'py, PyAny>, name: &Bound<'py, PyString>) -> PyResult<()> {
    let py = spec.py();
    // A lazy loader is called when nothing runs yet: the one inside it runs the module.
    let mut holder = spec.clone();
    let mut loader = holder.getattr(intern!(py, "loader"))?;
    if let Some(lazy) = hook::of_importlib(py, intern!(py, "LazyLoader")) {
        while loader.get_type().mro().iter().any(|class| class.is(&lazy)) {
            let inner = loader.getattr(intern!(py, "loader"))?;
            holder = std::mem::replace(&mut loader, inner);
        }
    }
    if loader.is_none() {
        return Ok(());
    }
    // One of the old kind has only `load_module`: an attribute more and it would be taken for one of the new.
    let new = loader.getattr_opt(intern!(py, "exec_module"))?;
    let method = if new.is_some() { intern!(py, "exec_module") } else { intern!(py, "load_module") };
    let original = match new {
        Some(original) => original,
        None => loader.getattr(method)?,
    };
    let wanted = Wanted { carried: spec.getattr(intern!(py, "name"))?.extract()?, name: name.extract()? };
    if !loader.is_instance_of::<PyType>() && Armed::put(&loader, method, &original, wanted)? {
        return Ok(());
    }
    // A class (built-in and frozen modules), or it takes no attribute: one that delegates all.
    if method.is(intern!(py, "load_module")) {
        return Err(PyTypeError::new_err("its loader has no exec_module and takes none"));
    }
    let delegate = Delegate { loader: loader.unbind(), name: name.clone().unbind() };
    holder.setattr(intern!(py, "loader"), Bound::new(py, delegate)?)
}

/// What lies on an instance by this name.
fn on_instance<'py>(loader: &Bound<'py, PyAny>, method: &Bound<'py, PyString>) -> Option<Bound<'py, PyAny>> {
    let py = loader.py();
    let names = quiet(py, loader.getattr_opt(intern!(py, "__dict__")))?
        .and_then(|it| it.cast_into::<PyDict>().ok())?;
    quiet(py, names.get_item(method)).flatten()
}

/// A module that an [`Armed`] waits for.
#[derive(Clone, PartialEq)]
struct Wanted {
    /// By its specification, which it will carry.
    carried: String,
    /// As the application asks for it: mostly the same.
    name: String,
}

/// Stands for a loader's `exec_module`, or `load_module`, until all have run that it is wanted for. One loader may serve
/// many modules (those of a zip file), of which others run meanwhile.
#[pyclass(frozen, module = "remora._native")]
struct Armed {
    loader: Py<PyAny>,
    method: Py<PyString>,
    /// What the loader has without us.
    original: Py<PyAny>,
    /// It lay on the instance itself.
    own: bool,
    /// None once this is about to be taken away.
    // Never held across a call into Python.
    wanted: Mutex<Option<Vec<Wanted>>>,
}

impl Armed {
    fn wanted(&self) -> MutexGuard<'_, Option<Vec<Wanted>>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whether the loader took it.
    fn put<'py>(
        loader: &Bound<'py, PyAny>,
        method: &Bound<'py, PyString>,
        original: &Bound<'py, PyAny>,
        wanted: Wanted,
    ) -> PyResult<bool> {
        let py = loader.py();
        let there = on_instance(loader, method);
        let (original, own) = match there.as_ref().and_then(|there| there.cast::<Self>().ok()) {
            Some(armed) => {
                let armed = armed.get();
                if let Some(all) = armed.wanted().as_mut() {
                    if !all.contains(&wanted) {
                        all.push(wanted);
                    }
                    return Ok(true);
                }
                (armed.original.bind(py), armed.own)
            }
            None => (original, there.is_some()),
        };
        let armed = Bound::new(
            py,
            Self {
                loader: loader.clone().unbind(),
                method: method.clone().unbind(),
                original: original.clone().unbind(),
                own,
                wanted: Mutex::new(Some(vec![wanted])),
            },
        )?;
        let taken = quiet(py, loader.setattr(method, &armed)).is_some();
        Ok(taken && on_instance(loader, method).is_some_and(|there| there.is(&armed)))
    }

    /// The name that the application asks for this module by, once, where it is wanted.
    fn take(slf: &Bound<'_, Self>, carried: &str) -> Option<String> {
        let py = slf.py();
        let this = slf.get();
        let name = {
            let mut wanted = this.wanted();
            let left = wanted.as_mut()?;
            let at = left.iter().position(|wanted| wanted.carried == carried)?;
            let name = left.swap_remove(at).name;
            if !left.is_empty() {
                return Some(name);
            }
            *wanted = None;
            name
        };
        let (loader, method) = (this.loader.bind(py), this.method.bind(py));
        if on_instance(loader, method).is_some_and(|there| there.is(slf)) {
            let restored = if this.own {
                loader.setattr(method, this.original.bind(py))
            } else {
                loader.delattr(method)
            };
            quiet(py, restored);
        }
        Some(name)
    }
}

#[pymethods]
impl Armed {
    fn __call__<'py>(slf: &Bound<'py, Self>, module: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let original = slf.get().original.bind(py);
        let load = || call_application(original, (module,));
        // `load_module` gets the name alone.
        let given = module.cast::<PyString>().ok();
        let carried = given.cloned().or_else(|| name_of(module));
        match carried.and_then(|carried| Self::take(slf, &carried.to_string_lossy())) {
            Some(name) => execute(&PyString::new(py, &name), given.is_none().then_some(module), load),
            None => load(),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.loader)?;
        visit.call(&self.original)
    }
}

/// The name that a module carries.
fn name_of<'py>(module: &Bound<'py, PyAny>) -> Option<Bound<'py, PyString>> {
    let py = module.py();
    let by_spec = || {
        let spec = hook::own(module, intern!(py, "__spec__"))?;
        quiet(py, spec.getattr_opt(intern!(py, "name"))).flatten()?.cast_into().ok()
    };
    by_spec().or_else(|| hook::own(module, intern!(py, "__name__"))?.cast_into().ok())
}

/// A loader that delegates everything but `exec_module`.
#[pyclass(frozen, module = "remora._native")]
struct Delegate {
    loader: Py<PyAny>,
    name: Py<PyString>,
}

#[pymethods]
impl Delegate {
    fn create_module<'py>(slf: &Bound<'py, Self>, spec: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let loader = slf.get().loader.bind(py);
        // The module carries the loader and the spec that it would have without us.
        let ours = spec.getattr(intern!(py, "loader"))?.is(slf);
        if ours {
            spec.setattr(intern!(py, "loader"), loader)?;
        }
        let made = loader.call_method1(intern!(py, "create_module"), (spec,));
        if ours {
            quiet(py, spec.setattr(intern!(py, "loader"), slf));
        }
        made
    }

    fn exec_module<'py>(slf: &Bound<'py, Self>, module: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let loader = slf.get().loader.bind(py);
        if let Some(spec) = hook::own(module, intern!(py, "__spec__")) {
            quiet(py, spec.setattr(intern!(py, "loader"), loader));
        }
        quiet(py, module.setattr(intern!(py, "__loader__"), loader));
        let exec = loader.getattr(intern!(py, "exec_module"))?;
        execute(slf.get().name.bind(py), Some(module), || call_application(&exec, (module,)))
    }

    fn __getattr__<'py>(&self, py: Python<'py>, name: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
        self.loader.bind(py).getattr(name)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.loader)
    }
}
