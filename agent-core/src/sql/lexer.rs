//! The one lexer. It never fails: a byte that means nothing is a [`Kind::Punct`].

use super::Dialect;
use super::keyword;
use super::scan::{self, Backslash, Bracket, Ending, step};

/// What a token is; white space is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Keyword or bare identifier.
    Word,
    /// Identifier in double quotes, backticks or brackets.
    Quoted,
    /// A plain quoted string that is closed. In the place of a table it is a name.
    Text,
    /// Any other literal, or the rest of a text that cannot be read with certainty.
    Literal,
    Placeholder,
    Punct(u8),
    Comment,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub kind: Kind,
    pub start: usize,
    pub end: usize,
}

/// What stood before, as far as reading the next token depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// The beginning, an operator, an opening parenthesis, a comma.
    Operator,
    /// The word from this position to `before_end`.
    Word(usize),
    /// Any other operand: a sign behind it is an operator.
    Operand,
}

/// `IDENTIFIED BY secret`: the password may stand without quotes (Oracle).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Password {
    No,
    Identified,
    Next,
    /// Seen; Oracle's `REPLACE` asks for the old one.
    Seen,
}

pub(super) struct Lexer<'t> {
    bytes: &'t [u8],
    at: usize,
    dialect: Dialect,
    before: Before,
    /// Where the last token that is not a comment ended.
    before_end: usize,
    /// The last punctuation, while it is the last token; else 0.
    punct: u8,
    /// Inside `VALUES (…)` or `IN (…)`.
    values: bool,
    password: Password,
    /// No quote stands ahead.
    quoteless: bool,
}

const WORD: u8 = 1;
const DIGIT: u8 = 2;
const BLANK: u8 = 4;
/// Bytes that are always a token of their own.
const SINGLE: u8 = 8;
/// `$` and `#` may stand inside a word, not at its start.
const INNER: u8 = 16;

