//! The public Python API: spans, patches and import callbacks of the application's own.

mod attributes;
pub mod config;
pub mod ids;
pub mod imports;
mod names;
pub mod patch;
pub mod span;
pub mod traced;

use agent_core::Key;

/// The scope of the application's own spans.
static SCOPE: Key = Key::new("remora");
