//! Turns `config/settings.toml` into the static table of `settings::TABLE`, one constant index a row.

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;

use toml::{Table, Value};

const SOURCE: &str = "../config/settings.toml";

/// Each `type` of the file with its `Kind`.
const KINDS: [(&str, &str); 13] = [
    ("bool", "Bool"),
    ("int", "Int"),
    ("float", "Float"),
    ("duration_ms", "DurationMs"),
    ("bytes", "Bytes"),
    ("string", "String"),
    ("list", "List"),
    ("map", "Map"),
    ("enum", "Enum"),
    ("path", "Path"),
    ("url", "Url"),
    ("regex_list", "RegexList"),
    ("ignored", "Ignored"),
];

/// What a row may say; anything else is a slip.
const FIELDS: [&str; 13] = [
    "name",
    "type",
    "default",
    "values",
    "min",
    "unit",
    "effect",
    "secret",
    "signals",
    "signal_help",
    "libraries",
    "general",
    "since",
];

struct Line {
    name: String,
    general: Option<String>,
    fields: String,
    library: Option<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-changed=build.rs");
    let file: Table = std::fs::read_to_string(SOURCE)?.parse()?;
    let rows = file.get("setting").and_then(Value::as_array).ok_or("no [[setting]] in settings.toml")?;
    let mut lines = Vec::new();
    for row in rows {
        expand(row.as_table().ok_or("a setting is not a table")?, &mut lines)?;
    }
    let out = Path::new(&std::env::var("OUT_DIR")?).join("settings_table.rs");
    std::fs::write(out, generate(&lines)?)?;
    Ok(())
}

/// One row of the file becomes one line, one more per signal, or one per library.
fn expand(row: &Table, lines: &mut Vec<Line>) -> Result<(), Box<dyn Error>> {
    let name = text(row, "name");
    if let Some(field) = row.keys().find(|key| *key != "help" && !FIELDS.contains(&key.as_str())) {
        return Err(format!("{name}: no field is called {field}").into());
    }
    let libraries = texts(row, "libraries");
    if libraries.is_empty() {
        lines.push(line(row, name, text(row, "help"), true, None)?);
    }
    for library in libraries {
        let upper = library.to_uppercase().replace('-', "_");
        let help = format!("{} ({library})", text(row, "help").trim_end_matches('.'));
        lines.push(line(row, &name.replace("{LIBRARY}", &upper), &help, true, Some(library))?);
    }
    for signal in texts(row, "signals") {
        let own = name.replacen("OTLP_", &format!("OTLP_{}_", signal.to_uppercase()), 1);
        let help = match text(row, "signal_help") {
            "" => format!("The same for {signal} alone."),
            help => help.to_owned(),
        };
        let mut form = line(row, &own, &help, false, None)?;
        form.general = Some(name.to_owned());
        lines.push(form);
    }
    Ok(())
}

fn line(
    row: &Table,
    name: &str,
    help: &str,
    with_default: bool,
    library: Option<&str>,
) -> Result<Line, Box<dyn Error>> {
    let kind = text(row, "type");
    let (_, kind) =
        KINDS.iter().find(|(known, _)| *known == kind).ok_or_else(|| format!("{name}: type {kind:?}"))?;
    let since = text(row, "since");
    if help.is_empty() || since.is_empty() {
        return Err(format!("{name}: help and since are needed").into());
    }
    let fields = format!(
        "kind: Kind::{kind}, default: {:?}, values: &{:?}, min: {}, unit: {:?}, help: {help:?}, since: {since:?}, \
         secret: {}, effect: {:?}",
        if with_default { text(row, "default") } else { "" },
        texts(row, "values"),
        row.get("min").and_then(Value::as_integer).unwrap_or(0),
        text(row, "unit"),
        row.get("secret").and_then(Value::as_bool).unwrap_or(false),
        text(row, "effect"),
    );
    let general = row.get("general").and_then(Value::as_str).map(str::to_owned);
    Ok(Line { name: name.to_owned(), general, fields, library: library.map(str::to_owned) })
}

fn generate(lines: &[Line]) -> Result<String, Box<dyn Error>> {
    let position = |name: &str| lines.iter().position(|line| line.name == name);
    let mut table =
        String::from("/// Every setting, in the order of the file.\npub static TABLE: &[Row] = &[\n");
    let mut indices = String::from("/// The place of each row in [`TABLE`].\npub(super) mod row {\n");
    let mut excluded = String::from(
        "/// The row of each library's excluded URLs.\npub(super) static EXCLUDED_URLS: &[(&str, usize)] = &[\n",
    );
    for (index, line) in lines.iter().enumerate() {
        let Line { name, fields, .. } = line;
        if position(name) != Some(index) {
            return Err(format!("{name} is there twice").into());
        }
        let general = match &line.general {
            Some(general) => Some(position(general).ok_or_else(|| format!("{name}: no row {general}"))?),
            None => None,
        };
        writeln!(table, "    Row {{ name: {name:?}, general: {general:?}, {fields} }},")?;
        match &line.library {
            // Ignored rows are walked, never named.
            _ if fields.starts_with("kind: Kind::Ignored") => {}
            Some(library) => writeln!(excluded, "    ({library:?}, {index}),")?,
            None => writeln!(indices, "    pub const {name}: usize = {index};")?,
        }
    }
    Ok(format!("{table}];\n\n{excluded}];\n\n{indices}}}\n"))
}

fn text<'a>(row: &'a Table, field: &str) -> &'a str {
    row.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn texts<'a>(row: &'a Table, field: &str) -> Vec<&'a str> {
    row.get(field).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}
