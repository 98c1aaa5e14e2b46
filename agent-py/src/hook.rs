//! The import hook: one finder in front of `sys.meta_path` that answers only for names in its table.
//!
//! For such a name the other finders find as ever; the loader they return gets `exec_module` on its *instance*, so
//! that type, `__spec__` and `__loader__` stay as they were, and the attribute goes away before the module runs. The
//! hooks run after the module has, with no lock held. Their exceptions are reported, never raised.

use pyo3::exceptions::PyAttributeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PySet, PyString, PyType};
use pyo3::{PyTraverseError, PyVisit};

use crate::diagnostics;
use crate::ffi::call_application;
use crate::instrumentations;

/// Module name to list of hooks: an int is an index of our own targets, anything else the application's callback.
static TABLE: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
/// Names whose module is running under a hook of ours: other hooks may chain to us a second time.
static RUNNING: PyOnceLock<Py<PySet>> = PyOnceLock::new();

fn table(py: Python<'_>) -> PyResult<&Bound<'_, PyDict>> {
    TABLE.get_or_try_init(py, || Ok(PyDict::new(py).unbind())).map(|table| table.bind(py))
}

fn running(py: Python<'_>) -> PyResult<&Bound<'_, PySet>> {
    RUNNING.get_or_try_init(py, || Ok(PySet::empty(py)?.unbind())).map(|set| set.bind(py))
}

/// The module, if the application has imported it to the end.
pub fn imported<'py>(py: Python<'py>, module: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
    let name = PyString::new(py, module);
    let Some(found) = modules(py)?.get_item(&name)? else { return Ok(None) };
    if found.is_none() || running(py)?.contains(&name)? {
        return Ok(None);
    }
    let initializing = found
        .getattr(intern!(py, "__spec__"))
        .and_then(|spec| spec.getattr(intern!(py, "_initializing")))
        .and_then(|value| value.is_truthy())
        .unwrap_or(false);
    Ok((!initializing).then_some(found))
}

/// `sys.modules`. Looked up once: an import statement's way to `sys` is long, and every target asks at start-up.
pub fn modules<'py>(py: Python<'py>) -> PyResult<&'py Bound<'py, PyDict>> {
    static MODULES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    let modules = MODULES.get_or_try_init(py, || {
        let sys = PyModule::import(py, intern!(py, "sys"))?;
        PyResult::Ok(sys.getattr(intern!(py, "modules"))?.cast_into::<PyDict>()?.unbind())
    })?;
    Ok(modules.bind(py))
}

/// Registers a hook for a module's name. Runs it at once where the module is already there.
pub fn register(py: Python<'_>, module: &str, hook: Bound<'_, PyAny>) -> PyResult<()> {
    let table = table(py)?;
    match table.get_item(module)? {
        Some(hooks) => hooks.cast_into::<PyList>()?.append(&hook)?,
        None => table.set_item(module, PyList::new(py, [&hook])?)?,
    }
    if let Some(found) = imported(py, module)? {
        run(py, module, &found, &hook);
    }
    Ok(())
}

/// Takes a callback out again.
pub fn unregister(py: Python<'_>, module: &str, hook: &Bound<'_, PyAny>) -> PyResult<()> {
    if let Some(hooks) = table(py)?.get_item(module)? {
        let hooks = hooks.cast_into::<PyList>()?;
        if let Some(at) = hooks.iter().position(|candidate| candidate.is(hook)) {
            hooks.del_item(at)?;
        }
    }
    Ok(())
}

fn run(py: Python<'_>, name: &str, module: &Bound<'_, PyAny>, hook: &Bound<'_, PyAny>) {
    if let Ok(index) = hook.extract::<usize>() {
        instrumentations::apply(py, index, module);
    } else if let Err(error) = call_application(hook, (module,)) {
        diagnostics::warn(&format!("a callback for '{name}' failed: {error}; the import is not affected"));
    }
}

fn after_import(py: Python<'_>, name: &Bound<'_, PyString>, module: &Bound<'_, PyAny>) -> PyResult<()> {
    let Some(hooks) = table(py)?.get_item(name)? else { return Ok(()) };
    // What runs may register more, or take some out: the list is read anew at each step.
    let hooks = hooks.cast::<PyList>()?;
    let mut done: Vec<Bound<'_, PyAny>> = Vec::new();
    while let Some(hook) = hooks.iter().find(|hook| !done.iter().any(|done| done.is(hook))) {
        run(py, name.to_cow().as_deref().unwrap_or("?"), module, &hook);
        done.push(hook);
    }
    Ok(())
}

/// The finder.
#[pyclass(frozen, module = "remora._native")]
pub struct Finder;

#[pymethods]
impl Finder {
    #[pyo3(signature = (fullname, path=None, target=None))]
    fn find_spec<'py>(
        slf: &Bound<'py, Self>,
        fullname: &Bound<'py, PyAny>,
        path: Option<&Bound<'py, PyAny>>,
        target: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = slf.py();
        let Ok(name) = fullname.cast::<PyString>() else { return Ok(None) };
        if !table(py)?.contains(name)? || running(py)?.contains(name)? {
            return Ok(None);
        }
        let Some(spec) = Self::delegate(slf, fullname, path, target)? else { return Ok(None) };
        if let Err(error) = Self::arm(&spec, name) {
            diagnostics::warn(&format!("'{name}' cannot be hooked: {error}"));
        }
        Ok(Some(spec))
    }
}

