//! The settings of a process: text in, values out.
//!
//! One table (`config/settings.toml`) names each variable, its type, default and help; [`Settings::resolve`] reads
//! every row of it once, at start, and never fails: a value that cannot be used is replaced, with one
//! [`Diagnostic`] that names variable, value and what is used instead. Precedence: what `remora.config(…)` was
//! given, the environment, the default. An empty value is no value. No regular expression is compiled here.
//!
//! Meaning of the `OTEL_*` names:
//! <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/> and
//! <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>.

mod endpoint;
mod env;
mod help;
mod http;
pub mod parse;
mod resolve;
mod table;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub use help::{docs, help_text};
pub use http::{ExcludedUrls, Http};
pub use table::{Kind, Row, TABLE, find, flag_name, unknown};

use crate::limits::Limits;
use crate::propagation::Propagators;
use crate::resource::Detectors;
use crate::sampling::Sampler;

/// One line for the operator, `remora: …`, without a newline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    text: String,
}

impl Diagnostic {
    /// A line that says `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }

    /// What it says, without the prefix.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "remora: {}", self.text)
    }
}

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The table.
    Default,
    /// The environment.
    Environment,
    /// What was written cannot be used.
    Fallback,
    /// `remora.config(…)`.
    Config,
}

impl Origin {
    /// As `remora config` and `settings()` say it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Environment => "environment",
            Self::Fallback => "fallback",
            Self::Config => "config",
        }
    }
}

/// How much the agent says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Nothing.
    None,
    /// What does not work.
    Error,
    /// What works less well than asked.
    Warn,
    /// What changed.
    Info,
    /// Everything.
    Debug,
}

/// One entry of `OTEL_TRACES_EXPORTER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exporter {
    /// An OTLP receiver.
    Otlp,
    /// OTLP/JSON lines in a file.
    OtlpFile,
    /// A readable tree on stderr.
    Console,
}

/// How OTLP travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `http/protobuf`.
    HttpProtobuf,
    /// `http/json`.
    HttpJson,
    /// `grpc`.
    Grpc,
}

impl Protocol {
    /// The value of `OTEL_EXPORTER_OTLP_PROTOCOL` that chooses it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HttpProtobuf => "http/protobuf",
            Self::HttpJson => "http/json",
            Self::Grpc => "grpc",
        }
    }
}

/// How a request's body is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip, level 1.
    Gzip,
    /// deflate in its zlib wrapping, level 1.
    Deflate,
}

/// The variables that named the files of TLS, for what is said of those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsVariables {
    /// Of the authorities to trust.
    pub certificate: &'static str,
    /// Of our private key.
    pub client_key: &'static str,
    /// Of our certificate chain.
    pub client_certificate: &'static str,
}

impl Default for TlsVariables {
    fn default() -> Self {
        Self {
            certificate: "OTEL_EXPORTER_OTLP_CERTIFICATE",
            client_key: "OTEL_EXPORTER_OTLP_CLIENT_KEY",
            client_certificate: "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
        }
    }
}

/// The OTLP receiver of one signal: its own form of each variable, else the general one.
#[derive(Clone, PartialEq, Eq)]
pub struct Otlp {
    /// The protocol.
    pub protocol: Protocol,
    /// Over HTTP the whole URL, to be used as it is; over gRPC `http(s)://host:port` or, without a scheme,
    /// `host:port`; `unix:/path` for a socket. Never holds credentials: those became a header.
    pub endpoint: String,
    /// Of each request; names lower case, values secret.
    pub headers: Vec<(String, String)>,
    /// Of one request.
    pub timeout: Duration,
    /// Of the body.
    pub compression: Compression,
    /// Authorities to trust instead of the system's, PEM.
    pub certificate: Option<PathBuf>,
    /// Our private key, PEM. There is a [`Self::client_certificate`] then.
    pub client_key: Option<PathBuf>,
    /// Our certificate chain, PEM.
    pub client_certificate: Option<PathBuf>,
    /// Where these three were named.
    pub variables: TlsVariables,
    /// No TLS where a gRPC endpoint has no scheme.
    pub insecure: bool,
}

impl fmt::Debug for Otlp {
    /// Without the values of the headers, which are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Otlp")
            .field("protocol", &self.protocol)
            .field("endpoint", &self.endpoint)
            .field("headers", &names)
            .finish_non_exhaustive()
    }
}

