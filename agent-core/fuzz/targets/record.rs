#![no_main]

use agent_core::record::{Entries, Entry, Value};
use libfuzzer_sys::fuzz_target;

fn walk(entries: Entries<'_>) -> usize {
    entries
        .map(|entry| match entry {
            Entry::Attribute(key, Value::Array(values)) => key.len() + values.count(),
            Entry::Event(_, name, inner, _) => name.len() + walk(inner),
            Entry::Link(_, inner, _) => walk(inner),
            _ => 1,
        })
        .sum()
}

fuzz_target!(|bytes: &[u8]| {
    walk(Entries::of(bytes));
});
