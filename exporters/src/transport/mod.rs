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
    remarks: Vec<String>,
    timeout: Duration,
}

impl Receiver {
    pub(crate) fn new(otlp: &Otlp, export_timeout: Duration) -> Self {
        let endpoint = Endpoint::parse(otlp);
        let headers = match otlp.protocol {
            Protocol::Grpc => grpc::headers(otlp),
            _ => http::headers(otlp),
        };
        let pool = Pool::new(endpoint, otlp.clone());
        Self {
            remarks: pool.remark().map(str::to_owned).into_iter().chain(withheld(otlp)).collect(),
            pool,
            otlp: otlp.clone(),
            headers,
            timeout: otlp.timeout.min(export_timeout),
        }
    }

    /// What the operator should know of the settings: a line each.
    pub(crate) fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// The endpoint as it may be shown: without credentials.
    pub(crate) fn shown(&self) -> &str {
        self.pool.shown()
    }

    /// The proxy that requests go through, without credentials.
    pub(crate) fn through(&self) -> Option<String> {
        self.pool.through()
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.otlp.protocol
    }

    /// One attempt, within the timeout.
    pub(crate) async fn send(&self, body: Bytes) -> Outcome {
        // What follows an acceptance is waited for a little less long.
        let until = tokio::time::Instant::now() + self.timeout * 9 / 10;
        let attempt = async {
            let headers = self.headers.as_ref().map_err(Clone::clone)?;
            match self.otlp.protocol {
                Protocol::Grpc => grpc::attempt(&self.pool, headers, body, self.timeout, until).await,
                _ => http::attempt(&self.pool, headers, body, until).await,
            }
        };
        match tokio::time::timeout(self.timeout, attempt).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(why)) => Outcome::Retry { why, after: None },
            Err(_) => {
                // Something on the way may have forgotten the connection: the next attempt makes one of its own.
                self.pool.clear();
                Outcome::Retry { why: Failure::Timeout(self.timeout), after: None }
            }
        }
    }

    /// Forgets connections: the runtime that drove them is gone.
    pub(crate) fn disconnect(&self) {
        self.pool.clear();
    }
}

/// Headers that say how a message is framed: only who sends it knows.
const FRAMING: [&str; 8] =
    ["connection", "content-length", "expect", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"];

fn is_framing(name: &str) -> bool {
    FRAMING.iter().any(|framing| framing.eq_ignore_ascii_case(name))
}

/// A line for each header of the operator's that is left out.
fn withheld(otlp: &Otlp) -> impl Iterator<Item = String> {
    otlp.headers.iter().filter(|(name, _)| is_framing(name)).map(|(name, _)| {
        format!(
            "OTEL_EXPORTER_OTLP_HEADERS: {} is left out: it is for the connection to say",
            name.to_lowercase()
        )
    })
}

/// The operator's headers, over ours.
fn add_headers(map: &mut ::http::HeaderMap, otlp: &Otlp) -> Result<(), Failure> {
    use ::http::header::{HeaderName, HeaderValue};
    for (name, value) in otlp.headers.iter().filter(|(name, _)| !is_framing(name)) {
        let wrong = || Failure::Setting(format!("OTEL_EXPORTER_OTLP_HEADERS: {name:?} is no valid header"));
        let key = HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes()).map_err(|_| wrong())?;
        let mut value = HeaderValue::from_str(value).map_err(|_| wrong())?;
        value.set_sensitive(true);
        map.insert(key, value);
    }
    Ok(())
}
