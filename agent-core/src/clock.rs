//! The span clock: raw ticks on the hot path, wall time only when a batch is encoded.
//!
//! [`now`] costs one `rdtsc` where the processor's counter is invariant (11 ns on a virtual machine, where
//! `clock_gettime` is 33), else one monotonic clock read. Nothing is calibrated at start: the first [`Anchor`] is
//! taken at load, the second when the exporter first converts, and the rate follows from the two.
#![expect(unsafe_code, reason = "reading the time stamp counter is an intrinsic")]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A moment of the span clock. The unit is the counter's own; only a [`Timeline`] gives it a meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticks(pub u64);

static COUNTER: AtomicBool = AtomicBool::new(false);
static BASE: OnceLock<Instant> = OnceLock::new();

/// The span clock's present moment.
#[inline]
pub fn now() -> Ticks {
    #[cfg(target_arch = "x86_64")]
    if COUNTER.load(Ordering::Relaxed) {
        // SAFETY: `rdtsc` exists on every x86-64 processor and touches no memory.
        return Ticks(unsafe { core::arch::x86_64::_rdtsc() });
    }
    monotonic()
}

#[cold]
fn monotonic() -> Ticks {
    Ticks(BASE.get_or_init(Instant::now).elapsed().as_nanos() as u64)
}

/// Chooses the source, once, before the first span. A child of a fork keeps its parent's choice.
pub fn init() {
    COUNTER.store(invariant_counter(), Ordering::Relaxed);
    let _ = first_anchor();
}

/// Whether the processor's counter serves as the clock.
pub fn uses_counter() -> bool {
    COUNTER.load(Ordering::Relaxed)
}

#[cfg(target_arch = "x86_64")]
fn invariant_counter() -> bool {
    use core::arch::x86_64::__cpuid;
    // Advanced power management leaf, bit 8: the counter runs at one rate in all power states.
    __cpuid(0x8000_0000).eax >= 0x8000_0007 && __cpuid(0x8000_0007).edx & (1 << 8) != 0
}

#[cfg(not(target_arch = "x86_64"))]
fn invariant_counter() -> bool {
    false
}

/// One moment known in both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Anchor {
    /// The span clock.
    pub ticks: Ticks,
    /// Nanoseconds since the Unix epoch.
    pub unix_nanos: u64,
}

impl Anchor {
    /// Reads both clocks; of a few tries the one with the least time between the two reads is kept.
    pub fn take() -> Self {
        let mut best = Self::read();
        for _ in 0..3 {
            let next = Self::read();
            if next.0 < best.0 {
                best = next;
            }
        }
        best.1
    }

    fn read() -> (u64, Self) {
        let before = now().0;
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
        let after = now().0;
        let spread = after.wrapping_sub(before);
        (spread, Self { ticks: Ticks(before.wrapping_add(spread / 2)), unix_nanos: wall })
    }
}

/// The anchor taken at load: the origin of every timeline of this process and of its children.
pub fn first_anchor() -> Anchor {
    static FIRST: OnceLock<Anchor> = OnceLock::new();
    *FIRST.get_or_init(Anchor::take)
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    ticks: u64,
    nanos: u64,
    nanos_per_tick: f64,
}

/// Converts ticks to wall time. Owned by the exporter thread.
///
/// A piecewise linear, continuous function: what has been converted once is never converted differently later,
/// so a child span exported in a later batch cannot start before its parent.
#[derive(Debug)]
pub struct Timeline {
    segments: Vec<Segment>,
    last: Anchor,
}

/// Beyond this the wall clock was set, not slewed: follow it at once.
const STEP_NANOS: i64 = 100_000_000;
/// Over how long a small difference is smoothed out.
const SLEW_NANOS: f64 = 30e9;
const MAX_SEGMENTS: usize = 256;

impl Timeline {
    /// A timeline from `first` whose rate is measured against `second`.
    pub fn new(first: Anchor, second: Anchor) -> Self {
        let rate = Self::rate(first, second).unwrap_or(1.0);
        Self {
            segments: vec![Segment { ticks: first.ticks.0, nanos: first.unix_nanos, nanos_per_tick: rate }],
            last: second,
        }
    }

