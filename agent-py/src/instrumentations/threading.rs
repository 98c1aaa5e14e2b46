//! Threads and thread pools: no spans, only the span in force travels to where the work runs.
//!
//! Only our variable travels: copying the whole context would give the application's variables to threads that it
//! never gave them to.

use std::collections::HashMap;
use std::sync::Mutex;

use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::breaker::Breaker;
use crate::current::{self, StoredSpan};
use crate::ffi::intern;
use crate::instrumentations::{Instrumentation, Target};
use crate::messaging;
use crate::objects::{self, Class};
use crate::wrapper::{self, Behaviour, Call, HookResult};

/// The library.
pub static LIBRARY: Instrumentation = Instrumentation {
    name: "threading",
    distribution: "",
    breaker: Breaker::new("threading"),
    targets: &[
        Target::call("threading", "Thread.start", start),
        Target::call("threading", "Thread._bootstrap_inner", bootstrap),
        Target::call("concurrent.futures.thread", "ThreadPoolExecutor.submit", submit),
        Target::call("multiprocessing.pool", "Pool.apply_async", pool_called),
        Target::call("multiprocessing.pool", "Pool._map_async", pool_called),
        Target::call("multiprocessing.pool", "Pool.imap", pool_called),
        Target::call("multiprocessing.pool", "Pool.imap_unordered", pool_called),
        // Each of its connections has a thread of its own, which lives longer than what starts it.
        Target::call("aiosqlite.core", "Connection._execute", hand_over).optional(),
    ],
};

/// Spans of threads that are starting, by the address of their `Thread`, which its starter keeps alive meanwhile.
// Never held across a call into Python. A span dropped under it runs no Python code.
static STARTING: Mutex<Option<HashMap<usize, StoredSpan>>> = Mutex::new(None);

/// `None` where a fork inherited the lock taken, or without the GIL for a moment: the thread then starts no trace of ours.
fn with_starting<R>(work: impl FnOnce(&mut HashMap<usize, StoredSpan>) -> R) -> Option<R> {
    Some(work(STARTING.try_lock().ok()?.get_or_insert_default()))
}

/// From 3.14 on a thread runs in a context of its own, which a caller may have given it.
fn context<'py>(call: &Call<'py>) -> Option<Bound<'py, PyAny>> {
    objects::attribute(&*call.arg(0)?, intern!(call.py(), "_context"))
}

fn start(call: &mut Call<'_>) -> HookResult {
    let thread = call.arg(0).map(|thread| thread.as_ptr() as usize);
    if let (Some(thread), Some(span)) = (thread, current::current(call.py()))
        && context(call).is_none()
    {
        with_starting(|starting| starting.insert(thread, span.store()));
        call.proceed();
        if call.error().is_some() {
            with_starting(|starting| starting.remove(&thread));
        }
    }
    Ok(())
}

fn bootstrap(call: &mut Call<'_>) -> HookResult {
    let thread = call.arg(0).map(|thread| thread.as_ptr() as usize);
    let span = thread.and_then(|thread| with_starting(|starting| starting.remove(&thread))).flatten();
    if let Some(span) = span {
        let span = span.get(call.py());
        // The thread's context ends with it: there is nothing to put back.
        match context(call) {
            Some(context) => current::set_in(&context, &span),
            None => current::set(call.py(), Some(&span)),
        }
    }
    Ok(())
}

/// A piece of work that runs under the span in force where it was submitted.
struct Work(Option<StoredSpan>);

impl Behaviour for Work {
    fn call(&self, call: &mut Call<'_>) -> HookResult {
        let py = call.py();
        let outside = current::current(py);
        let _entered = match &self.0 {
            Some(span) => span.get(py).enter(outside),
            None => current::hide(py, outside),
        };
        call.proceed();
        Ok(())
    }
}

/// Whether an executor's workers are other interpreters, which get their work pickled, by name: a wrapper of ours would
/// be another object than what they find there.
#[inline]
fn runs_elsewhere(executor: &Bound<'_, PyAny>) -> bool {
    static THREADS: Class = Class::new("concurrent.futures.thread", "ThreadPoolExecutor");
    cfg!(Py_3_14) && !THREADS.is_of(executor) && has_other_context(executor)
}

/// Whether an executor prepares its workers in a way of its own.
#[cold]
fn has_other_context(executor: &Bound<'_, PyAny>) -> bool {
    let py = executor.py();
    objects::attribute(executor.get_type().as_any(), intern!(py, "prepare_context"))
        .and_then(|prepare| objects::attribute(&prepare, intern!(py, "__module__")))
        .is_some_and(|module| !module.eq(intern!(py, "concurrent.futures.thread")).unwrap_or(false))
}

fn submit(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    let Some(span) = current::current(py) else {
        return if messaging::has_opened() { submit_apart(call) } else { Ok(()) };
    };
    let Some(function) = call.arg(1).map(|function| function.to_owned()) else { return Ok(()) };
    let is_elsewhere = call.arg(0).is_some_and(|executor| runs_elsewhere(&executor));
    let work = if is_elsewhere {
        None
    } else {
        let work = Work(Some(span.clone().store()));
        Some(wrapper::wrap(&function, None, Some(Box::new(work)), &LIBRARY.breaker)?)
    };
    // A worker thread that this call starts serves other work later: it inherits nothing.
    let _hidden = current::hide(py, Some(span));
    match work {
        Some(work) => call.proceed_replacing(1, intern!(py, "fn"), &work),
        None => call.proceed(),
    }
    Ok(())
}

/// Under no span: neither that of a message which an earlier piece of work has left in force in the worker's thread.
#[cold]
fn submit_apart(call: &mut Call<'_>) -> HookResult {
    let Some(function) = call.arg(1).map(|function| function.to_owned()) else { return Ok(()) };
    if call.arg(0).is_some_and(|executor| runs_elsewhere(&executor)) {
        return Ok(());
    }
    let work = wrapper::wrap(&function, None, Some(Box::new(Work(None))), &LIBRARY.breaker)?;
    call.proceed_replacing(1, intern!(call.py(), "fn"), &work);
    Ok(())
}

fn hand_over(call: &mut Call<'_>) -> HookResult {
    work_at(call, intern!(call.py(), "fn"))
}

/// A pool of threads: they have inherited what was in force where it was made, perhaps an earlier request. Of processes
/// it gets its work pickled.
fn pool_called(call: &mut Call<'_>) -> HookResult {
    static THREADS: Class = Class::new("multiprocessing.pool", "ThreadPool");
    if call.arg(0).is_some_and(|pool| THREADS.is_base_of(&pool)) {
        work_at(call, intern!(call.py(), "func"))?;
    }
    Ok(())
}

/// Has the call's first argument run under the span in force here, or none.
fn work_at<'py>(call: &mut Call<'py>, name: &Bound<'py, PyString>) -> HookResult {
    let py = call.py();
    let Some(function) = call.argument(1, name).map(|function| function.to_owned()) else { return Ok(()) };
    let span = current::current(py).map(current::Span::store);
    let work = wrapper::wrap(&function, None, Some(Box::new(Work(span))), &LIBRARY.breaker)?;
    call.proceed_replacing(1, name, &work);
    Ok(())
}
