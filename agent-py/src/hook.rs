//! The import hook: one finder in front of `sys.meta_path` that answers only for names in its table.
//!
//! For such a name the other finders find as ever, and the loader they return tells when the module has run
//! (`loaders.rs`). The hooks run then, with no lock held. Their exceptions are reported, never raised.

use std::cell::RefCell;

use pyo3::exceptions::PyAttributeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyCFunction, PyDict, PyList, PySet, PyString, PyTuple, PyWeakrefReference};

use crate::api::patch::Apply;
use crate::ffi::{call_application, intern, quiet};
use crate::{diagnostics, instrumentations, loaders};

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

/// What there is of a module.
enum Found<'py> {
    Nothing,
    /// It is being imported, by this specification; we have no part in that.
    UnderWay(Bound<'py, PyAny>),
    /// `importlib.util.LazyLoader` has it, with this specification: whoever asks it for anything makes it run.
    Lazy(Bound<'py, PyAny>),
    Imported(Bound<'py, PyAny>),
}

/// No code of the module runs for this.
fn look<'py>(py: Python<'py>, name: &Bound<'py, PyString>) -> PyResult<Found<'py>> {
    let Some(found) = modules(py)?.get_item(name)? else { return Ok(Found::Nothing) };
    if found.is_none() || running(py)?.contains(name)? {
        return Ok(Found::Nothing);
    }
    let Some(spec) = own(&found, intern!(py, "__spec__")) else { return Ok(Found::Imported(found)) };
    if !found.is_exact_instance_of::<PyModule>()
        && of_importlib(py, intern!(py, "_LazyModule")).is_some_and(|lazy| found.get_type().is(&lazy))
    {
        return Ok(Found::Lazy(spec));
    }
    let initializing = quiet(py, spec.getattr_opt(intern!(py, "_initializing")))
        .flatten()
        .and_then(|value| quiet(py, value.is_truthy()));
    Ok(if initializing == Some(true) { Found::UnderWay(spec) } else { Found::Imported(found) })
}

/// The module, if the application has imported it to the end.
pub fn imported<'py>(py: Python<'py>, module: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
    match look(py, &PyString::new(py, module))? {
        Found::Imported(module) => Ok(Some(module)),
        _ => Ok(None),
    }
}

/// What a module has of a name, in its own dictionary: nothing that its class defines runs. Of what is no module, its
/// attribute.
pub fn own<'py>(module: &Bound<'py, PyAny>, name: &Bound<'py, PyString>) -> Option<Bound<'py, PyAny>> {
    let py = module.py();
    match module.cast::<PyModule>() {
        Ok(module) => quiet(py, module.dict().get_item(name)).flatten(),
        Err(_) => quiet(py, module.getattr_opt(name)).flatten(),
    }
}

/// A class of `importlib.util`, where that is imported: where it is not, nothing is of that class.
pub fn of_importlib<'py>(py: Python<'py>, name: &Bound<'py, PyString>) -> Option<Bound<'py, PyAny>> {
    let util = quiet(py, modules(py).and_then(|modules| modules.get_item(intern!(py, "importlib.util"))))??;
    own(&util, name)
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
    let name = PyString::new(py, module);
    match look(py, &name)? {
        Found::Nothing => {}
        Found::Imported(found) => run(py, module, &found, None, &hook),
        Found::UnderWay(spec) => wait(py, &name, &spec)?,
        Found::Lazy(spec) => loaders::arm(&spec, &name)?,
    }
    Ok(())
}

/// Stands for a specification's `_initializing` until the import system puts `False` there.
#[pyclass(frozen, weakref, module = "remora._native")]
struct Initializing;

/// Module name to what tells of the end of its [`Initializing`].
fn waiting(py: Python<'_>) -> PyResult<&Bound<'_, PyDict>> {
    static WAITING: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    WAITING.get_or_try_init(py, || Ok(PyDict::new(py).unbind())).map(|waiting| waiting.bind(py))
}

/// Hooks of a module that was being imported when they were registered run as soon as it is there.
#[cold]
fn wait<'py>(py: Python<'py>, name: &Bound<'py, PyString>, spec: &Bound<'py, PyAny>) -> PyResult<()> {
    let waiting = waiting(py)?;
    if waiting.contains(name)? {
        return Ok(());
    }
    let waited = name.clone().unbind();
    let done = PyCFunction::new_closure(py, None, None, move |args, _| {
        let py = args.py();
        if let Err(error) = arrived(py, waited.bind(py)) {
            diagnostics::warn(&format!("'{}' was not hooked: {error}", waited.bind(py)));
        }
    })?;
    let mark = Bound::new(py, Initializing)?.into_any();
    let end = PyWeakrefReference::new_with(&mark, done)?;
    spec.setattr(intern!(py, "_initializing"), mark)?;
    waiting.set_item(name, end)
}

fn arrived(py: Python<'_>, name: &Bound<'_, PyString>) -> PyResult<()> {
    waiting(py)?.del_item(name)?;
    if let Found::Imported(module) = look(py, name)? {
        let running = running(py)?;
        running.add(name)?;
        after_import(py, name, &module, None);
        running.discard(name)?;
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

/// `executed` is what has run where the application gets another object in its place.
fn run<'py>(
    py: Python<'py>,
    name: &str,
    module: &Bound<'py, PyAny>,
    executed: Option<&Bound<'py, PyAny>>,
    hook: &Bound<'py, PyAny>,
) {
    let result = if let Ok(index) = hook.extract::<usize>() {
        instrumentations::apply(py, index, module);
        Ok(())
    } else if let Ok(patch) = hook.cast::<Apply>() {
        patch.get().to(py, module, executed)
    } else {
        call_application(hook, (module,)).map(drop)
    };
    if let Err(error) = result {
        diagnostics::warn(&format!("a callback for '{name}' failed: {error}; the import is not affected"));
    }
}

/// The name is among those that run: what is registered meanwhile is run by the loop here, and only here.
fn after_import<'py>(
    py: Python<'py>,
    name: &Bound<'py, PyString>,
    module: &Bound<'py, PyAny>,
    executed: Option<&Bound<'py, PyAny>>,
) {
    let hooks = table(py).and_then(|table| table.get_item(name));
    // What runs may register more, or take some out: the list is read anew at each step.
    let Some(Ok(hooks)) = quiet(py, hooks).flatten().map(Bound::cast_into::<PyList>) else { return };
    let mut done: Vec<Bound<'_, PyAny>> = Vec::new();
    while let Some(hook) = hooks.iter().find(|hook| !done.iter().any(|done| done.is(hook))) {
        run(py, name.to_cow().as_deref().unwrap_or("?"), module, executed, &hook);
        done.push(hook);
    }
}

/// Lets a module of the table run (`load`), and its hooks after it. `module` is what runs, where that is known before.
pub fn execute<'py>(
    name: &Bound<'py, PyString>,
    module: Option<&Bound<'py, PyAny>>,
    load: impl FnOnce() -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = name.py();
    let running = running(py)?;
    if running.contains(name)? {
        return load();
    }
    let in_place = || {
        let there = modules(py).and_then(|modules| modules.get_item(name));
        quiet(py, there).flatten().filter(|there| !there.is_none())
    };
    running.add(name)?;
    // Somebody may run a module by hand that is not the one of this name.
    let is_import = module.is_none_or(|module| in_place().is_some_and(|there| there.is(module)));
    let result = load();
    if let Ok(loaded) = &result {
        // Else the hooks would run once more when the import is done.
        let _ = waiting(py).and_then(|waiting| waiting.del_item(name));
        let executed = module.unwrap_or(loaded);
        match in_place().filter(|there| is_import && !there.is(executed)) {
            // It has put something else in its place.
            Some(there) => after_import(py, name, &there, Some(executed)),
            None => after_import(py, name, executed, None),
        }
    }
    let _ = running.discard(name);
    result
}

