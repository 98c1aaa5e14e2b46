//! SIGTERM: where its disposition is the default, what is pending is flushed before the process dies of it.
//!
//! A native `sigaction`: `signal.getsignal` keeps answering `SIG_DFL`, nothing is imported, and an application that
//! sets a handler of its own simply replaces ours.

use std::mem::zeroed;
use std::ptr;

use pyo3::intern;
use pyo3::prelude::*;

extern "C" fn on_sigterm(_signal: libc::c_int) {
    if !exporters::global::sigterm_flush_request() {
        die();
    }
}

/// Installs the handler if SIGTERM is at its default.
///
/// `_signal` looks at the dispositions when it is loaded, which a usual interpreter does before `site`. Where it is not
/// loaded, the host handles signals itself, and `signal.getsignal` would see ours: nothing is installed.
pub fn register(py: Python<'_>) -> PyResult<()> {
    let modules = PyModule::import(py, intern!(py, "sys"))?.getattr(intern!(py, "modules"))?;
    if modules.contains(intern!(py, "_signal"))? {
        install();
    }
    Ok(())
}

fn install() {
    // SAFETY: `sigaction` with valid structures; the handler only touches atomics and async-signal-safe calls, and
    // this library is never unloaded.
    unsafe {
        let mut now: libc::sigaction = zeroed();
        if libc::sigaction(libc::SIGTERM, ptr::null(), &raw mut now) != 0 || now.sa_sigaction != libc::SIG_DFL
        {
            return;
        }
        let mut ours: libc::sigaction = zeroed();
        ours.sa_sigaction = on_sigterm as extern "C" fn(libc::c_int) as libc::sighandler_t;
        // An alternative stack is used only by a thread that has one: its own may be too small.
        ours.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
        libc::sigemptyset(&raw mut ours.sa_mask);
        libc::sigaction(libc::SIGTERM, &raw const ours, ptr::null_mut());
    }
}

/// Dies of SIGTERM as the process would have without us. Async-signal-safe; called from any thread.
pub fn die() {
    // SAFETY: async-signal-safe calls with valid arguments. The signal is unblocked here, since the handler's own
    // thread has it blocked and the exporter's has all of them.
    unsafe {
        let mut default: libc::sigaction = zeroed();
        default.sa_sigaction = libc::SIG_DFL;
        libc::sigaction(libc::SIGTERM, &raw const default, ptr::null_mut());
        libc::kill(libc::getpid(), libc::SIGTERM);
        let mut only: libc::sigset_t = zeroed();
        libc::sigemptyset(&raw mut only);
        libc::sigaddset(&raw mut only, libc::SIGTERM);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const only, ptr::null_mut());
    }
}
