//! Operations and their targets, found by a small state per open parenthesis.

use super::lexer::{Kind, Token};
use super::verb::{self, Verb};
use super::{Dialect, MAX_SUMMARY_CHARS, Sink, keyword};

/// Parentheses deeper than this are not looked into.
const MAX_DEPTH: usize = 32;
/// Names of common table expressions that are remembered; a later one counts as a table.
const MAX_CTES: usize = 32;

/// Between statements.
const SEPARATOR: &str = "; ";

/// What the next token of a frame may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Nothing,
    /// A statement.
    Statement,
    /// After `EXPLAIN` and its options.
    Explained,
    /// The first token after a parenthesis: a query or anything else.
    Query,
    /// The first token after a parenthesis in a table's place: a query, a table, a join.
    TableOrQuery,
    /// The name of a target.
    Target,
    /// A target, or before it the words that a verb allows.
    TargetAfter(Verb),
    /// The kind of a thing, after `CREATE`, `ALTER`, `DROP`.
    ObjectKind(u8),
    /// Its name, after `IF NOT EXISTS` and the like; whether it may be in single quotes.
    ObjectName(bool),
    /// `TRANSACTION`, `WORK`.
    Transaction,
    CteName,
    CteAs,
    CteBody,
    CteNext,
}

#[derive(Clone, Copy, Debug)]
struct Frame<'a> {
    want: Want,
    verb: Verb,
    /// A comma is followed by another target.
    list: bool,
    /// `FROM` has been seen since the verb.
    from: bool,
    /// A `JOIN` has been seen: `USING` is followed by columns.
    joined: bool,
    /// Directly inside a `WITH`, as the body of this name.
    cte: Option<&'a str>,
}

const OPAQUE: Frame<'static> =
    Frame { want: Want::Nothing, verb: Verb::Opaque, list: false, from: false, joined: false, cte: None };

/// The target that was written last: parts of a qualified name may follow.
#[derive(Clone, Copy, Debug)]
struct Name {
    out_len: usize,
    chars: usize,
    start: usize,
    end: usize,
    parts: usize,
    dots: usize,
}

