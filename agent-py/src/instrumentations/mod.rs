//! The instrumented libraries: one file each, one line each in [`registry`].
//!
//! A library says which attributes of which modules it wraps, and what a call means. Everything else (finding the
//! module, wrapping, faults, threads, export) lies elsewhere.

mod registry;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::PyAttributeError;
use pyo3::prelude::*;

use crate::breaker::Breaker;
use crate::diagnostics;
use crate::ffi::{give_up, intern, quiet};
use crate::hook;
use crate::patch::Site;
use crate::settings;
use crate::wrapper::{self, AsyncHook, CallHook};

/// A library.
pub struct Instrumentation {
    /// Its OpenTelemetry entry-point name: scope, settings and `doctor` use it.
    pub name: &'static str,
    /// Its distribution's name, for `doctor`; empty for the standard library.
    pub distribution: &'static str,
    /// Its faults.
    pub breaker: Breaker,
    /// What it wraps.
    pub targets: &'static [Target],
}

impl Instrumentation {
    /// Whether the settings leave it on.
    pub fn is_enabled(&self) -> bool {
        !settings::get().disabled.contains(self.name)
    }
}

/// One attribute to wrap.
pub struct Target {
    /// The module that defines it.
    pub module: &'static str,
    /// Its path in that module.
    pub attribute: &'static str,
    /// What happens around it.
    pub hook: Hook,
    /// Whether a release without it is unremarkable.
    pub optional: bool,
    /// Says of the module whether this release needs no hook here.
    unneeded: Option<fn(&Bound<'_, PyAny>) -> bool>,
    /// Whether the hook has anything to do yet.
    needed: Option<&'static Needed>,
}

/// What happens around a call.
#[derive(Clone, Copy)]
pub enum Hook {
    /// Around a synchronous call.
    Call(CallHook),
    /// Around a coroutine.
    Async(AsyncHook),
}

impl Target {
    /// A synchronous target that every supported release has.
    pub const fn call(module: &'static str, attribute: &'static str, hook: CallHook) -> Self {
        Self { module, attribute, hook: Hook::Call(hook), optional: false, unneeded: None, needed: None }
    }

    /// A coroutine function that every supported release has.
    pub const fn coroutine(module: &'static str, attribute: &'static str, hook: AsyncHook) -> Self {
        Self { module, attribute, hook: Hook::Async(hook), optional: false, unneeded: None, needed: None }
    }

