//! Django's statements where no hook of ours is on the driver. One layer makes the span: the driver, wherever we know
//! it, else its cursor's wrapper here, in the last step, below the application's own execute wrappers.

use std::sync::Arc;

use agent_core::fragment::Fragment;
use agent_core::semconv;
use agent_core::span::{SpanKind, SpanSpec};
use agent_core::sql::Dialect;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyString};

use super::SCOPE;
use crate::current::{self, Exit, Span};
use crate::database::{self, Place, TOOLKIT, driver};
use crate::exception;
use crate::ffi::{intern, quiet};
use crate::objects::{attribute, length, text};
use crate::remembered::Remembered;
use crate::suppression::{self, Of};
use crate::wrapper::{self, Call, HookResult};

static SPEC: SpanSpec = SpanSpec { name: "sql", kind: SpanKind::Client, scope: &SCOPE };

/// Whether a database's driver is one of those that make their own spans.
static HOOKED: Remembered<bool> = Remembered::new();

/// What never changes for a connection.
struct Known {
    fragment: Fragment,
    dialect: Dialect,
}

static CONNECTIONS: Remembered<Arc<Known>> = Remembered::new();

/// Drivers that have a file beside this one; where it is turned off, so are its spans.
const DRIVERS: [&str; 3] = ["sqlite3", "psycopg", "psycopg2"];

/// `CursorWrapper._execute`.
pub fn execute(call: &mut Call<'_>) -> HookResult {
    statement(call, false)
}

/// `CursorWrapper._executemany`.
pub fn executemany(call: &mut Call<'_>) -> HookResult {
    statement(call, true)
}

fn statement(call: &mut Call<'_>, many: bool) -> HookResult {
    let py = call.py();
    let Some(cursor) = call.arg(0) else { return Ok(()) };
    let Some(database) = attribute(&cursor, intern!(py, "db")) else { return Ok(()) };
    if HOOKED.with(&database, || Some(is_hooked(&cursor)), |hooked| *hooked) != Some(false)
        || suppression::suppressed(py, Of::Any)
    {
        return Ok(());
    }
    let parent = current::current(py);
    let Some(span) = current::start_exit(py, &SPEC, &parent, Exit::Database, TOOLKIT) else {
        return Ok(());
    };
    let recording = span.is_recording();
    if recording {
        describe(call, &span, &database, many);
    }
    {
        let _entered = span.enter_call(parent);
        call.proceed();
    }
    if recording {
        if let Some(error) = call.error() {
            failed(&span, &error);
        }
        span.finish();
    }
    span.unmark();
    Ok(())
}

/// Asked once for each database and thread. Between Django's wrapper and the driver's cursor may be the backend's.
#[cold]
fn is_hooked(cursor: &Bound<'_, PyAny>) -> bool {
    let py = cursor.py();
    let mut inner = attribute(cursor, intern!(py, "cursor"));
    for _ in 0..4 {
        let Some(cursor) = inner else { break };
        let hooked = cursor.get_type().mro().iter().any(|class| {
            let module = attribute(&class, intern!(py, "__module__"));
            let package = text(&module).and_then(|module| module.split('.').next());
            package.is_some_and(|package| DRIVERS.contains(&package))
                || attribute(&class, intern!(py, "__dict__"))
                    .and_then(|names| quiet(py, names.get_item(intern!(py, "execute"))))
                    .is_some_and(|found| wrapper::is_wrapper(&found))
        });
        if hooked {
            return true;
        }
        inner = attribute(&cursor, intern!(py, "cursor"));
    }
    false
}

fn describe(call: &Call<'_>, span: &Span<'_>, database: &Bound<'_, PyAny>, many: bool) {
    let py = call.py();
    let known = attribute(database, intern!(py, "connection"))
        .and_then(|connection| CONNECTIONS.get(&connection, || Some(Arc::new(read(database, &connection)))));
    let mut dialect = Dialect::Generic;
    if let Some(known) = &known {
        dialect = known.dialect;
        span.with(|span| span.append(&known.fragment));
    }
    let parameters = call.argument(2, if many { intern!(py, "param_list") } else { intern!(py, "params") });
    let size = parameters.as_ref().and_then(|parameters| length(parameters));
    if let Some(Ok(sql)) = call.argument(1, intern!(py, "sql")).as_ref().map(|sql| sql.cast::<PyString>()) {
        let parameterised = if many {
            parameters.is_some_and(|rows| database::rows_have_values(&rows))
        } else {
            size > Some(0)
        };
        database::set_statement(span, &sql, dialect, parameterised);
    }
    if let Some(size) = size.filter(|size| many && *size != 1) {
        span.with(|span| span.int(&semconv::DB_OPERATION_BATCH_SIZE, size as i64));
    }
}

#[cold]
fn read(database: &Bound<'_, PyAny>, connection: &Bound<'_, PyAny>) -> Known {
    let py = database.py();
    let vendor = attribute(database, intern!(py, "vendor"));
    let system = match driver::system_name(text(&vendor).unwrap_or("other_sql")) {
        "mysql" if is_mariadb(connection) => "mariadb",
        other => other,
    };
    let settings = attribute(database, intern!(py, "settings_dict"));
    let settings = settings.as_ref().and_then(|settings| settings.cast::<PyDict>().ok());
    let setting = |name| settings.and_then(|settings| quiet(py, settings.get_item(name)).flatten());
    let namespace = setting(intern!(py, "NAME"));
    let host = setting(intern!(py, "HOST"));
    let port = setting(intern!(py, "PORT"));
    // A number, or its text.
    let port = port.and_then(|port| match text(&Some(port.clone())) {
        Some(text) => text.parse::<u16>().ok(),
        None => quiet(py, port.extract()),
    });
    let address = text(&host).unwrap_or_default();
    let default_port = driver::default_port(system);
    let port = port.or(Some(default_port)).filter(|port| *port > 0 && !address.starts_with('/'));
    let place = Place { namespace: text(&namespace).unwrap_or_default(), address, port, default_port };
    let fragment = place.fragment(system);
    Known { fragment, dialect: Dialect::from_name(system) }
}

/// What the server said of itself when it was connected to: the drivers of MySQL keep it.
fn is_mariadb(connection: &Bound<'_, PyAny>) -> bool {
    let py = connection.py();
    let version = quiet(py, connection.call_method0(intern!(py, "get_server_info")));
    text(&version).is_some_and(|version| version.to_ascii_lowercase().contains("mariadb"))
}

/// Django raises exceptions of its own in the place of the driver's, which knows the code.
#[cold]
fn failed(span: &Span<'_>, error: &Bound<'_, PyAny>) {
    let cause = attribute(error, intern!(error.py(), "__cause__"))
        .filter(|_| exception::type_name(error).starts_with("django.db.utils."));
    driver::failed(span, cause.as_ref().unwrap_or(error));
}
