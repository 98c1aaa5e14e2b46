//! Chunks come back from the exporter and hold the next spans, and nothing of the ones before.

use agent_core::clock;
use agent_core::record::{Entry, Value};
use agent_core::span::{Parent, SpanRef};

mod support;

fn texts(span: SpanRef<'_>) -> Vec<usize> {
    let of = |entry| match entry {
        Entry::Attribute("text", Value::Str(text)) => Some(text.len()),
        _ => None,
    };
    span.entries.filter_map(of).collect()
}

#[test]
fn whatever_their_size_and_number() {
    let queue = support::new_queue(1 << 30, None, 1_000_000);
    let slot = queue.slot();
    // More chunks at once than are kept; records that fit, and some that make a chunk too large to be kept.
    for (round, (spans, length)) in
        [(64 * 40, 10), (3, 60_000), (64, 100), (64 * 40, 500), (1, 0)].into_iter().enumerate()
    {
        for _ in 0..spans {
            let mut span = support::started(Parent::Root(None));
            let values = if round == 1 { 20 } else { 1 };
            (0..values).for_each(|_| span.str("text", &"x".repeat(length)));
            slot.push(&span, clock::now());
        }
        queue.sweep();
        let mut seen = 0;
        while let Some(chunk) = queue.take() {
            for span in chunk.iter() {
                let values = if round == 1 { 20 } else { 1 };
                assert_eq!(texts(span), vec![length; values]);
                seen += 1;
            }
            queue.sent(chunk.len() as u64);
            queue.release(chunk);
        }
        assert_eq!(seen, spans);
        assert_eq!((queue.bytes(), queue.queued()), (0, 0));
    }
    support::assert_adds_up(&queue.counters());
}
