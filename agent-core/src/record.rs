//! A span's attributes, events and links as one run of bytes.
//!
//! Written on the application's thread, read on the exporter's. One entry is a tag, a key (two bytes for a static
//! [`Key`], or its text) and a value. Nothing in it points anywhere: a record is copied with one `memcpy` and
//! dropped on any thread.

use crate::clock::Ticks;
use crate::id::{SpanId, TraceId};
use crate::keys::{self, Key};

/// No single value is longer than this many bytes, whatever the limits say: one hostile value must not make a
/// request that every Collector refuses.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;
/// A record that has reached this many bytes takes no further attributes, events and links, whatever the limits say:
/// they are counted as dropped. Half of what a Collector takes in one gRPC message by default.
pub const MAX_RECORD_BYTES: usize = 2 * 1024 * 1024;
/// Above this many bytes a text of which only the last counts replaces the earlier one instead of following it.
const COMPACT_BYTES: usize = 4 * 1024;

mod tag {
    pub const STR: u8 = 1;
    pub const INT: u8 = 2;
    pub const DOUBLE: u8 = 3;
    pub const BOOL: u8 = 4;
    pub const STR_ARRAY: u8 = 5;
    pub const NAME: u8 = 6;
    pub const STATUS: u8 = 7;
    pub const TRACE_STATE: u8 = 8;
    pub const EVENT: u8 = 9;
    pub const LINK: u8 = 10;
}

/// A key as a writer takes it.
#[derive(Clone, Copy, Debug)]
pub enum KeyRef<'a> {
    /// A static key.
    Static(&'static Key),
    /// A name from the application, copied into the record.
    Text(&'a str),
}

impl From<&'static Key> for KeyRef<'_> {
    fn from(key: &'static Key) -> Self {
        Self::Static(key)
    }
}

impl<'a> From<&'a str> for KeyRef<'a> {
    fn from(name: &'a str) -> Self {
        Self::Text(name)
    }
}

impl KeyRef<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Static(key) => key.name(),
            Self::Text(name) => name,
        }
    }
}

/// An attribute's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Text.
    Str(&'a str),
    /// A signed integer.
    Int(i64),
    /// A double.
    Double(f64),
    /// A boolean.
    Bool(bool),
    /// An array of texts.
    StrArray(StrArray<'a>),
}

/// The texts of an array value, as they lie in the record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StrArray<'a>(&'a [u8]);

impl<'a> Iterator for StrArray<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let mut reader = Reader(self.0);
        let text = reader.text()?;
        self.0 = reader.0;
        Some(text)
    }
}

/// Where a span's bytes are written.
#[derive(Debug, Default)]
pub struct Writer {
    pub(crate) bytes: Vec<u8>,
}

