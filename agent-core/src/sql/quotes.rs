//! Where a text in double quotes is a value. SQLite reads it as one where no such column exists, and some of the
//! systems behind `Generic` always do: such a text stays only in places where names stand.

use super::keyword::{self, Mark};
use super::scan::{self, step};

/// Parentheses deeper than this hold values.
const MAX_DEPTH: usize = 32;

/// Every unqualified text is a value.
const VALUES: u16 = 1;
/// Parentheses that open here hold values: behind `VALUES`, `PRAGMA`.
const ROWS: u16 = 2;
/// Behind a comparison.
const SIDE: u16 = 4;
/// The next `AND` belongs to a `BETWEEN`.
const BETWEEN: u16 = 8;
/// A word before a parenthesis is a function.
const EXPRESSION: u16 = 16;
/// Arguments of a function, or a row: if there are several, they are values.
const ARGUMENTS: u16 = 32;
/// The list of a `SELECT`, its `FROM` not yet seen.
const LIST: u16 = 64;
/// Whether that `FROM` follows has been looked for,
const LOOKED: u16 = 128;
/// and none was found: there are no columns.
const FROMLESS: u16 = 256;
/// The targets of `UPDATE … SET`.
const TARGETS: u16 = 512;

#[derive(Clone, Copy)]
struct Level {
    flags: u16,
    /// The level whose `SELECT` this is a part of.
    select: u8,
}

/// What stands before a token, as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// The word that was noted last.
    Word,
    Punct(u8),
    Operand,
}

/// The clauses that the lexer is in, by depth of parentheses.
pub(super) struct Clauses {
    levels: [Level; MAX_DEPTH],
    depth: usize,
    mark: Mark,
    /// One argument of a function may be a value as well as several.
    strict: bool,
    /// How many bytes may still be looked ahead for a `FROM`.
    budget: usize,
}

impl Clauses {
    /// Of a text of `len` bytes; `strict` where a text in double quotes is a value in any function.
    pub(super) fn new(len: usize, strict: bool) -> Self {
        let levels = [Level { flags: 0, select: 0 }; MAX_DEPTH];
        Self { levels, depth: 0, mark: Mark::None, strict, budget: 2 * len }
    }

    #[inline]
    fn level(&mut self) -> Option<&mut Level> {
        self.levels.get_mut(self.depth)
    }

    /// A word, directly behind the one noted before or not.
    pub(super) fn word(&mut self, word: &[u8], behind_word: bool) {
        let mut mark = keyword::mark(word);
        let distinct = behind_word && self.mark == Mark::Distinct;
        let depth = self.depth as u8;
        if let Some(level) = self.levels.get_mut(self.depth) {
            let flags = &mut level.flags;
            match mark {
                Mark::None | Mark::In | Mark::Not | Mark::Distinct | Mark::Key => {}
                Mark::Compares => *flags |= SIDE,
                Mark::Between => *flags |= SIDE | BETWEEN,
                Mark::Logic if *flags & BETWEEN != 0 && keyword::is(word, "AND") => {
                    *flags &= !BETWEEN;
                    mark = Mark::Compares;
                }
                // `IS DISTINCT FROM`.
                Mark::From if distinct && *flags & SIDE != 0 => mark = Mark::Compares,
                // A `CASE` may stand between the two.
                Mark::When => *flags = *flags & !SIDE | EXPRESSION,
                Mark::Logic => *flags = *flags & !(SIDE | BETWEEN) | EXPRESSION,
                Mark::As | Mark::On => {
                    *flags &= !(SIDE | BETWEEN | if mark == Mark::On { ROWS } else { 0 });
                }
                Mark::Select => {
                    *flags = EXPRESSION | LIST;
                    level.select = depth;
                }
                Mark::Values => *flags = *flags & VALUES | ROWS,
                Mark::Set => *flags = *flags & VALUES | EXPRESSION | TARGETS,
                Mark::Where | Mark::By | Mark::Join => *flags = *flags & VALUES | EXPRESSION,
                Mark::From | Mark::Clause => *flags &= VALUES,
            }
        }
        self.mark = mark;
    }

