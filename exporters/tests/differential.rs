//! Our writer against the reference: what `opentelemetry-proto` decodes from our bytes, in both forms, is exactly
//! the message that it would have been built as.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests"
)]

#[path = "support/spans.rs"]
mod spans;

use agent_core::clock::{self, Anchor, Timeline};
use agent_core::span::{Chunk, SpanRef};
use exporters::batch::Batch;
use exporters::encode::{Encoder, Encoding, MAX_REQUEST_BYTES};
use exporters::{Resource, ResourceValue, SCHEMA_URL};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value::Value as Any,
};
use opentelemetry_proto::tonic::resource::v1::Resource as ProtoResource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};
use proptest::prelude::*;
use prost::Message;
use spans::{Shape, Value};

fn pair(key: impl Into<String>, value: Any) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn texts<'a>(texts: impl Iterator<Item = &'a String>) -> Any {
    let values = texts.map(|text| AnyValue { value: Some(Any::StringValue(text.clone())) }).collect();
    Any::ArrayValue(ArrayValue { values })
}

fn any(value: &Value) -> Any {
    match value {
        Value::Str(text) => Any::StringValue(text.clone()),
        Value::Int(int) => Any::IntValue(*int),
        Value::Double(double) => Any::DoubleValue(*double),
        Value::Bool(bool) => Any::BoolValue(*bool),
        Value::Array(values) => Any::ArrayValue(ArrayValue {
            values: values.iter().map(|value| AnyValue { value: Some(any(value)) }).collect(),
        }),
    }
}

fn resource() -> Resource {
    Resource {
        attributes: vec![
            ("service.name".into(), ResourceValue::Str("a \"b\"".into())),
            ("process.pid".into(), ResourceValue::Int(4321)),
            ("process.command_args".into(), ResourceValue::StrArray(vec!["python".into(), "x".repeat(300)])),
        ],
    }
}

fn proto_resource() -> ProtoResource {
    let args = ["python".to_owned(), "x".repeat(300)];
    ProtoResource {
        attributes: vec![
            pair("service.name", Any::StringValue("a \"b\"".into())),
            pair("process.pid", Any::IntValue(4321)),
            pair("process.command_args", texts(args.iter())),
        ],
        ..ProtoResource::default()
    }
}

/// The reference for one span. Ids and times come from the span itself: they are drawn, not given.
fn reference(shape: &Shape, made: &SpanRef<'_>, line: &Timeline) -> Span {
    let header = made.span;
    let parent = header.parent_span_id;
    let common = spans::COMMON.map(|(key, value)| pair(key, Any::IntValue(value)));
    let mut attributes = [common.as_slice()].repeat(shape.common).concat();
    if shape.replaced.is_some() {
        attributes.push(pair("replaced", Any::IntValue(1)));
    }
    attributes.extend(shape.attributes.iter().map(|(key, value)| pair(spans::key(*key).name(), any(value))));
    let mut times = made.entries.filter_map(|entry| match entry {
        agent_core::record::Entry::Event(at, ..) => Some(line.unix_nanos(at)),
        _ => None,
    });
    Span {
        trace_id: header.trace_id.to_vec(),
        span_id: header.span_id.to_vec(),
        trace_state: shape.remote.as_ref().map(|(_, _, state)| state.clone()).unwrap_or_default(),
        parent_span_id: if parent == [0; 8] { Vec::new() } else { parent.to_vec() },
        // Our trace ids are random; the remote parent's context does not say that its are.
        flags: if shape.remote.is_some() { 0x301 } else { 0x103 },
        name: match &shape.own_name {
            Some(name) => name.clone(),
            None if shape.common > 0 => spans::COMMON_NAME.into(),
            None => "static name".into(),
        },
        kind: shape.kind as i32,
        start_time_unix_nano: line.unix_nanos(header.start),
        end_time_unix_nano: line.unix_nanos(header.end),
        attributes,
        dropped_attributes_count: 0,
        events: shape
            .events
            .iter()
            .map(|event| span::Event {
                time_unix_nano: times.next().unwrap(),
                name: event.name.clone(),
                attributes: vec![
                    pair("text", Any::StringValue(event.text.clone())),
                    pair("int", Any::IntValue(event.int)),
                ],
                dropped_attributes_count: 0,
            })
            .collect(),
        dropped_events_count: 0,
        links: shape
            .links
            .iter()
            .map(|link| span::Link {
                trace_id: link.trace_id.to_vec(),
                span_id: link.span_id.to_vec(),
                trace_state: link.trace_state.clone(),
                attributes: vec![pair("text", Any::StringValue(link.text.clone()))],
                dropped_attributes_count: 0,
                flags: u32::from(link.flags) | 0x100 | if link.remote { 0x200 } else { 0 },
            })
            .collect(),
        dropped_links_count: 0,
        status: shape
            .error
            .as_ref()
            .filter(|_| !shape.forgiven)
            .map(|description| Status { message: description.clone(), code: 2 }),
    }
}

