//! The exporter thread's dealings with the operating system: its birth, its signals, its end.
#![expect(unsafe_code, reason = "libc calls: signal mask, eventfd, thread id")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The name in `/proc`, `top` and debuggers.
const NAME: &str = "remora-export";
/// Enough for TLS; touched only as far as it is used.
const STACK: usize = 512 * 1024;

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

/// What a signal handler can write to.
pub(crate) fn event() -> io::Result<OwnedFd> {
    // SAFETY: takes plain numbers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Wakes whoever waits for `fd`. Async-signal-safe; `errno` is left as it was.
pub(crate) fn ring(fd: RawFd) {
    let one = 1u64.to_ne_bytes();
    // SAFETY: `one` is eight readable bytes; the thread's errno lives as long as the thread.
    unsafe {
        let errno = libc::__errno_location();
        let saved = *errno;
        libc::write(fd, one.as_ptr().cast(), one.len());
        *errno = saved;
    }
}

/// The descriptor, as the runtime waits for it.
pub(crate) struct SignalFd(AsyncFd<OwnedFd>);

impl SignalFd {
    /// Inside a runtime only.
    pub(crate) fn new(fd: &OwnedFd) -> io::Result<Self> {
        let own = fd.try_clone()?;
        // SAFETY: the descriptor is owned by what is registered, so it stays open and the same until deregistered.
        Ok(Self(unsafe { AsyncFd::register_with_interest(own, Interest::READABLE)? }))
    }

    /// Ends when somebody rang; never, where there is no descriptor.
    pub(crate) async fn readable(this: Option<&Self>) {
        let Some(Self(fd)) = this else { return std::future::pending().await };
        match fd.readable().await {
            Ok(mut guard) => {
                let mut count = [0u8; 8];
                // SAFETY: `count` is eight writable bytes.
                unsafe { libc::read(fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
                guard.clear_ready();
            }
            Err(_) => std::future::pending().await,
        }
    }
}
