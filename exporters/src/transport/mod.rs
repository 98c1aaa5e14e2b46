//! Sending one request to one receiver. One HTTP client (hyper) serves OTLP over HTTP and over gRPC.

mod connect;
pub(crate) mod console;
mod endpoint;
pub(crate) mod file;
pub(crate) mod grpc;
mod http;
mod pool;
mod tls;

use std::time::Duration;

use bytes::Bytes;

use crate::config::{Otlp, Protocol};
use crate::request::{Failure, Outcome};

pub(crate) use endpoint::Endpoint;
use pool::Pool;

/// The most that is read of an answer.
const MAX_ANSWER: usize = 64 * 1024;

/// An OTLP receiver and the connections to it.
pub(crate) struct Receiver {
    otlp: Otlp,
    pool: Pool,
    headers: Result<::http::HeaderMap, Failure>,
    timeout: Duration,
}

impl Receiver {
    pub(crate) fn new(otlp: &Otlp, export_timeout: Duration) -> Self {
        let endpoint = Endpoint::parse(otlp);
        let headers = match otlp.protocol {
            Protocol::Grpc => grpc::headers(otlp),
            _ => http::headers(otlp),
        };
        Self {
            pool: Pool::new(endpoint, otlp.clone()),
            otlp: otlp.clone(),
            headers,
            timeout: otlp.timeout.min(export_timeout),
        }
    }

    /// The endpoint as it may be shown: without credentials.
    pub(crate) fn shown(&self) -> &str {
        self.pool.shown()
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.otlp.protocol
    }

    /// One attempt, within the timeout.
    pub(crate) async fn send(&self, body: Bytes) -> Outcome {
        let attempt = async {
            let headers = self.headers.as_ref().map_err(Clone::clone)?;
            match self.otlp.protocol {
                Protocol::Grpc => grpc::attempt(&self.pool, headers, body, self.timeout).await,
                _ => http::attempt(&self.pool, headers, body).await,
            }
        };
        match tokio::time::timeout(self.timeout, attempt).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(why)) => Outcome::Retry { why, after: None },
            Err(_) => Outcome::Retry { why: Failure::Timeout(self.timeout), after: None },
        }
    }

    /// Forgets connections: the runtime that drove them is gone.
    pub(crate) fn disconnect(&self) {
        self.pool.clear();
    }
}

/// The operator's headers, over ours.
fn add_headers(map: &mut ::http::HeaderMap, otlp: &Otlp) -> Result<(), Failure> {
    use ::http::header::{HeaderName, HeaderValue};
    for (name, value) in &otlp.headers {
        let wrong = || Failure::Setting(format!("OTEL_EXPORTER_OTLP_HEADERS: {name:?} is no valid header"));
        let key = HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes()).map_err(|_| wrong())?;
        let mut value = HeaderValue::from_str(value).map_err(|_| wrong())?;
        value.set_sensitive(true);
        map.insert(key, value);
    }
    Ok(())
}
