//! The OTLP endpoint: which variable, which default, what is appended.

use super::env::Reader;
use super::table::row;
use super::{Protocol, parse};
use crate::redact::split_host_port;

/// The endpoint for traces and, where its URL held credentials, the value of an `authorization` header.
pub(super) fn resolve(reader: &mut Reader<'_>, protocol: Protocol) -> (String, Option<String>) {
    let default = if protocol == Protocol::Grpc { "http://localhost:4317" } else { "http://localhost:4318" };
    let general = read(reader, row::OTEL_EXPORTER_OTLP_ENDPOINT, protocol, default);
    if general.is_none() {
        reader.in_force(row::OTEL_EXPORTER_OTLP_ENDPOINT, default);
    }
    let base = general.unwrap_or_else(|| default.to_owned());
    let base = if protocol == Protocol::Grpc { base } else { with_signal_path(&base, "/v1/traces") };
    let own = read(reader, row::OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, protocol, &base);
    take_credentials(own.unwrap_or(base))
}

fn read(reader: &mut Reader<'_>, index: usize, protocol: Protocol, fallback: &str) -> Option<String> {
    let text = reader.text(index)?.into_owned();
    match fault(&text, protocol) {
        None => Some(text),
        Some(why) => {
            reader.reject(index, &text, why, &crate::redact::endpoint(fallback));
            None
        }
    }
}

/// Why this is no endpoint.
fn fault(text: &str, protocol: Protocol) -> Option<&'static str> {
    if text.bytes().any(|byte| byte.is_ascii_control() || byte == b' ') {
        return Some("has a blank or control character in it");
    }
    let rest = match (scheme(text), protocol) {
        (Some(("unix", path)), _) if path.trim_start_matches('/').is_empty() => {
            return Some("names no socket");
        }
        (Some(("unix", _)), _) => return None,
        (Some(("http" | "https", rest)), _) => rest,
        (Some(_), _) => return Some("is not an http, https or unix URL"),
        (None, Protocol::Grpc) => text,
        (None, _) => return Some("has no scheme (http://, https:// or unix:)"),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit('@').next().unwrap_or_default();
    let (host, port) = split_host_port(authority);
    let whole = authority.len() == host.len() || authority == format!("[{host}]");
    match port {
        _ if host.is_empty() => Some("names no host"),
        Some(0) => Some("has no usable port"),
        None if !whole => Some("has no usable port"),
        _ => None,
    }
}

/// `unix:/path`, or `scheme://rest`. `host:4317` has no scheme.
fn scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    match (scheme, rest.strip_prefix("//")) {
        ("unix", _) => Some((scheme, rest)),
        (_, Some(rest)) => Some((scheme, rest)),
        _ => None,
    }
}

/// The general form gets the signal's path after its own; a socket gets it from the transport.
fn with_signal_path(base: &str, path: &str) -> String {
    if base.starts_with("unix:") {
        return base.to_owned();
    }
    let end = base.find(['?', '#']).unwrap_or(base.len());
    let (base, query) = base.split_at(end);
    let query = query.split('#').next().unwrap_or_default();
    format!("{}{path}{query}", base.trim_end_matches('/'))
}

fn take_credentials(endpoint: String) -> (String, Option<String>) {
    let Some(start) = endpoint.find("://").map(|colon| colon + 3) else { return (endpoint, None) };
    let end = endpoint[start..].find(['/', '?', '#']).map_or(endpoint.len(), |length| start + length);
    let Some(at) = endpoint[start..end].rfind('@').map(|length| start + length) else {
        return (endpoint, None);
    };
    let user = parse::percent_decode(&endpoint[start..at]).unwrap_or_default();
    let user = if user.contains(':') { user } else { user + ":" };
    let bare = format!("{}{}", &endpoint[..start], &endpoint[at + 1..]);
    (bare, Some(format!("Basic {}", parse::base64(user.as_bytes()))))
}

/// Whether this may be sent as a header: a token, and a value that cannot end its line.
pub(super) fn is_header(name: &str, value: &str) -> bool {
    let token = |byte: u8| {
        byte.is_ascii_graphic()
            && !matches!(byte, b'"' | b'(' | b')' | b',' | b'/' | b':'..=b'@' | b'['..=b']' | b'{' | b'}')
    };
    name.bytes().all(token) && value.bytes().all(|byte| matches!(byte, b'\t' | 0x20..=0x7e | 0x80..))
}
