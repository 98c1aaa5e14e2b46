//! W3C Trace Context, level 2: <https://www.w3.org/TR/trace-context-2/>.

use super::trim;
use crate::context::RemoteContext;
use crate::id::{SpanId, TraceId, write_hex};

/// Length of a version 00 `traceparent`.
pub const TRACE_PARENT_LEN: usize = 55;
/// Most members of a `tracestate`; with more it is dropped whole.
pub const TRACE_STATE_MEMBERS: usize = 32;
/// Most characters of a `tracestate` that travel on.
pub const TRACE_STATE_LEN: usize = 512;
/// Members longer than this go first where the whole is too long.
const LONG_MEMBER: usize = 128;

/// Reads a `traceparent`. Lower-case hexadecimal only, ids not all zero, version not `ff`; of a version after 00
/// the first four fields are taken, whatever follows them. Two headers that a server joined by a comma are none.
pub fn parse_trace_parent(header: &[u8]) -> Option<RemoteContext> {
    let header = trim(header);
    let (fields, rest) = header.split_at_checked(TRACE_PARENT_LEN)?;
    if fields[2] != b'-' || fields[35] != b'-' || fields[52] != b'-' {
        return None;
    }
    let [version] = read_hex::<1>(&fields[..2])?;
    match (version, rest.first()) {
        (0xff, _) | (0, Some(_)) => return None,
        (_, None | Some(b'-')) => {}
        (_, Some(_)) => return None,
    }
    let trace_id: TraceId = read_hex(&fields[3..35])?;
    let span_id: SpanId = read_hex(&fields[36..52])?;
    let [flags] = read_hex::<1>(&fields[53..])?;
    if trace_id == [0; 16] || span_id == [0; 8] {
        return None;
    }
    Some(RemoteContext { trace_id, span_id, flags })
}

/// Writes a version 00 `traceparent`: ASCII, no allocation.
#[inline]
pub fn write_trace_parent(context: &RemoteContext) -> [u8; TRACE_PARENT_LEN] {
    let mut out = *b"00-00000000000000000000000000000000-0000000000000000-00";
    write_hex(&context.trace_id, &mut out[3..35]);
    write_hex(&context.span_id, &mut out[36..52]);
    write_hex(&[context.flags], &mut out[53..]);
    out
}

/// Reads the `tracestate` of all its header lines: empty where there is none, where one member is malformed or
/// where there are more than 32. Members keep their order and text. What is longer than 512 characters is
/// shortened by whole members as section 3.3.1.5 says: those over 128 characters first, then from the end.
pub fn parse_trace_state<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Box<str> {
    let mut members: [&str; TRACE_STATE_MEMBERS] = [""; TRACE_STATE_MEMBERS];
    let mut count = 0;
    for line in lines {
        for member in line.split(|&byte| byte == b',') {
            let member = trim(member);
            if member.is_empty() {
                continue;
            }
            match (valid_member(member), members.get_mut(count)) {
                (Some(member), Some(slot)) => *slot = member,
                _ => return Box::default(),
            }
            count += 1;
        }
    }
    join(&members[..count])
}

fn join(members: &[&str]) -> Box<str> {
    if members.is_empty() {
        return Box::default();
    }
    let whole: usize = members.iter().map(|member| member.len() + 1).sum::<usize>() - 1;
    let skip_long = whole > TRACE_STATE_LEN;
    let mut out = String::with_capacity(whole.min(TRACE_STATE_LEN));
    for member in members {
        if skip_long && member.len() > LONG_MEMBER {
            continue;
        }
        let comma = usize::from(!out.is_empty());
        if out.len() + comma + member.len() > TRACE_STATE_LEN {
            break;
        }
        if comma == 1 {
            out.push(',');
        }
        out.push_str(member);
    }
    out.into_boxed_str()
}

/// `key=value`, section 3.3.1.3. Vendors of level 1 with `@` in the key are within level 2's grammar.
fn valid_member(member: &[u8]) -> Option<&str> {
    let equals = memchr::memchr(b'=', member)?;
    let (key, value) = (&member[..equals], &member[equals + 1..]);
    let [first, more @ ..] = key else { return None };
    let starts = first.is_ascii_lowercase() || first.is_ascii_digit();
    let goes_on = more.iter().all(|byte| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-' | b'*' | b'/' | b'@')
    });
    // A value may have spaces inside and, as the member was trimmed, never at its end.
    let printable = value.iter().all(|byte| matches!(byte, 0x20..=0x7e) && !matches!(byte, b',' | b'='));
    let sized = key.len() <= 256 && (1..=256).contains(&value.len());
    if starts && goes_on && printable && sized { std::str::from_utf8(member).ok() } else { None }
}

fn read_hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut out = [0; N];
    let mut bad = 0;
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let (high, low) = (NIBBLES[usize::from(pair[0])], NIBBLES[usize::from(pair[1])]);
        bad |= high | low;
        *byte = (high << 4) | (low & 15);
    }
    if bad & 0xf0 == 0 { Some(out) } else { None }
}

/// The value of each lower-case digit; 0xff for every other byte.
static NIBBLES: [u8; 256] = {
    let mut table = [0xff; 256];
    let mut value = 0;
    while value < 16 {
        table[b"0123456789abcdef"[value as usize] as usize] = value;
        value += 1;
    }
    table
};
