//! A fake Collector with every bad habit, and spans to send it.
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

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agent_core::Key;
use agent_core::local::with_ids;
use agent_core::span::{ActiveSpan, Parent, SpanKind, SpanSpec};
use exporters::{Exporter, ExporterConfig, Level, Otlp, Pipeline, Protocol};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

/// How the Collector treats one request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// 200 and an empty message.
    Ok,
    /// A status, more headers, a body.
    Http(u16, String, Vec<u8>),
    /// 200, after a while.
    Slow(Duration),
    /// Never an answer.
    Hang,
    /// Closes after the head of the request.
    CloseEarly,
    /// Closes after the whole request, without an answer.
    CloseLate,
    /// Takes the spans, writes this and closes, or stays silent.
    Raw(&'static str, bool),
}

pub struct Collector {
    pub address: SocketAddr,
    pub requests: Arc<AtomicUsize>,
    pub spans: Arc<AtomicUsize>,
    pub taken: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    stop: Arc<AtomicBool>,
}

impl Collector {
    /// `behave` sees the number of the request, from 0.
    pub fn start(behave: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), behave)
    }

    pub fn on(listener: TcpListener, behave: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().unwrap();
        Self::over(address, move || Some(Box::new(listener.accept().ok()?.0)), behave)
    }

    /// Over whatever connections `accept` finds.
    pub fn over(
        address: SocketAddr,
        accept: impl Fn() -> Option<Box<dyn Connection>> + Send + 'static,
        behave: impl Fn(usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let collector = Self {
            address,
            requests: Arc::default(),
            spans: Arc::default(),
            taken: Arc::default(),
            stop: Arc::default(),
        };
        let (requests, spans) = (collector.requests.clone(), collector.spans.clone());
        let (taken, stop) = (collector.taken.clone(), collector.stop.clone());
        let behave = Arc::new(behave);
        std::thread::spawn(move || {
            while let Some(stream) = accept() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let (requests, spans, taken) = (requests.clone(), spans.clone(), taken.clone());
                let behave = behave.clone();
                std::thread::spawn(move || serve(stream, &requests, &spans, &taken, &*behave));
            }
        });
        collector
    }

    pub fn url(&self) -> String {
        format!("http://{}/v1/traces", self.address)
    }

    pub fn spans(&self) -> usize {
        self.spans.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

/// What HTTP comes over.
pub trait Connection: Read + Write + Send {}
impl<T: Read + Write + Send> Connection for T {}

fn serve(
    stream: Box<dyn Connection>,
    requests: &AtomicUsize,
    spans: &AtomicUsize,
    taken: &Mutex<Vec<ExportTraceServiceRequest>>,
    behave: &dyn Fn(usize) -> Reply,
) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut length, mut encoding, mut json) = (0, String::new(), false);
        let mut first = true;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if std::mem::take(&mut first) {
                assert!(line.starts_with("POST "), "{line:?}");
            }
            let lower = line.trim().to_ascii_lowercase();
            if lower.is_empty() {
                break;
            }
            if let Some(value) = lower.strip_prefix("content-length: ") {
                length = value.parse().ok()?;
            }
            json |= lower == "content-type: application/json";
            if let Some(value) = lower.strip_prefix("content-encoding: ") {
                encoding = value.to_owned();
            }
        }
        let reply = behave(requests.fetch_add(1, Ordering::SeqCst));
        if matches!(reply, Reply::CloseEarly) {
            return None;
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let plain = match encoding.as_str() {
            "gzip" => inflate(flate2::read::GzDecoder::new(&body[..])),
            "deflate" => inflate(flate2::read::ZlibDecoder::new(&body[..])),
            _ => body,
        };
        let (status, headers, answer) = match &reply {
            Reply::Raw(..) => (200, String::new(), Vec::new()),
            Reply::CloseLate => return None,
            Reply::Hang => {
                std::thread::sleep(Duration::from_secs(60));
                return None;
            }
            Reply::Http(status, headers, body) => (*status, headers.clone(), body.clone()),
            Reply::Slow(time) => {
                std::thread::sleep(*time);
                (200, String::new(), Vec::new())
            }
            _ => (200, String::new(), Vec::new()),
        };
        if (200..300).contains(&status) {
            let request = if json {
                serde_json::from_slice(&plain).expect("our JSON parses")
            } else {
                ExportTraceServiceRequest::decode(&plain[..]).expect("our bytes decode")
            };
            spans.fetch_add(count(&request), Ordering::SeqCst);
            taken.lock().unwrap().push(request);
        }
        if let Reply::Raw(text, silent) = reply {
            reader.get_mut().write_all(text.as_bytes()).ok()?;
            reader.get_mut().flush().ok()?;
            if silent {
                std::thread::sleep(Duration::from_secs(60));
            }
            return None;
        }
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{headers}\r\n", answer.len());
        reader.get_mut().write_all(&[head.as_bytes(), &answer].concat()).ok()?;
        reader.get_mut().flush().ok()?;
    }
}

