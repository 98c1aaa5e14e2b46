//! One configured exporter on the exporter thread: encoder, what is not yet accepted, and what was said about it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_core::clock::Timeline;
use agent_core::queue::{Loss, Queue};

use crate::batch::Batch;
use crate::compress::Compressor;
use crate::config::{Compression, Exporter, ExporterConfig, Level, Protocol, Resource};
use crate::encode::{Encoder, Encoding, MAX_REQUEST_BYTES};
use crate::request::{Failure, Outcome, Request};
use crate::retry::Outbox;
use crate::status::{Shared, State};
use crate::transport::file::Lines;
use crate::transport::{Receiver, console, grpc};

/// At most one line about the same thing in this time.
const QUIET: Duration = Duration::from_secs(60);

enum Kind {
    Otlp { receiver: Arc<Receiver>, compression: Compression, compressor: Compressor },
    File(Lines),
    Console,
}

pub(crate) struct Sink {
    kind: Kind,
    /// Whether it decides if a span counts as sent.
    pub(crate) primary: bool,
    pub(crate) outbox: Outbox,
    encoder: Encoder,
    failing: bool,
    said_failing: bool,
    said_at: [Option<Instant>; 3],
    largest: usize,
}

/// What a line is about, for its rate limit.
#[derive(Clone, Copy)]
enum About {
    Unreachable,
    Refused,
    Odd,
}

/// Where spans are accounted and how things are said.
#[derive(Clone, Copy)]
pub(crate) struct Ledger<'a> {
    pub(crate) queue: &'a Queue,
    pub(crate) shared: &'a Shared,
    pub(crate) config: &'a ExporterConfig,
}

/// Builds the sinks. Of the kinds otlp, file, console the first that is configured is primary.
pub(crate) fn sinks(config: &ExporterConfig, resource: &Resource) -> Vec<Sink> {
    let rank = |exporter: &Exporter| match exporter {
        Exporter::Otlp(_) => 0,
        Exporter::File(_) => 1,
        Exporter::Console => 2,
    };
    let primary =
        config.exporters.iter().enumerate().min_by_key(|(_, exporter)| rank(exporter)).map(|(i, _)| i);
    let sinks = config.exporters.iter().enumerate();
    sinks.map(|(index, exporter)| Sink::new(exporter, Some(index) == primary, config, resource)).collect()
}

impl Sink {
    fn new(exporter: &Exporter, primary: bool, config: &ExporterConfig, resource: &Resource) -> Self {
        let (kind, encoding) = match exporter {
            Exporter::Otlp(otlp) => {
                let receiver = Arc::new(Receiver::new(otlp, config.export_timeout));
                receiver.remarks().iter().for_each(|line| config.log(Level::Warn, line));
                let json = otlp.protocol == Protocol::HttpJson;
                let kind = Kind::Otlp {
                    receiver,
                    compression: otlp.compression,
                    compressor: Compressor::new(otlp.compression),
                };
                (kind, if json { Encoding::Json } else { Encoding::Protobuf })
            }
            Exporter::File(path) => (Kind::File(Lines::new(path)), Encoding::Json),
            Exporter::Console => (Kind::Console, Encoding::Protobuf),
        };
        Self {
            kind,
            primary,
            outbox: Outbox::default(),
            encoder: Encoder::new(encoding, resource),
            failing: false,
            said_failing: false,
            said_at: [None; 3],
            largest: 0,
        }
    }

    pub(crate) fn receiver(&self) -> Option<&Arc<Receiver>> {
        match &self.kind {
            Kind::Otlp { receiver, .. } => Some(receiver),
            _ => None,
        }
    }

    /// Whether the last attempt to send failed. What is written at once keeps nobody waiting.
    pub(crate) fn is_failing(&self) -> bool {
        self.failing && self.receiver().is_some()
    }

