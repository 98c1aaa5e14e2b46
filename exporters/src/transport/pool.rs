//! Connections to one receiver: some of HTTP/1.1, or one of HTTP/2. Both end with the runtime that drives them.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response, Uri};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use super::connect::{self, ProxyAt};
use super::endpoint::{Endpoint, Target, basic};
use super::{MAX_ANSWER, tls};
use crate::config::{Otlp, Protocol};
use crate::request::Failure;

/// A body of one piece.
pub(super) struct Once(Option<Bytes>);

impl Body for Once {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// An answer, read.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: BytesMut,
    pub(super) trailers: HeaderMap,
}

/// A connection of HTTP/2. It ends with its last request once the pool has forgotten it: one that nobody answers on
/// would else stay until the kernel gives it up.
struct Shared {
    sender: http2::SendRequest<Once>,
    driver: AbortHandle,
    /// Whether an answer ever came.
    answered: AtomicBool,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

enum Sender {
    H1(http1::SendRequest<Once>),
    H2(Arc<Shared>),
}

/// Connections. The locks are held for a push or a pop, never across an await.
pub(super) struct Pool {
    endpoint: Result<Endpoint, Failure>,
    otlp: Otlp,
    /// Or what to say of one that cannot be used.
    proxy: Result<Option<ProxyAt>, String>,
    tls: OnceLock<Arc<ClientConfig>>,
    idle: Mutex<Vec<http1::SendRequest<Once>>>,
    shared: Mutex<Option<Arc<Shared>>>,
    /// One dials while others wait: they may share what comes of it.
    dialling: tokio::sync::Mutex<()>,
    /// Why TLS broke off after the handshake: how a server refuses a client's certificate.
    alert: Arc<Mutex<Option<Failure>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    pub(super) fn new(endpoint: Result<Endpoint, Failure>, otlp: Otlp) -> Self {
        let proxy = endpoint.as_ref().ok().and_then(|endpoint| connect::proxy_for(&otlp.proxy, endpoint));
        Self {
            endpoint,
            proxy: proxy.map(ProxyAt::parse).transpose(),
            otlp,
            tls: OnceLock::new(),
            idle: Mutex::default(),
            shared: Mutex::default(),
            dialling: tokio::sync::Mutex::default(),
            alert: Arc::default(),
        }
    }

    pub(super) fn shown(&self) -> &str {
        self.endpoint.as_ref().map_or("the endpoint", |endpoint| &endpoint.shown)
    }

    /// What to say of a proxy that is not used.
    pub(super) fn remark(&self) -> Option<&str> {
        self.proxy.as_ref().err().map(String::as_str)
    }

    /// The proxy that requests go through.
    pub(super) fn through(&self) -> Option<String> {
        self.proxy.as_ref().ok()?.as_ref().map(ProxyAt::shown)
    }

    pub(super) fn clear(&self) {
        lock(&self.idle).clear();
        *lock(&self.shared) = None;
    }

    fn tls(&self) -> Result<&Arc<ClientConfig>, Failure> {
        match self.tls.get() {
            Some(config) => Ok(config),
            None => {
                let config = tls::client(&self.otlp)?;
                Ok(self.tls.get_or_init(|| config))
            }
        }
    }

    fn kept(&self) -> Option<Sender> {
        let mut shared = lock(&self.shared);
        if let Some(open) = shared.as_ref().filter(|shared| !shared.sender.is_closed()) {
            return Some(Sender::H2(open.clone()));
        }
        *shared = None;
        drop(shared);
        let mut idle = lock(&self.idle);
        while let Some(sender) = idle.pop() {
            if sender.is_ready() {
                return Some(Sender::H1(sender));
            }
        }
        None
    }

    async fn dial(&self, endpoint: &Endpoint, proxy: Option<&ProxyAt>) -> Result<Sender, Failure> {
        let tls = if endpoint.tls { Some(self.tls()?) } else { None };
        let (stream, h2) = connect::connect(endpoint, proxy, self.tunnels(endpoint), tls).await?;
        let io = TokioIo::new(stream);
        if h2 || self.is_grpc() {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io)
                .await
                .map_err(|error| protocol(&error, self.is_grpc(), endpoint.tls))?;
            let driver = tokio::spawn(drive(connection, self.alert.clone())).abort_handle();
            let shared = Arc::new(Shared { sender, driver, answered: AtomicBool::new(false) });
            *lock(&self.shared) = Some(shared.clone());
            Ok(Sender::H2(shared))
        } else {
            let (sender, connection) =
                http1::handshake(io).await.map_err(|error| protocol(&error, false, endpoint.tls))?;
            tokio::spawn(drive(connection, self.alert.clone()));
            Ok(Sender::H1(sender))
        }
    }

    fn is_grpc(&self) -> bool {
        self.otlp.protocol == Protocol::Grpc
    }