pub(super) struct Summarizer<'a> {
    text: &'a str,
    dialect: Dialect,
    out: &'a mut String,
    base: usize,
    chars: usize,
    full: bool,
    /// `;` since the last operation.
    next_statement: bool,
    /// Output and characters before what this statement has written.
    statement_mark: (usize, usize),
    /// What the statement before it has written.
    last_statement: std::ops::Range<usize>,
    operation_len: usize,
    frames: [Frame<'a>; MAX_DEPTH],
    depth: usize,
    name: Option<Name>,
    /// Output and characters before the names between `DELETE` and `FROM`.
    delete_mark: (usize, usize),
    ctes: Vec<&'a str>,
    cte: Option<&'a str>,
    recursive: bool,
    /// The last two words.
    words: [&'a str; 2],
    /// The body of a trigger or procedure: not ours to run.
    done: bool,
    skip_word: bool,
    /// The last token was a point: a keyword behind it is a name.
    after_dot: bool,
}

impl<'a> Summarizer<'a> {
    pub(super) fn new(text: &'a str, dialect: Dialect, out: &'a mut String) -> Self {
        let base = out.len();
        let mut frames = [OPAQUE; MAX_DEPTH];
        frames[0].want = Want::Statement;
        Self {
            text,
            dialect,
            out,
            base,
            chars: 0,
            full: false,
            next_statement: false,
            statement_mark: (base, 0),
            last_statement: base..base,
            operation_len: 0,
            frames,
            depth: 0,
            name: None,
            delete_mark: (base, 0),
            ctes: Vec::new(),
            cte: None,
            recursive: false,
            words: [""; 2],
            done: false,
            skip_word: false,
            after_dot: false,
        }
    }

    /// The length in bytes of the first operation.
    pub(super) fn finish(mut self) -> usize {
        self.end_name();
        self.end_statement();
        self.operation_len
    }

    /// Writes `piece` if it fits; nothing is written after one that did not.
    fn write(&mut self, separator: &str, piece: &str) -> bool {
        let chars = self.chars + separator.len() + piece.chars().count();
        if self.full || chars > MAX_SUMMARY_CHARS {
            self.full = true;
            return false;
        }
        self.out.push_str(separator);
        self.out.push_str(piece);
        self.chars = chars;
        true
    }

    fn operation(&mut self, word: &str) {
        let first = self.out.len() == self.base;
        let separator = match (first, self.next_statement) {
            (true, _) => "",
            (false, true) => SEPARATOR,
            (false, false) => " ",
        };
        self.next_statement = false;
        if self.write(separator, word) && first {
            self.operation_len = self.out.len() - self.base;
        }
    }

    /// A further word of the operation just written: `TABLE` of `CREATE TABLE`.
    fn operation_word(&mut self, word: &str) {
        let first = self.out.len() - self.base == self.operation_len;
        if self.write(" ", word) && first {
            self.operation_len = self.out.len() - self.base;
        }
    }

    fn target(&mut self, token: Token) {
        let name = Name {
            out_len: self.out.len(),
            chars: self.chars,
            start: token.start,
            end: token.end,
            parts: 1,
            dots: 0,
        };
        self.write(" ", &self.text[token.start..token.end]);
        self.name = Some(name);
    }

    fn undo(&mut self, (out_len, chars): (usize, usize)) {
        self.out.truncate(out_len);
        self.chars = chars;
    }

    fn end_name(&mut self) {
        let Some(name) = self.name.take() else { return };
        let text = &self.text[name.start..name.end];
        if name.parts == 1 && self.ctes.iter().any(|cte| cte.eq_ignore_ascii_case(text)) {
            self.undo((name.out_len, name.chars));
        }
    }

    /// Whether `token` continues the name before it: `schema` `.` `table`, Oracle's `table@link`.
    fn continues_name(&mut self, token: Token) -> bool {
        let Some(mut name) = self.name else { return false };
        match token.kind {
            Kind::Punct(b'.') if name.dots < 3 => name.dots += 1,
            Kind::Text if name.dots > 0 && !self.is_table(token) => return false,
            Kind::Word | Kind::Quoted | Kind::Text if name.dots > 0 => {
                let piece = &self.text[token.start..token.end];
                if !self.write(&"..."[..name.dots], piece) {
                    self.undo((name.out_len, name.chars));
                    self.name = None;
                    return true;
                }
                name = Name { dots: 0, parts: name.parts + 1, ..name };
            }
            Kind::Placeholder
                if self.dialect == Dialect::Generic && token.start == name.end && name.dots == 0 =>
            {
                let piece = &self.text[token.start..token.end];
                if !piece.starts_with('@') || !self.write("", piece) {
                    return false;
                }
                name.parts += 1;
            }
            _ => return false,
        }
        name.end = token.end;
        self.name = Some(name);
        true
    }

    /// Whether a text in a table's place is its name: in SQLite, if it looks like one.
    fn is_table(&self, token: Token) -> bool {
        let inside = self.text.as_bytes().get(token.start + 1..token.end.saturating_sub(1));
        self.dialect.tables_may_be_texts()
            && inside.is_some_and(|name| {
                !name.is_empty()
                    && name.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | 0x80..))
            })
    }

    #[inline]
    fn frame(&mut self) -> &mut Frame<'a> {
        let depth = self.depth.min(MAX_DEPTH - 1);
        &mut self.frames[depth]
    }

    fn open(&mut self) {
        let frame = self.frame();
        let (child, after) = match frame.want {
            Want::Statement => (Want::Statement, Want::Nothing),
            Want::CteBody => (Want::Statement, Want::CteNext),
            Want::Explained => (Want::Nothing, Want::Explained),
            Want::CteAs => (Want::Nothing, Want::CteAs),
            Want::TargetAfter(Verb::Select) | Want::TableOrQuery => (Want::TableOrQuery, Want::Nothing),
            _ => (Want::Query, Want::Nothing),
        };
        if frame.want == Want::TableOrQuery {
            *frame = Frame { verb: Verb::Select, list: true, from: true, ..OPAQUE };
        }
        let is_body = frame.want == Want::CteBody;
        frame.want = after;
        self.depth += 1;
        if self.depth < MAX_DEPTH {
            let cte = if is_body { self.cte.take() } else { None };
            self.frames[self.depth] = Frame { want: child, cte, ..OPAQUE };
        }
    }

    fn close(&mut self) {
        if self.depth == 0 {
            return;
        }
        if self.depth < MAX_DEPTH
            && let Some(cte) = self.frames[self.depth].cte
            && !self.ctes.contains(&cte)
        {
            self.remember(cte);
        }
        self.depth -= 1;
    }

    fn remember(&mut self, cte: &'a str) {
        if self.ctes.len() < MAX_CTES {
            self.ctes.push(cte);
        }
    }

    /// A statement that says the same as the one before it is left out: how many rows a driver puts into one text (a
    /// batch, a dump) must not make the summary.
    fn end_statement(&mut self) {
        let start = self.statement_mark.0;
        let separator = if start > self.base { SEPARATOR.len() } else { 0 };
        if self.out.len() <= start + separator {
            return;
        }
        let (before, this) = (&self.out[self.last_statement.clone()], &self.out[start + separator..]);
        if this == before || self.full && before.starts_with(this) {
            self.undo(self.statement_mark);
        } else {
            self.last_statement = start + separator..self.out.len();
            self.statement_mark = (self.out.len(), self.chars);
        }
    }

    fn next_statement(&mut self) {
        self.end_statement();
        self.depth = 0;
        self.frames[0] = Frame { want: Want::Statement, ..OPAQUE };
        self.next_statement = true;
        self.ctes.clear();
        self.cte = None;
        self.words = [""; 2];
    }

    /// The first word of a statement.
    fn statement(&mut self, word: &'a str) {
        let cte = self.frame().cte;
        let Some(verb) = verb::of(word.as_bytes()) else {
            *self.frame() = Frame { cte, ..OPAQUE };
            return;
        };
        let want = match verb {
            Verb::With => {
                self.recursive = false;
                Want::CteName
            }
            Verb::Select | Verb::Opaque | Verb::Prepare => Want::Nothing,
            Verb::Values if self.depth > 0 => {
                *self.frame() = Frame { cte, ..OPAQUE };
                return;
            }
            Verb::Values => Want::Nothing,
            Verb::Define => Want::ObjectKind(8),
            Verb::Explain => Want::Explained,
            Verb::Transaction => Want::Transaction,
            Verb::Name => Want::Target,
            verb => Want::TargetAfter(verb),
        };
        if verb != Verb::With {
            self.operation(word);
        }
        if verb == Verb::Delete {
            self.delete_mark = (self.out.len(), self.chars);
        }
        let list = matches!(verb, Verb::Update | Verb::Delete | Verb::Truncate | Verb::Lock);
        *self.frame() = Frame { want, verb, list, cte, ..OPAQUE };
    }

    /// A word where nothing special is wanted.
    fn word(&mut self, word: &'a str) {
        let bytes = word.as_bytes();
        let Frame { verb, from, joined, .. } = *self.frame();
        if verb.is_opaque() {
            return;
        }
        // `USE INDEX FOR JOIN (i)`.
        let hint = |word: &str| keyword::is_any(word.as_bytes(), &["INDEX", "KEY"]);
        let is_hint = match keyword::is(self.words[1].as_bytes(), "FOR") {
            true => hint(self.words[0]),
            false => keyword::is(bytes, "FOR") && hint(self.words[1]),
        };
        if is_hint {
            return;
        }
        match verb::clause(bytes) {
            Some(verb::Clause::Select) if verb.may_contain_query() => self.statement(word),
            Some(verb::Clause::From) if verb.has_from() && !from && !self.is_distinct_from() => {
                let frame = self.frame();
                (frame.want, frame.list, frame.from) = (Want::TargetAfter(Verb::Select), true, true);
                if verb == Verb::Delete {
                    self.undo(self.delete_mark);
                }
            }
            Some(verb::Clause::With) if matches!(verb, Verb::Insert | Verb::Define | Verb::Prepare) => {
                self.statement(word);
            }
            Some(verb::Clause::Using) if matches!(verb, Verb::Merge | Verb::Delete) && !joined => {
                let frame = self.frame();
                (frame.want, frame.list, frame.from) = (Want::TargetAfter(Verb::Select), true, true);
            }
            Some(verb::Clause::Into) if verb == Verb::InsertAll => self.frame().want = Want::Target,
            Some(verb::Clause::StraightJoin) if verb == Verb::Select && !from => {}
            Some(verb::Clause::Join | verb::Clause::StraightJoin) if verb.has_from() => {
                let frame = self.frame();
                (frame.want, frame.from, frame.joined) = (Want::TargetAfter(Verb::Select), true, true);
            }
            Some(verb::Clause::Apply) if self.dialect == Dialect::Generic && from => {
                self.frame().want = Want::TargetAfter(Verb::Select);
            }
            Some(verb::Clause::End) => self.frame().list = false,
            _ => {}
        }
    }

    /// `a IS DISTINCT FROM b`.
    fn is_distinct_from(&self) -> bool {
        keyword::is(self.words[1].as_bytes(), "DISTINCT")
            && keyword::is_any(self.words[0].as_bytes(), &["IS", "NOT"])
    }

    fn object_kind(&mut self, word: &'a str, left: u8) {
        let bytes = word.as_bytes();
        if verb::is_object(bytes) {
            self.operation_word(word);
            let relation = keyword::is_any(bytes, &["TABLE", "VIEW", "INDEX"]);
            let drops = keyword::is_any(self.words[0].as_bytes(), &["DROP"])
                || keyword::is_any(self.words[1].as_bytes(), &["DROP"]);
            self.done = verb::has_body(bytes) && !drops;
            let frame = self.frame();
            (frame.want, frame.list) = (Want::ObjectName(relation), drops);
            if !relation {
                frame.verb = Verb::Named;
            }
            if keyword::is_any(bytes, &["SYSTEM", "SESSION"]) {
                *frame = OPAQUE;
            }
        } else if left == 0 {
            *self.frame() = OPAQUE;
        } else {
            self.frame().want = Want::ObjectKind(left - 1);
        }
    }

    fn named_token(&mut self, token: Token, after_dot: bool) {
        let word = &self.text[token.start..token.end];
        let bytes = word.as_bytes();
        let is_word = token.kind == Kind::Word;
        let skip = std::mem::take(&mut self.skip_word);
        let want = self.frame().want;
        match want {
            Want::Nothing if is_word && !after_dot => self.word(word),
            Want::Nothing => {}
            Want::Statement if is_word => self.statement(word),
            Want::Explained if is_word => {
                if verb::is_explained(bytes) {
                    self.statement(word);
                }
            }
            Want::Query | Want::TableOrQuery if is_word && keyword::is_any(bytes, &["SELECT", "WITH"]) => {
                self.statement(word);
            }
            Want::TableOrQuery if is_word && keyword::is(bytes, "VALUES") => *self.frame() = OPAQUE,
            Want::TableOrQuery => {
                *self.frame() = Frame { verb: Verb::Select, list: true, from: true, ..OPAQUE };
                if token.kind != Kind::Text || self.is_table(token) {
                    self.target(token);
                }
            }
            Want::TargetAfter(verb)
                if is_word && (skip || verb.allows_before_target(bytes) || self.is_of_many(verb, bytes)) =>
            {
                self.before_target(verb, word);
            }
            Want::Target | Want::TargetAfter(_) => {
                self.frame().want = Want::Nothing;
                let holds_tables = self.frame().verb.has_from() || self.frame().verb == Verb::Insert;
                if token.kind != Kind::Text || holds_tables && self.is_table(token) {
                    self.target(token);
                }
            }
            Want::ObjectKind(left) if is_word => self.object_kind(word, left),
            Want::ObjectKind(_) => {}
            Want::ObjectName(_) if is_word && verb::before_object_name(bytes) => {}
            Want::ObjectName(_) if is_word && keyword::is(bytes, "ON") => self.frame().want = Want::Target,
            Want::ObjectName(quoted) => {
                self.frame().want = Want::Nothing;
                if token.kind != Kind::Text || quoted && self.is_table(token) {
                    self.target(token);
                }
                if self.done {
                    *self.frame() = OPAQUE;
                }
            }
            Want::Transaction if is_word => {
                self.frame().want = Want::Nothing;
                if keyword::is_any(bytes, &["TRANSACTION", "TRAN", "WORK"]) {
                    self.operation_word(word);
                } else if keyword::is(self.words[1].as_bytes(), "BEGIN") {
                    self.statement(word);
                }
            }
            Want::CteName => self.cte_name(word, is_word),
            Want::CteAs if is_word && keyword::is(bytes, "AS") => self.frame().want = Want::CteBody,
            Want::CteNext if is_word && verb::of(bytes).is_some() => self.statement(word),
            Want::CteAs | Want::CteBody | Want::CteNext => {}
            _ => self.frame().want = Want::Nothing,
        }
        if is_word {
            self.words = [self.words[1], word];
        }
    }

    /// `ALL` and `FIRST` of Oracle's insert into many tables.
    fn is_of_many(&self, verb: Verb, word: &[u8]) -> bool {
        verb == Verb::Insert && self.dialect == Dialect::Generic && keyword::is_any(word, &["ALL", "FIRST"])
    }

    /// Words between a verb and its target.
    fn before_target(&mut self, verb: Verb, word: &'a str) {
        let bytes = word.as_bytes();
        if keyword::is(bytes, "OR") {
            self.skip_word = true;
        } else if keyword::is_any(bytes, &["INTO", "OVERWRITE"]) {
            self.frame().want = Want::Target;
        } else if keyword::is_any(bytes, &["ALL", "FIRST"]) {
            let frame = self.frame();
            (frame.verb, frame.want) = (Verb::InsertAll, Want::Nothing);
        } else if keyword::is(bytes, "FROM") {
            let frame = self.frame();
            (frame.want, frame.from) = (Want::TargetAfter(Verb::Select), true);
        } else if keyword::is_any(bytes, &["TABLE", "TABLES"]) && matches!(verb, Verb::Truncate | Verb::Lock)
        {
            self.operation_word(word);
        } else if keyword::is(bytes, "IMMEDIATE") {
            *self.frame() = OPAQUE;
        }
    }

    fn cte_name(&mut self, word: &'a str, is_word: bool) {
        if is_word && keyword::is(word.as_bytes(), "RECURSIVE") {
            self.recursive = true;
            return;
        }
        // Its own body may name it: always where it recurses, and without the keyword where none is asked for.
        if self.recursive || matches!(self.dialect, Dialect::Generic | Dialect::Sqlite) {
            self.remember(word);
        }
        self.cte = Some(word);
        self.frame().want = Want::CteAs;
    }
}