    /// Whether another request fits within `max` bytes. One always does.
    pub(crate) fn has_room(&self, max: usize) -> bool {
        self.outbox.is_empty() || self.outbox.bytes() + self.largest <= max
    }

    /// Makes room for another request by giving up the oldest ones.
    pub(crate) fn make_room(&mut self, max: usize, ledger: Ledger<'_>) {
        while !self.has_room(max) {
            let Some(request) = self.outbox.drop_oldest() else { return };
            self.lose(Loss::RetryFull, request.spans, ledger);
        }
    }

    pub(crate) fn lose(&self, reason: Loss, spans: u64, ledger: Ledger<'_>) {
        if self.primary {
            ledger.queue.lost_of_held(reason, spans);
        }
    }

    fn sent(&self, spans: u64, ledger: Ledger<'_>) {
        if self.primary {
            ledger.queue.sent(spans);
        }
    }

    /// Takes a batch: encodes it into requests, or writes it at once.
    pub(crate) fn put(&mut self, batch: &Batch, timeline: &Timeline, number: &mut u64, ledger: Ledger<'_>) {
        let total = batch.len();
        let mut done = 0;
        // A fault of ours loses this batch, not the thread.
        let result = catch_unwind(AssertUnwindSafe(|| {
            if matches!(self.kind, Kind::Console) {
                let written = console::write(batch, timeline);
                self.wrote(written, total as u64, ledger);
                done = total;
            }
            while done < total {
                let written = self.encoder.encode(batch, timeline, done, MAX_REQUEST_BYTES);
                if written == 0 || !self.dispatch(written as u64, *number, ledger) {
                    break;
                }
                *number += 1;
                done += written;
            }
        }));
        if result.is_err() || done < total {
            self.lose(Loss::Encode, (total - done) as u64, ledger);
        }
    }

    /// Sends the encoded request on its way. False: it could not be compressed.
    fn dispatch(&mut self, spans: u64, number: u64, ledger: Ledger<'_>) -> bool {
        match &mut self.kind {
            Kind::Otlp { receiver, compression, compressor } => {
                let framed = receiver.protocol() == Protocol::Grpc;
                let body = if !framed && *compression == Compression::None {
                    self.encoder.take()
                } else {
                    let bytes = self.encoder.bytes();
                    let plain = *compression == Compression::None;
                    let room = if plain { bytes.len() } else { bytes.len() / 6 + 1024 };
                    let mut body = Vec::with_capacity(room + grpc::FRAME);
                    if framed {
                        body.resize(grpc::FRAME, 0);
                    }
                    if compressor.append(bytes, &mut body).is_none() {
                        return false;
                    }
                    if framed {
                        grpc::frame(&mut body, *compression);
                    }
                    body
                };
                self.largest = self.largest.max(body.len());
                self.outbox.push(number, Request { body: body.into(), spans });
            }
            Kind::File(lines) => {
                let mut line = self.encoder.take();
                let written = lines.append(&mut line);
                self.wrote(written, spans, ledger);
            }
            Kind::Console => {}
        }
        true
    }

    /// What a file or stderr took at once, or did not.
    fn wrote(&mut self, written: Result<(), Failure>, spans: u64, ledger: Ledger<'_>) {
        match written {
            Ok(()) => {
                self.sent(spans, ledger);
                self.succeeded(ledger);
            }
            Err(why) => {
                self.lose(Loss::File, spans, ledger);
                self.failed(&why, State::Failing, ledger);
            }
        }
    }

