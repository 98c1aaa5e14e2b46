//! psycopg 3: one CLIENT span for each `execute`, `executemany`, `stream` and `copy` of a cursor, of either kind.
//!
//! A `stream` ends when its first row is there: how long the application takes for the rows is not the database's
//! time. A `copy` lasts from entering to leaving its context manager, whose generator is followed; between the two the
//! application's code runs and the span is not in force. In pipeline mode a call ends when it returns, as always: its
//! result, and its error, come with a later call.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use agent_core::Key;
use agent_core::fragment::Fragment;
use agent_core::semconv;
use agent_core::span::{SpanKind, SpanSpec};
use agent_core::sql::Dialect;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyString};

use crate::breaker::Breaker;
use crate::current::{self, Exit, Span, StoredSpan};
use crate::database::postgresql::{self, Connection};
use crate::database::{self, DRIVER};
use crate::ffi::intern;
use crate::instrumentations::{Instrumentation, Target};
use crate::objects::{attribute, length, text};
use crate::suppression::{self, Of};
use crate::wrapper::{self, Call, Flight, HookResult, Start};

/// The library.
pub static LIBRARY: Instrumentation = Instrumentation {
    name: "psycopg",
    distribution: "psycopg",
    breaker: Breaker::new("psycopg"),
    targets: &[
        Target::call("psycopg.cursor", "Cursor.execute", execute),
        Target::call("psycopg.cursor", "Cursor.executemany", executemany),
        Target::call("psycopg.cursor", "Cursor.stream", stream),
        Target::call("psycopg.cursor", "Cursor.copy", copy),
        Target::coroutine("psycopg.cursor_async", "AsyncCursor.execute", execute_async),
        Target::coroutine("psycopg.cursor_async", "AsyncCursor.executemany", executemany_async),
        Target::call("psycopg.cursor_async", "AsyncCursor.stream", stream),
        Target::call("psycopg.cursor_async", "AsyncCursor.copy", copy),
        // From 3.3 on; before, both in one module.
        Target::call("psycopg._server_cursor", "ServerCursor.execute", execute).optional(),
        Target::coroutine("psycopg._server_cursor_async", "AsyncServerCursor.execute", execute_async)
            .optional(),
        Target::call("psycopg.server_cursor", "ServerCursor.execute", execute).optional(),
        Target::coroutine("psycopg.server_cursor", "AsyncServerCursor.execute", execute_async).optional(),
    ],
};

static SCOPE: Key = Key::new("remora.psycopg");
static SPEC: SpanSpec = SpanSpec { name: "postgresql", kind: SpanKind::Client, scope: &SCOPE };
/// Lets `work` see what is known of a cursor's connection.
#[inline]
fn with_known<R>(call: &Call<'_>, work: impl FnOnce(&Arc<Connection>) -> R) -> Option<R> {
    let cursor = call.arg(0)?;
    let py = call.py();
    let connection =
        attribute(&cursor, intern!(py, "_conn")).or_else(|| attribute(&cursor, intern!(py, "connection")))?;
    postgresql::with_connection(&connection, work)
}

/// What there is to say of one call.
struct Query {
    statement: Option<Arc<Fragment>>,
    connection: Option<Arc<Connection>>,
    batch: Option<usize>,
    ends_with_first: bool,
}

impl Query {
    fn new(call: &Call<'_>, kind: Kind) -> Self {
        let parameters = Parameters::of(call, kind);
        let statement = parameters
            .query
            .as_ref()
            .and_then(|query| postgresql::statement(query, parameters.parameterised));
        Self {
            statement,
            connection: with_known(call, Arc::clone),
            batch: parameters.batch,
            ends_with_first: kind == Kind::Stream,
        }
    }

    fn describe(&self, span: &Span<'_>) {
        span.with(|span| {
            match &self.connection {
                Some(connection) => span.append(&connection.whole),
                None => postgresql::describe_system(span),
            }
            if let Some(statement) = &self.statement {
                span.append(statement);
            }
            if let Some(size) = self.batch {
                span.int(&semconv::DB_OPERATION_BATCH_SIZE, size as i64);
            }
        });
    }
}

/// A call's arguments.
struct Parameters<'a, 'py> {
    query: Option<Borrowed<'a, 'py, PyAny>>,
    parameterised: bool,
    batch: Option<usize>,
}

impl<'a, 'py> Parameters<'a, 'py> {
    #[inline]
    fn of(call: &'a Call<'py>, kind: Kind) -> Self {
        let py = call.py();
        let (query, parameters) = match kind {
            Kind::Copy => (intern!(py, "statement"), intern!(py, "params")),
            Kind::Many => (intern!(py, "query"), intern!(py, "params_seq")),
            Kind::One | Kind::Stream => (intern!(py, "query"), intern!(py, "params")),
        };
        let parameters = call.argument(2, parameters);
        let size = parameters.as_ref().and_then(|parameters| length(parameters));
        Self {
            query: call.argument(1, query),
            parameterised: match kind {
                Kind::Many => parameters.is_some_and(|rows| database::rows_have_values(&rows)),
                _ => size > Some(0),
            },
            batch: size.filter(|size| kind == Kind::Many && *size != 1),
        }
    }
}

