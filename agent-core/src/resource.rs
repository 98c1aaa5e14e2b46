//! What produces the spans: the resource of a process, from facts that the embedder collected and from what the
//! operator said.
//!
//! The operator's attributes win over detected ones. Of the command line only the program's own name is kept:
//! arguments carry passwords. <https://opentelemetry.io/docs/specs/semconv/resource/>

use crate::settings::ResourceSettings;

/// A resource attribute's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResourceValue {
    /// Text.
    Str(String),
    /// A signed integer.
    Int(i64),
    /// Several texts.
    StrArray(Vec<String>),
}

impl From<&str> for ResourceValue {
    fn from(text: &str) -> Self {
        Self::Str(text.to_owned())
    }
}

/// Which detectors run. `otel`, what the operator said, always does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detectors {
    bits: u8,
}

impl Detectors {
    /// Only what the operator said.
    pub const NONE: Self = Self { bits: 0 };
    /// `process.*`.
    pub const PROCESS: Self = Self { bits: 1 };
    /// `host.*`.
    pub const HOST: Self = Self { bits: 2 };
    /// `os.*`.
    pub const OS: Self = Self { bits: 4 };
    /// `service.instance.id`.
    pub const SERVICE_INSTANCE: Self = Self { bits: 8 };
    /// All of them.
    pub const ALL: Self = Self { bits: 15 };

    /// The detector of this entry-point name; `*` is all.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "otel" => Some(Self::NONE),
            "process" => Some(Self::PROCESS),
            "host" => Some(Self::HOST),
            "os" => Some(Self::OS),
            "service_instance" => Some(Self::SERVICE_INSTANCE),
            "*" => Some(Self::ALL),
            _ => None,
        }
    }

    /// Both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self { bits: self.bits | other.bits }
    }

    /// Whether `other` runs.
    pub const fn has(self, other: Self) -> bool {
        self.bits & other.bits == other.bits
    }
}

/// What the embedder knows of its process. An empty text is unknown and gives no attribute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessFacts {
    /// `process.pid`.
    pub pid: u32,
    /// `process.parent_pid`; 0 is unknown.
    pub parent_pid: u32,
    /// `process.executable.name`.
    pub executable_name: String,
    /// `process.executable.path`.
    pub executable_path: String,
    /// `process.command`: argument zero, nothing after it.
    pub command: String,
    /// `process.owner`.
    pub owner: String,
    /// `process.runtime.name`, `cpython`.
    pub runtime_name: String,
    /// `process.runtime.version`.
    pub runtime_version: String,
    /// `process.runtime.description`.
    pub runtime_description: String,
    /// `host.name`.
    pub host_name: String,
    /// `host.arch`, as the semantic conventions spell it: see [`host_arch`].
    pub host_arch: String,
    /// `os.type`, `linux`.
    pub os_type: String,
    /// `os.version`.
    pub os_version: String,
}

/// The resource of this process and fork generation, each name once. `instance` is the text of a random UUID.
pub fn build(
    facts: &ProcessFacts,
    settings: &ResourceSettings,
    instance: &str,
) -> Vec<(String, ResourceValue)> {
    let mut list = List::default();
    list.set_text("service.name", &service_name(facts, settings));
    list.set_text("telemetry.sdk.name", "remora");
    list.set_text("telemetry.sdk.language", "python");
    list.set_text("telemetry.sdk.version", crate::VERSION);
    list.set_text("telemetry.distro.name", "remora");
    list.set_text("telemetry.distro.version", crate::VERSION);
    let detectors = settings.detectors;
    if detectors.has(Detectors::SERVICE_INSTANCE) {
        list.set_text("service.instance.id", instance);
    }
    if detectors.has(Detectors::PROCESS) {
        list.set("process.pid", ResourceValue::Int(i64::from(facts.pid)));
        if facts.parent_pid != 0 {
            list.set("process.parent_pid", ResourceValue::Int(i64::from(facts.parent_pid)));
        }
        list.set_text("process.executable.name", &facts.executable_name);
        list.set_text("process.executable.path", &facts.executable_path);
        list.set_text("process.command", &facts.command);
        list.set_text("process.owner", &facts.owner);
        list.set_text("process.runtime.name", &facts.runtime_name);
        list.set_text("process.runtime.version", &facts.runtime_version);
        list.set_text("process.runtime.description", &facts.runtime_description);
    }
    if detectors.has(Detectors::HOST) {
        list.set_text("host.name", &facts.host_name);
        list.set_text("host.arch", &facts.host_arch);
    }
    if detectors.has(Detectors::OS) {
        list.set_text("os.type", &facts.os_type);
        list.set_text("os.version", &facts.os_version);
    }
    for (key, value) in &settings.attributes {
        // Already decided above, OTEL_SERVICE_NAME first.
        if key != "service.name" {
            list.set_text(key, value);
        }
    }
    list.attributes
}

/// `OTEL_SERVICE_NAME`, else `service.name` of `OTEL_RESOURCE_ATTRIBUTES`, else `unknown_service:<executable>`.
pub fn service_name(facts: &ProcessFacts, settings: &ResourceSettings) -> String {
    let given =
        settings.attributes.iter().rev().find(|(key, value)| key == "service.name" && !value.is_empty());
    match (&settings.service_name, given) {
        (Some(name), _) => name.clone(),
        (None, Some((_, name))) => name.clone(),
        (None, None) if facts.executable_name.is_empty() => "unknown_service".to_owned(),
        (None, None) => format!("unknown_service:{}", facts.executable_name),
    }
}

/// `host.arch` of a machine name as `uname` gives it.
pub fn host_arch(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "i386" | "i486" | "i586" | "i686" => "x86",
        "armv6l" | "armv7l" | "armv8l" => "arm32",
        "ppc64le" => "ppc64",
        other => other,
    }
}

#[derive(Default)]
struct List {
    attributes: Vec<(String, ResourceValue)>,
}

impl List {
    fn set_text(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            self.set(key, value.into());
        }
    }

    fn set(&mut self, key: &str, value: ResourceValue) {
        match self.attributes.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) => *old = value,
            None => self.attributes.push((key.to_owned(), value)),
        }
    }
}