    pub(super) fn punct(&mut self, b: u8, left: Left) {
        match b {
            b'(' => self.open(left),
            b')' => self.depth = self.depth.saturating_sub(1),
            b';' => {
                self.depth = 0;
                self.levels[0] = Level { flags: 0, select: 0 };
            }
            b',' => {
                let strict = self.strict;
                if let Some(level) = self.level() {
                    level.flags &= !(SIDE | BETWEEN);
                    if strict && level.flags & ARGUMENTS != 0 {
                        level.flags |= VALUES;
                    }
                }
            }
            b'=' | b'<' | b'>' | b'!' | b'|' | b'~' => {
                if let Some(level) = self.level() {
                    level.flags |= SIDE;
                }
            }
            _ => {}
        }
    }

    fn open(&mut self, left: Left) {
        let mark = if left == Left::Word { Some(self.mark) } else { None };
        if let Some(&Level { flags, select }) = self.levels.get(self.depth) {
            let mut inside = flags & (VALUES | LIST);
            if flags & (ROWS | SIDE) != 0 {
                inside |= VALUES;
            }
            inside |= match mark {
                Some(Mark::In | Mark::Values) => VALUES,
                Some(Mark::None) if flags & EXPRESSION != 0 => EXPRESSION | ARGUMENTS,
                Some(Mark::Logic | Mark::Not | Mark::When | Mark::Where) => EXPRESSION | ARGUMENTS,
                None => flags & (EXPRESSION | ARGUMENTS),
                _ => flags & EXPRESSION,
            };
            if let Some(level) = self.levels.get_mut(self.depth + 1) {
                *level = Level { flags: inside, select };
            }
        }
        self.depth += 1;
    }

    /// Whether the unqualified text in double quotes that ends at `end` stands where a value would.
    pub(super) fn is_value(&mut self, bytes: &[u8], end: usize, left: Left) -> bool {
        let Some(&Level { flags, select }) = self.levels.get(self.depth) else { return true };
        let mark = if left == Left::Word { Some(self.mark) } else { None };
        if flags & (VALUES | SIDE) != 0
            || matches!(
                mark,
                Some(Mark::Compares | Mark::Between | Mark::In | Mark::Not | Mark::When | Mark::Key)
            )
        {
            return true;
        }
        if self.strict && flags & ARGUMENTS != 0 && self.is_first_argument(bytes, end) {
            return true;
        }
        let target = flags & TARGETS != 0 && (left == Left::Punct(b',') || mark == Some(Mark::Set));
        if !target && faces_name(bytes, end) {
            return true;
        }
        flags & LIST != 0 && self.is_fromless(bytes, end, usize::from(select))
    }

    /// Whether more arguments follow what ends at `at`, of this level or of one around it.
    fn is_first_argument(&self, bytes: &[u8], mut at: usize) -> bool {
        let mut depth = self.depth;
        loop {
            at = skip_suffixes(bytes, at, 0);
            let Some(level) = self.levels.get(depth) else { return false };
            match bytes.get(at) {
                Some(b',') => return level.flags & ARGUMENTS != 0,
                Some(b')') if level.flags & ARGUMENTS != 0 && depth > 0 => depth -= 1,
                _ => return false,
            }
            at += 1;
        }
    }

    /// Whether the `SELECT` of this level, in whose list `at` is, has no `FROM`.
    fn is_fromless(&mut self, bytes: &[u8], at: usize, select: usize) -> bool {
        let depth = self.depth.saturating_sub(select);
        let Some(level) = self.levels.get_mut(select) else { return true };
        if level.flags & LOOKED == 0 {
            level.flags |= LOOKED;
            let ahead = &bytes[at..(at + self.budget).min(bytes.len())];
            let (found, read) = finds_from(ahead, depth);
            step(read);
            self.budget -= read.min(self.budget);
            if !found {
                level.flags |= FROMLESS;
            }
        }
        level.flags & FROMLESS != 0
    }
}

