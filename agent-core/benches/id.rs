//! Drawing ids: the generator, and with the thread local it lives in.

use agent_core::id::{IdGenerator, write_hex};
use agent_core::local::with_ids;
use divan::{Bencher, black_box};

#[divan::bench(sample_size = 10_000)]
fn span_id(bencher: Bencher) {
    let mut ids = IdGenerator::seeded();
    bencher.bench_local(|| ids.span_id());
}

#[divan::bench(sample_size = 10_000)]
fn trace_id(bencher: Bencher) {
    let mut ids = IdGenerator::seeded();
    bencher.bench_local(|| ids.trace_id());
}

#[divan::bench(sample_size = 10_000)]
fn span_id_of_the_thread() -> [u8; 8] {
    with_ids(|ids| ids.span_id())
}

#[divan::bench(sample_size = 10_000)]
fn hex_of_a_trace_id() -> [u8; 32] {
    let mut out = [0; 32];
    write_hex(black_box(&[0xa5; 16]), &mut out);
    out
}

#[divan::bench]
fn seed() -> IdGenerator {
    IdGenerator::seeded()
}

fn main() {
    divan::main();
}
