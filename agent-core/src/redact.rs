//! What of a URL may leave the process, and what host and port it names.
//!
//! One pass over the text, any text: nothing here panics, and nothing is compiled or looked up.
//! <https://opentelemetry.io/docs/specs/semconv/registry/attributes/url/>

/// What stands in place of a secret.
const REDACTED: &[u8] = b"REDACTED";

/// Query parameters that the semantic conventions name as credentials; compared as they are written there.
pub const SENSITIVE_QUERY_KEYS: [&str; 7] = [
    "AWSAccessKeyId",
    "Signature",
    "X-Amz-Credential",
    "X-Amz-Security-Token",
    "X-Amz-Signature",
    "X-Goog-Signature",
    "sig",
];

/// Appends `url` as `url.full` may have it: user and password, where there are any, as
/// `REDACTED:REDACTED@`, and the value of each sensitive query parameter as `REDACTED`.
pub fn url_full(url: &str, out: &mut Vec<u8>) {
    let bytes = url.as_bytes();
    if let Some(plain) = Plain::of(bytes) {
        out.extend_from_slice(&bytes[..plain.end]);
        return url_target(&bytes[plain.end..], out);
    }
    out.reserve(bytes.len());
    let start = authority_start(bytes);
    let end = start + find(&bytes[start..], |byte| matches!(byte, b'/' | b'?' | b'#' | b'\\'));
    out.extend_from_slice(&bytes[..start]);
    let authority = match memchr::memrchr(b'@', &bytes[start..end]) {
        Some(at) => {
            out.extend_from_slice(b"REDACTED:REDACTED@");
            &bytes[start + at + 1..end]
        }
        None => &bytes[start..end],
    };
    out.extend_from_slice(authority);
    url_target(&bytes[end..], out);
}

/// Appends what follows the authority, path and query, with the values of the sensitive keys redacted.
pub fn url_target(target: &[u8], out: &mut Vec<u8>) {
    match memchr::memchr(b'?', target) {
        Some(mark) => {
            let (path, query) = target.split_at(mark + 1);
            out.extend_from_slice(path);
            url_query(query, out);
        }
        None => out.extend_from_slice(target),
    }
}

/// Where the authority of a URL lies that is written as nearly all are: `http://name` or `https://name`, perhaps a
/// port, then a path or nothing. What has anything else in it is read with more care.
struct Plain {
    start: usize,
    host_end: usize,
    port: Option<u16>,
    end: usize,
}

impl Plain {
    #[inline]
    fn of(url: &[u8]) -> Option<Self> {
        let start = if url.starts_with(b"http://") { 7 } else { 8 };
        if start == 8 && !url.starts_with(b"https://") {
            return None;
        }
        let mut at = start;
        while let Some(b'a'..=b'z' | b'0'..=b'9' | b'A'..=b'Z' | b'.' | b'-' | b'_') = url.get(at) {
            at += 1;
        }
        let host_end = at;
        let mut port = None;
        if url.get(at) == Some(&b':') {
            let mut number = 0_u32;
            at += 1;
            // More digits than these are no port, or not written as one.
            let most = at + 5;
            while let Some(digit @ b'0'..=b'9') = url.get(at).filter(|_| at < most) {
                number = number * 10 + u32::from(digit - b'0');
                at += 1;
            }
            port = Some(u16::try_from(number).ok()?);
            if at == host_end + 1 {
                return None;
            }
        }
        let ends = matches!(url.get(at), None | Some(b'/'));
        (ends && host_end > start).then_some(Self { start, host_end, port, end: at })
    }
}

/// Appends a query, without its `?`, with the values of the sensitive keys redacted. A fragment may follow.
pub fn url_query(query: &[u8], out: &mut Vec<u8>) {
    let mut rest = query;
    loop {
        let end = find(rest, |byte| matches!(byte, b'&' | b';' | b'#'));
        let more = match memchr::memchr(b'=', &rest[..end]) {
            Some(equals) if is_sensitive(&rest[..equals]) => {
                out.extend_from_slice(&rest[..=equals]);
                out.extend_from_slice(REDACTED);
                // A `;` may be part of the secret.
                &rest[end + find(&rest[end..], |byte| matches!(byte, b'&' | b'#'))..]
            }
            _ => {
                out.extend_from_slice(&rest[..end]);
                &rest[end..]
            }
        };
        match more {
            [mark @ (b'&' | b';'), after @ ..] => {
                out.push(*mark);
                rest = after;
            }
            _ => return out.extend_from_slice(more),
        }
    }
}

