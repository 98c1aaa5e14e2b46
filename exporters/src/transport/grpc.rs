//! OTLP over gRPC: one unary call as HTTP/2 carries it, with our own five-byte frame, so that another attempt sends
//! the same bytes. <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>

use std::borrow::Cow;
use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use flate2::read::{GzDecoder, ZlibDecoder};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

use super::MAX_ANSWER;
use super::http::USER_AGENT;
use super::pool::{Answer, Pool};
use crate::compress::Compressor;
use crate::config::{Compression, Otlp};
use crate::encode::response;
use crate::request::{Failure, Outcome, classify_grpc};

/// Length-prefixed-message: a flag and four bytes of length.
pub(crate) const FRAME: usize = 5;

/// Fills in the frame in front of a message.
pub(crate) fn frame(message: &mut [u8], compression: Compression) {
    let len = (message.len() - FRAME) as u32;
    message[0] = u8::from(compression != Compression::None);
    message[1..FRAME].copy_from_slice(&len.to_be_bytes());
}

/// The headers of every call.
pub(super) fn headers(otlp: &Otlp) -> Result<HeaderMap, Failure> {
    let mut map = HeaderMap::new();
    map.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    map.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    map.insert(header::TE, HeaderValue::from_static("trailers"));
    if let Some(name) = Compressor::name(otlp.compression) {
        map.insert(HeaderName::from_static("grpc-encoding"), HeaderValue::from_static(name));
    }
    super::add_headers(&mut map, otlp)?;
    Ok(map)
}

/// The status of a call: in the trailers, or in the headers where there is no message.
fn status(answer: &Answer) -> Option<(u16, &HeaderMap)> {
    [&answer.trailers, &answer.headers].into_iter().find_map(|map| {
        let code = map.get("grpc-status")?.to_str().ok()?.parse().ok()?;
        Some((code, map))
    })
}

/// The message behind its frame. A server may compress its answer as the request was.
fn message(answer: &Answer) -> Option<Cow<'_, [u8]>> {
    let message = answer.body.get(FRAME..)?;
    if answer.body.first() == Some(&0) {
        return Some(Cow::Borrowed(message));
    }
    let mut plain = Vec::new();
    let limit = MAX_ANSWER as u64;
    match answer.headers.get("grpc-encoding")?.as_bytes() {
        b"gzip" => GzDecoder::new(message).take(limit).read_to_end(&mut plain),
        b"deflate" => ZlibDecoder::new(message).take(limit).read_to_end(&mut plain),
        _ => return None,
    }
    .ok()?;
    Some(Cow::Owned(plain))
}

/// One attempt.
pub(super) async fn attempt(
    pool: &Pool,
    headers: &HeaderMap,
    body: Bytes,
    timeout: Duration,
    until: Instant,
) -> Result<Outcome, Failure> {
    let mut headers = headers.clone();
    if let Ok(value) = HeaderValue::from_str(&format!("{}m", timeout.as_millis().min(99_999_999))) {
        headers.insert("grpc-timeout", value);
    }
    let answer = pool.post(&headers, body, until).await?;
    match status(&answer) {
        Some((0, _)) => {
            let partial = message(&answer).and_then(|message| response::partial_success(&message));
            Ok(Outcome::Accepted {
                rejected: partial.as_ref().map_or(0, |partial| partial.rejected),
                odd: partial.is_none(),
            })
        }
        Some((code, map)) => {
            let details = map.get("grpc-status-details-bin").and_then(|value| value.to_str().ok());
            Ok(classify_grpc(code, details.and_then(response::retry_info)))
        }
        // <https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>
        None => match answer.status {
            200 => Err(Failure::Protocol("answers, but not as gRPC".into())),
            429 | 502 | 503 | 504 => Ok(classify_grpc(14, None)),
            400 => Ok(classify_grpc(13, None)),
            401 => Ok(classify_grpc(16, None)),
            403 => Ok(classify_grpc(7, None)),
            404 => Ok(classify_grpc(12, None)),
            _ => Ok(classify_grpc(2, None)),
        },
    }
}
