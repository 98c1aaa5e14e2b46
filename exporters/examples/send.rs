//! Sends spans to a receiver and says what came of it:
//! `send PROTOCOL ENDPOINT COUNT [gzip|deflate] [ca=FILE] [cert=FILE] [key=FILE]`.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used, clippy::allow_attributes)]

use std::time::{Duration, Instant};

use agent_core::Key;
use agent_core::local::{set_queue_source, with_ids};
use agent_core::span::{ActiveSpan, Parent, SpanKind, SpanSpec};
use exporters::{Compression, Exporter, ExporterConfig, Otlp, Protocol, Resource, ResourceValue, global};

static SCOPE: Key = Key::new("remora.example");
static NUMBER: Key = Key::new("example.number");

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [protocol, endpoint, count, rest @ ..] = &arguments[..] else {
        eprintln!(
            "send http/protobuf|http/json|grpc|file|console ENDPOINT COUNT [gzip|deflate] [ca=FILE] [cert=FILE] [key=FILE]"
        );
        std::process::exit(2);
    };
    let mut otlp = Otlp::new(Protocol::HttpProtobuf, endpoint);
    for option in rest {
        match option.split_once('=').unwrap_or((option, "")) {
            ("gzip", _) => otlp.compression = Compression::Gzip,
            ("deflate", _) => otlp.compression = Compression::Deflate,
            ("ca", file) => otlp.ca_file = Some(file.into()),
            ("cert", file) => otlp.client_cert = Some(file.into()),
            ("key", file) => otlp.client_key = Some(file.into()),
            (other, _) => eprintln!("{other}: unknown"),
        }
    }
    let exporter = match protocol.as_str() {
        "file" => Exporter::File(endpoint.clone()),
        "console" => Exporter::Console,
        name => {
            let all = [Protocol::HttpProtobuf, Protocol::HttpJson, Protocol::Grpc];
            otlp.protocol = all.into_iter().find(|protocol| protocol.name() == name).unwrap();
            Exporter::Otlp(Box::new(otlp))
        }
    };
    let mut config = ExporterConfig::new(vec![exporter]);
    config.resource = Box::new(|_| Resource {
        attributes: vec![("service.name".into(), ResourceValue::Str("send".into()))],
    });
    config.log = Box::new(|level, line| eprintln!("remora: {level:?}: {line}"));
    agent_core::clock::init();
    global::init(config);
    set_queue_source(global::queue_source);
    let count = count.parse().unwrap();
    let spec = SpanSpec { name: "send", kind: SpanKind::Internal, scope: &SCOPE };
    let mut span = ActiveSpan::new();
    let start = Instant::now();
    for number in 0..count {
        with_ids(|ids| span.start(&spec, Parent::Root(None), ids));
        span.int(&NUMBER, number);
        span.finish();
    }
    let made = start.elapsed();
    for result in global::probe(Duration::from_secs(5)) {
        println!("{result:?}");
    }
    let start = Instant::now();
    global::shutdown();
    let status = global::status();
    println!("made in {made:?}, exit after {:?}, {:?}", start.elapsed(), status.counters);
    std::process::exit(i32::from(status.counters.sent != count as u64));
}