    /// It, where some releases have it.
    pub const fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    /// It, but where `unneeded` says of the module that this release needs none.
    pub const fn unless(self, unneeded: fn(&Bound<'_, PyAny>) -> bool) -> Self {
        Self { unneeded: Some(unneeded), ..self }
    }

    /// It, but not until it is `needed`: a wrapper costs each call something, also where its hook has nothing to do.
    pub const fn once(self, needed: &'static Needed) -> Self {
        Self { needed: Some(needed), ..self }
    }
}

/// Whether there is anything to do yet for a target that waits for that ([`Target::once`]).
pub struct Needed(AtomicBool);

impl Needed {
    /// Not yet.
    pub const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Whether there is.
    #[inline]
    pub fn is(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// From now on there is: `of`'s targets that waited are wrapped.
    #[cold]
    pub fn now(&self, py: Python<'_>, of: &'static Instrumentation) {
        if !self.0.swap(true, Ordering::Relaxed)
            && let Err(error) = apply_after_all(py, of)
        {
            give_up(py, error, |error| of.breaker.fault(&error.to_string()));
        }
    }
}

const WRAPPED: &str = "is wrapped already";

/// What became of a target.
#[derive(Clone, Debug, Default)]
pub struct TargetState {
    /// `waiting`, `applied`, `unneeded` in this release, `deferred` until it is needed, `missing` or `disabled`.
    pub state: &'static str,
    /// Why, where it needs saying.
    pub why: String,
}

struct Entry {
    instrumentation: &'static Instrumentation,
    target: &'static Target,
    state: TargetState,
    site: Option<Site>,
}

/// All targets, by the index that the import hook's table holds.
// Never held across a call into Python.
static ENTRIES: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

fn entries() -> std::sync::MutexGuard<'static, Vec<Entry>> {
    ENTRIES.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Registers every library that is not disabled. Nothing is imported.
pub fn install(py: Python<'_>, disabled: impl Fn(&str) -> bool) -> PyResult<()> {
    let mut waiting = Vec::new();
    {
        let mut entries = entries();
        if !entries.is_empty() {
            return Ok(());
        }
        for instrumentation in registry::ALL.iter().copied() {
            let off = disabled(instrumentation.name);
            for target in instrumentation.targets {
                let state =
                    TargetState { state: if off { "disabled" } else { "waiting" }, why: String::new() };
                if !off {
                    waiting.push((entries.len(), target.module));
                }
                entries.push(Entry { instrumentation, target, state, site: None });
            }
        }
    }
    for (index, module) in waiting {
        hook::register(py, module, index.into_pyobject(py)?.into_any())?;
    }
    Ok(())
}

/// Wraps one target in a module that the application has just imported.
pub fn apply(py: Python<'_>, index: usize, module: &Bound<'_, PyAny>) {
    // Disabled: the agent was deactivated meanwhile.
    let entry = entries().get(index).map(|e| (e.instrumentation, e.target, e.state.state));
    let Some((instrumentation, target, _)) = entry.filter(|(_, _, state)| *state != "disabled") else {
        return;
    };
    let breaker = &instrumentation.breaker;
    if target.unneeded.is_some_and(|unneeded| unneeded(module)) {
        return set_state(index, "unneeded");
    }
    // What is missing is said at once.
    if target.needed.is_some_and(|needed| !needed.is()) && Site::is_there(module, target.attribute) {
        return set_state(index, "deferred");
    }
    let result = Site::replace(module, target.attribute, &|original| {
        if wrapper::is_wrapper(original) {
            return Err(PyAttributeError::new_err(WRAPPED));
        }
        match target.hook {
            Hook::Call(hook) => wrapper::wrap(original, Some(hook), None, breaker),
            Hook::Async(hook) => wrapper::wrap_async(original, hook, breaker),
        }
    });
    let (state, site) = match result {
        Ok(site) => {
            diagnostics::debug(&format!("wrapped {}:{}", target.module, target.attribute));
            (TargetState { state: "applied", why: String::new() }, Some(site))
        }
        Err(error) => {
            let why = error.value(py).to_string();
            // Another name of the same callable, or a class that outlived its module's reload.
            let state = match target.optional {
                _ if why == WRAPPED => "applied",
                true => "unneeded",
                false => "missing",
            };
            if state == "missing" {
                diagnostics::warn(&format!(
                    "instrumentation '{}' cannot wrap {}:{} ({why}); calls through it are not traced",
                    instrumentation.name, target.module, target.attribute
                ));
            }
            (TargetState { state, why: if state == "applied" { String::new() } else { why } }, None)
        }
    };
    let replaced = {
        let mut entries = entries();
        let Some(entry) = entries.get_mut(index) else { return };
        // Where the wrapper in place is an older one, that is the one to take out later.
        let keep = site.is_none() && entry.state.state == "applied";
        entry.state = state;
        if keep { None } else { std::mem::replace(&mut entry.site, site) }
    };
    drop(replaced);
}

fn set_state(index: usize, state: &'static str) {
    if let Some(entry) = entries().get_mut(index) {
        entry.state = TargetState { state, why: String::new() };
    }
}

/// Wraps what needed no wrapping when its module was imported, and needs it now.
fn apply_after_all(py: Python<'_>, instrumentation: &'static Instrumentation) -> PyResult<()> {
    let is_left = |entry: &Entry| {
        std::ptr::eq(entry.instrumentation, instrumentation)
            && match entry.state.state {
                "unneeded" => entry.target.unneeded.is_some(),
                state => state == "deferred",
            }
    };
    let left: Vec<(usize, &str)> = entries()
        .iter()
        .enumerate()
        .filter(|(_, entry)| is_left(entry))
        .map(|(index, entry)| (index, entry.target.module))
        .collect();
    for (index, module) in left {
        if let Some(module) = hook::imported(py, module)? {
            apply(py, index, &module);
        }
    }
    Ok(())
}

/// Takes every wrapper out again; what was there before is there again, the identical objects.
pub fn remove(py: Python<'_>) {
    let sites: Vec<Site> = entries()
        .iter_mut()
        .filter_map(|entry| {
            entry.state.state = "disabled";
            entry.site.take()
        })
        .collect();
    for site in sites {
        if let Err(error) = site.restore(py) {
            diagnostics::warn(&format!("a wrapper could not be taken out: {error}"));
        }
    }
}

/// A library's state as `status()` and `doctor` show it.
pub struct Report {
    /// The library.
    pub instrumentation: &'static Instrumentation,
    /// Its targets and their states.
    pub targets: Vec<(&'static Target, TargetState)>,
}

impl Report {
    /// The library's state: `tripped`, `disabled`, `missing` where something it needs is, `applied`, `waiting`.
    pub fn state(&self) -> &'static str {
        let any = |state: &str| self.targets.iter().any(|(_, target)| target.state == state);
        if self.instrumentation.breaker.is_open() {
            "tripped"
        } else if any("disabled") {
            "disabled"
        } else if any("missing") {
            "missing"
        } else if any("applied") {
            "applied"
        } else {
            "waiting"
        }
    }
}

/// Whether all that a library needs is wrapped.
pub fn is_applied(instrumentation: &'static Instrumentation) -> bool {
    entries().iter().filter(|entry| std::ptr::eq(entry.instrumentation, instrumentation)).all(|entry| {
        matches!(entry.state.state, "applied" | "unneeded" | "deferred") || entry.target.optional
    })
}

/// Whether what a library wraps in this module is wrapped. Not where this release has nothing to wrap there: who asks
/// does without it then.
pub fn is_applied_in(instrumentation: &'static Instrumentation, module: &str) -> bool {
    let entries = entries();
    let mut there = entries.iter().filter(|entry| {
        std::ptr::eq(entry.instrumentation, instrumentation) && entry.target.module == module
    });
    there.any(|entry| entry.state.state == "applied")
}

/// The version that an imported library says of itself. Nothing is imported and no lazy attribute is asked for.
pub fn version(py: Python<'_>, instrumentation: &Instrumentation) -> Option<String> {
    let package = instrumentation.targets.first()?.module.split('.').next()?;
    let module = quiet(py, hook::imported(py, package))??;
    quiet(py, hook::own(&module, intern!(py, "__version__"))?.extract())
}

/// Every library's state, in registry order.
pub fn report() -> Vec<Report> {
    let entries = entries();
    registry::ALL
        .iter()
        .map(|instrumentation| Report {
            instrumentation,
            targets: entries
                .iter()
                .filter(|entry| std::ptr::eq(entry.instrumentation, *instrumentation))
                .map(|entry| (entry.target, entry.state.clone()))
                .collect(),
        })
        .collect()
}
