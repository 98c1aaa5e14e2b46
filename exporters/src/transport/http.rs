//! OTLP over HTTP. <https://opentelemetry.io/docs/specs/otlp/#otlphttp>

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use tokio::time::Instant;

use super::pool::Pool;
use crate::compress::Compressor;
use crate::config::{Otlp, Protocol};
use crate::encode::response;
use crate::request::{Failure, Outcome, classify_http};

pub(super) const USER_AGENT: &str = concat!("OTel-OTLP-Exporter-remora/", env!("CARGO_PKG_VERSION"));

/// The headers of every request.
pub(super) fn headers(otlp: &Otlp) -> Result<HeaderMap, Failure> {
    let mut map = HeaderMap::new();
    let json = otlp.protocol == Protocol::HttpJson;
    let media = if json { "application/json" } else { "application/x-protobuf" };
    map.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    map.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    if let Some(name) = Compressor::name(otlp.compression) {
        map.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
    }
    super::add_headers(&mut map, otlp)?;
    Ok(map)
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// One attempt.
pub(super) async fn attempt(
    pool: &Pool,
    headers: &HeaderMap,
    body: Bytes,
    until: Instant,
) -> Result<Outcome, Failure> {
    let answer = pool.post(headers, body, until).await?;
    let text = |name| answer.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if !(200..300).contains(&answer.status) {
        let after = text(header::RETRY_AFTER).and_then(|value| response::retry_after(value, now()));
        return Ok(classify_http(answer.status, after));
    }
    let json = text(header::CONTENT_TYPE).is_some_and(|media| media.starts_with("application/json"));
    let partial = if json {
        response::partial_success_json(&answer.body)
    } else {
        response::partial_success(&answer.body)
    };
    // A 2xx is an acceptance, whatever the body is.
    Ok(match partial {
        Some(partial) => Outcome::Accepted { rejected: partial.rejected, odd: false },
        None => Outcome::Accepted { rejected: 0, odd: true },
    })
}
