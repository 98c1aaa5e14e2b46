//! SQL text made fit to be shown: `db.query.text` without its literals and the low-cardinality `db.query.summary`
//! (OpenTelemetry semantic conventions 1.44, "Sanitization of `db.query.text`" and "Generating a summary of the
//! query").
//!
//! One lexer reads tokens, no tree is built: any text is accepted, time is linear in its length, nothing recurses.
//! Where a text can be read in two ways (a backslash before a quote in an unknown dialect), everything from there to
//! the end becomes one `?`: a shorter text is better than a leaked value. A name in double quotes that may be a value
//! instead (SQLite) becomes one too.
//!
//! Comments, `NULL`, `TRUE`, `FALSE` and parameters (`?`, `$1`, `:name`, `@name`, `%s`, `%(name)s`) stay; lists
//! collapse from `IN (?, ?)` to `IN (?)`. MySQL's executable comments (`/*! … */`) are read as the statement they are.
//!
//! An [`Analysis`] costs a few nanoseconds a byte and three allocations; [`StatementCache`] makes it a look-up.

mod cache;
mod dialect;
mod keyword;
mod lexer;
mod quotes;
mod sanitize;
mod scan;
mod secrets;
mod summary;
#[cfg(test)]
mod tests;
mod verb;

pub use cache::{MAX_STATEMENT_BYTES, StatementCache};
pub use dialect::Dialect;

use std::sync::{Arc, OnceLock};

use lexer::{Lexer, Token};

use crate::fragment::Fragment;

/// The longest `db.query.summary`, in characters.
pub const MAX_SUMMARY_CHARS: usize = 255;

/// What a statement's text tells a span.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Analysis {
    /// `db.query.text`.
    pub sanitized: Box<str>,
    /// `db.query.summary`; empty where no operation was recognised.
    pub summary: Box<str>,
    operation_len: usize,
    /// What spans show of it: as it is with parameters, and sanitised.
    fragments: [OnceLock<Arc<Fragment>>; 2],
}

impl Analysis {
    /// The first operation as written, such as `SELECT` or `create table`: the summary's beginning. Empty where none
    /// was recognised.
    pub fn operation(&self) -> &str {
        self.summary.get(..self.operation_len).unwrap_or_default()
    }

    /// What a span shows of a statement that was run with parameters, or without any; `Err` the first time, when `make`
    /// has made it.
    #[inline]
    pub fn fragment(
        &self,
        parameterised: bool,
        make: impl FnOnce() -> Fragment,
    ) -> Result<&Arc<Fragment>, &Arc<Fragment>> {
        let place = &self.fragments[usize::from(parameterised)];
        place.get().ok_or_else(|| place.get_or_init(|| Arc::new(make())))
    }
}

/// Appends `text` to `out` with every literal replaced by `?`.
pub fn sanitize(text: &str, dialect: Dialect, out: &mut String) {
    let mut sanitizer = sanitize::Sanitizer::new(text, out);
    run(text, dialect, &mut sanitizer);
    sanitizer.finish();
}

/// Appends the summary of `text` to `out`: each operation followed by its targets, in the order and spelling of the
/// text, statements separated by `; `, one that says the same as the one before it left out, at most
/// [`MAX_SUMMARY_CHARS`] and never cut inside a name.
pub fn summary(text: &str, dialect: Dialect, out: &mut String) {
    let mut summarizer = summary::Summarizer::new(text, dialect, out);
    run(text, dialect, &mut summarizer);
    summarizer.finish();
}

/// Both in one pass.
pub fn analyze(text: &str, dialect: Dialect) -> Analysis {
    let mut sanitized = String::with_capacity(text.len());
    let mut short = String::with_capacity(64);
    let mut both =
        (sanitize::Sanitizer::new(text, &mut sanitized), summary::Summarizer::new(text, dialect, &mut short));
    run(text, dialect, &mut both);
    both.0.finish();
    let operation_len = both.1.finish();
    Analysis { sanitized: sanitized.into(), summary: short.into(), operation_len, ..Analysis::default() }
}

/// As [`analyze`], of the first `max_len` bytes at most; a cut name or literal at the end is left out.
pub fn analyze_limited(text: &str, dialect: Dialect, max_len: usize) -> Analysis {
    if text.len() <= max_len {
        return analyze(text, dialect);
    }
    let mut end = max_len;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    // Half a table name would be a wrong target: back to the last blank, if one is near.
    let near = end.saturating_sub(256);
    if let Some(back) = text.as_bytes()[near..end].iter().rposition(u8::is_ascii_whitespace) {
        end = near + back;
    }
    analyze(&text[..end], dialect)
}

/// Takes the tokens of a text one after another.
trait Sink {
    fn token(&mut self, token: Token);
}

impl<A: Sink, B: Sink> Sink for (A, B) {
    #[inline]
    fn token(&mut self, token: Token) {
        self.0.token(token);
        self.1.token(token);
    }
}

#[inline]
fn run(text: &str, dialect: Dialect, sink: &mut impl Sink) {
    let mut lexer = Lexer::new(text, dialect);
    while let Some(token) = lexer.next() {
        sink.token(token);
    }
}
