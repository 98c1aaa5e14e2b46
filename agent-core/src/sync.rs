//! The atomics of [`crate::exchange`], which its model test replaces by loom's.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering, fence};
