//! What all database libraries share: statements, summaries, errors, layers.

use std::sync::{Arc, LazyLock, Mutex};

use agent_core::fragment::Fragment;
use agent_core::semconv;
use agent_core::span::ActiveSpan;
use agent_core::sql::{Analysis, Dialect, StatementCache};
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyString};

use crate::current::Span;
use crate::exception;
use crate::ffi::quiet;
use crate::old_names;

/// The layer of a driver. A library above it has a higher number; then the driver makes no span.
pub const DRIVER: u8 = 1;

/// Of a longer statement the head is shown.
const MAX_STATEMENT: usize = 32 * 1024;
/// Of a longer one the text object is not kept.
const MAX_KEPT: usize = 4 * 1024;
const PLACES: usize = 512;

/// Statements by the identity of their text object: a statement written in the application's code is one object for
/// ever. A place keeps its text alive, so that no other object can have its address.
// Never held across a call into Python; contended, it is passed by.
static SEEN: Mutex<Vec<Option<Seen>>> = Mutex::new(Vec::new());

/// Statements by their text: those that are put together anew each time.
static STATEMENTS: LazyLock<StatementCache> = LazyLock::new(StatementCache::default);

struct Seen {
    text: Py<PyString>,
    dialect: Dialect,
    parameterised: bool,
    fragment: Arc<Fragment>,
}

/// Sets name, `db.query.summary` and `db.query.text` from a statement. Text without parameters is sanitised; text with
/// parameters is kept, since its values are not in it.
#[inline]
pub fn set_statement(span: &Span<'_>, sql: &Bound<'_, PyString>, dialect: Dialect, parameterised: bool) {
    let place = (sql.as_ptr() as usize >> 4) % PLACES;
    if let Ok(seen) = SEEN.try_lock()
        && let Some(Some(found)) = seen.get(place)
        && found.text.is(sql)
        && found.dialect == dialect
        && found.parameterised == parameterised
    {
        span.with(|span| span.append(&found.fragment));
        return;
    }
    set_new_statement(span, sql, dialect, parameterised, place);
}

#[cold]
fn set_new_statement(
    span: &Span<'_>,
    sql: &Bound<'_, PyString>,
    dialect: Dialect,
    parameterised: bool,
    place: usize,
) {
    // Surrogates have no UTF-8: such a statement shows nothing.
    let Some(text) = quiet(sql.py(), sql.to_str()) else { return };
    let analysis = STATEMENTS.get(text, dialect, MAX_STATEMENT);
    let shown = if parameterised { text } else { &analysis.sanitized };
    let fragment = Arc::new(Fragment::new(|span| describe(span, &analysis, shown)));
    span.with(|span| span.append(&fragment));
    // A subclass of str may run code when it goes.
    if sql.is_exact_instance_of::<PyString>() && text.len() <= MAX_KEPT {
        let fresh = Seen { text: sql.clone().unbind(), dialect, parameterised, fragment };
        let replaced = SEEN.try_lock().ok().and_then(|mut seen| {
            if seen.is_empty() {
                seen.resize_with(PLACES, || None);
            }
            seen[place].replace(fresh)
        });
        // Not by its own drop, which would wait until pyo3 is next entered by a way it knows.
        drop(replaced.map(|old| old.text.into_bound(sql.py())));
    }
}

fn describe(span: &mut ActiveSpan, analysis: &Analysis, shown: &str) {
    if !analysis.summary.is_empty() {
        span.name(&analysis.summary);
        span.str(&semconv::DB_QUERY_SUMMARY, &analysis.summary);
    }
    span.str(&semconv::DB_QUERY_TEXT, shown);
    if old_names::database() {
        span.str(&old_names::DB_STATEMENT, shown);
        // A summary begins with the operation.
        let operation = analysis.summary.split([' ', ';']).next().unwrap_or_default();
        if !operation.is_empty() {
            span.str(&old_names::DB_OPERATION, operation);
        }
    }
}

/// Sets status, `error.type` and, from the named attribute of the exception, `db.response.status_code`.
#[cold]
pub fn set_error(span: &Span<'_>, error: &Bound<'_, PyAny>, code: &Bound<'_, PyString>) {
    let type_name = exception::type_name(error);
    let py = error.py();
    let code = quiet(py, error.getattr_opt(code)).flatten();
    let code = code.and_then(|code| quiet(py, code.extract::<String>()));
    span.with(|span| {
        if let Some(code) = &code {
            span.str(&semconv::DB_RESPONSE_STATUS_CODE, code);
        }
        // The message may quote the statement's literals: it stays out.
        exception::set_error(span, &type_name, "");
    });
}