thread_local! {
    /// The names that this thread is asking the other finders for.
    static ASKING: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Until dropped, the thread is asking for this name.
struct Asking(String);

impl Asking {
    /// None where it is already: another finder asks us in its turn, one that stands around us among them.
    fn begin(name: &Bound<'_, PyString>) -> Option<Self> {
        let name = name.to_string_lossy().into_owned();
        if ASKING.with_borrow(|asking| asking.contains(&name)) {
            return None;
        }
        ASKING.with_borrow_mut(|asking| asking.push(name.clone()));
        Some(Self(name))
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        ASKING.with_borrow_mut(|asking| asking.retain(|name| *name != self.0));
    }
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
        let Some(_asking) = Asking::begin(name) else { return Ok(None) };
        let Some(spec) = Self::delegate(slf, fullname, path, target)? else { return Ok(None) };
        if let Err(error) = loaders::arm(&spec, name) {
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
        let finders = sys.getattr(intern!(py, "meta_path"))?.try_iter()?.collect::<PyResult<Vec<_>>>()?;
        // All of them where we are not there ourselves, but within a finder that stands around us.
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
}

/// Puts the finder in front of `sys.meta_path`, once.
pub fn install(py: Python<'_>) -> PyResult<()> {
    let sys = PyModule::import(py, intern!(py, "sys"))?;
    let meta_path = sys.getattr(intern!(py, "meta_path"))?;
    let finders = meta_path.try_iter()?.collect::<PyResult<Vec<_>>>()?;
    if finders.iter().any(|finder| finder.is_instance_of::<Finder>()) {
        return Ok(());
    }
    let finder = Bound::new(py, Finder)?.into_any();
    if meta_path.is_instance_of::<PyTuple>() {
        let all = std::iter::once(finder).chain(finders).collect::<Vec<_>>();
        return sys.setattr(intern!(py, "meta_path"), PyTuple::new(py, all)?);
    }
    meta_path.call_method1(intern!(py, "insert"), (0, finder)).map(drop)
}