/// `OTEL_BSP_*` and what bounds memory and exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The longest that a finished span waits for its batch.
    pub schedule_delay: Duration,
    /// Of one export.
    pub export_timeout: Duration,
    /// In spans, where it was set.
    pub max_queue_size: Option<usize>,
    /// In spans.
    pub max_export_batch_size: usize,
    /// Of finished spans that wait.
    pub queue_max_bytes: usize,
    /// Of requests that wait to be sent again.
    pub retry_max_bytes: usize,
    /// Of the exit, where it was set; else 2 s, or 0.3 s where the receiver could not be reached.
    pub exit_timeout: Option<Duration>,
    /// Flush on SIGTERM at its default disposition.
    pub sigterm_flush: bool,
}

/// What the operator says about the resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceSettings {
    /// `OTEL_SERVICE_NAME`.
    pub service_name: Option<String>,
    /// `OTEL_RESOURCE_ATTRIBUTES`, decoded.
    pub attributes: Vec<(String, String)>,
    /// What is detected.
    pub detectors: Detectors,
}

/// Instrumentations that are left out, by OpenTelemetry entry-point name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disabled {
    all: bool,
    names: Vec<String>,
}

impl Disabled {
    /// Whether the instrumentation `name` is left out.
    pub fn contains(&self, name: &str) -> bool {
        self.all || self.names.iter().any(|disabled| disabled == name)
    }
}

/// Old attribute names to emit beside the stable ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OldNames {
    /// Of HTTP.
    pub http: bool,
    /// Of databases.
    pub database: bool,
}

/// When a hook of ours that fails steps aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// So many faults …
    pub faults: u32,
    /// … within this time.
    pub window: Duration,
}

/// One row as resolved, for `remora config`, `doctor` and `settings()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The row's place in [`TABLE`].
    pub index: usize,
    /// What is in force; for secrets only whether there is something.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

impl Shown {
    /// The row itself.
    pub fn row(&self) -> &'static Row {
        &TABLE[self.index]
    }
}

/// Everything that a process was told, ready to use.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `REMORA_ENABLED`.
    pub enabled: bool,
    /// `REMORA_FORCE`: start beside another agent.
    pub force: bool,
    /// `OTEL_SDK_DISABLED`: install nothing.
    pub sdk_disabled: bool,
    /// `OTEL_PYTHON_DISABLED_INSTRUMENTATIONS`.
    pub disabled: Disabled,
    /// `OTEL_LOG_LEVEL`.
    pub log_level: LogLevel,
    /// About the resource.
    pub resource: ResourceSettings,
    /// Where spans go; none is possible.
    pub exporters: Vec<Exporter>,
    /// `REMORA_OTLP_FILE`; `%p` is the process id.
    pub otlp_file: String,
    /// The receiver of traces.
    pub otlp: Otlp,
    /// Batches, bounds and exit.
    pub delivery: Delivery,
    /// `OTEL_PROPAGATORS`.
    pub propagators: Propagators,
    /// `OTEL_TRACES_SAMPLER` with its argument.
    pub sampler: Sampler,
    /// The span limits.
    pub limits: Limits,
    /// `OTEL_SEMCONV_STABILITY_OPT_IN`.
    pub old_names: OldNames,
    /// About HTTP.
    pub http: Http,
    /// `REMORA_BREAKER_*`.
    pub breaker: Breaker,
    rows: Vec<Option<env::Resolved>>,
}

impl Settings {
    /// Whether `REMORA_ENABLED` keeps the agent out: it is set, and not `true`.
    pub fn keeps_out(&self) -> bool {
        let row = self.rows.get(table::row::REMORA_ENABLED).and_then(Option::as_ref);
        !self.enabled && row.is_some_and(|row| row.origin != Origin::Default)
    }

    /// Reads every row of [`TABLE`], first from `overrides` (pairs of a flag or variable name and its text, as
    /// `remora.config` was given them), then from `lookup`, which answers for an environment variable.
    pub fn resolve(
        lookup: &dyn Fn(&str) -> Option<String>,
        overrides: &[(String, String)],
    ) -> (Self, Vec<Diagnostic>) {
        resolve::settings(env::Reader::new(lookup, overrides))
    }

    /// Each row with what is in force and where it came from, in the order of the table. Rows without effect
    /// only where they are set.
    pub fn rows(&self) -> Vec<Shown> {
        let row = |(index, resolved): (usize, &Option<env::Resolved>)| {
            let resolved = resolved.as_ref();
            let (row, origin) = (&TABLE[index], resolved.map_or(Origin::Default, |row| row.origin));
            if row.kind == Kind::Ignored && origin == Origin::Default {
                return None;
            }
            let text = resolved.and_then(|row| row.text.as_deref());
            let value = match text {
                Some(_) if row.secret => "(set)".to_owned(),
                Some(text) if row.kind == Kind::Url => crate::redact::endpoint(text),
                Some(text) => text.to_owned(),
                None => row.default.to_owned(),
            };
            Some(Shown { index, value, origin })
        };
        self.rows.iter().enumerate().filter_map(row).collect()
    }
}
