//! What is left of a thread's stack, before CPython 3.14, which looks after it itself.
//!
//! Python functions that call each other need no stack, and CPython 3.11 bounds their depth by `sys.setrecursionlimit`
//! alone; 3.12 and 3.13 count calls through C, as if every thread had a large stack. With a wrapper between them each
//! level needs some: what the application may do without us must end in a `RecursionError` with us, not in a fault of
//! memory.

use std::cell::Cell;
use std::mem::MaybeUninit;

use pyo3::ffi;

/// The lowest part of a stack: nothing is called from there. Start and length.
type Reserve = (usize, usize);

/// Holds every address.
const UNKNOWN: Reserve = (0, usize::MAX);
/// Holds none.
const UNBOUNDED: Reserve = (0, 0);
const MOST: usize = 256 * 1024;

thread_local! {
    static RESERVE: Cell<Reserve> = const { Cell::new(UNKNOWN) };
}

/// Whether there is stack for a call; if not, a `RecursionError` is set. An address on another stack than the thread's
/// own (of a coroutine in C) says nothing.
///
/// # Safety
/// The GIL is held.
#[inline]
pub unsafe fn has_stack() -> bool {
    let here = 0u8;
    let here = (&raw const here) as usize;
    // SAFETY: by this function's contract.
    !is_in(RESERVE.get(), here) || unsafe { has_after_all(here) }
}

#[inline]
fn is_in((start, length): Reserve, address: usize) -> bool {
    address.wrapping_sub(start) < length
}

/// # Safety
/// The GIL is held.
#[cold]
unsafe fn has_after_all(here: usize) -> bool {
    // Also where it is known: the main thread's limit may have been raised since.
    let reserve = if is_main_thread() { of_main_thread() } else { of_other_thread() };
    RESERVE.set(reserve);
    let is_short = is_in(reserve, here);
    if is_short {
        let text = c"maximum recursion depth exceeded while calling a Python object";
        // SAFETY: by this function's contract.
        unsafe { ffi::PyErr_SetString(ffi::PyExc_RecursionError, text.as_ptr()) };
    }
    !is_short
}

fn reserve(start: usize, size: usize) -> Reserve {
    (start, (size / 8).min(MOST))
}

fn is_main_thread() -> bool {
    // SAFETY: no preconditions.
    unsafe { libc::syscall(libc::SYS_gettid) == libc::c_long::from(libc::getpid()) }
}

/// It grows down to its limit from where the kernel has put the program's name.
fn of_main_thread() -> Reserve {
    let mut limit = MaybeUninit::<libc::rlimit>::uninit();
    // SAFETY: `limit` may be written to, and is where the call succeeds.
    let (top, limit) = unsafe {
        let top = libc::getauxval(libc::AT_EXECFN) as usize;
        if top == 0 || libc::getrlimit(libc::RLIMIT_STACK, limit.as_mut_ptr()) != 0 {
            return UNBOUNDED;
        }
        (top, limit.assume_init().rlim_cur)
    };
    match usize::try_from(limit) {
        Ok(size) if limit != libc::RLIM_INFINITY && size < top => reserve(top - size, size),
        _ => UNBOUNDED,
    }
}

fn of_other_thread() -> Reserve {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let (mut start, mut size, mut guard) = (std::ptr::null_mut(), 0, 0);
    // SAFETY: the calling thread; what is written to may be, is initialised where the first call succeeds, and is then
    // destroyed once.
    unsafe {
        if libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) != 0 {
            return UNBOUNDED;
        }
        let attributes = attributes.as_mut_ptr();
        let known = libc::pthread_attr_getstack(attributes, &raw mut start, &raw mut size) == 0
            && libc::pthread_attr_getguardsize(attributes, &raw mut guard) == 0;
        libc::pthread_attr_destroy(attributes);
        if known { reserve(start as usize + guard, size) } else { UNBOUNDED }
    }
}
