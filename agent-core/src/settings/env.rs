//! Reads the rows of the table one by one, remembers where each value came from, and says what is wrong with it.

use std::borrow::Cow;
use std::time::Duration;

use super::table::{Kind, TABLE, index_of, unknown_flag};
use super::{Diagnostic, Origin, parse};
use crate::redact;

/// What is known of one row after reading it.
#[derive(Clone, Debug)]
pub(super) struct Resolved {
    pub origin: Origin,
    /// What is in force, where it is not the table's default.
    pub text: Option<Box<str>>,
}

pub(super) struct Reader<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    overrides: Vec<(usize, &'a str)>,
    pub diagnostics: Vec<Diagnostic>,
    pub rows: Vec<Option<Resolved>>,
}

impl<'a> Reader<'a> {
    pub fn new(lookup: &'a dyn Fn(&str) -> Option<String>, overrides: &'a [(String, String)]) -> Self {
        let mut reader =
            Self { lookup, overrides: Vec::new(), diagnostics: Vec::new(), rows: vec![None; TABLE.len()] };
        for (name, value) in overrides {
            match index_of(name) {
                Some(row) => reader.overrides.push((row, value)),
                None => reader.diagnostics.push(unknown_flag(name)),
            }
        }
        reader
    }

    /// The text of a row, trimmed; empty is not set.
    pub fn text(&mut self, row: usize) -> Option<Cow<'a, str>> {
        let given =
            self.overrides.iter().rev().find(|(index, value)| *index == row && !value.trim().is_empty());
        let (text, origin) = match given {
            Some((_, value)) => (Some(Cow::Borrowed(value.trim())), Origin::Config),
            None => match (self.lookup)(TABLE[row].name) {
                Some(value) if !value.trim().is_empty() => {
                    (Some(Cow::Owned(value.trim().to_owned())), Origin::Environment)
                }
                _ => (None, Origin::Default),
            },
        };
        self.rows[row] = Some(Resolved { origin, text: text.as_deref().map(Box::from) });
        text
    }

    /// Text that may be of any form, or the default.
    pub fn text_or_default(&mut self, row: usize) -> String {
        self.text(row).map_or_else(|| TABLE[row].default.to_owned(), Cow::into_owned)
    }

    pub fn say(&mut self, text: String) {
        self.diagnostics.push(Diagnostic::new(text));
    }

    /// Notes what is in force where it differs from what was written.
    pub fn in_force(&mut self, row: usize, value: &str) {
        if let Some(Some(resolved)) = self.rows.get_mut(row) {
            resolved.text = Some(value.into());
        }
    }

    /// The value cannot be used: one line with variable, value and what is used instead.
    #[cold]
    pub fn reject(&mut self, row: usize, value: &str, why: &str, fallback: &str) {
        let name = TABLE[row].name;
        let used = if fallback.is_empty() { "no value" } else { fallback };
        self.say(match TABLE[row].secret {
            true => format!("{name} {why}; using {used}"),
            false => format!("{name}={} {why}; using {used}", self.display(row, value)),
        });
        self.rows[row] = Some(Resolved {
            origin: Origin::Fallback,
            text: (!fallback.is_empty()).then(|| fallback.into()),
        });
    }

    fn display(&self, row: usize, value: &str) -> String {
        match TABLE[row].kind {
            Kind::Url => parse::shown(&redact::endpoint(value)),
            _ => parse::shown(value),
        }
    }

    /// What answers where a row does not: what is in force in its general row, which is read before it, or the
    /// table's default.
    fn fallback(&self, row: usize) -> Cow<'static, str> {
        let Some(general) = TABLE[row].general else { return TABLE[row].default.into() };
        match self.rows[general].as_ref().and_then(|resolved| resolved.text.as_deref()) {
            Some(text) => text.to_owned().into(),
            None => TABLE[general].default.into(),
        }
    }

    fn parsed<T>(&mut self, row: usize, what: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let text = self.text(row)?;
        let value = read(&text);
        if value.is_none() {
            let fallback = self.fallback(row);
            self.reject(row, &text, what, &fallback);
        }
        value
    }

    fn or_default<T: Default>(row: usize, value: Option<T>, read: impl Fn(&str) -> Option<T>) -> T {
        // A test reads every default, so that the last resort is never taken.
        value.or_else(|| read(TABLE[row].default)).unwrap_or_default()
    }

    /// As the specification has it: `true` and `false` in any case, everything else is a slip.
    pub fn flag(&mut self, row: usize) -> bool {
        let value = self.optional_flag(row);
        Self::or_default(row, value, read_flag)
    }

    pub fn optional_flag(&mut self, row: usize) -> Option<bool> {
        self.parsed(row, "is neither true nor false", read_flag)
    }

    pub fn number(&mut self, row: usize) -> u64 {
        let value = self.optional_number(row);
        Self::or_default(row, value, parse::whole)
    }

    pub fn optional_number(&mut self, row: usize) -> Option<u64> {
        let min = TABLE[row].min;
        let what = from("is not a whole number", min);
        self.parsed(row, &what, |text| parse::whole(text).filter(|value| *value >= min))
    }

    pub fn bytes(&mut self, row: usize) -> u64 {
        let min = TABLE[row].min;
        let what = from("is not a whole number of bytes, KiB, MiB or GiB", min);
        let value = self.parsed(row, &what, |text| parse::bytes(text).filter(|value| *value >= min));
        Self::or_default(row, value, parse::bytes)
    }

    pub fn duration(&mut self, row: usize) -> Duration {
        let value = self.optional_duration(row);
        value.unwrap_or_else(|| Duration::from_millis(Self::or_default(row, None, parse::whole)))
    }

    pub fn optional_duration(&mut self, row: usize) -> Option<Duration> {
        let min = TABLE[row].min;
        let what = from("is not a whole number of milliseconds", min);
        let millis = self.parsed(row, &what, |text| parse::whole(text).filter(|value| *value >= min));
        millis.map(Duration::from_millis)
    }

    /// One of the row's values, as the table spells it.
    pub fn choice(
        &mut self,
        row: usize,
        alias: impl Fn(&str) -> Option<&'static str>,
    ) -> Option<&'static str> {
        let values = TABLE[row].values;
        let find = |text: &str| {
            values
                .iter()
                .copied()
                .find(|value| value.eq_ignore_ascii_case(text))
                .or_else(|| alias(&text.to_ascii_lowercase()))
        };
        let text = self.text(row)?;
        let found = find(&text);
        match found {
            Some(found) if found != text => self.in_force(row, found),
            Some(_) => {}
            None => {
                let what = format!("is not one of {}", values.join(", "));
                let fallback = self.fallback(row);
                self.reject(row, &text, &what, &fallback);
            }
        }
        found
    }

    pub fn list(&mut self, row: usize) -> Vec<String> {
        let text = self.text(row);
        parse::list(text.as_deref().unwrap_or(TABLE[row].default)).map(str::to_owned).collect()
    }

    /// The entries that `read` knows, which gets them in lower case. Those that it does not: one line, the others are
    /// kept; with none left, the default.
    pub fn known<T>(&mut self, row: usize, what: &str, read: impl Fn(&str) -> Option<T>) -> Vec<T> {
        let Some(text) = self.text(row) else {
            return parse::list(TABLE[row].default).filter_map(read).collect();
        };
        let (mut values, mut kept, mut unknown) = (Vec::new(), Vec::new(), false);
        for entry in parse::list(&text) {
            match read(&entry.to_ascii_lowercase()) {
                Some(value) => {
                    values.push(value);
                    kept.push(entry);
                }
                None => unknown = true,
            }
        }
        if values.is_empty() {
            values.extend(parse::list(TABLE[row].default).filter_map(read));
            let what = if unknown { what } else { "names nothing" };
            self.reject(row, &text, what, TABLE[row].default);
        } else if unknown {
            self.reject(row, &text, what, &kept.join(","));
        }
        values
    }

    /// Pairs; an entry that is none, or that `accept` refuses, is left out with one line for all of them. Where all
    /// are, the row is as if it were not set.
    pub fn pairs(
        &mut self,
        row: usize,
        accept: impl Fn(&str, &str) -> bool,
    ) -> Option<Vec<(String, String)>> {
        let text = self.text(row)?;
        let (mut values, mut bad) = (Vec::new(), Vec::new());
        for entry in parse::pairs(&text) {
            match entry {
                Ok((_, key, value)) if accept(&key, &value) => values.push((key, value)),
                Ok((place, ..)) | Err(place) => bad.push(place.to_string()),
            }
        }
        if bad.is_empty() {
            return Some(values);
        }
        let name = TABLE[row].name;
        let shown = if TABLE[row].secret { String::new() } else { format!("={}", parse::shown(&text)) };
        let entries = if bad.len() == 1 { "entry" } else { "entries" };
        let general = if values.is_empty() { self.fall(row) } else { None };
        let used = match general {
            Some(general) => format!("those of {}", TABLE[general].name),
            None if values.is_empty() => "no value".to_owned(),
            None => "the others".to_owned(),
        };
        self.say(format!("{name}{shown}: {entries} {} cannot be read; using {used}", bad.join(", ")));
        (!values.is_empty()).then_some(values)
    }

    /// Nothing of the row can be used: its general row answers, if that has something, else nothing.
    fn fall(&mut self, row: usize) -> Option<usize> {
        let general = TABLE[row].general;
        let text = general.and_then(|general| self.rows[general].as_ref()?.text.clone());
        let found = general.filter(|_| text.is_some());
        self.rows[row] = Some(Resolved { origin: Origin::Fallback, text });
        found
    }
}

/// What is said of a value that is no number, or less than makes sense.
fn from(what: &'static str, min: u64) -> Cow<'static, str> {
    match min {
        0 => what.into(),
        min => format!("{what} from {min} up").into(),
    }
}

fn read_flag(text: &str) -> Option<bool> {
    match text {
        _ if text.eq_ignore_ascii_case("true") => Some(true),
        _ if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}
