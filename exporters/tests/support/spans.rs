//! Spans of every shape, for property tests.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    dead_code,
    reason = "tests; each binary uses its part"
)]

use std::sync::OnceLock;

use agent_core::Key;
use agent_core::fragment::Fragment;
use agent_core::record::{self, Link};
use agent_core::span::{ActiveSpan, Chunk, Parent, SpanKind, SpanSpec};
use agent_core::{clock, local};
use proptest::prelude::*;

#[derive(Clone, Debug)]
pub enum Value {
    Str(String),
    Int(i64),
    Double(f64),
    Bool(bool),
    Array(Vec<Value>),
}

#[derive(Clone, Debug)]
pub struct Event {
    pub name: String,
    pub text: String,
    pub int: i64,
}

#[derive(Clone, Debug)]
pub struct Linked {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    pub flags: u8,
    pub remote: bool,
    pub trace_state: String,
    pub text: String,
}

#[derive(Clone, Debug)]
pub struct Shape {
    pub scope: usize,
    pub kind: SpanKind,
    pub own_name: Option<String>,
    pub remote: Option<([u8; 16], [u8; 8], String)>,
    pub attributes: Vec<(usize, Value)>,
    /// How many times it has what many spans have in common.
    pub common: usize,
    pub replaced: Option<String>,
    pub events: Vec<Event>,
    pub links: Vec<Linked>,
    pub error: Option<String>,
    /// Whether the error was taken back.
    pub forgiven: bool,
}

pub const COMMON_NAME: &str = "a common name";
pub const COMMON: [(&str, i64); 2] = [("common.one", 1), ("common.two", -2)];

/// Copied by the first spans, shared by the others.
fn common() -> &'static Fragment {
    static FRAGMENT: OnceLock<Fragment> = OnceLock::new();
    FRAGMENT.get_or_init(|| {
        Fragment::new(|span| {
            span.name(COMMON_NAME);
            COMMON.iter().for_each(|(key, value)| span.int(*key, *value));
        })
    })
}

static SCOPES: [Key; 3] = [Key::new("remora.a"), Key::new("remora.b"), Key::new("remora.c")];

pub fn scope(index: usize) -> &'static Key {
    &SCOPES[index]
}

pub fn key(index: usize) -> &'static Key {
    static KEYS: OnceLock<Vec<Key>> = OnceLock::new();
    let keys = KEYS
        .get_or_init(|| (0..200).map(|i| Key::new(String::leak(format!("attribute.number.{i}")))).collect());
    &keys[index]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "\\PC{0,20}",
        1 => any::<String>(),
        1 => (0usize..20_000).prop_map(|n| "x".repeat(n)),
        1 => "[\"\\\\\\n\\t\\x00-\\x1f]{0,9}",
    ]
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        text().prop_map(Value::Str),
        any::<i64>().prop_map(Value::Int),
        (-200i64..200).prop_map(Value::Int),
        any::<f64>().prop_filter("NaN is not equal to itself", |f| f.is_finite()).prop_map(Value::Double),
        any::<bool>().prop_map(Value::Bool),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        5 => scalar(),
        1 => proptest::collection::vec(scalar(), 0..4).prop_map(Value::Array),
    ]
}

/// As a record takes it.
fn recorded(value: &Value) -> record::Value<'_> {
    match value {
        Value::Str(text) => record::Value::Str(text),
        Value::Int(int) => record::Value::Int(*int),
        Value::Double(double) => record::Value::Double(*double),
        Value::Bool(bool) => record::Value::Bool(*bool),
        Value::Array(_) => panic!("arrays hold no arrays"),
    }
}

fn kind() -> impl Strategy<Value = SpanKind> {
    use SpanKind::{Client, Consumer, Internal, Producer, Server};
    proptest::sample::select(vec![Internal, Server, Client, Producer, Consumer])
}

