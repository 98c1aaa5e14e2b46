//! The peer of a connection (`network.peer.address`, `network.peer.port`), read once for each connection.
//!
//! What it is read from is a socket or stream of the application, of which only a weak reference is kept. Where it has a
//! file descriptor the system is asked directly: Python's own `getpeername` lets go of the GIL.
#![expect(unsafe_code, reason = "the descriptor is the application's")]

use std::io::Write;
use std::mem::ManuallyDrop;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{FromRawFd, RawFd};
use std::sync::{Arc, Mutex};

use agent_core::fragment::Fragment;
use agent_core::semconv;
use agent_core::span::ActiveSpan;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyString, PyTuple, PyWeakrefMethods, PyWeakrefReference};

use crate::current::Span;
use crate::ffi::{intern, quiet};

const PLACES: usize = 256;

/// Peers by the address of what they were read from. A place holds as long as its weak reference is alive: no other
/// object can have that address meanwhile.
// Never held across a call into Python; contended, it is passed by.
static SEEN: Mutex<Vec<Option<Seen>>> = Mutex::new(Vec::new());

const KNOWN_PLACES: usize = 32;

type Known = Option<(SocketAddr, Arc<Fragment>)>;

/// Addresses of late, with what spans show of them.
static KNOWN: Mutex<[Known; KNOWN_PLACES]> = Mutex::new([const { None }; KNOWN_PLACES]);

struct Seen {
    address: usize,
    alive: Py<PyWeakrefReference>,
    peer: Arc<Fragment>,
}

/// Sets the peer of `connection`. Where it is not known yet, its `socket` is asked, if it has one in reach; else `read`
/// gives it as `getpeername()` does. `again` says that the span may have one, of an earlier attempt.
#[inline]
pub fn set<'py>(
    span: &Span<'py>,
    connection: &Bound<'py, PyAny>,
    again: bool,
    socket: impl FnOnce() -> Option<Bound<'py, PyAny>>,
    read: impl FnOnce() -> Option<Bound<'py, PyAny>>,
) {
    if again {
        span.with(|span| {
            span.replace(semconv::NETWORK_PEER_ADDRESS.name());
            span.replace(semconv::NETWORK_PEER_PORT.name());
        });
    }
    let address = connection.as_ptr() as usize;
    let place = (address >> 4) % PLACES;
    if let Ok(seen) = SEEN.try_lock()
        && let Some(Some(found)) = seen.get(place)
        && found.address == address
        // The caller holds the object: giving up this reference to it runs no code.
        && found.alive.bind(connection.py()).upgrade().is_some()
    {
        span.with(|span| span.append(&found.peer));
        return;
    }
    set_new(span, connection, place, socket, read);
}

#[cold]
fn set_new<'py>(
    span: &Span<'py>,
    connection: &Bound<'py, PyAny>,
    place: usize,
    socket: impl FnOnce() -> Option<Bound<'py, PyAny>>,
    read: impl FnOnce() -> Option<Bound<'py, PyAny>>,
) {
    let py = connection.py();
    let peer = match socket().and_then(|socket| address_of(&socket)) {
        Some(address) => peer_at(address),
        None => {
            let Some(name) = read() else { return };
            Arc::new(Fragment::new(|span| describe(span, &name)))
        }
    };
    span.with(|span| span.append(&peer));
    let Some(alive) = quiet(py, PyWeakrefReference::new(connection)) else { return };
    let fresh = Seen { address: connection.as_ptr() as usize, alive: alive.unbind(), peer };
    let replaced = SEEN.try_lock().ok().and_then(|mut seen| {
        if seen.is_empty() {
            seen.resize_with(PLACES, || None);
        }
        seen[place].replace(fresh)
    });
    // Not by its own drop, which would wait until pyo3 is next entered by a way it knows.
    drop(replaced.map(|old| old.alive.into_bound(py)));
}

/// What spans show of an address: one server's for all the connections that an application makes to it.
fn peer_at(address: SocketAddr) -> Arc<Fragment> {
    let make = || {
        Arc::new(Fragment::new(|span| {
            span.str_with(&semconv::NETWORK_PEER_ADDRESS, |out| {
                // Nothing fails in writing to memory.
                let _ = write!(out, "{}", address.ip());
            });
            span.int(&semconv::NETWORK_PEER_PORT, i64::from(address.port()));
        }))
    };
    let last = match address {
        SocketAddr::V4(address) => usize::from(address.ip().octets()[3]),
        SocketAddr::V6(address) => usize::from(address.ip().octets()[15]),
    };
    let Ok(mut known) = KNOWN.try_lock() else { return make() };
    let place = &mut known[(last + usize::from(address.port())) % KNOWN_PLACES];
    if let Some((_, peer)) = place.as_ref().filter(|(of, _)| *of == address) {
        return Arc::clone(peer);
    }
    let peer = make();
    *place = Some((address, Arc::clone(&peer)));
    peer
}

/// Where a socket's other end is, if that is on the internet.
fn address_of(socket: &Bound<'_, PyAny>) -> Option<SocketAddr> {
    let py = socket.py();
    let descriptor = quiet(py, socket.call_method0(intern!(py, "fileno")))?;
    let descriptor = quiet(py, descriptor.extract::<RawFd>()).filter(|descriptor| *descriptor >= 0)?;
    // SAFETY: never dropped, so never closed; only `getpeername` is called on it, which answers with an error for
    // whatever is no socket. No other thread can close the descriptor and have it given out again meanwhile without
    // being a thread that misuses the socket under its owner.
    let stream = ManuallyDrop::new(unsafe { TcpStream::from_raw_fd(descriptor) });
    stream.peer_addr().ok()
}

/// A socket's name: host and port for the internet, a path for Unix.
fn describe(span: &mut ActiveSpan, name: &Bound<'_, PyAny>) {
    let py = name.py();
    if let Ok(path) = name.cast::<PyString>() {
        if let Some(path) = quiet(py, path.to_str()).filter(|path| !path.is_empty()) {
            span.str(&semconv::NETWORK_PEER_ADDRESS, path);
        }
        return;
    }
    let Ok(pair) = name.cast::<PyTuple>() else { return };
    let (Ok(host), Ok(port)) = (pair.get_borrowed_item(0), pair.get_borrowed_item(1)) else { return };
    let Ok(host) = host.cast::<PyString>() else { return };
    if let Some(host) = quiet(py, host.to_str()) {
        span.str(&semconv::NETWORK_PEER_ADDRESS, host);
        if let Some(port) = quiet(py, port.extract::<u16>()) {
            span.int(&semconv::NETWORK_PEER_PORT, i64::from(port));
        }
    }
}
