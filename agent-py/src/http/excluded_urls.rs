//! Requests that get no span (`OTEL_PYTHON_EXCLUDED_URLS` and its form for each library).

use std::borrow::Cow;
use std::sync::OnceLock;

use regex_lite::Regex;

use crate::patterns::{self, Finds};
use crate::settings;

/// The patterns of one library, compiled at its first request.
pub struct ExcludedUrls {
    library: &'static str,
    patterns: OnceLock<Option<Box<[Regex]>>>,
}

impl ExcludedUrls {
    /// Those of the library of that name, to be kept in a `static`.
    pub const fn of(library: &'static str) -> Self {
        Self { library, patterns: OnceLock::new() }
    }

    /// Whether a request is excluded. Its URL is only read where there are patterns.
    #[inline]
    pub fn contain<'a>(&self, url: impl FnOnce() -> Option<Cow<'a, str>>) -> bool {
        match self.patterns.get_or_init(|| self.compile()) {
            None => false,
            Some(patterns) => url().is_some_and(|url| patterns::find(patterns, &url)),
        }
    }

    #[cold]
    fn compile(&self) -> Option<Box<[Regex]>> {
        let all = &settings::get().http.excluded_urls;
        patterns::compile(all.variable(self.library), all.of(self.library), Finds::Part)
    }
}
