//! Each setting means what its specification says; a bad value costs one line and never more.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use agent_core::propagation::Propagators;
use agent_core::resource::Detectors;
use agent_core::sampling::Sampler;
use agent_core::settings::{
    Compression, Exporter, Kind, LogLevel, Origin, Protocol, Settings, TABLE, docs, find, flag_name,
    help_text, unknown,
};
use proptest::prelude::*;

fn both(environment: &[(&str, &str)], overrides: &[(&str, &str)]) -> (Settings, Vec<String>) {
    let environment: HashMap<&str, &str> = environment.iter().copied().collect();
    let overrides: Vec<_> = overrides.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    let (settings, said) =
        Settings::resolve(&|name| environment.get(name).map(|value| (*value).to_owned()), &overrides);
    (settings, said.iter().map(ToString::to_string).collect())
}

fn resolve(environment: &[(&str, &str)]) -> (Settings, Vec<String>) {
    both(environment, &[])
}

/// Without a word.
fn quiet(environment: &[(&str, &str)]) -> Settings {
    let (settings, said) = resolve(environment);
    assert_eq!(said, [""; 0], "{environment:?}");
    settings
}

/// With exactly this line.
fn says(environment: &[(&str, &str)], line: &str) -> Settings {
    let (settings, said) = resolve(environment);
    assert_eq!(said, [line]);
    settings
}

fn shown(settings: &Settings, name: &str) -> (String, Origin) {
    let row = settings.rows().into_iter().find(|row| row.row().name == name);
    row.map_or_else(|| (format!("no row {name}"), Origin::Default), |row| (row.value, row.origin))
}

#[test]
fn every_row_is_read_once_and_nothing_else() {
    let asked = RefCell::new(Vec::new());
    let (_, said) = Settings::resolve(
        &|name| {
            asked.borrow_mut().push(name.to_owned());
            None
        },
        &[],
    );
    let asked = asked.into_inner();
    let rows: BTreeSet<&str> = TABLE.iter().map(|row| row.name).collect();
    assert_eq!(asked.iter().map(String::as_str).collect::<BTreeSet<_>>(), rows);
    assert_eq!(asked.len(), TABLE.len(), "a row was read twice");
    assert!(said.is_empty());
}

#[test]
fn every_default_can_be_read_as_its_own_type() {
    let given: Vec<(&str, &str)> = TABLE.iter().map(|row| (row.name, row.default)).collect();
    let explicit = quiet(&given);
    let implicit = quiet(&[]);
    let strip = |settings: &Settings| {
        settings.rows().iter().map(|row| (row.row().name, row.value.clone())).collect::<Vec<_>>()
    };
    assert_eq!(strip(&explicit), strip(&implicit));
    assert_eq!((explicit.delivery, explicit.limits), (implicit.delivery, implicit.limits));
    for row in TABLE.iter().filter(|row| row.kind == Kind::Enum && row.general.is_none()) {
        assert!(
            row.values.is_empty() || row.values.contains(&row.default) || row.default.is_empty(),
            "{}",
            row.name
        );
    }
}

