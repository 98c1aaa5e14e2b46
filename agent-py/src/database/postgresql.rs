//! What the drivers of PostgreSQL share: a connection as it says of itself, and the kinds of queries that they take.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use agent_core::fragment::Fragment;
use agent_core::semconv;
use agent_core::span::ActiveSpan;
use agent_core::sql::Dialect;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBytes, PyString};

use super::{Place, composed};
use crate::current::Span;
use crate::ffi::{intern, quiet};
use crate::objects::{attribute, text};
use crate::old_names;
use crate::remembered::Remembered;

const DEFAULT_PORT: u16 = 5432;

/// What never changes in a connection.
pub struct Connection {
    /// All of it.
    pub whole: Fragment,
    /// Its database.
    pub namespace: Fragment,
    /// Its server.
    pub server: Fragment,
    /// `network.peer.*`; empty for a socket of the machine, and where the driver does not say it.
    pub peer: Fragment,
    /// Whether it goes over a socket of the machine.
    pub is_socket: bool,
}

static CONNECTIONS: Remembered<Arc<Connection>> = Remembered::new();

/// Lets `work` see what is known of a driver's connection.
#[inline]
pub fn with_connection<R>(
    connection: &Bound<'_, PyAny>,
    work: impl FnOnce(&Arc<Connection>) -> R,
) -> Option<R> {
    CONNECTIONS.with(connection, || read(connection), work)
}

impl Connection {
    /// Adds to the span of a layer above where the database is, as far as that layer does not know it.
    #[inline]
    pub fn add_place(&self, outer: &Span<'_>) {
        let note = outer.note();
        if !note.named.load(Ordering::Relaxed) || !note.addressed.load(Ordering::Relaxed) {
            self.add_missing(outer);
        }
    }

    #[cold]
    fn add_missing(&self, outer: &Span<'_>) {
        let note = outer.note();
        if !note.named.swap(true, Ordering::Relaxed) {
            outer.with(|span| span.append(&self.namespace));
        }
        if !note.addressed.swap(true, Ordering::Relaxed) {
            outer.with(|span| span.append(&self.server));
        }
    }
}

#[cold]
fn read(connection: &Bound<'_, PyAny>) -> Option<Arc<Connection>> {
    let py = connection.py();
    let info = attribute(connection, intern!(py, "info"))?;
    // What a closed connection says would be wrong for an open one, and it opens no more.
    let host = attribute(&info, intern!(py, "host"))?;
    let port: Option<u16> = attribute(&info, intern!(py, "port")).and_then(|port| quiet(py, port.extract()));
    let namespace = attribute(&info, intern!(py, "dbname"));
    // libpq 12 has it; psycopg2 does not ask.
    let peer = attribute(&info, intern!(py, "hostaddr"));
    let (host, namespace, peer) = (Some(host), text(&namespace), text(&peer).unwrap_or_default());
    let host = text(&host).filter(|host| !host.is_empty()).unwrap_or(peer);
    let is_socket = host.starts_with(['/', '@']);
    let port = port.filter(|_| !is_socket);
    let place =
        Place { namespace: namespace.unwrap_or_default(), address: host, port, default_port: DEFAULT_PORT };
    let describe_peer = |span: &mut ActiveSpan| {
        if !peer.is_empty() && !is_socket {
            span.str(&semconv::NETWORK_PEER_ADDRESS, peer);
            if let Some(port) = port {
                span.int(&semconv::NETWORK_PEER_PORT, i64::from(port));
            }
        }
    };
    Some(Arc::new(Connection {
        whole: Fragment::new(|span| {
            describe_system(span);
            place.describe(span);
            describe_peer(span);
        }),
        namespace: Fragment::new(|span| place.describe_namespace(span)),
        server: Fragment::new(|span| place.describe_server(span)),
        peer: Fragment::new(describe_peer),
        is_socket,
    }))
}

/// What is known of every one.
pub fn describe_system(span: &mut ActiveSpan) {
    span.str(&semconv::DB_SYSTEM_NAME, "postgresql");
    if old_names::database() {
        span.str(&old_names::DB_SYSTEM, "postgresql");
    }
}

/// What [`super::set_statement`] sets, of a query of any kind that the drivers take.
pub fn statement(query: &Bound<'_, PyAny>, parameterised: bool) -> Option<Arc<Fragment>> {
    if let Ok(query) = query.cast::<PyString>() {
        return super::statement(query, Dialect::PostgreSql, parameterised);
    }
    let (text, parameterised) = match query.cast::<PyBytes>() {
        Ok(bytes) => (String::from_utf8_lossy(bytes.as_bytes()), parameterised),
        // Who composes a query writes no values into its text, as a rule: what looks like one goes.
        Err(_) => (Cow::Owned(composed::text(query)?), false),
    };
    Some(super::statement_of(&text, Dialect::PostgreSql, parameterised))
}
