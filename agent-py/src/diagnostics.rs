//! What the agent says of itself: lines on stderr, written natively.
//!
//! Never through `logging`: the application's handlers may call back into us.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use exporters::output;

/// How much is said; each level includes the ones before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Nothing.
    Off = 0,
    /// What stops the agent.
    Error = 1,
    /// What the operator should know.
    Warn = 2,
    /// Changes of state.
    Info = 3,
    /// What the agent does.
    Debug = 4,
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);
static START: OnceLock<Instant> = OnceLock::new();

/// Sets the level (`OTEL_LOG_LEVEL`).
pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Whether a line of this level would be written. Ask before formatting.
#[inline]
pub fn enabled(level: Level) -> bool {
    level as u8 <= LEVEL.load(Ordering::Relaxed)
}

/// Writes one line, or leaves it out where stderr does not take it at once: the application's thread waits for nobody.
pub fn say(level: Level, text: &str) {
    write(level, text, Duration::ZERO);
}

/// As [`say`], for the exporter thread, which can wait a little for a reader.
pub fn say_patiently(level: Level, text: &str) {
    write(level, text, output::PATIENCE);
}

fn write(level: Level, text: &str, patience: Duration) {
    if enabled(level) {
        // One write for the whole line: other threads' lines stay whole. A closed stderr is not our fault to report.
        let _ = output::stderr(format!("remora: {text}\n").as_bytes(), patience);
    }
}

/// A line for what the operator should know.
pub fn warn(text: &str) {
    say(Level::Warn, text);
}

/// A line of what the agent does.
pub fn debug(text: &str) {
    say(Level::Debug, text);
}

/// Seconds since the agent was loaded.
pub fn uptime_seconds() -> u64 {
    START.get_or_init(Instant::now).elapsed().as_secs()
}
