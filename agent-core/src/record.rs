//! A span's attributes, events and links as one run of bytes.
//!
//! Written on the application's thread, read on the exporter's. An attribute is written as OTLP's protobuf has it, under
//! the tag of its field in `Span`, `Event` or `Link`: a request in that form takes over whole runs of them. Everything
//! else has a tag of ours, below all of those. What very many records have in common is in them as a number
//! ([`shared`]). Nothing in it points anywhere: a record is copied with one `memcpy` and dropped on any thread.

use crate::clock::Ticks;
use crate::id::{SpanId, TraceId};
use crate::keys::Key;
use crate::shared;
use crate::wire::{self, BYTES, Reader};

/// No single value is longer than this many bytes, whatever the limits say: one hostile value must not make a
/// request that every Collector refuses.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;
/// A record that has reached this many bytes takes no further attributes, events and links, whatever the limits say:
/// they are counted as dropped. Half of what a Collector takes in one gRPC message by default.
pub const MAX_RECORD_BYTES: usize = 2 * 1024 * 1024;
/// Above this many bytes a text of which only the last counts replaces the earlier one instead of following it.
const COMPACT_BYTES: usize = 4 * 1024;

mod tag {
    use crate::wire::{self, BYTES};

    pub const NAME: u8 = 1;
    pub const STATUS: u8 = 2;
    pub const TRACE_STATE: u8 = 3;
    pub const EVENT: u8 = 4;
    pub const LINK: u8 = 5;
    /// Entries that are kept elsewhere, by number.
    pub const SHARED: u8 = 6;
    /// `Span.attributes`
    pub const ATTRIBUTE: u8 = wire::tag(9, BYTES);
    /// `Span.Event.attributes`
    pub const EVENT_ATTRIBUTE: u8 = wire::tag(3, BYTES);
    /// `Span.Link.attributes`
    pub const LINK_ATTRIBUTE: u8 = wire::tag(4, BYTES);
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

impl<'a> KeyRef<'a> {
    #[inline]
    fn name(self) -> &'a str {
        match self {
            Self::Static(key) => key.name(),
            Self::Text(name) => crate::limits::head(name, MAX_VALUE_BYTES),
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
    /// An array.
    Array(Array<'a>),
}

/// The values of an array: OTLP's `ArrayValue`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Array<'a>(pub(crate) &'a [u8]);

impl<'a> Array<'a> {
    /// Of what [`wire::array_item`] wrote.
    pub fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl<'a> Iterator for Array<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        let mut reader = Reader(self.0);
        let value = Value::read(reader.field(wire::tag(1, BYTES))?)?;
        self.0 = reader.0;
        Some(value)
    }
}

/// A text attribute that is being written.
pub(crate) struct OpenStr {
    /// Where it stands.
    at: usize,
    /// Where its value stands.
    start: usize,
    max: usize,
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
    fn text(&mut self, text: &str) {
        let text = crate::limits::head(text, MAX_VALUE_BYTES);
        self.bytes.extend_from_slice(&(text.len() as u32).to_ne_bytes());
        self.bytes.extend_from_slice(text.as_bytes());
    }

    #[inline]
    pub(crate) fn str(&mut self, key: KeyRef<'_>, value: &str) {
        self.attribute(tag::ATTRIBUTE, key, Value::Str(crate::limits::head(value, MAX_VALUE_BYTES)));
    }

    #[inline]
    pub(crate) fn value(&mut self, key: KeyRef<'_>, value: Value<'_>) {
        self.attribute(tag::ATTRIBUTE, key, value);
    }

    #[inline]
    fn attribute(&mut self, tag: u8, key: KeyRef<'_>, value: Value<'_>) {
        wire::attribute(&mut self.bytes, tag, key.name(), value);
    }

    /// Begins a text attribute whose value is appended in place, and only appended, until [`Self::end_str`]; at most
    /// `max` characters.
    pub(crate) fn begin_str(&mut self, key: KeyRef<'_>, max: usize) -> OpenStr {
        let key = key.name();
        let at = self.bytes.len();
        // Lengths of one byte, as most will be.
        self.bytes.extend_from_slice(&[tag::ATTRIBUTE, 0, wire::tag(1, BYTES), key.len() as u8]);
        self.bytes.extend_from_slice(key.as_bytes());
        self.bytes.extend_from_slice(&[wire::tag(2, BYTES), 0, wire::tag(1, BYTES), 0]);
        OpenStr { at, start: self.bytes.len(), max }
    }

    /// Ends it; what is not UTF-8 of it is replaced.
    #[inline(never)]
    pub(crate) fn end_str(&mut self, key: KeyRef<'_>, open: OpenStr) {
        let OpenStr { at, start, max } = open;
        let key = key.name();
        self.valid(start, max);
        let len = self.bytes.len() - start;
        if key.len() + len <= wire::SHORT {
            self.bytes[at + 1] = (key.len() + len + 6) as u8;
            self.bytes[start - 3] = len as u8 + 2;
            self.bytes[start - 1] = len as u8;
        } else {
            self.lengthen(at, start, key);
        }
    }

