//! `patch` and `trace`: attributes of other modules, replaced until the application takes that back.

use std::ffi::c_int;
use std::sync::{Mutex, MutexGuard, PoisonError};

use agent_core::span::SpanKind;
use pyo3::exceptions::{PyAttributeError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict};
use pyo3::{PyTraverseError, PyVisit};

use super::traced;
use crate::breaker::Breaker;
use crate::ffi::{Held, call_application};
use crate::hook;
use crate::patch::Site;
use crate::wrapper::{self, Behaviour, Call, HookResult};

/// Never trips: what a wrapper of the application raises is the application's.
static BREAKER: Breaker = Breaker::new("patch");

/// The application's function in the place of a callable.
struct Substitute {
    wrapper: Held,
    method: bool,
}

impl Behaviour for Substitute {
    fn call(&self, call: &mut Call<'_>) -> HookResult {
        call.instead(|call| {
            let py = call.py();
            let (wrapped, instance) = call.original(self.method)?;
            let (args, kwargs) = call.arguments(usize::from(instance.is_some()))?;
            let kwargs = kwargs.unwrap_or_else(|| PyDict::new(py));
            call_application(&self.wrapper.bind(py), (wrapped, instance, args, kwargs))
        });
        Ok(())
    }

    fn traverse(&self, visit: &mut dyn FnMut(*mut ffi::PyObject) -> c_int) -> c_int {
        visit(self.wrapper.as_ptr())
    }
}

enum How {
    Wrapper(Py<PyAny>),
    Traced { name: Option<String>, kind: SpanKind },
}

/// One replaced attribute.
#[pyclass(frozen, module = "remora._native")]
pub struct Patch {
    module: String,
    path: String,
    how: How,
    // Never held across a call into Python.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    applied: Option<Applied>,
    /// What the import hook calls.
    hook: Option<Py<PyAny>>,
    removed: bool,
}

struct Applied {
    site: Site,
    wrapper: Py<PyAny>,
}

impl Patch {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, py: Python<'_>, module: &Bound<'_, PyAny>) -> PyResult<()> {
        if self.state().removed {
            return Ok(());
        }
        // A module that runs again without defining the attribute anew still has our wrapper.
        let ours = self.state().applied.as_ref().map(|applied| applied.wrapper.clone_ref(py));
        let made: std::cell::RefCell<Option<Py<PyAny>>> = std::cell::RefCell::new(None);
        let again = std::cell::Cell::new(false);
        let site = Site::replace_as(module, &self.path, &|original, method| {
            if ours.as_ref().is_some_and(|ours| ours.is(original)) {
                again.set(true);
                return Err(PyTypeError::new_err("replaced already"));
            }
            let wrapper = match &self.how {
                How::Wrapper(wrapper) => {
                    let substitute = Substitute { wrapper: Held::new(wrapper.bind(py)), method };
                    wrapper::wrap(original, None, Some(Box::new(substitute)), &BREAKER)?
                }
                How::Traced { name, kind } => traced::wrap(original, name.as_deref(), *kind)?,
            };
            *made.borrow_mut() = Some(wrapper.clone().unbind());
            Ok(wrapper)
        });
        if again.get() {
            return Ok(());
        }
        let (site, wrapper) = (site?, made.into_inner());
        let old = wrapper.and_then(|wrapper| self.state().applied.replace(Applied { site, wrapper }));
        drop(old);
        Ok(())
    }
}

#[pymethods]
impl Patch {
    /// Whether the attribute is replaced now.
    #[getter]
    fn applied(&self) -> bool {
        self.state().applied.is_some()
    }

    /// Puts the identical original back; a second call does nothing.
    fn remove(&self, py: Python<'_>) -> PyResult<()> {
        let (applied, hook) = {
            let mut state = self.state();
            state.removed = true;
            (state.applied.take(), state.hook.take())
        };
        if let Some(hook) = hook {
            hook::unregister(py, &self.module, hook.bind(py))?;
        }
        if let Some(applied) = applied {
            applied.site.restore(py)?;
            // Whoever has taken a reference meanwhile, or put something around it, gets the original's behaviour.
            wrapper::disarm(applied.wrapper.bind(py));
        }
        Ok(())
    }

