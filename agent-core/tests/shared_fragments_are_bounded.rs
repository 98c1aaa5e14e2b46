//! What spans have in common is kept for the life of the process, so there is an end to it: what comes later is copied,
//! and every span says the same either way.

use agent_core::clock;
use agent_core::fragment::Fragment;
use agent_core::record::{Entry, Value};
use agent_core::span::{Chunk, Parent};

mod support;

#[test]
fn and_later_ones_are_copied() {
    let text = |i: usize| format!("{i:_<1000}");
    let fragments: Vec<_> = (0..600).map(|i| Fragment::new(|span| span.str("text", &text(i)))).collect();
    let mut shared = 0;
    for (i, fragment) in fragments.iter().enumerate() {
        for _ in 0..40 {
            let mut span = support::started(Parent::Root(None));
            span.append(fragment);
            let mut chunk = Chunk::with_capacity(1);
            chunk.push(&span, clock::now());
            shared += usize::from(chunk.arena_len() < 1000);
            let entries: Vec<_> = chunk.iter().flat_map(|span| span.entries).collect();
            let [Entry::Attribute("text", Value::Str(seen))] = entries[..] else { panic!("{entries:?}") };
            assert_eq!(seen, text(i));
        }
    }
    // 512 KiB hold some five hundred of them, each shared from its seventeenth span on.
    assert!((400 * 20..600 * 24 - 1).contains(&shared), "{shared}");
}
