//! Text of one setting to its value: lists, pairs, percent-encoding, sizes.

/// The entries of a comma list, trimmed, empty ones left out.
pub fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

/// The `key=value` pairs of a comma list, percent-decoded, with their one-based place; `Err` for an entry that is
/// none. Everything after the first `=` is the value.
pub fn pairs(text: &str) -> impl Iterator<Item = Result<(usize, String, String), usize>> {
    list(text).enumerate().map(|(place, entry)| {
        let place = place + 1;
        let (key, value) = entry.split_once('=').ok_or(place)?;
        let (key, value) = (percent_decode(key.trim()), percent_decode(value.trim()));
        match (key, value) {
            (Some(key), Some(value)) if !key.is_empty() => Ok((place, key, value)),
            _ => Err(place),
        }
    })
}

/// `%41` is `A`; a `%` without two digits stands for itself. `None` where the result is not UTF-8.
pub fn percent_decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, more @ ..] = rest {
        let pair = match more {
            [high, low, ..] if *first == b'%' => hex(*high).zip(hex(*low)),
            _ => None,
        };
        if let Some((high, low)) = pair {
            out.push(high << 4 | low);
            rest = &more[2..];
        } else {
            out.push(*first);
            rest = more;
        }
    }
    String::from_utf8(out).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// A whole number of bytes, or of `KiB`, `MiB`, `GiB`.
pub fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    whole(digits.trim_end())?.checked_mul(unit)
}

/// Decimal digits, nothing else.
pub fn whole(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// `text` as it may stand in one line on a terminal: short, control characters replaced.
pub fn shown(text: &str) -> String {
    const MAX: usize = 80;
    let mut out: String =
        text.chars().take(MAX).map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect();
    if text.chars().nth(MAX).is_some() {
        out.push('…');
    }
    out
}

/// Base 64 of RFC 4648 section 4, with padding.
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let word = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            if place <= chunk.len() {
                out.push(char::from(DIGITS[(word >> (18 - 6 * place) & 63) as usize]));
            } else {
                out.push('=');
            }
        }
    }
    out
}
