//! Reading the clock on the hot path, and making wall time of it on the exporter's.

use agent_core::clock::{self, Anchor, Ticks, Timeline};
use divan::{Bencher, black_box};

#[divan::bench(sample_size = 10_000)]
fn now() -> Ticks {
    clock::now()
}

/// What a span would cost without the counter.
#[divan::bench(sample_size = 10_000)]
fn monotonic_clock() -> std::time::Instant {
    std::time::Instant::now()
}

#[divan::bench(sample_size = 10_000)]
fn to_wall_time(bencher: Bencher) {
    let (line, at) = (Timeline::begin(), clock::now());
    bencher.bench_local(|| line.unix_nanos(black_box(at)));
}

#[divan::bench]
fn anchor() -> Anchor {
    Anchor::take()
}

fn main() {
    clock::init();
    divan::main();
}