/// The first position from `at` that is no blank, no comment and not `parenthesis`.
fn skip(bytes: &[u8], mut at: usize, parenthesis: u8) -> usize {
    let from = at;
    loop {
        at = match (bytes.get(at), bytes.get(at + 1)) {
            (Some(b'-'), Some(b'-')) => scan::line(bytes, at, false),
            (Some(b'/'), Some(b'*')) => scan::block_comment(bytes, at + 2).unwrap_or(bytes.len()),
            (Some(&b), _) if b.is_ascii_whitespace() || b == 0x0b || b == parenthesis => at + 1,
            _ => break,
        }
    }
    step(at - from);
    at
}

fn word_end(bytes: &[u8], from: usize) -> usize {
    let is_word = |b: &&u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$' | 0x80..);
    let len = bytes[from..].iter().take_while(is_word).count();
    step(len);
    from + len
}

/// The first position from `at` that belongs neither to `COLLATE name` nor to `AS type` (of a `CAST`), nor is skipped.
fn skip_suffixes(bytes: &[u8], at: usize, parenthesis: u8) -> usize {
    let mut at = skip(bytes, at, parenthesis);
    loop {
        let end = word_end(bytes, at);
        if !keyword::is_any(&bytes[at..end], &["COLLATE", "AS"]) {
            return at;
        }
        let name = skip(bytes, end, 0);
        at = skip(bytes, word_end(bytes, name), parenthesis);
    }
}

/// Whether what ends at `at` is compared with a name: then it may be the value.
fn faces_name(bytes: &[u8], at: usize) -> bool {
    let mut at = skip_suffixes(bytes, at, b')');
    let mut compared = false;
    for _ in 0..8 {
        match bytes.get(at) {
            Some(b'=' | b'<' | b'>' | b'!' | b'~') => {
                compared = true;
                at += 1;
            }
            Some(b'|') => return bytes.get(at + 1) == Some(&b'|'),
            Some(b'"' | b'`' | b'[') => return compared,
            Some(b) if b.is_ascii_alphabetic() || matches!(b, b'_' | 0x80..) => {
                let end = word_end(bytes, at);
                let word = &bytes[at..end];
                at = end;
                if compared && !keyword::continues_comparison(word) {
                    // A word before a literal says what that is: no name, also where the literal is a `?` by now.
                    let is_prefix = matches!(bytes.get(end), Some(b'\'' | b'?'));
                    return !keyword::is_no_column(word) && !is_prefix;
                } else if !compared {
                    if keyword::compares(word) {
                        compared = true;
                    } else if !keyword::is(word, "NOT") {
                        return false;
                    }
                }
            }
            _ => return false,
        }
        at = skip(bytes, at, if compared { b'(' } else { b')' });
    }
    // Nobody writes such a thing with columns.
    true
}

/// Whether a `FROM` follows on the level `depth` above the text's beginning, before the list ends; and how many bytes
/// it took to know.
fn finds_from(bytes: &[u8], mut depth: usize) -> (bool, usize) {
    let mut at = 0;
    let mut distinct = false;
    while let Some(&b) = bytes.get(at) {
        at = match b {
            b'\'' | b'"' | b'`' | b'[' => {
                let close = if b == b'[' { b']' } else { b };
                memchr::memchr(close, &bytes[at + 1..]).map_or(bytes.len(), |found| at + found + 2)
            }
            b'-' if bytes.get(at + 1) == Some(&b'-') => scan::line(bytes, at, false),
            b'/' if bytes.get(at + 1) == Some(&b'*') => {
                scan::block_comment(bytes, at + 2).unwrap_or(bytes.len())
            }
            b'(' => {
                depth += 1;
                at + 1
            }
            b')' if depth == 0 => return (false, at),
            b')' => {
                depth -= 1;
                at + 1
            }
            b';' => return (false, at),
            // No keyword behind it.
            b'.' => word_end(bytes, at + 1),
            b if b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$' | 0x80..) => {
                let end = word_end(bytes, at);
                let word = &bytes[at..end];
                if depth == 0 && keyword::is(word, "FROM") && !distinct {
                    return (true, end);
                }
                if depth == 0 && keyword::ends_list(word) {
                    return (false, end);
                }
                distinct = keyword::is(word, "DISTINCT");
                end
            }
            _ => at + 1,
        };
    }
    (false, at)
}
