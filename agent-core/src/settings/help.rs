//! The table as text: for `remora --help` and for docs/settings.md.

use std::fmt::Write as _;

use super::table::{Kind, Row, TABLE, flag_name};

/// The flags of `remora run`, each with its variable, help and default.
pub fn help_text() -> String {
    let mut out = String::new();
    let mut group = "";
    for row in rows() {
        if row.effect != group {
            group = row.effect;
            put(&mut out, format_args!("\n{group}:\n"));
        }
        put(&mut out, format_args!("  --{} {}  [{}]\n", flag_name(row.name), placeholder(row), row.name));
        put(&mut out, format_args!("      {}{}\n", row.help, default(row)));
    }
    out
}

/// docs/settings.md, whole.
pub fn docs() -> String {
    let mut out = String::from(
        "# Settings\n\nMade from `config/settings.toml` by `cargo run -p agent-core --example settings_doc`; do not \
         edit by hand.\n\nA setting is an environment variable, or the flag of the same name in `remora run --flag \
         value CMD…`, or a keyword of `remora.config(…)`. An empty value is no value. A value that cannot be used \
         gives one line on stderr and is replaced; the application runs on. `remora config` shows what is in force \
         and where it came from.\n",
    );
    let mut group = "";
    for row in rows() {
        if row.effect != group {
            group = row.effect;
            let mut title = group.to_owned();
            title[..1].make_ascii_uppercase();
            put(&mut out, format_args!("\n## {title}\n\n"));
            out.push_str(
                "| variable | flag | type | default | since | meaning |\n|---|---|---|---|---|---|\n",
            );
        }
        let default = match (row.default, row.general) {
            ("", Some(general)) => format!("`{}`", TABLE[general].name),
            ("", None) => "–".to_owned(),
            (default, _) => format!("`{default}`"),
        };
        let values = match row.kind {
            Kind::Enum => row.values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", "),
            kind => kind.name().to_owned(),
        };
        let unit = if row.unit.is_empty() { String::new() } else { format!(" ({})", row.unit) };
        let secret = if row.secret { " Never shown." } else { "" };
        put(
            &mut out,
            format_args!(
                "| `{}` | `--{}` | {values}{unit} | {default} | {} | {}{secret} |\n",
                row.name,
                flag_name(row.name),
                row.since,
                row.help.replace('|', "\\|"),
            ),
        );
    }
    out.push_str("\n## Accepted without effect\n\nOne line says so where they are set.\n\n");
    out.push_str("| variable | why |\n|---|---|\n");
    for row in TABLE.iter().filter(|row| row.kind == Kind::Ignored) {
        put(&mut out, format_args!("| `{}` | {} |\n", row.name, row.help));
    }
    out
}

fn rows() -> impl Iterator<Item = &'static Row> {
    TABLE.iter().filter(|row| row.kind != Kind::Ignored)
}

fn placeholder(row: &Row) -> String {
    match row.kind {
        Kind::Enum => row.values.join("|"),
        Kind::Bool => "true|false".to_owned(),
        Kind::DurationMs => "MS".to_owned(),
        Kind::Map => "KEY=VALUE,…".to_owned(),
        Kind::RegexList => "REGEX,…".to_owned(),
        kind => kind.name().to_ascii_uppercase(),
    }
}

fn default(row: &Row) -> String {
    if row.default.is_empty() { String::new() } else { format!(" Default: {}.", row.default) }
}

/// Writing to a string cannot fail.
fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}
