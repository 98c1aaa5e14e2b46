//! From the rows of the table to [`Settings`], group by group.

use std::path::PathBuf;
use std::time::Duration;

use super::env::Reader;
use super::table::{TABLE, row};
use super::{
    Breaker, Compression, Delivery, Diagnostic, Disabled, Exporter, Http, Kind, LogLevel, OldNames, Otlp,
    Protocol, ResourceSettings, Settings, TlsVariables, endpoint,
};
use crate::limits::Limits;
use crate::propagation::Propagators;
use crate::resource::Detectors;
use crate::sampling::{Root, Sampler};

pub(super) fn settings(mut reader: Reader<'_>) -> (Settings, Vec<Diagnostic>) {
    let reader = &mut reader;
    let (exporters, forced) = exporters(reader);
    let settings = Settings {
        enabled: reader.flag(row::REMORA_ENABLED),
        force: reader.flag(row::REMORA_FORCE),
        sdk_disabled: reader.flag(row::OTEL_SDK_DISABLED),
        disabled: disabled(reader),
        log_level: log_level(reader),
        resource: resource(reader),
        exporters,
        otlp_file: reader.text_or_default(row::REMORA_OTLP_FILE),
        otlp: otlp(reader, forced),
        delivery: delivery(reader),
        propagators: propagators(reader),
        sampler: sampler(reader),
        limits: limits(reader),
        old_names: old_names(reader),
        http: Http::read(reader),
        breaker: Breaker {
            faults: u32::try_from(reader.number(row::REMORA_BREAKER_FAULTS)).unwrap_or(u32::MAX),
            window: Duration::from_secs(reader.number(row::REMORA_BREAKER_SECONDS)),
        },
        rows: Vec::new(),
    };
    // There is one generator: whoever names another is told.
    let _ = reader.choice(row::OTEL_PYTHON_ID_GENERATOR, |_| None);
    for (index, ignored) in TABLE.iter().enumerate().filter(|(_, row)| row.kind == Kind::Ignored) {
        if reader.text(index).is_some_and(|text| !text.eq_ignore_ascii_case("none")) {
            reader.say(format!("{} has no effect: {}", ignored.name, ignored.help));
        }
    }
    (Settings { rows: std::mem::take(&mut reader.rows), ..settings }, std::mem::take(&mut reader.diagnostics))
}

fn disabled(reader: &mut Reader<'_>) -> Disabled {
    let mut names = reader.list(row::OTEL_PYTHON_DISABLED_INSTRUMENTATIONS);
    if !reader.flag(row::OTEL_PYTHON_DJANGO_INSTRUMENT) {
        names.push("django".to_owned());
    }
    if !reader.flag(row::OTEL_PYTHON_LOG_CORRELATION) {
        names.push("logging".to_owned());
    }
    Disabled { all: names.iter().any(|name| name == "*"), names }
}

fn log_level(reader: &mut Reader<'_>) -> LogLevel {
    let alias = |text: &str| match text {
        "trace" | "verbose" | "all" => Some("debug"),
        "warning" => Some("warn"),
        "critical" | "fatal" => Some("error"),
        "off" => Some("none"),
        _ => None,
    };
    match reader.choice(row::OTEL_LOG_LEVEL, alias) {
        Some("none") => LogLevel::None,
        Some("error") => LogLevel::Error,
        Some("warn") => LogLevel::Warn,
        Some("debug") => LogLevel::Debug,
        _ => LogLevel::Info,
    }
}

fn resource(reader: &mut Reader<'_>) -> ResourceSettings {
    let service_name = reader.text(row::OTEL_SERVICE_NAME).map(Into::into);
    let attributes = reader.pairs(row::OTEL_RESOURCE_ATTRIBUTES, |_, _| true).unwrap_or_default();
    let what = "names a detector that there is not";
    let detectors = reader.known(row::OTEL_EXPERIMENTAL_RESOURCE_DETECTORS, what, Detectors::named);
    let detectors = detectors.into_iter().fold(Detectors::NONE, Detectors::with);
    ResourceSettings { service_name, attributes, detectors }
}

/// The exporters, and the protocol that one of them implies.
fn exporters(reader: &mut Reader<'_>) -> (Vec<Exporter>, Option<Protocol>) {
    let index = row::OTEL_TRACES_EXPORTER;
    let what = "names an exporter that there is not";
    let named = reader.known(index, what, |name| match name {
        "otlp" => Some((Some(Exporter::Otlp), None)),
        "otlp_proto_grpc" => Some((Some(Exporter::Otlp), Some(Protocol::Grpc))),
        "otlp_proto_http" => Some((Some(Exporter::Otlp), Some(Protocol::HttpProtobuf))),
        "otlp_file" => Some((Some(Exporter::OtlpFile), None)),
        "console" => Some((Some(Exporter::Console), None)),
        "none" => Some((None, None)),
        _ => None,
    });
    let protocol = named.iter().find_map(|(_, protocol)| *protocol);
    let mut exporters = Vec::with_capacity(named.len());
    for exporter in named.into_iter().filter_map(|(exporter, _)| exporter) {
        if !exporters.contains(&exporter) {
            exporters.push(exporter);
        }
    }
    (exporters, protocol)
}

