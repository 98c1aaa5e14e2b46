//! Whatever bytes a record holds, reading it ends and never panics.

use agent_core::record::{Entries, Entry, Value};
use proptest::prelude::*;

fn walk(entries: Entries<'_>) -> usize {
    entries
        .map(|entry| match entry {
            Entry::Attribute(key, Value::Array(values)) => key.len() + values.count(),
            Entry::Attribute(key, Value::Str(value)) => key.len() + value.len(),
            Entry::Event(_, name, inner, _) => name.len() + walk(inner),
            Entry::Link(link, inner, _) => link.trace_state.len() + walk(inner),
            Entry::Name(text) | Entry::StatusDescription(text) | Entry::TraceState(text) => text.len(),
            Entry::Attribute(..) => 1,
        })
        .sum()
}

/// Bytes that look like tags and short lengths of both kinds, among others.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        (1_u8..8).prop_map(|tag| vec![tag]),
        prop::sample::select(vec![0x4a_u8, 0x1a, 0x22, 0x0a, 0x12, 0x10, 0x18, 0x21, 0x2a])
            .prop_map(|tag| vec![tag]),
        (0_u8..20).prop_map(|len| vec![len]),
        Just(vec![0xff, 0xff]),
        (0_u32..20).prop_map(|len| len.to_ne_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..12),
        "[a-zé]{0,6}".prop_map(String::into_bytes),
    ];
    prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_to_an_end(bytes in bytes()) {
        walk(Entries::of(&bytes));
        Entries::of(&bytes).pieces().for_each(drop);
    }
}