impl Writer {
    pub(crate) const fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    /// Whether nothing more fits: [`MAX_RECORD_BYTES`].
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= MAX_RECORD_BYTES
    }

    #[inline]
    fn key(&mut self, tag: u8, key: KeyRef<'_>) {
        let id = match key {
            KeyRef::Static(key) => key.id(),
            KeyRef::Text(_) => keys::INLINE,
        };
        self.bytes.push(tag);
        self.bytes.extend_from_slice(&id.to_ne_bytes());
        if id == keys::INLINE {
            self.text(key.name());
        }
    }

    #[inline]
    fn text(&mut self, text: &str) {
        let text = crate::limits::head(text, MAX_VALUE_BYTES);
        self.bytes.extend_from_slice(&(text.len() as u32).to_ne_bytes());
        self.bytes.extend_from_slice(text.as_bytes());
    }

    #[inline]
    pub(crate) fn str(&mut self, key: KeyRef<'_>, value: &str) {
        if let KeyRef::Static(known) = key
            && known.id() != keys::INLINE
        {
            // The commonest entry by far: its head in one piece, room asked for once.
            let value = crate::limits::head(value, MAX_VALUE_BYTES);
            let ([k0, k1], [l0, l1, l2, l3]) = (known.id().to_ne_bytes(), (value.len() as u32).to_ne_bytes());
            self.bytes.reserve(7 + value.len());
            self.bytes.extend_from_slice(&[tag::STR, k0, k1, l0, l1, l2, l3]);
            self.bytes.extend_from_slice(value.as_bytes());
            return;
        }
        self.key(tag::STR, key);
        self.text(value);
    }

    /// A text attribute whose value `fill` appends in place, and only appends; what is not UTF-8 of it is replaced.
    #[inline]
    pub(crate) fn str_with(&mut self, key: KeyRef<'_>, max: usize, fill: impl FnOnce(&mut Vec<u8>)) {
        self.key(tag::STR, key);
        self.filled(max, fill);
    }

    fn filled(&mut self, max: usize, fill: impl FnOnce(&mut Vec<u8>)) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        fill(&mut self.bytes);
        let start = at + 4;
        match std::str::from_utf8(&self.bytes[start..]) {
            Ok(text) => {
                let keep = crate::limits::truncate(crate::limits::head(text, MAX_VALUE_BYTES), max).len();
                self.bytes.truncate(start + keep);
            }
            Err(_) => {
                let lossy = String::from_utf8_lossy(&self.bytes[start..]).into_owned();
                let keep = crate::limits::truncate(crate::limits::head(&lossy, MAX_VALUE_BYTES), max);
                self.bytes.truncate(start);
                self.bytes.extend_from_slice(keep.as_bytes());
            }
        }
        let len = (self.bytes.len() - start) as u32;
        self.bytes[at..start].copy_from_slice(&len.to_ne_bytes());
    }

    #[inline]
    pub(crate) fn int(&mut self, key: KeyRef<'_>, value: i64) {
        self.key(tag::INT, key);
        self.bytes.extend_from_slice(&value.to_ne_bytes());
    }

    pub(crate) fn double(&mut self, key: KeyRef<'_>, value: f64) {
        self.key(tag::DOUBLE, key);
        self.bytes.extend_from_slice(&value.to_ne_bytes());
    }

    pub(crate) fn bool(&mut self, key: KeyRef<'_>, value: bool) {
        self.key(tag::BOOL, key);
        self.bytes.push(u8::from(value));
    }

    pub(crate) fn str_array<'s>(&mut self, key: KeyRef<'_>, values: impl Iterator<Item = &'s str>) {
        self.key(tag::STR_ARRAY, key);
        self.sized(|writer| {
            let end = writer.bytes.len() + MAX_VALUE_BYTES;
            for value in values {
                if writer.bytes.len() >= end {
                    break;
                }
                writer.text(value);
            }
        });
    }

    /// Four bytes of length, then what `fill` writes.
    fn sized(&mut self, fill: impl FnOnce(&mut Self)) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        fill(self);
        let len = (self.bytes.len() - at - 4) as u32;
        self.bytes[at..at + 4].copy_from_slice(&len.to_ne_bytes());
    }

    /// Begins a text of which only the last one counts: a loop that names its span again and again does not fill
    /// the memory.
    #[inline]
    fn begin_single(&mut self, tag: u8) {
        if self.bytes.len() > COMPACT_BYTES {
            self.remove(|bytes, _| bytes.first() == Some(&tag));
        }
        self.bytes.push(tag);
    }

    /// Removes the entries that `which` says, given the bytes from the entry on; returns their count.
    #[cold]
    fn remove(&mut self, which: impl Fn(&[u8], &Entry<'_>) -> bool) -> u16 {
        let (mut at, mut removed) = (0, 0);
        while let Some((entry, len)) = Entry::at(&self.bytes[at..]) {
            if which(&self.bytes[at..], &entry) {
                self.bytes.drain(at..at + len);
                removed += 1;
            } else {
                at += len;
            }
        }
        removed
    }

    pub(crate) fn name(&mut self, name: &str) {
        self.begin_single(tag::NAME);
        self.text(name);
    }

    pub(crate) fn name_with(&mut self, fill: impl FnOnce(&mut Vec<u8>)) {
        self.begin_single(tag::NAME);
        self.filled(usize::MAX, fill);
    }

    pub(crate) fn status_description(&mut self, text: &str) {
        self.begin_single(tag::STATUS);
        self.text(text);
    }

    pub(crate) fn trace_state(&mut self, text: &str) {
        self.bytes.push(tag::TRACE_STATE);
        self.text(text);
    }

    /// `most` attributes at most.
    pub(crate) fn event(
        &mut self,
        at: Ticks,
        name: KeyRef<'_>,
        most: usize,
        attributes: impl FnOnce(&mut Attributes<'_>),
    ) {
        self.key(tag::EVENT, name);
        self.bytes.extend_from_slice(&at.0.to_ne_bytes());
        self.nested(most, attributes);
    }

    /// `most` attributes at most.
    pub(crate) fn link(
        &mut self,
        link: &Link<'_>,
        most: usize,
        attributes: impl FnOnce(&mut Attributes<'_>),
    ) {
        self.bytes.push(tag::LINK);
        self.bytes.extend_from_slice(&link.trace_id);
        self.bytes.extend_from_slice(&link.span_id);
        self.bytes.push(link.flags);
        self.text(link.trace_state);
        self.nested(most, attributes);
    }

    fn nested(&mut self, most: usize, attributes: impl FnOnce(&mut Attributes<'_>)) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.sized(|writer| {
            let value_length = crate::limits::current().attribute_value_length.unwrap_or(usize::MAX);
            let mut nested = Attributes { writer, left: most, value_length, dropped: 0 };
            attributes(&mut nested);
            let dropped = nested.dropped;
            writer.bytes[at..at + 2].copy_from_slice(&dropped.to_ne_bytes());
        });
    }

    /// Removes every attribute of that name; returns their count. Linear in the record; for names that may repeat.
    pub(crate) fn replace(&mut self, key: &str) -> u16 {
        self.remove(|_, entry| matches!(entry, Entry::Attribute(name, _) if *name == key))
    }
}

/// Writes the attributes of an event or a link, within their own limits.
#[derive(Debug)]
pub struct Attributes<'w> {
    writer: &'w mut Writer,
    left: usize,
    value_length: usize,
    dropped: u16,
}

