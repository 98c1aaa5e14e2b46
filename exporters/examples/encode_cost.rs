//! What encoding costs per span: 512 spans of 8 attributes, best of many rounds. The last line is for programs.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::allow_attributes,
    reason = "a program to run by hand"
)]

use std::hint::black_box;
use std::time::Instant;

use agent_core::Key;
use agent_core::clock::{self, Anchor, Timeline};
use agent_core::local::with_ids;
use agent_core::span::{ActiveSpan, Chunk, Parent, SpanKind, SpanSpec};
use exporters::batch::Batch;
use exporters::compress::Compressor;
use exporters::encode::{Encoder, Encoding, MAX_REQUEST_BYTES};
use exporters::{Compression, Resource, ResourceValue};

static SCOPE: Key = Key::new("remora.flask");
static METHOD: Key = Key::new("http.request.method");
static ROUTE: Key = Key::new("http.route");
static PATH: Key = Key::new("url.path");
static SCHEME: Key = Key::new("url.scheme");
static STATUS: Key = Key::new("http.response.status_code");
static HOST: Key = Key::new("server.address");
static PORT: Key = Key::new("server.port");
static AGENT: Key = Key::new("user_agent.original");

const SPANS: usize = 512;
const ROUNDS: usize = 400;

fn batch() -> Batch {
    let spec = SpanSpec { name: "GET /users/{id}", kind: SpanKind::Server, scope: &SCOPE };
    let mut batch = Batch::default();
    let mut span = ActiveSpan::new();
    for chunk in 0..SPANS / 64 {
        let mut spans = Chunk::with_capacity(64);
        for i in 0..64 {
            with_ids(|ids| span.start(&spec, Parent::Root(None), ids));
            span.str(&METHOD, "GET");
            span.str(&ROUTE, "/users/{id}");
            span.str(&PATH, &format!("/users/{}", chunk * 64 + i));
            span.str(&SCHEME, "https");
            span.int(&STATUS, 200);
            span.str(&HOST, "shop.example.org");
            span.int(&PORT, 8443);
            span.str(&AGENT, "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101");
            spans.push(&span, clock::now());
        }
        batch.push(spans);
    }
    batch
}

/// The least of all rounds, in nanoseconds a span.
fn best(mut round: impl FnMut()) -> f64 {
    let mut least = f64::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        round();
        least = least.min(start.elapsed().as_nanos() as f64);
    }
    least / SPANS as f64
}

fn main() {
    clock::init();
    let batch = batch();
    let resource = Resource { attributes: vec![("service.name".into(), ResourceValue::Str("shop".into()))] };
    let timeline = Timeline::new(clock::first_anchor(), Anchor::take());
    let mut protobuf = Encoder::new(Encoding::Protobuf, &resource);
    let mut json = Encoder::new(Encoding::Json, &resource);
    let encode = best(|| {
        assert_eq!(protobuf.encode(black_box(&batch), &timeline, 0, MAX_REQUEST_BYTES), SPANS);
    });
    let text = best(|| {
        json.encode(black_box(&batch), &timeline, 0, MAX_REQUEST_BYTES);
    });
    println!("protobuf   {encode:7.1} ns/span, {} bytes/span", protobuf.bytes().len() / SPANS);
    println!("json       {text:7.1} ns/span, {} bytes/span", json.bytes().len() / SPANS);
    let mut total = 0.0;
    for (name, kind) in [("deflate 1", Compression::Deflate), ("gzip 1", Compression::Gzip)] {
        let mut bytes = 0;
        let mut compressor = Compressor::new(kind);
        let mut out = Vec::with_capacity(64 * 1024);
        total = best(|| {
            protobuf.encode(black_box(&batch), &timeline, 0, MAX_REQUEST_BYTES);
            out.clear();
            compressor.append(protobuf.bytes(), &mut out).unwrap();
            bytes = out.len();
        });
        println!("+ {name:<9}{total:7.1} ns/span, {} bytes/span", bytes / SPANS);
    }
    println!("encode_ns_per_span={encode:.0}");
    println!("encode_gzip1_ns_per_span={total:.0}");
}
