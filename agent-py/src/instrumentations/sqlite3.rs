//! sqlite3 of the standard library: one CLIENT span for each `execute`, `executemany` and `executescript`.
//!
//! Its types are C types: the methods are patched in the types' own dictionaries, so that `type(connection)`,
//! subclasses and factories stay what they are. Nothing inside a call starts spans, so the span is not put in force.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use agent_core::Key;
use agent_core::semconv;
use agent_core::span::{ActiveSpan, SpanKind, SpanSpec};
use agent_core::sql::Dialect;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::breaker::Breaker;
use crate::current::{self, Exit, Span};
use crate::database;
use crate::ffi::{intern, quiet};
use crate::http;
use crate::instrumentations::{Instrumentation, Target};
use crate::objects::{attribute, length, text};
use crate::old_names;
use crate::suppression::{self, Of};
use crate::wrapper::{Call, HookResult};

/// The library.
pub static LIBRARY: Instrumentation = Instrumentation {
    name: "sqlite3",
    distribution: "",
    breaker: Breaker::new("sqlite3"),
    targets: &[
        Target::call("sqlite3.dbapi2", "Connection.__init__", open),
        Target::call("sqlite3.dbapi2", "Cursor.execute", cursor_execute),
        Target::call("sqlite3.dbapi2", "Cursor.executemany", cursor_executemany),
        Target::call("sqlite3.dbapi2", "Cursor.executescript", cursor_executescript),
        Target::call("sqlite3.dbapi2", "Connection.execute", connection_execute),
        Target::call("sqlite3.dbapi2", "Connection.executemany", connection_executemany),
        // A connection's `executescript` calls its cursor's.
    ],
};

static SCOPE: Key = Key::new("remora.sqlite3");
static SPEC: SpanSpec = SpanSpec { name: "sqlite", kind: SpanKind::Client, scope: &SCOPE };

/// The file of each connection, by address: a connection has no attribute for it and takes neither an attribute nor a
/// weak reference. The next connection that is opened at the same address overwrites.
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

/// `Connection.__init__`, by which each one comes, whoever makes it.
fn open(call: &mut Call<'_>) -> HookResult {
    call.proceed();
    let Some(connection) = call.arg(0) else { return Ok(()) };
    let database = call.argument(1, intern!(call.py(), "database"));
    let path = database.filter(|_| call.error().is_none()).and_then(|database| path_text(&database));
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
    // Of another class it is the application's code, which has run for the library already and may answer otherwise.
    if !is_of_pathlib(path) {
        return None;
    }
    let path = quiet(path.py(), path.call_method0(intern!(path.py(), "__fspath__")))?;
    Some(path.cast::<PyString>().ok()?.to_string_lossy().into_owned())
}

fn is_of_pathlib(path: &Bound<'_, PyAny>) -> bool {
    let py = path.py();
    let class = path.get_type();
    let is = |name, known: &[&str]| text(&attribute(&class, name)).is_some_and(|name| known.contains(&name));
    is(intern!(py, "__module__"), &["pathlib", "pathlib._local"])
        && is(intern!(py, "__qualname__"), &["PosixPath", "PurePosixPath"])
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
        let outer = parent.as_ref().filter(|outer| outer.covers(Exit::Database, database::DRIVER));
        if let Some(outer) = outer.filter(|outer| !outer.note().named.load(Ordering::Relaxed)) {
            enrich(call, outer, owner);
        }
        call.proceed();
        return Ok(());
    };
    if let Some(Ok(sql)) = call.arg(1).map(|sql| sql.cast::<PyString>()) {
        let parameterised = match kind {
            Kind::One => call.arg(2).is_some_and(|parameters| database::has_values(&parameters)),
            Kind::Many => call.arg(2).is_some_and(|rows| database::rows_have_values(&rows)),
            Kind::Script => false,
        };
        database::set_statement(&span, &sql, Dialect::Sqlite, parameterised);
    }
    let connection = connection(call, owner);
    let batch = if kind == Kind::Many { call.arg(2).and_then(|rows| length(&rows)) } else { None };
    span.with(|span| {
        span.str(&semconv::DB_SYSTEM_NAME, "sqlite");
        let old_names = old_names::database();
        if old_names {
            span.str(&old_names::DB_SYSTEM, "sqlite");
        }
        if let Some(connection) = connection {
            describe_file(span, connection, old_names);
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

/// The connection's address.
#[inline]
fn connection(call: &Call<'_>, owner: Owner) -> Option<usize> {
    let this = call.arg(0)?;
    match owner {
        Owner::Connection => Some(this.as_ptr() as usize),
        // Absent where a subclass has not called `__init__` of its base.
        Owner::Cursor => attribute(&this, intern!(call.py(), "connection")).map(|it| it.as_ptr() as usize),
    }
}

#[inline]
fn describe_file(span: &mut ActiveSpan, connection: usize, old_names: bool) {
    if let Ok(all) = NAMESPACES.try_lock()
        && let Some(file) = all.as_ref().and_then(|all| all.get(&connection))
    {
        span.str(&semconv::DB_NAMESPACE, file);
        if old_names {
            span.str(&old_names::DB_NAME, file);
        }
    }
}

/// The span of a layer above stands for the call, and that layer does not know the database.
#[cold]
fn enrich(call: &Call<'_>, outer: &Span<'_>, owner: Owner) {
    if outer.is_recording()
        && !outer.note().named.swap(true, Ordering::Relaxed)
        && let Some(connection) = connection(call, owner)
    {
        outer.with(|span| describe_file(span, connection, old_names::database()));
    }
}
