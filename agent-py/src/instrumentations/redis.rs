//! redis-py: one CLIENT span for each command, and for each pipeline or transaction sent.
//!
//! Nothing hooked runs inside a plain command, so its span is not put in force. Inside pipelines (scripts are loaded),
//! clusters (slots are looked up, commands sent again) and behind Sentinels (the master is asked for) the library calls
//! itself: there the span is in force and covers what it leads to.

use std::borrow::Cow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agent_core::Key;
use agent_core::fragment::Fragment;
use agent_core::semconv;
use agent_core::span::{SpanKind, SpanSpec};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{
    PyAny, PyBool, PyBytes, PyDict, PyList, PyString, PyTuple, PyWeakrefMethods, PyWeakrefReference,
};

use crate::breaker::Breaker;
use crate::current::{self, Exit, Span, StoredSpan};
use crate::database;
use crate::exception;
use crate::ffi::quiet;
use crate::instrumentations::{Hook, Instrumentation, Target};
use crate::objects::{attribute, text};
use crate::old_names;
use crate::suppression::{self, Of};
use crate::wrapper::{AsyncHook, Call, Flight, HookResult};

/// The library.
pub static LIBRARY: Instrumentation = Instrumentation {
    name: "redis",
    distribution: "redis",
    breaker: Breaker::new("redis"),
    targets: &[
        Target::call("redis.client", "Redis.execute_command", command),
        Target::call("redis.client", "Pipeline.execute", pipeline),
        Target::call("redis.client", "Pipeline.immediate_execute_command", command),
        asynchronous("redis.asyncio.client", "Redis.execute_command", command_async),
        asynchronous("redis.asyncio.client", "Pipeline.execute", pipeline_async),
        asynchronous("redis.asyncio.client", "Pipeline.immediate_execute_command", command_async),
        Target::call("redis.cluster", "RedisCluster.execute_command", cluster_command),
        Target::call("redis.cluster", "RedisCluster._execute_command", node),
        Target::call("redis.cluster", "ClusterPipeline.execute", pipeline),
        asynchronous("redis.asyncio.cluster", "RedisCluster.execute_command", cluster_command_async),
        // It makes a coroutine; which node it is for is known at the call.
        Target::call("redis.asyncio.cluster", "RedisCluster._execute_command", node),
        asynchronous("redis.asyncio.cluster", "ClusterPipeline.execute", pipeline_async),
        // Transactions across a cluster, and with them WATCH, came with 6.0.
        Target {
            optional: true,
            ..Target::call("redis.cluster", "TransactionStrategy._immediate_execute_command", watched)
        },
        Target {
            optional: true,
            ..asynchronous(
                "redis.asyncio.cluster",
                "TransactionStrategy._immediate_execute_command",
                watched_async,
            )
        },
    ],
};

const fn asynchronous(module: &'static str, attribute: &'static str, hook: AsyncHook) -> Target {
    Target { module, attribute, hook: Hook::Async(hook), optional: false }
}

static SCOPE: Key = Key::new("remora.redis");
static SPEC: SpanSpec = SpanSpec { name: "redis", kind: SpanKind::Client, scope: &SCOPE };
/// Of before the conventions were stable.
static DATABASE_INDEX: Key = Key::new("db.redis.database_index");

const DEFAULT_PORT: i64 = 6379;
/// Of a command with more arguments, and of a pipeline with more commands, the first are shown.
const MAX_ARGUMENTS: usize = 32;
const MAX_COMMANDS: usize = 64;
/// No command has a longer name: this is something else, which is not shown.
const MAX_NAME: usize = 64;

// ---- What is sent ----

/// A command without its values.
struct Command {
    /// As given, a subcommand with it; empty where it cannot be told.
    operation: Box<str>,
    /// `SET ? ?`.
    text: Box<str>,
    /// Whether the first argument names what the server is to run.
    procedure: bool,
    fragment: Fragment,
}

struct SeenCommand {
    /// A text written in code, the library's own for the most part, is one object for ever. A place keeps its text
    /// alive, so that no other object can have its address.
    name: Py<PyAny>,
    arguments: usize,
    command: Arc<Command>,
}

const PLACES: usize = 256;

// Neither is held across a call into Python.
static COMMANDS: Mutex<Vec<Option<SeenCommand>>> = Mutex::new(Vec::new());
static SERVERS: Mutex<Vec<Option<SeenServer>>> = Mutex::new(Vec::new());

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts `fresh` into its place and gives up what was there, attached and without the lock.
fn put<T>(places: &Mutex<Vec<Option<T>>>, place: usize, fresh: T) -> Option<T> {
    let mut all = locked(places);
    if all.is_empty() {
        all.resize_with(PLACES, || None);
    }
    all.get_mut(place)?.replace(fresh)
}

