//! redis-py: one CLIENT span for each command, and for each pipeline or transaction sent.
//!
//! Nothing hooked runs inside a plain command, so its span is not put in force. Inside pipelines (scripts are loaded),
//! clusters (slots are looked up, commands sent again) and behind Sentinels (the master is asked for) the library calls
//! itself: there the span is in force and covers what it leads to. So it is where replies may come from a cache of the
//! client's own: a call that is answered there leaves no span, for nothing is sent.
//!
//! valkey-py is a fork with other names, and shares what is here.

#[path = "redis/cache.rs"]
pub mod cache;
#[path = "redis/cluster.rs"]
pub mod cluster;
#[path = "redis/commands.rs"]
mod commands;
#[path = "redis/errors.rs"]
mod errors;
#[path = "redis/health.rs"]
pub mod health;
#[path = "redis/places.rs"]
mod places;
#[path = "redis/server.rs"]
mod server;

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use agent_core::Key;
use agent_core::fragment::Fragment;
use agent_core::semconv;
use agent_core::span::{SpanKind, SpanSpec};
use pyo3::prelude::*;
use pyo3::types::PyAny;

use self::cluster::{NO_NODE, Start, name_cluster, start_node};
use self::commands::{Command, batch, described, queue, with_described};
use self::errors::failed;
use self::server::{Server, server, set_master, with_server};
use crate::breaker::Breaker;
use crate::current::{self, Exit, Span, StoredSpan};
use crate::database;
use crate::ffi::Held;
use crate::instrumentations::Instrumentation;
use crate::objects::text;
use crate::suppression::{self, Of};
use crate::wrapper::{Call, Flight, HookResult};

/// What is wrapped in a package of this layout, whose client is called so.
macro_rules! targets {
    ($package:literal, $client:literal, $product:ty) => {{
        use $crate::instrumentations::Target;
        use $crate::instrumentations::registry::redis::{self, cache, cluster, health};
        &[
            Target::call(
                concat!($package, ".client"),
                concat!($client, ".execute_command"),
                redis::command::<$product>,
            ),
            Target::call(concat!($package, ".client"), "Pipeline.execute", redis::pipeline::<$product>),
            Target::call(
                concat!($package, ".client"),
                "Pipeline.immediate_execute_command",
                redis::command::<$product>,
            ),
            Target::coroutine(
                concat!($package, ".asyncio.client"),
                concat!($client, ".execute_command"),
                redis::command_async::<$product>,
            ),
            Target::coroutine(
                concat!($package, ".asyncio.client"),
                "Pipeline.execute",
                redis::pipeline_async::<$product>,
            ),
            Target::coroutine(
                concat!($package, ".asyncio.client"),
                "Pipeline.immediate_execute_command",
                redis::command_async::<$product>,
            ),
            Target::call(
                concat!($package, ".cluster"),
                concat!($client, "Cluster.execute_command"),
                redis::cluster_command::<$product>,
            ),
            Target::call(
                concat!($package, ".cluster"),
                concat!($client, "Cluster._execute_command"),
                cluster::node,
            ),
            Target::call(
                concat!($package, ".cluster"),
                "ClusterPipeline.execute",
                redis::pipeline::<$product>,
            ),
            Target::call(concat!($package, ".cluster"), "NodeCommands.__init__", cluster::node_of_pipeline),
            Target::coroutine(
                concat!($package, ".asyncio.cluster"),
                concat!($client, "Cluster.execute_command"),
                redis::cluster_command_async::<$product>,
            ),
            // These two make a coroutine; which node it is for is known at the call.
            Target::call(
                concat!($package, ".asyncio.cluster"),
                concat!($client, "Cluster._execute_command"),
                cluster::node,
            ),
            Target::call(
                concat!($package, ".asyncio.cluster"),
                "ClusterNode.execute_pipeline",
                cluster::node_of_pipeline_async,
            ),
            Target::coroutine(
                concat!($package, ".asyncio.cluster"),
                "ClusterPipeline.execute",
                redis::pipeline_async::<$product>,
            ),
            // Transactions across a cluster, and with them WATCH, came with redis-py 6.0.
            Target::call(
                concat!($package, ".cluster"),
                "TransactionStrategy._immediate_execute_command",
                redis::cluster_command::<$product>,
            )
            .optional(),
            Target::call(
                concat!($package, ".cluster"),
                "TransactionStrategy._get_client_and_connection_for_transaction",
                cluster::node_of_transaction,
            )
            .optional(),
            Target::coroutine(
                concat!($package, ".asyncio.cluster"),
                "TransactionStrategy._immediate_execute_command",
                redis::cluster_command_async::<$product>,
            )
            .optional(),
            Target::call(
                concat!($package, ".asyncio.cluster"),
                "TransactionStrategy._get_client_and_connection_for_transaction",
                cluster::node_of_transaction,
            )
            .optional(),
            // Clients of several databases came with redis-py 7.0.
            Target::coroutine(
                concat!($package, ".multidb.client"),
                "MultiDBClient._check_db_health",
                health::check,
            )
            .optional(),
            Target::coroutine(
                concat!($package, ".asyncio.multidb.client"),
                "MultiDBClient._check_db_health",
                health::check,
            )
            .optional(),
            // Caches of the client's own: redis-py's from 5.1 on, and valkey-py's.
            Target::call(
                concat!($package, ".connection"),
                "CacheProxyConnection.send_command",
                cache::send_unless_cached,
            )
            .optional(),
            Target::call(concat!($package, ".cache"), "CacheEntry.__init__", cache::entry_made).optional(),
            Target::call(concat!($package, "._cache"), "_LocalCache.get", cache::looked_up).optional(),
        ]
    }};
}
pub(super) use targets;

