//! TLS: rustls with ring, behind one function. Files are read on the exporter thread at the first connection.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::config::{Otlp, Protocol};
use crate::request::{Failure, io_text};

fn wrong(variable: &str, path: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::Setting(format!("{variable}: {}: {why}", path.display()))
}

fn certificates(variable: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let pem = std::fs::read(path).map_err(|error| wrong(variable, path, io_text(&error)))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.map_err(|_| wrong(variable, path, "not a PEM file"))?;
    if certificates.is_empty() {
        return Err(wrong(variable, path, "holds no certificate"));
    }
    Ok(certificates)
}

/// A CA file wins; else the system's roots; where there are none, those that we carry.
fn roots(otlp: &Otlp) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &otlp.ca_file {
        let variable = otlp.variables.certificate;
        for certificate in certificates(variable, path)? {
            roots.add(certificate).map_err(|_| wrong(variable, path, "holds no usable certificate"))?;
        }
        return Ok(roots);
    }
    // Bad entries in the system's bundle are passed over, as everywhere.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Ok(roots)
}

/// The client's side of every TLS connection to `otlp`.
pub(super) fn client(otlp: &Otlp) -> Result<Arc<ClientConfig>, Failure> {
    let (of_cert, of_key) = (otlp.variables.client_certificate, otlp.variables.client_key);
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::Connect(error.to_string()))?
        .with_root_certificates(roots(otlp)?);
    let mut config = match (&otlp.client_cert, &otlp.client_key) {
        (Some(cert), Some(key)) => {
            let chain = certificates(of_cert, cert)?;
            let pem = std::fs::read(key).map_err(|error| wrong(of_key, key, io_text(&error)))?;
            let private = PrivateKeyDer::from_pem_slice(&pem)
                .map_err(|_| wrong(of_key, key, "holds no private key"))?;
            builder
                .with_client_auth_cert(chain, private)
                .map_err(|error| wrong(of_key, key, format!("does not fit the certificate ({error})")))?
        }
        (Some(_), None) => {
            return Err(Failure::Setting(format!("{of_cert} is set and {of_key} is not")));
        }
        (None, Some(_)) => {
            return Err(Failure::Setting(format!("{of_key} is set and {of_cert} is not")));
        }
        (None, None) => builder.with_no_client_auth(),
    };
    config.alpn_protocols = match otlp.protocol {
        Protocol::Grpc => vec![b"h2".to_vec()],
        _ => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
    };
    Ok(Arc::new(config))
}