#[test]
fn the_defaults_are_those_of_the_design() {
    let settings = quiet(&[]);
    assert!(!settings.enabled && !settings.force && !settings.sdk_disabled);
    assert_eq!(settings.exporters, [Exporter::Otlp]);
    assert_eq!(settings.otlp.endpoint, "http://localhost:4318/v1/traces");
    assert_eq!(settings.otlp.protocol, Protocol::HttpProtobuf);
    assert_eq!(settings.otlp.timeout, Duration::from_secs(10));
    assert_eq!(settings.otlp.compression, Compression::None);
    assert_eq!(settings.delivery.schedule_delay, Duration::from_secs(5));
    assert_eq!(settings.delivery.export_timeout, Duration::from_secs(30));
    assert_eq!(settings.delivery.max_queue_size, None);
    assert_eq!(settings.delivery.max_export_batch_size, 2048);
    assert_eq!(settings.delivery.queue_max_bytes, 64 << 20);
    assert_eq!(settings.delivery.retry_max_bytes, 32 << 20);
    assert_eq!(settings.delivery.exit_timeout, None);
    assert!(settings.delivery.sigterm_flush);
    assert_eq!(settings.limits, agent_core::limits::Limits::default());
    assert_eq!(settings.sampler, Sampler::default());
    assert_eq!(settings.propagators, agent_core::propagation::Propagators::DEFAULT);
    assert_eq!(settings.log_level, LogLevel::Info);
    let detectors = Detectors::PROCESS.with(Detectors::HOST).with(Detectors::SERVICE_INSTANCE);
    assert_eq!(settings.resource.detectors, detectors);
    assert_eq!((settings.breaker.faults, settings.breaker.window), (5, Duration::from_secs(60)));
    assert_eq!(settings.http.known_methods.len(), 10);
    assert_eq!(
        shown(&settings, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ("http://localhost:4318".into(), Origin::Default)
    );
}

#[test]
fn a_bad_value_is_one_line_with_variable_value_and_fallback() {
    for (name, value, line) in [
        (
            "OTEL_BSP_SCHEDULE_DELAY",
            "abc",
            "remora: OTEL_BSP_SCHEDULE_DELAY=abc is not a whole number of milliseconds; using 5000",
        ),
        (
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
            "0",
            "remora: OTEL_BSP_MAX_EXPORT_BATCH_SIZE=0 is not a whole number from 1 up; using 2048",
        ),
        ("OTEL_SDK_DISABLED", "1", "remora: OTEL_SDK_DISABLED=1 is neither true nor false; using false"),
        (
            "REMORA_SIGTERM_FLUSH",
            "no",
            "remora: REMORA_SIGTERM_FLUSH=no is neither true nor false; using true",
        ),
        (
            "OTEL_BSP_MAX_QUEUE_SIZE",
            "-1",
            "remora: OTEL_BSP_MAX_QUEUE_SIZE=-1 is not a whole number from 1 up; using no value",
        ),
        (
            "OTEL_TRACES_EXPORTER",
            "zipkin",
            "remora: OTEL_TRACES_EXPORTER=zipkin names an exporter that there is not; using otlp",
        ),
        (
            "OTEL_PROPAGATORS",
            "b3,tracecontext",
            "remora: OTEL_PROPAGATORS=b3,tracecontext names a propagator that is not supported yet; using tracecontext",
        ),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "localhost:4318",
            "remora: OTEL_EXPORTER_OTLP_ENDPOINT=localhost:4318 has no scheme (http://, https:// or unix:), without which only grpc can do; using http://localhost:4318",
        ),
        (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "http://u:hunter2@:x/",
            "remora: OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://REDACTED@:x/ names no host; using http://localhost:4318/v1/traces",
        ),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "secret",
            "remora: OTEL_EXPORTER_OTLP_HEADERS: entry 1 cannot be read; using no value",
        ),
        ("OTEL_TRACES_EXPORTER", ",", "remora: OTEL_TRACES_EXPORTER=, names nothing; using otlp"),
        ("OTEL_PROPAGATORS", " , ", "remora: OTEL_PROPAGATORS=, names nothing; using tracecontext,baggage"),
        (
            "OTEL_EXPORTER_OTLP_TIMEOUT",
            "0",
            "remora: OTEL_EXPORTER_OTLP_TIMEOUT=0 is not a whole number of milliseconds from 1 up; using 10000",
        ),
        (
            "OTEL_PROPAGATORS",
            "B3,TraceContext",
            "remora: OTEL_PROPAGATORS=B3,TraceContext names a propagator that is not supported yet; using TraceContext",
        ),
        (
            "OTEL_PYTHON_ID_GENERATOR",
            "xray",
            "remora: OTEL_PYTHON_ID_GENERATOR=xray is not one of random; using random",
        ),
        (
            "OTEL_EXPORTER_OTLP_COMPRESSION",
            "zstd",
            "remora: OTEL_EXPORTER_OTLP_COMPRESSION=zstd is not one of none, gzip, deflate; using none",
        ),
        ("OTEL_PYTHON_CONTEXT", "x", "remora: OTEL_PYTHON_CONTEXT has no effect: The context is native."),
        (
            "REMORA_QUEUE_MAX_BYTES",
            "64MB",
            "remora: REMORA_QUEUE_MAX_BYTES=64MB is not a whole number of bytes, KiB, MiB or GiB from 1 up; using 67108864",
        ),
    ] {
        let settings = says(&[(name, value)], line);
        let (_, origin) = shown(&settings, name);
        let expected = match name {
            "OTEL_PYTHON_CONTEXT" => Origin::Environment,
            _ => Origin::Fallback,
        };
        assert_eq!(origin, expected, "{name}");
    }
    let settings = says(
        &[("OTEL_TRACES_SAMPLER", "jaeger_remote"), ("OTEL_TRACES_SAMPLER_ARG", "endpoint=x")],
        "remora: OTEL_TRACES_SAMPLER=jaeger_remote is not one of always_on, always_off, traceidratio, \
         parentbased_always_on, parentbased_always_off, parentbased_traceidratio; using parentbased_always_on",
    );
    assert_eq!(settings.sampler, Sampler::default());
}

