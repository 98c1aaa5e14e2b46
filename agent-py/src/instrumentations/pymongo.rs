//! pymongo: one CLIENT span for each command that is sent, sync and asynchronous.
//!
//! The driver tells its command listeners of each start and end through three methods, unchanged since 3.1; we sit
//! around these. No listener of ours is registered: clients made before activation are traced too, the application's
//! lists of listeners stay its own, and a command that would not be recorded costs one question.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::OnceLock;

use agent_core::span::{SpanKind, SpanSpec};
use agent_core::{Key, semconv};
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyList, PyMapping, PyString, PyTuple};

use crate::breaker::Breaker;
use crate::current::{self, Exit, Span, StoredSpan};
use crate::diagnostics;
use crate::ffi::{self, intern, quiet};
use crate::hook;
use crate::instrumentations::{Instrumentation, Target};
use crate::per_process::PerProcess;
use crate::suppression::{self, Of};
use crate::wrapper::{Call, HookResult};
use crate::{database, exception, objects, old_names};

const MONITORING: &str = "pymongo.monitoring";

/// The library.
pub static LIBRARY: Instrumentation = Instrumentation {
    name: "pymongo",
    distribution: "pymongo",
    breaker: Breaker::new("pymongo"),
    targets: &[
        Target::call(MONITORING, "_EventListeners.enabled_for_commands", enabled),
        Target::call(MONITORING, "_EventListeners.publish_command_start", started),
        Target::call(MONITORING, "_EventListeners.publish_command_success", succeeded),
        Target::call(MONITORING, "_EventListeners.publish_command_failure", failed),
        // Most releases tell of no end where a command is interrupted or its task is cancelled.
        Target::call("pymongo.pool", "SocketInfo._raise_connection_failure", interrupted).optional(),
        Target::call("pymongo.pool", "Connection._raise_connection_failure", interrupted).optional(),
        Target::call("pymongo.synchronous.pool", "Connection._raise_connection_failure", interrupted)
            .optional(),
        Target::call("pymongo.asynchronous.pool", "AsyncConnection._raise_connection_failure", interrupted)
            .optional(),
    ],
};

static SCOPE: Key = Key::new("remora.pymongo");
static SPEC: SpanSpec = SpanSpec { name: "mongodb", kind: SpanKind::Client, scope: &SCOPE };

const SYSTEM: &str = "mongodb";
const DEFAULT_PORT: i64 = 27017;

/// Handshakes, heartbeats, and what the driver itself shows to no listener.
const UNSEEN: [&str; 11] = [
    "hello",
    "ismaster",
    "authenticate",
    "saslstart",
    "saslcontinue",
    "getnonce",
    "createuser",
    "updateuser",
    "copydbgetnonce",
    "copydbsaslstart",
    "copydb",
];

/// Commands whose value is a collection; that of others may be a person's or a role's name.
const OF_COLLECTION: [&str; 24] = [
    "find",
    "insert",
    "update",
    "delete",
    "aggregate",
    "findAndModify",
    "count",
    "distinct",
    "killCursors",
    "create",
    "drop",
    "createIndexes",
    "dropIndexes",
    "listIndexes",
    "collMod",
    "collStats",
    "createSearchIndexes",
    "updateSearchIndex",
    "dropSearchIndex",
    "mapReduce",
    "validate",
    "convertToCapped",
    "compact",
    "reIndex",
];

/// Which command it is, to the driver.
#[derive(Clone, Copy, PartialEq)]
struct CommandId {
    request: i64,
    /// The server's number for the connection; the driver's for the operation in releases that do not say it.
    /// Replies that nobody asked for (exhaust cursors) all have request number 0.
    connection: i64,
    address: u64,
}

/// A command on its way.
struct Sent {
    id: CommandId,
    /// Stands for the thread that it began in.
    thread: usize,
    span: StoredSpan,
}

/// Beyond these the oldest is taken for lost.
const MAX_OPEN: usize = 4096;