    /// Writes the attribute at `at`, whose value is at `start`, once more with longer lengths.
    #[cold]
    fn lengthen(&mut self, at: usize, start: usize, key: &str) {
        let mut long = Vec::with_capacity(self.bytes.len() - at + 8);
        let value = std::str::from_utf8(&self.bytes[start..]).unwrap_or_default();
        wire::attribute(&mut long, tag::ATTRIBUTE, key, Value::Str(value));
        self.bytes.truncate(at);
        self.bytes.extend_from_slice(&long);
    }

    /// Makes what stands from `start` on UTF-8 and no longer than allowed.
    #[inline]
    fn valid(&mut self, start: usize, max: usize) {
        let text = &self.bytes[start..];
        if text.is_ascii() {
            return self.bytes.truncate(start + text.len().min(max).min(MAX_VALUE_BYTES));
        }
        match std::str::from_utf8(text) {
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
    }

    /// A text in it has `max` characters at most.
    pub(crate) fn array<'s>(&mut self, key: KeyRef<'_>, max: usize, values: impl Iterator<Item = Value<'s>>) {
        let mut array = Vec::new();
        for mut value in values {
            if array.len() >= MAX_VALUE_BYTES {
                break;
            }
            if let Value::Str(text) = &mut value {
                *text = crate::limits::truncate(crate::limits::head(text, MAX_VALUE_BYTES), max);
            }
            wire::array_item(&mut array, value);
        }
        self.value(key, Value::Array(Array(&array)));
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

    /// Appends the entries that are kept under that number.
    #[inline]
    pub(crate) fn shared(&mut self, number: u16) {
        let [low, high] = number.to_ne_bytes();
        self.bytes.extend_from_slice(&[tag::SHARED, low, high]);
    }

    /// Writes what is in it by number out.
    pub(crate) fn write_out(&mut self) {
        let mut at = 0;
        while let Some(bytes) = self.bytes.get(at..) {
            if let [tag::SHARED, low, high, ..] = *bytes {
                let entries = shared::piece(u16::from_ne_bytes([low, high])).unwrap_or_default();
                self.bytes.splice(at..at + 3, entries.iter().copied());
                at += entries.len();
            } else if let Some((_, len)) = Entry::at(bytes) {
                at += len;
            } else {
                break;
            }
        }
    }

    /// Removes the entries that `which` says, given the bytes from the entry on; returns their count.
    #[cold]
    fn remove(&mut self, which: impl Fn(&[u8], &Entry<'_>) -> bool) -> u16 {
        self.write_out();
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
        let start = self.bytes.len() + 4;
        self.sized(|writer| {
            fill(&mut writer.bytes);
            writer.valid(start, usize::MAX);
        });
    }

    pub(crate) fn status_description(&mut self, text: &str) {
        self.begin_single(tag::STATUS);
        self.text(text);
    }

    /// Forgets the status's description. Linear in the record.
    pub(crate) fn no_status_description(&mut self) {
        self.remove(|bytes, _| bytes.first() == Some(&tag::STATUS));
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
        self.bytes.push(tag::EVENT);
        self.text(name.name());
        self.bytes.extend_from_slice(&at.0.to_ne_bytes());
        self.nested(tag::EVENT_ATTRIBUTE, most, attributes);
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
        self.bytes.extend_from_slice(&[link.flags, u8::from(link.remote)]);
        self.text(link.trace_state);
        self.nested(tag::LINK_ATTRIBUTE, most, attributes);
    }

    fn nested(&mut self, tag: u8, most: usize, attributes: impl FnOnce(&mut Attributes<'_>)) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.sized(|writer| {
            let value_length = crate::limits::current().attribute_value_length.unwrap_or(usize::MAX);
            let mut nested = Attributes { writer, tag, left: most, value_length, dropped: 0 };
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
    tag: u8,
    left: usize,
    value_length: usize,
    dropped: u16,
}

impl Attributes<'_> {
    /// Adds a text attribute.
    pub fn str<'k>(&mut self, key: impl Into<KeyRef<'k>>, value: &str) {
        if self.take() {
            let value = crate::limits::truncate(value, self.value_length);
            let value = Value::Str(crate::limits::head(value, MAX_VALUE_BYTES));
            self.writer.attribute(self.tag, key.into(), value);
        }
    }

    /// Adds an integer attribute.
    pub fn int<'k>(&mut self, key: impl Into<KeyRef<'k>>, value: i64) {
        if self.take() {
            self.writer.attribute(self.tag, key.into(), Value::Int(value));
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
    /// Whether it came from another process.
    pub remote: bool,
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
pub struct Entries<'a>(Steps<'a>);

impl<'a> Entries<'a> {
    /// The entries of a record's bytes, whatever they are.
    pub fn of(bytes: &'a [u8]) -> Self {
        Self(Steps { rest: bytes, shared: &[] })
    }

    /// The bytes. Of an event's or a link's entries they are its attributes as OTLP's protobuf has them.
    pub fn bytes(self) -> &'a [u8] {
        self.0.rest
    }

    /// The entries, attributes that follow each other in one piece.
    pub fn pieces(self) -> Pieces<'a> {
        Pieces(self.0)
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    #[inline]
    fn next(&mut self) -> Option<Entry<'a>> {
        self.0.entry()
    }
}

/// Attributes in a row, or one other entry.
#[derive(Debug)]
pub enum Piece<'a> {
    /// `Span.attributes` as OTLP's protobuf has them.
    Attributes(&'a [u8]),
    /// No attribute.
    Other(Entry<'a>),
}

/// Reads a record by pieces.
#[derive(Clone, Copy, Debug)]
pub struct Pieces<'a>(Steps<'a>);

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    #[inline]
    fn next(&mut self) -> Option<Piece<'a>> {
        let run = self.0.attributes()?;
        if !run.is_empty() {
            return Some(Piece::Attributes(run));
        }
        self.0.entry().map(Piece::Other)
    }
}

/// The way through a record, into what is kept elsewhere and back.
#[derive(Clone, Copy, Debug)]
struct Steps<'a> {
    rest: &'a [u8],
    /// What is left of the shared entries that were come to last.
    shared: &'a [u8],
}