fn otlp(reader: &mut Reader<'_>, forced: Option<Protocol>) -> Otlp {
    let mut protocol = |index| {
        reader.choice(index, |_| None).map(|name| match name {
            "grpc" => Protocol::Grpc,
            "http/json" => Protocol::HttpJson,
            _ => Protocol::HttpProtobuf,
        })
    };
    let general = protocol(row::OTEL_EXPORTER_OTLP_PROTOCOL);
    let own = protocol(row::OTEL_EXPORTER_OTLP_TRACES_PROTOCOL);
    let protocol = forced.or(own).or(general).unwrap_or(Protocol::HttpProtobuf);

    let (endpoint, credentials) = endpoint::resolve(reader, protocol);
    let header = |name: &str, value: &str| endpoint::is_header(name, value);
    let general = reader.pairs(row::OTEL_EXPORTER_OTLP_HEADERS, header);
    let own = reader.pairs(row::OTEL_EXPORTER_OTLP_TRACES_HEADERS, header);
    let mut headers = own.or(general).unwrap_or_default();
    for (name, _) in &mut headers {
        name.make_ascii_lowercase();
    }
    if let Some(credentials) = credentials
        && headers.iter().all(|(name, _)| name != "authorization")
    {
        headers.push(("authorization".to_owned(), credentials));
    }

    let general = timeout(reader, row::OTEL_EXPORTER_OTLP_TIMEOUT);
    let own = timeout(reader, row::OTEL_EXPORTER_OTLP_TRACES_TIMEOUT);
    let timeout = own.or(general).unwrap_or(Duration::from_secs(10));

    let mut compression = |index| {
        reader.choice(index, |_| None).map(|name| match name {
            "gzip" => Compression::Gzip,
            "deflate" => Compression::Deflate,
            _ => Compression::None,
        })
    };
    let (whole, signal) = (row::OTEL_EXPORTER_OTLP_COMPRESSION, row::OTEL_EXPORTER_OTLP_TRACES_COMPRESSION);
    let (general, own) = (compression(whole), compression(signal));
    let mut compression = own.or(general).unwrap_or(Compression::None);
    if compression == Compression::Deflate && protocol == Protocol::Grpc {
        // The Collector answers UNIMPLEMENTED.
        let index = if own.is_some() { signal } else { whole };
        reader.reject(index, "deflate", "is not understood by grpc receivers", "gzip");
        compression = Compression::Gzip;
    }

    let certificate =
        path(reader, row::OTEL_EXPORTER_OTLP_CERTIFICATE, row::OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE);
    let (key, chain) = (row::OTEL_EXPORTER_OTLP_CLIENT_KEY, row::OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE);
    let own_key = path(reader, key, row::OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY);
    let own_chain = path(reader, chain, row::OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE);
    let named = |given: &Option<(usize, PathBuf)>, general: usize| {
        TABLE[given.as_ref().map_or(general, |(set, _)| *set)].name
    };
    let variables = TlsVariables {
        certificate: named(&certificate, row::OTEL_EXPORTER_OTLP_CERTIFICATE),
        client_key: named(&own_key, key),
        client_certificate: named(&own_chain, chain),
    };
    let (client_key, client_certificate) = match (own_key, own_chain) {
        (Some((_, key)), Some((_, chain))) => (Some(key), Some(chain)),
        (None, None) => (None, None),
        (Some((set, _)), None) => half(reader, set, chain),
        (None, Some((set, _))) => half(reader, set, key),
    };
    let certificate = certificate.map(|(_, path)| path);

    let general = reader.flag(row::OTEL_EXPORTER_OTLP_INSECURE);
    let own = reader.optional_flag(row::OTEL_EXPORTER_OTLP_TRACES_INSECURE);
    let insecure = own.unwrap_or(general);
    Otlp {
        protocol,
        endpoint,
        headers,
        timeout,
        compression,
        certificate,
        client_key,
        client_certificate,
        variables,
        insecure,
    }
}

/// The path in force, with the row that gave it.
fn path(reader: &mut Reader<'_>, general: usize, own: usize) -> Option<(usize, PathBuf)> {
    let mut read = |index| reader.text(index).map(|path| (index, PathBuf::from(path.as_ref())));
    let general = read(general);
    read(own).or(general)
}

/// A key without its certificate, or the other way round, is of no use.
#[cold]
fn half(reader: &mut Reader<'_>, set: usize, missing: usize) -> (Option<PathBuf>, Option<PathBuf>) {
    let (set, missing) = (TABLE[set].name, TABLE[missing].name);
    reader.say(format!("{set} is set and {missing} is not; using no client certificate"));
    (None, None)
}

/// The specification says milliseconds, the SDK for Python reads seconds: nobody means 10 milliseconds.
fn timeout(reader: &mut Reader<'_>, index: usize) -> Option<Duration> {
    let read = reader.optional_duration(index)?;
    if read >= Duration::from_millis(100) {
        return Some(read);
    }
    let seconds = Duration::from_secs(u64::try_from(read.as_millis()).unwrap_or(u64::MAX));
    let (name, written, millis) = (TABLE[index].name, read.as_millis(), seconds.as_millis().to_string());
    reader
        .say(format!("{name}={written} is read as seconds, as it is below 100 milliseconds; using {millis}"));
    reader.in_force(index, &millis);
    Some(seconds)
}

