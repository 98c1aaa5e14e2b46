//! What the operator says about HTTP spans. Patterns are texts here: whoever uses them compiles them, when the
//! library that needs them makes its first request.

use super::env::Reader;
use super::table::{EXCLUDED_URLS, TABLE, row};

/// The settings that HTTP instrumentations share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Http {
    /// Headers of incoming requests to record: patterns for the whole name, case-insensitive.
    pub capture_server_request: Vec<String>,
    /// Headers of our responses.
    pub capture_server_response: Vec<String>,
    /// Headers of outgoing requests.
    pub capture_client_request: Vec<String>,
    /// Headers of their responses.
    pub capture_client_response: Vec<String>,
    /// Recorded headers whose value is hidden, beside the built-in ones.
    pub sanitize_fields: Vec<String>,
    /// Methods recorded by name.
    pub known_methods: Vec<String>,
    /// Every method is recorded by name.
    pub capture_all_methods: bool,
    /// Attributes of Django's request object to record.
    pub django_traced_request_attrs: Vec<String>,
    /// Requests that get no span.
    pub excluded_urls: ExcludedUrls,
}

/// Excluded URLs: patterns that are searched for in the URL, per library or for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExcludedUrls {
    general: Vec<String>,
    own: Vec<Own>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Own {
    library: &'static str,
    variable: &'static str,
    patterns: Vec<String>,
}

impl ExcludedUrls {
    /// The patterns for the instrumentation `library`, by its OpenTelemetry entry-point name.
    pub fn of(&self, library: &str) -> &[String] {
        self.own_of(library).map_or(&self.general, |own| &own.patterns)
    }

    /// The variable that they were written in.
    pub fn variable(&self, library: &str) -> &'static str {
        self.own_of(library).map_or(TABLE[row::OTEL_PYTHON_EXCLUDED_URLS].name, |own| own.variable)
    }

    fn own_of(&self, library: &str) -> Option<&Own> {
        self.own.iter().find(|own| own.library == library)
    }
}

impl Http {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let mut excluded_urls =
            ExcludedUrls { general: reader.list(row::OTEL_PYTHON_EXCLUDED_URLS), own: Vec::new() };
        for &(library, index) in EXCLUDED_URLS {
            let patterns = reader.list(index);
            if !patterns.is_empty() {
                excluded_urls.own.push(Own { library, variable: TABLE[index].name, patterns });
            }
        }
        Self {
            capture_server_request: reader
                .list(row::OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST),
            capture_server_response: reader
                .list(row::OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE),
            capture_client_request: reader
                .list(row::OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_REQUEST),
            capture_client_response: reader
                .list(row::OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_RESPONSE),
            sanitize_fields: reader.list(row::OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS),
            known_methods: reader.list(row::OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS),
            capture_all_methods: reader
                .text(row::OTEL_PYTHON_INSTRUMENTATION_HTTP_CAPTURE_ALL_METHODS)
                .is_some(),
            django_traced_request_attrs: reader.list(row::OTEL_PYTHON_DJANGO_TRACED_REQUEST_ATTRS),
            excluded_urls,
        }
    }
}
