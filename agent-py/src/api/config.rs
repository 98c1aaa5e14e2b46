//! Activation from code: `init`, and the opaque settings that it takes.

use std::fmt::Write as _;

use agent_core::settings::{self, Kind, Row};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

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
/// `TypeError` for a name that is no setting or a value that it does not take, `ValueError` for an item of a list that
/// has a comma in it.
#[pyfunction]
#[pyo3(signature = (**settings))]
pub fn config(settings: Option<&Bound<'_, PyDict>>) -> PyResult<Config> {
    let mut overrides = Vec::new();
    for (name, value) in settings.into_iter().flat_map(|settings| settings.iter()) {
        let name: String = name.extract()?;
        let Some(row) = settings::find(&name) else {
            return Err(PyTypeError::new_err(format!("'{name}' is no setting of remora")));
        };
        if !value.is_none() {
            overrides.push((name, setting(row, &value)?));
        }
    }
    Ok(Config { overrides })
}

/// A value as the environment would spell it, so that reading it gives the same value again.
fn setting(row: &Row, value: &Bound<'_, PyAny>) -> PyResult<String> {
    if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        let mut items = Vec::new();
        for item in value.try_iter()? {
            let item = text(&item?)?;
            // There is no way to write it; the item itself may be a secret.
            if item.contains(',') {
                return Err(PyValueError::new_err(format!("{}: an item with a comma in it", row.name)));
            }
            items.push(item);
        }
        return Ok(items.join(","));
    }
    let Ok(dict) = value.cast::<PyDict>() else { return text(value) };
    if row.kind != Kind::Map {
        return Err(PyTypeError::new_err(format!("{} cannot be a dict", row.name)));
    }
    let mut out = String::new();
    for (key, value) in dict.iter() {
        if !out.is_empty() {
            out.push(',');
        }
        encode(&text(&key)?, &mut out);
        out.push('=');
        encode(&text(&value)?, &mut out);
    }
    Ok(out)
}

/// Percent-encodes what the reader of pairs would take for something else.
fn encode(text: &str, out: &mut String) {
    for letter in text.chars() {
        if matches!(letter, '%' | ',' | '=') || letter.is_whitespace() {
            for byte in letter.encode_utf8(&mut [0; 4]).bytes() {
                // Writing to a string cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
        } else {
            out.push(letter);
        }
    }
}

fn text(value: &Bound<'_, PyAny>) -> PyResult<String> {
    if value.is_instance_of::<PyBool>() {
        return Ok(if value.is_truthy()? { "true" } else { "false" }.to_owned());
    }
    if value.is_instance_of::<PyString>()
        || value.is_instance_of::<PyInt>()
        || value.is_instance_of::<PyFloat>()
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
