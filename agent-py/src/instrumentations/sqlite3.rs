//! sqlite3 of the standard library: one CLIENT span for each `execute`, `executemany` and `executescript`.
//!
//! Its types are C types: the methods are patched in the types' own dictionaries, so that `type(connection)`,
//! subclasses and factories stay what they are. Nothing inside a call starts spans, so the span is not put in force.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Mutex;

use agent_core::Key;
use agent_core::semconv;
use agent_core::span::{SpanKind, SpanSpec};
use agent_core::sql::Dialect;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::breaker::Breaker;
use crate::current::{self, Exit};
use crate::database;
use crate::ffi::quiet;
use crate::http;
use crate::instrumentations::{Instrumentation, Target};
use crate::objects::length;
use crate::old_names;
use crate::suppression::{self, Of};
use crate::wrapper::{Call, HookResult};

/// The library.
pub static LIBRARY: Instrumentation = Instrumentation {
    name: "sqlite3",
    distribution: "",
    breaker: Breaker::new("sqlite3"),
    targets: &[
        // `_sqlite3` runs before the modules that copy its names.
        Target::call("_sqlite3", "connect", connect).optional(),
        Target::call("sqlite3.dbapi2", "connect", connect).optional(),
        Target::call("sqlite3", "connect", connect).optional(),
        Target::call("sqlite3.dbapi2", "Cursor.execute", cursor_execute),
        Target::call("sqlite3.dbapi2", "Cursor.executemany", cursor_executemany),
        Target::call("sqlite3.dbapi2", "Cursor.executescript", cursor_executescript),
        Target::call("sqlite3.dbapi2", "Connection.execute", connection_execute),
        Target::call("sqlite3.dbapi2", "Connection.executemany", connection_executemany),
        Target::call("sqlite3.dbapi2", "Connection.executescript", connection_executescript),
    ],
};

static SCOPE: Key = Key::new("remora.sqlite3");
static SPEC: SpanSpec = SpanSpec { name: "sqlite", kind: SpanKind::Client, scope: &SCOPE };

/// The file of each connection made by `connect`, by address: a connection has no attribute for it and takes neither an
/// attribute nor a weak reference. The next `connect` at the same address overwrites.
// Held for a look-up only, never across a call into Python; contended, it is passed by.
static NAMESPACES: Mutex<Option<Namespaces>> = Mutex::new(None);

type Namespaces = HashMap<usize, Box<str>, BuildHasherDefault<AddressHasher>>;

/// About as many connections as can be open at once.
const MAX_NAMESPACES: usize = 16 * 1024;