impl Attributes<'_> {
    /// Adds a text attribute.
    pub fn str<'k>(&mut self, key: impl Into<KeyRef<'k>>, value: &str) {
        if self.take() {
            self.writer.str(key.into(), crate::limits::truncate(value, self.value_length));
        }
    }

    /// Adds an integer attribute.
    pub fn int<'k>(&mut self, key: impl Into<KeyRef<'k>>, value: i64) {
        if self.take() {
            self.writer.int(key.into(), value);
        }
    }

    fn take(&mut self) -> bool {
        if self.left == 0 || self.writer.is_full() {
            self.dropped = self.dropped.saturating_add(1);
            return false;
        }
        self.left -= 1;
        true
    }
}

/// A link to another span.
#[derive(Clone, Copy, Debug)]
pub struct Link<'a> {
    /// The linked span's trace.
    pub trace_id: TraceId,
    /// The linked span.
    pub span_id: SpanId,
    /// Its trace flags.
    pub flags: u8,
    /// Its trace state, or empty.
    pub trace_state: &'a str,
}

/// One entry of a record.
#[derive(Debug)]
pub enum Entry<'a> {
    /// An attribute.
    Attribute(&'a str, Value<'a>),
    /// An event with its moment, name, attributes and the count of attributes dropped.
    Event(Ticks, &'a str, Entries<'a>, u16),
    /// A link with its attributes and the count of attributes dropped.
    Link(Link<'a>, Entries<'a>, u16),
    /// The name, where it is not static.
    Name(&'a str),
    /// The status's description.
    StatusDescription(&'a str),
    /// The trace state.
    TraceState(&'a str),
}

/// Reads a record's entries. A malformed record ends early; it never panics.
#[derive(Clone, Copy, Debug)]
pub struct Entries<'a>(pub(crate) &'a [u8]);

impl<'a> Entries<'a> {
    /// The entries of a record's bytes, whatever they are.
    pub fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    #[inline]
    fn next(&mut self) -> Option<Entry<'a>> {
        let (entry, len) = Entry::at(self.0)?;
        self.0 = self.0.get(len..)?;
        Some(entry)
    }
}

impl<'a> Entry<'a> {
    #[inline]
    fn at(bytes: &'a [u8]) -> Option<(Self, usize)> {
        let mut reader = Reader(bytes);
        let entry = match reader.byte()? {
            tag::STR => Self::Attribute(reader.key()?, Value::Str(reader.text()?)),
            tag::INT => Self::Attribute(reader.key()?, Value::Int(i64::from_ne_bytes(reader.array()?))),
            tag::DOUBLE => Self::Attribute(reader.key()?, Value::Double(f64::from_ne_bytes(reader.array()?))),
            tag::BOOL => Self::Attribute(reader.key()?, Value::Bool(reader.byte()? != 0)),
            tag::STR_ARRAY => Self::Attribute(reader.key()?, Value::StrArray(StrArray(reader.run()?))),
            tag::NAME => Self::Name(reader.text()?),
            tag::STATUS => Self::StatusDescription(reader.text()?),
            tag::TRACE_STATE => Self::TraceState(reader.text()?),
            tag::EVENT => {
                let name = reader.key()?;
                let at = Ticks(u64::from_ne_bytes(reader.array()?));
                let dropped = u16::from_ne_bytes(reader.array()?);
                Self::Event(at, name, Entries(reader.run()?), dropped)
            }
            tag::LINK => {
                let link = Link {
                    trace_id: reader.array()?,
                    span_id: reader.array()?,
                    flags: reader.byte()?,
                    trace_state: reader.text()?,
                };
                let dropped = u16::from_ne_bytes(reader.array()?);
                Self::Link(link, Entries(reader.run()?), dropped)
            }
            _ => return None,
        };
        Some((entry, bytes.len() - reader.0.len()))
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    #[inline]
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }

    #[inline]
    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    #[inline]
    fn run(&mut self) -> Option<&'a [u8]> {
        let len = u32::from_ne_bytes(self.array()?);
        self.take(len as usize)
    }

    #[inline]
    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.run()?).ok()
    }

    #[inline]
    fn key(&mut self) -> Option<&'a str> {
        match u16::from_ne_bytes(self.array()?) {
            keys::INLINE => self.text(),
            id => Some(keys::name(id)),
        }
    }
}