pub fn shape() -> impl Strategy<Value = Shape> {
    let event = (text(), text(), any::<i64>()).prop_map(|(name, text, int)| Event { name, text, int });
    let link = (any::<[u8; 16]>(), any::<[u8; 8]>(), any::<(u8, bool)>(), "[a-z=,]{0,9}", text()).prop_map(
        |(trace_id, span_id, (flags, remote), trace_state, text)| Linked {
            trace_id,
            span_id,
            flags,
            remote,
            trace_state,
            text,
        },
    );
    let head = (0usize..3, kind(), proptest::option::of(text()));
    let remote = proptest::option::of((any::<[u8; 16]>(), any::<[u8; 8]>(), "[a-z=,]{0,9}"));
    (
        head,
        remote,
        proptest::collection::vec((0usize..200, value()), 0..12),
        (0usize..3, proptest::option::of(text())),
        proptest::collection::vec(event, 0..3),
        proptest::collection::vec(link, 0..3),
        (proptest::option::of(text()), any::<bool>()),
    )
        .prop_map(
            |(
                (scope, kind, own_name),
                remote,
                mut attributes,
                (common, replaced),
                events,
                links,
                (error, forgiven),
            )| {
                attributes.sort_by_key(|(key, _)| *key);
                attributes.dedup_by_key(|(key, _)| *key);
                Shape {
                    scope,
                    kind,
                    own_name,
                    remote,
                    attributes,
                    common,
                    replaced,
                    events,
                    links,
                    error,
                    forgiven,
                }
            },
        )
}

/// Makes the spans, in chunks of three.
pub fn chunks(shapes: &[Shape]) -> Vec<Chunk> {
    clock::init();
    shapes
        .chunks(3)
        .map(|shapes| {
            let mut chunk = Chunk::default();
            for shape in shapes {
                let span = make(shape);
                chunk.push(&span, clock::now());
            }
            chunk
        })
        .collect()
}

fn make(shape: &Shape) -> ActiveSpan {
    let spec = SpanSpec { name: "static name", kind: shape.kind, scope: scope(shape.scope) };
    let mut span = ActiveSpan::new();
    let remote = shape.remote.as_ref().map(|(trace_id, span_id, state)| {
        let remote = agent_core::context::RemoteContext { trace_id: *trace_id, span_id: *span_id, flags: 1 };
        let carried = agent_core::context::Carried { trace_state: state.as_str().into(), baggage: "".into() };
        (remote, std::sync::Arc::new(carried))
    });
    let parent = match &remote {
        Some((remote, carried)) => Parent::Remote(remote, Some(carried)),
        None => Parent::Root(None),
    };
    local::with_ids(|ids| span.start(&spec, parent, ids));
    assert!(span.is_recording());
    (0..shape.common).for_each(|_| span.append(common()));
    if let Some(old) = &shape.replaced {
        span.str("replaced", old);
        span.replace("replaced");
        span.int("replaced", 1);
    }
    for (index, value) in &shape.attributes {
        let key = key(*index);
        match value {
            Value::Str(text) => span.str(key, text),
            Value::Int(int) => span.int(key, *int),
            Value::Double(double) => span.double(key, *double),
            Value::Bool(bool) => span.bool(key, *bool),
            Value::Array(values) => span.array(key, values.iter().map(recorded)),
        }
    }
    for event in &shape.events {
        span.event(event.name.as_str(), |attributes| {
            attributes.str("text", &event.text);
            attributes.int("int", event.int);
        });
    }
    for link in &shape.links {
        let linked = Link {
            trace_id: link.trace_id,
            span_id: link.span_id,
            flags: link.flags,
            remote: link.remote,
            trace_state: &link.trace_state,
        };
        span.link(&linked, |attributes| attributes.str("text", &link.text));
    }
    if let Some(name) = &shape.own_name {
        span.name(name);
    }
    if let Some(description) = &shape.error {
        span.error(description);
        if shape.forgiven {
            span.no_error();
        }
    }
    span
}
