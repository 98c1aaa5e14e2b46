//! The few rules of protobuf's wire format that a record and a request share, and OTLP's `KeyValue`.
//!
//! <https://protobuf.dev/programming-guides/encoding/>

use crate::record::Value;

/// Wire type of integers and booleans.
pub const VARINT: u8 = 0;
/// Wire type of eight bytes, little-endian.
pub const FIXED64: u8 = 1;
/// Wire type of what has a length.
pub const BYTES: u8 = 2;
/// Wire type of four bytes, little-endian.
pub const FIXED32: u8 = 5;

/// The tag of a field up to 15, which is one byte.
pub const fn tag(field: u8, wire: u8) -> u8 {
    field << 3 | wire
}

/// Appends an integer.
#[inline]
pub fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The bytes of an integer, 1 to 10.
#[inline]
pub fn varint_len(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

/// The bytes of a field with a tag of one byte that holds so many.
#[inline]
pub fn field_len(bytes: usize) -> usize {
    1 + varint_len(bytes as u64) + bytes
}

/// Appends a field of bytes.
#[inline]
pub fn bytes(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a field of eight bytes.
#[inline]
pub fn fixed64(out: &mut Vec<u8>, field: u8, value: u64) {
    let mut run = [tag(field, FIXED64); 9];
    run[1..].copy_from_slice(&value.to_le_bytes());
    out.extend_from_slice(&run);
}

/// The most bytes of key and text together whose attribute has lengths of one byte only.
pub(crate) const SHORT: usize = 0x7f - 6;

/// Appends an attribute: OTLP's `KeyValue`, under the tag of its field in what encloses it.
#[inline]
pub fn attribute(out: &mut Vec<u8>, tag_: u8, key: &str, value: Value<'_>) {
    if let Value::Str(text) = value
        && key.len() + text.len() <= SHORT
    {
        // The commonest attribute by far: every length is one byte, room is asked for once.
        let (key, text) = (key.as_bytes(), text.as_bytes());
        let (k, v) = (key.len() as u8, text.len() as u8);
        out.reserve(key.len() + text.len() + 8);
        out.extend_from_slice(&[tag_, k + v + 6, tag(1, BYTES), k]);
        out.extend_from_slice(key);
        out.extend_from_slice(&[tag(2, BYTES), v + 2, tag(1, BYTES), v]);
        out.extend_from_slice(text);
        return;
    }
    if let Value::Int(int @ 0x80..0x20_0000) = value
        && key.len() <= SHORT
    {
        // A status code, a port: two bytes, or three.
        let (k, v) = (key.len() as u8, if int < 0x4000 { 2 } else { 3 });
        let int = [int as u8 | 0x80, (int >> 7) as u8 | u8::from(v > 2) << 7, (int >> 14) as u8];
        out.reserve(key.len() + 11);
        out.extend_from_slice(&[tag_, k + v as u8 + 5, tag(1, BYTES), k]);
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(&[tag(2, BYTES), v as u8 + 1, tag(3, VARINT)]);
        out.extend_from_slice(&int[..v]);
        return;
    }
    out.push(tag_);
    varint(out, (field_len(key.len()) + field_len(value_len(value))) as u64);
    bytes(out, tag(1, BYTES), key.as_bytes());
    any_value(out, tag(2, BYTES), value);
}

/// The bytes that OTLP's `AnyValue` of it has.
#[inline]
fn value_len(value: Value<'_>) -> usize {
    match value {
        Value::Str(text) => field_len(text.len()),
        Value::Int(int) => 1 + varint_len(int as u64),
        Value::Double(_) => 9,
        Value::Bool(_) => 2,
        Value::Array(items) => field_len(items.0.len()),
    }
}

/// Appends OTLP's `AnyValue`, under the tag of its field in what encloses it.
#[inline]
fn any_value(out: &mut Vec<u8>, tag_: u8, value: Value<'_>) {
    out.push(tag_);
    varint(out, value_len(value) as u64);
    match value {
        Value::Str(text) => bytes(out, tag(1, BYTES), text.as_bytes()),
        Value::Bool(bool) => out.extend_from_slice(&[tag(2, VARINT), u8::from(bool)]),
        Value::Int(int) => {
            out.push(tag(3, VARINT));
            varint(out, int as u64);
        }
        Value::Double(double) => fixed64(out, 4, double.to_bits()),
        Value::Array(items) => bytes(out, tag(5, BYTES), items.0),
    }
}

/// Appends a value as one of OTLP's `ArrayValue`.
pub fn array_item(out: &mut Vec<u8>, value: Value<'_>) {
    any_value(out, tag(1, BYTES), value);
}

/// Reads what was written. Whatever the bytes are, it ends and never panics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    #[inline]
    pub fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }

    #[inline]
    pub fn byte(&mut self) -> Option<u8> {
        let (first, tail) = self.0.split_first()?;
        self.0 = tail;
        Some(*first)
    }

    #[inline]
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    #[inline]
    pub fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// What has a length before it.
    #[inline]
    pub fn run(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.varint()?).ok()?;
        self.take(len)
    }

    #[inline]
    pub fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.run()?).ok()
    }

    /// The field of that tag, which has a length.
    #[inline]
    pub fn field(&mut self, tag: u8) -> Option<Self> {
        if self.byte()? != tag {
            return None;
        }
        self.run().map(Reader)
    }

    /// The text of all that is left.
    pub fn rest(self) -> Option<&'a str> {
        std::str::from_utf8(self.0).ok()
    }
}
