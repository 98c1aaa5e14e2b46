//! What the embedder decides: plain values, resolved before the first span.

use std::path::PathBuf;
use std::time::Duration;

pub use agent_core::resource::ResourceValue;
pub use agent_core::settings::{Compression, Protocol, TlsVariables};

/// An OTLP receiver.
#[derive(Clone, Debug)]
pub struct Otlp {
    /// The protocol.
    pub protocol: Protocol,
    /// For HTTP the whole URL, used verbatim (`http://localhost:4318/v1/traces`); for gRPC `http(s)://host:port` or
    /// `host:port`. `unix:/path` reaches a socket in the file system.
    pub endpoint: String,
    /// Sent with every request, values as they are.
    pub headers: Vec<(String, String)>,
    /// Of one attempt.
    pub timeout: Duration,
    /// Of the body.
    pub compression: Compression,
    /// Certificates to trust instead of the system's, PEM.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate chain, PEM.
    pub client_cert: Option<PathBuf>,
    /// The client's key, PEM.
    pub client_key: Option<PathBuf>,
    /// Where these files were named.
    pub variables: TlsVariables,
    /// Plain text where a gRPC endpoint has no scheme.
    pub insecure: bool,
    /// The proxy to go through, if any.
    pub proxy: Proxy,
}

impl Otlp {
    /// A receiver with the specification's defaults.
    pub fn new(protocol: Protocol, endpoint: impl Into<String>) -> Self {
        Self {
            protocol,
            endpoint: endpoint.into(),
            headers: Vec::new(),
            timeout: Duration::from_secs(10),
            compression: Compression::None,
            ca_file: None,
            client_cert: None,
            client_key: None,
            variables: TlsVariables::default(),
            insecure: false,
            proxy: Proxy::default(),
        }
    }
}

/// `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, read by the embedder: the exporter thread never reads the
/// environment, which the application may be changing.
#[derive(Clone, Debug, Default)]
pub struct Proxy {
    /// For `http:` endpoints.
    pub http: Option<String>,
    /// For `https:` endpoints.
    pub https: Option<String>,
    /// Hosts reached directly: names, `.suffixes`, addresses, networks (`10.0.0.0/8`) or `*`, with a port or without,
    /// separated by commas.
    pub no_proxy: String,
}

impl Proxy {
    /// From the environment, lower-case names first. Call it where nobody changes the environment meanwhile.
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let read = |names: &[&str]| {
            names.iter().find_map(|name| variable(name).filter(|value| !value.trim().is_empty()))
        };
        // Under CGI, upper case is the client's `Proxy` header.
        let cgi = variable("REQUEST_METHOD").is_some();
        let http: &[&str] = if cgi { &["http_proxy"] } else { &["http_proxy", "HTTP_PROXY"] };
        let all = || read(&["all_proxy", "ALL_PROXY"]);
        Self {
            http: read(http).or_else(all),
            https: read(&["https_proxy", "HTTPS_PROXY"]).or_else(all),
            no_proxy: read(&["no_proxy", "NO_PROXY"]).unwrap_or_default(),
        }
    }
}

/// Where spans go.
#[derive(Clone, Debug)]
pub enum Exporter {
    /// An OTLP receiver.
    Otlp(Box<Otlp>),
    /// A readable tree on stderr.
    Console,
    /// A file of OTLP/JSON lines; `%p` in the path is the process id.
    File(String),
}

/// What produces the spans: the attributes, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resource {
    /// The attributes; each name once.
    pub attributes: Vec<(String, ResourceValue)>,
}

/// How grave a line of self-diagnostics is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something does not work.
    Error,
    /// Something works less well than asked.
    Warn,
    /// Something changed.
    Info,
    /// For whoever looks for a fault.
    Debug,
}

/// Takes lines of self-diagnostics.
pub type Log = Box<dyn Fn(Level, &str) + Send + Sync>;

/// Everything that the exporters need to know.
pub struct ExporterConfig {
    /// Where spans go. The first of the kinds otlp, file, console that is configured decides whether a span counts
    /// as sent.
    pub exporters: Vec<Exporter>,
    /// `OTEL_BSP_SCHEDULE_DELAY`.
    pub schedule_delay: Duration,
    /// `OTEL_BSP_EXPORT_TIMEOUT`: no attempt lasts longer.
    pub export_timeout: Duration,
    /// `OTEL_BSP_MAX_EXPORT_BATCH_SIZE`.
    pub max_export_batch_size: usize,
    /// `OTEL_BSP_MAX_QUEUE_SIZE`, where it is set.
    pub max_queue_size: Option<usize>,
    /// `REMORA_QUEUE_MAX_BYTES`.
    pub queue_max_bytes: usize,
    /// `REMORA_RETRY_MAX_BYTES`.
    pub retry_max_bytes: usize,
    /// `REMORA_EXIT_TIMEOUT`: replaces both bounds of the exit flush.
    pub exit_timeout: Option<Duration>,
    /// The resource of a fork generation. Called once per generation, on the exporter thread: no Python.
    pub resource: Box<dyn Fn(u32) -> Resource + Send + Sync>,
    /// Takes a line of self-diagnostics, without prefix or newline, from any thread.
    pub log: Log,
    /// Called on the exporter thread after the flush that SIGTERM asked for.
    pub after_sigterm: Box<dyn Fn() + Send + Sync>,
}

impl ExporterConfig {
    /// The defaults of the design, no resource, no diagnostics.
    pub fn new(exporters: Vec<Exporter>) -> Self {
        Self {
            exporters,
            schedule_delay: Duration::from_secs(5),
            export_timeout: Duration::from_secs(30),
            max_export_batch_size: 2048,
            max_queue_size: None,
            queue_max_bytes: 64 << 20,
            retry_max_bytes: 32 << 20,
            exit_timeout: None,
            resource: Box::new(|_| Resource::default()),
            log: Box::new(|_, _| {}),
            after_sigterm: Box::new(|| {}),
        }
    }

    /// Bytes of waiting spans that are exported before their time: few large ones fill the queue too.
    pub(crate) fn wake_at_bytes(&self) -> usize {
        (self.queue_max_bytes / 8).max(1)
    }

    pub(crate) fn log(&self, level: Level, message: &str) {
        (self.log)(level, message);
    }
}

impl std::fmt::Debug for ExporterConfig {
    /// Without the exporters: their headers are secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExporterConfig")
            .field("schedule_delay", &self.schedule_delay)
            .field("max_export_batch_size", &self.max_export_batch_size)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxy {
        Proxy::from_variables(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn proxies_are_named_in_either_case_and_lower_case_wins() {
        let found = proxies(&[("HTTP_PROXY", "a"), ("https_proxy", "b"), ("HTTPS_PROXY", "c")]);
        assert_eq!((found.http.as_deref(), found.https.as_deref()), (Some("a"), Some("b")));
        let found = proxies(&[("ALL_PROXY", "a"), ("http_proxy", ""), ("HTTPS_PROXY", "c")]);
        assert_eq!((found.http.as_deref(), found.https.as_deref()), (Some("a"), Some("c")));
    }

    #[test]
    fn under_cgi_upper_case_is_what_a_client_sends() {
        let found = proxies(&[("HTTP_PROXY", "a"), ("REQUEST_METHOD", "GET")]);
        assert_eq!(found.http, None);
    }
}