/// A proxy that answers CONNECT, if `credentials` come along, and tells what it was asked.
pub fn tunnel(credentials: &'static str) -> (String, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, asked) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut near = listener.accept().unwrap().0;
        let head = head(&mut near);
        assert!(head.contains(credentials), "{head}");
        let target = head.split(' ').nth(1).unwrap().to_owned();
        let far = TcpStream::connect(&target).unwrap();
        tell.send(target).unwrap();
        near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
        pump(&near, &far, &Arc::default());
    });
    (format!("http://me:secret@{address}"), asked)
}

/// A proxy that answers nothing but this, and tells what it was asked.
pub fn proxy_saying(answer: &'static str) -> (String, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, asked) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        while let Ok((mut near, _)) = listener.accept() {
            let _ = tell.send(head(&mut near));
            let _ = near.write_all(answer.as_bytes());
        }
    });
    (format!("http://{address}"), asked)
}

fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// Carries bytes both ways until one side ends; once `frozen`, none arrives and no side is told.
fn pump(near: &TcpStream, far: &TcpStream, frozen: &Arc<AtomicBool>) {
    for (from, to) in [(near, far), (far, near)] {
        let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        let frozen = frozen.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 16 * 1024];
            while let Ok(count) = from.read(&mut bytes) {
                if frozen.load(Ordering::SeqCst) {
                    continue;
                }
                if count == 0 || to.write_all(&bytes[..count]).is_err() {
                    let _ = to.shutdown(std::net::Shutdown::Both);
                    return;
                }
            }
        });
    }
}

/// Something between exporter and receiver whose first connection can be made to forget: it stays open, and nothing
/// goes through any more.
pub struct Middlebox {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    pub frozen: Arc<AtomicBool>,
}

impl Middlebox {
    pub fn before(receiver: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, frozen) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (seen, first) = (connections.clone(), frozen.clone());
        std::thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                let far = TcpStream::connect(receiver).unwrap();
                let is_first = seen.fetch_add(1, Ordering::SeqCst) == 0;
                pump(&near, &far, &if is_first { first.clone() } else { Arc::default() });
            }
        });
        Self { address, connections, frozen }
    }
}

fn inflate(mut reader: impl Read) -> Vec<u8> {
    let mut plain = Vec::new();
    reader.read_to_end(&mut plain).unwrap();
    plain
}

pub fn count(request: &ExportTraceServiceRequest) -> usize {
    request.resource_spans.iter().flat_map(|r| &r.scope_spans).map(|s| s.spans.len()).sum()
}

static SCOPE: Key = Key::new("remora.test");
static ROUTE: Key = Key::new("http.route");

/// Finishes one span into a pipeline.
pub fn finish(pipeline: &Pipeline, slot: &agent_core::queue::Slot) {
    let _ = pipeline;
    let spec = SpanSpec { name: "GET /", kind: SpanKind::Server, scope: &SCOPE };
    let mut span = ActiveSpan::new();
    with_ids(|ids| span.start(&spec, Parent::Root(None), ids));
    span.str(&ROUTE, "/users/{id}");
    slot.push(&span, agent_core::clock::now());
}

pub fn finish_many(pipeline: &'static Pipeline, count: usize) {
    let slot = pipeline.queue().slot();
    (0..count).for_each(|_| finish(pipeline, slot));
    slot.release();
    pipeline.start();
}

/// A pipeline and what it says.
pub struct Under {
    pub pipeline: &'static Pipeline,
    pub lines: Arc<Mutex<Vec<(Level, String)>>>,
}

impl Under {
    pub fn test(otlp: Otlp, change: impl FnOnce(&mut ExporterConfig)) -> Self {
        Self::with(vec![Exporter::Otlp(Box::new(otlp))], change)
    }

    pub fn with(exporters: Vec<Exporter>, change: impl FnOnce(&mut ExporterConfig)) -> Self {
        agent_core::clock::init();
        let lines: Arc<Mutex<Vec<(Level, String)>>> = Arc::default();
        let said = lines.clone();
        let mut config = ExporterConfig::new(exporters);
        config.schedule_delay = Duration::from_millis(50);
        config.log = Box::new(move |level, line| said.lock().unwrap().push((level, line.to_owned())));
        change(&mut config);
        Self { pipeline: Pipeline::leak(Arc::new(config), agent_core::generation::current()), lines }
    }

    pub fn http(url: impl Into<String>) -> Self {
        Self::test(Otlp::new(Protocol::HttpProtobuf, url), |_| {})
    }

    pub fn finish(&self, count: usize) {
        finish_many(self.pipeline, count);
    }

    /// The invariant of the house.
    pub fn balance(&self) -> agent_core::queue::Counters {
        let counters = self.pipeline.status().counters;
        let lost: u64 = counters.lost.iter().sum();
        assert_eq!(counters.made, counters.sent + lost + counters.pending, "{counters:?}");
        counters
    }

    pub fn lines(&self) -> Vec<String> {
        let lines = self.lines.lock().unwrap();
        lines.iter().filter(|(level, _)| *level != Level::Debug).map(|(_, line)| line.clone()).collect()
    }

    pub fn wait(&self, what: &str, mut until: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !until(self) {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "{what}: {:?} {:?}",
                self.balance(),
                self.lines()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
