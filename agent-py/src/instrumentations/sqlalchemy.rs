//! SQLAlchemy: one CLIENT span for each statement that a dialect hands to its driver.
//!
//! It owns the span: a driver below that we hook too makes none and adds what only it knows. The hooks are on the
//! dialects' last step, so that engines of every making, events, batches and asynchronous engines (whose drivers run in
//! greenlets of the same context) come by here.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use agent_core::Key;
use agent_core::fragment::Fragment;
use agent_core::semconv;
use agent_core::span::{SpanKind, SpanSpec};
use agent_core::sql::Dialect;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyString};

use super::sqlite3;
use crate::breaker::Breaker;
use crate::current::{self, Exit, Span};
use crate::database::{self, Place, TOOLKIT, driver};
use crate::ffi::{intern, quiet};
use crate::instrumentations::{Instrumentation, Target};
use crate::objects::{attribute, length, text};
use crate::remembered::Remembered;
use crate::suppression::{self, Of};
use crate::wrapper::{Call, HookResult};

/// The library.
pub static LIBRARY: Instrumentation = Instrumentation {
    name: "sqlalchemy",
    distribution: "SQLAlchemy",
    breaker: Breaker::new("sqlalchemy"),
    targets: &[
        Target::call("sqlalchemy.engine.default", "DefaultDialect.do_execute", execute),
        Target::call("sqlalchemy.engine.default", "DefaultDialect.do_executemany", executemany),
        Target::call("sqlalchemy.engine.default", "DefaultDialect.do_execute_no_params", execute_no_params),
        // Dialects with a way of their own; some call the default's, which then makes no second span.
        Target::call("sqlalchemy.dialects.mssql.pyodbc", "MSDialect_pyodbc.do_executemany", executemany)
            .optional(),
        Target::call("sqlalchemy.dialects.mysql.mysqldb", "MySQLDialect_mysqldb.do_executemany", executemany)
            .optional(),
        Target::call(
            "sqlalchemy.dialects.oracle.cx_oracle",
            "OracleDialect_cx_oracle.do_executemany",
            executemany,
        )
        .optional(),
        Target::call(
            "sqlalchemy.dialects.postgresql.psycopg2",
            "PGDialect_psycopg2.do_executemany",
            executemany,
        )
        .optional(),
        // Where a value becomes a part of the text.
        Target::call("sqlalchemy.sql.compiler", "SQLCompiler.render_literal_value", literal),
        // What it asks a new server, whether one still answers, how transactions are isolated.
        Target::call(
            "sqlalchemy.engine.default",
            "DefaultDialect._assert_and_set_isolation_level",
            of_its_own,
        )
        .optional(),
        Target::call("sqlalchemy.engine.default", "DefaultDialect.reset_isolation_level", of_its_own)
            .optional(),
        Target::call("sqlalchemy.engine.default", "DefaultDialect.initialize", of_its_own).optional(),
        Target::call("sqlalchemy.engine.default", "DefaultDialect.do_ping", of_its_own).optional(),
        Target::call("sqlalchemy.dialects.mssql.base", "MSDialect.initialize", of_its_own).optional(),
        Target::call("sqlalchemy.dialects.mysql.base", "MySQLDialect.initialize", of_its_own).optional(),
        Target::call("sqlalchemy.dialects.oracle.base", "OracleDialect.initialize", of_its_own).optional(),
        Target::call(
            "sqlalchemy.dialects.oracle.cx_oracle",
            "OracleDialect_cx_oracle.initialize",
            of_its_own,
        )
        .optional(),
        Target::call(
            "sqlalchemy.dialects.postgresql._psycopg_common",
            "_PGDialect_common_psycopg.do_ping",
            of_its_own,
        )
        .optional(),
        Target::call("sqlalchemy.dialects.postgresql.base", "PGDialect.initialize", of_its_own).optional(),
        Target::call("sqlalchemy.dialects.postgresql.psycopg", "PGDialect_psycopg.initialize", of_its_own)
            .optional(),
        Target::call("sqlalchemy.dialects.postgresql.psycopg2", "PGDialect_psycopg2.initialize", of_its_own)
            .optional(),
        // Of each new connection.
        Target::call(
            "sqlalchemy.dialects.postgresql.psycopg2",
            "PGDialect_psycopg2._hstore_oids",
            of_its_own,
        )
        .optional(),
    ],
};