/// As [`Query`], of a span that has started: nothing is kept.
#[inline]
fn describe(call: &Call<'_>, span: &Span<'_>, kind: Kind) {
    let parameters = Parameters::of(call, kind);
    if with_known(call, |known| span.with(|span| span.append(&known.whole))).is_none() {
        span.with(postgresql::describe_system);
    }
    if let Some(query) = &parameters.query {
        if let Ok(query) = query.cast::<PyString>() {
            database::set_statement(span, &query, Dialect::PostgreSql, parameters.parameterised);
        } else if let Some(statement) = postgresql::statement(query, parameters.parameterised) {
            span.with(|span| span.append(&statement));
        }
    }
    if let Some(size) = parameters.batch {
        span.with(|span| span.int(&semconv::DB_OPERATION_BATCH_SIZE, size as i64));
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    One,
    Many,
    Stream,
    Copy,
}

/// Whether this call is to have a span; where the span of a layer above stands for it, that gets what we know.
fn wanted(call: &Call<'_>, parent: &Option<Span<'_>>) -> bool {
    if suppression::suppressed(call.py(), Of::Any) {
        return false;
    }
    let own = current::may_record(parent, Exit::Database, DRIVER);
    if let (false, Some(parent)) = (own, parent) {
        enrich(call, parent);
    }
    own
}

fn enrich(call: &Call<'_>, outer: &Span<'_>) {
    if !outer.covers(Exit::Database, DRIVER) || !outer.is_recording() {
        return;
    }
    let Some(known) = with_known(call, Arc::clone) else { return };
    if !outer.note().peered.swap(true, Ordering::Relaxed) {
        outer.with(|span| span.append(&known.peer));
    }
    known.add_place(outer);
}

fn execute(call: &mut Call<'_>) -> HookResult {
    run(call, Kind::One)
}

fn executemany(call: &mut Call<'_>) -> HookResult {
    run(call, Kind::Many)
}

fn run(call: &mut Call<'_>, kind: Kind) -> HookResult {
    let py = call.py();
    let parent = current::current(py);
    if !wanted(call, &parent) {
        return Ok(());
    }
    // Nothing inside starts spans: it is not put in force.
    let Some(span) = current::start(py, &SPEC, &parent).filter(Span::is_recording) else { return Ok(()) };
    describe(call, &span, kind);
    call.proceed();
    if let Some(error) = call.error() {
        fail(&span, &error);
    }
    span.finish();
    Ok(())
}

fn fail(span: &Span<'_>, error: &Bound<'_, PyAny>) {
    let code = attribute(error, intern!(error.py(), "sqlstate"));
    database::set_error_code(span, error, text(&code));
}

fn execute_async(call: &mut Call<'_>) -> HookResult<Option<Box<dyn Flight>>> {
    board(call, Kind::One)
}

fn executemany_async(call: &mut Call<'_>) -> HookResult<Option<Box<dyn Flight>>> {
    board(call, Kind::Many)
}

fn board(call: &mut Call<'_>, kind: Kind) -> HookResult<Option<Box<dyn Flight>>> {
    let parent = current::current(call.py());
    if !wanted(call, &parent) {
        return Ok(None);
    }
    Ok(Some(Box::new(Query::new(call, kind))))
}

impl Flight for Query {
    fn start(&mut self, py: Python<'_>) -> HookResult<Option<StoredSpan>> {
        Ok(Start::start(self, py, &current::current(py)).map(Span::store))
    }

    fn finish(
        &mut self,
        _py: Python<'_>,
        span: Option<&Span<'_>>,
        outcome: Result<&Bound<'_, PyAny>, &Bound<'_, PyAny>>,
    ) -> HookResult {
        if let Some(span) = span {
            if let Err(error) = outcome {
                fail(span, error);
            }
            span.finish();
        }
        Ok(())
    }
}

impl Start for Query {
    fn start<'py>(&self, py: Python<'py>, parent: &Option<Span<'py>>) -> Option<Span<'py>> {
        let span = current::start_leaf(py, &SPEC, parent, Exit::Database, DRIVER)?;
        self.describe(&span);
        Some(span)
    }

    fn ends_with_first(&self) -> bool {
        self.ends_with_first
    }

    fn fail(&self, span: &Span<'_>, error: &Bound<'_, PyAny>) {
        fail(span, error);
    }
}

fn stream(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    let parent = current::current(py);
    if !wanted(call, &parent) {
        return Ok(());
    }
    let query = Query::new(call, Kind::Stream);
    call.proceed();
    let Some(rows) = call.result() else { return Ok(()) };
    if let Some(followed) = wrapper::follow_generator(py, &rows, || Arc::new(query), &LIBRARY.breaker)? {
        call.replace_result(followed);
    }
    Ok(())
}

fn copy(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    let parent = current::current(py);
    if !wanted(call, &parent) {
        return Ok(());
    }
    let query = Query::new(call, Kind::Copy);
    call.proceed();
    // The context manager that `contextlib` makes of a generator function: it stays what it is, its steps are followed.
    let Some(manager) = call.result() else { return Ok(()) };
    let Some(steps) = attribute(&manager, intern!(py, "gen")) else { return Ok(()) };
    if let Some(followed) = wrapper::follow_generator(py, &steps, || Arc::new(query), &LIBRARY.breaker)? {
        manager.setattr(intern!(py, "gen"), followed)?;
    }
    Ok(())
}
