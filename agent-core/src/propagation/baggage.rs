//! W3C Baggage, carried through as text: <https://www.w3.org/TR/baggage/>.
//!
//! We neither read nor change what the members say: the members that follow the grammar go on as they came, in
//! their order, as many as the limits allow; the others go no further.

use super::trim;

/// Most bytes that travel on; a member that would not fit ends the list.
pub const MAX_BYTES: usize = 8192;
/// Most members that travel on.
pub const MAX_MEMBERS: usize = 180;

/// The baggage of all its header lines, or an empty text. Bounded work and memory, whatever comes in.
pub fn parse<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Box<str> {
    let mut out = String::new();
    let mut count = 0;
    for line in lines {
        for member in line.split(|&byte| byte == b',') {
            let member = trim(member);
            if member.is_empty() || member.len() > MAX_BYTES {
                continue;
            }
            let Some(text) = valid_member(member) else { continue };
            if count == MAX_MEMBERS || out.len() + text.len() + usize::from(count > 0) > MAX_BYTES {
                return out.into_boxed_str();
            }
            if count > 0 {
                out.push(',');
            } else {
                out.reserve_exact(line.len().min(MAX_BYTES));
            }
            out.push_str(text);
            count += 1;
        }
    }
    out.into_boxed_str()
}

/// `key=value` with optional `;property` or `;property=value`, blanks allowed around each.
fn valid_member(member: &[u8]) -> Option<&str> {
    let mut parts = member.split(|&byte| byte == b';');
    let first = parts.next()?;
    let equals = memchr::memchr(b'=', first)?;
    let sound = is_token(trim(&first[..equals]))
        && is_value(trim(&first[equals + 1..]))
        && parts.all(|property| match memchr::memchr(b'=', property) {
            Some(equals) => is_token(trim(&property[..equals])) && is_value(trim(&property[equals + 1..])),
            None => is_token(trim(property)),
        });
    if sound { std::str::from_utf8(member).ok() } else { None }
}

/// `token` of RFC 9110 section 5.6.2.
fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes.iter().all(|byte| {
            byte.is_ascii_alphanumeric()
                || matches!(
                    byte,
                    b'!' | b'#'
                        | b'$'
                        | b'%'
                        | b'&'
                        | b'\''
                        | b'*'
                        | b'+'
                        | b'-'
                        | b'.'
                        | b'^'
                        | b'_'
                        | b'`'
                        | b'|'
                        | b'~'
                )
        })
}

/// `baggage-octet`: printable ASCII without space, quote, comma, semicolon and backslash.
fn is_value(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e))
}
