//! The requests of one exporter that are not yet accepted.
//!
//! Bounded by bytes, of which only what is in flight may exceed. There is no cap on attempts: a request stays until
//! it is accepted, refused for good, or the oldest one when room is needed. While attempts fail, one at a time is
//! made, with exponential backoff and jitter, or when the receiver says.
//!
//! A spool on disk would take what [`Outbox::drop_oldest`] gives up.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::request::Request;

/// The first delay after a failure.
const FIRST_DELAY: Duration = Duration::from_millis(500);
/// The longest delay.
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// No receiver makes us wait longer than this.
const LONGEST_ASKED: Duration = Duration::from_secs(300);
/// Requests in flight while the receiver accepts them.
const IN_FLIGHT: usize = 4;

/// A request and its history.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Numbered in the order of encoding.
    pub number: u64,
    /// The request.
    pub request: Arc<Request>,
    due: Option<Instant>,
    attempts: u32,
}

/// The requests of one exporter.
#[derive(Debug, Default)]
pub struct Outbox {
    fresh: VecDeque<Entry>,
    failed: VecDeque<Entry>,
    flying: Vec<Entry>,
    bytes: usize,
    failures: u32,
    not_before: Option<Instant>,
    random: u64,
}

impl Outbox {
    /// Adds a request that was never tried.
    pub fn push(&mut self, number: u64, request: Request) {
        self.bytes += request.body.len();
        self.fresh.push_back(Entry { number, request: Arc::new(request), due: None, attempts: 0 });
    }

    /// The next request to send now, which is then in flight.
    pub fn next(&mut self, now: Instant) -> Option<Entry> {
        let limit = if self.failures == 0 { IN_FLIGHT } else { 1 };
        if self.flying.len() >= limit || self.not_before.is_some_and(|at| at > now) {
            return None;
        }
        let due = self.failed.front().is_some_and(|entry| entry.due.is_none_or(|at| at <= now));
        // A request that fails again and again must not stand in the way of the others: while attempts fail, fresh
        // ones go first; while they succeed, one of the failed ones goes along.
        let turn = self.failures == 0 && self.flying.iter().all(|entry| entry.attempts == 0);
        let entry = if due && (turn || self.fresh.is_empty()) {
            self.failed.pop_front()?
        } else {
            self.fresh.pop_front()?
        };
        self.flying.push(entry.clone());
        Some(entry)
    }

    /// When [`Self::next`] has something, if it has nothing now and nothing is in flight.
    pub fn next_at(&self) -> Option<Instant> {
        let due = if self.fresh.is_empty() { self.failed.front()?.due } else { None };
        due.max(self.not_before)
    }

    fn land(&mut self, number: u64) -> Option<Entry> {
        let at = self.flying.iter().position(|entry| entry.number == number)?;
        Some(self.flying.swap_remove(at))
    }

    /// The request was accepted or refused for good: it leaves. `healthy`: the receiver works.
    pub fn done(&mut self, number: u64, healthy: bool) -> Option<Arc<Request>> {
        let entry = self.land(number)?;
        self.bytes -= entry.request.body.len();
        if healthy {
            self.failures = 0;
            self.not_before = None;
        }
        Some(entry.request)
    }

    /// The attempt failed; the request waits for another one.
    pub fn retry(&mut self, number: u64, now: Instant, asked: Option<Duration>) {
        let Some(mut entry) = self.land(number) else { return };
        // Of requests that were in flight together, one failure counts.
        if self.not_before.is_none_or(|at| at <= now) {
            self.failures = self.failures.saturating_add(1);
        }
        entry.attempts = entry.attempts.saturating_add(1);
        let asked = asked.map_or(Duration::ZERO, |asked| asked.min(LONGEST_ASKED));
        let gate = now + self.backoff(self.failures).max(asked);
        self.not_before = self.not_before.max(Some(gate));
        entry.due = Some(now + self.backoff(entry.attempts).max(asked));
        self.failed.push_back(entry);
    }

    /// Exponential, of which a random half is taken off: many processes that lost the same receiver spread out.
    fn backoff(&mut self, failures: u32) -> Duration {
        let full = FIRST_DELAY.saturating_mul(1 << failures.saturating_sub(1).min(8)).min(LONGEST_DELAY);
        if self.random == 0 {
            let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            self.random = seed.map_or(1, |d| d.as_nanos() as u64) ^ u64::from(std::process::id()) << 40 | 1;
        }
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        full.mul_f64(1.0 - (self.random >> 11) as f64 / (1u64 << 53) as f64 / 2.0)
    }

    /// Whatever was in flight waits again: its answer will not be seen.
    pub fn ground(&mut self) {
        for mut entry in self.flying.drain(..) {
            entry.due = None;
            self.fresh.push_front(entry);
        }
    }