impl Finder {
    fn delegate<'py>(
        slf: &Bound<'py, Self>,
        name: &Bound<'py, PyAny>,
        path: Option<&Bound<'py, PyAny>>,
        target: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = slf.py();
        let sys = PyModule::import(py, intern!(py, "sys"))?;
        let finders: Vec<_> = sys.getattr(intern!(py, "meta_path"))?.cast_into::<PyList>()?.iter().collect();
        let behind = finders.iter().position(|finder| finder.is(slf)).map_or(0, |at| at + 1);
        for finder in &finders[behind..] {
            let find = match finder.getattr(intern!(py, "find_spec")) {
                Ok(find) => find,
                Err(error) if error.is_instance_of::<PyAttributeError>(py) => continue,
                Err(error) => return Err(error),
            };
            let spec = call_application(&find, (name, path, target))?;
            if !spec.is_none() {
                return Ok(Some(spec));
            }
        }
        Ok(None)
    }

    fn arm(spec: &Bound<'_, PyAny>, name: &Bound<'_, PyString>) -> PyResult<()> {
        let py = spec.py();
        let loader = spec.getattr(intern!(py, "loader"))?;
        if loader.is_none() {
            return Ok(());
        }
        let exec = ExecModule { loader: loader.clone().unbind(), name: name.clone().unbind() };
        let exec = Bound::new(py, exec)?;
        if loader.is_instance_of::<PyType>() || loader.setattr(intern!(py, "exec_module"), &exec).is_err() {
            // A loader that is a class (built-in and frozen modules) or takes no attribute: one that delegates all.
            spec.setattr(
                intern!(py, "loader"),
                Bound::new(py, Delegate { exec: exec.unbind(), loader: loader.unbind() })?,
            )?;
        }
        Ok(())
    }
}

/// Stands for a loader's `exec_module` during one import.
#[pyclass(frozen, module = "remora._native")]
struct ExecModule {
    loader: Py<PyAny>,
    name: Py<PyString>,
}

#[pymethods]
impl ExecModule {
    fn __call__(&self, py: Python<'_>, module: &Bound<'_, PyAny>) -> PyResult<()> {
        let loader = self.loader.bind(py);
        if !loader.is_instance_of::<PyType>() {
            // Absent where a loader shared between modules was disarmed by another one.
            let _ = loader.delattr(intern!(py, "exec_module"));
        }
        let name = self.name.bind(py);
        let running = running(py)?;
        let outermost = !running.contains(name)?;
        if outermost {
            running.add(name)?;
        }
        let result =
            loader.getattr(intern!(py, "exec_module")).and_then(|exec| call_application(&exec, (module,)));
        if !outermost {
            return result.map(drop);
        }
        if result.is_ok()
            && let Err(error) = after_import(py, name, module)
        {
            diagnostics::warn(&format!("'{name}' was not hooked: {error}"));
        }
        // Not before: what is registered meanwhile is run by the loop there, and only there.
        let _ = running.discard(name);
        result.map(drop)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.loader)
    }
}

/// A loader that delegates everything but `exec_module`.
#[pyclass(frozen, module = "remora._native")]
struct Delegate {
    exec: Py<ExecModule>,
    loader: Py<PyAny>,
}

#[pymethods]
impl Delegate {
    fn create_module<'py>(&self, py: Python<'py>, spec: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        // The module carries the loader and the spec that it would have without us.
        spec.setattr(intern!(py, "loader"), self.loader.bind(py))?;
        let made = self.loader.bind(py).call_method1(intern!(py, "create_module"), (spec,));
        spec.setattr(
            intern!(py, "loader"),
            Bound::new(py, Self { exec: self.exec.clone_ref(py), loader: self.loader.clone_ref(py) })?,
        )?;
        made
    }

    fn exec_module(&self, py: Python<'_>, module: &Bound<'_, PyAny>) -> PyResult<()> {
        let loader = self.loader.bind(py);
        if let Ok(spec) = module.getattr(intern!(py, "__spec__")) {
            let _ = spec.setattr(intern!(py, "loader"), loader);
        }
        let _ = module.setattr(intern!(py, "__loader__"), loader);
        self.exec.bind(py).get().__call__(py, module)
    }

    fn __getattr__<'py>(&self, py: Python<'py>, name: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
        self.loader.bind(py).getattr(name)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.exec)?;
        visit.call(&self.loader)
    }
}

/// Puts the finder in front of `sys.meta_path`, once.
pub fn install(py: Python<'_>) -> PyResult<()> {
    let sys = PyModule::import(py, intern!(py, "sys"))?;
    let meta_path = sys.getattr(intern!(py, "meta_path"))?.cast_into::<PyList>()?;
    if meta_path.iter().any(|finder| finder.is_instance_of::<Finder>()) {
        return Ok(());
    }
    meta_path.insert(0, Bound::new(py, Finder)?)
}
