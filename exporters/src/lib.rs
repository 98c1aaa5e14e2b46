//! Delivers remora's finished spans: OTLP over HTTP and gRPC, console, file.
//!
//! One thread with one current-thread runtime per process and fork generation does everything here; it never
//! attaches to Python. A [`Batch`](batch::Batch) of chunks becomes a [`Request`](request::Request) by our own
//! writer, waits in an [`Outbox`](retry::Outbox) until the receiver took it, and is counted:
//! `made = sent + lost[reason] + pending` always holds.
//!
//! The embedder calls [`global::init`] once, hands [`global::queue_source`] to
//! [`agent_core::local::set_queue_source`], and drives the rest through [`global`].
#![deny(unsafe_code)]

pub mod batch;
pub mod compress;
pub mod config;
mod descriptors;
pub mod encode;
pub mod global;
pub mod output;
pub mod pipeline;
pub mod probe;
pub mod request;
pub mod retry;
mod sink;
pub mod status;
mod thread;
mod transport;
mod worker;

pub use config::{
    Compression, Exporter, ExporterConfig, Level, Otlp, Protocol, Proxy, Resource, ResourceValue,
};
pub use pipeline::Pipeline;
pub use probe::ProbeResult;
pub use status::Status;

/// The schema that attribute names follow.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";
