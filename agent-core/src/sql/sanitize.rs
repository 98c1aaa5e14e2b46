use super::Sink;
use super::lexer::{Kind, Token};

/// Copies a text, its literals replaced by `?`.
pub(super) struct Sanitizer<'a> {
    text: &'a str,
    out: &'a mut String,
    /// Up to here the text has been copied or replaced.
    copied: usize,
    /// The last token was the word `IN`.
    after_in: bool,
    list: List,
}

/// A list of values behind `IN (`, as long as it can be collapsed.
#[derive(Clone, Copy)]
struct List {
    open: bool,
    /// The output's length after the parenthesis.
    out_len: usize,
    /// `?` or `s` (of `%s`): what all elements so far become; 0 before the first.
    element: u8,
    wants_element: bool,
}

const CLOSED: List = List { open: false, out_len: 0, element: 0, wants_element: false };

impl<'a> Sanitizer<'a> {
    pub(super) fn new(text: &'a str, out: &'a mut String) -> Self {
        Self { text, out, copied: 0, after_in: false, list: CLOSED }
    }

    #[inline]
    fn copy_to(&mut self, end: usize) {
        self.out.push_str(&self.text[self.copied..end]);
        self.copied = end;
    }

    fn list_token(&mut self, token: Token) {
        let list = &mut self.list;
        let element = match token.kind {
            Kind::Literal | Kind::Text => b'?',
            Kind::Placeholder => match &self.text[token.start..token.end] {
                "?" => b'?',
                "%s" => b's',
                _ => 0,
            },
            Kind::Punct(b',') if !list.wants_element => {
                list.wants_element = true;
                return;
            }
            Kind::Punct(b')') if !list.wants_element => {
                let (out_len, element) = (list.out_len, list.element);
                self.list = CLOSED;
                self.out.truncate(out_len);
                self.out.push_str(if element == b'?' { "?" } else { "%s" });
                self.copied = token.start;
                return;
            }
            _ => 0,
        };
        if element != 0 && list.wants_element && (list.element == 0 || list.element == element) {
            list.element = element;
            list.wants_element = false;
        } else {
            self.list = CLOSED;
        }
    }

    pub(super) fn finish(mut self) {
        self.copy_to(self.text.len());
    }
}

impl Sink for Sanitizer<'_> {
    #[inline]
    fn token(&mut self, token: Token) {
        if self.list.open {
            self.list_token(token);
        }
        match token.kind {
            Kind::Literal | Kind::Text => {
                self.copy_to(token.start);
                self.out.push('?');
                self.copied = token.end;
            }
            Kind::Word => {
                let word = &self.text.as_bytes()[token.start..token.end];
                self.after_in = word.len() == 2 && word.eq_ignore_ascii_case(b"in");
                return;
            }
            Kind::Punct(b'(') if self.after_in => {
                self.copy_to(token.end);
                self.list = List { open: true, out_len: self.out.len(), element: 0, wants_element: true };
            }
            _ => {}
        }
        self.after_in = false;
    }
}