    /// An attempt to deliver request `number` came to an end.
    pub(crate) fn landed(&mut self, number: u64, outcome: Outcome, ledger: Ledger<'_>) {
        match outcome {
            Outcome::Accepted { rejected, odd } => {
                let Some(request) = self.outbox.done(number, true) else { return };
                let rejected = rejected.min(request.spans);
                self.sent(request.spans - rejected, ledger);
                self.succeeded(ledger);
                if rejected > 0 {
                    self.lose(Loss::Rejected, rejected, ledger);
                    let line = format!("{} refused {rejected} of {} spans", self.shown(), request.spans);
                    self.say(About::Refused, Level::Warn, &line, ledger);
                }
                if odd {
                    let line = format!("{} accepts spans, but its answer is not OTLP", self.shown());
                    self.say(About::Odd, Level::Warn, &line, ledger);
                }
            }
            Outcome::Retry { why, after } => {
                self.outbox.retry(number, Instant::now(), after);
                self.failed(&why, State::Failing, ledger);
            }
            Outcome::Rejected(why) => {
                // Refused for good, by a receiver that works: the next request need not wait.
                let Some(request) = self.outbox.done(number, true) else { return };
                self.lose(Loss::Rejected, request.spans, ledger);
                self.failed(&why, State::Refusing, ledger);
            }
        }
    }

    fn succeeded(&mut self, ledger: Ledger<'_>) {
        ledger.shared.requests.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if self.primary {
            ledger.shared.set_state(State::Ok);
        }
        self.failing = false;
        if std::mem::take(&mut self.said_failing) {
            let line = match &self.kind {
                Kind::File(_) | Kind::Console => format!("{} can be written again", self.shown()),
                Kind::Otlp { .. } => format!("{} reachable again", self.shown()),
            };
            ledger.config.log(Level::Info, &line);
        }
    }

    fn failed(&mut self, why: &Failure, state: State, ledger: Ledger<'_>) {
        ledger.shared.requests.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        ledger.shared.failures.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        ledger.shared.set_error(why.to_string());
        if self.primary {
            ledger.shared.set_state(state);
        }
        self.failing = true;
        let shown = self.shown();
        let (about, line) = match (state, why) {
            (State::Refusing, _) => (About::Refused, format!("{shown} refuses spans ({why})")),
            (_, Failure::File(text)) => (About::Unreachable, format!("{text}; spans are lost")),
            (_, Failure::Setting(text)) => (About::Unreachable, format!("{text}; retrying, spans are kept")),
            (_, why) if why.is_unreachable() => {
                (About::Unreachable, format!("cannot reach {shown} ({why}); retrying, spans are kept"))
            }
            _ => (About::Unreachable, format!("cannot deliver to {shown} ({why}); retrying, spans are kept")),
        };
        let news = matches!(about, About::Refused) || !self.said_failing;
        if news && self.say(about, Level::Warn, &line, ledger) {
            self.said_failing |= matches!(about, About::Unreachable);
        } else {
            ledger.config.log(Level::Debug, &line);
        }
    }

    fn shown(&self) -> &str {
        match &self.kind {
            Kind::Otlp { receiver, .. } => receiver.shown(),
            Kind::File(lines) => lines.path(),
            Kind::Console => "stderr",
        }
    }

    fn say(&mut self, about: About, level: Level, line: &str, ledger: Ledger<'_>) -> bool {
        let said = self.said_at.get_mut(about as usize);
        let now = Instant::now();
        match said {
            Some(Some(at)) if now.duration_since(*at) < QUIET => false,
            Some(said) => {
                *said = Some(now);
                ledger.config.log(level, line);
                true
            }
            None => false,
        }
    }

    /// Nothing to do for a while: frees what only work needs. Connections too: nobody would see them closed, nor answer
    /// a ping.
    pub(crate) fn doze(&mut self) {
        self.encoder.shrink();
        if let Kind::Otlp { compressor, receiver, .. } = &mut self.kind {
            compressor.shrink();
            receiver.disconnect();
        }
    }

    /// The runtime ends: connections with it, and files. Requests stay.
    pub(crate) fn ground(&mut self) {
        self.outbox.ground();
        match &mut self.kind {
            Kind::Otlp { receiver, .. } => receiver.disconnect(),
            Kind::File(lines) => lines.close(),
            Kind::Console => {}
        }
    }
}