fn delivery(reader: &mut Reader<'_>) -> Delivery {
    let max_queue_size = reader.optional_number(row::OTEL_BSP_MAX_QUEUE_SIZE).map(size);
    let batch = row::OTEL_BSP_MAX_EXPORT_BATCH_SIZE;
    let mut max_export_batch_size = size(reader.number(batch));
    if let Some(queue) = max_queue_size {
        let is_chosen = reader.rows[batch].as_ref().is_some_and(|row| row.text.is_some());
        // A queue that is as long as a batch is full before the exporter wakes.
        let most = if is_chosen { queue } else { (queue / 4).max(1) };
        if most < max_export_batch_size {
            if is_chosen {
                let why = "is more than OTEL_BSP_MAX_QUEUE_SIZE";
                reader.reject(batch, &max_export_batch_size.to_string(), why, &most.to_string());
            } else {
                reader.in_force(batch, &most.to_string());
            }
            max_export_batch_size = most;
        }
    }
    Delivery {
        schedule_delay: reader.duration(row::OTEL_BSP_SCHEDULE_DELAY),
        export_timeout: reader.duration(row::OTEL_BSP_EXPORT_TIMEOUT),
        max_queue_size,
        max_export_batch_size,
        queue_max_bytes: size(reader.bytes(row::REMORA_QUEUE_MAX_BYTES)),
        retry_max_bytes: size(reader.bytes(row::REMORA_RETRY_MAX_BYTES)),
        exit_timeout: reader.optional_duration(row::REMORA_EXIT_TIMEOUT),
        sigterm_flush: reader.flag(row::REMORA_SIGTERM_FLUSH),
    }
}

fn propagators(reader: &mut Reader<'_>) -> Propagators {
    let what = "names a propagator that is not supported yet";
    let named = reader.known(row::OTEL_PROPAGATORS, what, Propagators::named);
    // As with the OpenTelemetry SDK for Python: whoever says `none` means it, whatever stands beside it.
    if named.contains(&Propagators::NONE) {
        reader.in_force(row::OTEL_PROPAGATORS, "none");
        return Propagators::NONE;
    }
    named.into_iter().fold(Propagators::NONE, Propagators::with)
}

fn sampler(reader: &mut Reader<'_>) -> Sampler {
    let name = reader.choice(row::OTEL_TRACES_SAMPLER, |_| None).unwrap_or_default();
    let argument = row::OTEL_TRACES_SAMPLER_ARG;
    let mut ratio = 1.0;
    // The argument of another sampler is not ours to judge.
    if let Some(text) = reader.text(argument)
        && name.ends_with("traceidratio")
    {
        match text.parse().ok().filter(|ratio| Root::ratio(*ratio).is_some()) {
            Some(given) => ratio = given,
            None => reader.reject(argument, &text, "is not a number from 0 to 1", TABLE[argument].default),
        }
    }
    Sampler::named(name, ratio).unwrap_or_default()
}

fn limits(reader: &mut Reader<'_>) -> Limits {
    // Spans count in sixteen bits.
    let count = |value: u64| size(value).min(usize::from(u16::MAX));
    let attributes = reader.number(row::OTEL_ATTRIBUTE_COUNT_LIMIT);
    let length = reader.optional_number(row::OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT);
    let span_attributes = reader.optional_number(row::OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT);
    let span_length = reader.optional_number(row::OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT);
    Limits {
        attribute_count: count(span_attributes.unwrap_or(attributes)),
        attribute_value_length: span_length.or(length).map(size),
        event_count: count(reader.number(row::OTEL_SPAN_EVENT_COUNT_LIMIT)),
        link_count: count(reader.number(row::OTEL_SPAN_LINK_COUNT_LIMIT)),
        event_attribute_count: count(reader.number(row::OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT)),
        link_attribute_count: count(reader.number(row::OTEL_LINK_ATTRIBUTE_COUNT_LIMIT)),
    }
}

fn old_names(reader: &mut Reader<'_>) -> OldNames {
    let what = "names a convention that there is not";
    let known = reader.known(row::OTEL_SEMCONV_STABILITY_OPT_IN, what, |name| match name {
        "http/dup" => Some(OldNames { http: true, database: false }),
        "database/dup" => Some(OldNames { http: false, database: true }),
        // What is stable is emitted anyway, and other signals' conventions are not ours.
        "http"
        | "database"
        | "gen_ai_latest_experimental"
        | "messaging"
        | "messaging/dup"
        | "rpc"
        | "rpc/dup"
        | "code"
        | "code/dup"
        | "k8s"
        | "k8s/dup" => Some(OldNames::default()),
        _ => None,
    });
    known.into_iter().fold(OldNames::default(), |all, one| OldNames {
        http: all.http || one.http,
        database: all.database || one.database,
    })
}

fn size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
