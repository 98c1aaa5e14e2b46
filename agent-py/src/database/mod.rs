//! What all database libraries share: statements, summaries, errors, layers.

pub mod composed;
pub mod driver;
pub mod postgresql;

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
use crate::objects::{first, length};
use crate::old_names;

/// The layer of a driver. A library above it has a higher number; then the driver makes no span.
pub const DRIVER: u8 = 1;

/// The layer of what stands on a driver and makes the spans in its stead.
pub const TOOLKIT: u8 = 2;

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

/// Whether a statement has values beside its text. Of what is not derived from a tuple, a list or a dict nobody knows:
/// then it counts as none, and the text is sanitised.
#[inline]
pub fn has_values(parameters: &Bound<'_, PyAny>) -> bool {
    length(parameters) > Some(0)
}

/// As [`has_values`], of the rows of an `executemany`, by the first one.
#[inline]
pub fn rows_have_values(rows: &Bound<'_, PyAny>) -> bool {
    first(rows).is_some_and(|row| has_values(&row))
}

/// Sets name, `db.query.summary` and `db.query.text` from a statement. Text without parameters is sanitised; text with
/// parameters is kept, since its values are not in it.
#[inline]
pub fn set_statement(span: &Span<'_>, sql: &Bound<'_, PyString>, dialect: Dialect, parameterised: bool) {
    let append = |fragment: &Arc<Fragment>| {
        span.with(|span| span.append(fragment));
    };
    if with_seen(sql, dialect, parameterised, append).is_none()
        && let Some(fragment) = new_statement(sql, dialect, parameterised)
    {
        append(&fragment);
    }
}

/// What [`set_statement`] sets, for a span that starts later.
pub fn statement(sql: &Bound<'_, PyString>, dialect: Dialect, parameterised: bool) -> Option<Arc<Fragment>> {
    with_seen(sql, dialect, parameterised, Arc::clone).or_else(|| new_statement(sql, dialect, parameterised))
}

/// As [`statement`], of text that the application holds in another form.
pub fn statement_of(text: &str, dialect: Dialect, parameterised: bool) -> Arc<Fragment> {
    let analysis = STATEMENTS.get(text, dialect, MAX_STATEMENT);
    let (Ok(fragment) | Err(fragment)) =
        analysis.fragment(parameterised, || fragment_of(&analysis, text, parameterised));
    Arc::clone(fragment)
}

#[cold]
fn fragment_of(analysis: &Analysis, text: &str, parameterised: bool) -> Fragment {
    let shown = if parameterised { text } else { &analysis.sanitized };
    Fragment::new(|span| describe(span, analysis, shown))
}

fn place_of(sql: &Bound<'_, PyString>) -> usize {
    (sql.as_ptr() as usize >> 4) % PLACES
}

#[inline]
fn with_seen<R>(
    sql: &Bound<'_, PyString>,
    dialect: Dialect,
    parameterised: bool,
    work: impl FnOnce(&Arc<Fragment>) -> R,
) -> Option<R> {
    if let Ok(seen) = SEEN.try_lock()
        && let Some(Some(found)) = seen.get(place_of(sql))
        && found.text.is(sql)
        && found.dialect == dialect
        && found.parameterised == parameterised
    {
        return Some(work(&found.fragment));
    }
    None
}

#[cold]
fn new_statement(sql: &Bound<'_, PyString>, dialect: Dialect, parameterised: bool) -> Option<Arc<Fragment>> {
    // Surrogates have no UTF-8: such a statement shows nothing.
    let text = quiet(sql.py(), sql.to_str())?;
    let analysis = STATEMENTS.get(text, dialect, MAX_STATEMENT);
    let fragment = match analysis.fragment(parameterised, || fragment_of(&analysis, text, parameterised)) {
        // Another object with the same text: it is put together anew each time.
        Ok(fragment) => return Some(Arc::clone(fragment)),
        Err(fragment) => Arc::clone(fragment),
    };
    // A subclass of str may run code when it goes.
    if sql.is_exact_instance_of::<PyString>() && text.len() <= MAX_KEPT {
        let fresh =
            Seen { text: sql.clone().unbind(), dialect, parameterised, fragment: Arc::clone(&fragment) };
        let replaced = SEEN.try_lock().ok().and_then(|mut seen| {
            if seen.is_empty() {
                seen.resize_with(PLACES, || None);
            }
            seen[place_of(sql)].replace(fresh)
        });
        // Not by its own drop, which would wait until pyo3 is next entered by a way it knows.
        drop(replaced.map(|old| old.text.into_bound(sql.py())));
    }
    Some(fragment)
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

/// Sets status, `error.type` and, from the named attribute of the exception, `db.response.status_code`. A call that was
/// cancelled has not failed.
#[cold]
pub fn set_error(span: &Span<'_>, error: &Bound<'_, PyAny>, code: &Bound<'_, PyString>) {
    if exception::is_cancellation(error) {
        return;
    }
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

/// Sets status, and the code of the database's answer as `error.type` and `db.response.status_code`; without a code the
/// exception's class is the type. A call that was cancelled has not failed.
#[cold]
pub fn set_error_code(span: &Span<'_>, error: &Bound<'_, PyAny>, code: Option<&str>) {
    if exception::is_cancellation(error) {
        return;
    }
    let type_name = if code.is_some() { String::new() } else { exception::type_name(error) };
    span.with(|span| {
        if let Some(code) = code {
            span.str(&semconv::DB_RESPONSE_STATUS_CODE, code);
        }
        // The message may quote the statement's literals: it stays out.
        exception::set_error(span, code.unwrap_or(&type_name), "");
    });
}

/// Where a database is, as attributes: `db.namespace`, `server.address` and, unless it is the system's default,
/// `server.port`.
pub struct Place<'a> {
    /// The database's name; may be empty.
    pub namespace: &'a str,
    /// Host name, address or socket path; may be empty.
    pub address: &'a str,
    /// The port; of a socket none.
    pub port: Option<u16>,
    /// The system's own port.
    pub default_port: u16,
}

impl Place<'_> {
    /// All that is known of a database above its driver, under the system's name until a statement says more.
    pub fn fragment(&self, system: &str) -> Fragment {
        Fragment::new(|span| {
            span.name(system);
            span.str(&semconv::DB_SYSTEM_NAME, system);
            if old_names::database() {
                span.str(&old_names::DB_SYSTEM, system);
            }
            self.describe(span);
        })
    }

    /// Sets them.
    pub fn describe(&self, span: &mut ActiveSpan) {
        self.describe_namespace(span);
        self.describe_server(span);
    }

    /// Sets the database's name.
    pub fn describe_namespace(&self, span: &mut ActiveSpan) {
        if !self.namespace.is_empty() {
            span.str(&semconv::DB_NAMESPACE, self.namespace);
            if old_names::database() {
                span.str(&old_names::DB_NAME, self.namespace);
            }
        }
    }

    /// Sets the server.
    pub fn describe_server(&self, span: &mut ActiveSpan) {
        if self.address.is_empty() {
            return;
        }
        let old_names = old_names::database();
        span.str(&semconv::SERVER_ADDRESS, self.address);
        if old_names {
            span.str(&old_names::NET_PEER_NAME, self.address);
        }
        if let Some(port) = self.port {
            if port != self.default_port {
                span.int(&semconv::SERVER_PORT, i64::from(port));
            }
            if old_names {
                span.int(&old_names::NET_PEER_PORT, i64::from(port));
            }
        }
    }
}
