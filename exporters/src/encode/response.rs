//! What a receiver says: just enough of protobuf and JSON to read `ExportTraceServiceResponse` and gRPC's
//! `google.rpc.Status`. Whatever is malformed reads as absent; nothing here panics on any input.

use std::time::Duration;

/// The fields of a message: number, and either an integer or bytes.
struct Fields<'a>(&'a [u8]);

enum Field<'a> {
    Int(u64),
    Bytes(&'a [u8]),
    Fixed,
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

impl<'a> Fields<'a> {
    fn read(&mut self) -> Option<(u64, Field<'a>)> {
        let tag = varint(&mut self.0)?;
        let field = match tag & 7 {
            0 => Field::Int(varint(&mut self.0)?),
            1 => self.skip(8)?,
            2 => {
                let len = usize::try_from(varint(&mut self.0)?).ok()?;
                let (head, rest) = self.0.split_at_checked(len)?;
                self.0 = rest;
                Field::Bytes(head)
            }
            5 => self.skip(4)?,
            _ => return None,
        };
        Some((tag >> 3, field))
    }

    fn skip(&mut self, len: usize) -> Option<Field<'a>> {
        self.0 = self.0.get(len..)?;
        Some(Field::Fixed)
    }
}

/// All fields, or nothing if the message is malformed anywhere.
fn fields(message: &[u8]) -> Option<Vec<(u64, Field<'_>)>> {
    let mut reader = Fields(message);
    let mut fields = Vec::new();
    while !reader.0.is_empty() {
        fields.push(reader.read()?);
    }
    Some(fields)
}

fn bytes_of<'a>(fields: &[(u64, Field<'a>)], number: u64) -> Option<&'a [u8]> {
    fields.iter().rev().find_map(|(n, field)| match field {
        Field::Bytes(bytes) if *n == number => Some(*bytes),
        _ => None,
    })
}

fn int_of(fields: &[(u64, Field<'_>)], number: u64) -> u64 {
    let found = fields.iter().rev().find_map(|(n, field)| match field {
        Field::Int(int) if *n == number => Some(*int),
        _ => None,
    });
    found.unwrap_or(0)
}

/// What `ExportTraceServiceResponse` says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct PartialSuccess {
    /// `partial_success.rejected_spans`.
    pub(crate) rejected: u64,
    /// `partial_success.error_message`.
    pub(crate) message: String,
}

/// Reads the protobuf form; `None` is not one.
pub(crate) fn partial_success(message: &[u8]) -> Option<PartialSuccess> {
    let Some(partial) = bytes_of(&fields(message)?, 1) else {
        return Some(PartialSuccess::default());
    };
    let partial = fields(partial)?;
    let message = bytes_of(&partial, 2).unwrap_or_default();
    Some(PartialSuccess {
        // A signed field: a negative count means nothing.
        rejected: i64::try_from(int_of(&partial, 1)).map_or(0, i64::unsigned_abs),
        message: String::from_utf8_lossy(message).into_owned(),
    })
}

/// Reads the JSON form as far as it matters; `None` is not an object.
pub(crate) fn partial_success_json(body: &[u8]) -> Option<PartialSuccess> {
    let text = std::str::from_utf8(body).ok()?.trim();
    if text.is_empty() {
        return Some(PartialSuccess::default());
    }
    if !(text.starts_with('{') && text.ends_with('}')) {
        return None;
    }
    let rejected = text.split("\"rejectedSpans\"").nth(1).and_then(|rest| {
        let rest = rest.trim_start().strip_prefix(':')?.trim_start().trim_start_matches('"');
        rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())].parse().ok()
    });
    Some(PartialSuccess { rejected: rejected.unwrap_or(0), message: String::new() })
}

/// `RetryInfo.retry_delay` in a `grpc-status-details-bin` trailer.
pub(crate) fn retry_info(trailer: &str) -> Option<Duration> {
    let status = base64(trailer)?;
    for (number, field) in fields(&status)? {
        let (3, Field::Bytes(any)) = (number, field) else { continue };
        let any = fields(any)?;
        if bytes_of(&any, 1).is_some_and(|url| url.ends_with(b"google.rpc.RetryInfo")) {
            let info = fields(bytes_of(&any, 2).unwrap_or_default())?;
            let delay = fields(bytes_of(&info, 1).unwrap_or_default())?;
            let nanos = u32::try_from(int_of(&delay, 2)).unwrap_or(0).min(999_999_999);
            return Some(Duration::new(i64::try_from(int_of(&delay, 1)).unwrap_or(0).unsigned_abs(), nanos));
        }
    }
    None
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut have) = (0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        have += 6;
        if have >= 8 {
            have -= 8;
            bytes.push((bits >> have) as u8);
        }
    }
    Some(bytes)
}

/// `Retry-After`: seconds, or a date, which `now` (seconds since the epoch) makes a delay.
/// <https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3>
pub(crate) fn retry_after(value: &str, now: u64) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    Some(Duration::from_secs(http_date(value)?.saturating_sub(now)))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` as seconds since the epoch.
fn http_date(value: &str) -> Option<u64> {
    let parts: Vec<&str> = value.strip_suffix(" GMT")?.split_once(", ")?.1.split([' ', ':']).collect();
    let [day, month, year, hour, minute, second] = parts.try_into().ok()?;
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let number = |text: &str| text.parse::<u64>().ok();
    let (day, year) = (number(day)?, number(year).filter(|year| (1970..10_000).contains(year))?);
    // Days of a year that begins in March, so that the leap day is the last one.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day.checked_sub(1)?;
    let days = days.checked_sub(719_468)?;
    Some(days * 86_400 + number(hour)? * 3_600 + number(minute)? * 60 + number(second)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after("120", 0), Some(Duration::from_secs(120)));
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(http_date("Thu, 29 Feb 2024 00:00:00 GMT"), Some(1_709_164_800));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_770), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_999), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", 0), None);
    }

    #[test]
    fn a_partial_success_is_read_in_both_forms() {
        let message = [0x0a, 6, 0x08, 5, 0x12, 2, b'n', b'o'];
        let expected = PartialSuccess { rejected: 5, message: "no".into() };
        assert_eq!(partial_success(&message), Some(expected));
        assert_eq!(partial_success(b""), Some(PartialSuccess::default()));
        assert_eq!(partial_success(b"<html>"), None);
        let json = br#"{"partialSuccess":{"rejectedSpans":"17","errorMessage":"x"}}"#;
        assert_eq!(partial_success_json(json).map(|p| p.rejected), Some(17));
        assert_eq!(partial_success_json(b"nonsense"), None);
    }

    #[test]
    fn retry_info_is_found_among_the_details() {
        // Status { code: 8, details: [Any { type_url: "t/google.rpc.RetryInfo", value: { 1: { 1: 3 } } }] }
        let url = b"t/google.rpc.RetryInfo";
        let mut any = vec![0x0a, url.len() as u8];
        any.extend_from_slice(url);
        any.extend_from_slice(&[0x12, 4, 0x0a, 2, 0x08, 3]);
        let mut status = vec![0x08, 8, 0x1a, any.len() as u8];
        status.extend_from_slice(&any);
        const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for chunk in status.chunks(3) {
            let bits =
                chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
            (0..=chunk.len()).for_each(|i| text.push(DIGITS[(bits >> (18 - 6 * i) & 63) as usize] as char));
        }
        assert_eq!(retry_info(&text), Some(Duration::from_secs(3)));
    }
}
