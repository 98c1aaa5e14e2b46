//! Where a receiver is.

use std::path::PathBuf;

use crate::config::{Otlp, Protocol};
use crate::request::Failure;

/// What a connection is made to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A host and a port.
    Tcp(String, u16),
    /// A socket in the file system.
    Unix(PathBuf),
}

/// A parsed endpoint.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) target: Target,
    pub(crate) tls: bool,
    /// `Host` and `:authority`.
    pub(crate) authority: String,
    /// Path and query.
    pub(crate) path: String,
    /// `user:password`, if the URL has them.
    pub(crate) credentials: Option<String>,
    /// For lines and `doctor`: no credentials, no query.
    pub(crate) shown: String,
}

const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

impl Endpoint {
    pub(crate) fn parse(otlp: &Otlp) -> Result<Self, Failure> {
        let text = otlp.endpoint.trim();
        let grpc = otlp.protocol == Protocol::Grpc;
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return Ok(Self {
                target: Target::Unix(PathBuf::from(path)),
                tls: false,
                authority: "localhost".into(),
                path: if grpc { GRPC_PATH } else { "/v1/traces" }.into(),
                credentials: None,
                shown: format!("unix:{path}"),
            });
        }
        // gRPC endpoints come without a scheme too; INSECURE decides then.
        let whole = match text.split_once("://") {
            None => format!("{}://{text}", if otlp.insecure { "http" } else { "https" }),
            Some(_) => text.to_owned(),
        };
        // What cannot be parsed may hold a password anywhere: it is not repeated.
        let wrong = || Failure::Setting("OTEL_EXPORTER_OTLP_ENDPOINT: not a URL".into());
        let uri: http::Uri = whole.parse().map_err(|_| wrong())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => {
                return Err(Failure::Setting("OTEL_EXPORTER_OTLP_ENDPOINT: neither http: nor https:".into()));
            }
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
        let port = uri.port_u16();
        let authority = match port {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let default = match (grpc, tls) {
            (true, _) => 4317,
            (false, true) => 443,
            (false, false) => 80,
        };
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let credentials =
            uri.authority().and_then(|a| a.as_str().rsplit_once('@')).map(|(c, _)| c.to_owned());
        Ok(Self {
            target: Target::Tcp(
                host.trim_start_matches('[').trim_end_matches(']').to_owned(),
                port.unwrap_or(default),
            ),
            tls,
            path: if grpc { GRPC_PATH } else { path }.to_owned(),
            credentials,
            shown: format!(
                "{}://{authority}{}",
                if tls { "https" } else { "http" },
                if grpc { "" } else { uri.path() }
            ),
            authority,
        })
    }
}

/// Basic credentials. <https://www.rfc-editor.org/rfc/rfc7617>
pub(crate) fn basic(credentials: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes = percent_decoded(credentials);
    let mut text = String::from("Basic ");
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = if i <= chunk.len() { DIGITS[(bits >> (18 - 6 * i) & 63) as usize] } else { b'=' };
            text.push(char::from(digit));
        }
    }
    text
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let pair = tail.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        match pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(protocol: Protocol, text: &str) -> Endpoint {
        Endpoint::parse(&Otlp::new(protocol, text)).unwrap()
    }

    #[test]
    fn an_http_endpoint_is_used_verbatim() {
        let endpoint = parse(Protocol::HttpProtobuf, "http://localhost:4318/v1/traces");
        assert_eq!(endpoint.target, Target::Tcp("localhost".into(), 4318));
        assert_eq!((endpoint.path.as_str(), endpoint.authority.as_str()), ("/v1/traces", "localhost:4318"));
        assert_eq!(parse(Protocol::HttpProtobuf, "https://h").target, Target::Tcp("h".into(), 443));
        assert_eq!(parse(Protocol::HttpProtobuf, "http://[::1]:1/").target, Target::Tcp("::1".into(), 1));
    }

    #[test]
    fn credentials_are_used_and_never_shown() {
        let endpoint = parse(Protocol::HttpProtobuf, "https://me:se%63ret@example.org/v1/traces?token=x");
        assert_eq!(endpoint.shown, "https://example.org/v1/traces");
        assert_eq!(endpoint.path, "/v1/traces?token=x");
        assert_eq!(endpoint.authority, "example.org");
        assert_eq!(basic(endpoint.credentials.as_deref().unwrap()), "Basic bWU6c2VjcmV0");
        let wrong = Endpoint::parse(&Otlp::new(Protocol::HttpProtobuf, "http://me:secret@ho st/"));
        assert!(!wrong.unwrap_err().to_string().contains("secret"));
    }

    #[test]
    fn grpc_without_a_scheme_is_secure_unless_told_otherwise() {
        assert!(parse(Protocol::Grpc, "collector:4317").tls);
        let mut otlp = Otlp::new(Protocol::Grpc, "collector");
        otlp.insecure = true;
        let endpoint = Endpoint::parse(&otlp).unwrap();
        assert!(!endpoint.tls);
        assert_eq!(endpoint.target, Target::Tcp("collector".into(), 4317));
        assert!(!parse(Protocol::Grpc, "http://collector:4317").tls);
    }

    #[test]
    fn what_the_settings_accept_can_be_parsed() {
        let mut forms: Vec<String> = (0x20..=0xff_u8)
            .map(char::from)
            .flat_map(|c| {
                ["c{}:1", "c{}", "{}", "c/{}x", "c?{}x", "c#{}x", "u{}p@c", "[{}]", "c:1{}"]
                    .map(|form| format!("http://{}", form.replace("{}", &c.to_string())))
            })
            .collect();
        for form in
            ["::1:4318", "c:1:2", "a%zz", "[::1]:1", "[fe80::1%eth0]", "[zz]", "[::1]1", "[]", "b\u{fc}cher"]
        {
            forms.push(format!("http://{form}"));
        }
        for protocol in ["grpc", "http/protobuf"] {
            for form in forms.iter().flat_map(|form| [form.as_str(), &form["http://".len()..]]) {
                let lookup = |name: &str| match name {
                    "OTEL_EXPORTER_OTLP_ENDPOINT" => Some(form.to_owned()),
                    "OTEL_EXPORTER_OTLP_PROTOCOL" => Some(protocol.to_owned()),
                    _ => None,
                };
                let (settings, said) = agent_core::settings::Settings::resolve(&lookup, &[]);
                let otlp = Otlp::new(settings.otlp.protocol, settings.otlp.endpoint);
                let parsed = Endpoint::parse(&otlp);
                assert!(parsed.is_ok(), "{form}: {parsed:?}");
                assert!(said.len() <= 1 && parsed.unwrap().credentials.is_none(), "{form}: {said:?}");
            }
        }
    }

    #[test]
    fn a_unix_socket_is_an_endpoint() {
        let endpoint = parse(Protocol::HttpProtobuf, "unix:///run/otel.sock");
        assert_eq!(endpoint.target, Target::Unix("/run/otel.sock".into()));
        assert_eq!(parse(Protocol::Grpc, "unix:/run/otel.sock").target, endpoint.target);
    }
}