fn place_of(object: &Bound<'_, PyAny>, more: usize) -> usize {
    ((object.as_ptr() as usize >> 4) + more * 37) % PLACES
}

/// A command by its name, as the application gave it, and its count of arguments.
#[inline]
fn described(name: &Bound<'_, PyAny>, arguments: usize) -> Option<Arc<Command>> {
    let place = place_of(name, arguments);
    if let Some(Some(seen)) = locked(&COMMANDS).get(place)
        && seen.name.is(name)
        && seen.arguments == arguments
    {
        return Some(seen.command.clone());
    }
    described_anew(name, arguments, place)
}

#[cold]
fn described_anew(name: &Bound<'_, PyAny>, arguments: usize, place: usize) -> Option<Arc<Command>> {
    let given = Some(name.clone());
    let command = Arc::new(Command::of(text(&given)?, arguments));
    // A subclass may run code when it goes.
    if (name.is_exact_instance_of::<PyString>() || name.is_exact_instance_of::<PyBytes>())
        && command.operation.len() <= MAX_NAME
    {
        let seen = SeenCommand { name: name.clone().unbind(), arguments, command: command.clone() };
        drop(put(&COMMANDS, place, seen).map(|old| old.name.into_bound(name.py())));
    }
    Some(command)
}

impl Command {
    fn of(given: &str, arguments: usize) -> Self {
        // A command may be given as one text with its arguments, which the library takes apart at white space.
        let mut words = given.split_ascii_whitespace();
        let first = words.next().unwrap_or_default();
        let mut hidden = arguments;
        let mut operation = Cow::Borrowed(first);
        if let Some(second) = words.next() {
            if has_subcommands(first) && second.len() <= MAX_NAME {
                operation = Cow::Owned(format!("{first} {second}"));
            } else {
                hidden += 1;
            }
            hidden += words.count();
        }
        if first.len() > MAX_NAME {
            operation = Cow::Borrowed("");
        }
        let mut text = operation.to_string();
        for _ in 0..hidden.min(MAX_ARGUMENTS) {
            text.push_str(" ?");
        }
        if hidden > MAX_ARGUMENTS {
            text.push_str(" ...");
        }
        let fragment = fragment(&operation, &text);
        let procedure = ["EVALSHA", "EVALSHA_RO", "FCALL", "FCALL_RO"]
            .iter()
            .any(|name| operation.eq_ignore_ascii_case(name));
        Self { operation: operation.into(), text: text.into(), procedure, fragment }
    }
}

fn fragment(operation: &str, text: &str) -> Fragment {
    Fragment::new(|span| {
        if !operation.is_empty() {
            span.name(operation);
            span.str(&semconv::DB_OPERATION_NAME, operation);
        }
        span.str(&semconv::DB_SYSTEM_NAME, "redis");
        if !text.is_empty() {
            span.str(&semconv::DB_QUERY_TEXT, text);
        }
        if old_names::database() {
            span.str(&old_names::DB_SYSTEM, "redis");
            if !text.is_empty() {
                span.str(&old_names::DB_STATEMENT, text);
            }
            if !operation.is_empty() {
                span.str(&old_names::DB_OPERATION, operation);
            }
        }
    })
}

/// Whether a command's first argument belongs to its name.
fn has_subcommands(command: &str) -> bool {
    [
        "ACL", "CLIENT", "CLUSTER", "COMMAND", "CONFIG", "DEBUG", "FT.CONFIG", "FT.CURSOR", "FUNCTION",
        "HIMPORT", "JSON.DEBUG", "LATENCY", "MEMORY", "MODULE", "OBJECT", "PUBSUB", "SCRIPT", "SENTINEL",
        "SLOWLOG", "XGROUP", "XINFO",
    ]
    .iter()
    .any(|name| command.eq_ignore_ascii_case(name))
}

