//! A request: encoded, compressed, ready to be sent as often as it takes. And what an attempt comes to.

use std::time::Duration;

use bytes::Bytes;

/// Spans on their way to one receiver.
#[derive(Clone, Debug)]
pub struct Request {
    /// The body, for gRPC with its frame.
    pub body: Bytes,
    /// How many spans it carries.
    pub spans: u64,
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nobody listens there.
    #[error("connection refused")]
    Refused,
    /// No connection came about.
    #[error("{0}")]
    Connect(String),
    /// A file or a setting stands in the way. Names the variable.
    #[error("{0}")]
    Setting(String),
    /// The connection ended before the answer.
    #[error("connection closed before the answer")]
    Closed,
    /// No answer in time.
    #[error("no answer within {}", seconds(.0))]
    Timeout(Duration),
    /// An HTTP status that is not success.
    #[error("HTTP status {0}")]
    Http(u16),
    /// A gRPC status that is not OK.
    #[error("gRPC status {}", grpc_name(*.0))]
    Grpc(u16),
    /// What came back is not the protocol that was asked for.
    #[error("{0}")]
    Protocol(String),
    /// The file could not be written.
    #[error("{0}")]
    File(String),
}

/// An operating system's message without its number.
pub(crate) fn io_text(error: &std::io::Error) -> String {
    let mut text = error.to_string();
    if let Some(at) = text.find(" (os error") {
        text.truncate(at);
    }
    text
}

fn seconds(duration: &Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

const GRPC_NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

fn grpc_name(code: u16) -> &'static str {
    GRPC_NAMES.get(usize::from(code)).copied().unwrap_or("outside the known ones")
}

impl Failure {
    /// Whether nothing was reached at all: an exit then waits less.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Refused | Self::Connect(_) | Self::Setting(_))
    }
}

/// What one attempt came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Taken, all but `rejected` spans. `odd`: the answer could not be read.
    Accepted {
        /// Spans that the receiver refused (OTLP partial success).
        rejected: u64,
        /// Whether the answer was no OTLP answer.
        odd: bool,
    },
    /// Not taken; another try may succeed.
    Retry {
        /// Why.
        why: Failure,
        /// How long the receiver asked to wait.
        after: Option<Duration>,
    },
    /// Not taken, and never will be.
    Rejected(Failure),
}

/// Classifies an HTTP status that is not success.
/// <https://opentelemetry.io/docs/specs/otlp/#failures-1>
pub fn classify_http(status: u16, retry_after: Option<Duration>) -> Outcome {
    let why = Failure::Http(status);
    match status {
        429 | 502 | 503 | 504 => Outcome::Retry { why, after: retry_after },
        _ => Outcome::Rejected(why),
    }
}

/// Classifies a gRPC status that is not OK.
/// <https://opentelemetry.io/docs/specs/otlp/#failures>
pub fn classify_grpc(code: u16, retry_info: Option<Duration>) -> Outcome {
    let why = Failure::Grpc(code);
    match code {
        // CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS
        1 | 4 | 10 | 11 | 14 | 15 => Outcome::Retry { why, after: retry_info },
        // RESOURCE_EXHAUSTED: only a receiver that says when it recovers will recover.
        8 if retry_info.is_some() => Outcome::Retry { why, after: retry_info },
        _ => Outcome::Rejected(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_statuses_are_classified_as_the_specification_says() {
        for status in 100..600 {
            let retry = matches!(classify_http(status, None), Outcome::Retry { .. });
            assert_eq!(retry, [429, 502, 503, 504].contains(&status), "{status}");
        }
        let asked = Some(Duration::from_secs(7));
        assert_eq!(classify_http(503, asked), Outcome::Retry { why: Failure::Http(503), after: asked });
    }

    #[test]
    fn grpc_statuses_are_classified_as_the_specification_says() {
        let asked = Some(Duration::from_secs(7));
        for code in 1..18 {
            let retry = matches!(classify_grpc(code, None), Outcome::Retry { .. });
            assert_eq!(retry, [1, 4, 10, 11, 14, 15].contains(&code), "{code}");
            let retry = matches!(classify_grpc(code, asked), Outcome::Retry { .. });
            assert_eq!(retry, [1, 4, 8, 10, 11, 14, 15].contains(&code), "{code}");
        }
        assert_eq!(Failure::Grpc(8).to_string(), "gRPC status RESOURCE_EXHAUSTED");
    }
}
