//! The environment of child processes: our folder on `PYTHONPATH` is for them, not for the application to see.
//!
//! The launcher's one variable leaves `os.environ`, which every `requests.get` reads several times, and stays in the C
//! library's environment, also where the application sets or deletes the variable: a child that is given none inherits
//! it. One that is given an environment gets the folder put in front again where that is the application's own, handed
//! on; one that starts clean stays clean.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::OnceLock;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyCFunction, PyDict, PyList, PyString, PyTuple};

use crate::breaker::Breaker;
use crate::diagnostics;
use crate::ffi::{intern, quiet};
use crate::hook;
use crate::objects::{Class, attribute};
use crate::patch::Site;
use crate::wrapper::{self, Call, CallHook, HookResult};

const VARIABLE: &str = "PYTHONPATH";
/// How the launcher's entry ends, wherever remora lies.
const FOLDER: &[u8] = b"/remora/autoload";

static BREAKER: Breaker = Breaker::new("children");
/// What was taken out: one folder, or more where launchers of several installations stand in a row.
static FOLDERS: OnceLock<Vec<u8>> = OnceLock::new();
/// The dictionary behind `os.environ`, of bytes.
static ENVIRON: PyOnceLock<Py<PyDict>> = PyOnceLock::new();

/// Hides the folder. Once, at activation; nothing happens where it is not on the path.
pub fn hide_folder(py: Python<'_>) -> PyResult<()> {
    let Some((ours, rest)) = std::env::var_os(VARIABLE).as_deref().and_then(|path| split(path.as_bytes()))
    else {
        return Ok(());
    };
    let Some(os) = hook::imported(py, "os")? else { return Ok(()) };
    let data = os.getattr(intern!(py, "environ"))?.getattr(intern!(py, "_data"))?;
    // A Python that keeps it otherwise shows the folder.
    let Ok(data) = data.cast_into::<PyDict>() else { return Ok(()) };
    let key = PyBytes::new(py, VARIABLE.as_bytes());
    if !data.contains(&key)? || FOLDERS.set(ours).is_err() {
        return Ok(());
    }
    let _ = ENVIRON.set(py, data.clone().unbind());
    for name in ["execve", "posix_spawn", "posix_spawnp"] {
        watch(&os, name, mapping_given);
    }
    // `os.environ` calls them by these names.
    watch(&os, "putenv", value_set);
    watch(&os, "unsetenv", value_deleted);
    // From 3.14 on.
    if attribute(&os, intern!(py, "reload_environ")).is_some() {
        watch(&os, "reload_environ", reloaded);
    }
    // Under a name of its own, where something has imported it before us.
    if let Some(subprocess) = hook::imported(py, "subprocess")? {
        watch(&subprocess, "_fork_exec", list_given);
    }
    let imported = PyCFunction::new_closure(py, None, None, |args, _| -> PyResult<()> {
        watch(&args.get_item(0)?, "fork_exec", list_given);
        Ok(())
    })?;
    hook::register(py, "_posixsubprocess", imported.into_any())?;
    match rest {
        Some(rest) => data.set_item(key, PyBytes::new(py, &rest)),
        None => data.del_item(key),
    }
}

fn watch(module: &Bound<'_, PyAny>, name: &str, hook: CallHook) {
    let site = Site::replace(module, name, &|original| wrapper::wrap(original, Some(hook), None, &BREAKER));
    if let Err(error) = site {
        diagnostics::debug(&format!("{name} is not watched: {error}"));
    }
}

/// Our entries, and the others if there are any. `None` where none is ours.
fn split(path: &[u8]) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    let is_ours = |entry: &&[u8]| entry.strip_suffix(b"/").unwrap_or(entry).ends_with(FOLDER);
    let (ours, rest): (Vec<&[u8]>, Vec<&[u8]>) =
        path.split(|byte| *byte == b':').partition(|entry| is_ours(entry));
    (!ours.is_empty()).then(|| (ours.join(&b':'), (!rest.is_empty()).then(|| rest.join(&b':'))))
}