/// The commands of a pipeline.
fn batch(commands: &Bound<'_, PyList>, transaction: bool) -> (Fragment, usize) {
    let mut last: Option<(Bound<'_, PyAny>, usize)> = None;
    let mut first: Option<Arc<Command>> = None;
    let mut at: Option<Arc<Command>> = None;
    let (mut one_operation, mut one_text) = (true, true);
    let mut text = String::new();
    for (index, command) in commands.iter().enumerate() {
        if index >= MAX_COMMANDS && !one_operation {
            break;
        }
        let Some((name, arguments)) = queued(&command) else {
            (one_operation, one_text) = (false, false);
            continue;
        };
        if !last.as_ref().is_some_and(|(seen, count)| seen.is(&name) && *count == arguments) {
            at = described(&name, arguments);
            last = Some((name, arguments));
            if first.is_none() {
                first.clone_from(&at);
            }
            if let (Some(first), Some(at)) = (&first, &at) {
                one_operation &= first.operation == at.operation;
                one_text &= first.text == at.text;
            }
        }
        if index < MAX_COMMANDS
            && let Some(at) = &at
        {
            if index > 0 {
                text.push_str("; ");
            }
            text.push_str(&at.text);
        } else if index == MAX_COMMANDS {
            text.push_str("; ...");
        }
    }
    if let Some(first) = first.as_ref().filter(|_| one_text) {
        text = first.text.to_string();
    }
    let mut operation = String::from(if transaction { "MULTI" } else { "PIPELINE" });
    if let Some(first) = first.filter(|first| one_operation && !first.operation.is_empty()) {
        operation.push(' ');
        operation.push_str(&first.operation);
    }
    (fragment(&operation, &text), commands.len())
}

/// Name and count of arguments of a command in a pipeline's queue.
fn queued<'py>(command: &Bound<'py, PyAny>) -> Option<(Bound<'py, PyAny>, usize)> {
    let py = command.py();
    let args = match command.cast_exact::<PyTuple>() {
        Ok(pair) => quiet(py, pair.get_item(0))?,
        Err(_) => attribute(command, intern!(py, "args"))?,
    };
    let args = args.cast_into_exact::<PyTuple>().ok()?;
    Some((quiet(py, args.get_item(0))?, args.len() - 1))
}

/// A pipeline's queue and whether it goes out as a transaction; nothing where nothing would be sent.
fn queue<'py>(pipeline: &Bound<'py, PyAny>) -> Option<(Bound<'py, PyList>, bool)> {
    let py = pipeline.py();
    let is = |of: &Bound<'py, PyAny>, name| {
        // Of the same name there are methods elsewhere.
        attribute(of, name).is_some_and(|value| value.cast_exact::<PyBool>().is_ok_and(|value| value.is_true()))
    };
    let strategy = attribute(pipeline, intern!(py, "_execution_strategy"));
    let (commands, transaction, watching) = match &strategy {
        Some(strategy) => {
            let class = strategy.get_type();
            let transaction = quiet(py, class.name()).is_some_and(|name| name == "TransactionStrategy");
            (
                attribute(strategy, intern!(py, "_command_queue")),
                transaction,
                is(strategy, intern!(py, "_watching")),
            )
        }
        None => (
            attribute(pipeline, intern!(py, "command_stack"))
                .or_else(|| attribute(pipeline, intern!(py, "_command_stack"))),
            is(pipeline, intern!(py, "transaction"))
                || is(pipeline, intern!(py, "is_transaction"))
                || is(pipeline, intern!(py, "explicit_transaction")),
            is(pipeline, intern!(py, "watching")),
        ),
    };
    let commands = commands?.cast_into_exact::<PyList>().ok()?;
    (!commands.is_empty() || watching).then_some((commands, transaction))
}

// ---- Where it goes ----

/// What a pool's connections have in common.
struct Server {
    fragment: Fragment,
    /// Whether Sentinels are asked for the address.
    sentinel: bool,
}

struct SeenServer {
    pool: Py<PyWeakrefReference>,
    server: Arc<Server>,
}

/// Where the connections of a client's pool go to.
#[inline]
fn server(client: &Bound<'_, PyAny>) -> Option<Arc<Server>> {
    let pool = attribute(client, intern!(client.py(), "connection_pool"))?;
    let place = place_of(&pool, 0);
    if let Some(Some(seen)) = locked(&SERVERS).get(place)
        && seen.pool.bind(client.py()).upgrade().is_some_and(|alive| alive.is(&pool))
    {
        return Some(seen.server.clone());
    }
    server_anew(&pool, place)
}