    fn __repr__(&self) -> String {
        let state = if self.state().applied.is_some() { "applied" } else { "not applied" };
        format!("<Patch {}:{} {state}>", self.module, self.path)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let How::Wrapper(wrapper) = &self.how {
            visit.call(wrapper)?;
        }
        if let Ok(state) = self.state.try_lock() {
            visit.call(&state.hook)?;
            if let Some(applied) = &state.applied {
                visit.call(&applied.wrapper)?;
                for object in applied.site.objects() {
                    visit.call(object)?;
                }
            }
        }
        Ok(())
    }
}

/// A patch, to the import hook.
#[pyclass(frozen, module = "remora._native")]
pub struct Apply(Py<Patch>);

impl Apply {
    /// Applies it to a module that was imported. `executed` is what has run where that is not what the application
    /// gets: a facade may answer with what lies there.
    pub fn to<'py>(
        &self,
        py: Python<'py>,
        module: &Bound<'py, PyAny>,
        executed: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<()> {
        let patch = self.0.get();
        match (patch.apply(py, module), executed) {
            (Err(error), Some(executed)) if error.is_instance_of::<PyAttributeError>(py) => {
                patch.apply(py, executed)
            }
            (result, _) => result,
        }
    }
}

#[pymethods]
impl Apply {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.0)
    }
}

fn install<'py>(py: Python<'py>, module: &str, path: &str, how: How) -> PyResult<Bound<'py, Patch>> {
    let (name, deferred) = match module.strip_suffix('?') {
        Some(name) => (name, true),
        None => (module, false),
    };
    let patch =
        Patch { module: name.to_owned(), path: path.to_owned(), how, state: Mutex::new(State::default()) };
    let patch = Bound::new(py, patch)?;
    if deferred {
        hook::install(py)?;
    } else {
        let module = PyModule::import(py, name)?;
        patch.get().apply(py, &module)?;
    }
    // Also where it is applied: a module that is reloaded is patched again.
    let hook = Bound::new(py, Apply(patch.clone().unbind()))?.into_any();
    patch.get().state().hook = Some(hook.clone().unbind());
    hook::register(py, name, hook)?;
    Ok(patch)
}

/// Replaces an attribute by a function of the application; without one, a decorator.
#[pyfunction]
#[pyo3(signature = (module, attribute, wrapper=None))]
pub fn patch<'py>(
    py: Python<'py>,
    module: String,
    attribute: String,
    wrapper: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    match wrapper {
        None => Ok(Bound::new(py, Decorator { module, attribute })?.into_any()),
        Some(wrapper) if wrapper.is_callable() => {
            Ok(install(py, &module, &attribute, How::Wrapper(wrapper.unbind()))?.into_any())
        }
        Some(_) => Err(PyTypeError::new_err("patch: the wrapper is not callable")),
    }
}

/// Every call of an attribute becomes a span.
#[pyfunction]
#[pyo3(signature = (module, attribute, *, name=None, kind="internal"))]
pub fn trace<'py>(
    py: Python<'py>,
    module: &str,
    attribute: &str,
    name: Option<String>,
    kind: &str,
) -> PyResult<Bound<'py, Patch>> {
    install(py, module, attribute, How::Traced { name, kind: traced::kind_of(kind)? })
}

/// What `patch` without a wrapper returns.
#[pyclass(frozen, module = "remora._native")]
struct Decorator {
    module: String,
    attribute: String,
}

#[pymethods]
impl Decorator {
    #[pyo3(signature = (wrapper, /))]
    fn __call__<'py>(&self, py: Python<'py>, wrapper: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        patch(py, self.module.clone(), self.attribute.clone(), Some(wrapper))
    }
}
