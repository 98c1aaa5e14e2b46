//! Fork: the child begins a new generation; before `os.fork` our thread stops where it is the only other one.
//!
//! CPython 3.12 and later warn at `os.fork` when the process has another thread, and under `-W error` that warning is
//! raised after the child exists.

use std::sync::Once;
use std::time::Duration;

use crate::wrapper::{Call, HookResult};

/// How long the exporter may take to stop; what is in flight goes back to its queue.
#[cfg(Py_3_12)]
const STOP: Duration = Duration::from_millis(50);
#[cfg(not(Py_3_12))]
const STOP: Duration = Duration::ZERO;

extern "C" fn in_child() {
    agent_core::generation::bump();
}

/// Registers the child's handler with the C library, so that forks that Python does not see count too.
pub fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: `in_child` is async-signal-safe (one atomic add) and this library is never unloaded.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
}

/// Around `os.fork` and `os.forkpty`.
pub fn hook(call: &mut Call<'_>) -> HookResult {
    let stopped = !STOP.is_zero()
        && exporters::global::status().running
        && threads() == Some(2)
        && call.py().detach(|| exporters::global::pause_for_fork(STOP));
    call.proceed();
    if stopped {
        // In the child this finds nothing to resume.
        exporters::global::resume_after_fork();
    }
    Ok(())
}

fn threads() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/task").ok()?.count())
}
