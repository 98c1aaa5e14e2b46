//! Attributes that many spans share, written once.
//!
//! A statement that runs a thousand times names, summarises and shows itself the same way each time: its part of the
//! record is kept and copied whole, one `memcpy` instead of four entries.

use crate::limits;
use crate::record::{Entries, Entry, Value};
use crate::span::ActiveSpan;

/// A piece of a record: a name and attributes. Made under the limits in force, which never change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    bytes: Box<[u8]>,
    attributes: u16,
    dropped: u16,
}

impl Fragment {
    /// What `fill` sets on a span.
    pub fn new(fill: impl FnOnce(&mut ActiveSpan)) -> Self {
        let mut scratch = ActiveSpan::recording();
        fill(&mut scratch);
        let (attributes, dropped) = (scratch.attribute_count(), scratch.dropped_attributes());
        Self { bytes: scratch.into_record(), attributes, dropped }
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
        if !self.append_record(&fragment.bytes, fragment.attributes, limits::current().attribute_count) {
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
        let record = span.into_record();
        let entries: Vec<String> = Entries::of(&record).map(|entry| format!("{entry:?}")).collect();
        assert_eq!(
            entries,
            ["Name(\"SELECT t\")", "Attribute(\"test.fragment.text\", Str(\"select 1 from t\"))"]
        );
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
            let entries: Vec<String> =
                Entries::of(&fragment.bytes).map(|entry| format!("{entry:?}")).collect();
            assert_eq!(entries, [format!("Attribute(\"test.fragment.text\", Int({number}))")]);
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
