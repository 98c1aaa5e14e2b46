//! Head sampling: the six samplers that `OTEL_TRACES_SAMPLER` names, as two words and no allocation.
//!
//! The ratio looks at the lower eight bytes of the trace id, as the OpenTelemetry SDK for Python does, so that
//! services of one trace decide alike whichever agent they run.
//! <https://opentelemetry.io/docs/specs/otel/trace/sdk/#built-in-samplers>

/// The names that `OTEL_TRACES_SAMPLER` takes.
pub const NAMES: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];

/// What the parent of a new span decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParentInfo {
    /// Its sampled flag.
    pub sampled: bool,
    /// Whether it came from another process.
    pub remote: bool,
}

/// The decision where no parent has taken it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// Every trace.
    On,
    /// No trace.
    Off,
    /// The traces whose lower eight id bytes, big-endian, are below this bound.
    Below(u64),
}

impl Root {
    /// The share `ratio` of all traces. Outside `0.0..=1.0`, or not a number: `None`.
    pub fn ratio(ratio: f64) -> Option<Self> {
        const ALL: f64 = 18_446_744_073_709_551_616.0; // 2^64
        if !(0.0..=1.0).contains(&ratio) {
            return None;
        }
        if ratio == 1.0 {
            return Some(Self::On);
        }
        // Below 2^64, as the ratio is below one.
        Some(Self::Below((ratio * ALL).round_ties_even() as u64))
    }

    #[inline]
    fn decide(self, trace_id: [u8; 16]) -> bool {
        match self {
            Self::On => true,
            Self::Off => false,
            Self::Below(bound) => {
                let [_, _, _, _, _, _, _, _, low @ ..] = trace_id;
                u64::from_be_bytes(low) < bound
            }
        }
    }
}

/// The sampler of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampler {
    root: Root,
    parent_based: bool,
}

impl Sampler {
    /// `parentbased_always_on`, the specification's default.
    pub const DEFAULT: Self = Self { root: Root::On, parent_based: true };

    /// A sampler that asks `root` for every span or, if `parent_based`, for spans without a parent only.
    pub const fn new(root: Root, parent_based: bool) -> Self {
        Self { root, parent_based }
    }

    /// The sampler that `OTEL_TRACES_SAMPLER` calls `name`; `ratio` serves the two that take one. `None` for
    /// another name or a ratio outside `0.0..=1.0`.
    pub fn named(name: &str, ratio: f64) -> Option<Self> {
        let (kind, parent_based) = match name.strip_prefix("parentbased_") {
            Some(kind) => (kind, true),
            None => (name, false),
        };
        let root = match kind {
            "always_on" => Root::On,
            "always_off" => Root::Off,
            "traceidratio" => Root::ratio(ratio)?,
            _ => return None,
        };
        Some(Self { root, parent_based })
    }

    /// Whether a child of a span of this process can be recorded at all: asked before an id is drawn for it.
    #[inline]
    pub fn may_sample_under(&self, parent_sampled: bool) -> bool {
        parent_sampled || !self.parent_based && self.root != Root::Off
    }

    /// Whether a new trace can be recorded at all.
    #[inline]
    pub fn may_sample_root(&self) -> bool {
        self.root != Root::Off
    }

    /// Whether a span is recorded and its trace marked as sampled. Asked before anything is read for it.
    #[inline]
    pub fn should_sample(&self, parent: Option<ParentInfo>, trace_id: [u8; 16]) -> bool {
        match parent {
            Some(parent) if self.parent_based => parent.sampled,
            _ => self.root.decide(trace_id),
        }
    }
}

impl Default for Sampler {
    fn default() -> Self {
        Self::DEFAULT
    }
}