fn expected(shapes: &[Shape], chunks: &[Chunk], line: &Timeline) -> ExportTraceServiceRequest {
    let mut scope_spans: Vec<ScopeSpans> = Vec::new();
    for (shape, made) in shapes.iter().zip(chunks.iter().flat_map(Chunk::iter)) {
        let name = spans::scope(shape.scope).name();
        let found = scope_spans.iter().position(|s| s.scope.as_ref().is_some_and(|s| s.name == name));
        let index = found.unwrap_or_else(|| {
            scope_spans.push(ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: name.into(),
                    version: agent_core::VERSION.into(),
                    ..InstrumentationScope::default()
                }),
                spans: Vec::new(),
                schema_url: SCHEMA_URL.into(),
            });
            scope_spans.len() - 1
        });
        scope_spans[index].spans.push(reference(shape, &made, line));
    }
    let resource = Some(proto_resource());
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { resource, scope_spans, schema_url: SCHEMA_URL.into() }],
    }
}

fn batch(chunks: Vec<Chunk>) -> Batch {
    let mut batch = Batch::default();
    chunks.into_iter().for_each(|chunk| batch.push(chunk));
    batch
}

fn timeline() -> Timeline {
    clock::init();
    Timeline::new(clock::first_anchor(), Anchor::take())
}

fn spans_of(request: &ExportTraceServiceRequest) -> Vec<Span> {
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.flat_map(|scope| scope.spans.clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_forms_decode_to_the_reference(shapes in proptest::collection::vec(spans::shape(), 1..12)) {
        let line = timeline();
        let chunks = spans::chunks(&shapes);
        let expected = expected(&shapes, &chunks, &line);
        let batch = batch(chunks);

        let mut encoder = Encoder::new(Encoding::Protobuf, &resource());
        prop_assert_eq!(encoder.encode(&batch, &line, 0, MAX_REQUEST_BYTES), shapes.len());
        prop_assert_eq!(&ExportTraceServiceRequest::decode(encoder.bytes()).unwrap(), &expected);

        let mut encoder = Encoder::new(Encoding::Json, &resource());
        prop_assert_eq!(encoder.encode(&batch, &line, 0, MAX_REQUEST_BYTES), shapes.len());
        prop_assert!(!encoder.bytes().contains(&b'\n'), "one request is one line");
        let parsed: ExportTraceServiceRequest = serde_json::from_slice(encoder.bytes()).unwrap();
        prop_assert_eq!(&parsed, &expected);
    }

    #[test]
    fn a_batch_cut_by_bytes_loses_and_repeats_nothing(
        shapes in proptest::collection::vec(spans::shape(), 1..12),
        limit in 1usize..60_000,
    ) {
        let line = timeline();
        let chunks = spans::chunks(&shapes);
        let expected = spans_of(&expected(&shapes, &chunks, &line));
        let batch = batch(chunks);
        for encoding in [Encoding::Protobuf, Encoding::Json] {
            let mut encoder = Encoder::new(encoding, &resource());
            let mut got = Vec::new();
            while got.len() < shapes.len() {
                let written = encoder.encode(&batch, &line, got.len(), limit);
                prop_assert!(written > 0);
                let request: ExportTraceServiceRequest = match encoding {
                    Encoding::Protobuf => ExportTraceServiceRequest::decode(encoder.bytes()).unwrap(),
                    Encoding::Json => serde_json::from_slice(encoder.bytes()).unwrap(),
                };
                let spans = spans_of(&request);
                prop_assert_eq!(spans.len(), written);
                // What closes the scope and the request comes on top.
                prop_assert!(written == 1 || encoder.bytes().len() <= limit + 200);
                got.extend(spans);
            }
            prop_assert_eq!(&got, &expected);
        }
    }
}

#[test]
fn an_empty_batch_is_a_valid_request() {
    let mut encoder = Encoder::new(Encoding::Json, &Resource::default());
    assert_eq!(encoder.encode(&Batch::default(), &timeline(), 0, MAX_REQUEST_BYTES), 0);
    serde_json::from_slice::<serde_json::Value>(encoder.bytes()).unwrap();
}

#[test]
fn what_json_has_no_number_for_is_text() {
    use agent_core::span::{ActiveSpan, Parent, SpanKind, SpanSpec};
    let spec = SpanSpec { name: "x", kind: SpanKind::Internal, scope: spans::scope(0) };
    let mut span = ActiveSpan::new();
    clock::init();
    agent_core::local::with_ids(|ids| span.start(&spec, Parent::Root(None), ids));
    span.double("nan", f64::NAN);
    span.double("inf", f64::NEG_INFINITY);
    let mut chunk = Chunk::default();
    chunk.push(&span, clock::now());
    let mut encoder = Encoder::new(Encoding::Json, &Resource::default());
    encoder.encode(&batch(vec![chunk]), &timeline(), 0, MAX_REQUEST_BYTES);
    let text = String::from_utf8(encoder.bytes().to_vec()).unwrap();
    assert!(
        text.contains(r#""doubleValue":"NaN""#) && text.contains(r#""doubleValue":"-Infinity""#),
        "{text}"
    );
    serde_json::from_str::<serde_json::Value>(&text).unwrap();
}
