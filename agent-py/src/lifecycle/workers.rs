//! Workers of task queues end by `os._exit`, past `atexit` and every finalizer: what they did last is sent before.

use pyo3::prelude::*;
use pyo3::types::{PyAny, PyCFunction};

use super::exit;
use crate::breaker::Breaker;
use crate::diagnostics;
use crate::ffi::{intern, quiet};
use crate::hook;
use crate::objects::attribute;
use crate::patch::Site;
use crate::wrapper::{self, Call, CallHook, HookResult};

static BREAKER: Breaker = Breaker::new("workers");

/// Module, method, what happens around it.
const ENDS: [(&str, &str, CallHook); 2] = [
    // Celery's pool of processes: a worker ends so also after `max_tasks_per_child`.
    ("billiard.pool", "Worker._do_exit", pool_worker_ends),
    // A process for each job.
    ("rq.worker", "Worker.perform_job", job_is_over),
];

/// Waits for these libraries. Nothing is imported.
pub fn register(py: Python<'_>) -> PyResult<()> {
    for (module, method, hook) in ENDS {
        let imported = PyCFunction::new_closure(py, None, None, move |args, _| -> PyResult<()> {
            watch(&args.get_item(0)?, method, hook);
            Ok(())
        })?;
        hook::register(py, module, imported.into_any())?;
    }
    Ok(())
}

fn watch(module: &Bound<'_, PyAny>, method: &str, hook: CallHook) {
    let site = Site::replace(module, method, &|original| wrapper::wrap(original, Some(hook), None, &BREAKER));
    if let Err(error) = site {
        diagnostics::debug(&format!("{method} is not watched: {error}"));
    }
}

/// The first thing that it does is to call the application's handler (`worker_process_shutdown` of Celery), the last is
/// to leave: in between is our turn.
fn pool_worker_ends(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    let name = intern!(py, "on_exit");
    let worker = call.arg(0).map(|worker| worker.to_owned());
    match worker.as_ref().and_then(|worker| Some((worker, attribute(worker, name)?))) {
        Some((worker, handler)) => {
            let handler = wrapper::wrap(&handler, Some(then_flush), None, &BREAKER)?;
            quiet(py, worker.setattr(name, handler));
        }
        None => exit::deliver(py),
    }
    call.proceed();
    Ok(())
}

fn then_flush(call: &mut Call<'_>) -> HookResult {
    call.proceed();
    exit::deliver(call.py());
    Ok(())
}

/// A worker that runs its jobs itself lives on.
fn job_is_over(call: &mut Call<'_>) -> HookResult {
    call.proceed();
    let py = call.py();
    let ends = call.arg(0).and_then(|worker| attribute(&worker, intern!(py, "_is_horse")));
    if ends.is_some_and(|ends| quiet(py, ends.is_truthy()) == Some(true)) {
        exit::deliver(py);
    }
    Ok(())
}