/// The variable's value for a child that is given `theirs`; `None` where our folder is there already.
fn restored(theirs: Option<&[u8]>) -> Option<Vec<u8>> {
    let mut value = FOLDERS.get()?.clone();
    if let Some(theirs) = theirs {
        if split(theirs).is_some() {
            return None;
        }
        value.push(b':');
        value.extend_from_slice(theirs);
    }
    Some(value)
}

/// Whether `os.putenv` or `os.unsetenv` is about the variable.
fn is_about_variable(call: &Call<'_>) -> bool {
    let name = call.arg(0).and_then(|name| bytes_of(&name));
    name.is_some_and(|name| name.as_bytes() == VARIABLE.as_bytes())
}

/// `os.putenv(name, value)`.
fn value_set(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    let value = call.arg(1).filter(|_| is_about_variable(call)).and_then(|value| bytes_of(&value));
    match value.and_then(|value| restored(Some(value.as_bytes()))) {
        Some(value) => call.proceed_replacing(1, intern!(py, "value"), PyBytes::new(py, &value).as_any()),
        None => call.proceed(),
    }
    Ok(())
}

/// `os.unsetenv(name)`.
fn value_deleted(call: &mut Call<'_>) -> HookResult {
    let ours = FOLDERS.get().filter(|_| is_about_variable(call));
    call.proceed();
    if let (Some(ours), Some(_)) = (ours, call.result()) {
        // SAFETY: Python itself has changed the environment a moment ago, on this thread and as attached as we are: who
        // reads it at the same time would have met that as well.
        unsafe { std::env::set_var(VARIABLE, OsStr::from_bytes(ours)) };
    }
    Ok(())
}

/// `os.reload_environ()`: `os.environ` is what the C library has, our folder too.
fn reloaded(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    call.proceed();
    let Some(own) = ENVIRON.get(py).map(|own| own.bind(py)) else { return Ok(()) };
    let key = PyBytes::new(py, VARIABLE.as_bytes());
    let shown = own.get_item(&key)?.and_then(|value| bytes_of(&value));
    match shown.and_then(|value| split(value.as_bytes())) {
        Some((_, Some(rest))) => own.set_item(key, PyBytes::new(py, &rest))?,
        Some((_, None)) => own.del_item(key)?,
        None => {}
    }
    Ok(())
}

/// Whether an environment is the application's own handed on: it has at least half of those variables.
fn is_handed_on<'py>(
    own: &Bound<'py, PyDict>,
    names: impl Iterator<Item = Bound<'py, PyBytes>>,
) -> PyResult<bool> {
    let mut shared = 0;
    for name in names {
        shared += usize::from(own.contains(name)?);
    }
    Ok(2 * shared >= own.len())
}

fn bytes_of<'py>(text: &Bound<'py, PyAny>) -> Option<Bound<'py, PyBytes>> {
    if let Ok(bytes) = text.cast::<PyBytes>() {
        return Some(bytes.clone());
    }
    let text = text.cast::<PyString>().ok()?.encode_utf8();
    quiet(text.as_ref().ok()?.py(), text)
}

/// `os.execve(path, argv, env)` and `os.posix_spawn`.
fn mapping_given(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    let name = intern!(py, "env");
    let given = call.argument(2, name).map(|given| given.to_owned());
    match given.map(|given| mapping_for_child(&given)).transpose()?.flatten() {
        Some(environment) => call.proceed_replacing(2, name, environment.as_any()),
        None => call.proceed(),
    }
    Ok(())
}

