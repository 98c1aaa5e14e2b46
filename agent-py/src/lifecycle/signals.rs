//! SIGTERM: where its disposition is the default, what is pending is flushed before the process dies of it.
//!
//! A native `sigaction`: `signal.getsignal` keeps answering `SIG_DFL`, nothing is imported, and an application that
//! sets a handler of its own simply replaces ours. Where it puts the default back, as uvicorn does before it dies of
//! the signal that it has caught, ours takes that place again.
//!
//! The bound does not depend on the exporter: a timer of the kernel sends the signal again where it hangs.

use std::mem::zeroed;
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use agent_core::generation;
use pyo3::prelude::*;
use pyo3::types::PyInt;

use crate::breaker::Breaker;
use crate::ffi::quiet;
use crate::patch::Site;
use crate::wrapper::{self, Call, CallHook, HookResult};
use crate::{diagnostics, hook};

static BREAKER: Breaker = Breaker::new("signal");
/// How long the exporter has for the flush, in milliseconds.
static PATIENCE: AtomicU64 = AtomicU64::new(0);
/// The fork generation in which the timer runs: a child does not inherit it.
static ARMED: AtomicU32 = AtomicU32::new(0);
/// Beyond the bound of an exit, which the exporter keeps: this one is for an exporter that hangs.
const MARGIN: Duration = Duration::from_secs(1);
const EXIT: Duration = Duration::from_secs(2);
/// How a signal of a timer is marked; libc names it for some systems only.
const SI_TIMER: libc::c_int = -2;
const STEP: Duration = Duration::from_millis(5);

extern "C" fn on_sigterm(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel's own description of the signal, as SA_SIGINFO promises.
    let code = if info.is_null() { libc::SI_USER } else { unsafe { (*info).si_code } };
    if code == SI_TIMER && ARMED.load(Ordering::Relaxed) == generation::current() {
        return die();
    }
    if !exporters::global::sigterm_flush_request() {
        return die();
    }
    if code == libc::SI_TKILL {
        await_death();
    }
    arm();
}

/// Sends the process SIGTERM once more when the time is up. By system calls alone: the C library's `timer_create` is
/// not async-signal-safe.
fn arm() {
    let now = generation::current();
    if ARMED.swap(now, Ordering::Relaxed) == now {
        return;
    }
    let millis = PATIENCE.load(Ordering::Relaxed);
    // SAFETY: plain structures, for which zero is a value, outlive the calls that read them; `timer` is written by the
    // first call before the second one reads it. The thread's errno lives as long as the thread.
    unsafe {
        let errno = libc::__errno_location();
        let saved = *errno;
        let mut event: libc::sigevent = zeroed();
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = libc::SIGTERM;
        let mut timer: libc::c_int = 0;
        let id = &raw mut timer;
        if libc::syscall(libc::SYS_timer_create, libc::CLOCK_MONOTONIC, &raw const event, id) == 0 {
            let mut at: libc::itimerspec = zeroed();
            at.it_value.tv_sec = (millis / 1000) as libc::time_t;
            at.it_value.tv_nsec = (millis % 1000 * 1_000_000) as libc::c_long;
            libc::syscall(
                libc::SYS_timer_settime,
                timer,
                0,
                &raw const at,
                ptr::null_mut::<libc::itimerspec>(),
            );
        }
        *errno = saved;
    }
}

/// Who raises the signal does not go on after it: no line of the application runs that would not have run without us.
/// A thread that does so is in a system call, with no lock of the allocator's that the flush could need.
/// Async-signal-safe.
fn await_death() {
    let step = libc::timespec { tv_sec: 0, tv_nsec: STEP.as_nanos() as libc::c_long };
    for _ in 0..PATIENCE.load(Ordering::Relaxed) / STEP.as_millis() as u64 {
        // SAFETY: a valid duration; what is left of it is not asked for.
        unsafe { libc::nanosleep(&raw const step, ptr::null_mut()) };
    }
    die();
}

/// Installs the handler if SIGTERM is at its default, and sees to it that it comes back with the default.
///
/// `_signal` looks at the dispositions when it is loaded, which a usual interpreter does before `site`. Where it is not
/// loaded, the host handles signals itself, and `signal.getsignal` would see ours: nothing is installed.
pub fn register(py: Python<'_>, exit_timeout: Option<Duration>) -> PyResult<()> {
    let patience = exit_timeout.unwrap_or(EXIT) + MARGIN;
    PATIENCE.store(u64::try_from(patience.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    let Some(module) = hook::imported(py, "_signal")? else { return Ok(()) };
    install();
    // `signal.signal` is a function around this one, whoever has imported it under whatever name.
    let site = Site::replace(&module, "signal", &|original| {
        wrapper::wrap(original, Some(on_signal as CallHook), None, &BREAKER)
    });
    if let Err(error) = site {
        diagnostics::debug(&format!("signal.signal is not watched: {error}"));
    }
    Ok(())
}

/// Around `_signal.signal`.
fn on_signal(call: &mut Call<'_>) -> HookResult {
    call.proceed();
    let py = call.py();
    let number = call.arg(0).and_then(|number| quiet(py, number.cast::<PyInt>().ok()?.extract::<i32>()));
    if call.result().is_some() && number == Some(libc::SIGTERM) {
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
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_sigterm;
        ours.sa_sigaction = handler as libc::sighandler_t;
        // An alternative stack is used only by a thread that has one: its own may be too small.
        ours.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK | libc::SA_SIGINFO;
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
