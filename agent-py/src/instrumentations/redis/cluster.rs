//! Which nodes of a cluster a call goes to: known only while it is under way.
//!
//! A command's span names the first node. A pipeline's names the node where there is one; of several, and where none was
//! reached, the cluster by the node that the client starts from.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::Ordering;

use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyTuple};

use super::server::{forget_address, set_late_address};
use crate::current::{self, Exit, Span};
use crate::database;
use crate::ffi::{intern, quiet};
use crate::objects::{attribute, text};
use crate::wrapper::{Call, HookResult};

/// The subject of a pipeline's span until a node is reached. Then it is an odd number that stands for the node, and 0 once
/// there are several. A command's subject is the address of what was called, which is even.
pub const NO_NODE: usize = 1;

/// The node that a cluster's client starts from.
pub struct Start {
    host: String,
    port: Option<i64>,
}

/// It; none where this is no pipeline of a cluster.
pub fn start_node(pipeline: &Bound<'_, PyAny>) -> Option<Start> {
    let py = pipeline.py();
    let manager = attribute(pipeline, intern!(py, "nodes_manager")).or_else(|| {
        let client = attribute(pipeline, intern!(py, "_client"))?;
        attribute(&client, intern!(py, "nodes_manager"))
    })?;
    let nodes = attribute(&manager, intern!(py, "startup_nodes"))?.cast_into::<PyDict>().ok()?;
    let (_, first) = nodes.iter().next()?;
    let (host, port) = place(&first);
    Some(Start { host: text(&host)?.to_owned(), port })
}

/// At a pipeline's end: unless one node took it all, the cluster is named.
pub fn name_cluster(span: &Span<'_>, start: &Start) {
    if [0, NO_NODE].contains(&span.note().subject.load(Ordering::Relaxed)) {
        set_late_address(span, Some(&start.host), start.port);
    }
}

/// A cluster's command goes to this node; also one of a pipeline that is sent again.
pub fn node(call: &mut Call<'_>) -> HookResult {
    if let Some(client) = call.arg(0)
        && let Some(node) = call.argument(1, intern!(call.py(), "target_node"))
    {
        reached(&client, &node);
    }
    call.proceed();
    Ok(())
}

/// Commands of a pipeline are gathered for this node, by its connection.
pub fn node_of_pipeline(call: &mut Call<'_>) -> HookResult {
    if let Some(own) = call.arg(0)
        && let Some(connection) = call.argument(3, intern!(call.py(), "connection"))
    {
        reached(&own, &connection);
    }
    call.proceed();
    Ok(())
}

/// As [`node_of_pipeline`], by the node itself.
pub fn node_of_pipeline_async(call: &mut Call<'_>) -> HookResult {
    if let Some(node) = call.arg(0) {
        reached(&node, &node);
    }
    call.proceed();
    Ok(())
}

/// A transaction, or a command before it, goes out by a connection.
pub fn node_of_transaction(call: &mut Call<'_>) -> HookResult {
    call.proceed();
    if let Some(strategy) = call.arg(0)
        && let Some(pair) = call.result()
        && let Ok(pair) = pair.cast::<PyTuple>()
        && let Some(connection) = quiet(call.py(), pair.get_item(1))
    {
        reached(&strategy, &connection);
    }
    Ok(())
}

fn place<'py>(of: &Bound<'py, PyAny>) -> (Option<Bound<'py, PyAny>>, Option<i64>) {
    let py = of.py();
    let port = attribute(of, intern!(py, "port")).and_then(|port| quiet(py, port.extract()));
    (attribute(of, intern!(py, "host")), port)
}

/// What was `called` uses a node, or a connection to one.
fn reached(called: &Bound<'_, PyAny>, node: &Bound<'_, PyAny>) {
    let Some(span) = current::current(called.py()) else { return };
    let subject = &span.note().subject;
    let seen = subject.load(Ordering::Relaxed);
    let pipeline = seen % 2 == 1;
    if !(pipeline || seen == called.as_ptr() as usize) || !span.covers(Exit::Database, database::DRIVER) {
        return;
    }
    let (host, port) = place(node);
    let host = text(&host);
    if !pipeline {
        subject.store(0, Ordering::Relaxed);
        set_late_address(&span, host, port);
        return;
    }
    let mut hasher = DefaultHasher::new();
    (host, port).hash(&mut hasher);
    let this = hasher.finish() as usize | 1;
    if seen == NO_NODE {
        subject.store(this, Ordering::Relaxed);
        set_late_address(&span, host, port);
    } else if seen != this {
        subject.store(0, Ordering::Relaxed);
        forget_address(&span);
    }
}