    /// Whether a proxy sees a tunnel: HTTP/2 without TLS is nothing that it could forward.
    fn tunnels(&self, endpoint: &Endpoint) -> bool {
        endpoint.tls || self.is_grpc()
    }

    /// Sends one POST and reads the answer, of which what breaks off or has not come by `until` may be missing where
    /// the head says that the request was accepted.
    pub(super) async fn post(
        &self,
        headers: &HeaderMap,
        body: Bytes,
        until: Instant,
    ) -> Result<Answer, Failure> {
        let endpoint = self.endpoint.as_ref().map_err(Clone::clone)?;
        let proxy = self.proxy.as_ref().ok().and_then(Option::as_ref);
        let mut fresh = false;
        loop {
            let sender = match self.kept().filter(|_| !fresh) {
                Some(sender) => sender,
                None => {
                    let may_share = endpoint.tls || self.is_grpc();
                    let _turn = if may_share { Some(self.dialling.lock().await) } else { None };
                    match self.kept().filter(|_| may_share && !fresh) {
                        Some(sender) => sender,
                        None => {
                            fresh = true;
                            self.dial(endpoint, proxy).await?
                        }
                    }
                }
            };
            match self.exchange(sender, endpoint, headers, body.clone(), until).await {
                // The receiver closed a kept connection while it was idle: that says nothing about its health.
                Err(Failure::Closed) if !fresh => fresh = true,
                Err(Failure::Closed) => return Err(self.closed(endpoint)),
                result => return result,
            }
        }
    }

    /// Why the receiver closed a fresh connection.
    fn closed(&self, endpoint: &Endpoint) -> Failure {
        if let Some(alert) = lock(&self.alert).take() {
            return alert;
        }
        // TLS 1.3 refuses a client after its handshake, and the alert is lost where a reset overtakes it.
        if endpoint.tls && self.otlp.client_cert.is_none() {
            return Failure::Connect(
                "closed after the TLS handshake: does the receiver want a client certificate \
                 (OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE)?"
                    .into(),
            );
        }
        hung_up(endpoint, self.is_grpc())
    }

    async fn exchange(
        &self,
        sender: Sender,
        endpoint: &Endpoint,
        headers: &HeaderMap,
        body: Bytes,
        until: Instant,
    ) -> Result<Answer, Failure> {
        let proxy = self.proxy.as_ref().ok().and_then(Option::as_ref);
        let plain_proxy = proxy.filter(|_| !self.tunnels(endpoint));
        let h2 = matches!(sender, Sender::H2(_));
        let absolute = h2 || plain_proxy.is_some();
        // HTTP/2 has a place of its own for the host.
        let host = headers.get(http::header::HOST).filter(|_| h2).and_then(|host| host.to_str().ok());
        let mut request = Request::new(Once(Some(body)));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = if absolute {
            let scheme = if endpoint.tls { "https" } else { "http" };
            Uri::builder()
                .scheme(scheme)
                .authority(host.unwrap_or(&endpoint.authority))
                .path_and_query(endpoint.path.as_str())
                .build()
        } else {
            Uri::builder().path_and_query(endpoint.path.as_str()).build()
        }
        .map_err(|_| Failure::Setting("OTEL_EXPORTER_OTLP_ENDPOINT: not a URL".into()))?;
        let map = request.headers_mut();
        if let Some(credentials) = &endpoint.credentials
            && let Ok(value) = basic(credentials).parse()
        {
            map.insert(http::header::AUTHORIZATION, value);
        }
        if let Some(Ok(value)) = plain_proxy.and_then(|p| p.authorization.as_ref()).map(|a| a.parse()) {
            map.insert(http::header::PROXY_AUTHORIZATION, value);
        }
        map.extend(headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        let grpc = self.is_grpc();
        match sender {
            Sender::H2(shared) => {
                map.remove(http::header::HOST);
                let sent = shared.sender.clone().send_request(request).await;
                let hint = grpc && !shared.answered.load(Ordering::Relaxed);
                let response = sent.map_err(|error| protocol(&error, hint, endpoint.tls))?;
                shared.answered.store(true, Ordering::Relaxed);
                read(response, grpc, until).await
            }
            Sender::H1(mut sender) => {
                if !request.headers().contains_key(http::header::HOST)
                    && let Ok(value) = endpoint.authority.parse()
                {
                    request.headers_mut().insert(http::header::HOST, value);
                }
                let response = sender
                    .send_request(request)
                    .await
                    .map_err(|error| protocol(&error, false, endpoint.tls))?;
                let answer = read(response, grpc, until).await?;
                // Ready once the answer is read to its end, unless the receiver closes.
                if sender.ready().await.is_ok() {
                    lock(&self.idle).push(sender);
                }
                Ok(answer)
            }
        }
    }
}

/// A receiver of gRPC that is asked in HTTP/1.1 answers and resets, and the reset may overtake the answer: then the
/// port is all that tells it.
fn hung_up(endpoint: &Endpoint, grpc: bool) -> Failure {
    match endpoint.target {
        Target::Tcp(_, 4317) if !grpc => {
            Failure::Protocol("connection closed before the answer: is it the gRPC port?".into())
        }
        _ => Failure::Closed,
    }
}

/// Drives a connection to its end.
async fn drive(connection: impl Future<Output = hyper::Result<()>>, alert: Arc<Mutex<Option<Failure>>>) {
    let Err(error) = connection.await else { return };
    if let Some(why) = tls_failure(&error) {
        *lock(&alert) = Some(why);
    }
}

/// What TLS has to say about an error, if it was TLS.
fn tls_failure(error: &hyper::Error) -> Option<Failure> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = source {
        let tls = inner.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref());
        if let Some(tls) = tls.and_then(|tls| tls.downcast_ref::<rustls::Error>()) {
            let wants = rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired);
            return Some(Failure::Connect(if *tls == wants {
                "TLS: the receiver wants a client certificate (OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE)".into()
            } else {
                format!("TLS: {tls}")
            }));
        }
        source = inner.source();
    }
    None
}