fn mapping_for_child<'py>(given: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyDict>>> {
    // Any other mapping but a dictionary may be code of the application, and is left alone.
    static ENVIRONMENT: Class = Class::new("os", "_Environ");
    let py = given.py();
    let Some(own) = ENVIRON.get(py).map(|own| own.bind(py)) else { return Ok(None) };
    let behind = ENVIRONMENT.is_of(given).then(|| attribute(given, intern!(py, "_data"))).flatten();
    let behind = behind.filter(|data| data.is(own));
    let given = behind.as_ref().unwrap_or(given);
    let Ok(given) = given.cast_exact::<PyDict>() else { return Ok(None) };
    if !given.is(own) && !is_handed_on(own, given.keys().iter().filter_map(|name| bytes_of(&name)))? {
        return Ok(None);
    }
    let as_text = PyString::intern(py, VARIABLE).into_any();
    let as_bytes = PyBytes::new(py, VARIABLE.as_bytes()).into_any();
    let key = if given.contains(&as_bytes)? { as_bytes } else { as_text };
    let theirs = given.get_item(&key)?.and_then(|theirs| bytes_of(&theirs));
    let Some(value) = restored(theirs.as_ref().map(|theirs| theirs.as_bytes())) else { return Ok(None) };
    let environment = given.copy()?;
    environment.set_item(key, PyBytes::new(py, &value))?;
    Ok(Some(environment))
}

/// `_posixsubprocess.fork_exec`, which `subprocess` and `multiprocessing` start children with: its sixth argument is the
/// environment as a list of `NAME=value`, or None.
fn list_given(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    let given = call.arg(5).map(|given| given.to_owned());
    match given.map(|given| list_for_child(&given)).transpose()?.flatten() {
        Some(environment) => call.proceed_replacing(5, intern!(py, "env_list"), environment.as_any()),
        None => call.proceed(),
    }
    Ok(())
}

fn list_for_child<'py>(given: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyList>>> {
    let py = given.py();
    let Some(own) = ENVIRON.get(py).map(|own| own.bind(py)) else { return Ok(None) };
    let entries: Vec<Bound<'py, PyBytes>> = if given.is_none() {
        // Inherited, unless something else has set the variable anew.
        let inherited = std::env::var_os(VARIABLE);
        if inherited.is_some_and(|path| restored(Some(path.as_bytes())).is_none()) {
            return Ok(None);
        }
        own.iter().filter_map(|(name, value)| entry(&name, &value)).collect()
    } else {
        let items = match given.cast::<PyTuple>() {
            Ok(items) => items.to_list(),
            Err(_) => given.cast::<PyList>()?.clone(),
        };
        let entries = items.iter().map(|item| item.cast_into::<PyBytes>()).collect::<Result<Vec<_>, _>>();
        let Ok(entries) = entries else { return Ok(None) };
        let names = entries.iter().map(|entry| PyBytes::new(py, name_of(entry.as_bytes())));
        if !is_handed_on(own, names)? {
            return Ok(None);
        }
        entries
    };
    let is_ours = |entry: &Bound<'py, PyBytes>| name_of(entry.as_bytes()) == VARIABLE.as_bytes();
    let theirs = entries.iter().find(|entry| is_ours(entry));
    let theirs = theirs.and_then(|entry| entry.as_bytes().get(VARIABLE.len() + 1..));
    let Some(value) = restored(theirs) else { return Ok(None) };
    let environment = PyList::new(py, entries.iter().filter(|entry| !is_ours(entry)))?;
    environment.append(PyBytes::new(py, &[VARIABLE.as_bytes(), &value].join(&b'=')))?;
    Ok(Some(environment))
}

fn entry<'py>(name: &Bound<'py, PyAny>, value: &Bound<'py, PyAny>) -> Option<Bound<'py, PyBytes>> {
    let (name, value) = (name.cast::<PyBytes>().ok()?, value.cast::<PyBytes>().ok()?);
    Some(PyBytes::new(name.py(), &[name.as_bytes(), value.as_bytes()].join(&b'=')))
}

fn name_of(entry: &[u8]) -> &[u8] {
    entry.split(|byte| *byte == b'=').next().unwrap_or_default()
}
