//! Caches of the client's own. What a call found there is noted on its span, which is in force while it lasts.

use std::sync::atomic::Ordering;

use pyo3::prelude::*;

use crate::current::{self, Exit, Span};
use crate::database;
use crate::ffi::intern;
use crate::objects::attribute;
use crate::wrapper::{Call, HookResult};

fn span(py: Python<'_>) -> Option<Span<'_>> {
    current::current(py).filter(|span| span.covers(Exit::Database, database::DRIVER))
}

fn note(span: &Span<'_>, sent: bool) {
    if sent {
        span.note().sent.store(true, Ordering::Relaxed);
    } else {
        span.note().cached.store(true, Ordering::Relaxed);
    }
}

/// Whether all that a call asked for was in the cache, so that nothing was sent.
pub fn is_answer(span: &Span<'_>) -> bool {
    let note = span.note();
    note.cached.load(Ordering::Relaxed) && !note.sent.load(Ordering::Relaxed)
}

/// A connection with a cache sends a command, unless its reply is there.
pub fn send_unless_cached(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    let Some(span) = span(py) else {
        call.proceed();
        return Ok(());
    };
    let before = span.note().sent.swap(false, Ordering::Relaxed);
    call.proceed();
    // What may be in the cache has a key, and gets an entry when it is sent.
    let has_key = call.arg(0).is_some_and(|connection| {
        attribute(&connection, intern!(py, "_current_command_cache_key")).is_some()
    });
    let sent = span.note().sent.load(Ordering::Relaxed) || call.error().is_some() || !has_key;
    note(&span, sent);
    if before {
        note(&span, true);
    }
    Ok(())
}

/// A cache makes an entry for what is about to be sent.
pub fn entry_made(call: &mut Call<'_>) -> HookResult {
    if let Some(span) = span(call.py()) {
        note(&span, true);
    }
    call.proceed();
    Ok(())
}

/// A cache is asked, and what it does not have is sent.
pub fn looked_up(call: &mut Call<'_>) -> HookResult {
    call.proceed();
    if let Some(span) = span(call.py()) {
        note(&span, call.result().is_none_or(|found| found.is_none()));
    }
    Ok(())
}
