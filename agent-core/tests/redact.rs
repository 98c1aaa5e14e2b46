//! No credential of a URL leaves the process, and any text is survived.

use agent_core::redact::{SENSITIVE_QUERY_KEYS, UrlParts, endpoint, split_host_port, split_url, url_full};
use proptest::prelude::*;

fn full(url: &str) -> String {
    let mut out = Vec::new();
    url_full(url, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

#[test]
fn credentials_are_redacted() {
    for (url, expected) in [
        ("http://u:p@h/x", "http://REDACTED:REDACTED@h/x"),
        ("http://u@h", "http://REDACTED:REDACTED@h"),
        ("http://u:p@s@h:80/@me", "http://REDACTED:REDACTED@h:80/@me"),
        ("//u:p@h/x", "//REDACTED:REDACTED@h/x"),
        ("  http://u:p@h/x", "  http://REDACTED:REDACTED@h/x"),
        ("u:p@h/x", "REDACTED:REDACTED@h/x"),
        ("https://[::1]:8443/x?a=1#f", "https://[::1]:8443/x?a=1#f"),
        ("http://h/?sig=abc&a=1", "http://h/?sig=REDACTED&a=1"),
        ("http://h/?a=1&Signature=x;y&sig=#sig=2", "http://h/?a=1&Signature=REDACTED&sig=REDACTED#sig=2"),
        ("http://h/?a=1;sig=x", "http://h/?a=1;sig=REDACTED"),
        ("http://h/?signal=1&sig", "http://h/?signal=1&sig"),
        ("/path?X-Amz-Signature=1", "/path?X-Amz-Signature=REDACTED"),
        ("http://h/a?b?sig=1", "http://h/a?b?sig=1"),
        ("/@me", "/@me"),
        ("", ""),
        ("?", "?"),
    ] {
        assert_eq!(full(url), expected, "{url:?}");
    }
}

#[test]
fn endpoints_are_shown_without_secrets() {
    assert_eq!(endpoint("http://u:p@h:4318/v1?token=x"), "http://REDACTED@h:4318/v1?REDACTED");
    assert_eq!(endpoint("u:p@h:4317"), "REDACTED@h:4317");
    assert_eq!(endpoint("http://h:4318"), "http://h:4318");
    for password in ["s3c/r3t", "s3cr3t#x", "s3cr3t?x", "12345#abc", "p@s3cr3t", "s3c://r3t", "s\\3"] {
        assert_eq!(endpoint(&format!("http://user:{password}@h:1/x")), "http://REDACTED@h:1/x");
        assert_eq!(endpoint(&format!("user:{password}@h:1?k=v#f")), "REDACTED@h:1?REDACTED");
    }
}

#[test]
fn host_and_port_are_split() {
    for (authority, expected) in [
        ("h", ("h", None)),
        ("h:80", ("h", Some(80))),
        ("h:", ("h", None)),
        ("h:x", ("h", None)),
        ("h:99999", ("h", None)),
        ("h:+1", ("h", None)),
        ("[::1]", ("::1", None)),
        ("[::1]:443", ("::1", Some(443))),
        ("[::1", ("::1", None)),
        ("::1", ("::1", None)),
        ("", ("", None)),
        (":80", ("", Some(80))),
    ] {
        assert_eq!(split_host_port(authority), expected, "{authority:?}");
    }
}

#[test]
fn urls_are_taken_apart() {
    let parts = split_url("https://u:p@[::1]/a/b?c=d#e");
    let expected = UrlParts { scheme: "https", host: "::1", port: Some(443), path: "/a/b", query: "c=d" };
    assert_eq!(parts, expected);
    assert_eq!(split_url("http://h:8080").port, Some(8080));
    assert_eq!(split_url("/only/path?q").path, "/only/path");
    assert_eq!(split_url("ws://h").port, Some(80));
    assert_eq!(split_url("ftp://h").port, None);
}

proptest! {
    #[test]
    fn any_text_is_survived(url: String) {
        let once = full(&url);
        prop_assert_eq!(full(&once), once);
        let _ = (split_url(&url), split_host_port(&url), endpoint(&url));
    }

    #[test]
    fn nothing_but_the_secrets_changes(host in "[a-z.]{1,10}", path in "(/[a-z@:]{0,5}){0,3}", query in "([a-z]{1,2}=[a-z;?]{0,4}&?){0,4}") {
        let url = format!("http://{host}{path}?{query}");
        prop_assert_eq!(full(&url), url);
    }

    // A scheme in capitals is read the careful way.
    #[test]
    fn the_quick_way_reads_what_the_careful_one_does(scheme in "https?", rest in "[a-zA-Z0-9.:/?#@%\\[\\]\\\\_-]{0,24}") {
        let (quick, careful) = (format!("{scheme}://{rest}"), format!("{}://{rest}", scheme.to_uppercase()));
        let (a, b) = (split_url(&quick), split_url(&careful));
        prop_assert_eq!((a.host, a.port, a.path, a.query), (b.host, b.port, b.path, b.query));
        prop_assert_eq!(&full(&quick)[scheme.len()..], &full(&careful)[scheme.len()..]);
    }

    #[test]
    fn no_secret_survives(key in 0..SENSITIVE_QUERY_KEYS.len(), before in "([a-z]=[a-z]{0,3}&){0,3}") {
        let url = format!("https://user:s3cr3t@host/path?{before}{}=s3cr3t&z=1#f", SENSITIVE_QUERY_KEYS[key]);
        let safe = full(&url);
        prop_assert!(!safe.contains("s3cr3t") && safe.ends_with("&z=1#f"), "{}", safe);
    }
}