/// Spreads an address over a word.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_usize(usize::from(*byte));
        }
    }

    fn write_usize(&mut self, address: usize) {
        let mixed = (self.0 ^ address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

fn connect(call: &mut Call<'_>) -> HookResult {
    call.proceed();
    let py = call.py();
    let (Some(connection), Some(database)) = (call.result(), call.argument(0, intern!(py, "database")))
    else {
        return Ok(());
    };
    let path = path_text(&database);
    let namespace = path.as_deref().map(namespace).filter(|name| !name.is_empty());
    if let Ok(mut all) = NAMESPACES.try_lock() {
        let all = all.get_or_insert_default();
        let address = connection.as_ptr() as usize;
        match namespace {
            Some(name) if all.len() < MAX_NAMESPACES => {
                all.insert(address, name.into());
            }
            // What stands there is another connection's, long gone.
            _ => {
                all.remove(&address);
            }
        }
    }
    Ok(())
}

fn path_text(path: &Bound<'_, PyAny>) -> Option<String> {
    if let Ok(text) = path.cast::<PyString>() {
        return Some(text.to_string_lossy().into_owned());
    }
    if let Ok(bytes) = path.cast::<PyBytes>() {
        return Some(String::from_utf8_lossy(bytes.as_bytes()).into_owned());
    }
    let path = quiet(path.py(), path.call_method0(intern!(path.py(), "__fspath__")))?;
    if path.is_instance_of::<PyString>() || path.is_instance_of::<PyBytes>() {
        path_text(&path)
    } else {
        None
    }
}

/// The file's name without its folder; empty for a database in memory.
pub fn namespace(database: &str) -> Cow<'_, str> {
    let path = match database.strip_prefix("file:") {
        None => Cow::Borrowed(database),
        Some(uri) => {
            let (path, query) =
                uri.split_once('#').map_or(uri, |(uri, _)| uri).split_once('?').unwrap_or((uri, ""));
            if query.split('&').any(|pair| pair == "mode=memory" || pair == "vfs=memdb") {
                return Cow::Borrowed("");
            }
            http::percent_decoded(path)
        }
    };
    match path {
        _ if path == ":memory:" => Cow::Borrowed(""),
        Cow::Borrowed(path) => Cow::Borrowed(file_name(path)),
        Cow::Owned(path) => Cow::Owned(file_name(&path).to_owned()),
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn cursor_execute(call: &mut Call<'_>) -> HookResult {
    statement(call, Owner::Cursor, Kind::One)
}

fn cursor_executemany(call: &mut Call<'_>) -> HookResult {
    statement(call, Owner::Cursor, Kind::Many)
}

fn cursor_executescript(call: &mut Call<'_>) -> HookResult {
    statement(call, Owner::Cursor, Kind::Script)
}

fn connection_execute(call: &mut Call<'_>) -> HookResult {
    statement(call, Owner::Connection, Kind::One)
}

fn connection_executemany(call: &mut Call<'_>) -> HookResult {
    statement(call, Owner::Connection, Kind::Many)
}

fn connection_executescript(call: &mut Call<'_>) -> HookResult {
    statement(call, Owner::Connection, Kind::Script)
}

#[derive(Clone, Copy, PartialEq)]
enum Owner {
    Cursor,
    Connection,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    One,
    Many,
    Script,
}

#[inline]
fn statement(call: &mut Call<'_>, owner: Owner, kind: Kind) -> HookResult {
    let py = call.py();
    if suppression::suppressed(py, Of::Any) {
        call.proceed();
        return Ok(());
    }
    let parent = current::current(py);
    let Some(span) = current::start_leaf(py, &SPEC, &parent, Exit::Database, database::DRIVER) else {
        call.proceed();
        return Ok(());
    };
    if let Some(Ok(sql)) = call.arg(1).map(|sql| sql.cast::<PyString>()) {
        let parameterised = match kind {
            Kind::One => call.arg(2).is_some_and(|parameters| length(&parameters) != Some(0)),
            Kind::Many => true,
            Kind::Script => false,
        };
        database::set_statement(&span, &sql, Dialect::Sqlite, parameterised);
    }
    let connection = call.arg(0).and_then(|this| match owner {
        Owner::Connection => Some(this.as_ptr() as usize),
        // Absent where a subclass has not called `__init__` of its base.
        Owner::Cursor => {
            Some(quiet(py, this.getattr_opt(intern!(py, "connection"))).flatten()?.as_ptr() as usize)
        }
    });
    let batch = if kind == Kind::Many { call.arg(2).and_then(|rows| length(&rows)) } else { None };
    span.with(|span| {
        span.str(&semconv::DB_SYSTEM_NAME, "sqlite");
        let old_names = old_names::database();
        if old_names {
            span.str(&old_names::DB_SYSTEM, "sqlite");
        }
        if let Some(connection) = connection
            && let Ok(all) = NAMESPACES.try_lock()
            && let Some(file) = all.as_ref().and_then(|all| all.get(&connection))
        {
            span.str(&semconv::DB_NAMESPACE, file);
            if old_names {
                span.str(&old_names::DB_NAME, file);
            }
        }
        if let Some(size) = batch.filter(|size| *size != 1) {
            span.int(&semconv::DB_OPERATION_BATCH_SIZE, size as i64);
        }
    });
    if kind == Kind::Script && owner == Owner::Connection {
        // It calls its cursor's method, which is wrapped too.
        span.mark(Exit::Database, database::DRIVER + 1);
        let _entered = span.enter_call(parent);
        call.proceed();
    } else {
        call.proceed();
    }
    if let Some(error) = call.error() {
        database::set_error(&span, &error, intern!(py, "sqlite_errorname"));
    }
    span.finish();
    Ok(())
}