#[cold]
fn server_anew(pool: &Bound<'_, PyAny>, place: usize) -> Option<Arc<Server>> {
    let py = pool.py();
    let settings = attribute(pool, intern!(py, "connection_kwargs"))?.cast_into::<PyDict>().ok()?;
    let get = |name| quiet(py, settings.get_item(name)).flatten().filter(|value| !value.is_none());
    let number = |value: &Option<Bound<'_, PyAny>>| match text(value) {
        Some(text) => text.parse().ok(),
        None => quiet(py, value.as_ref()?.extract::<i64>()),
    };
    let (path, host, port) = (get(intern!(py, "path")), get(intern!(py, "host")), get(intern!(py, "port")));
    let index = get(intern!(py, "db"));
    let index = if index.is_some() { number(&index) } else { Some(0) };
    let port = if port.is_some() { number(&port) } else { Some(DEFAULT_PORT) };
    let sentinel = attribute(pool, intern!(py, "service_name")).is_some();
    let address = match (text(&path), text(&host)) {
        _ if sentinel => None,
        (Some(path), _) => Some((path, None)),
        (None, Some(host)) => Some((host, port)),
        (None, None) => Some(("localhost", port)),
    };
    let fragment = Fragment::new(|span| {
        if let Some(index) = index {
            span.str(&semconv::DB_NAMESPACE, &index.to_string());
            if old_names::database() {
                span.int(&DATABASE_INDEX, index);
            }
        }
        let Some((address, port)) = address else { return };
        set_address(span, address, port);
    });
    let server = Arc::new(Server { fragment, sentinel });
    if let Some(pool) = quiet(py, PyWeakrefReference::new(pool)) {
        let seen = SeenServer { pool: pool.unbind(), server: server.clone() };
        drop(put(&SERVERS, place, seen).map(|old| old.pool.into_bound(py)));
    }
    Some(server)
}

fn set_address(span: &mut agent_core::span::ActiveSpan, address: &str, port: Option<i64>) {
    span.str(&semconv::SERVER_ADDRESS, address);
    if let Some(port) = port.filter(|port| *port != DEFAULT_PORT) {
        span.int(&semconv::SERVER_PORT, port);
    }
    if old_names::database() {
        span.str(&old_names::NET_PEER_NAME, address);
        if let Some(port) = port {
            span.int(&old_names::NET_PEER_PORT, port);
        }
    }
}

/// A node's or a master's address, known only while the call is under way.
fn set_late_address(span: &Span<'_>, host: &Option<Bound<'_, PyAny>>, port: Option<i64>) {
    if let Some(host) = text(host) {
        span.with(|span| set_address(span, host, port));
    }
}

/// The master that the Sentinels named last.
#[cold]
fn set_master(span: &Span<'_>, client: &Bound<'_, PyAny>) {
    let py = client.py();
    let master = attribute(client, intern!(py, "connection_pool"))
        .and_then(|pool| attribute(&pool, intern!(py, "master_address")))
        .and_then(|address| address.cast_into_exact::<PyTuple>().ok());
    if let Some(master) = master {
        let port = quiet(py, master.get_item(1)).and_then(|port| quiet(py, port.extract()));
        set_late_address(span, &quiet(py, master.get_item(0)), port);
    }
}

// ---- How it ends ----

#[cold]
fn failed(span: &Span<'_>, error: &Bound<'_, PyAny>) {
    if is(error, "WatchError") || exception::is_cancellation(error) {
        return;
    }
    let type_name = exception::type_name(error);
    let code = code(error);
    span.with(|span| {
        if let Some(code) = &code {
            span.str(&semconv::DB_RESPONSE_STATUS_CODE, code);
        }
        // The message may quote values: it stays out.
        exception::set_error(span, &type_name, "");
    });
}

/// Whether a class of that name is among those of an exception.
fn is(error: &Bound<'_, PyAny>, class: &str) -> bool {
    error.get_type().mro().iter().any(|of| {
        of.cast::<pyo3::types::PyType>().is_ok_and(|of| quiet(of.py(), of.name()).is_some_and(|n| n == class))
    })
}

