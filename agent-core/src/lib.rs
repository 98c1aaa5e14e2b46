//! The core of remora: everything about a span that needs neither Python nor I/O.
//!
//! A span's life: [`span::ActiveSpan`] while the call runs, [`span::FinishedSpan`] in a thread's
//! [`span::Chunk`], then through [`queue::Queue`] to the `exporters` crate.
#![deny(unsafe_code)]

pub mod clock;
pub mod context;
mod exchange;
pub mod fragment;
pub mod generation;
pub mod id;
pub mod keys;
pub mod limits;
pub mod local;
pub mod propagation;
pub mod queue;
pub mod record;
pub mod redact;
pub mod resource;
pub mod sampling;
pub mod semconv;
pub mod settings;
mod shared;
pub mod span;
pub mod sql;
mod sync;
pub mod tracer;
pub mod wire;

pub use keys::Key;

/// The version of the agent.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
