//! The exporter thread's dealings with the operating system: its birth, its signals, its bell, its end.
#![expect(unsafe_code, reason = "libc calls: signal mask, futex, thread id")]

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The name in `/proc`, `top` and debuggers.
const NAME: &str = "remora-export";
/// Enough for TLS; touched only as far as it is used.
const STACK: usize = 512 * 1024;
/// Among the threads of this process alone.
const FUTEX_WAIT: libc::c_int = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
const FUTEX_WAKE: libc::c_int = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;

/// Starts a thread that no signal of the host is ever delivered to.
pub(crate) fn spawn(body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // A thread inherits the mask: blocked before it exists, so that there is no moment in which it is not.
    // SAFETY: both sets are written by the calls that get them before anything reads them.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    let thread = std::thread::Builder::new().name(NAME.into()).stack_size(STACK).spawn(body);
    // SAFETY: `before` was filled in by the call above.
    unsafe {
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut());
    }
    thread
}

/// The kernel's id of the calling thread.
pub(crate) fn id() -> i32 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}

/// Waits until the kernel no longer counts an ended thread: `pthread_join` returns a little before, and CPython 3.12
/// counts at `os.fork`.
pub(crate) fn wait_gone(id: i32, bound: Duration) -> bool {
    let path = format!("/proc/self/task/{id}");
    let until = Instant::now() + bound;
    while std::fs::metadata(&path).is_ok() {
        if Instant::now() >= until {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

/// What the exporter thread waits for. Rung by any thread and by signal handlers; no descriptor is in it, so it works
/// between tables of descriptors and whatever the application closes.
#[derive(Debug, Default)]
pub(crate) struct Bell(AtomicU32);

impl Bell {
    /// Wakes who waits. Async-signal-safe; `errno` is left as it was.
    pub(crate) fn ring(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
        // SAFETY: the word lives as long as `self`; the thread's errno lives as long as the thread.
        unsafe {
            let errno = libc::__errno_location();
            let saved = *errno;
            libc::syscall(libc::SYS_futex, self.0.as_ptr(), FUTEX_WAKE, 1);
            *errno = saved;
        }
    }

    /// How often it has rung: to be asked before one looks whether there is something to do.
    pub(crate) fn rung(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }

    /// Waits until it has rung since it was `seen`, and no longer than `until`. May end early.
    pub(crate) fn wait(&self, seen: u32, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        let left = libc::timespec {
            tv_sec: libc::time_t::try_from(left.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        // SAFETY: the word and the time live until the call returns.
        unsafe { libc::syscall(libc::SYS_futex, self.0.as_ptr(), FUTEX_WAIT, seen, &raw const left) };
    }
}