#[test]
fn a_bad_form_of_the_signal_falls_to_the_general_one() {
    let settings = says(
        &[("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"), ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "soon")],
        "remora: OTEL_EXPORTER_OTLP_TRACES_TIMEOUT=soon is not a whole number of milliseconds from 1 up; using 2500",
    );
    assert_eq!(settings.otlp.timeout, Duration::from_millis(2500));
}

#[test]
fn a_timeout_below_a_hundred_is_seconds_and_says_so() {
    let settings = says(
        &[("OTEL_EXPORTER_OTLP_TIMEOUT", "30")],
        "remora: OTEL_EXPORTER_OTLP_TIMEOUT=30 is read as seconds, as it is below 100 milliseconds; using 30000",
    );
    assert_eq!(settings.otlp.timeout, Duration::from_secs(30));
    assert_eq!(shown(&settings, "OTEL_EXPORTER_OTLP_TIMEOUT").0, "30000");
    assert_eq!(quiet(&[("OTEL_EXPORTER_OTLP_TIMEOUT", "100")]).otlp.timeout, Duration::from_millis(100));
}

#[test]
fn an_empty_value_is_no_value() {
    let all: Vec<(&str, &str)> = TABLE.iter().map(|row| (row.name, " ")).collect();
    assert!(quiet(&all).rows().iter().all(|row| row.origin == Origin::Default));
}

#[test]
fn endpoints_follow_the_exporter_specification() {
    let endpoint = |environment: &[(&str, &str)]| quiet(environment).otlp.endpoint;
    let general = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let traces = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    assert_eq!(endpoint(&[(general, "http://c:4318")]), "http://c:4318/v1/traces");
    assert_eq!(endpoint(&[(general, "https://c/otlp/")]), "https://c/otlp/v1/traces");
    assert_eq!(endpoint(&[(general, "https://c/otlp?k=v#f")]), "https://c/otlp/v1/traces?k=v");
    assert_eq!(endpoint(&[(general, "http://[::1]:4318")]), "http://[::1]:4318/v1/traces");
    assert_eq!(endpoint(&[(general, "http://a"), (traces, "http://c:1/own")]), "http://c:1/own");
    assert_eq!(endpoint(&[(general, "unix:/run/otel.sock")]), "unix:/run/otel.sock");
    assert_eq!(endpoint(&[grpc]), "http://localhost:4317");
    assert_eq!(endpoint(&[grpc, (general, "https://c:4317")]), "https://c:4317");
    assert_eq!(endpoint(&[grpc, (general, "c:4317")]), "c:4317");
    assert_eq!(endpoint(&[("OTEL_TRACES_EXPORTER", "otlp_proto_grpc")]), "http://localhost:4317");
}

