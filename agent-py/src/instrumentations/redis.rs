//! redis-py: one CLIENT span for each command, and for each pipeline or transaction sent.
//!
//! Nothing hooked runs inside a plain command, so its span is not put in force. Inside pipelines (scripts are loaded),
//! clusters (slots are looked up, commands sent again) and behind Sentinels (the master is asked for) the library calls
//! itself: there the span is in force and covers what it leads to.

#[path = "redis/commands.rs"]
mod commands;
#[path = "redis/errors.rs"]
mod errors;
#[path = "redis/places.rs"]
mod places;
#[path = "redis/server.rs"]
mod server;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use agent_core::Key;
use agent_core::fragment::Fragment;
use agent_core::semconv;
use agent_core::span::{SpanKind, SpanSpec};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyAny;

use self::commands::{Command, batch, described, queue, with_described};
use self::errors::failed;
use self::server::{Server, server, set_late_address, set_master, with_server};
use crate::breaker::Breaker;
use crate::current::{self, Exit, Span, StoredSpan};
use crate::database;
use crate::ffi::quiet;
use crate::instrumentations::{Hook, Instrumentation, Target};
use crate::objects::{attribute, text};
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
            plan.procedure = procedure_name(call);
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
fn procedure_name(call: &Call<'_>) -> Option<String> {
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
    let Some((span, parent)) = start(call.py()) else {
        call.proceed();
        return Ok(());
    };
    // As `exchange` does with a plan, without making one.
    let arguments = call.positional().saturating_sub(2);
    let procedure = call.arg(1).and_then(|name| {
        with_described(&name, arguments, |command| {
            span.with(|span| span.append(&command.fragment));
            command.procedure
        })
    });
    match procedure {
        Some(false) => {}
        Some(true) => {
            if let Some(name) = procedure_name(call) {
                span.with(|span| span.str(&semconv::DB_STORED_PROCEDURE_NAME, &name));
            }
        }
        None => {
            span.with(|span| span.str(&semconv::DB_SYSTEM_NAME, "redis"));
        }
    }
    let sentinel = call.arg(0).and_then(|client| {
        with_server(&client, |server| {
            span.with(|span| span.append(&server.fragment));
            server.sentinel
        })
    });
    if sentinel == Some(true) {
        span.mark(Exit::Database, database::DRIVER + 1);
        let entered = span.enter(parent);
        call.proceed();
        drop(entered);
        span.unmark();
        if let Some(client) = call.arg(0) {
            set_master(&span, &client);
        }
    } else {
        call.proceed();
    }
    if let Some(error) = call.error() {
        failed(&span, &error);
    }
    span.finish();
    Ok(())
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
        let entered = span.enter(parent);
        call.proceed();
        drop(entered);
        // A task that was begun inside goes on under it.
        span.unmark();
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
        span.unmark();
        Ok(())
    }
}
