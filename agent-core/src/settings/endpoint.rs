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
        None => Some(with_small_scheme(text)),
        Some(why) => {
            reader.reject(index, &text, why, &crate::redact::endpoint(fallback));
            None
        }
    }
}

/// Why this is no endpoint. What passes here can be parsed by the exporter, and holds no credentials but where they
/// belong.
fn fault(text: &str, protocol: Protocol) -> Option<&'static str> {
    const MOST: usize = 32 << 10;
    if text.len() > MOST {
        return Some("is too long");
    }
    if text.bytes().any(|byte| byte.is_ascii_control()) {
        return Some("has a control character in it");
    }
    let is = |scheme: &str, name: &str| scheme.eq_ignore_ascii_case(name);
    let rest = match scheme(text) {
        Some((scheme, path)) if is(scheme, "unix") => {
            return path.trim_start_matches('/').is_empty().then_some("names no socket");
        }
        Some((scheme, rest)) if is(scheme, "http") || is(scheme, "https") => rest,
        Some(_) => return Some("is not an http, https or unix URL"),
        None if protocol == Protocol::Grpc => text,
        None => return Some("has no scheme (http://, https:// or unix:), without which only grpc can do"),
    };
    if text.contains(' ') {
        return Some("has a blank in it");
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    // Most likely a password that ends the authority too early.
    if path.contains('@') {
        return Some("has an @ behind its host (%2F, %3F, %23 and %40 stand for /, ?, # and @)");
    }
    if path.contains(['"', '<', '>', '`']) {
        return Some("has a quotation mark or angle bracket in its path (written %22, %3C, %3E, %60)");
    }
    authority_fault(authority.rsplit('@').next().unwrap_or_default())
}

/// Of `host`, `host:port`, `[address]` or `[address]:port`.
fn authority_fault(authority: &str) -> Option<&'static str> {
    let (host, port) = split_host_port(authority);
    let whole = authority.len() == host.len() || authority == format!("[{host}]");
    match port {
        _ if host.is_empty() => Some("names no host"),
        _ if authority.starts_with('[') && !is_address(host) => Some("has no IPv6 address in its brackets"),
        _ if !authority.starts_with('[') && host.contains(':') => {
            Some("has more than one colon in its host (an IPv6 address stands in brackets)")
        }
        _ if !authority.starts_with('[') && !host.bytes().all(is_of_name) => {
            Some("has a character in its host that no host has")
        }
        Some(0) => Some("has no usable port"),
        None if !whole => Some("has no usable port"),
        _ => None,
    }
}

/// An IPv6 address, perhaps with a zone: `fe80::1%eth0`.
fn is_address(host: &str) -> bool {
    let (address, zone) = host.split_once('%').unwrap_or((host, "0"));
    address.parse::<std::net::Ipv6Addr>().is_ok() && !zone.is_empty() && zone.bytes().all(is_of_name)
}

/// Unreserved characters and sub-delimiters of RFC 3986.
fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._~-!$&'()*+,;=".contains(&byte)
}

/// `unix:/path`, or `scheme://rest`. `host:4317` has no scheme.
fn scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    match rest.strip_prefix("//") {
        _ if scheme.eq_ignore_ascii_case("unix") => Some((scheme, rest)),
        Some(rest) => Some((scheme, rest)),
        None => None,
    }
}

/// A scheme may be written in either case.
fn with_small_scheme(mut text: String) -> String {
    if let Some(length) = scheme(&text).map(|(scheme, _)| scheme.len()) {
        text[..length].make_ascii_lowercase();
    }
    text
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
    if endpoint.starts_with("unix:") {
        return (endpoint, None);
    }
    let start = endpoint.find("://").map_or(0, |colon| colon + 3);
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
