//! From an endpoint to a stream of bytes: name, socket, proxy, TLS.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::endpoint::{Endpoint, Target, basic};
use crate::config::Proxy;
use crate::request::{Failure, io_text};

/// What HTTP runs over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How long one of several addresses may take before the next is tried.
const PER_ADDRESS: Duration = Duration::from_secs(2);

fn failure(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Failure::Refused,
        io::ErrorKind::TimedOut => Failure::Connect("connection timed out".into()),
        _ => Failure::Connect(io_text(error)),
    }
}

async fn tcp(host: &str, port: u16) -> Result<TcpStream, Failure> {
    let addresses: Vec<SocketAddr> = match host.parse::<IpAddr>() {
        Ok(ip) => vec![(ip, port).into()],
        // The system's resolver, on a thread that lives as long as the look-up.
        Err(_) => tokio::net::lookup_host((host, port))
            .await
            .map_err(|_| Failure::Connect(format!("cannot resolve {host}")))?
            .collect(),
    };
    let mut last = Failure::Connect(format!("{host} has no address"));
    for (index, address) in addresses.iter().enumerate() {
        let connect = TcpStream::connect(address);
        let result = if index + 1 < addresses.len() {
            tokio::time::timeout(PER_ADDRESS, connect)
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        } else {
            connect.await
        };
        match result {
            Ok(stream) => {
                // Requests are written whole; waiting for more would only delay the last part.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => last = failure(&error),
        }
    }
    Err(last)
}

/// The proxy for an endpoint, as `host:port` with credentials, or nothing.
pub(super) fn proxy_for<'a>(proxy: &'a Proxy, endpoint: &Endpoint) -> Option<&'a str> {
    let Target::Tcp(host, _) = &endpoint.target else { return None };
    let chosen = if endpoint.tls { proxy.https.as_deref() } else { proxy.http.as_deref() }?;
    let direct = proxy.no_proxy.split(',').map(str::trim).any(|entry| {
        let suffix = entry.trim_start_matches('.');
        entry == "*"
            || (!suffix.is_empty()
                && host
                    .to_ascii_lowercase()
                    .strip_suffix(&suffix.to_ascii_lowercase())
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
    });
    (!direct).then_some(chosen)
}

/// Where a proxy is and what it wants to hear.
pub(super) struct ProxyAt {
    host: String,
    port: u16,
    pub(super) authorization: Option<String>,
}

impl ProxyAt {
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let wrong = || Failure::Setting("HTTPS_PROXY, http_proxy: not an http: URL".into());
        let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: http::Uri = whole.parse().map_err(|_| wrong())?;
        if uri.scheme_str() != Some("http") {
            return Err(wrong());
        }
        let host = uri.host().ok_or_else(wrong)?;
        let credentials = uri.authority().and_then(|a| a.as_str().rsplit_once('@')).map(|(c, _)| basic(c));
        Ok(Self {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: uri.port_u16().unwrap_or(80),
            authorization: credentials,
        })
    }
}

async fn tunnel(proxy: &ProxyAt, host: &str, port: u16) -> Result<TcpStream, Failure> {
    let mut stream = tcp(&proxy.host, proxy.port).await?;
    let mut ask = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n");
    if let Some(authorization) = &proxy.authorization {
        ask.push_str(&format!("Proxy-Authorization: {authorization}\r\n"));
    }
    ask.push_str("\r\n");
    stream.write_all(ask.as_bytes()).await.map_err(|error| failure(&error))?;
    // Byte by byte: what follows the empty line belongs to TLS.
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") && answer.len() < 8 * 1024 {
        answer.push(stream.read_u8().await.map_err(|_| Failure::Connect("the proxy hung up".into()))?);
    }
    let status = answer.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    if status.first() != Some(&b'2') {
        return Err(Failure::Connect(format!("the proxy answered {}", String::from_utf8_lossy(status))));
    }
    Ok(stream)
}

/// A connection to `endpoint`, and whether it speaks HTTP/2 (by ALPN).
pub(super) async fn connect(
    endpoint: &Endpoint,
    proxy: Option<&ProxyAt>,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<(Box<dyn Stream>, bool), Failure> {
    let (host, stream) = match (&endpoint.target, proxy) {
        (Target::Unix(path), _) => {
            let stream = UnixStream::connect(path).await.map_err(|error| failure(&error))?;
            return Ok((Box::new(stream), false));
        }
        (Target::Tcp(host, port), Some(proxy)) if endpoint.tls => (host, tunnel(proxy, host, *port).await?),
        (Target::Tcp(host, _), Some(proxy)) => (host, tcp(&proxy.host, proxy.port).await?),
        (Target::Tcp(host, port), None) => (host, tcp(host, *port).await?),
    };
    let Some(config) = tls else { return Ok((Box::new(stream), false)) };
    let name = ServerName::try_from(host.clone())
        .map_err(|_| Failure::Connect(format!("{host} is no name that a certificate could have")))?;
    let stream = tokio_rustls::TlsConnector::from(config.clone())
        .connect(name, stream)
        .await
        .map_err(|error| Failure::Connect(format!("TLS: {error}")))?;
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok((Box::new(stream), h2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Otlp, Protocol};

    #[test]
    fn no_proxy_names_hosts_and_suffixes() {
        let proxy = Proxy {
            http: Some("http://p:1".into()),
            https: None,
            no_proxy: "localhost, .internal,example.org".into(),
        };
        let through = |host: &str| {
            let otlp = Otlp::new(Protocol::HttpProtobuf, format!("http://{host}/"));
            proxy_for(&proxy, &Endpoint::parse(&otlp).unwrap()).is_some()
        };
        assert!(!through("localhost"));
        assert!(!through("a.internal"));
        assert!(!through("otel.EXAMPLE.org"));
        assert!(through("notexample.org"));
        let https = Otlp::new(Protocol::HttpProtobuf, "https://h/");
        assert!(proxy_for(&proxy, &Endpoint::parse(&https).unwrap()).is_none());
    }
}