/// Commands on their way, by start. A span dropped under the lock runs no Python code.
static OPEN: PerProcess<VecDeque<Sent>> = PerProcess::new(VecDeque::new(), VecDeque::clear);

/// The driver asks this before it tells of a command.
fn enabled(call: &mut Call<'_>) -> HookResult {
    call.proceed();
    let py = call.py();
    if call.result().is_some_and(|result| result.is(PyBool::new(py, false)))
        && current::may_start_leaf(&current::current(py), Exit::Database, database::DRIVER)
        && !suppression::suppressed(py, Of::Any)
        && !has_its_own_spans(py)
    {
        call.replace_result(PyBool::new(py, true).to_owned().into_any());
    }
    Ok(())
}

fn started(call: &mut Call<'_>) -> HookResult {
    call.proceed();
    if call.error().is_none() {
        start(call);
    }
    Ok(())
}

fn start(call: &Call<'_>) -> Option<()> {
    let py = call.py();
    if suppression::suppressed(py, Of::Any) || has_its_own_spans(py) {
        return None;
    }
    let parent = current::current(py);
    if !current::may_start_leaf(&parent, Exit::Database, database::DRIVER) {
        return None;
    }
    let command = Command::of(&*call.argument(1, intern!(py, "command"))?)?;
    let operation = command.name.to_str().ok()?;
    if among(&UNSEEN, operation) {
        return None;
    }
    let connection = call.argument(4, intern!(py, "connection_id"))?;
    let id = id(call.argument(3, intern!(py, "request_id"))?.extract().ok()?, &connection, call.arg(5))?;
    let span = current::start_leaf(py, &SPEC, &parent, Exit::Database, database::DRIVER)?;
    let namespace = call.argument(2, intern!(py, "database_name")).map(|name| name.to_owned());
    describe(&span, &command, operation, objects::text(&namespace), &connection);
    let mut stored = Some(span.store());
    let lost = OPEN.with(|open| {
        let lost = if open.len() < MAX_OPEN { None } else { open.pop_front() };
        open.extend(stored.take().map(|span| Sent { id, thread: this_thread(), span }));
        lost
    });
    if let Some(Some(lost)) = lost {
        lost.span.get(py).finish();
    }
    Some(())
}

fn describe(
    span: &Span<'_>,
    command: &Command<'_>,
    operation: &str,
    namespace: Option<&str>,
    connection: &Bound<'_, PyAny>,
) {
    let collection = if namespace == Some("admin") { None } else { command.collection(operation) };
    let collection = objects::text(&collection);
    let batch = command.batch(operation).filter(|size| *size != 1);
    let server = Server::of(connection);
    let host = server.as_ref().and_then(|server| server.host.to_str().ok());
    let port = server.as_ref().and_then(|server| server.port);
    span.with(|span| {
        span.name_with(|name| {
            name.extend_from_slice(operation.as_bytes());
            if let Some(target) = collection.or(namespace) {
                name.push(b' ');
                name.extend_from_slice(target.as_bytes());
            }
        });
        span.str(&semconv::DB_SYSTEM_NAME, SYSTEM);
        span.str(&semconv::DB_OPERATION_NAME, operation);
        if let Some(namespace) = namespace {
            span.str(&semconv::DB_NAMESPACE, namespace);
        }
        if let Some(collection) = collection {
            span.str(&semconv::DB_COLLECTION_NAME, collection);
        }
        if let Some(size) = batch {
            span.int(&semconv::DB_OPERATION_BATCH_SIZE, size as i64);
        }
        if let Some(host) = host {
            span.str(&semconv::SERVER_ADDRESS, host);
        }
        if let Some(port) = port.filter(|port| *port != DEFAULT_PORT) {
            span.int(&semconv::SERVER_PORT, port);
        }
        if old_names::database() {
            span.str(&old_names::DB_SYSTEM, SYSTEM);
            span.str(&old_names::DB_OPERATION, operation);
            // opentelemetry-instrumentation-pymongo's own, unless it is told to capture statements.
            span.str(&old_names::DB_STATEMENT, operation);
            for (key, value) in [
                (&old_names::DB_NAME, namespace),
                (&old_names::DB_MONGODB_COLLECTION, collection),
                (&old_names::NET_PEER_NAME, host),
            ] {
                if let Some(value) = value {
                    span.str(key, value);
                }
            }
            if let Some(port) = port {
                span.int(&old_names::NET_PEER_PORT, port);
            }
        }
    });
}

