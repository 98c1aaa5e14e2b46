#![no_main]

use agent_core::sql::{Dialect, MAX_SUMMARY_CHARS, analyze, analyze_limited};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    for dialect in
        [Dialect::Generic, Dialect::PostgreSql, Dialect::MySql, Dialect::Sqlite, Dialect::GoogleSql]
    {
        let once = analyze(&text, dialect);
        assert!(once.sanitized.len() <= text.len());
        assert!(once.summary.chars().count() <= MAX_SUMMARY_CHARS);
        let twice = analyze(&once.sanitized, dialect);
        assert_eq!(once.sanitized, twice.sanitized);
        analyze_limited(&text, dialect, bytes.len() / 2);
    }
});
