//! The propagation headers of a request that goes out by a connection of `http.client`: lines in the head that the
//! connection has ready, written there when the head is complete.
//!
//! Passed as headers they would be copied, checked and encoded by every layer on the way, in Python, which costs more
//! than all the rest of the span; and the application would find them in its own request object.

use std::cell::RefCell;
use std::io::Write;
use std::sync::atomic::Ordering;

use agent_core::propagation::HEADERS;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBytes, PyList};

use crate::current::{Span, StoredSpan};
use crate::ffi::{intern, quiet};
use crate::http;
use crate::http::peer;
use crate::objects::{attribute, text};
use crate::wrapper::{self, Call, HookResult};

/// The connection whose head [`endheaders`] sees and finds what it writes to: mostly the one that is given.
#[inline]
pub fn that_takes_lines<'py>(connection: Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    if takes_lines(&connection) { Some(connection) } else { recorded(&connection).filter(takes_lines) }
}

/// The connection behind one of vcrpy's, which would write what it is called with to its cassette.
#[cold]
fn recorded<'py>(connection: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    let py = connection.py();
    let module = attribute(&connection.get_type(), intern!(py, "__module__"));
    text(&module).filter(|module| module.starts_with("vcr."))?;
    attribute(connection, intern!(py, "real_connection"))
}

fn takes_lines(connection: &Bound<'_, PyAny>) -> bool {
    let py = connection.py();
    attribute(&connection.get_type(), intern!(py, "endheaders"))
        .is_some_and(|function| wrapper::is_wrapper(&function))
        && attribute(connection, intern!(py, "_buffer"))
            .is_some_and(|buffer| buffer.is_exact_instance_of::<PyList>())
}

/// Heads still to be sent by this thread: the connection's address, and the span that they are to carry. More than
/// one where greenlets take turns.
struct Waiting(RefCell<Vec<(usize, StoredSpan)>>);

thread_local! {
    static WAITING: Waiting = const { Waiting(RefCell::new(Vec::new())) };
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // The thread ends with a request half-way, and without the interpreter: references may not be given up here.
        std::mem::forget(self.0.take());
    }
}

impl Waiting {
    fn add(connection: usize, span: &Span<'_>) {
        let _ = WAITING.try_with(|waiting| waiting.0.borrow_mut().push((connection, span.clone().store())));
    }

    fn find<'py>(py: Python<'py>, connection: usize) -> Option<Span<'py>> {
        let get = |waiting: &Self| {
            let all = waiting.0.borrow();
            all.iter().rev().find(|(of, _)| *of == connection).map(|(_, span)| span.get(py))
        };
        WAITING.try_with(get).ok().flatten()
    }

    /// Whether it was still there.
    fn remove(connection: usize, span: &Span<'_>) -> bool {
        let take = |waiting: &Self| {
            let mut all = waiting.0.borrow_mut();
            let at = all.iter().rposition(|(of, stored)| *of == connection && stored.holds(span))?;
            Some(all.swap_remove(at))
        };
        // Given up outside the borrow.
        WAITING.try_with(take).ok().flatten().is_some()
    }
}

/// Runs `send` while the next head that this connection sends gets the span's context, and the span the peer that it is
/// sent to. Says whether a head was sent.
pub fn carrying(span: &Span<'_>, connection: &Bound<'_, PyAny>, send: impl FnOnce()) -> bool {
    let connection = connection.as_ptr() as usize;
    Waiting::add(connection, span);
    send();
    !Waiting::remove(connection, span)
}

/// Around `http.client.HTTPConnection.endheaders`.
pub fn endheaders(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    if let Some(connection) = call.arg(0).map(|connection| connection.to_owned())
        && let Some(span) = Waiting::find(py, connection.as_ptr() as usize)
    {
        quiet(py, write(py, &span, &connection));
        call.proceed();
        // Now it is connected; after the answer it may be closed again.
        if let Some(socket) = attribute(&connection, intern!(py, "sock")) {
            Waiting::remove(connection.as_ptr() as usize, &span);
            if span.is_recording() {
                set_peer(&span, &socket);
            }
        }
        return Ok(());
    }
    call.proceed();
    Ok(())
}

/// Sets the peer of a socket, in the place of an earlier attempt's.
pub fn set_peer(span: &Span<'_>, socket: &Bound<'_, PyAny>) {
    let py = socket.py();
    let again = span.note().peered.swap(true, Ordering::Relaxed);
    let read = || quiet(py, socket.call_method0(intern!(py, "getpeername")));
    peer::set(span, socket, again, || Some(socket.clone()), read);
}

fn write(py: Python<'_>, span: &Span<'_>, connection: &Bound<'_, PyAny>) -> PyResult<()> {
    let buffer = connection.getattr(intern!(py, "_buffer"))?;
    let lines = buffer.cast_exact::<PyList>()?;
    http::each_header(span, |at, value| {
        let name = HEADERS[at];
        remove(lines, name)?;
        let parts = [name.as_bytes(), b": ", value.as_bytes()];
        let line = PyBytes::new_with(py, parts.iter().map(|part| part.len()).sum(), |mut line| {
            Ok(parts.iter().try_for_each(|part| line.write_all(part))?)
        })?;
        lines.append(line)
    })
}

/// Takes out what the application wrote under this name.
fn remove(lines: &Bound<'_, PyList>, name: &str) -> PyResult<()> {
    let has_name = |line: &[u8]| {
        line.get(name.len()) == Some(&b':')
            && line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes()))
    };
    for at in (0..lines.len()).rev() {
        if lines.get_item(at)?.cast::<PyBytes>().is_ok_and(|line| has_name(line.as_bytes())) {
            lines.del_item(at)?;
        }
    }
    Ok(())
}
