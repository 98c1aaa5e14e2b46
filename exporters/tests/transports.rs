//! Ways to a receiver: TLS with its own authority and with a client's certificate, sockets in the file system, a
//! proxy, JSON; and what `doctor` finds out.
#![allow(clippy::allow_attributes, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use exporters::{Compression, Exporter, ExporterConfig, Otlp, Protocol, Proxy, global};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use support::{Collector, Connection, Reply, Under, proxy_saying, tunnel};

/// An authority with a server's and a client's certificate, in files.
struct Authority {
    folder: PathBuf,
    root: CertificateDer<'static>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("remora-tls-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = params.self_signed(&ca_key).unwrap();
        let issuer = rcgen::Issuer::from_params(&params, &ca_key);
        let leaf = |name: &str| {
            let key = rcgen::KeyPair::generate().unwrap();
            let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
            (params.signed_by(&key, &issuer).unwrap(), key)
        };
        let (server, server_key) = leaf("127.0.0.1");
        let (client, client_key) = leaf("client");
        for (file, text) in
            [("ca.pem", ca.pem()), ("client.pem", client.pem()), ("client.key", client_key.serialize_pem())]
        {
            std::fs::write(folder.join(file), text).unwrap();
        }
        Self {
            folder,
            root: ca.der().clone(),
            chain: vec![server.der().clone()],
            key: PrivateKeyDer::try_from(server_key.serialize_der()).unwrap(),
        }
    }

    fn collector(&self, client_certificate: bool) -> Collector {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if client_certificate {
            let mut roots = RootCertStore::empty();
            roots.add(self.root.clone()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let config = Arc::new(builder.with_single_cert(self.chain.clone(), self.key.clone_key()).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let accept = move || -> Option<Box<dyn Connection>> {
            let stream = listener.accept().ok()?.0;
            Some(Box::new(StreamOwned::new(ServerConnection::new(config.clone()).ok()?, stream)))
        };
        Collector::over(address, accept, |_| Reply::Ok)
    }

    fn otlp(&self, collector: &Collector) -> Otlp {
        let mut otlp = Otlp::new(Protocol::HttpProtobuf, format!("https://{}/v1/traces", collector.address));
        otlp.ca_file = Some(self.folder.join("ca.pem"));
        otlp
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Ten spans on their way; what was said when they could not go.
fn complaint(otlp: Otlp) -> String {
    let under = Under::test(otlp, |_| {});
    under.finish(10);
    under.wait("failure", |u| u.pipeline.status().failures > 0);
    assert_eq!(under.balance().pending, 10);
    under.lines().remove(0)
}

#[test]
fn a_private_authority_is_trusted_when_it_is_named_and_only_then() {
    let authority = Authority::new("private");
    let collector = authority.collector(false);
    let under = Under::test(authority.otlp(&collector), |_| {});
    under.finish(1_000);
    assert!(under.pipeline.flush(Duration::from_secs(10)), "{:?}", under.lines());
    assert_eq!((under.balance().sent, collector.spans()), (1_000, 1_000));

    let mut otlp = authority.otlp(&collector);
    otlp.ca_file = None;
    assert!(complaint(otlp).contains("UnknownIssuer"));
}

#[test]
fn a_client_shows_its_certificate() {
    let authority = Authority::new("mutual");
    let collector = authority.collector(true);
    let mut otlp = authority.otlp(&collector);
    let said = complaint(otlp.clone());
    assert!(said.contains("client certificate"), "{said}");
    otlp.client_cert = Some(authority.folder.join("client.pem"));
    otlp.client_key = Some(authority.folder.join("client.key"));
    let under = Under::test(otlp, |_| {});
    under.finish(10);
    assert!(under.pipeline.flush(Duration::from_secs(10)), "{:?}", under.lines());
    assert_eq!(collector.spans(), 10);
}

#[test]
fn a_bad_file_is_one_line_with_variable_and_path() {
    let authority = Authority::new("files");
    let collector = authority.collector(false);
    let mut otlp = authority.otlp(&collector);
    otlp.ca_file = Some("/nowhere/ca.pem".into());
    assert_eq!(
        complaint(otlp.clone()),
        "OTEL_EXPORTER_OTLP_CERTIFICATE: /nowhere/ca.pem: No such file or directory; retrying, spans are kept"
    );
    otlp.ca_file = Some(authority.folder.join("client.key"));
    assert!(complaint(otlp.clone()).contains("client.key: holds no certificate"));
    otlp.ca_file = Some(authority.folder.join("ca.pem"));
    otlp.client_cert = Some(authority.folder.join("client.pem"));
    assert!(complaint(otlp).contains("OTEL_EXPORTER_OTLP_CLIENT_KEY is not"));
}

#[test]
fn a_socket_in_the_file_system_is_reached() {
    let path = std::env::temp_dir().join(format!("remora-{}.sock", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let collector = Collector::over(
        ([127, 0, 0, 1], 1).into(),
        move || Some(Box::new(listener.accept().ok()?.0)),
        |_| Reply::Ok,
    );
    let under = Under::http(format!("unix:{}", path.display()));
    under.finish(10);
    assert!(under.pipeline.flush(Duration::from_secs(10)), "{:?}", under.lines());
    assert_eq!(collector.spans(), 10);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn json_goes_over_http_too() {
    let collector =
        Collector::start(|_| Reply::Http(200, "Content-Type: application/json\r\n".into(), b"{}".into()));
    let mut otlp = Otlp::new(Protocol::HttpJson, collector.url());
    otlp.compression = Compression::Gzip;
    let under = Under::test(otlp, |_| {});
    under.finish(10);
    assert!(under.pipeline.flush(Duration::from_secs(10)));
    assert_eq!((under.balance().sent, collector.spans()), (10, 10));
    assert!(under.lines().is_empty(), "{:?}", under.lines());
}

#[test]
fn https_goes_through_a_proxy_as_a_tunnel() {
    let authority = Authority::new("proxy");
    let collector = authority.collector(false);
    let (proxy, asked) = tunnel("Proxy-Authorization: Basic bWU6c2VjcmV0");
    let mut otlp = authority.otlp(&collector);
    otlp.proxy = Proxy { https: Some(proxy), ..Proxy::default() };
    let under = Under::test(otlp, |_| {});
    under.finish(10);
    assert!(under.pipeline.flush(Duration::from_secs(10)), "{:?}", under.lines());
    assert_eq!(collector.spans(), 10);
    assert_eq!(asked.recv().unwrap(), collector.address.to_string());
}

#[test]
fn http_goes_to_the_proxy_with_the_whole_url() {
    // The fake Collector plays the proxy: what matters is that the request came to it.
    let collector = Collector::start(|_| Reply::Ok);
    let mut otlp = Otlp::new(Protocol::HttpProtobuf, "http://collector.invalid:4318/v1/traces");
    otlp.proxy = Proxy { http: Some(format!("http://{}", collector.address)), ..Proxy::default() };
    let under = Under::test(otlp, |_| {});
    under.finish(10);
    assert!(under.pipeline.flush(Duration::from_secs(10)), "{:?}", under.lines());
    assert_eq!(collector.spans(), 10);
}

#[test]
fn a_tunnel_to_an_address_of_version_6_is_asked_for_in_brackets() {
    let (proxy, asked) = proxy_saying("HTTP/1.1 502 Bad Gateway\r\n\r\n");
    let mut otlp = Otlp::new(Protocol::HttpProtobuf, "https://[::1]/v1/traces");
    otlp.proxy = Proxy { https: Some(proxy), ..Proxy::default() };
    let said = complaint(otlp);
    assert!(said.contains("(the proxy answered 502)"), "{said}");
    assert!(asked.recv().unwrap().starts_with("CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n"));
}

#[test]
fn a_proxy_that_cannot_be_reached_is_named_without_its_password() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = Some(format!("http://me:secret@{gone}"));
    for (scheme, proxy) in [
        ("http", Proxy { http: url.clone(), ..Proxy::default() }),
        ("https", Proxy { https: url.clone(), ..Proxy::default() }),
    ] {
        let mut otlp = Otlp::new(Protocol::HttpProtobuf, format!("{scheme}://localhost:1/v1/traces"));
        otlp.proxy = proxy;
        let said = complaint(otlp);
        assert!(said.contains(&format!("(the proxy {gone}: connection refused)")), "{said}");
        assert!(!said.contains("secret"), "{said}");
    }
}

#[test]
fn a_receiver_without_tls_is_told_from_one_with_a_bad_certificate() {
    for (answer, says) in [
        (
            &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
            "the receiver answers without it: is it an http: endpoint?",
        ),
        (&[], "the receiver hung up in the handshake"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let _ = stream.read(&mut [0; 16 * 1024]);
                let _ = stream.write_all(answer);
            }
        });
        let said = complaint(Otlp::new(Protocol::HttpProtobuf, format!("https://{address}/v1/traces")));
        assert!(said.contains(&format!("(TLS: {says})")), "{said}");
    }
}

#[test]
fn nothing_that_a_proxy_writes_is_repeated() {
    let (proxy, _asked) = proxy_saying("HTTP/1.1 \x1b[31mFAKE\n\x07 x\r\n\r\n");
    let mut otlp = Otlp::new(Protocol::HttpProtobuf, "https://127.0.0.1:1/v1/traces");
    otlp.proxy = Proxy { https: Some(proxy), ..Proxy::default() };
    let said = complaint(otlp);
    assert!(said.contains("(the proxy answered garbage)"), "{said:?}");
}

#[test]
fn a_proxy_that_is_not_spoken_to_is_one_line_and_spans_go_without_it() {
    let collector = Collector::start(|_| Reply::Ok);
    let mut otlp = Otlp::new(Protocol::HttpProtobuf, collector.url());
    otlp.proxy = Proxy { http: Some("socks5://me:secret@127.0.0.1:1".into()), ..Proxy::default() };
    let under = Under::test(otlp, |_| {});
    under.finish(10);
    assert!(under.pipeline.flush(Duration::from_secs(10)), "{:?}", under.lines());
    assert_eq!(
        under.lines(),
        ["the proxy of http_proxy, https_proxy or all_proxy is no http: URL: spans go without it"]
    );
}

#[test]
fn headers_that_frame_a_message_are_left_out_and_said() {
    let collector = Collector::start(|_| Reply::Ok);
    let mut otlp = Otlp::new(Protocol::HttpProtobuf, collector.url());
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    otlp.headers =
        vec![header("Transfer-Encoding", "chunked"), header("content-length", "3"), header("x", "y")];
    let under = Under::test(otlp, |_| {});
    under.finish(10);
    assert!(under.pipeline.flush(Duration::from_secs(10)), "{:?}", under.lines());
    assert_eq!((collector.requests(), collector.spans()), (1, 10));
    let line =
        |name| format!("OTEL_EXPORTER_OTLP_HEADERS: {name} is left out: it is for the connection to say");
    assert_eq!(under.lines(), [line("transfer-encoding"), line("content-length")]);
}

#[test]
fn a_name_that_does_not_resolve_is_said() {
    let said = complaint(Otlp::new(Protocol::HttpProtobuf, "http://collector.invalid:4318/v1/traces"));
    assert!(said.contains("cannot resolve collector.invalid"), "{said}");
}

#[test]
fn a_probe_tries_every_exporter_for_real() {
    let collector = Collector::start(|_| Reply::Ok);
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let exporters = vec![
        Exporter::Otlp(Box::new(Otlp::new(Protocol::HttpProtobuf, collector.url()))),
        Exporter::Otlp(Box::new(Otlp::new(Protocol::Grpc, format!("http://me:secret@{refused}")))),
        Exporter::File("/nowhere/x.jsonl".into()),
        Exporter::Console,
    ];
    global::init(ExporterConfig::new(exporters));
    let results = global::probe(Duration::from_secs(5));
    let found: Vec<(bool, &str)> = results.iter().map(|result| (result.ok, result.detail.as_str())).collect();
    assert_eq!(
        found,
        [
            (true, "accepts spans"),
            (false, "connection refused"),
            (false, "cannot write /nowhere/x.jsonl: No such file or directory"),
            (true, "writes to stderr"),
        ]
    );
    assert_eq!(results[1].endpoint, format!("http://{refused}"));
    assert_eq!((collector.requests(), collector.spans()), (1, 0));
}