const CLASS: [u8; 256] = {
    let mut table = [0; 256];
    let mut b = 0;
    while b < 256 {
        table[b] = match b as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => WORD,
            b'0'..=b'9' => DIGIT,
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => BLANK,
            b'(' | b')' | b',' | b';' | b'=' | b'*' | b'<' | b'>' | b']' | b'{' | b'}' | b'!' | b'|' => {
                SINGLE
            }
            b'$' => INNER,
            _ => 0,
        };
        b += 1;
    }
    table
};

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t str, dialect: Dialect) -> Self {
        Self {
            bytes: text.as_bytes(),
            at: 0,
            dialect,
            before: Before::Operator,
            before_end: 0,
            punct: 0,
            values: false,
            password: Password::No,
            quoteless: false,
        }
    }

    #[inline]
    pub(super) fn next(&mut self) -> Option<Token> {
        let mut start = self.at;
        while CLASS[*self.bytes.get(start)? as usize] == BLANK {
            start += 1;
        }
        step(start - self.at + 1);
        let b = self.bytes[start];
        let token = match CLASS[b as usize] {
            WORD => self.word(start),
            DIGIT => self.literal(start, scan::number(self.bytes, start)),
            SINGLE => self.punct(start, b),
            _ => self.special(start, b),
        };
        self.at = token.end;
        if token.kind != Kind::Comment {
            self.before_end = token.end;
            self.punct = if let Kind::Punct(b) = token.kind { b } else { 0 };
        }
        Some(token)
    }

    #[inline]
    fn peek(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(0)
    }

    #[inline]
    fn word(&mut self, start: usize) -> Token {
        let mut end = start + 1;
        while CLASS[self.peek(end) as usize] & (WORD | DIGIT | INNER) != 0
            || self.peek(end) == b'#' && self.dialect == Dialect::Generic
        {
            end += 1;
        }
        step(end - start);
        let len = end - start;
        if len <= 2
            && matches!(self.peek(end), b'\'' | b'&')
            && let Some(token) = self.prefixed(start, end)
        {
            return token;
        }
        self.note_word(start, end);
        if self.password == Password::Next
            && !keyword::is_any(&self.bytes[start..end], &["BY", "PASSWORD", "RANDOM", "VALUES", "REPLACE"])
        {
            let token = self.literal(start, end);
            self.password = Password::Seen;
            return token;
        }
        self.before = Before::Word(start);
        Token { kind: Kind::Word, start, end }
    }

    /// The few words that change how what follows is read.
    #[inline]
    fn note_word(&mut self, start: usize, end: usize) {
        let word = &self.bytes[start..end];
        match word.len() {
            10 if keyword::is(word, "IDENTIFIED") => self.password = Password::Identified,
            _ if self.password == Password::No || self.password == Password::Next => {}
            _ => {
                let by = if self.password == Password::Seen { "REPLACE" } else { "BY" };
                self.password = if keyword::is(word, by) { Password::Next } else { Password::No };
            }
        }
        if self.dialect.double_quotes_may_be_strings() {
            if keyword::begins_values(word) {
                self.values = true;
            } else if self.values && keyword::ends_values(word) {
                self.values = false;
            }
        }
    }

    /// `E'…'`, `N'…'`, `B'…'`, `X'…'`, `U&'…'`, `Q'[…]'`, `NQ'[…]'`.
    fn prefixed(&mut self, start: usize, end: usize) -> Option<Token> {
        let word = &self.bytes[start..end];
        let backslash = self.backslash();
        let (quote, backslash) = match (word.first()?.to_ascii_uppercase(), word.len(), self.peek(end)) {
            (b'U', 1, b'&') if self.peek(end + 1) == b'\'' => (end + 1, backslash),
            (b'E', 1, b'\'') if self.dialect != Dialect::MySql => (end, Backslash::Escapes),
            (b'N' | b'B' | b'X', 1, b'\'') => (end, backslash),
            (b'Q', 1, b'\'') | (b'N', 2, b'\'')
                if self.dialect == Dialect::Generic && word[word.len() - 1].eq_ignore_ascii_case(&b'q') =>
            {
                return Some(self.ending(start, scan::oracle_quoted(self.bytes, end + 1), Kind::Literal));
            }
            _ => return None,
        };
        Some(self.ending(start, scan::quoted(self.bytes, quote + 1, b'\'', backslash), Kind::Literal))
    }

    fn backslash(&self) -> Backslash {
        match self.dialect {
            Dialect::Generic => Backslash::Unknown,
            dialect if dialect.has_backslash_escapes() => Backslash::Escapes,
            _ => Backslash::Plain,
        }
    }

    fn literal(&mut self, start: usize, end: usize) -> Token {
        self.operand(Kind::Literal, start, end)
    }

    #[inline]
    fn operand(&mut self, kind: Kind, start: usize, end: usize) -> Token {
        self.before = Before::Operand;
        self.password = Password::No;
        Token { kind, start, end }
    }

    fn ending(&mut self, start: usize, ending: Ending, kind: Kind) -> Token {
        match ending {
            Ending::Closed(end) => self.operand(kind, start, end),
            Ending::Unclear => self.rest(start),
        }
    }

    /// One literal to the end of the text.
    fn rest(&mut self, start: usize) -> Token {
        self.literal(start, self.bytes.len())
    }

    #[inline]
    fn punct(&mut self, start: usize, b: u8) -> Token {
        self.before = if matches!(b, b')' | b']') { Before::Operand } else { Before::Operator };
        if b == b';' {
            self.values = false;
            self.password = Password::No;
        }
        Token { kind: Kind::Punct(b), start, end: start + 1 }
    }

    fn comment(&mut self, start: usize, end: usize) -> Token {
        Token { kind: Kind::Comment, start, end }
    }

    #[inline]
    fn special(&mut self, start: usize, b: u8) -> Token {
        let next = self.peek(start + 1);
        match b {
            b'\'' => self.single_quoted(start),
            b'"' => self.double_quoted(start),
            b'`' if self.dialect.has_backticks() => {
                let ending = scan::quoted(self.bytes, start + 1, b'`', Backslash::Plain);
                self.ending(start, ending, Kind::Quoted)
            }
            b'[' if self.dialect.has_brackets() && !self.subscript(start) => self.bracket(start),
            b'.' if next.is_ascii_digit() && !self.after_name(start) => {
                self.literal(start, scan::number(self.bytes, start))
            }
            b'-' if next == b'-' && self.line_comment(start) => {
                self.comment(start, scan::line(self.bytes, start))
            }
            b'-' | b'+' if self.signs_number(start) => {
                self.literal(start, scan::number(self.bytes, start + 1))
            }
            b'/' if next == b'*' => self.block_comment(start),
            b'#' => self.hash(start, next),
            b'?' => self.operand(Kind::Placeholder, start, self.numbered(start + 1)),
            b'$' => self.dollar(start),
            b':' => self.colon(start, next),
            b'@' => self.variable(start),
            b'%' => self.percent(start, next),
            _ => self.punct(start, b),
        }
    }

    fn single_quoted(&mut self, start: usize) -> Token {
        let ending = scan::quoted(self.bytes, start + 1, b'\'', self.backslash());
        // `LIKE 'x' ESCAPE '\'` is common, and in no system anything but that one character.
        if ending == Ending::Unclear
            && self.dialect == Dialect::Generic
            && self.bytes.get(start..start + 3) == Some(b"'\\'".as_slice())
            && self.before_word().is_some_and(|word| keyword::is(word, "ESCAPE"))
        {
            return self.literal(start, start + 3);
        }
        self.ending(start, ending, Kind::Text)
    }

    fn double_quoted(&mut self, start: usize) -> Token {
        let password = self.password == Password::Next;
        let ending = scan::quoted(self.bytes, start + 1, b'"', self.backslash());
        let kind = match ending {
            Ending::Closed(_) if password => Kind::Literal,
            _ if self.dialect.double_quotes_are_strings() => Kind::Text,
            Ending::Closed(end)
                if self.dialect.double_quotes_may_be_strings() && self.may_be_value(start, end) =>
            {
                Kind::Text
            }
            _ => Kind::Quoted,
        };
        self.ending(start, ending, kind)
    }

    /// Whether an identifier's quotes stand where, or hold what, a string would.
    fn may_be_value(&self, start: usize, end: usize) -> bool {
        let name = &self.bytes[start + 1..end - 1];
        step(name.len());
        let plain = |b: &u8| {
            b.is_ascii_alphanumeric()
                || matches!(b, b'_' | b' ' | b'$' | b'#' | b'.' | b'-' | b'/' | b'"' | 0x80..)
        };
        if !name.iter().all(plain) {
            return true;
        }
        let qualifies = self.peek(end) == b'.' && !self.peek(end + 1).is_ascii_digit();
        if qualifies || (self.punct == b'.' && self.before_end == start) {
            return false;
        }
        match self.before {
            Before::Word(_) => self.before_word().is_some_and(keyword::compares),
            Before::Operand => false,
            Before::Operator => match self.punct {
                b'=' | b'<' | b'>' | b'!' | b'|' | b'~' => true,
                b'(' | b',' => self.values,
                _ => false,
            },
        }
    }

    fn before_word(&self) -> Option<&'t [u8]> {
        match self.before {
            Before::Word(start) => Some(&self.bytes[start..self.before_end]),
            _ => None,
        }
    }

    /// `a[1]` and `ARRAY[1]`, not `FROM [a]`.
    fn subscript(&self, start: usize) -> bool {
        self.before_end == start && self.before != Before::Operator
    }

    fn bracket(&mut self, start: usize) -> Token {
        match scan::bracket(self.bytes, start + 1) {
            Bracket::Name(end) => self.operand(Kind::Quoted, start, end),
            Bracket::Unclear => self.rest(start),
            Bracket::Other => self.punct(start, b'['),
        }
    }

    /// `t.5` is a part of `t`, `(.5` a number.
    fn after_name(&self, start: usize) -> bool {
        self.before_end == start && matches!(self.before, Before::Word(_))
    }

    /// MySQL asks for a blank behind `--`; elsewhere it is not needed.
    fn line_comment(&self, start: usize) -> bool {
        self.dialect != Dialect::MySql
            || self.bytes.get(start + 2).is_none_or(|b| b.is_ascii_whitespace() || b.is_ascii_control())
    }

    fn signs_number(&self, start: usize) -> bool {
        let next = self.peek(start + 1);
        if !(next.is_ascii_digit() || next == b'.' && self.peek(start + 2).is_ascii_digit()) {
            return false;
        }
        match self.before {
            Before::Operator => true,
            Before::Operand => false,
            Before::Word(_) => self.before_word().is_some_and(keyword::expects_value),
        }
    }

    fn block_comment(&mut self, start: usize) -> Token {
        let text = start + 2;
        if matches!(self.dialect, Dialect::MySql | Dialect::Generic) {
            let mark = text + usize::from(self.peek(text) == b'M');
            if self.peek(mark) == b'!' {
                // Executed: read on inside it; its `*/` is punctuation.
                let digits = self.bytes[mark + 1..].iter().take(6).take_while(|b| b.is_ascii_digit()).count();
                self.before = Before::Operator;
                return Token { kind: Kind::Comment, start, end: mark + 1 + digits };
            }
        }
        let end = match self.dialect {
            Dialect::PostgreSql => scan::nested_comment(self.bytes, text),
            Dialect::MySql | Dialect::Sqlite => scan::block_comment(self.bytes, text),
            Dialect::Generic => {
                let end = scan::block_comment(self.bytes, text);
                let inside = &self.bytes[text..end.unwrap_or(self.bytes.len())];
                step(inside.len());
                if memchr::memmem::find(inside, b"/*").is_some() {
                    return self.rest(start);
                }
                end
            }
        };
        self.comment(start, end.unwrap_or(self.bytes.len()))
    }

    /// A comment in MySQL, an operator in PostgreSQL, `#temporary` elsewhere.
    fn hash(&mut self, start: usize, next: u8) -> Token {
        match self.dialect {
            Dialect::MySql => self.comment(start, scan::line(self.bytes, start)),
            Dialect::Generic if CLASS[next as usize] == WORD || next == b'#' => {
                let mut end = start + 1;
                while CLASS[self.peek(end) as usize] & (WORD | DIGIT | INNER) != 0 || self.peek(end) == b'#' {
                    end += 1;
                }
                step(end - start);
                self.before = Before::Operand;
                Token { kind: Kind::Word, start, end }
            }
            // A comment, where `it's` is harmless, or an operator: with a quote ahead the two never meet again.
            Dialect::Generic => {
                if !self.quoteless {
                    step(self.bytes.len() - start);
                    self.quoteless = !self.bytes[start..].iter().any(|b| matches!(b, b'\'' | b'"' | b'`'));
                }
                if self.quoteless { self.punct(start, b'#') } else { self.rest(start) }
            }
            _ => self.punct(start, b'#'),
        }
    }

    /// The end of up to five digits that nothing continues; `from` itself otherwise: a parameter's number is small,
    /// a longer one is a value.
    fn numbered(&self, from: usize) -> usize {
        let digits = self.bytes[from..].iter().take(6).take_while(|b| b.is_ascii_digit()).count();
        let end = from + digits;
        let follows = self.peek(end);
        let continues = CLASS[follows as usize] & (WORD | DIGIT) != 0 || follows == b'.';
        if digits > 5 || continues { from } else { end }
    }

    fn name(&self, from: usize) -> usize {
        let mut end = from;
        if CLASS[self.peek(end) as usize] == WORD {
            while CLASS[self.peek(end) as usize] & (WORD | DIGIT | INNER) != 0 {
                end += 1;
            }
        }
        step(end - from);
        end
    }

    fn dollar(&mut self, start: usize) -> Token {
        if self.dialect.has_dollar_quotes()
            && let Some(text) = scan::dollar_tag(self.bytes, start)
        {
            let ending = scan::dollar_quoted(self.bytes, start, text);
            return self.ending(start, ending, Kind::Literal);
        }
        let end = match self.numbered(start + 1) {
            end if end > start + 1 => end,
            // `$12.50` is money.
            _ if self.peek(start + 1).is_ascii_digit() => {
                return self.literal(start, scan::number(self.bytes, start + 1));
            }
            _ if self.dialect == Dialect::Sqlite => self.name(start + 1),
            end => end,
        };
        if end > start + 1 { self.operand(Kind::Placeholder, start, end) } else { self.punct(start, b'$') }
    }

    fn colon(&mut self, start: usize, next: u8) -> Token {
        if next == b':' {
            self.before = Before::Operator;
            return Token { kind: Kind::Punct(b':'), start, end: start + 2 };
        }
        let mut end = self.name(start + 1);
        // `a[1:2]` is a slice, `= :2` a parameter.
        let slice = self.before_end == start && self.before != Before::Operator;
        if end == start + 1 && !slice && self.dialect != Dialect::PostgreSql {
            end = self.numbered(start + 1);
        }
        if end > start + 1 { self.operand(Kind::Placeholder, start, end) } else { self.punct(start, b':') }
    }

    fn variable(&mut self, start: usize) -> Token {
        let from = start + 1 + usize::from(self.peek(start + 1) == b'@');
        let end = self.name(from);
        if end > from { self.operand(Kind::Placeholder, start, end) } else { self.punct(start, b'@') }
    }

    /// `%s` and `%(name)s` of Python's drivers; `%` else.
    fn percent(&mut self, start: usize, next: u8) -> Token {
        let letter = match next {
            b'(' => {
                let end = self.name(start + 2);
                if end == start + 2 || self.peek(end) != b')' { usize::MAX } else { end + 1 }
            }
            _ => start + 1,
        };
        let is_format = self.bytes.get(letter).is_some_and(|b| matches!(b, b's' | b'b' | b't'));
        if is_format && CLASS[self.peek(letter + 1) as usize] & (WORD | DIGIT) == 0 {
            return self.operand(Kind::Placeholder, start, letter + 1);
        }
        self.punct(start, b'%')
    }
}