fn succeeded(call: &mut Call<'_>) -> HookResult {
    if let Some(span) = take(call) {
        if let Some(reply) = call.argument(2, intern!(call.py(), "reply")) {
            let told = write_error(&reply).is_some_and(|error| set_error(&span, &error));
            if !told && failed_operations(&reply) {
                span.with(|span| exception::set_error(span, "_OTHER", ""));
            }
        }
        span.finish();
    }
    call.proceed();
    Ok(())
}

fn failed(call: &mut Call<'_>) -> HookResult {
    if let Some(span) = take(call) {
        let error = ffi::handled(call.py());
        if !error.as_ref().is_some_and(exception::is_cancellation) {
            let failure = call.argument(2, intern!(call.py(), "failure"));
            set_failure(&span, failure.as_deref(), error.as_ref());
        }
        span.finish();
    }
    call.proceed();
    Ok(())
}

/// The span of the command that this call tells the end of.
fn take<'py>(call: &Call<'py>) -> Option<Span<'py>> {
    let py = call.py();
    let request = call.argument(4, intern!(py, "request_id"))?.extract().ok()?;
    let connection = call.argument(5, intern!(py, "connection_id"))?;
    let id = id(request, &connection, call.arg(6))?;
    let found = OPEN.with(|open| {
        let at = open.iter().rposition(|sent| sent.id == id)?;
        open.remove(at)
    });
    Some(found??.span.get(py))
}

/// A connection gives up. Where the reason is no `Exception`, most releases say nothing of the command that was on it.
fn interrupted(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    if let Some(connection) = call.arg(0)
        && let Some(error) = call.argument(1, intern!(py, "error"))
        && !error.is_instance_of::<PyException>()
        && let Some(span) = take_on(&connection)
    {
        if !exception::is_cancellation(&error) {
            set_failure(&span, None, Some(&error));
        }
        span.finish();
    }
    call.proceed();
    Ok(())
}

/// The span of the command that is on a connection.
#[cold]
fn take_on<'py>(connection: &Bound<'py, PyAny>) -> Option<Span<'py>> {
    let py = connection.py();
    let address = address(&objects::attribute(connection, intern!(py, "address"))?)?;
    let number = quiet(py, connection.getattr_opt(intern!(py, "server_connection_id"))).flatten();
    let found = OPEN.with(|open| {
        let at = match number {
            // The newest: what an exhaust cursor left behind is older.
            Some(number) => {
                let number = number.extract::<i64>().ok()?;
                open.iter().rposition(|sent| sent.id.address == address && sent.id.connection == number)?
            }
            // Releases that do not know it have one command in a thread, unless greenlets share that.
            None => {
                let mine = |sent: &Sent| sent.thread == this_thread() && sent.id.address == address;
                let at = open.iter().rposition(mine)?;
                (!open.range(..at).any(mine)).then_some(at)?
            }
        };
        open.remove(at)
    });
    Some(found??.span.get(py))
}

/// Stands for this thread as long as it lives.
fn this_thread() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| std::ptr::from_ref(here) as usize)
}

fn id(
    request: i64,
    connection: &Bound<'_, PyAny>,
    number: Option<Borrowed<'_, '_, PyAny>>,
) -> Option<CommandId> {
    let address = address(connection)?;
    let connection = number.and_then(|number| number.extract().ok()).unwrap_or(0);
    Some(CommandId { request, connection, address })
}

