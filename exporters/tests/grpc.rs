//! gRPC over our own frame, against a server that speaks HTTP/2 and says what it is told.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests"
)]
mod support;

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use agent_core::queue::Loss;
use bytes::Bytes;
use exporters::{Compression, Otlp, Protocol, Proxy};
use hyper::body::{Body, Frame, Incoming};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use support::{Middlebox, Under, tunnel};

/// What the server answers to a call.
#[derive(Clone, Default)]
struct Say {
    status: u16,
    code: &'static str,
    details: Option<&'static str>,
    message: Vec<u8>,
    /// Everything in the headers, no body: how errors usually come.
    trailers_only: bool,
}

struct Server {
    address: SocketAddr,
    calls: Arc<AtomicUsize>,
    spans: Arc<AtomicUsize>,
    sizes: Arc<Mutex<Vec<usize>>>,
}

struct Frames(std::collections::VecDeque<Frame<Bytes>>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}

impl Server {
    fn start(say: impl Fn(usize) -> Say + Send + Sync + 'static) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            calls: Arc::default(),
            spans: Arc::default(),
            sizes: Arc::default(),
        };
        let (calls, spans, sizes) = (server.calls.clone(), server.spans.clone(), server.sizes.clone());
        let say = Arc::new(say);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    let (calls, spans, sizes, say) =
                        (calls.clone(), spans.clone(), sizes.clone(), say.clone());
                    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                        let say = say(calls.fetch_add(1, Ordering::SeqCst));
                        let (spans, sizes) = (spans.clone(), sizes.clone());
                        async move { Ok::<_, Infallible>(answer(request, &say, &spans, &sizes).await) }
                    });
                    tokio::spawn(
                        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                            .serve_connection(TokioIo::new(stream), service),
                    );
                }
            });
        });
        server
    }

    fn otlp(&self) -> Otlp {
        Otlp::new(Protocol::Grpc, format!("http://{}", self.address))
    }
}

async fn answer(
    request: Request<Incoming>,
    say: &Say,
    spans: &AtomicUsize,
    sizes: &Mutex<Vec<usize>>,
) -> Response<Frames> {
    assert_eq!(request.uri().path(), "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
    assert_eq!(request.headers()["content-type"], "application/grpc");
    assert_eq!(request.headers()["te"], "trailers");
    assert!(request.headers()["grpc-timeout"].to_str().unwrap().ends_with('m'));
    let gzip = request.headers().get("grpc-encoding").is_some_and(|encoding| encoding == "gzip");
    let mut incoming = request.into_body();
    let mut body = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut incoming).poll_frame(cx)).await {
        if let Ok(data) = frame.unwrap().into_data() {
            body.extend_from_slice(&data);
        }
    }
    assert_eq!(body[0], u8::from(gzip));
    assert_eq!(u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize, body.len() - 5);
    let mut plain = Vec::new();
    if gzip {
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&body[5..]), &mut plain).unwrap();
    } else {
        plain = body.split_off(5);
    }
    sizes.lock().unwrap().push(plain.len());
    let message = ExportTraceServiceRequest::decode(&plain[..]).unwrap();
    if say.code == "0" {
        spans.fetch_add(support::count(&message), Ordering::SeqCst);
    }
    let mut end = HeaderMap::new();
    if !say.code.is_empty() {
        end.insert("grpc-status", say.code.parse().unwrap());
    }
    if let Some(details) = say.details {
        end.insert("grpc-status-details-bin", details.parse().unwrap());
    }
    let mut frames = Frames(Default::default());
    let mut response = Response::builder().status(say.status).header("content-type", "application/grpc");
    if say.trailers_only {
        response.headers_mut().unwrap().extend(end);
    } else {
        let mut framed = vec![0];
        framed.extend_from_slice(&(say.message.len() as u32).to_be_bytes());
        framed.extend_from_slice(&say.message);
        frames.0.push_back(Frame::data(framed.into()));
        frames.0.push_back(Frame::trailers(end));
    }
    response.body(frames).unwrap()
}