impl<'a> Steps<'a> {
    /// The bytes that begin with the next entry.
    #[inline]
    fn here(&mut self) -> Option<&mut &'a [u8]> {
        if self.shared.is_empty() {
            while let [tag::SHARED, low, high, rest @ ..] = self.rest {
                self.shared = shared::piece(u16::from_ne_bytes([*low, *high]))?;
                self.rest = rest;
                if !self.shared.is_empty() {
                    return Some(&mut self.shared);
                }
            }
            return Some(&mut self.rest);
        }
        Some(&mut self.shared)
    }

    /// The attributes from here to the next other entry: none, where that is the next.
    #[inline]
    fn attributes(&mut self) -> Option<&'a [u8]> {
        let here = self.here()?;
        let mut reader = Reader(here);
        while reader.0.first() == Some(&tag::ATTRIBUTE) {
            reader.byte()?;
            reader.run()?;
        }
        let (run, rest) = here.split_at_checked(here.len() - reader.0.len())?;
        *here = rest;
        Some(run)
    }

    #[inline]
    fn entry(&mut self) -> Option<Entry<'a>> {
        let here = self.here()?;
        let (entry, len) = Entry::at(here)?;
        *here = here.get(len..)?;
        Some(entry)
    }
}

impl<'a> Entry<'a> {
    #[inline]
    fn at(bytes: &'a [u8]) -> Option<(Self, usize)> {
        let mut reader = Reader(bytes);
        let entry = match reader.byte()? {
            tag::ATTRIBUTE | tag::EVENT_ATTRIBUTE | tag::LINK_ATTRIBUTE => {
                let mut pair = Reader(reader.run()?);
                let key = pair.field(wire::tag(1, BYTES))?.rest()?;
                Self::Attribute(key, Value::read(pair.field(wire::tag(2, BYTES))?)?)
            }
            tag::NAME => Self::Name(text(&mut reader)?),
            tag::STATUS => Self::StatusDescription(text(&mut reader)?),
            tag::TRACE_STATE => Self::TraceState(text(&mut reader)?),
            tag::EVENT => {
                let name = text(&mut reader)?;
                let at = Ticks(u64::from_ne_bytes(reader.array()?));
                let dropped = u16::from_ne_bytes(reader.array()?);
                Self::Event(at, name, Entries::of(sized(&mut reader)?), dropped)
            }
            tag::LINK => {
                let link = Link {
                    trace_id: reader.array()?,
                    span_id: reader.array()?,
                    flags: reader.byte()?,
                    remote: reader.byte()? != 0,
                    trace_state: text(&mut reader)?,
                };
                let dropped = u16::from_ne_bytes(reader.array()?);
                Self::Link(link, Entries::of(sized(&mut reader)?), dropped)
            }
            _ => return None,
        };
        Some((entry, bytes.len() - reader.0.len()))
    }
}

impl<'a> Value<'a> {
    /// From OTLP's `AnyValue`.
    #[inline]
    fn read(mut any: Reader<'a>) -> Option<Self> {
        const STR: u8 = wire::tag(1, BYTES);
        const BOOL: u8 = wire::tag(2, wire::VARINT);
        const INT: u8 = wire::tag(3, wire::VARINT);
        const DOUBLE: u8 = wire::tag(4, wire::FIXED64);
        const ARRAY: u8 = wire::tag(5, BYTES);
        Some(match any.byte()? {
            STR => Self::Str(any.text()?),
            BOOL => Self::Bool(any.varint()? != 0),
            INT => Self::Int(any.varint()? as i64),
            DOUBLE => Self::Double(f64::from_le_bytes(any.array()?)),
            ARRAY => Self::Array(Array(any.run()?)),
            _ => return None,
        })
    }
}

/// What [`Writer::sized`] wrote.
#[inline]
fn sized<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let len = u32::from_ne_bytes(reader.array()?);
    reader.take(len as usize)
}

#[inline]
fn text<'a>(reader: &mut Reader<'a>) -> Option<&'a str> {
    std::str::from_utf8(sized(reader)?).ok()
}
