//! sqlite3 of the standard library: one CLIENT span for each `execute`, `executemany` and `executescript`.
//!
//! Its types are C types: the methods are patched in the types' own dictionaries, so that `type(connection)`,
//! subclasses and factories stay what they are. Nothing inside a call starts spans, so the span is not put in force.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use agent_core::Key;
use agent_core::semconv;
use agent_core::span::{SpanKind, SpanSpec};
use agent_core::sql::Dialect;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString, PyTuple};

use crate::breaker::Breaker;
use crate::current::{self, Exit};
use crate::database;
use crate::instrumentations::{Instrumentation, Target};
use crate::wrapper::{Call, HookResult};

/// The library.
pub static LIBRARY: Instrumentation = Instrumentation {
    name: "sqlite3",
    distribution: "",
    breaker: Breaker::new("sqlite3"),
    targets: &[
        // `_sqlite3` runs before the modules that copy its names.
        Target { optional: true, ..Target::call("_sqlite3", "connect", connect) },
        Target { optional: true, ..Target::call("sqlite3.dbapi2", "connect", connect) },
        Target { optional: true, ..Target::call("sqlite3", "connect", connect) },
        Target::call("sqlite3.dbapi2", "Cursor.execute", execute),
        Target::call("sqlite3.dbapi2", "Cursor.executemany", executemany),
        Target::call("sqlite3.dbapi2", "Cursor.executescript", executescript),
        Target::call("sqlite3.dbapi2", "Connection.execute", execute),
        Target::call("sqlite3.dbapi2", "Connection.executemany", executemany),
        Target::call("sqlite3.dbapi2", "Connection.executescript", executescript),
    ],
};

static SCOPE: Key = Key::new("remora.sqlite3");
static SPEC: SpanSpec = SpanSpec { name: "sqlite", kind: SpanKind::Client, scope: &SCOPE };

/// The file of each connection made by `connect`, by address: a connection has no attribute for it and takes no weak
/// reference. A later `connect` at the same address overwrites; the oldest half goes when it is full.
// Held for a look-up only, never across a call into Python; contended, it is passed by.
static NAMESPACES: Mutex<Option<HashMap<usize, Arc<str>>>> = Mutex::new(None);
const MAX_NAMESPACES: usize = 4096;

fn connect(call: &mut Call<'_>) -> HookResult {
    call.proceed();
    let py = call.py();
    let (Some(connection), Some(database)) = (call.result(), call.argument(0, intern!(py, "database"))) else {
        return Ok(());
    };
    let path = match database.cast::<PyString>() {
        Ok(text) => text.to_string_lossy().into_owned(),
        Err(_) => match database.call_method0(intern!(py, "__fspath__")) {
            Ok(path) => path.cast::<PyString>()?.to_string_lossy().into_owned(),
            Err(_) => return Ok(()),
        },
    };
    let namespace = namespace(&path);
    if let Ok(mut all) = NAMESPACES.try_lock() {
        let all = all.get_or_insert_default();
        if all.len() >= MAX_NAMESPACES {
            all.clear();
        }
        all.insert(connection.as_ptr() as usize, namespace.into());
    }
    Ok(())
}

/// The file's name without its folder; empty for a database in memory.
fn namespace(database: &str) -> &str {
    let path = database.strip_prefix("file:").unwrap_or(database);
    let path = path.split(['?', '#']).next().unwrap_or(path);
    if path.is_empty() || path == ":memory:" || database.contains("mode=memory") {
        return "";
    }
    path.rsplit('/').next().unwrap_or(path)
}

fn execute(call: &mut Call<'_>) -> HookResult {
    statement(call, Kind::One)
}

fn executemany(call: &mut Call<'_>) -> HookResult {
    statement(call, Kind::Many)
}

fn executescript(call: &mut Call<'_>) -> HookResult {
    statement(call, Kind::Script)
}

#[derive(PartialEq)]
enum Kind {
    One,
    Many,
    Script,
}

#[inline]
fn statement(call: &mut Call<'_>, kind: Kind) -> HookResult {
    let py = call.py();
    let parent = current::current(py);
    let Some(span) = current::start_leaf(py, &SPEC, &parent, Exit::Database, database::DRIVER) else {
        call.proceed();
        return Ok(());
    };
    let batch = match kind {
        Kind::Many => call.arg(2).and_then(|rows| {
            (rows.is_exact_instance_of::<PyList>() || rows.is_exact_instance_of::<PyTuple>())
                .then(|| rows.len().ok())
                .flatten()
        }),
        _ => None,
    };
    if let Some(Ok(sql)) = call.arg(1).map(|sql| sql.cast::<PyString>()) {
        let parameterised = kind == Kind::Many || call.arg(2).is_some();
        database::set_statement(&span, &sql, Dialect::Sqlite, parameterised);
    }
    let file = call.arg(0).and_then(|this| {
        let connection = match this.getattr_opt(intern!(py, "connection")) {
            Ok(Some(connection)) => connection.as_ptr(),
            _ => this.as_ptr(),
        };
        NAMESPACES.try_lock().ok()?.as_ref()?.get(&(connection as usize)).cloned()
    });
    span.with(|span| {
        span.str(&semconv::DB_SYSTEM_NAME, "sqlite");
        if let Some(file) = &file {
            span.str(&semconv::DB_NAMESPACE, file);
        }
        if let Some(size) = batch.filter(|size| *size != 1) {
            span.int(&semconv::DB_OPERATION_BATCH_SIZE, size as i64);
        }
    });
    call.proceed();
    if let Some(error) = call.error() {
        database::set_error(&span, &error, intern!(py, "sqlite_errorname"));
    }
    span.finish();
    Ok(())
}
