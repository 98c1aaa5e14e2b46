//! The settings that every span asks: sampler and limits, read through one pointer.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::Limits;
use crate::sampling::Sampler;

/// Sampler and limits of this process. Chosen once, before the first span.
#[derive(Debug, Default)]
pub struct Tracer {
    /// Decides at the start of a span, before anything is read.
    pub sampler: Sampler,
    /// The limits of what a span may hold.
    pub limits: Limits,
}

static TRACER: OnceLock<Tracer> = OnceLock::new();
// A span of the application's own may start before the agent is activated from code: it must not decide for good.
static BEFORE: Tracer = Tracer { sampler: Sampler::DEFAULT, limits: Limits::DEFAULT };

/// Sets the tracer; the first call wins.
pub fn install(tracer: Tracer) -> bool {
    TRACER.set(tracer).is_ok()
}

/// The tracer in force; the specification's defaults before [`install`].
#[inline]
pub fn current() -> &'static Tracer {
    TRACER.get().unwrap_or(&BEFORE)
}

static SAMPLED_OUT: AtomicU64 = AtomicU64::new(0);

/// Counts a trace that the sampler left out where it began, or entered, this process.
#[inline]
pub fn count_sampled_out() {
    SAMPLED_OUT.fetch_add(1, Ordering::Relaxed);
}

/// Traces left out by the sampler, this process's forks included.
pub fn sampled_out() -> u64 {
    SAMPLED_OUT.load(Ordering::Relaxed)
}