/// The library.
pub static LIBRARY: Instrumentation = Instrumentation {
    name: "redis",
    distribution: "redis",
    breaker: Breaker::new("redis"),
    targets: targets!("redis", "Redis", Redis),
};

static SCOPE: Key = Key::new("remora.redis");
static SPEC: SpanSpec = SpanSpec { name: "redis", kind: SpanKind::Client, scope: &SCOPE };

/// A package of this layout.
pub trait Product: Send + 'static {
    /// Its spans.
    fn spec() -> &'static SpanSpec;
}

/// redis-py.
pub enum Redis {}

impl Product for Redis {
    fn spec() -> &'static SpanSpec {
        &SPEC
    }
}

/// What is known of a call before it is made.
#[derive(Default)]
struct Plan {
    command: Option<Arc<Command>>,
    batch: Option<(Fragment, usize)>,
    procedure: Option<String>,
    server: Option<Arc<Server>>,
    /// Of a pipeline of a cluster's.
    start: Option<Start>,
    /// While the nodes of a cluster are still to be chosen: what is called, or that it is a pipeline; else 0.
    subject: usize,
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
                plan.nested = plan.server.as_ref().is_some_and(|server| server.sentinel || server.cached);
            }
            Address::Cluster => {
                plan.subject = client.as_ptr() as usize;
                plan.nested = true;
            }
        }
        plan
    }

    /// `None` where nothing would be sent.
    fn pipeline(call: &Call<'_>) -> Option<Self> {
        let pipeline = call.arg(0)?;
        let (commands, transaction) = queue(&pipeline)?;
        let server = server(&pipeline);
        let start = if server.is_none() { start_node(&pipeline) } else { None };
        Some(Self {
            batch: Some(batch(&commands, transaction)),
            subject: if start.is_some() { NO_NODE } else { 0 },
            server,
            start,
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
            span.note().subject.store(self.subject, Ordering::Relaxed);
        }
    }

    /// Sets the address that is known only afterwards.
    fn name_server(&self, span: &Span<'_>, client: Option<Borrowed<'_, '_, PyAny>>) {
        if let Some(start) = &self.start {
            name_cluster(span, start);
        }
        if self.server.as_ref().is_some_and(|server| server.sentinel)
            && let Some(client) = client
        {
            set_master(span, &client);
        }
    }
}

/// How the address of a command is found.
#[derive(Clone, Copy)]
enum Address {
    Pool,
    Cluster,
}

#[cold]
fn procedure_name(call: &Call<'_>) -> Option<String> {
    text(&call.arg(2).map(|name| name.to_owned())).filter(|name| name.len() <= 256).map(str::to_owned)
}

#[inline]
fn start<P: Product>(py: Python<'_>) -> Option<(Span<'_>, Option<Span<'_>>)> {
    if suppression::suppressed(py, Of::Any) {
        return None;
    }
    let parent = current::current(py);
    let span = current::start_leaf(py, P::spec(), &parent, Exit::Database, database::DRIVER)?;
    Some((span, parent))
}

