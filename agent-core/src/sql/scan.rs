//! Where a token ends. Every function reads forward from `from` and returns the first position after the token.

use memchr::{memchr, memchr2, memmem};

/// What the end of a quoted token is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Closed at this position.
    Closed(usize),
    /// Not closed, or closed at different places by different readings: nothing behind it can be trusted.
    Unclear,
}

/// How backslashes before a closing quote are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backslash {
    /// As any character.
    Plain,
    /// It takes the next character's meaning.
    Escapes,
    /// Unknown: an odd number of them before a quote is [`Ending::Unclear`].
    Unknown,
}

/// Counts work in this crate's tests, where "linear" is asserted in steps; nothing otherwise.
#[inline]
pub(super) fn step(_bytes: usize) {
    #[cfg(test)]
    steps::add(_bytes);
}

#[cfg(test)]
pub(super) mod steps {
    use std::cell::Cell;

    thread_local!(static STEPS: Cell<usize> = const { Cell::new(0) });

    pub(super) fn add(bytes: usize) {
        STEPS.set(STEPS.get() + bytes);
    }

    pub(crate) fn take() -> usize {
        STEPS.replace(0)
    }
}

/// The end of a token quoted by `quote`, `from` being after the opening one; a doubled quote belongs to it.
pub(super) fn quoted(bytes: &[u8], mut from: usize, quote: u8, backslash: Backslash) -> Ending {
    if backslash == Backslash::Escapes {
        while let Some(found) = memchr2(quote, b'\\', &bytes[from..]) {
            step(found + 1);
            let at = from + found;
            if bytes[at] == b'\\' {
                from = (at + 2).min(bytes.len());
            } else if bytes.get(at + 1) == Some(&quote) {
                from = at + 2;
            } else {
                return Ending::Closed(at + 1);
            }
        }
        step(bytes.len() - from);
        return Ending::Unclear;
    }
    let mut piece = from;
    while let Some(found) = memchr(quote, &bytes[from..]) {
        step(found + 1);
        let at = from + found;
        if backslash == Backslash::Unknown {
            let slashes = bytes[piece..at].iter().rev().take_while(|&&b| b == b'\\').count();
            step(slashes);
            if slashes % 2 == 1 {
                return Ending::Unclear;
            }
        }
        if bytes.get(at + 1) == Some(&quote) {
            from = at + 2;
            piece = from;
        } else {
            return Ending::Closed(at + 1);
        }
    }
    step(bytes.len() - from);
    Ending::Unclear
}

/// The end of a number that starts at `from` with a digit or a point. Letters behind it belong to it: `0xFF`,
/// `1_000`, `10n`.
pub(super) fn number(bytes: &[u8], from: usize) -> usize {
    let hex = bytes[from] == b'0' && matches!(bytes.get(from + 1), Some(b'x' | b'X'));
    let mut point = false;
    let mut at = from;
    while let Some(&b) = bytes.get(at) {
        match b {
            b'+' | b'-' if !hex && at > from => {
                let exponent = matches!(bytes[at - 1], b'e' | b'E');
                if !exponent || !bytes.get(at + 1).is_some_and(u8::is_ascii_digit) {
                    break;
                }
            }
            b'.' if !point && bytes.get(at + 1) != Some(&b'.') => point = true,
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => {}
            _ => break,
        }
        at += 1;
    }
    step(at - from);
    at
}

/// The end of a block comment, `from` being after its `/*`; `None` where it has none.
pub(super) fn block_comment(bytes: &[u8], mut from: usize) -> Option<usize> {
    while let Some(found) = memchr(b'*', &bytes[from..]) {
        step(found + 1);
        from += found + 1;
        if bytes.get(from) == Some(&b'/') {
            return Some(from + 1);
        }
    }
    step(bytes.len() - from);
    None
}

/// As [`block_comment`] where comments nest.
pub(super) fn nested_comment(bytes: &[u8], mut from: usize) -> Option<usize> {
    let mut depth = 1;
    while let Some(found) = memchr2(b'*', b'/', &bytes[from..]) {
        step(found + 1);
        let at = from + found;
        from = at + 1;
        match (bytes[at], bytes.get(at + 1)) {
            (b'*', Some(b'/')) => {
                depth -= 1;
                from = at + 2;
                if depth == 0 {
                    return Some(from);
                }
            }
            (b'/', Some(b'*')) => {
                depth += 1;
                from = at + 2;
            }
            _ => {}
        }
    }
    step(bytes.len() - from);
    None
}

/// The line's end, its newline not included; with `carriage` a carriage return ends it too.
pub(super) fn line(bytes: &[u8], from: usize, carriage: bool) -> usize {
    let rest = &bytes[from..];
    let end = if carriage { memchr2(b'\n', b'\r', rest) } else { memchr(b'\n', rest) };
    let end = end.map_or(bytes.len(), |found| from + found);
    step(end - from);
    end
}