static SCOPE: Key = Key::new("remora.sqlalchemy");
static SPEC: SpanSpec = SpanSpec { name: "sql", kind: SpanKind::Client, scope: &SCOPE };

/// What never changes for a dialect object: each belongs to one engine and those made of it.
struct Known {
    fragment: Fragment,
    dialect: Dialect,
    /// Whether the engine's URL says where the database is.
    addressed: bool,
    /// Whether it says which one it is.
    named: bool,
}

static ENGINES: Remembered<Arc<Known>> = Remembered::new();

#[cold]
fn read(dialect: &Bound<'_, PyAny>, context: Option<Bound<'_, PyAny>>) -> Option<Arc<Known>> {
    let py = dialect.py();
    let name = attribute(dialect, intern!(py, "name"));
    let name = text(&name).unwrap_or("other_sql");
    let system = match driver::system_name(name) {
        "mysql" if is_mariadb(dialect) => "mariadb",
        other => other,
    };
    let engine = context
        .and_then(|context| attribute(&context, intern!(py, "root_connection")))
        .and_then(|connection| attribute(&connection, intern!(py, "engine")))?;
    let url = attribute(&engine, intern!(py, "url"))?;
    let namespace = attribute(&url, intern!(py, "database"));
    let namespace = match text(&namespace).unwrap_or_default() {
        file if system == "sqlite" => sqlite3::namespace(file),
        other => Cow::Borrowed(other),
    };
    let host = attribute(&url, intern!(py, "host"));
    let port: Option<u16> = attribute(&url, intern!(py, "port")).and_then(|port| quiet(py, port.extract()));
    let default_port = driver::default_port(system);
    let place = Place {
        namespace: &namespace,
        address: text(&host).unwrap_or_default(),
        port: port.or(Some(default_port)).filter(|port| *port > 0),
        default_port,
    };
    let fragment = place.fragment(system);
    let addressed = !place.address.is_empty() || system == "sqlite";
    // Of a database in memory there is nothing to ask the driver for.
    let named = !place.namespace.is_empty() || system == "sqlite" && is_opened_by_url(&engine);
    Some(Arc::new(Known { fragment, dialect: Dialect::from_name(system), addressed, named }))
}

/// Whether SQLAlchemy opens an engine's connections, not a `creator` or a pool of the application's.
fn is_opened_by_url(engine: &Bound<'_, PyAny>) -> bool {
    let py = engine.py();
    let name = attribute(engine, intern!(py, "pool"))
        .and_then(|pool| attribute(&pool, intern!(py, "_creator")))
        .and_then(|creator| attribute(&creator, intern!(py, "__qualname__")));
    text(&name) == Some("create_engine.<locals>.connect")
}

/// What answers at a `mysql://` says so when it is first connected to.
fn is_mariadb(dialect: &Bound<'_, PyAny>) -> bool {
    let py = dialect.py();
    attribute(dialect, intern!(py, "is_mariadb")).is_some_and(|is| quiet(py, is.is_truthy()) == Some(true))
}

fn execute(call: &mut Call<'_>) -> HookResult {
    statement(call, Kind::One)
}

fn executemany(call: &mut Call<'_>) -> HookResult {
    statement(call, Kind::Many)
}

fn execute_no_params(call: &mut Call<'_>) -> HookResult {
    statement(call, Kind::NoParameters)
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    One,
    Many,
    NoParameters,
}

/// `(dialect, cursor, statement, parameters, context)`, without parameters `(dialect, cursor, statement, context)`.
fn statement(call: &mut Call<'_>, kind: Kind) -> HookResult {
    let py = call.py();
    if suppression::suppressed(py, Of::Any) {
        return Ok(());
    }
    let parent = current::current(py);
    // Of a dialect that calls the default's method, this is the inner call.
    if parent.as_ref().is_some_and(|parent| parent.covers(Exit::Database, TOOLKIT - 1)) {
        return Ok(());
    }
    let Some(span) = current::start_exit(py, &SPEC, &parent, Exit::Database, TOOLKIT) else {
        return Ok(());
    };
    let recording = span.is_recording();
    if recording {
        describe(call, &span, kind);
    }
    let entered = span.enter_call(parent);
    call.proceed();
    drop(entered);
    if recording {
        if let Some(error) = call.error() {
            driver::failed(&span, &error);
        }
        span.finish();
    }
    // Whoever still has it as a parent makes spans of their own.
    span.unmark();
    Ok(())
}