/// The prefix that the server's answer began with. The library takes the known ones off the message.
fn code(error: &Bound<'_, PyAny>) -> Option<String> {
    const BY_CLASS: [(&str, &str); 13] = [
        ("AskError", "ASK"),
        ("MovedError", "MOVED"),
        ("BusyLoadingError", "LOADING"),
        ("ClusterCrossSlotError", "CROSSSLOT"),
        ("ClusterDownError", "CLUSTERDOWN"),
        ("ExecAbortError", "EXECABORT"),
        ("MasterDownError", "MASTERDOWN"),
        ("ModuleError", "ERR"),
        ("NoPermissionError", "NOPERM"),
        ("NoScriptError", "NOSCRIPT"),
        ("OutOfMemoryError", "OOM"),
        ("ReadOnlyError", "READONLY"),
        ("TryAgainError", "TRYAGAIN"),
    ];
    const KNOWN: [&str; 14] = [
        "BUSY", "BUSYGROUP", "BUSYKEY", "INVALIDOBJ", "IOERR", "MISCONF", "NOAUTH", "NOGROUP", "NOPROTO",
        "NOREPLICAS", "UNBLOCKED", "UNKILLABLE", "WRONGPASS", "WRONGTYPE",
    ];
    let py = error.py();
    // Newer releases keep it.
    let kept = quiet(py, error.getattr_opt(intern!(py, "status_code"))).flatten();
    let is_kept = kept.is_some();
    if let Some(code) = text(&kept.filter(|code| !code.is_none())) {
        return Some(code.to_owned());
    }
    if let Some((_, code)) = BY_CLASS.iter().find(|(class, _)| is(error, class)) {
        return Some((*code).to_owned());
    }
    if !is(error, "ResponseError") {
        return None;
    }
    let args = attribute(error, intern!(py, "args"))?.cast_into_exact::<PyTuple>().ok()?;
    let message = quiet(py, args.get_item(0));
    // Of a pipeline's command the message begins with the command.
    let message = text(&message)?.rsplit("caused error: ").next()?;
    let word = message.split(' ').next()?;
    let looks_so = (2..=MAX_ARGUMENTS).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_uppercase());
    if KNOWN.contains(&word) || (is_kept && looks_so) {
        Some(word.to_owned())
    } else {
        // `ERR` is taken off by the older ones, which do not say so.
        (!is_kept).then(|| "ERR".to_owned())
    }
}

// ---- Hooks ----

/// What is known of a call before it is made.
#[derive(Default)]
struct Plan {
    command: Option<Arc<Command>>,
    batch: Option<(Fragment, usize)>,
    procedure: Option<String>,
    server: Option<Arc<Server>>,
    /// The address of the cluster's client, whose nodes are still to be chosen; or 0.
    cluster: usize,
    /// Whether the library calls itself inside.
    nested: bool,
}

impl Plan {
    #[inline]
    fn command(call: &Call<'_>, of: Address) -> Self {
        let mut plan = Self::default();
        if let Some(name) = call.arg(1) {
            plan.command = described(&name, call.positional().saturating_sub(2));
        }
        if plan.command.as_ref().is_some_and(|command| command.procedure) {
            plan.procedure = procedure(call);
        }
        let Some(client) = call.arg(0) else { return plan };
        match of {
            Address::Pool => {
                plan.server = server(&client);
                plan.nested = plan.server.as_ref().is_some_and(|server| server.sentinel);
            }
            Address::Cluster => {
                plan.cluster = client.as_ptr() as usize;
                plan.nested = true;
            }
            Address::Unknown => {}
        }
        plan
    }

    /// `None` where nothing would be sent.
    fn pipeline(call: &Call<'_>) -> Option<Self> {
        let pipeline = call.arg(0)?;
        let (commands, transaction) = queue(&pipeline)?;
        Some(Self {
            batch: Some(batch(&commands, transaction)),
            server: server(&pipeline),
            nested: true,
            ..Self::default()
        })
    }

    #[inline]
    fn apply(&self, span: &Span<'_>) {
        span.with(|span| {
            match (&self.command, &self.batch) {
                (Some(command), _) => span.append(&command.fragment),
                (None, Some((fragment, size))) => {
                    span.append(fragment);
                    if *size != 1 {
                        span.int(&semconv::DB_OPERATION_BATCH_SIZE, *size as i64);
                    }
                }
                (None, None) => span.str(&semconv::DB_SYSTEM_NAME, "redis"),
            }
            if let Some(procedure) = &self.procedure {
                span.str(&semconv::DB_STORED_PROCEDURE_NAME, procedure);
            }
            if let Some(server) = &self.server {
                span.append(&server.fragment);
            }
        });
        if self.nested {
            span.mark(Exit::Database, database::DRIVER + 1);
            span.note().subject.store(self.cluster, Ordering::Relaxed);
        }
    }
}

/// How the address of a command is found.
#[derive(Clone, Copy)]
enum Address {
    Pool,
    Cluster,
    Unknown,
}

#[cold]
fn procedure(call: &Call<'_>) -> Option<String> {
    text(&call.arg(2).map(|name| name.to_owned())).filter(|name| name.len() <= 256).map(str::to_owned)
}

