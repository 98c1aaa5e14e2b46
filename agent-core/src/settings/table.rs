//! The table of settings, generated from `config/settings.toml`, and the names in it.

/// How a setting is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Int,
    /// A number.
    Float,
    /// A whole number of milliseconds.
    DurationMs,
    /// A whole number of bytes, or of KiB, MiB, GiB.
    Bytes,
    /// Any text.
    String,
    /// Texts, separated by commas.
    List,
    /// `key=value` pairs, separated by commas, percent-encoded.
    Map,
    /// One of [`Row::values`], in either case.
    Enum,
    /// A path in the file system.
    Path,
    /// A URL.
    Url,
    /// Regular expressions, separated by commas.
    RegexList,
    /// Known, and without effect.
    Ignored,
}

impl Kind {
    /// The name of the kind in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Float => "float",
            Self::DurationMs => "duration_ms",
            Self::Bytes => "bytes",
            Self::String => "string",
            Self::List => "list",
            Self::Map => "map",
            Self::Enum => "enum",
            Self::Path => "path",
            Self::Url => "url",
            Self::RegexList => "regex_list",
            Self::Ignored => "ignored",
        }
    }
}

/// One setting.
#[derive(Debug)]
pub struct Row {
    /// The environment variable.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// As it would be written in the environment; empty where there is none.
    pub default: &'static str,
    /// What an enumeration takes.
    pub values: &'static [&'static str],
    /// The least number that makes sense.
    pub min: u64,
    /// Of the value, or empty.
    pub unit: &'static str,
    /// One line.
    pub help: &'static str,
    /// The version that introduced it.
    pub since: &'static str,
    /// Never shown.
    pub secret: bool,
    /// The group in which it is listed.
    pub effect: &'static str,
    /// The row that answers where this one is not set.
    pub general: Option<usize>,
}

include!(concat!(env!("OUT_DIR"), "/settings_table.rs"));

const PREFIXES: [&str; 3] = ["OTEL_PYTHON_", "OTEL_", "REMORA_"];

/// The flag of a variable, without the dashes: `OTEL_SERVICE_NAME` is `service_name`, as with
/// `opentelemetry-instrument`.
pub fn flag_name(variable: &str) -> String {
    PREFIXES.iter().find_map(|prefix| variable.strip_prefix(prefix)).unwrap_or(variable).to_ascii_lowercase()
}

/// The row of a variable (`OTEL_SERVICE_NAME`) or of a flag (`service_name`, `service-name`, `--service_name`).
pub fn find(name: &str) -> Option<&'static Row> {
    index_of(name).map(|index| &TABLE[index])
}

pub(super) fn index_of(name: &str) -> Option<usize> {
    let flag = name.strip_prefix("--").unwrap_or(name);
    TABLE.iter().position(|row| row.name == name || is_flag_of(flag, row.name))
}

fn is_flag_of(flag: &str, variable: &str) -> bool {
    let bare = PREFIXES.iter().find_map(|prefix| variable.strip_prefix(prefix)).unwrap_or(variable);
    flag.len() == bare.len()
        && flag.bytes().zip(bare.bytes()).all(|(given, own)| match given {
            b'-' => own == b'_',
            given => given == own.to_ascii_lowercase(),
        })
}

/// One line for each `REMORA_*` name that is no setting, with the nearest one that is. Other prefixes are not
/// ours to judge.
pub fn unknown<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<super::Diagnostic> {
    let stray = |name: &&str| name.starts_with("REMORA_") && TABLE.iter().all(|row| row.name != *name);
    names.into_iter().filter(stray).map(|name| unknown_setting(name, nearest(name, |row| row.name))).collect()
}

pub(super) fn unknown_flag(name: &str) -> super::Diagnostic {
    let flag = flag_name(name);
    unknown_setting(name, nearest_of(&flag, TABLE.iter().map(|row| flag_name(row.name))).as_deref())
}

fn unknown_setting(name: &str, near: Option<&str>) -> super::Diagnostic {
    let name = super::parse::shown(name);
    super::Diagnostic::new(match near {
        Some(near) => format!("{name} is no setting; did you mean {near}?"),
        None => format!("{name} is no setting"),
    })
}

fn nearest(name: &str, of: fn(&'static Row) -> &'static str) -> Option<&'static str> {
    nearest_of(name, TABLE.iter().map(of))
}

/// The candidate within three edits of `name`, if there is one.
fn nearest_of<T: AsRef<str>>(name: &str, candidates: impl Iterator<Item = T>) -> Option<T> {
    const NEAR: usize = 3;
    if name.len() > 128 {
        return None;
    }
    candidates
        .map(|candidate| (distance(name.as_bytes(), candidate.as_ref().as_bytes()), candidate))
        .filter(|(edits, _)| *edits <= NEAR)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's edit distance.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
