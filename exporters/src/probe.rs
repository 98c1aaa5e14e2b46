//! What `doctor` asks: does every exporter really work, now, from here?

use std::time::Duration;

use crate::compress::Compressor;
use crate::config::{Exporter, ExporterConfig, Otlp, Protocol};
use crate::encode::{Encoding, empty_request};
use crate::request::Outcome;
use crate::transport::file::Lines;
use crate::transport::{Receiver, grpc};

/// What one exporter came to.
#[derive(Clone, Debug)]
pub struct ProbeResult {
    /// `otlp`, `otlp_file` or `console`.
    pub exporter: &'static str,
    /// Where it sends to, without credentials.
    pub endpoint: String,
    /// `http/protobuf`, `http/json`, `grpc`, or empty.
    pub protocol: &'static str,
    /// Whether it works.
    pub ok: bool,
    /// What happened, in one line.
    pub detail: String,
}

pub(crate) fn probe(config: &ExporterConfig, timeout: Duration) -> Vec<ProbeResult> {
    config.exporters.iter().map(|exporter| one(exporter, timeout)).collect()
}

fn one(exporter: &Exporter, timeout: Duration) -> ProbeResult {
    match exporter {
        Exporter::Otlp(otlp) => receiver(otlp, timeout),
        Exporter::File(path) => {
            let lines = Lines::new(path);
            let result = lines.check();
            ProbeResult {
                exporter: "otlp_file",
                endpoint: lines.path().to_owned(),
                protocol: "",
                ok: result.is_ok(),
                detail: result.err().map_or_else(|| "can be written".to_owned(), |why| why.to_string()),
            }
        }
        Exporter::Console => ProbeResult {
            exporter: "console",
            endpoint: "stderr".to_owned(),
            protocol: "",
            ok: true,
            detail: "writes to stderr".to_owned(),
        },
    }
}

fn receiver(otlp: &Otlp, timeout: Duration) -> ProbeResult {
    let receiver = Receiver::new(otlp, timeout);
    let outcome = send(otlp, &receiver);
    let (ok, what) = match outcome {
        Ok(Outcome::Accepted { odd: false, .. }) => (true, "accepts spans".to_owned()),
        Ok(Outcome::Accepted { .. }) => (true, "accepts spans, but its answer is not OTLP".to_owned()),
        Ok(Outcome::Retry { why, .. } | Outcome::Rejected(why)) => (false, why.to_string()),
        Err(why) => (false, why),
    };
    let proxy = receiver.through().map(|proxy| format!("through the proxy {proxy}"));
    let remarks = receiver.remarks().iter().cloned();
    let detail = std::iter::once(what).chain(proxy).chain(remarks).collect::<Vec<_>>().join("; ");
    ProbeResult {
        exporter: "otlp",
        endpoint: receiver.shown().to_owned(),
        protocol: otlp.protocol.name(),
        ok,
        detail,
    }
}

fn send(otlp: &Otlp, receiver: &Receiver) -> Result<Outcome, String> {
    let json = otlp.protocol == Protocol::HttpJson;
    let message = empty_request(if json { Encoding::Json } else { Encoding::Protobuf });
    let framed = otlp.protocol == Protocol::Grpc;
    let mut body = if framed { vec![0; grpc::FRAME] } else { Vec::new() };
    Compressor::new(otlp.compression).append(message, &mut body).ok_or("cannot compress")?;
    if framed {
        grpc::frame(&mut body, otlp.compression);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|error| error.to_string())?;
    let outcome = runtime.block_on(receiver.send(body.into()));
    runtime.shutdown_background();
    Ok(outcome)
}