fn ok() -> Say {
    Say { status: 200, code: "0", ..Say::default() }
}

#[test]
fn calls_arrive_compressed_or_not() {
    for compression in [Compression::None, Compression::Gzip] {
        let server = Server::start(|_| ok());
        let mut otlp = server.otlp();
        otlp.compression = compression;
        let under = Under::test(otlp, |_| {});
        under.finish(2_000);
        assert!(under.pipeline.flush(Duration::from_secs(10)), "{:?}", under.lines());
        assert_eq!((under.balance().sent, server.spans.load(Ordering::SeqCst)), (2_000, 2_000));
        assert!(under.lines().is_empty(), "{:?}", under.lines());
    }
}

#[test]
fn plain_grpc_goes_through_a_proxy_as_a_tunnel() {
    let server = Server::start(|_| ok());
    let (proxy, asked) = tunnel("Proxy-Authorization: Basic bWU6c2VjcmV0");
    let mut otlp = server.otlp();
    otlp.proxy = Proxy { http: Some(proxy), ..Proxy::default() };
    let under = Under::test(otlp, |_| {});
    under.finish(10);
    assert!(under.pipeline.flush(Duration::from_secs(10)), "{:?}", under.lines());
    assert_eq!(server.spans.load(Ordering::SeqCst), 10);
    assert_eq!(asked.recv().unwrap(), server.address.to_string());
}

#[test]
fn a_connection_that_answers_no_more_is_replaced() {
    let server = Server::start(|_| ok());
    let between = Middlebox::before(server.address);
    let mut otlp = Otlp::new(Protocol::Grpc, format!("http://{}", between.address));
    otlp.timeout = Duration::from_millis(500);
    let under = Under::test(otlp, |_| {});
    under.finish(10);
    assert!(under.pipeline.flush(Duration::from_secs(10)), "{:?}", under.lines());
    between.frozen.store(true, Ordering::SeqCst);
    under.finish(10);
    assert!(under.pipeline.flush(Duration::from_secs(10)), "{:?}", under.lines());
    assert_eq!((under.balance().sent, server.spans.load(Ordering::SeqCst)), (20, 20));
    assert_eq!(between.connections.load(Ordering::SeqCst), 2);
}

#[test]
fn the_wrong_port_is_suspected_only_where_nothing_spoke_http2() {
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    let reset = |code| [SETTINGS, &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, code]].concat();
    let goaway = |code| [SETTINGS, &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, code]].concat();
    let cases = [
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_vec(), "is it the HTTP port?"),
        (Vec::new(), "is it the HTTP port?"),
        (reset(2), "the receiver reset the request (INTERNAL_ERROR)"),
        (reset(8), "the receiver reset the request (CANCEL)"),
        (reset(7), "connection closed before the answer"),
        (goaway(0), "connection closed before the answer"),
        (goaway(11), "the receiver closed the connection (ENHANCE_YOUR_CALM)"),
    ];
    for (answer, says) in cases {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let mut bytes = [0; 16 * 1024];
                let mut read = 0;
                // The preface, the settings and the head of a request.
                while read < 200 {
                    read += stream.read(&mut bytes).unwrap();
                }
                if answer.is_empty() {
                    continue;
                }
                let _ = stream.write_all(&answer);
                // Until the other side has enough of it.
                while stream.read(&mut bytes).is_ok_and(|count| count > 0) {}
            }
        });
        let under = Under::test(Otlp::new(Protocol::Grpc, format!("http://{address}")), |_| {});
        under.finish(10);
        under.wait("failure", |u| u.pipeline.status().failures > 0);
        assert!(under.lines()[0].contains(says), "{says}: {:?}", under.lines());
        let suspects = |text: &str| text.contains("HTTP port");
        assert_eq!(suspects(&under.lines()[0]), suspects(says), "{:?}", under.lines());
        assert_eq!(under.balance().pending, 10);
    }
}

