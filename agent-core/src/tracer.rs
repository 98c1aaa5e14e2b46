//! The settings that every span asks: sampler and limits, read through one pointer.

use std::sync::OnceLock;

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

/// Sets the tracer; the first call wins.
pub fn install(tracer: Tracer) -> bool {
    TRACER.set(tracer).is_ok()
}

/// The tracer in force; the specification's defaults before [`install`].
#[inline]
pub fn current() -> &'static Tracer {
    TRACER.get_or_init(Tracer::default)
}