/// Statements that nobody asked for: neither we nor the driver make spans of them.
fn of_its_own(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    let parent = current::current(py);
    if let Some(cover) = current::cover(py, &parent, Exit::Database, TOOLKIT + 1) {
        let _entered = cover.enter_call(parent);
        call.proceed();
    }
    Ok(())
}

fn describe(call: &Call<'_>, span: &Span<'_>, kind: Kind) {
    let py = call.py();
    let (parameters, context) = match kind {
        Kind::NoParameters => (None, call.argument(3, intern!(py, "context"))),
        _ => (call.argument(3, intern!(py, "parameters")), call.argument(4, intern!(py, "context"))),
    };
    let context = context.filter(|context| !context.is_none());
    let size = parameters.as_ref().and_then(|parameters| length(parameters));
    let known = call.arg(0).and_then(|dialect| {
        ENGINES.get(&dialect, || read(&dialect, context.map(|context| context.to_owned())))
    });
    let mut dialect = Dialect::Generic;
    if let Some(known) = &known {
        dialect = known.dialect;
        span.with(|span| span.append(&known.fragment));
        span.note().addressed.store(known.addressed, Ordering::Relaxed);
        span.note().named.store(known.named, Ordering::Relaxed);
    }
    let sql = call.argument(2, intern!(py, "statement"));
    if let Some(Ok(sql)) = sql.as_ref().map(|sql| sql.cast::<PyString>()) {
        let parameterised = match kind {
            Kind::Many => parameters.is_some_and(|rows| database::rows_have_values(&rows)),
            Kind::One => size > Some(0),
            Kind::NoParameters => false,
        };
        let parameterised = parameterised && !has_literals(context.as_deref());
        database::set_statement(span, &sql, dialect, parameterised);
    }
    let batch = match kind {
        Kind::Many => size.filter(|size| *size != 1),
        Kind::One if size > Some(1) => rows_of_a_batch(context.as_deref(), size),
        _ => None,
    };
    if let Some(batch) = batch {
        span.with(|span| span.int(&semconv::DB_OPERATION_BATCH_SIZE, batch as i64));
    }
}

/// Where a compiler that has written a value into its text says so: it stays with its text in the engine's cache.
fn place(py: Python<'_>) -> &Bound<'_, PyString> {
    intern!(py, "_remora_literals")
}

/// A compiler writes a value into its text: a `literal_execute` or `literal_binds`, at every execution or once.
fn literal(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    if let Some(compiler) = call.arg(0)
        && let Some(names) = quiet(py, compiler.getattr(intern!(py, "__dict__")))
        && let Ok(names) = names.cast::<PyDict>()
    {
        quiet(py, names.set_item(place(py), true));
    }
    Ok(())
}

/// Whether SQLAlchemy has written values into a text that has parameters too.
fn has_literals(context: Option<&Bound<'_, PyAny>>) -> bool {
    let Some(context) = context else { return false };
    let py = context.py();
    let Some(compiled) = attribute(context, intern!(py, "compiled")) else { return false };
    let set = |name| attribute(&compiled, name).is_some_and(|set| quiet(py, set.is_truthy()) == Some(true));
    set(place(py)) || set(intern!(py, "literal_execute_params"))
}

/// How many rows one statement of an "insertmanyvalues" stands for: it has the parameters of as many.
fn rows_of_a_batch(context: Option<&Bound<'_, PyAny>>, size: Option<usize>) -> Option<usize> {
    let context = context?;
    let py = context.py();
    let style = attribute(context, intern!(py, "execute_style"))?;
    let style = attribute(&style, intern!(py, "name"));
    if text(&style) != Some("INSERTMANYVALUES") {
        return None;
    }
    let rows = attribute(context, intern!(py, "parameters"))?;
    let one = length(&quiet(py, rows.get_item(0))?).filter(|one| *one > 0)?;
    let rows = size?;
    (rows % one == 0).then_some(rows / one).filter(|rows| *rows > 1)
}
