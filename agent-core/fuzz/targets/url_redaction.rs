#![no_main]

use agent_core::redact::{url_full, url_query};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (mut once, mut twice, mut query) = (Vec::new(), Vec::new(), Vec::new());
    url_full(text, &mut once);
    let once = String::from_utf8(once).unwrap();
    url_full(&once, &mut twice);
    assert_eq!(once.as_bytes(), twice);
    // A marker that the fuzzer learns to put where credentials lie.
    let secret = format!("https://user{}:s3cr3t@example.com/{text}", text.replace(['/', '?', '#', '\\'], ""));
    let mut redacted = Vec::new();
    url_full(&secret, &mut redacted);
    assert!(redacted.starts_with(b"https://REDACTED:REDACTED@example.com"));
    url_query(text.as_bytes(), &mut query);
});
