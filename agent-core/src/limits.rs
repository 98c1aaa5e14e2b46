//! How much a span may hold, as plain integers: the OpenTelemetry span limits.
//!
//! A limit is reached silently: what does not fit is counted as dropped on the span itself.
//! <https://opentelemetry.io/docs/specs/otel/trace/sdk/#span-limits>

/// The limits of one process, resolved from `OTEL_*_LIMIT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Attributes of a span.
    pub attribute_count: usize,
    /// Characters (not bytes) of one text value; `None` is no limit.
    pub attribute_value_length: Option<usize>,
    /// Events of a span.
    pub event_count: usize,
    /// Links of a span.
    pub link_count: usize,
    /// Attributes of one event.
    pub event_attribute_count: usize,
    /// Attributes of one link.
    pub link_attribute_count: usize,
}

impl Limits {
    /// The specification's defaults: 128 of each, values of any length.
    pub const DEFAULT: Self = Self {
        attribute_count: 128,
        attribute_value_length: None,
        event_count: 128,
        link_count: 128,
        event_attribute_count: 128,
        link_attribute_count: 128,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The limits in force in this process.
#[inline]
pub fn current() -> &'static Limits {
    &crate::tracer::current().limits
}

/// The first `limit` characters of `text`. One comparison where the text has no more bytes than that.
#[inline]
pub fn truncate(text: &str, limit: usize) -> &str {
    if text.len() <= limit { text } else { cut(text, limit) }
}

#[cold]
fn cut(text: &str, limit: usize) -> &str {
    match text.char_indices().nth(limit) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

/// At most the first `max` bytes of `text`, ending between two characters. Constant time.
#[inline]
pub fn head(text: &str, max: usize) -> &str {
    if text.len() <= max {
        return text;
    }
    let mut end = max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