#[test]
fn unavailable_is_retried_and_invalid_is_not() {
    for (code, trailers_only) in [("14", true), ("14", false), ("4", true)] {
        let server = Server::start(move |n| match n {
            0 => Say { status: 200, code, trailers_only, ..Say::default() },
            _ => ok(),
        });
        let under = Under::test(server.otlp(), |_| {});
        under.finish(10);
        assert!(under.pipeline.flush(Duration::from_secs(10)));
        assert_eq!(under.balance().sent, 10);
    }
    let server = Server::start(|_| Say { status: 200, code: "3", trailers_only: true, ..Say::default() });
    let under = Under::test(server.otlp(), |_| {});
    under.finish(10);
    assert!(!under.pipeline.flush(Duration::from_secs(10)));
    assert_eq!(under.balance().lost[Loss::Rejected as usize], 10);
    assert!(under.lines()[0].contains("INVALID_ARGUMENT"), "{:?}", under.lines());
}

#[test]
fn exhausted_is_retried_only_when_the_server_says_when() {
    // Status { code: 8, details: [RetryInfo { retry_delay: 1 s }] }
    const DETAILS: &str = "CAgaMgoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJldHJ5SW5mbxIGCgQIARAA";
    let server = Server::start(|n| match n {
        0 => Say { status: 200, code: "8", details: Some(DETAILS), trailers_only: true, ..Say::default() },
        _ => ok(),
    });
    let under = Under::test(server.otlp(), |_| {});
    under.finish(10);
    let start = std::time::Instant::now();
    under.wait("sent", |u| u.balance().sent == 10);
    assert!(start.elapsed() >= Duration::from_secs(1));

    let server = Server::start(|_| Say { status: 200, code: "8", trailers_only: true, ..Say::default() });
    let under = Under::test(server.otlp(), |_| {});
    under.finish(10);
    under.pipeline.flush(Duration::from_secs(10));
    assert_eq!(under.balance().lost[Loss::Rejected as usize], 10);
}

#[test]
fn a_partial_success_counts_what_was_refused() {
    let server = Server::start(|_| Say { message: vec![0x0a, 2, 0x08, 3], ..ok() });
    let under = Under::test(server.otlp(), |_| {});
    under.finish(10);
    under.pipeline.flush(Duration::from_secs(10));
    let counters = under.balance();
    assert_eq!((counters.sent, counters.lost[Loss::Rejected as usize]), (7, 3));
}

#[test]
fn an_answer_that_is_not_grpc_keeps_the_spans() {
    let server = Server::start(|_| Say { status: 200, ..Say::default() });
    let under = Under::test(server.otlp(), |_| {});
    under.finish(10);
    under.wait("failure", |u| u.pipeline.status().failures > 0);
    assert_eq!(under.balance().pending, 10);
    assert!(under.lines()[0].contains("not as gRPC"), "{:?}", under.lines());
}

#[test]
fn no_message_exceeds_what_receivers_take() {
    use agent_core::Key;
    use agent_core::span::{ActiveSpan, Parent, SpanKind, SpanSpec};
    static SCOPE: Key = Key::new("remora.large");
    let server = Server::start(|_| ok());
    let under = Under::test(server.otlp(), |_| {});
    let slot = under.pipeline.queue().slot();
    let spec = SpanSpec { name: "large", kind: SpanKind::Internal, scope: &SCOPE };
    let mut span = ActiveSpan::new();
    for _ in 0..400 {
        agent_core::local::with_ids(|ids| span.start(&spec, Parent::Root(None), ids));
        span.str("text", &"x".repeat(60_000));
        slot.push(&span, agent_core::clock::now());
    }
    slot.release();
    under.pipeline.start();
    assert!(under.pipeline.flush(Duration::from_secs(20)), "{:?}", under.lines());
    assert_eq!(server.spans.load(Ordering::SeqCst), 400);
    let sizes = server.sizes.lock().unwrap();
    assert!(sizes.iter().all(|size| *size < 4 << 20), "{sizes:?}");
    under.balance();
}
