//! Where redis-py sends it: a pool's address and database, read once for each pool.

use std::sync::{Arc, Mutex};

use agent_core::Key;
use agent_core::fragment::Fragment;
use agent_core::semconv;
use agent_core::span::ActiveSpan;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyTuple, PyWeakrefMethods, PyWeakrefReference};

use super::places::{locked, place_of, put};
use crate::current::Span;
use crate::ffi::{intern, quiet};
use crate::objects::{attribute, text};
use crate::old_names;

/// Of before the conventions were stable.
static DATABASE_INDEX: Key = Key::new("db.redis.database_index");

const DEFAULT_PORT: i64 = 6379;

/// What a pool's connections have in common.
pub struct Server {
    /// What its spans share.
    pub fragment: Fragment,
    /// Whether Sentinels are asked for the address.
    pub sentinel: bool,
    /// Whether replies may come from a cache of the client's own.
    pub cached: bool,
}

struct SeenServer {
    pool: Py<PyWeakrefReference>,
    server: Arc<Server>,
}

// Never held across a call into Python.
static SERVERS: Mutex<Vec<Option<SeenServer>>> = Mutex::new(Vec::new());

/// Where the connections of a client's pool go to.
#[inline]
pub fn server(client: &Bound<'_, PyAny>) -> Option<Arc<Server>> {
    with_server(client, Arc::clone)
}

/// As [`server`], for `work` that calls nothing of Python's.
#[inline]
pub fn with_server<R>(client: &Bound<'_, PyAny>, work: impl FnOnce(&Arc<Server>) -> R) -> Option<R> {
    let pool = attribute(client, intern!(client.py(), "connection_pool"))?;
    let place = place_of(&pool, 0);
    if let Some(Some(seen)) = locked(&SERVERS).get(place)
        && seen.pool.bind(client.py()).upgrade().is_some_and(|alive| alive.is(&pool))
    {
        return Some(work(&seen.server));
    }
    server_anew(&pool, place).map(|server| work(&server))
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
    let is = |name| get(name).is_some_and(|value| quiet(py, value.is_truthy()) == Some(true));
    let cached = attribute(pool, intern!(py, "cache")).is_some()
        || get(intern!(py, "client_cache")).is_some()
        || is(intern!(py, "cache_enabled"));
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
    let server = Arc::new(Server { fragment, sentinel, cached });
    if let Some(pool) = quiet(py, PyWeakrefReference::new(pool)) {
        let seen = SeenServer { pool: pool.unbind(), server: server.clone() };
        drop(put(&SERVERS, place, seen).map(|old| old.pool.into_bound(py)));
    }
    Some(server)
}

fn set_address(span: &mut ActiveSpan, address: &str, port: Option<i64>) {
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
pub fn set_late_address(span: &Span<'_>, host: Option<&str>, port: Option<i64>) {
    if let Some(host) = host {
        span.with(|span| set_address(span, host, port));
    }
}

/// Takes an address off again.
#[cold]
pub fn forget_address(span: &Span<'_>) {
    span.with(|span| {
        for key in [
            &semconv::SERVER_ADDRESS,
            &semconv::SERVER_PORT,
            &old_names::NET_PEER_NAME,
            &old_names::NET_PEER_PORT,
        ] {
            span.replace(key.name());
        }
    });
}

/// The master that the Sentinels named last.
#[cold]
pub fn set_master(span: &Span<'_>, client: &Bound<'_, PyAny>) {
    let py = client.py();
    let master = attribute(client, intern!(py, "connection_pool"))
        .and_then(|pool| attribute(&pool, intern!(py, "master_address")))
        .and_then(|address| address.cast_into_exact::<PyTuple>().ok());
    if let Some(master) = master {
        let port = quiet(py, master.get_item(1)).and_then(|port| quiet(py, port.extract()));
        set_late_address(span, text(&quiet(py, master.get_item(0))), port);
    }
}
