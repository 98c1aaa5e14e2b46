//! A readable tree on stderr, only when it is chosen. What is not in the same batch as its parent stands at the top.

use std::collections::HashMap;
use std::fmt::Write as _;

use agent_core::clock::Timeline;
use agent_core::id::{SpanId, TraceId};
use agent_core::record::{Entries, Entry, Value};
use agent_core::span::{SpanKind, SpanRef, StatusCode};

use crate::batch::Batch;
use crate::output;
use crate::request::{Failure, io_text};

/// Values longer than this are cut.
const MAX_VALUE: usize = 200;

/// The tree of a batch, as text.
pub(crate) fn render(batch: &Batch, timeline: &Timeline) -> String {
    let spans: Vec<SpanRef<'_>> = batch.spans().collect();
    let by_id: HashMap<(TraceId, SpanId), usize> =
        spans.iter().enumerate().map(|(i, s)| ((s.span.trace_id, s.span.span_id), i)).collect();
    let mut children: HashMap<usize, Vec<usize>> = HashMap::new();
    let mut roots: Vec<usize> = Vec::new();
    for (index, span) in spans.iter().enumerate() {
        match by_id.get(&(span.span.trace_id, span.span.parent_span_id)) {
            Some(parent) if *parent != index => children.entry(*parent).or_default().push(index),
            _ => roots.push(index),
        }
    }
    let start = |index: &usize| spans[*index].span.start;
    roots.sort_by_key(|index| (spans[*index].span.trace_id, start(index)));
    children.values_mut().for_each(|list| list.sort_by_key(start));
    let mut text = String::new();
    let mut trace = [0; 16];
    // A stack of our own: depth is the application's.
    let mut stack: Vec<(usize, usize)> = roots.iter().rev().map(|root| (*root, 0)).collect();
    while let Some((index, depth)) = stack.pop() {
        let span = &spans[index];
        if span.span.trace_id != trace {
            trace = span.span.trace_id;
            let _ = write!(text, "trace ");
            for byte in trace {
                let _ = write!(text, "{byte:02x}");
            }
            text.push('\n');
        }
        line(&mut text, span, depth, timeline);
        if let Some(below) = children.remove(&index) {
            stack.extend(below.iter().rev().map(|child| (*child, depth + 1)));
        }
    }
    text
}

fn line(text: &mut String, span: &SpanRef<'_>, depth: usize, timeline: &Timeline) {
    let mut name = span.static_name();
    let mut description = "";
    for entry in span.entries {
        match entry {
            Entry::Name(text) => name = text,
            Entry::StatusDescription(text) => description = text,
            _ => {}
        }
    }
    let nanos = timeline.unix_nanos(span.span.end).saturating_sub(timeline.unix_nanos(span.span.start));
    let indent = 2 + 2 * depth.min(40);
    let kind = match span.span.kind {
        SpanKind::Internal => "",
        SpanKind::Server => " [server]",
        SpanKind::Client => " [client]",
        SpanKind::Producer => " [producer]",
        SpanKind::Consumer => " [consumer]",
    };
    let _ = write!(text, "{:indent$}{}{kind}  {}", "", one_line(name), duration(nanos));
    if span.span.status == StatusCode::Error {
        let _ = write!(text, "  ERROR {}", one_line(description));
    }
    attributes(text, span.entries);
    text.push('\n');
    for entry in span.entries {
        if let Entry::Event(at, name, nested, _) = entry {
            let after = timeline.unix_nanos(at).saturating_sub(timeline.unix_nanos(span.span.start));
            let _ = write!(text, "{:indent$}  ! {} at {}", "", one_line(name), duration(after));
            attributes(text, nested);
            text.push('\n');
        }
    }
}

fn attributes(text: &mut String, entries: Entries<'_>) {
    for entry in entries {
        let Entry::Attribute(key, value) = entry else { continue };
        let _ = write!(text, "  {key}=");
        match value {
            Value::Str(value) => text.push_str(&one_line(value)),
            value => item(text, value),
        }
    }
}

/// A value among others: a text is quoted.
fn item(text: &mut String, value: Value<'_>) {
    let _ = match value {
        Value::Str(value) => write!(text, "{:?}", one_line(value)),
        Value::Int(value) => write!(text, "{value}"),
        Value::Double(value) => write!(text, "{value}"),
        Value::Bool(value) => write!(text, "{value}"),
        Value::Array(values) => {
            text.push('[');
            for (at, value) in values.enumerate() {
                text.push_str(if at == 0 { "" } else { ", " });
                item(text, value);
            }
            text.push(']');
            Ok(())
        }
    };
}

/// A value from the application must not draw on the operator's terminal.
fn one_line(value: &str) -> String {
    let cut = agent_core::limits::head(value, MAX_VALUE);
    let mut clean: String = cut.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if cut.len() < value.len() {
        clean.push('…');
    }
    clean
}

fn duration(nanos: u64) -> String {
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{:.1} µs", nanos as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} ms", nanos as f64 / 1e6),
        _ => format!("{:.2} s", nanos as f64 / 1e9),
    }
}

/// Writes the tree.
pub(crate) fn write(batch: &Batch, timeline: &Timeline) -> Result<(), Failure> {
    output::stderr(render(batch, timeline).as_bytes(), output::PATIENCE)
        .map_err(|error| Failure::File(format!("cannot write stderr: {}", io_text(&error))))
}

#[cfg(test)]
mod tests {
    use agent_core::Key;
    use agent_core::clock::{self, Anchor};
    use agent_core::local::with_ids;
    use agent_core::span::{ActiveSpan, Chunk, Parent, SpanSpec};

    use super::*;

    static SCOPE: Key = Key::new("remora.console");

    #[test]
    fn children_stand_below_their_parents_and_nothing_draws_on_the_terminal() {
        clock::init();
        let spec = SpanSpec { name: "GET /", kind: SpanKind::Server, scope: &SCOPE };
        let (mut parent, mut child) = (ActiveSpan::new(), ActiveSpan::new());
        with_ids(|ids| parent.start(&spec, Parent::Root(None), ids));
        with_ids(|ids| child.start(&SpanSpec { name: "SELECT", ..spec }, Parent::Local(&parent), ids));
        child.str("db.query.text", "select \u{1b}[31m1\n");
        child.str_array("texts", ["a\n", "\"b\""].into_iter());
        child.array("numbers", [1.5, 2.0].into_iter().map(Value::Double));
        child.error("locked");
        let mut chunk = Chunk::default();
        chunk.push(&child, clock::now());
        chunk.push(&parent, clock::now());
        let mut batch = Batch::default();
        batch.push(chunk);
        let text = render(&batch, &Timeline::new(clock::first_anchor(), Anchor::take()));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].starts_with("trace ") && lines[0].len() == 38);
        assert!(lines[1].starts_with("  GET / [server]  "));
        assert!(lines[2].starts_with("    SELECT [server]  ") && lines[2].contains("ERROR locked"));
        let written = r#"db.query.text=select  [31m1   texts=["a ", "\"b\""]  numbers=[1.5, 2]"#;
        assert!(lines[2].ends_with(written), "{}", lines[2]);
    }
}
