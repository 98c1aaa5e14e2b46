//! Fork: the child begins a new generation; before `os.fork` our thread stops where it is the only other one.
//!
//! CPython 3.12 and later warn at `os.fork` when the process has another thread, and under `-W error` that warning is
//! raised after the child exists. Where the application has threads of its own, it is warned as without us.

use std::sync::Once;
use std::time::{Duration, Instant};

use crate::wrapper::{Call, HookResult};

/// How long our thread may take to stop. It waits for nothing and needs microseconds, but has to be given a CPU.
#[cfg(Py_3_12)]
const STOP: Duration = Duration::from_millis(500);
#[cfg(not(Py_3_12))]
const STOP: Duration = Duration::ZERO;
/// How long a look-up of a name, which cannot be stopped, is waited for.
const LOOK_UP: Duration = Duration::from_millis(50);

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
    let alone_but_for_us = !STOP.is_zero() && exporters::global::status().running && only_ours();
    if alone_but_for_us {
        call.py().detach(|| exporters::global::pause_for_fork(STOP) && alone_by(Instant::now() + LOOK_UP));
    }
    call.proceed();
    if alone_but_for_us {
        // Also where the thread did not stop in time: it is not to wait for a fork that is over. In the child this finds
        // nothing to resume.
        exporters::global::resume_after_fork();
    }
    Ok(())
}

/// The threads of this process. `None` where `/proc` is not mounted.
fn threads() -> Option<impl Iterator<Item = std::fs::DirEntry>> {
    Some(std::fs::read_dir("/proc/self/task").ok()?.flatten())
}

/// Whether all threads but the calling one are the exporter, which runs, and those that look up names for it.
fn only_ours() -> bool {
    let Some(threads) = threads() else { return false };
    // The exporter is counted, not asked for its name: a thread is given it only some time after it has begun.
    let looks_up = |thread: &std::fs::DirEntry| {
        std::fs::read(thread.path().join("comm")).is_ok_and(|name| name.starts_with(b"remora-dns"))
    };
    threads.filter(|thread| !looks_up(thread)).take(3).count() == 2
}

/// Waits until no other thread is left: one that hangs in a look-up may still be.
fn alone_by(until: Instant) -> bool {
    while threads().is_some_and(|threads| threads.take(2).count() > 1) && Instant::now() < until {
        std::thread::yield_now();
    }
    true
}