/// Ends a call's span; one that a cache of the client's answered has none.
fn conclude(span: &Span<'_>, error: Option<&Bound<'_, PyAny>>) {
    match error {
        Some(error) => failed(span, error),
        None if cache::is_answer(span) => {
            span.with(|span| span.abandon(None));
        }
        None => {}
    }
    span.finish();
}

/// Around a command to one server.
pub fn command<P: Product>(call: &mut Call<'_>) -> HookResult {
    let Some((span, parent)) = start::<P>(call.py()) else {
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
    let server = call.arg(0).and_then(|client| {
        with_server(&client, |server| {
            span.with(|span| span.append(&server.fragment));
            (server.sentinel, server.cached)
        })
    });
    let (sentinel, cached) = server.unwrap_or_default();
    if sentinel || cached {
        span.mark(Exit::Database, database::DRIVER + 1);
        let entered = span.enter_call(parent);
        call.proceed();
        drop(entered);
        span.unmark();
    } else {
        call.proceed();
    }
    if sentinel && let Some(client) = call.arg(0) {
        set_master(&span, &client);
    }
    conclude(&span, call.error().as_deref());
    Ok(())
}

/// Around a command to a cluster.
pub fn cluster_command<P: Product>(call: &mut Call<'_>) -> HookResult {
    exchange::<P>(call, |call| Some(Plan::command(call, Address::Cluster)))
}

/// Around a pipeline or transaction.
pub fn pipeline<P: Product>(call: &mut Call<'_>) -> HookResult {
    // Nothing to send makes no span, so the queue is looked at first.
    if call.arg(0).and_then(|pipeline| queue(&pipeline)).is_none() {
        call.proceed();
        return Ok(());
    }
    exchange::<P>(call, Plan::pipeline)
}

#[inline]
fn exchange<P: Product>(call: &mut Call<'_>, plan: impl FnOnce(&Call<'_>) -> Option<Plan>) -> HookResult {
    let Some((span, parent)) = start::<P>(call.py()) else {
        call.proceed();
        return Ok(());
    };
    let plan = plan(call).unwrap_or_default();
    plan.apply(&span);
    if plan.nested {
        let entered = span.enter_call(parent);
        call.proceed();
        drop(entered);
        // A task that was begun inside goes on under it.
        span.unmark();
    } else {
        call.proceed();
    }
    plan.name_server(&span, call.arg(0));
    conclude(&span, call.error().as_deref());
    Ok(())
}

/// Around a command to one server.
pub fn command_async<P: Product>(call: &mut Call<'_>) -> HookResult<Option<Box<dyn Flight>>> {
    Ok(Some(Sent::<P>::boxed(call, Plan::command(call, Address::Pool))))
}

/// Around a command to a cluster.
pub fn cluster_command_async<P: Product>(call: &mut Call<'_>) -> HookResult<Option<Box<dyn Flight>>> {
    Ok(Some(Sent::<P>::boxed(call, Plan::command(call, Address::Cluster))))
}

/// Around a pipeline or transaction.
pub fn pipeline_async<P: Product>(call: &mut Call<'_>) -> HookResult<Option<Box<dyn Flight>>> {
    Ok(Plan::pipeline(call).map(|plan| Sent::<P>::boxed(call, plan)))
}

/// A coroutine of the library's.
struct Sent<P> {
    plan: Plan,
    /// What was called, where it is to be asked at the end.
    client: Option<Held>,
    /// One that is not put in force.
    span: Option<StoredSpan>,
    product: PhantomData<P>,
}

impl<P: Product> Sent<P> {
    fn boxed(call: &Call<'_>, plan: Plan) -> Box<dyn Flight> {
        let asked = plan.server.as_ref().is_some_and(|server| server.sentinel);
        let client = call.arg(0).filter(|_| asked).map(|client| Held::new(&client));
        Box::new(Self { plan, client, span: None, product: PhantomData })
    }
}

impl<P: Product> Flight for Sent<P> {
    fn start(&mut self, py: Python<'_>) -> HookResult<Option<StoredSpan>> {
        let Some((span, _)) = start::<P>(py) else { return Ok(None) };
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
        self.plan.name_server(span, self.client.as_ref().map(|client| client.bind(py)));
        conclude(span, outcome.err());
        span.unmark();
        Ok(())
    }
}
