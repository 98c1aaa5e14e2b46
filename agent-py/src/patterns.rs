//! Regular expressions that the operator wrote.

use agent_core::settings::parse;
use regex_lite::{Regex, RegexBuilder};

use crate::diagnostics;

/// How a pattern is applied.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Finds {
    /// A part of the text, as it is written.
    Part,
    /// The whole of a name, in any case.
    Name,
}

/// Compiles what `variable` lists; `None` where that leaves nothing. One that is no regular expression is left out,
/// with one line that names it.
#[cold]
pub fn compile(variable: &str, patterns: &[String], finds: Finds) -> Option<Box<[Regex]>> {
    let compiled = patterns.iter().filter_map(|pattern| {
        let built = match finds {
            Finds::Part => Regex::new(pattern),
            Finds::Name => RegexBuilder::new(&format!("^(?:{pattern})$")).case_insensitive(true).build(),
        };
        if let Err(error) = &built {
            let pattern = parse::shown(pattern);
            diagnostics::warn(&format!("{variable}: {pattern} is left out: no regular expression ({error})"));
        }
        built.ok()
    });
    let compiled: Box<[Regex]> = compiled.collect();
    (!compiled.is_empty()).then_some(compiled)
}

/// Whether one of them finds it.
pub fn find(patterns: &[Regex], text: &str) -> bool {
    patterns.iter().any(|pattern| pattern.is_match(text))
}
