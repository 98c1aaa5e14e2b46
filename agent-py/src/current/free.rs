//! Span objects kept for reuse. Only the holder of the GIL touches the list.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use super::span::SpanObject;

static HEAD: AtomicPtr<SpanObject> = AtomicPtr::new(ptr::null_mut());
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// As many as asyncio's cancelled timers may hold at once, through the contexts that they were made in.
const MOST: usize = 256;

#[inline]
pub fn pop() -> *mut SpanObject {
    let head = HEAD.load(Ordering::Relaxed);
    if !head.is_null() {
        // SAFETY: a kept object is owned by the list alone; the GIL serialises us.
        HEAD.store(unsafe { (*head).next }, Ordering::Relaxed);
        COUNT.store(COUNT.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
    }
    head
}

#[inline]
pub fn push(object: *mut SpanObject) -> bool {
    let count = COUNT.load(Ordering::Relaxed);
    if count >= MOST {
        return false;
    }
    // SAFETY: the object's last reference is gone: it is ours; the GIL serialises us.
    unsafe { (*object).next = HEAD.load(Ordering::Relaxed) };
    HEAD.store(object, Ordering::Relaxed);
    COUNT.store(count + 1, Ordering::Relaxed);
    true
}
