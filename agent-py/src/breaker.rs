//! The circuit breaker: a hook that keeps failing takes itself out.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::diagnostics;

/// The faults of one instrumentation. Lives as long as the process.
#[derive(Debug)]
pub struct Breaker {
    name: &'static str,
    faults: AtomicU64,
    window_start: AtomicU64,
    in_window: AtomicU32,
    open: AtomicBool,
}

static LIMIT: AtomicU32 = AtomicU32::new(5);
static WINDOW_SECONDS: AtomicU64 = AtomicU64::new(60);

/// Sets how many faults within how many seconds take a hook out (`REMORA_BREAKER_FAULTS`, `REMORA_BREAKER_SECONDS`).
pub fn configure(faults: u32, seconds: u64) {
    LIMIT.store(faults.max(1), Ordering::Relaxed);
    WINDOW_SECONDS.store(seconds.max(1), Ordering::Relaxed);
}

impl Breaker {
    /// A closed breaker, to be kept in a `static`.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            faults: AtomicU64::new(0),
            window_start: AtomicU64::new(0),
            in_window: AtomicU32::new(0),
            open: AtomicBool::new(false),
        }
    }

    /// Whether the hook is out: calls go straight to the original.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// Faults since the start.
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// Counts a fault; the first is reported, the last one too.
    #[cold]
    pub fn fault(&self, what: &str) {
        let before = self.faults.fetch_add(1, Ordering::Relaxed);
        if before == 0 {
            diagnostics::warn(&format!(
                "a hook of '{}' failed: {what}; the application is not affected",
                self.name
            ));
        } else {
            diagnostics::debug(&format!("a hook of '{}' failed: {what}", self.name));
        }
        let now = diagnostics::uptime_seconds();
        let window = WINDOW_SECONDS.load(Ordering::Relaxed);
        let start = self.window_start.load(Ordering::Relaxed);
        if before == 0 || now.saturating_sub(start) >= window {
            self.window_start.store(now, Ordering::Relaxed);
            self.in_window.store(0, Ordering::Relaxed);
        }
        let count = self.in_window.fetch_add(1, Ordering::Relaxed) + 1;
        if count >= LIMIT.load(Ordering::Relaxed) && !self.open.swap(true, Ordering::Relaxed) {
            diagnostics::warn(&format!(
                "instrumentation '{}' failed {count} times within {window} s and is switched off",
                self.name
            ));
        }
    }
}
