//! The one lexer. It never fails: a byte that means nothing is a [`Kind::Punct`].

use super::Dialect;
use super::keyword;
use super::quotes::{Clauses, Left};
use super::scan::{self, Backslash, Bracket, Ending, step};
use super::secrets::Secrets;

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

pub(super) struct Lexer<'t> {
    bytes: &'t [u8],
    at: usize,
    dialect: Dialect,
    before: Before,
    /// Where the last token that is not a comment ended.
    before_end: usize,
    /// The last punctuation, while it is the last token; else 0.
    punct: u8,
    /// Where the last string with escapes ended, which the next line may continue.
    escaped_end: usize,
    /// A text in double quotes may be a value.
    doubtful: bool,
    clauses: Clauses,
    secrets: Secrets,
    /// No quote stands ahead.
    quoteless: bool,
    /// Up to here no quote stands in what may be a comment.
    quoteless_to: usize,
    /// From here on neither a quote nor a digit stands ahead.
    valueless_from: usize,
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
        let doubtful = dialect.double_quotes_may_be_strings();
        let generic = dialect == Dialect::Generic;
        Self {
            bytes: text.as_bytes(),
            at: 0,
            dialect,
            before: Before::Operator,
            before_end: 0,
            punct: 0,
            escaped_end: 0,
            doubtful,
            clauses: Clauses::new(text.len(), dialect == Dialect::Sqlite),
            secrets: Secrets::new(doubtful, generic),
            quoteless: false,
            quoteless_to: 0,
            valueless_from: usize::MAX,
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
        if self.bytes[start] >= 0x80
            && self.dialect == Dialect::Generic
            && let Some(token) = self.money(start)
        {
            return token;
        }
        if self.secrets.word(self.bytes, start, end) {
            self.before = Before::Operand;
            return Token { kind: Kind::Literal, start, end };
        }
        if self.doubtful {
            let behind_word = matches!(self.before, Before::Word(_));
            self.clauses.word(&self.bytes[start..end], behind_word);
        }
        self.before = Before::Word(start);
        Token { kind: Kind::Word, start, end }
    }

    /// SQL Server's `£100`: any currency's sign may stand before a number.
    #[cold]
    fn money(&mut self, start: usize) -> Option<Token> {
        let signed = match self.bytes[start..] {
            [0xc2, 0xa2..=0xa5, ..] => start + 2,
            [0xe2, 0x82, 0xa0..=0xbf, ..] | [0xe2, 0x83, 0x80..=0x8f, ..] | [0xe0, 0xa7, 0xb2..=0xb3, ..] => {
                start + 3
            }
            [0xef, 0xb7, 0xbc, ..] | [0xef, 0xb9, 0xa9, ..] | [0xef, 0xbf, 0xa0..=0xa6, ..] => start + 3,
            _ => return None,
        };
        let digits = signed + usize::from(matches!(self.peek(signed), b'-' | b'+' | b'.'));
        self.peek(digits).is_ascii_digit().then(|| self.literal(start, scan::number(self.bytes, digits)))
    }

    /// `E'…'`, `N'…'`, `B'…'`, `X'…'`, `U&'…'`, `Q'[…]'`, `NQ'[…]'`.
    fn prefixed(&mut self, start: usize, end: usize) -> Option<Token> {
        if self.dialect.has_triple_quotes() {
            return None;
        }
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
        let token = self.ending(start, scan::quoted(self.bytes, quote + 1, b'\'', backslash), Kind::Literal);
        if backslash == Backslash::Escapes {
            self.escaped_end = token.end;
        }
        Some(token)
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
        self.secrets.operand();
        Token { kind, start, end }
    }

    /// A name in quotes or brackets, unless a value is due.
    fn name_or_value(&mut self, ending: Ending, start: usize) -> Token {
        let Ending::Closed(end) = ending else { return self.rest(start) };
        let kind = if self.secrets.are_next() { Kind::Literal } else { Kind::Quoted };
        self.secrets.name();
        self.before = Before::Operand;
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
        if self.doubtful {
            self.clauses.punct(b, self.left());
        }
        self.secrets.punct(b);
        self.before = if matches!(b, b')' | b']') { Before::Operand } else { Before::Operator };
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
                self.name_or_value(ending, start)
            }
            b'[' if self.dialect.has_brackets() => self.bracket(start),
            b'.' if next.is_ascii_digit() && !self.after_name(start) => {
                self.literal(start, scan::number(self.bytes, start))
            }
            b'-' if next == b'-' && self.line_comment(start) => self.rest_of_line(start),
            b'-' | b'+' if self.signs_number(start) => {
                self.literal(start, scan::number(self.bytes, start + 1))
            }
            b'/' if next == b'*' => self.block_comment(start),
            b'/' if next == b'/' && self.dialect == Dialect::Generic => self.two_slashes(start),
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
        if self.continues_escaped(start) {
            let ending = scan::quoted(self.bytes, start + 1, b'\'', Backslash::Escapes);
            let token = self.ending(start, ending, Kind::Literal);
            self.escaped_end = token.end;
            return token;
        }
        if self.is_triple(start, b'\'') {
            let ending = scan::triple_quoted(self.bytes, start + 3, b'\'');
            return self.ending(start, ending, Kind::Literal);
        }
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

    /// PostgreSQL reads on where only a line's end parts two strings: what is escaped in the first is in the second.
    #[inline]
    fn continues_escaped(&self, start: usize) -> bool {
        self.dialect == Dialect::PostgreSql
            && self.escaped_end != 0
            && self.before_end == self.escaped_end
            && self.bytes[self.before_end..start].iter().any(|b| matches!(b, b'\n' | b'\r'))
    }

    fn is_triple(&self, start: usize, quote: u8) -> bool {
        self.dialect.has_triple_quotes() && self.bytes[start..].starts_with(&[quote; 3])
    }

    fn double_quoted(&mut self, start: usize) -> Token {
        if self.is_triple(start, b'"') {
            let ending = scan::triple_quoted(self.bytes, start + 3, b'"');
            return self.ending(start, ending, Kind::Literal);
        }
        let ending = scan::quoted(self.bytes, start + 1, b'"', self.backslash());
        match ending {
            _ if self.dialect.double_quotes_are_strings() => self.ending(start, ending, Kind::Text),
            Ending::Closed(end) if self.doubtful && self.may_be_value(start, end) => {
                self.operand(Kind::Text, start, end)
            }
            _ => self.name_or_value(ending, start),
        }
    }

    /// Whether an identifier's quotes stand where, or hold what, a string would.
    fn may_be_value(&mut self, start: usize, end: usize) -> bool {
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
        name.first().is_some_and(u8::is_ascii_digit) || self.clauses.is_value(self.bytes, end, self.left())
    }

    #[inline]
    fn left(&self) -> Left {
        match self.before {
            Before::Word(_) => Left::Word,
            Before::Operand => Left::Operand,
            Before::Operator => Left::Punct(self.punct),
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
        // SQLite has no arrays.
        if self.dialect == Dialect::Sqlite {
            let end = memchr::memchr(b']', &self.bytes[start..]);
            step(end.unwrap_or(self.bytes.len() - start));
            let ending = end.map_or(Ending::Unclear, |end| Ending::Closed(start + end + 1));
            return self.name_or_value(ending, start);
        }
        match scan::bracket(self.bytes, start + 1) {
            Bracket::Unclear => self.rest(start),
            Bracket::Comment if !self.is_quoteless(start) => self.rest(start),
            Bracket::Name(end) if !self.subscript(start) => self.name_or_value(Ending::Closed(end), start),
            _ => self.punct(start, b'['),
        }
    }

    /// Whether no quote follows, read once.
    fn is_quoteless(&mut self, start: usize) -> bool {
        if !self.quoteless {
            step(self.bytes.len() - start);
            self.quoteless = !self.bytes[start..].iter().any(|b| matches!(b, b'\'' | b'"' | b'`'));
        }
        self.quoteless
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

    /// A comment to the line's end.
    fn rest_of_line(&mut self, start: usize) -> Token {
        let end = scan::line(self.bytes, start, self.dialect.lines_may_end_at_return());
        if self.dialect != Dialect::PostgreSql
            && self.peek(end) == b'\r'
            && end + 1 < self.bytes.len()
            && self.peek(end + 1) != b'\n'
            && self.is_told(end)
        {
            return self.rest(start);
        }
        self.comment(start, end)
    }

    /// Whether any value may stand from here on.
    #[cold]
    fn is_told(&mut self, from: usize) -> bool {
        let mut told = !self.is_quoteless(from);
        if !told && self.valueless_from > from {
            step(self.bytes.len() - from);
            told = self.bytes[from..].iter().any(|b| b.is_ascii_digit() || *b == b'$');
            if !told {
                self.valueless_from = from;
            }
        }
        told
    }

    /// Snowflake's comment, DuckDB's division: with a quote in the line the two never meet again.
    fn two_slashes(&mut self, start: usize) -> Token {
        if start >= self.quoteless_to {
            let end = scan::line(self.bytes, start, false);
            if self.bytes[start..end]
                .iter()
                .any(|b| matches!(b, b'\'' | b'"' | b'`' | b'[' | b'$' | b'*' | b'\r'))
            {
                return self.rest(start);
            }
            self.quoteless_to = end;
        }
        self.punct(start, b'/')
    }

    fn block_comment(&mut self, start: usize) -> Token {
        let text = start + 2;
        if matches!(self.dialect, Dialect::MySql | Dialect::Generic) {
            let mark = text + usize::from(self.peek(text) == b'M');
            if self.peek(mark) == b'!' {
                return self.executed(start, mark + 1);
            }
        }
        let end = match self.dialect {
            Dialect::PostgreSql => scan::nested_comment(self.bytes, text),
            Dialect::MySql | Dialect::Sqlite | Dialect::GoogleSql => scan::block_comment(self.bytes, text),
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

    /// MySQL executes it, if its version is not lower than the number; others skip it. Read on inside it; its `*/` is
    /// punctuation.
    fn executed(&mut self, start: usize, from: usize) -> Token {
        let digits = match self.bytes[from..].iter().take(7).take_while(|b| b.is_ascii_digit()).count() {
            digits @ 5..=6 => digits,
            7 => 5,
            _ => 0,
        };
        let generic = self.dialect == Dialect::Generic;
        let may_be_skipped = generic || digits > 0 || self.peek(start + 2) == b'M';
        if may_be_skipped && !scan::ends_in_step(self.bytes, from, !generic) {
            return self.rest(start);
        }
        self.before = Before::Operator;
        Token { kind: Kind::Comment, start, end: from + digits }
    }

    /// A comment in MySQL, an operator in PostgreSQL, `#temporary` elsewhere.
    fn hash(&mut self, start: usize, next: u8) -> Token {
        match self.dialect {
            Dialect::MySql | Dialect::GoogleSql => self.rest_of_line(start),
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
                if self.is_quoteless(start) {
                    self.punct(start, b'#')
                } else {
                    self.rest(start)
                }
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