    fn rate(a: Anchor, b: Anchor) -> Option<f64> {
        let ticks = b.ticks.0.checked_sub(a.ticks.0).filter(|t| *t > 0)?;
        let nanos = b.unix_nanos.checked_sub(a.unix_nanos).filter(|n| *n > 0)?;
        Some(nanos as f64 / ticks as f64)
    }

    /// Closes the open segment at `now`; the next one runs at the rate last measured, bent towards the wall clock.
    pub fn reanchor(&mut self, now: Anchor) {
        let mapped = self.unix_nanos(now.ticks);
        let error = now.unix_nanos as i64 - mapped as i64;
        let open = self.segments.last().map_or(1.0, |s| s.nanos_per_tick);
        let measured =
            if error.abs() < STEP_NANOS { Self::rate(self.last, now).unwrap_or(open) } else { open };
        let segment = if error.abs() < STEP_NANOS {
            let nanos_per_tick = measured * (1.0 + error as f64 / SLEW_NANOS);
            Segment { ticks: now.ticks.0, nanos: mapped, nanos_per_tick }
        } else {
            Segment { ticks: now.ticks.0, nanos: now.unix_nanos, nanos_per_tick: measured }
        };
        if self.segments.len() == MAX_SEGMENTS {
            self.segments.remove(0);
        }
        self.segments.push(segment);
        self.last = now;
    }

    /// Nanoseconds since the Unix epoch.
    #[inline]
    pub fn unix_nanos(&self, at: Ticks) -> u64 {
        let segment = match self.segments.iter().rev().find(|s| s.ticks <= at.0) {
            Some(segment) => segment,
            None => &self.segments[0],
        };
        let delta = (at.0 as i64).wrapping_sub(segment.ticks as i64);
        segment.nanos.saturating_add_signed((delta as f64 * segment.nanos_per_tick) as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anchor(ticks: u64, unix_nanos: u64) -> Anchor {
        Anchor { ticks: Ticks(ticks), unix_nanos }
    }

    #[test]
    fn what_was_converted_once_is_never_converted_differently() {
        let mut line = Timeline::new(anchor(1_000, 1_000_000_000), anchor(1_001_000, 1_000_500_000));
        let before: Vec<u64> = (0..100).map(|i| line.unix_nanos(Ticks(1_000 + i * 10_000))).collect();
        line.reanchor(anchor(1_001_000, 1_000_500_900));
        line.reanchor(anchor(2_001_000, 1_001_000_100));
        let after: Vec<u64> = (0..100).map(|i| line.unix_nanos(Ticks(1_000 + i * 10_000))).collect();
        assert_eq!(before, after);
    }

    #[test]
    fn time_never_runs_backwards_across_anchors() {
        let mut line = Timeline::new(anchor(0, 1_000_000_000), anchor(1_000_000, 1_000_500_000));
        let mut last = 0;
        for i in 1..200u64 {
            let jitter = if i % 2 == 0 { 700 } else { 0 };
            line.reanchor(anchor(i * 1_000_000, 1_000_000_000 + i * 500_000 + jitter));
            for step in 0..10 {
                let at = line.unix_nanos(Ticks(i * 1_000_000 + step * 100_000));
                assert!(at >= last);
                last = at;
            }
        }
    }

    #[test]
    fn a_set_wall_clock_is_followed_at_once() {
        let mut line = Timeline::new(anchor(0, 1_000_000_000), anchor(1_000_000, 1_000_500_000));
        line.reanchor(anchor(2_000_000, 9_000_000_000));
        assert_eq!(line.unix_nanos(Ticks(2_000_000)), 9_000_000_000);
    }

    #[test]
    fn the_clock_advances() {
        init();
        let a = now();
        std::thread::sleep(std::time::Duration::from_millis(2));
        let b = now();
        let line = Timeline::new(first_anchor(), Anchor::take());
        assert!(line.unix_nanos(b) - line.unix_nanos(a) >= 1_900_000);
    }
}