#[test]
fn what_is_no_url_is_one_line_and_the_default() {
    let name = "OTEL_EXPORTER_OTLP_ENDPOINT";
    for (value, shown, why) in [
        ("http://::1:4318", "", "has more than one colon in its host (an IPv6 address stands in brackets)"),
        (
            "http://localhost:4318:4318",
            "",
            "has more than one colon in its host (an IPv6 address stands in brackets)",
        ),
        ("http://${COLLECTOR}:4318", "", "has a character in its host that no host has"),
        ("http://{{host}}:4318", "", "has a character in its host that no host has"),
        ("http://b\u{fc}cher:4318", "", "has a character in its host that no host has"),
        ("http://a%zz:4318", "", "has a character in its host that no host has"),
        ("http://[zz]:4318", "", "has no IPv6 address in its brackets"),
        ("http://[::1]4318", "", "has no usable port"),
        ("http:// c", "", "has a blank in it"),
        ("ftp://c", "", "is not an http, https or unix URL"),
        ("://c", "", "is not an http, https or unix URL"),
        ("unix://", "", "names no socket"),
        (
            "http://c/<x>",
            "",
            "has a quotation mark or angle bracket in its path (written %22, %3C, %3E, %60)",
        ),
        (
            "http://user:12345#abc@127.0.0.1:4318",
            "http://REDACTED@127.0.0.1:4318",
            "has an @ behind its host (%2F, %3F, %23 and %40 stand for /, ?, # and @)",
        ),
        (
            "http://user:s3c/r3t@127.0.0.1:4318",
            "http://REDACTED@127.0.0.1:4318",
            "has an @ behind its host (%2F, %3F, %23 and %40 stand for /, ?, # and @)",
        ),
    ] {
        let shown = if shown.is_empty() { value } else { shown };
        let line = format!("remora: {name}={shown} {why}; using http://localhost:4318");
        let settings = says(&[(name, value)], &line);
        assert_eq!(settings.otlp.endpoint, "http://localhost:4318/v1/traces");
        assert_eq!(settings.otlp.headers, []);
    }
}

#[test]
fn a_scheme_may_be_written_in_capitals() {
    let endpoint = |value| quiet(&[("OTEL_EXPORTER_OTLP_ENDPOINT", value)]).otlp.endpoint;
    assert_eq!(endpoint("HTTP://C:4318"), "http://C:4318/v1/traces");
    assert_eq!(endpoint("Unix:/run/o b.sock"), "unix:/run/o b.sock");
}

#[test]
fn grpc_is_never_sent_as_deflate() {
    let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let (whole, own) = ("OTEL_EXPORTER_OTLP_COMPRESSION", "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION");
    for name in [whole, own] {
        let line = format!("remora: {name}=deflate is not understood by grpc receivers; using gzip");
        let settings = says(&[grpc, (name, "deflate")], &line);
        assert_eq!(settings.otlp.compression, Compression::Gzip);
        assert_eq!(shown(&settings, name), ("gzip".into(), Origin::Fallback));
    }
    assert_eq!(quiet(&[grpc, (whole, "deflate"), (own, "none")]).otlp.compression, Compression::None);
    assert_eq!(quiet(&[(whole, "deflate")]).otlp.compression, Compression::Deflate);
}

#[test]
fn the_variable_that_named_a_file_of_tls_is_known() {
    let own = "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE";
    let variables = quiet(&[("OTEL_EXPORTER_OTLP_CERTIFICATE", "/a"), (own, "/b")]).otlp.variables;
    assert_eq!(variables.certificate, own);
    assert_eq!(variables.client_key, "OTEL_EXPORTER_OTLP_CLIENT_KEY");
    assert_eq!(quiet(&[]).otlp.variables.certificate, "OTEL_EXPORTER_OTLP_CERTIFICATE");
}

#[test]
fn the_agent_is_kept_out_by_all_but_true() {
    for (value, keeps_out) in [("false", true), (" FALSE ", true), ("0", true), ("1", true), (" True", false)]
    {
        assert_eq!(resolve(&[("REMORA_ENABLED", value)]).0.keeps_out(), keeps_out, "{value}");
    }
    assert!(!quiet(&[]).keeps_out());
    assert!(both(&[("REMORA_ENABLED", "true")], &[("enabled", "false")]).0.keeps_out());
}

#[test]
fn other_signals_have_no_effect_and_none_of_them_is_silence() {
    for name in ["OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER"] {
        quiet(&[(name, "none")]);
        let (_, said) = resolve(&[(name, "otlp")]);
        assert!(
            said.len() == 1 && said[0].starts_with(&format!("remora: {name} has no effect: ")),
            "{said:?}"
        );
    }
}