    /// An attempt ended in a way that nobody foresaw: whatever was in flight waits the longest delay.
    pub fn rest(&mut self, now: Instant) {
        self.ground();
        self.failures = self.failures.max(1);
        self.not_before = Some(now + LONGEST_DELAY);
    }

    /// The next attempt may be made at once: somebody waits for it.
    pub fn hurry(&mut self) {
        self.not_before = None;
        self.failed.iter_mut().for_each(|entry| entry.due = None);
    }

    /// Gives up the oldest request that is not in flight.
    pub fn drop_oldest(&mut self) -> Option<Arc<Request>> {
        let fresh = self.fresh.front().map(|entry| entry.number);
        let failed = self.failed.front().map(|entry| entry.number);
        let queue = match (fresh, failed) {
            (Some(fresh), Some(failed)) if failed > fresh => &mut self.fresh,
            (Some(_), None) => &mut self.fresh,
            _ => &mut self.failed,
        };
        let entry = queue.pop_front()?;
        self.bytes -= entry.request.body.len();
        Some(entry.request)
    }

    /// Bytes of all bodies.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether everything was accepted or given up.
    pub fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.failed.is_empty() && self.flying.is_empty()
    }

    /// Whether a request is in flight.
    pub fn is_flying(&self) -> bool {
        !self.flying.is_empty()
    }

    /// Whether the last attempt failed.
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Whether a request numbered below `number` is still here.
    pub fn holds_before(&self, number: u64) -> bool {
        let mut all = self.flying.iter().chain(&self.fresh).chain(&self.failed);
        all.any(|entry| entry.number < number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(bytes: usize) -> Request {
        Request { body: vec![0; bytes].into(), spans: 1 }
    }

    #[test]
    fn a_failure_is_followed_by_growing_delays_up_to_the_longest() {
        let mut outbox = Outbox::default();
        outbox.push(1, request(10));
        let mut now = Instant::now();
        let mut delays = Vec::new();
        for _ in 0..12 {
            let entry = outbox.next(now).unwrap();
            outbox.retry(entry.number, now, None);
            assert!(outbox.next(now).is_none());
            let at = outbox.next_at().unwrap();
            delays.push(at - now);
            now = at;
        }
        assert!(delays[0] >= FIRST_DELAY / 2 && delays[0] <= FIRST_DELAY);
        assert!(delays[11] >= LONGEST_DELAY / 2 && delays[11] <= LONGEST_DELAY);
    }

    #[test]
    fn the_receivers_wish_is_honoured_up_to_five_minutes() {
        let mut outbox = Outbox::default();
        outbox.push(1, request(10));
        let now = Instant::now();
        outbox.next(now).unwrap();
        outbox.retry(1, now, Some(Duration::from_secs(60)));
        assert_eq!(outbox.next_at(), Some(now + Duration::from_secs(60)));
        outbox.hurry();
        outbox.next(now).unwrap();
        outbox.retry(1, now, Some(Duration::from_secs(86_400)));
        assert_eq!(outbox.next_at(), Some(now + LONGEST_ASKED));
    }

    #[test]
    fn one_request_at_a_time_while_failing_four_while_not() {
        let mut outbox = Outbox::default();
        (0..10).for_each(|n| outbox.push(n, request(10)));
        let now = Instant::now();
        assert_eq!(std::iter::from_fn(|| outbox.next(now)).count(), 4);
        (0..4).for_each(|n| outbox.retry(n, now, None));
        outbox.hurry();
        assert_eq!(std::iter::from_fn(|| outbox.next(now)).count(), 1);
        outbox.done(4, true);
        assert_eq!(std::iter::from_fn(|| outbox.next(now)).count(), 4);
    }

    #[test]
    fn the_oldest_goes_first_and_bytes_are_exact() {
        let mut outbox = Outbox::default();
        (0..3).for_each(|n| outbox.push(n, request(10)));
        let now = Instant::now();
        outbox.next(now).unwrap();
        outbox.retry(0, now, None);
        assert_eq!(outbox.bytes(), 30);
        assert!(outbox.holds_before(1));
        outbox.drop_oldest().unwrap();
        assert!(!outbox.holds_before(1));
        assert!(outbox.holds_before(2));
        outbox.drop_oldest().unwrap();
        outbox.drop_oldest().unwrap();
        assert!(outbox.drop_oldest().is_none());
        assert_eq!(outbox.bytes(), 0);
        assert!(outbox.is_empty());
    }

    #[test]
    fn what_was_in_flight_at_a_pause_is_sent_again() {
        let mut outbox = Outbox::default();
        outbox.push(7, request(10));
        let now = Instant::now();
        outbox.next(now).unwrap();
        outbox.ground();
        assert!(!outbox.is_flying());
        assert_eq!(outbox.next(now).map(|entry| entry.number), Some(7));
        assert_eq!(outbox.bytes(), 10);
    }
}