/// Why no answer came. `hint`: nothing has shown yet that the other side speaks HTTP/2.
fn protocol(error: &hyper::Error, hint: bool, tls: bool) -> Failure {
    if error.is_parse() {
        return Failure::Protocol("answers, but not in HTTP/1.1: is it the gRPC port?".into());
    }
    if let Some(why) = tls_failure(error) {
        return why;
    }
    // A server of HTTP/1.1 may hang up on HTTP/2, its answer lost. Over TLS it is a certificate that is not liked.
    let closed = || match hint && !tls {
        true => Failure::Protocol("connection closed before the answer: is it the HTTP port?".into()),
        false => Failure::Closed,
    };
    if error.is_closed() || error.is_canceled() || error.is_incomplete_message() {
        return closed();
    }
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = source {
        if inner.downcast_ref::<std::io::Error>().is_some() {
            return closed();
        }
        if let Some(h2) = inner.downcast_ref::<h2::Error>()
            && h2.is_remote()
        {
            return told(h2);
        }
        source = inner.source();
    }
    if hint {
        return Failure::Protocol("answers, but not in HTTP/2: is it the HTTP port?".into());
    }
    Failure::Protocol("the answer broke off".into())
}

/// What a receiver that speaks HTTP/2 gives as its reason.
fn told(error: &h2::Error) -> Failure {
    match error.reason() {
        // It has not looked at the request, and may on another connection.
        Some(h2::Reason::NO_ERROR | h2::Reason::REFUSED_STREAM) => Failure::Closed,
        reason => {
            let reason = reason.map_or_else(String::new, |reason| format!(" ({reason:?})"));
            let what = if error.is_reset() { "reset the request" } else { "closed the connection" };
            Failure::Protocol(format!("the receiver {what}{reason}"))
        }
    }
}

async fn read(response: Response<Incoming>, grpc: bool, until: Instant) -> Result<Answer, Failure> {
    let (head, mut incoming) = response.into_parts();
    // The status of gRPC comes behind the message.
    let accepted = !grpc && head.status.is_success();
    let mut answer = Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: BytesMut::new(),
        trailers: HeaderMap::new(),
    };
    if accepted {
        // A request that was accepted is not sent again for the sake of what follows.
        let _ = timeout_at(until, read_body(&mut incoming, &mut answer)).await;
    } else {
        read_body(&mut incoming, &mut answer).await?;
    }
    Ok(answer)
}

async fn read_body(incoming: &mut Incoming, answer: &mut Answer) -> Result<(), Failure> {
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut *incoming).poll_frame(cx)).await {
        match frame.map_err(|_| Failure::Closed)?.into_data() {
            Ok(data) => {
                if answer.body.len() + data.len() > MAX_ANSWER {
                    // Whatever this is, the status has been said; the rest is not worth reading.
                    return Ok(());
                }
                answer.body.extend_from_slice(&data);
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    answer.trailers = trailers;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hang_up_on_the_port_of_grpc_is_asked_about() {
        let says = |protocol, url: &str| {
            let endpoint = Endpoint::parse(&Otlp::new(protocol, url)).unwrap();
            hung_up(&endpoint, protocol == Protocol::Grpc).to_string()
        };
        let plain = "connection closed before the answer";
        let asks = format!("{plain}: is it the gRPC port?");
        assert_eq!(says(Protocol::HttpProtobuf, "http://collector:4317/v1/traces"), asks);
        assert_eq!(says(Protocol::HttpJson, "http://collector:4317/v1/traces"), asks);
        assert_eq!(says(Protocol::HttpProtobuf, "http://collector:4318/v1/traces"), plain);
        assert_eq!(says(Protocol::Grpc, "http://collector:4317"), plain);
    }
}
