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
    let Target::Tcp(host, port) = &endpoint.target else { return None };
    let chosen = if endpoint.tls { proxy.https.as_deref() } else { proxy.http.as_deref() }?;
    let host = host.to_ascii_lowercase();
    let entries = proxy.no_proxy.split(|c: char| c == ',' || c.is_whitespace());
    let direct = entries.filter(|entry| !entry.is_empty()).any(|entry| is_meant(entry, &host, *port));
    (!direct).then_some(chosen)
}

/// Whether an entry of `NO_PROXY` means a host, which is in lower case.
fn is_meant(entry: &str, host: &str, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    let address: Option<IpAddr> = host.parse().ok();
    if let Some((network, length)) = entry.split_once('/') {
        let network = unbracketed(network).parse();
        return match (address, network, length.parse()) {
            (Some(address), Ok(network), Ok(length)) => is_within(address, network, length),
            _ => false,
        };
    }
    // A port, unless the colon is one of an address.
    let (name, only) = match entry.rsplit_once(':') {
        Some((name, only)) if name.ends_with(']') || !name.contains(':') => (name, Some(only)),
        _ => (entry, None),
    };
    if only.is_some_and(|only| only.parse() != Ok(port)) {
        return false;
    }
    if let Ok(named) = unbracketed(name).parse::<IpAddr>() {
        return address == Some(named);
    }
    let suffix = name.trim_start_matches('.').to_ascii_lowercase();
    let rest = host.strip_suffix(&suffix).filter(|_| !suffix.is_empty() && address.is_none());
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Whether an address lies in a network of so many leading bits.
fn is_within(address: IpAddr, network: IpAddr, length: u32) -> bool {
    let differ = match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) if length <= 32 => u128::from(a.to_bits() ^ b.to_bits()) << 96,
        (IpAddr::V6(a), IpAddr::V6(b)) if length <= 128 => a.to_bits() ^ b.to_bits(),
        _ => return false,
    };
    differ.leading_zeros() >= length
}

fn unbracketed(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Where a proxy is and what it wants to hear.
#[derive(Debug)]
pub(super) struct ProxyAt {
    host: String,
    port: u16,
    pub(super) authorization: Option<String>,
}

impl ProxyAt {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let wrong = || {
            "the proxy of http_proxy, https_proxy or all_proxy is no http: URL: spans go without it"
                .to_owned()
        };
        let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: http::Uri = whole.parse().map_err(|_| wrong())?;
        if uri.scheme_str() != Some("http") {
            return Err(wrong());
        }
        let host = uri.host().ok_or_else(wrong)?;
        let credentials = uri.authority().and_then(|a| a.as_str().rsplit_once('@')).map(|(c, _)| basic(c));
        Ok(Self {
            host: unbracketed(host).to_owned(),
            port: uri.port_u16().unwrap_or(80),
            authorization: credentials,
        })
    }

    /// For lines and `doctor`: no credentials.
    pub(super) fn shown(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// A connection to it. Who reads why there is none looks for the fault at the receiver unless told.
    async fn reach(&self) -> Result<TcpStream, Failure> {
        let tell = |failure| Failure::Connect(format!("the proxy {}: {failure}", self.shown()));
        tcp(&self.host, self.port).await.map_err(tell)
    }
}

async fn tunnel(proxy: &ProxyAt, host: &str, port: u16) -> Result<TcpStream, Failure> {
    let mut stream = proxy.reach().await?;
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let mut ask = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
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
    match status(&answer) {
        Some(200..300) => Ok(stream),
        Some(status) => Err(Failure::Connect(format!("the proxy answered {status}"))),
        None => Err(Failure::Connect("the proxy answered garbage".into())),
    }
}

/// The status in the first line of an answer. Nothing else of it is ever shown.
fn status(answer: &[u8]) -> Option<u16> {
    let mut words = answer.strip_prefix(b"HTTP/1.")?.split(|byte| byte.is_ascii_whitespace());
    let digits = words.nth(1).filter(|word| word.len() == 3 && word.iter().all(u8::is_ascii_digit))?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A connection to `endpoint`, and whether it speaks HTTP/2 (by ALPN). `tunnels`: through a proxy rather than to it.
pub(super) async fn connect(
    endpoint: &Endpoint,
    proxy: Option<&ProxyAt>,
    tunnels: bool,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<(Box<dyn Stream>, bool), Failure> {
    let (host, stream) = match (&endpoint.target, proxy) {
        (Target::Unix(path), _) => {
            let stream = UnixStream::connect(path).await.map_err(|error| failure(&error))?;
            return Ok((Box::new(stream), false));
        }
        (Target::Tcp(host, port), Some(proxy)) if tunnels => (host, tunnel(proxy, host, *port).await?),
        (Target::Tcp(host, _), Some(proxy)) => (host, proxy.reach().await?),
        (Target::Tcp(host, port), None) => (host, tcp(host, *port).await?),
    };
    let Some(config) = tls else { return Ok((Box::new(stream), false)) };
    let name = ServerName::try_from(host.clone())
        .map_err(|_| Failure::Connect(format!("{host} is no name that a certificate could have")))?;
    let stream = tokio_rustls::TlsConnector::from(config.clone())
        .connect(name, stream)
        .await
        .map_err(|error| Failure::Connect(format!("TLS: {}", tls_text(&error))))?;
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok((Box::new(stream), h2))
}

/// Why there was no handshake. What answers without TLS looks to rustls like a damaged message.
fn tls_text(error: &io::Error) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidMessage(_)) => {
            "the receiver answers without it: is it an http: endpoint?".to_owned()
        }
        _ if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the receiver hung up in the handshake".to_owned()
        }
        _ => error.to_string(),
    }
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

    #[test]
    fn no_proxy_names_addresses_networks_and_ports() {
        let cases = [
            ("10.1.2.3", 80, true),
            ("11.1.2.3", 80, false),
            ("192.168.7.1", 80, true),
            ("192.168.7.2", 80, false),
            ("fd00::1", 80, true),
            ("fe00::1", 80, false),
            ("::1", 80, true),
            ("::1", 81, true),
            ("collector", 4318, true),
            ("collector", 4317, false),
            ("172.16.0.1", 4318, true),
            ("172.16.0.1", 4317, false),
            ("2001:db8::1", 4318, true),
            ("2001:db8::1", 4317, false),
            ("0.0.10.1", 80, false),
            ("anything.at.all", 80, false),
        ];
        let entries = [
            "10.0.0.0/8",
            "192.168.7.1/32",
            "fd00::/8",
            "::1",
            "Collector:4318",
            "172.16.0.1:4318",
            "[2001:db8::1]:4318",
            "1",
            "10.0.0.0/x",
            "10.0.0.0/99",
            "/8",
        ];
        for (host, port, meant) in cases {
            assert_eq!(entries.iter().any(|entry| is_meant(entry, host, port)), meant, "{host} {port}");
        }
        assert!(is_meant("0.0.0.0/0", "8.8.8.8", 1) && is_meant("*", "any", 1));
    }

    #[test]
    fn of_a_proxys_answer_only_a_status_is_taken() {
        assert_eq!(status(b"HTTP/1.1 200 Connection established\r\n\r\n"), Some(200));
        assert_eq!(status(b"HTTP/1.0 407\r\n\r\n"), Some(407));
        for garbage in ["HTTP/1.1 \x1b[31m x\r\n\r\n", "HTTP/1.1 20 x\r\n\r\n", "SSH-2.0 200 x\r\n\r\n", ""] {
            assert_eq!(status(garbage.as_bytes()), None, "{garbage:?}");
        }
    }
}