impl Sink for Summarizer<'_> {
    fn token(&mut self, token: Token) {
        if token.kind == Kind::Comment || self.full {
            return;
        }
        let after_dot = std::mem::replace(&mut self.after_dot, token.kind == Kind::Punct(b'.'));
        if self.continues_name(token) {
            return;
        }
        let named = self.name.is_some();
        self.end_name();
        if self.done && (named || self.frame().want == Want::Nothing) {
            return;
        }
        if self.depth >= MAX_DEPTH && !matches!(token.kind, Kind::Punct(b'(' | b')' | b';')) {
            return;
        }
        match token.kind {
            Kind::Word | Kind::Quoted | Kind::Text => self.named_token(token, after_dot),
            Kind::Punct(b'(') => self.open(),
            Kind::Punct(b')') => self.close(),
            Kind::Punct(b';') => self.next_statement(),
            Kind::Punct(b',') => {
                let frame = self.frame();
                match frame.want {
                    Want::CteNext => frame.want = Want::CteName,
                    Want::Nothing if frame.list => {
                        frame.want = if frame.from { Want::TargetAfter(Verb::Select) } else { Want::Target };
                    }
                    _ => {}
                }
            }
            // `{? = call p}`, `EXEC @result = p`.
            Kind::Punct(b'{' | b'}' | b'=') | Kind::Placeholder
                if matches!(self.frame().want, Want::Statement | Want::TargetAfter(Verb::Call)) => {}
            Kind::Punct(_) | Kind::Placeholder | Kind::Literal => {
                let frame = self.frame();
                if !matches!(frame.want, Want::Explained | Want::ObjectKind(_) | Want::CteNext) {
                    frame.want = Want::Nothing;
                }
            }
            Kind::Comment => {}
        }
    }
}