fn address(of: &Bound<'_, PyAny>) -> Option<u64> {
    let server = Server::of(of)?;
    let mut hasher = DefaultHasher::new();
    server.host.to_str().ok()?.hash(&mut hasher);
    server.port.hash(&mut hasher);
    Some(hasher.finish())
}

/// Where a connection leads.
struct Server<'py> {
    /// A host, or the path of a socket.
    host: Bound<'py, PyString>,
    port: Option<i64>,
}

impl<'py> Server<'py> {
    fn of(connection: &Bound<'py, PyAny>) -> Option<Self> {
        let address = connection.cast::<PyTuple>().ok()?;
        let host = address.get_item(0).ok()?.cast_into::<PyString>().ok()?;
        let port = address.get_item(1).ok()?;
        Some(Self { host, port: if port.is_none() { None } else { port.extract().ok() } })
    }
}

/// A command document.
struct Command<'py> {
    name: Bound<'py, PyString>,
    value: Bound<'py, PyAny>,
    document: Bound<'py, PyAny>,
}

impl<'py> Command<'py> {
    fn of(document: &Bound<'py, PyAny>) -> Option<Self> {
        let py = document.py();
        let (name, value) = if let Ok(pairs) = document.cast_exact::<PyDict>() {
            pairs.iter().next()?
        } else {
            // An ordered document of the driver's own kinds, or the application's.
            let name = quiet(py, quiet(py, document.try_iter())?.next()?)?;
            let value = quiet(py, document.get_item(&name))?;
            (name, value)
        };
        Some(Self { name: name.cast_into().ok()?, value, document: document.clone() })
    }

    fn get(&self, key: &Bound<'py, PyString>) -> Option<Bound<'py, PyAny>> {
        field(&self.document, key)
    }

    fn collection(&self, operation: &str) -> Option<Bound<'py, PyAny>> {
        if among(&OF_COLLECTION, operation) {
            Some(self.value.clone())
        } else if operation.eq_ignore_ascii_case("getMore") {
            self.get(intern!(self.value.py(), "collection"))
        } else if operation.eq_ignore_ascii_case("explain") && self.value.cast::<PyMapping>().is_ok() {
            let explained = Self::of(&self.value)?;
            let operation = explained.name.to_str().ok()?;
            among(&OF_COLLECTION, operation).then_some(explained.value.clone())
        } else {
            None
        }
    }

    fn batch(&self, operation: &str) -> Option<usize> {
        let py = self.value.py();
        let field = match operation {
            "insert" => intern!(py, "documents"),
            "update" => intern!(py, "updates"),
            "delete" => intern!(py, "deletes"),
            "bulkWrite" => intern!(py, "ops"),
            _ => return None,
        };
        Some(self.get(field)?.cast::<PyList>().ok()?.len())
    }
}

/// A field of a document, of whatever class the application had it made.
fn field<'py>(document: &Bound<'py, PyAny>, key: &Bound<'py, PyString>) -> Option<Bound<'py, PyAny>> {
    let py = key.py();
    match document.cast::<PyDict>() {
        Ok(pairs) => quiet(py, pairs.get_item(key))?,
        Err(_) => quiet(py, document.get_item(key)),
    }
}

/// Command names have no case to the server.
fn among(names: &[&str], name: &str) -> bool {
    names.iter().any(|one| one.eq_ignore_ascii_case(name))
}

/// The first error of a reply that is a success to the driver: a write that the server refused.
fn write_error<'py>(reply: &Bound<'py, PyAny>) -> Option<Bound<'py, PyDict>> {
    let py = reply.py();
    let reply = reply.cast::<PyDict>().ok()?;
    let errors = quiet(py, reply.get_item(intern!(py, "writeErrors")))?;
    let first = errors.and_then(|errors| errors.cast::<PyList>().ok()?.get_item(0).ok());
    let error = match first.or_else(|| operation_error(reply)) {
        Some(error) => error,
        None => quiet(py, reply.get_item(intern!(py, "writeConcernError")))??,
    };
    error.cast_into().ok()
}

