//! The span clock: raw ticks on the hot path, wall time only when a batch is encoded.
//!
//! [`now`] costs one `rdtsc` where the processor's counter is invariant (11 ns on a virtual machine, where
//! `clock_gettime` is 33), else one monotonic clock read. Nothing is calibrated at start: the first [`Anchor`] is
//! taken at load, the second when the exporter first converts, and the rate follows from the two.
#![expect(unsafe_code, reason = "reading the time stamp counter is an intrinsic")]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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
    Ticks(monotonic_nanos())
}

fn monotonic_nanos() -> u64 {
    BASE.get_or_init(Instant::now).elapsed().as_nanos() as u64
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

/// One moment known in three clocks.
#[derive(Clone, Copy, Debug)]
pub struct Anchor {
    /// The span clock.
    pub ticks: Ticks,
    /// Nanoseconds since the Unix epoch. May be set at any time.
    pub unix_nanos: u64,
    /// Nanoseconds of the monotonic clock, which is never set: what rates are measured against.
    pub monotonic_nanos: u64,
}

impl Anchor {
    /// Reads the clocks; of a few tries the one with the least time between its reads is kept.
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
        let unix_nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
        let monotonic_nanos = monotonic_nanos();
        let after = now().0;
        let spread = after.wrapping_sub(before);
        let ticks = Ticks(before.wrapping_add(spread / 2));
        (spread, Self { ticks, unix_nanos, monotonic_nanos })
    }

    /// Nanoseconds per tick from `self` to `later`. None where they are too near each other to tell, or where the
    /// counter did not run on: it may begin anew while a machine sleeps.
    fn rate(self, later: Self) -> Option<f64> {
        let ticks = later.ticks.0.checked_sub(self.ticks.0).filter(|ticks| *ticks > 0)?;
        let nanos = later.monotonic_nanos.checked_sub(self.monotonic_nanos)?;
        (nanos >= MIN_BASE_NANOS).then(|| nanos as f64 / ticks as f64)
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
/// A piecewise linear function, continuous as long as nobody sets the wall clock: what has been converted once is
/// not converted differently later, so a child span exported in an earlier batch than its parent does not start
/// before it. The exceptions: a wall clock that is set, or a machine that slept, is followed at once; and of
/// [`MAX_SEGMENTS`] corrections the oldest is forgotten.
#[derive(Debug)]
pub struct Timeline {
    segments: Vec<Segment>,
    last: Anchor,
    /// Nanoseconds per tick as last measured; an open segment's rate may be bent.
    rate: f64,
}

/// Two anchors nearer than this measure no rate: reading them is uncertain by some 50 ns.
const MIN_BASE_NANOS: u64 = 2_000_000;
/// Two measured rates of one processor do not differ by more than this share.
const RATE_TOLERANCE: f64 = 0.001;
/// A smaller difference from the wall clock is left alone.
const TOLERATED_NANOS: u64 = 20_000;
/// Beyond this the wall clock was set, not slewed: follow it at once.
const STEP_NANOS: u64 = 100_000_000;
/// Over how long a difference in between is smoothed out.
const SLEW_NANOS: f64 = 30e9;
/// No correction sooner than this after the last one, except for a step.
const MIN_INTERVAL_NANOS: u64 = 1_000_000_000;
/// How many corrections are remembered. With a disciplined clock there is one in minutes.
pub const MAX_SEGMENTS: usize = 256;

impl Timeline {
    /// A timeline of this moment. Waits until the rate can be measured: at most 2 ms, and only in a process that
    /// was loaded that short a time ago.
    pub fn begin() -> Self {
        let first = first_anchor();
        let age = monotonic_nanos().saturating_sub(first.monotonic_nanos);
        if let Some(left) = MIN_BASE_NANOS.checked_sub(age) {
            std::thread::sleep(Duration::from_nanos(left));
        }
        let mut second = Anchor::take();
        let mut from = first;
        if first.rate(second).is_none() {
            // The counter began anew since.
            from = second;
            std::thread::sleep(Duration::from_nanos(MIN_BASE_NANOS));
            second = Anchor::take();
        }
        Self::new(from, second)
    }

    /// A timeline that is right at `second`, with the rate measured since `first`; moments before follow from it,
    /// so that a wall clock set after `first` does not matter.
    pub fn new(first: Anchor, second: Anchor) -> Self {
        let nanos_per_tick = first.rate(second).unwrap_or(1.0);
        let origin = Segment { ticks: second.ticks.0, nanos: second.unix_nanos, nanos_per_tick };
        Self { segments: vec![origin], last: second, rate: nanos_per_tick }
    }

    /// Compares with the clocks and, where the difference is worth it, closes the open segment at `now`: the next
    /// one is bent towards the wall clock until it has met it. No moment after `now` has been converted yet.
    pub fn reanchor(&mut self, now: Anchor) {
        let mapped = self.unix_nanos(now.ticks);
        let error = now.unix_nanos.wrapping_sub(mapped).cast_signed();
        let step = error.unsigned_abs() >= STEP_NANOS;
        let since = now.monotonic_nanos.saturating_sub(self.last.monotonic_nanos);
        if !step && (error.unsigned_abs() < TOLERATED_NANOS || since < MIN_INTERVAL_NANOS) {
            return;
        }
        // Time that one of the two clocks slept through is no rate.
        if let Some(measured) = self.last.rate(now)
            && (measured / self.rate - 1.0).abs() < RATE_TOLERANCE
        {
            self.rate = measured;
        }
        while self.segments.last().is_some_and(|segment| !step && segment.ticks > now.ticks.0) {
            self.segments.pop();
        }
        let (ticks, nanos_per_tick) = (now.ticks.0, self.rate);
        if step {
            self.push(Segment { ticks, nanos: now.unix_nanos, nanos_per_tick });
        } else {
            let bent = nanos_per_tick * (1.0 + error as f64 / SLEW_NANOS);
            self.push(Segment { ticks, nanos: mapped, nanos_per_tick: bent });
            let met = ticks.saturating_add((SLEW_NANOS / nanos_per_tick) as u64);
            self.push(Segment { ticks: met, nanos: self.unix_nanos(Ticks(met)), nanos_per_tick });
        }
        self.last = now;
    }

    fn push(&mut self, segment: Segment) {
        if self.segments.len() == MAX_SEGMENTS {
            self.segments.remove(0);
        }
        self.segments.push(segment);
    }

    /// Nanoseconds since the Unix epoch.
    #[inline]
    pub fn unix_nanos(&self, at: Ticks) -> u64 {
        let segment = match self.segments.iter().rev().find(|segment| segment.ticks <= at.0) {
            Some(segment) => segment,
            None => &self.segments[0],
        };
        let delta = at.0.wrapping_sub(segment.ticks).cast_signed();
        segment.nanos.saturating_add_signed((delta as f64 * segment.nanos_per_tick) as i64)
    }
}
