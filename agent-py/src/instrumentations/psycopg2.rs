//! psycopg2: one CLIENT span for each `execute`, `executemany`, `callproc` and `copy_…` of a cursor.
//!
//! Its types are C types, whose methods are patched in the type's own dictionary: connections and cursors, the
//! application's subclasses and factories stay what they are, for the functions in C that look at them too. Nothing
//! inside a call starts spans, so the span is not put in force.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use agent_core::Key;
use agent_core::semconv;
use agent_core::span::{SpanKind, SpanSpec};
use agent_core::sql::Dialect;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyString};

use crate::breaker::Breaker;
use crate::current::{self, Exit, Span};
use crate::database::postgresql::{self, Connection};
use crate::database::{self, DRIVER};
use crate::ffi::intern;
use crate::http::peer;
use crate::instrumentations::{Instrumentation, Target};
use crate::objects::{attribute, length, text};
use crate::suppression::{self, Of};
use crate::wrapper::{Call, HookResult};

/// The library.
pub static LIBRARY: Instrumentation = Instrumentation {
    name: "psycopg2",
    distribution: "psycopg2",
    breaker: Breaker::new("psycopg2"),
    targets: &[
        Target::call("psycopg2._psycopg", "cursor.execute", execute),
        Target::call("psycopg2._psycopg", "cursor.executemany", executemany),
        Target::call("psycopg2._psycopg", "cursor.callproc", procedure),
        Target::call("psycopg2._psycopg", "cursor.copy_expert", copy_expert),
        Target::call("psycopg2._psycopg", "cursor.copy_from", copy_from),
        Target::call("psycopg2._psycopg", "cursor.copy_to", copy_to),
    ],
};

static SCOPE: Key = Key::new("remora.psycopg2");
static SPEC: SpanSpec = SpanSpec { name: "postgresql", kind: SpanKind::Client, scope: &SCOPE };

fn execute(call: &mut Call<'_>) -> HookResult {
    run(call, |call, span| {
        let py = call.py();
        let parameters = call.argument(2, intern!(py, "vars"));
        let parameterised = parameters.is_some_and(|parameters| database::has_values(&parameters));
        set_query(span, call.argument(1, intern!(py, "query")), parameterised);
    })
}

fn executemany(call: &mut Call<'_>) -> HookResult {
    run(call, |call, span| {
        let py = call.py();
        let rows = call.argument(2, intern!(py, "vars_list"));
        let parameterised = rows.as_ref().is_some_and(|rows| database::rows_have_values(rows));
        set_query(span, call.argument(1, intern!(py, "query")), parameterised);
        if let Some(size) = rows.and_then(|rows| length(&rows)).filter(|size| *size != 1) {
            span.with(|span| span.int(&semconv::DB_OPERATION_BATCH_SIZE, size as i64));
        }
    })
}

fn procedure(call: &mut Call<'_>) -> HookResult {
    run(call, |call, span| {
        let name = call.argument(1, intern!(call.py(), "procname")).map(|name| name.to_owned());
        if let Some(name) = text(&name) {
            span.with(|span| {
                span.name(name);
                span.str(&semconv::DB_STORED_PROCEDURE_NAME, name);
            });
        }
    })
}

fn copy_expert(call: &mut Call<'_>) -> HookResult {
    run(call, |call, span| set_query(span, call.argument(1, intern!(call.py(), "sql")), false))
}

fn copy_from(call: &mut Call<'_>) -> HookResult {
    run(call, |call, span| set_copy(call, span, "FROM STDIN"))
}

fn copy_to(call: &mut Call<'_>) -> HookResult {
    run(call, |call, span| set_copy(call, span, "TO STDOUT"))
}

fn set_query(span: &Span<'_>, query: Option<Borrowed<'_, '_, PyAny>>, parameterised: bool) {
    let Some(query) = query else { return };
    if let Ok(query) = query.cast::<PyString>() {
        database::set_statement(span, &query, Dialect::PostgreSql, parameterised);
    } else if let Some(statement) = postgresql::statement(&query, parameterised) {
        span.with(|span| span.append(&statement));
    }
}

/// The statement that is made of a table's name.
fn set_copy(call: &Call<'_>, span: &Span<'_>, way: &str) {
    let table = call.argument(2, intern!(call.py(), "table")).map(|table| table.to_owned());
    let Some(table) = text(&table) else { return };
    let statement = format!("COPY \"{}\" {way}", table.replace('"', "\"\""));
    let statement = database::statement_of(&statement, Dialect::PostgreSql, true);
    span.with(|span| span.append(&statement));
}

#[inline]
fn run(call: &mut Call<'_>, describe: impl FnOnce(&Call<'_>, &Span<'_>)) -> HookResult {
    let py = call.py();
    if suppression::suppressed(py, Of::Any) {
        return Ok(());
    }
    let parent = current::current(py);
    if let Some(outer) = parent.as_ref().filter(|outer| outer.covers(Exit::Database, DRIVER)) {
        enrich(call, outer);
        return Ok(());
    }
    let Some(span) = current::start_leaf(py, &SPEC, &parent, Exit::Database, DRIVER) else { return Ok(()) };
    let connection = connection(call);
    let known = connection.as_ref().and_then(|connection| {
        postgresql::with_connection(connection, |known| {
            span.with(|span| span.append(&known.whole));
            known.is_socket
        })
    });
    match (known, &connection) {
        (Some(false), Some(connection)) => set_peer(&span, connection),
        (Some(_), _) => {}
        (None, _) => {
            span.with(postgresql::describe_system);
        }
    }
    describe(call, &span);
    call.proceed();
    if let Some(error) = call.error() {
        let code = attribute(&error, intern!(py, "pgcode"));
        database::set_error_code(&span, &error, text(&code));
    }
    span.finish();
    Ok(())
}

fn connection<'py>(call: &Call<'py>) -> Option<Bound<'py, PyAny>> {
    let cursor = call.arg(0)?;
    attribute(&cursor, intern!(call.py(), "connection"))
}

/// A connection has a file descriptor, as a socket has.
fn set_peer(span: &Span<'_>, connection: &Bound<'_, PyAny>) {
    peer::set(span, connection, false, || Some(connection.clone()), || None);
}

/// The span of a layer above stands for the call: it gets what only we know.
#[cold]
fn enrich(call: &Call<'_>, outer: &Span<'_>) {
    if !outer.is_recording() {
        return;
    }
    let Some(connection) = connection(call) else { return };
    let Some(known) = postgresql::with_connection(&connection, Arc::<Connection>::clone) else { return };
    if !outer.note().peered.swap(true, Ordering::Relaxed) && !known.is_socket {
        set_peer(outer, &connection);
    }
    known.add_place(outer);
}
