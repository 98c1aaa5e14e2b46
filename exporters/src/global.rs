//! The pipeline of this process: built by the first finished span of a fork generation, by compare-and-swap.
#![expect(unsafe_code, reason = "the pipeline is leaked behind an atomic pointer")]

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use agent_core::generation;
use agent_core::queue::Queue;

use crate::config::ExporterConfig;
use crate::pipeline::Pipeline;
use crate::probe::{self, ProbeResult};
use crate::status::{State, Status};

static CONFIG: OnceLock<Arc<ExporterConfig>> = OnceLock::new();
static CURRENT: AtomicPtr<Pipeline> = AtomicPtr::new(ptr::null_mut());

/// Sets the configuration; the first call wins.
pub fn init(config: ExporterConfig) -> bool {
    CONFIG.set(Arc::new(config)).is_ok()
}

/// The pipeline of the present generation, if a span has finished in it. Async-signal-safe.
pub fn current() -> Option<&'static Pipeline> {
    // SAFETY: null, or a leaked pipeline, published with release by `build`.
    let pipeline = unsafe { CURRENT.load(Ordering::Acquire).as_ref() }?;
    (pipeline.generation() == generation::current()).then_some(pipeline)
}

#[cold]
fn build() -> Option<&'static Pipeline> {
    let config = CONFIG.get().filter(|config| !config.exporters.is_empty())?;
    let before = CURRENT.load(Ordering::Acquire);
    if let Some(pipeline) = current() {
        return Some(pipeline);
    }
    let new = Pipeline::leak(config.clone(), generation::current());
    // Whoever loses leaks an empty queue, once per generation at most.
    let _ =
        CURRENT.compare_exchange(before, ptr::from_ref(new).cast_mut(), Ordering::AcqRel, Ordering::Acquire);
    current()
}

/// For [`agent_core::local::set_queue_source`]: the queue of this generation, its exporter started.
pub fn queue_source() -> Option<&'static Queue> {
    let pipeline = current().or_else(build)?;
    pipeline.start();
    Some(pipeline.queue())
}

/// See [`Pipeline::flush`]. True where nothing was ever made.
pub fn flush(timeout: Duration) -> bool {
    current().is_none_or(|pipeline| pipeline.flush(timeout))
}

/// See [`Pipeline::shutdown`].
pub fn shutdown() {
    if let Some(pipeline) = current() {
        pipeline.shutdown();
    }
}

/// See [`Pipeline::leave`]. Async-signal-safe but for its wait, unless [`shutdown`] came before.
pub fn leave() {
    if let Some(pipeline) = current() {
        pipeline.leave();
    }
}

/// See [`Pipeline::pause_for_fork`].
pub fn pause_for_fork(bound: Duration) -> bool {
    current().is_none_or(|pipeline| pipeline.pause_for_fork(bound))
}

/// See [`Pipeline::resume_after_fork`]. In the child it finds no pipeline and does nothing.
pub fn resume_after_fork() {
    if let Some(pipeline) = current() {
        pipeline.resume_after_fork();
    }
}

/// See [`Pipeline::request_sigterm_flush`]. Async-signal-safe. False: nothing will be flushed; die now.
pub fn sigterm_flush_request() -> bool {
    current().is_some_and(Pipeline::request_sigterm_flush)
}

/// How the export goes.
pub fn status() -> Status {
    current().map_or_else(
        || Status {
            queue_max_bytes: CONFIG.get().map_or(0, |config| config.queue_max_bytes),
            state: State::Idle,
            ..Status::default()
        },
        Pipeline::status,
    )
}

/// Sends an empty request by every configured exporter. Blocks the calling thread; uses a runtime of its own.
pub fn probe(timeout: Duration) -> Vec<ProbeResult> {
    CONFIG.get().map(|config| probe::probe(config, timeout)).unwrap_or_default()
}