/// Whether a client's bulk write says that operations failed.
fn failed_operations(reply: &Bound<'_, PyAny>) -> bool {
    let py = reply.py();
    let count =
        reply.cast::<PyDict>().ok().and_then(|reply| quiet(py, reply.get_item(intern!(py, "nErrors"))));
    count.flatten().is_some_and(|count| quiet(py, count.extract::<f64>()).is_some_and(|count| count > 0.0))
}

/// The first error among the results that the reply to a client's bulk write begins with.
fn operation_error<'py>(reply: &Bound<'py, PyDict>) -> Option<Bound<'py, PyAny>> {
    if !failed_operations(reply) {
        return None;
    }
    let py = reply.py();
    let cursor = quiet(py, reply.get_item(intern!(py, "cursor")))??.cast_into::<PyDict>().ok()?;
    let results = quiet(py, cursor.get_item(intern!(py, "firstBatch")))??.cast_into::<PyList>().ok()?;
    results.iter().find(|result| {
        let code = result.cast::<PyDict>().ok().and_then(|of| quiet(py, of.get_item(intern!(py, "code"))));
        code.flatten().is_some()
    })
}

/// Sets what a server's error document says; false if it has no code.
#[cold]
fn set_error(span: &Span<'_>, error: &Bound<'_, PyAny>) -> bool {
    let py = error.py();
    let code = field(error, intern!(py, "code"));
    let Some(code) = code.and_then(|code| quiet(py, code.extract::<i64>())).map(|code| code.to_string())
    else {
        return false;
    };
    let name = field(error, intern!(py, "codeName"));
    let name = objects::text(&name).unwrap_or(&code);
    span.with(|span| {
        span.str(&semconv::DB_RESPONSE_STATUS_CODE, &code);
        // The message may quote the documents: it stays out.
        exception::set_error(span, name, "");
    });
    true
}

#[cold]
fn set_failure(span: &Span<'_>, failure: Option<&Bound<'_, PyAny>>, error: Option<&Bound<'_, PyAny>>) {
    if failure.is_some_and(|failure| set_error(span, failure)) {
        return;
    }
    let document = failure.and_then(|failure| failure.cast::<PyDict>().ok());
    let kind = document.and_then(|document| {
        let py = document.py();
        quiet(py, document.get_item(intern!(py, "errtype"))).flatten()
    });
    // The exception that is being handled, unless a caller of the driver is handling another one.
    let said = objects::text(&kind);
    let full = error.map(exception::type_name);
    let matching =
        full.as_deref().filter(|full| said.is_none_or(|said| full.rsplit('.').next() == Some(said)));
    let name = matching.or(said).unwrap_or("_OTHER");
    span.with(|span| exception::set_error(span, name, ""));
}

/// Whether this release makes spans itself and was told to: then they are the ones.
fn has_its_own_spans(py: Python<'_>) -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    if let Some(answer) = ANSWER.get() {
        return *answer;
    }
    let asked = std::env::var("OTEL_PYTHON_INSTRUMENTATION_MONGODB_ENABLED")
        .is_ok_and(|value| among(&["1", "true", "yes"], value.trim()));
    let able = asked
        && quiet(py, hook::imported(py, "pymongo._otel")).flatten().is_some_and(|module| {
            objects::attribute(&module, intern!(py, "_HAS_OPENTELEMETRY"))
                .is_some_and(|has| has.is(PyBool::new(py, true)))
        });
    let first = ANSWER.set(able).is_ok();
    if able && first {
        diagnostics::warn(
            "pymongo makes spans itself (OTEL_PYTHON_INSTRUMENTATION_MONGODB_ENABLED): its commands are left to it",
        );
    }
    able
}