fn is_sensitive(key: &[u8]) -> bool {
    SENSITIVE_QUERY_KEYS.iter().any(|sensitive| sensitive.as_bytes() == key)
}

/// Where the authority begins: after the first `//`, if nothing or a scheme is before it. Zero: there is none.
/// What stands before the colon is not judged, as clients strip blanks that a stricter reading would trip over.
fn authority_start(url: &[u8]) -> usize {
    let first = find(url, |byte| matches!(byte, b'/' | b'?' | b'#'));
    let follows_scheme = first == 0 || url[first - 1] == b':';
    if follows_scheme && url[first..].starts_with(b"//") { first + 2 } else { 0 }
}

fn find(bytes: &[u8], stop: impl Fn(u8) -> bool) -> usize {
    bytes.iter().position(|byte| stop(*byte)).unwrap_or(bytes.len())
}

/// An exporter's endpoint as it may be shown: no credentials, no query, whatever its form. The last `@` ends the
/// credentials wherever it stands, as a password may hold what ends an authority.
pub fn endpoint(text: &str) -> String {
    let is_of_scheme = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    let scheme = text.find("://").filter(|colon| text[..*colon].bytes().all(is_of_scheme));
    let start = scheme.map_or(0, |colon| colon + 3);
    let (credentials, rest) = match text[start..].rsplit_once('@') {
        Some((_, rest)) => ("REDACTED@", rest),
        None => ("", &text[start..]),
    };
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    let query = if end < rest.len() { "?REDACTED" } else { "" };
    format!("{}{credentials}{}{query}", &text[..start], &rest[..end])
}

/// Host and port of an authority without its user part: `host`, `host:80`, `[::1]:80`, a bare IPv6 address. The
/// brackets are not part of the host. A port that is none (`:`, `:x`, above 65535) is `None`.
pub fn split_host_port(authority: &str) -> (&str, Option<u16>) {
    if let Some(inner) = authority.strip_prefix('[') {
        return match inner.split_once(']') {
            Some((host, rest)) => (host, rest.strip_prefix(':').and_then(port)),
            None => (inner, None),
        };
    }
    match authority.split_once(':') {
        // More than one colon: an address, no port.
        Some((_, rest)) if rest.contains(':') => (authority, None),
        Some((host, rest)) => (host, port(rest)),
        None => (authority, None),
    }
}

fn port(digits: &str) -> Option<u16> {
    if digits.bytes().all(|digit| digit.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// The port that a scheme implies.
pub fn default_port(scheme: &str) -> Option<u16> {
    let is = |name: &str| scheme.eq_ignore_ascii_case(name);
    if is("http") || is("ws") {
        Some(80)
    } else if is("https") || is("wss") {
        Some(443)
    } else {
        None
    }
}

/// What a URL is made of, as far as it says so. User and password are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UrlParts<'a> {
    /// `http`, or empty.
    pub scheme: &'a str,
    /// Without brackets; empty where the URL names none.
    pub host: &'a str,
    /// As written, else the scheme's.
    pub port: Option<u16>,
    /// From the `/` on, possibly empty.
    pub path: &'a str,
    /// After the `?`, without a fragment.
    pub query: &'a str,
}

/// What stands before the `?`, and what after it, without a fragment.
fn path_and_query(rest: &str) -> (&str, &str) {
    let bytes = rest.as_bytes();
    let end = memchr::memchr(b'#', bytes).unwrap_or(bytes.len());
    match memchr::memchr(b'?', &bytes[..end]) {
        Some(mark) => (&rest[..mark], &rest[mark + 1..end]),
        None => (&rest[..end], ""),
    }
}

/// Takes a URL apart; any text has parts.
pub fn split_url(url: &str) -> UrlParts<'_> {
    if let Some(plain) = Plain::of(url.as_bytes()) {
        let scheme = &url[..plain.start - 3];
        let (path, query) = path_and_query(&url[plain.end..]);
        let port = plain.port.or(Some(if plain.start == 7 { 80 } else { 443 }));
        return UrlParts { scheme, host: &url[plain.start..plain.host_end], port, path, query };
    }
    let start = authority_start(url.as_bytes());
    let scheme = url[..start].strip_suffix("://").unwrap_or_default();
    let (rest, query) = path_and_query(&url[start..]);
    let slash = rest.find(['/', '\\']).unwrap_or(rest.len());
    // Without an authority everything is path.
    let (authority, path) = rest.split_at(if start == 0 { 0 } else { slash });
    let authority = authority.rsplit_once('@').map_or(authority, |(_, authority)| authority);
    let (host, port) = split_host_port(authority);
    UrlParts { scheme, host, port: port.or_else(|| default_port(scheme)), path, query }
}