/// The tag of a dollar-quoted string with both dollars, `from` at its first one: the string's text starts there.
pub(super) fn dollar_tag(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from + 1;
    while let Some(&b) = bytes.get(at) {
        step(1);
        match b {
            b'$' => return Some(at + 1),
            b'0'..=b'9' if at == from + 1 => return None,
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => at += 1,
            _ => return None,
        }
    }
    None
}

/// The end of a dollar-quoted string: its tag once more.
pub(super) fn dollar_quoted(bytes: &[u8], tag_from: usize, text_from: usize) -> Ending {
    let tag = &bytes[tag_from..text_from];
    match memmem::find(&bytes[text_from..], tag) {
        Some(found) => {
            step(found);
            Ending::Closed(text_from + found + tag.len())
        }
        None => {
            step(bytes.len() - text_from);
            Ending::Unclear
        }
    }
}

/// Oracle's `q'[it's]'`, `from` being after the first quote.
pub(super) fn oracle_quoted(bytes: &[u8], from: usize) -> Ending {
    let Some(&open) = bytes.get(from) else { return Ending::Unclear };
    let close = match open {
        b'[' => b']',
        b'(' => b')',
        b'{' => b'}',
        b'<' => b'>',
        other => other,
    };
    let mut at = from + 1;
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr(close, rest)) {
        step(found + 1);
        at += found + 1;
        if bytes.get(at) == Some(&b'\'') {
            return Ending::Closed(at + 1);
        }
    }
    step(bytes.len() - from);
    Ending::Unclear
}

/// The end of GoogleSQL's `'''it's'''`, `from` being after the opening quotes.
pub(super) fn triple_quoted(bytes: &[u8], mut from: usize, quote: u8) -> Ending {
    while let Some(found) = bytes.get(from..).and_then(|rest| memchr2(quote, b'\\', rest)) {
        step(found + 1);
        let at = from + found;
        if bytes[at] == b'\\' {
            from = at + 2;
        } else if bytes[at..].starts_with(&[quote; 3]) {
            return Ending::Closed(at + 3);
        } else {
            from = at + 1;
        }
    }
    step(bytes.len().saturating_sub(from));
    Ending::Unclear
}

/// Whether reading on in a comment, `from` being inside it, and skipping it come to the same after its `*/`. With
/// `strings` it may hold closed ones in single quotes.
pub(super) fn ends_in_step(bytes: &[u8], from: usize, strings: bool) -> bool {
    let mut quotes = 0;
    let mut at = from;
    while let Some(&b) = bytes.get(at) {
        step(1);
        match (b, bytes.get(at + 1)) {
            (b'*', Some(b'/')) => break,
            (b'\'', _) if strings => quotes += 1,
            (b'\'' | b'"' | b'`' | b'#' | b'\\', _) => return false,
            (b'-', Some(b'-')) | (b'/', Some(b'*' | b'/')) => return false,
            (b'[' | b'$', _) if !strings => return false,
            _ => {}
        }
        at += 1;
    }
    quotes % 2 == 0
}

/// What stands in brackets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bracket {
    /// A name, closed at this position.
    Name(usize),
    /// An array, a subscript, a pattern: what is read token by token, and ends where a name would.
    Other,
    /// As `Other`, with what may begin a comment.
    Comment,
    /// A name with a quote in it as some systems read it, a quote that opens a string as others do.
    Unclear,
}

/// Reads `[name]` where it may as well be an array, `from` being after the bracket. In a name `]]` is one character.
pub(super) fn bracket(bytes: &[u8], from: usize) -> Bracket {
    let (mut is_name, mut comment, mut escapes) = (true, false, false);
    let (mut single, mut double, mut back) = (0, 0, 0);
    let mut at = from;
    let end = loop {
        let Some(&b) = bytes.get(at) else { break None };
        let next = bytes.get(at + 1);
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'@' | b'#' | 0x80.. => {}
            b'-' | b'/' if matches!((b, next), (b'-', Some(b'-')) | (b'/', Some(b'/' | b'*'))) => {
                comment = true
            }
            b'0'..=b'9' | b' ' | b'.' | b'$' | b'&' | b'-' | b'/' if at > from => {}
            b']' if next == Some(&b']') => {
                is_name = false;
                at += 1;
            }
            b']' => break Some(at + 1),
            b'[' => break None,
            b'\'' => single += 1,
            b'"' => double += 1,
            b'`' => back += 1,
            _ => is_name = false,
        }
        escapes |= matches!(b, b'\\' | b'#' | b'$');
        at += 1;
    };
    step(at - from);
    let kinds = [single, double, back].iter().filter(|count| **count > 0).count();
    if (single | double | back) % 2 == 1 || kinds > 1 || kinds > 0 && (escapes || comment) {
        return Bracket::Unclear;
    }
    match end {
        _ if comment => Bracket::Comment,
        Some(end) if is_name && kinds == 0 && end > from + 1 => Bracket::Name(end),
        _ => Bracket::Other,
    }
}
