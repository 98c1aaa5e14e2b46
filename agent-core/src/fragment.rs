//! Attributes that many spans share, written once.
//!
//! A statement that runs a thousand times names, summarises and shows itself the same way each time: its part of the
//! record is kept and copied whole, one `memcpy` instead of four entries; from the [`OFTEN`]th time on not even that,
//! the record then names it by number.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::limits;
use crate::record::{Entries, Entry, Value};
use crate::shared;
use crate::span::ActiveSpan;

/// So often a fragment is copied before it is [shared]: what a few spans need is not kept for ever.
const OFTEN: u32 = 16;
/// It cannot be shared.
const NEVER: u32 = OFTEN + 1;
/// It is shared, under the number in the lower half.
const SHARED: u32 = 1 << 16;

/// A piece of a record: a name and attributes. Made under the limits in force, which never change.
#[derive(Debug)]
pub struct Fragment {
    bytes: Box<[u8]>,
    attributes: u16,
    dropped: u16,
    /// How often it was copied, up to [`OFTEN`]; [`NEVER`]; or [`SHARED`] with its number.
    state: AtomicU32,
}

impl PartialEq for Fragment {
    fn eq(&self, other: &Self) -> bool {
        (&self.bytes, self.attributes, self.dropped) == (&other.bytes, other.attributes, other.dropped)
    }
}

impl Eq for Fragment {}

impl Fragment {
    /// What `fill` sets on a span.
    pub fn new(fill: impl FnOnce(&mut ActiveSpan)) -> Self {
        let mut scratch = ActiveSpan::recording();
        fill(&mut scratch);
        let (attributes, dropped) = (scratch.attribute_count(), scratch.dropped_attributes());
        Self { bytes: scratch.into_record(), attributes, dropped, state: AtomicU32::new(0) }
    }

    /// As [`Self::new`], never shared: what there may be very many of has no claim to what is bounded for all.
    pub fn copied(fill: impl FnOnce(&mut ActiveSpan)) -> Self {
        Self { state: AtomicU32::new(NEVER), ..Self::new(fill) }
    }

    /// Its number, where it is shared.
    #[inline]
    fn number(&self) -> Option<u16> {
        match self.state.load(Ordering::Acquire) {
            state if state & SHARED != 0 => Some(state as u16),
            NEVER => None,
            copied => self.count(copied),
        }
    }

    #[cold]
    fn count(&self, copied: u32) -> Option<u16> {
        let number = if copied < OFTEN { None } else { shared::keep(&self.bytes) };
        let state = match number {
            Some(number) => SHARED | u32::from(number),
            None => copied + 1,
        };
        self.state.store(state, Ordering::Release);
        number
    }

    /// Bytes kept.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it sets nothing.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl ActiveSpan {
    /// Adds a fragment's name and attributes.
    #[inline]
    pub fn append(&mut self, fragment: &Fragment) {
        let limit = limits::current().attribute_count;
        if !self.append_record(&fragment.bytes, fragment.number(), fragment.attributes, limit) {
            self.append_singly(fragment);
        }
        if fragment.dropped > 0 {
            self.count_dropped(fragment.dropped);
        }
    }

    /// Near the attribute limit: as many as fit.
    #[cold]
    fn append_singly(&mut self, fragment: &Fragment) {
        for entry in Entries::of(&fragment.bytes) {
            match entry {
                Entry::Attribute(key, Value::Str(value)) => self.str(key, value),
                Entry::Attribute(key, Value::Int(value)) => self.int(key, value),
                Entry::Attribute(key, Value::Double(value)) => self.double(key, value),
                Entry::Attribute(key, Value::Bool(value)) => self.bool(key, value),
                Entry::Attribute(key, Value::Array(values)) => self.array(key, values),
                Entry::Name(name) => self.name(name),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Key;

    static TEXT: Key = Key::new("test.fragment.text");

    #[test]
    fn a_fragment_is_what_it_was_made_of() {
        let fragment = Fragment::new(|span| {
            span.name("SELECT t");
            span.str(&TEXT, "select 1 from t");
        });
        let mut span = ActiveSpan::recording();
        span.append(&fragment);
        assert_eq!(span.attribute_count(), 1);
        assert_eq!(
            entries(&span.into_record()),
            ["Name(\"SELECT t\")", "Attribute(\"test.fragment.text\", Str(\"select 1 from t\"))"]
        );
    }

    fn entries(record: &[u8]) -> Vec<String> {
        Entries::of(record).map(|entry| format!("{entry:?}")).collect()
    }

    #[test]
    fn what_many_spans_have_is_shared_and_reads_the_same() {
        let text = "a long text ".repeat(20);
        let fragment = Fragment::new(|span| {
            span.name("one");
            span.str(&TEXT, &text);
            span.int("number", 7);
        });
        let with = |fill: fn(&mut ActiveSpan)| {
            let mut span = ActiveSpan::recording();
            span.int("first", 1);
            span.append(&fragment);
            span.append(&fragment);
            fill(&mut span);
            span
        };
        let copied = entries(with(|_| {}).record());
        (0..OFTEN).for_each(|_| drop(with(|_| {})));
        let shared = with(|_| {});
        assert!(shared.record().len() < text.len(), "{}", shared.record().len());
        assert_eq!(entries(shared.record()), copied);
        assert_eq!(shared.text("test.fragment.text"), Some(text.as_str()));
        assert_eq!(entries(&shared.into_record()), copied);

        // What is set after it counts, what is replaced is gone.
        let replaced = with(|span| {
            span.replace("number");
            span.name("two");
        });
        assert_eq!(replaced.attribute_count(), 3);
        let replaced = entries(replaced.record());
        assert!(!replaced.iter().any(|entry| entry.contains("number")), "{replaced:?}");
        assert_eq!(replaced.last().map(String::as_str), Some("Name(\"two\")"));

        // A fragment of fragments, and one with the same content.
        let outer = Fragment::new(|span| span.append(&fragment));
        assert_eq!(outer.bytes, fragment.bytes);
        (0..OFTEN).for_each(|_| assert_eq!(outer.number(), None));
        assert_eq!(outer.number(), fragment.number());
    }

    #[test]
    fn what_is_too_long_or_to_be_copied_is_copied_for_ever() {
        let long = Fragment::new(|span| span.str(&TEXT, &"x".repeat(10_000)));
        let copied = Fragment::copied(|span| span.str(&TEXT, "x"));
        for fragment in [long, copied] {
            (0..2 * OFTEN).for_each(|_| assert_eq!(fragment.number(), None));
        }
    }

    #[test]
    fn numbers_are_written_in_as_many_bytes_as_protobuf_takes() {
        for (number, bytes) in [
            (0, 1),
            (0x7f, 1),
            (0x80, 2),
            (200, 2),
            (0x3fff, 2),
            (0x4000, 3),
            (0x1f_ffff, 3),
            (0x20_0000, 4),
            (-1, 10),
        ] {
            let fragment = Fragment::new(|span| span.int(&TEXT, number));
            assert_eq!(
                entries(&fragment.bytes),
                [format!("Attribute(\"test.fragment.text\", Int({number}))")]
            );
            assert_eq!(fragment.len(), "test.fragment.text".len() + 7 + bytes, "{number}");
        }
    }

    #[test]
    fn past_the_limit_the_rest_is_dropped_and_counted() {
        let fragment = Fragment::new(|span| (0..100).for_each(|_| span.str(&TEXT, "x")));
        let mut span = ActiveSpan::recording();
        span.append(&fragment);
        span.append(&fragment);
        assert_eq!(span.attribute_count(), 128);
    }
}
