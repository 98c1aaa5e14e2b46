//! Ticks become wall time so that the order of moments, and their distance, survive whatever the clocks do.

use agent_core::clock::{self, Anchor, Ticks, Timeline};
use proptest::prelude::*;

/// A counter of 2 ticks a nanosecond, started 1 s after the epoch.
fn anchor(monotonic_nanos: u64, wall_error: i64) -> Anchor {
    Anchor {
        ticks: Ticks(monotonic_nanos * 2),
        unix_nanos: (1_000_000_000 + monotonic_nanos).saturating_add_signed(wall_error),
        monotonic_nanos,
    }
}

const SECOND: u64 = 1_000_000_000;

fn line() -> Timeline {
    Timeline::new(anchor(0, 0), anchor(SECOND, 0))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// The wall clock wanders by less than a step; anchors come as the exporter's timer and flushes bring them.
    #[test]
    fn moments_keep_their_order_and_what_was_exported_stays(
        anchors in prop::collection::vec((1_000_u64..20 * SECOND, -40_000_000_i64..40_000_000), 1..60),
    ) {
        let mut line = line();
        let mut now = SECOND;
        let mut known: Vec<(Ticks, u64)> = Vec::new();
        for (gap, error) in anchors {
            // Exported now, before the next anchor is taken.
            for moment in 1..=4 {
                let at = Ticks((now + gap * moment / 4) * 2);
                known.push((at, line.unix_nanos(at)));
            }
            now += gap;
            line.reanchor(anchor(now, error));
        }
        prop_assert!(known.is_sorted_by_key(|(_, nanos)| *nanos));
        for (at, nanos) in known {
            prop_assert_eq!(line.unix_nanos(at), nanos);
        }
    }
}

#[test]
fn durations_are_right_before_and_after_the_first_anchors() {
    let line = line();
    assert_eq!(line.unix_nanos(Ticks(SECOND)) - line.unix_nanos(Ticks(0)), SECOND / 2);
    assert_eq!(line.unix_nanos(Ticks(0)), SECOND);
}

#[test]
fn a_wall_clock_set_between_the_first_anchors_does_not_bend_durations() {
    for error in [-3_600_000_000_000_i64, -2_000_000_000, 2_000_000_000, 3_600_000_000_000] {
        let mut second = anchor(5 * SECOND, 0);
        second.unix_nanos = 10_000_000_000_000_u64.saturating_add_signed(error);
        let line = Timeline::new(anchor(0, 0), second);
        assert_eq!(line.unix_nanos(second.ticks), second.unix_nanos);
        let earlier = Ticks(second.ticks.0 - 2 * SECOND);
        assert_eq!(line.unix_nanos(second.ticks) - line.unix_nanos(earlier), SECOND);
    }
}

#[test]
fn a_set_wall_clock_is_followed_at_once() {
    let mut line = line();
    line.reanchor(anchor(SECOND + 5_000, 8_000_000_000));
    assert_eq!(line.unix_nanos(Ticks(2 * (SECOND + 5_000))), 10_000_005_000);
    // What lies before stays.
    assert_eq!(line.unix_nanos(Ticks(2 * SECOND)), 2 * SECOND);
}

#[test]
fn flushing_in_a_loop_does_not_spoil_the_rate() {
    let mut line = line();
    for i in 1..2_000_u64 {
        // Each anchor is uncertain by a microsecond.
        line.reanchor(anchor(SECOND + i * 20_000, if i % 2 == 0 { 1_000 } else { -1_000 }));
    }
    assert_eq!(line.unix_nanos(Ticks(4 * SECOND)) - line.unix_nanos(Ticks(2 * SECOND)), SECOND);
}

#[test]
fn a_machine_that_slept_is_on_time_again() {
    // The counter ran on, the monotonic clock did not.
    let mut line = line();
    let woken =
        Anchor { ticks: Ticks(7_202 * SECOND), unix_nanos: 3_602 * SECOND, monotonic_nanos: SECOND + 5 };
    line.reanchor(woken);
    assert!(line.unix_nanos(woken.ticks).abs_diff(3_602 * SECOND) < 1_000);
    let later = Ticks(woken.ticks.0 + 2 * SECOND);
    assert!((line.unix_nanos(later) - line.unix_nanos(woken.ticks)).abs_diff(SECOND) < 1_000);

    // The counter began anew.
    let woken = Anchor { ticks: Ticks(100), unix_nanos: 9_000 * SECOND, monotonic_nanos: SECOND + 10 };
    line.reanchor(woken);
    assert_eq!(line.unix_nanos(woken.ticks), 9_000 * SECOND);
    assert_eq!(line.unix_nanos(Ticks(100 + 2 * SECOND)), 9_001 * SECOND);
}

#[test]
fn a_real_sleep_is_as_long_as_it_was() {
    clock::init();
    let start = std::time::Instant::now();
    let a = clock::now();
    std::thread::sleep(std::time::Duration::from_millis(20));
    let b = clock::now();
    let truth = start.elapsed().as_nanos() as u64;
    let line = Timeline::begin();
    let measured = line.unix_nanos(b) - line.unix_nanos(a);
    assert!((19_900_000..=truth + truth / 100).contains(&measured), "{measured} of {truth}");
}