#[inline]
fn start(py: Python<'_>) -> Option<(Span<'_>, Option<Span<'_>>)> {
    if suppression::suppressed(py, Of::Any) {
        return None;
    }
    let parent = current::current(py);
    let span = current::start_leaf(py, &SPEC, &parent, Exit::Database, database::DRIVER)?;
    Some((span, parent))
}

fn command(call: &mut Call<'_>) -> HookResult {
    exchange(call, |call| Some(Plan::command(call, Address::Pool)))
}

fn cluster_command(call: &mut Call<'_>) -> HookResult {
    exchange(call, |call| Some(Plan::command(call, Address::Cluster)))
}

fn watched(call: &mut Call<'_>) -> HookResult {
    exchange(call, |call| Some(Plan::command(call, Address::Unknown)))
}

fn pipeline(call: &mut Call<'_>) -> HookResult {
    // Nothing to send makes no span, so the queue is looked at first.
    if call.arg(0).and_then(|pipeline| queue(&pipeline)).is_none() {
        call.proceed();
        return Ok(());
    }
    exchange(call, Plan::pipeline)
}

#[inline]
fn exchange(call: &mut Call<'_>, plan: impl FnOnce(&Call<'_>) -> Option<Plan>) -> HookResult {
    let Some((span, parent)) = start(call.py()) else {
        call.proceed();
        return Ok(());
    };
    let plan = plan(call).unwrap_or_default();
    plan.apply(&span);
    if plan.nested {
        let _entered = span.enter(parent);
        call.proceed();
    } else {
        call.proceed();
    }
    if plan.server.is_some_and(|server| server.sentinel)
        && let Some(client) = call.arg(0)
    {
        set_master(&span, &client);
    }
    if let Some(error) = call.error() {
        failed(&span, &error);
    }
    span.finish();
    Ok(())
}

/// A cluster's command goes to this node: the first one is named.
fn node(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    if let (Some(client), Some(span)) = (call.arg(0), current::current(py))
        && span.note().subject.load(Ordering::Relaxed) == client.as_ptr() as usize
        && span.covers(Exit::Database, database::DRIVER)
        && let Some(node) = call.argument(1, intern!(py, "target_node"))
    {
        span.note().subject.store(0, Ordering::Relaxed);
        let port = attribute(&node, intern!(py, "port")).and_then(|port| quiet(py, port.extract()));
        set_late_address(&span, &attribute(&node, intern!(py, "host")), port);
    }
    call.proceed();
    Ok(())
}

fn command_async(call: &mut Call<'_>) -> HookResult<Option<Box<dyn Flight>>> {
    Ok(Some(Box::new(Sent::by(Plan::command(call, Address::Pool)))))
}

fn cluster_command_async(call: &mut Call<'_>) -> HookResult<Option<Box<dyn Flight>>> {
    Ok(Some(Box::new(Sent::by(Plan::command(call, Address::Cluster)))))
}

fn watched_async(call: &mut Call<'_>) -> HookResult<Option<Box<dyn Flight>>> {
    Ok(Some(Box::new(Sent::by(Plan::command(call, Address::Unknown)))))
}

fn pipeline_async(call: &mut Call<'_>) -> HookResult<Option<Box<dyn Flight>>> {
    Ok(Plan::pipeline(call).map(|plan| Box::new(Sent::by(plan)) as Box<dyn Flight>))
}

/// A coroutine of the library's.
struct Sent {
    plan: Plan,
    /// One that is not put in force.
    span: Option<StoredSpan>,
}

impl Sent {
    fn by(plan: Plan) -> Self {
        Self { plan, span: None }
    }
}

impl Flight for Sent {
    fn start(&mut self, py: Python<'_>) -> HookResult<Option<StoredSpan>> {
        let Some((span, _)) = start(py) else { return Ok(None) };
        self.plan.apply(&span);
        if self.plan.nested {
            return Ok(Some(span.store()));
        }
        self.span = Some(span.store());
        Ok(None)
    }

    fn finish(
        &mut self,
        py: Python<'_>,
        span: Option<&Span<'_>>,
        outcome: Result<&Bound<'_, PyAny>, &Bound<'_, PyAny>>,
    ) -> HookResult {
        let own = self.span.take().map(|span| span.get(py));
        let Some(span) = span.or(own.as_ref()) else { return Ok(()) };
        if let Err(error) = outcome {
            failed(span, error);
        }
        span.finish();
        Ok(())
    }
}
