//! How the export goes, for `status()` and `doctor`.

use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use agent_core::queue::{Counters, Loss};

/// Whether spans get away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Nothing was sent yet.
    #[default]
    Idle = 0,
    /// The last attempt succeeded.
    Ok = 1,
    /// The last attempt failed; spans are kept.
    Failing = 2,
    /// The receiver refuses what we send.
    Refusing = 3,
    /// The process is ending; nothing more is sent.
    Closed = 4,
}

impl State {
    /// The value of `status()["export"]["state"]`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Ok => "ok",
            Self::Failing => "failing",
            Self::Refusing => "refusing",
            Self::Closed => "closed",
        }
    }

    fn from_u8(value: u8) -> Self {
        [Self::Idle, Self::Ok, Self::Failing, Self::Refusing, Self::Closed]
            .into_iter()
            .find(|state| *state as u8 == value)
            .unwrap_or_default()
    }
}

/// A snapshot.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Spans by fate.
    pub counters: Counters,
    /// Bytes of chunks in the queue.
    pub queue_bytes: usize,
    /// The bound of these.
    pub queue_max_bytes: usize,
    /// Bytes of encoded requests that wait or are in flight.
    pub retry_bytes: usize,
    /// Attempts that ended.
    pub requests: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// The last failure, without anything that a receiver said.
    pub last_error: Option<String>,
    /// How the primary exporter does.
    pub state: State,
    /// Whether the exporter thread runs.
    pub running: bool,
}

/// What the exporter thread tells everybody.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) requests: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) retry_bytes: AtomicUsize,
    state: AtomicU8,
    last_error: Mutex<Option<String>>,
}

impl Shared {
    pub(crate) fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    pub(crate) fn state(&self) -> State {
        State::from_u8(self.state.load(Ordering::Relaxed))
    }

    pub(crate) fn set_error(&self, error: String) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    pub(crate) fn error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `34 spans lost (queue_full=30, rejected=4), 9,966 sent`, or nothing if nothing is lost.
pub fn loss_line(counters: &Counters) -> Option<String> {
    let total: u64 = counters.lost.iter().sum();
    let reasons: Vec<String> = Loss::ALL
        .iter()
        .zip(counters.lost)
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| format!("{}={count}", reason.name()))
        .collect();
    let plural = if total == 1 { "span" } else { "spans" };
    (total > 0).then(|| {
        format!(
            "{} {plural} lost ({}), {} sent",
            thousands(total),
            reasons.join(", "),
            thousands(counters.sent)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_line_names_every_reason() {
        let mut counters = Counters { made: 10_000, sent: 9_966, ..Counters::default() };
        assert_eq!(loss_line(&counters), None);
        counters.lost[Loss::QueueFull as usize] = 30;
        counters.lost[Loss::Rejected as usize] = 4;
        let line = loss_line(&counters).unwrap();
        assert_eq!(line, "34 spans lost (queue_full=30, rejected=4), 9,966 sent");
    }
}
