//! The statement cache: same answers, bounded, shared by threads.

use std::sync::Arc;

use agent_core::sql::{Dialect, MAX_STATEMENT_BYTES, StatementCache, analyze};

#[test]
fn a_statement_is_analysed_once_per_dialect() {
    let cache = StatementCache::default();
    let text = "SELECT \"a\" FROM t WHERE b = \"c\"";
    let first = cache.get(text, Dialect::PostgreSql, usize::MAX);
    let equal = text.to_owned();
    assert!(Arc::ptr_eq(&first, &cache.get(&equal, Dialect::PostgreSql, usize::MAX)));
    let other = cache.get(text, Dialect::MySql, usize::MAX);
    assert_eq!(*other.sanitized, *"SELECT ? FROM t WHERE b = ?");
    assert_eq!(*first.sanitized, *text);
    assert_eq!(cache.held().0, 2);
}

#[test]
fn a_full_cache_stays_within_count_and_bytes() {
    let cache = StatementCache::new(64, 64 * 1024);
    let hot = "SELECT hot FROM t";
    for i in 0..5000 {
        let text = format!("SELECT column_{i} FROM t WHERE a = {i} {}", "AND b = c ".repeat(i % 80));
        let analysis = cache.get(&text, Dialect::Generic, usize::MAX);
        assert_eq!(*analysis, analyze(&text, Dialect::Generic));
        cache.get(hot, Dialect::Generic, usize::MAX);
        let (count, bytes) = cache.held();
        assert!(count <= 64 && bytes <= 64 * 1024, "{count} statements, {bytes} bytes");
    }
    assert!(cache.held().0 > 0);
}

#[test]
fn a_long_statement_is_cut_and_not_kept() {
    let cache = StatementCache::default();
    let text = format!("SELECT a FROM t WHERE b = 'secret' {}", "AND c = 1 ".repeat(MAX_STATEMENT_BYTES));
    let analysis = cache.get(&text, Dialect::Generic, 40);
    assert_eq!(*analysis.sanitized, *"SELECT a FROM t WHERE b = ? AND");
    assert_eq!(*analysis.summary, *"SELECT t");
    let whole = cache.get(&text, Dialect::Generic, usize::MAX);
    assert!(whole.sanitized.len() > MAX_STATEMENT_BYTES);
    assert_eq!(cache.held(), (0, 0));
    assert_eq!(*cache.get("SELECT a FROM some_table_name", Dialect::Generic, 20).summary, *"SELECT");
    assert_eq!(*cache.get("SELECT ääää", Dialect::Generic, 8).sanitized, *"SELECT");
}

#[test]
fn a_cache_without_room_still_answers() {
    for cache in [StatementCache::new(0, 1 << 20), StatementCache::new(1024, 0)] {
        assert_eq!(*cache.get("SELECT 1", Dialect::Generic, usize::MAX).sanitized, *"SELECT ?");
        assert_eq!(cache.held(), (0, 0));
    }
}

#[test]
fn threads_get_the_answers_of_one() {
    let cache = StatementCache::new(32, 1 << 20);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for i in 0..4000 {
                    let text = format!("SELECT a FROM t_{} WHERE b = {i}", i % 50);
                    let analysis = cache.get(&text, Dialect::Sqlite, usize::MAX);
                    assert_eq!(*analysis.summary, format!("SELECT t_{}", i % 50));
                }
            });
        }
    });
    assert!(cache.held().0 <= 32);
}
