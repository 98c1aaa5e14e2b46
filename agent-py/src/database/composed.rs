//! The text of a query that psycopg and psycopg2 compose of parts (their `sql`) or that is a template string, put together
//! natively: no code of the application runs and no value is rendered, each becomes a `?`.

use pyo3::prelude::*;
use pyo3::types::{PyAny, PyList, PyString, PyTuple, PyType};

use crate::ffi::{intern, quiet};
use crate::objects::{self, attribute};

/// Parts of parts of parts are followed so far.
const MAX_DEPTH: usize = 32;
/// Of a longer text the head is enough.
const MAX_LENGTH: usize = 64 * 1024;

/// The text of a query; `None` where it is of no kind that we know.
pub fn text(query: &Bound<'_, PyAny>) -> Option<String> {
    let mut out = String::new();
    if is_template(query) {
        template(query, 0, &mut out);
    } else {
        class_name(query)?;
        part(query, 0, &mut out);
    }
    Some(out)
}

/// The class of `psycopg.sql` or `psycopg2.sql` that an object is of, or that its class is derived from.
fn class_name(object: &Bound<'_, PyAny>) -> Option<&'static str> {
    let class = object.get_type();
    known_name(class.as_any()).or_else(|| base_name(&class))
}

fn known_name(class: &Bound<'_, PyAny>) -> Option<&'static str> {
    let py = class.py();
    let module = attribute(class, intern!(py, "__module__"))?;
    if !matches!(objects::text(&Some(module)), Some("psycopg.sql" | "psycopg2.sql")) {
        return None;
    }
    let name = attribute(class, intern!(py, "__name__"));
    let name = objects::text(&name)?;
    ["SQL", "Identifier", "Placeholder", "Literal", "Composed"].into_iter().find(|known| *known == name)
}

/// Of a class of the application's: none where its own code makes the text, or would run when the parts are read.
#[cold]
fn base_name(class: &Bound<'_, PyType>) -> Option<&'static str> {
    let py = class.py();
    let names = [
        intern!(py, "as_string"),
        intern!(py, "as_bytes"),
        intern!(py, "_obj"),
        intern!(py, "_wrapped"),
        intern!(py, "__getattribute__"),
        intern!(py, "__getattr__"),
    ];
    for base in class.mro().iter() {
        if let Some(known) = known_name(&base) {
            return Some(known);
        }
        let own = attribute(&base, intern!(py, "__dict__"))?;
        if names.iter().any(|name| quiet(py, own.contains(name)) != Some(false)) {
            return None;
        }
    }
    None
}

fn part(object: &Bound<'_, PyAny>, depth: usize, out: &mut String) {
    let py = object.py();
    if depth > MAX_DEPTH || out.len() > MAX_LENGTH {
        return;
    }
    let class = class_name(object);
    let inner = class.and_then(|_| {
        attribute(object, intern!(py, "_obj")).or_else(|| attribute(object, intern!(py, "_wrapped")))
    });
    match (class, inner) {
        (Some("SQL"), Some(text)) => push(&text, out),
        (Some("Identifier"), Some(names)) => {
            for (at, name) in items(&names).enumerate() {
                if at > 0 {
                    out.push('.');
                }
                identifier(&name, out);
            }
        }
        (Some("Placeholder"), inner) => match inner {
            Some(name) if objects::text(&Some(name.clone())).is_some_and(|name| !name.is_empty()) => {
                out.push_str("%(");
                push(&name, out);
                out.push_str(")s");
            }
            _ => out.push_str("%s"),
        },
        (Some("Composed"), Some(parts)) => {
            for inner in items(&parts) {
                part(&inner, depth + 1, out);
            }
        }
        _ => out.push('?'),
    }
}

/// The items of a list or a tuple of the interpreter's own.
fn items<'py>(of: &Bound<'py, PyAny>) -> impl Iterator<Item = Bound<'py, PyAny>> {
    let tuple = match of.cast::<PyTuple>() {
        Ok(tuple) => Some(tuple.clone()),
        Err(_) => of.cast::<PyList>().ok().map(PyListMethods::to_tuple),
    };
    tuple.into_iter().flatten()
}

fn push(text: &Bound<'_, PyAny>, out: &mut String) {
    if let Ok(text) = text.cast::<PyString>()
        && let Some(text) = quiet(text.py(), text.to_str())
    {
        out.push_str(text);
    }
}

fn identifier(name: &Bound<'_, PyAny>, out: &mut String) {
    let Ok(name) = name.cast::<PyString>() else { return out.push('?') };
    let Some(name) = quiet(name.py(), name.to_str()) else { return out.push('?') };
    out.push('"');
    out.push_str(&name.replace('"', "\"\""));
    out.push('"');
}

/// PEP 750; the class exists from 3.14 on.
fn is_template(object: &Bound<'_, PyAny>) -> bool {
    let class = object.get_type();
    let named = |name: &Bound<'_, PyString>, expected: &str| {
        objects::text(&attribute(class.as_any(), name)) == Some(expected)
    };
    let py = object.py();
    named(intern!(py, "__name__"), "Template") && named(intern!(py, "__module__"), "string.templatelib")
}

fn template(object: &Bound<'_, PyAny>, depth: usize, out: &mut String) {
    let py = object.py();
    let Some(strings) = attribute(object, intern!(py, "strings")) else { return };
    let Some(values) = attribute(object, intern!(py, "interpolations")) else { return };
    let mut values = items(&values);
    for (at, text) in items(&strings).enumerate() {
        if at > 0
            && let Some(value) = values.next()
        {
            interpolation(&value, depth, out);
        }
        if depth > MAX_DEPTH || out.len() > MAX_LENGTH {
            return;
        }
        push(&text, out);
    }
}

fn interpolation(object: &Bound<'_, PyAny>, depth: usize, out: &mut String) {
    let py = object.py();
    let Some(value) = attribute(object, intern!(py, "value")) else { return out.push('?') };
    let spec = attribute(object, intern!(py, "format_spec"));
    if is_template(&value) {
        template(&value, depth + 1, out);
    } else if class_name(&value).is_some() {
        part(&value, depth + 1, out);
    } else if objects::text(&spec) == Some("i") {
        identifier(&value, out);
    } else {
        out.push('?');
    }
}