#[test]
fn credentials_of_an_endpoint_become_a_header() {
    let settings = quiet(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://me:pa%40ss@c:4318")]);
    assert_eq!(settings.otlp.endpoint, "https://c:4318/v1/traces");
    assert_eq!(settings.otlp.headers, [("authorization".into(), "Basic bWU6cGFAc3M=".into())]);
    assert_eq!(shown(&settings, "OTEL_EXPORTER_OTLP_ENDPOINT").0, "https://REDACTED@c:4318");
    let bare =
        quiet(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "me:pass@c:4317")]);
    assert_eq!(bare.otlp.endpoint, "c:4317");
    assert_eq!(bare.otlp.headers, [("authorization".into(), "Basic bWU6cGFzcw==".into())]);
}

#[test]
fn headers_are_decoded_and_never_shown() {
    let name = "OTEL_EXPORTER_OTLP_HEADERS";
    let settings = quiet(&[(name, "Authorization=Basic%20aGk=, x-tenant = a b")]);
    assert_eq!(
        settings.otlp.headers,
        [("authorization".into(), "Basic aGk=".into()), ("x-tenant".into(), "a b".into())]
    );
    assert_eq!(shown(&settings, name), ("(set)".into(), Origin::Environment));
    assert!(!format!("{:?}", settings.otlp).contains("aGk"));
    let (settings, said) = resolve(&[(name, "a=ok,b=hunter2%0d%0ax: y,bad name=1,=2")]);
    assert_eq!(settings.otlp.headers, [("a".into(), "ok".into())]);
    assert_eq!(
        said,
        ["remora: OTEL_EXPORTER_OTLP_HEADERS: entries 2, 3, 4 cannot be read; using the others"]
    );
    let traces = "OTEL_EXPORTER_OTLP_TRACES_HEADERS";
    let own = quiet(&[(name, "a=1"), (traces, "b=2")]);
    assert_eq!(own.otlp.headers, [("b".into(), "2".into())]);
    let line = format!("remora: {traces}: entry 1 cannot be read; using those of {name}");
    let general = says(&[(name, "a=1"), (traces, "garbage")], &line);
    assert_eq!(general.otlp.headers, [("a".into(), "1".into())]);
    assert_eq!(shown(&general, traces), ("(set)".into(), Origin::Fallback));
}

#[test]
fn exporters_are_a_list() {
    let exporters = |text| quiet(&[("OTEL_TRACES_EXPORTER", text)]).exporters;
    assert_eq!(exporters("none"), []);
    assert_eq!(exporters("NONE"), []);
    assert_eq!(exporters("Otlp,CONSOLE"), [Exporter::Otlp, Exporter::Console]);
    assert_eq!(
        exporters("console,otlp_file, otlp,otlp"),
        [Exporter::Console, Exporter::OtlpFile, Exporter::Otlp]
    );
    assert_eq!(
        quiet(&[("OTEL_PROPAGATORS", "none")]).propagators,
        agent_core::propagation::Propagators::NONE
    );
}

#[test]
fn none_among_the_propagators_wins() {
    for text in ["none", "tracecontext,none", "None,baggage"] {
        let settings = quiet(&[("OTEL_PROPAGATORS", text)]);
        assert_eq!(settings.propagators, Propagators::NONE, "{text}");
        assert_eq!(shown(&settings, "OTEL_PROPAGATORS"), ("none".to_owned(), Origin::Environment));
    }
    let both = Propagators::TRACE_CONTEXT.with(Propagators::BAGGAGE);
    assert_eq!(quiet(&[("OTEL_PROPAGATORS", "TraceContext,Baggage")]).propagators, both);
}

#[test]
fn only_true_disables() {
    assert!(quiet(&[("OTEL_SDK_DISABLED", "TRUE")]).sdk_disabled);
    assert!(!quiet(&[("OTEL_SDK_DISABLED", "false")]).sdk_disabled);
    assert!(!resolve(&[("OTEL_SDK_DISABLED", "yes")]).0.sdk_disabled);
}

