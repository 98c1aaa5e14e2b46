//! Activation from code: `init`, and the opaque settings that it takes.

use agent_core::settings;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyList, PyTuple};

use crate::{agent, diagnostics};

/// Settings for `init`. Made by `config` and `config_from_env` only.
#[pyclass(frozen, module = "remora._native")]
#[derive(Clone, Default)]
pub struct Config {
    overrides: Vec<(String, String)>,
}

/// Settings by variable name or flag; what is not named comes from the environment. None is "not named".
///
/// # Errors
/// `TypeError` for a name that is no setting or a value that no setting takes.
#[pyfunction]
#[pyo3(signature = (**settings))]
pub fn config(settings: Option<&Bound<'_, PyDict>>) -> PyResult<Config> {
    let mut overrides = Vec::new();
    for (name, value) in settings.into_iter().flat_map(|settings| settings.iter()) {
        let name: String = name.extract()?;
        if settings::find(&name).is_none() {
            return Err(PyTypeError::new_err(format!("'{name}' is no setting of remora")));
        }
        if !value.is_none() {
            overrides.push((name, text(&value)?));
        }
    }
    Ok(Config { overrides })
}

/// A value as the environment would spell it.
fn text(value: &Bound<'_, PyAny>) -> PyResult<String> {
    if value.is_instance_of::<PyBool>() {
        return Ok(if value.is_truthy()? { "true" } else { "false" }.to_owned());
    }
    if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        let texts: PyResult<Vec<String>> = value.try_iter()?.map(|item| text(&item?)).collect();
        return Ok(texts?.join(","));
    }
    if let Ok(dict) = value.cast::<PyDict>() {
        let pairs: PyResult<Vec<String>> =
            dict.iter().map(|(key, value)| Ok(format!("{}={}", text(&key)?, text(&value)?))).collect();
        return Ok(pairs?.join(","));
    }
    if value.is_instance_of::<pyo3::types::PyString>()
        || value.is_instance_of::<pyo3::types::PyInt>()
        || value.is_instance_of::<pyo3::types::PyFloat>()
    {
        return value.str()?.extract();
    }
    Err(PyTypeError::new_err(format!("a setting cannot be a {}", value.get_type().name()?)))
}

/// The settings that the environment gives now.
#[pyfunction]
pub fn config_from_env() -> Config {
    let set = |row: &settings::Row| {
        let value = std::env::var(row.name).ok().filter(|value| !value.is_empty())?;
        Some((row.name.to_owned(), value))
    };
    Config { overrides: settings::TABLE.iter().filter_map(set).collect() }
}

/// Activates from code, once per process. True: the agent is active. Where it is already, settings given here have no
/// effect, and one line on stderr says so.
#[pyfunction(name = "init")]
#[pyo3(signature = (config=None))]
pub fn init(py: Python<'_>, config: Option<&Bound<'_, Config>>) -> PyResult<bool> {
    let overrides = config.map(|config| config.get().overrides.as_slice()).unwrap_or_default();
    if !overrides.is_empty() && agent::is_active() {
        diagnostics::warn("init: remora is active already, the settings given here have no effect");
    }
    agent::start(py, "init", overrides)
}