#[test]
fn instrumentations_are_disabled_by_name() {
    let disabled = quiet(&[("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "flask, aiohttp-client")]).disabled;
    assert!(
        disabled.contains("flask") && disabled.contains("aiohttp-client") && !disabled.contains("django")
    );
    assert!(quiet(&[("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "*")]).disabled.contains("anything"));
    assert!(quiet(&[("OTEL_PYTHON_DJANGO_INSTRUMENT", "False")]).disabled.contains("django"));
}

#[test]
fn samplers_take_their_ratio() {
    let name = ("OTEL_TRACES_SAMPLER", "TraceIdRatio");
    let settings = quiet(&[name, ("OTEL_TRACES_SAMPLER_ARG", "0.25")]);
    assert_eq!(Some(settings.sampler), Sampler::named("traceidratio", 0.25));
    assert_eq!(shown(&settings, "OTEL_TRACES_SAMPLER").0, "traceidratio");
    let settings = says(
        &[name, ("OTEL_TRACES_SAMPLER_ARG", "2")],
        "remora: OTEL_TRACES_SAMPLER_ARG=2 is not a number from 0 to 1; using 1.0",
    );
    assert_eq!(Some(settings.sampler), Sampler::named("traceidratio", 1.0));
}

#[test]
fn limits_fall_from_span_to_general() {
    let settings = quiet(&[
        ("OTEL_ATTRIBUTE_COUNT_LIMIT", "10"),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "20"),
        ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "30"),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "0"),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "99999999"),
    ]);
    assert_eq!(settings.limits.attribute_count, 10);
    assert_eq!(settings.limits.attribute_value_length, Some(30));
    assert_eq!(settings.limits.event_count, 0);
    assert_eq!(settings.limits.link_count, 65535);
}

#[test]
fn a_batch_is_never_larger_than_its_queue() {
    let small = ("OTEL_BSP_MAX_QUEUE_SIZE", "100");
    assert_eq!(quiet(&[small]).delivery.max_export_batch_size, 25);
    let settings = says(
        &[small, ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "200")],
        "remora: OTEL_BSP_MAX_EXPORT_BATCH_SIZE=200 is more than OTEL_BSP_MAX_QUEUE_SIZE; using 100",
    );
    assert_eq!(settings.delivery.max_export_batch_size, 100);
}

#[test]
fn sizes_may_have_a_unit() {
    let bytes = |text| quiet(&[("REMORA_QUEUE_MAX_BYTES", text)]).delivery.queue_max_bytes;
    assert_eq!((bytes("1048576"), bytes("8MiB"), bytes("2 GiB")), (1 << 20, 8 << 20, 2 << 30));
}

#[test]
fn half_a_client_certificate_is_none_and_is_said() {
    let settings = says(
        &[("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/k.pem")],
        "remora: OTEL_EXPORTER_OTLP_CLIENT_KEY is set and OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE is not; using no \
         client certificate",
    );
    assert_eq!(settings.otlp.client_key, None);
    let both =
        [("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/k"), ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "/c")];
    assert!(quiet(&both).otlp.client_certificate.is_some());
}

#[test]
fn resource_attributes_keep_what_can_be_read() {
    let settings = says(
        &[("OTEL_RESOURCE_ATTRIBUTES", "a=1,broken,b=x%2Cy%3Dz")],
        "remora: OTEL_RESOURCE_ATTRIBUTES=a=1,broken,b=x%2Cy%3Dz: entry 2 cannot be read; using the others",
    );
    assert_eq!(settings.resource.attributes, [("a".into(), "1".into()), ("b".into(), "x,y=z".into())]);
    let detectors = quiet(&[("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "*")]).resource.detectors;
    assert_eq!(detectors, Detectors::ALL);
}

#[test]
fn excluded_urls_are_general_or_of_one_library() {
    let urls =
        quiet(&[("OTEL_PYTHON_EXCLUDED_URLS", "health,^x"), ("OTEL_PYTHON_REQUESTS_EXCLUDED_URLS", "y")])
            .http
            .excluded_urls;
    assert_eq!(urls.of("flask"), ["health", "^x"]);
    assert_eq!(urls.of("requests"), ["y"]);
    assert_eq!(urls.variable("flask"), "OTEL_PYTHON_EXCLUDED_URLS");
    assert_eq!(urls.variable("requests"), "OTEL_PYTHON_REQUESTS_EXCLUDED_URLS");
}

#[test]
fn what_is_not_built_yet_says_so_where_it_is_set() {
    let (_, said) = both(&[("OTEL_CONFIG_FILE", "remora.yaml")], &[]);
    assert_eq!(said.len(), 1);
    assert!(said.iter().all(|line| line.contains("OTEL_CONFIG_FILE has no effect")), "{said:?}");
}

#[test]
fn what_is_off_by_default_is_a_disabled_instrumentation() {
    assert!(quiet(&[]).disabled.contains("logging"));
    assert!(!quiet(&[("OTEL_PYTHON_LOG_CORRELATION", "true")]).disabled.contains("logging"));
    assert!(quiet(&[("OTEL_PYTHON_DJANGO_INSTRUMENT", "False")]).disabled.contains("django"));
}

#[test]
fn old_names_are_added_on_request() {
    let old =
        quiet(&[("OTEL_SEMCONV_STABILITY_OPT_IN", "http/dup,database,gen_ai_latest_experimental")]).old_names;
    assert!(old.http && !old.database);
}

#[test]
fn config_wins_over_the_environment() {
    let environment = [("OTEL_SERVICE_NAME", "env"), ("OTEL_BSP_SCHEDULE_DELAY", "7")];
    let (settings, said) = both(&environment, &[("service_name", "code"), ("OTEL_BSP_EXPORT_TIMEOUT", "9")]);
    assert_eq!(said, [""; 0]);
    assert_eq!(settings.resource.service_name.as_deref(), Some("code"));
    assert_eq!(shown(&settings, "OTEL_SERVICE_NAME"), ("code".into(), Origin::Config));
    assert_eq!(shown(&settings, "OTEL_BSP_SCHEDULE_DELAY"), ("7".into(), Origin::Environment));
    assert_eq!(settings.delivery.export_timeout, Duration::from_millis(9));
    let (_, said) = both(&[], &[("servce_name", "x")]);
    assert_eq!(said, ["remora: servce_name is no setting; did you mean service_name?"]);
}

#[test]
fn flags_do_not_collide_and_lead_back() {
    let flags: BTreeSet<String> = TABLE.iter().map(|row| flag_name(row.name)).collect();
    assert_eq!(flags.len(), TABLE.len());
    for row in TABLE {
        let flag = flag_name(row.name);
        for form in [flag.clone(), format!("--{flag}"), flag.replace('_', "-"), row.name.to_owned()] {
            assert_eq!(find(&form).unwrap().name, row.name, "{form}");
        }
    }
    assert_eq!(flag_name("OTEL_PYTHON_EXCLUDED_URLS"), "excluded_urls");
    assert!(find("nothing").is_none() && find("").is_none());
}

#[test]
fn an_unknown_name_of_ours_is_said_with_the_nearest_one() {
    let said: Vec<String> =
        unknown(["REMORA_QUEUE_MAX_BYTE", "REMORA_FORCE", "OTEL_METRICS_EXPORTER", "REMORA_ZZZZZZZZZZ"])
            .iter()
            .map(ToString::to_string)
            .collect();
    assert_eq!(
        said,
        [
            "remora: REMORA_QUEUE_MAX_BYTE is no setting; did you mean REMORA_QUEUE_MAX_BYTES?",
            "remora: REMORA_ZZZZZZZZZZ is no setting"
        ]
    );
}

#[test]
fn help_names_every_flag() {
    let help = help_text();
    for row in TABLE.iter().filter(|row| row.kind != Kind::Ignored) {
        assert!(help.contains(&format!("--{} ", flag_name(row.name))), "{}", row.name);
    }
}

#[test]
fn the_page_of_settings_is_the_table() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/settings.md"))
        .unwrap_or_default();
    assert!(page == docs(), "docs/settings.md is old: cargo run -p agent-core --example settings_doc");
}

proptest! {
    #[test]
    fn any_value_of_any_row_is_survived_in_few_lines(row in 0..TABLE.len(), value: String) {
        let (settings, said) = resolve(&[(TABLE[row].name, &value)]);
        prop_assert!(said.len() <= 2, "{:?}", said);
        for line in said {
            prop_assert!(line.starts_with("remora: ") && line.contains(TABLE[row].name) && !line.contains('\n'));
        }
        let _ = settings.rows();
    }
}
