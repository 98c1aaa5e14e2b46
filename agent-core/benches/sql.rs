//! The lexer by shape of statement, and the cache beside it.

use agent_core::sql::{Dialect, StatementCache, analyze, sanitize, summary};
use divan::counter::BytesCount;
use divan::{Bencher, black_box};

const SHORT: &str = "SELECT id, name, created_at FROM users WHERE id = 12345 AND status = 'active' LI";
const ORM: &str = r#"SELECT "auth_user"."id", "auth_user"."password", "auth_user"."last_login", "auth_user"."is_superuser", "auth_user"."username", "auth_user"."first_name" FROM "auth_user" INNER JOIN "shop_order" ON ("auth_user"."id" = "shop_order"."user_id") WHERE ("auth_user"."username" = 'alice@example.com' AND "shop_order"."id" IN (1, 2, 3, 4, 5, 6, 7, 8)) ORDER BY "auth_user"."id" DESC LIMIT 21"#;
const PARAMETERS: &str = "UPDATE accounts SET balance = balance - %s, updated_at = NOW() WHERE account_id = %s AND version = %s RETURNING account_id, balance, version, updated_at";

fn rows() -> String {
    let row =
        "(1042, 'Some product name of usual length', 'a longer description, with words', 19.99, NULL, TRUE)";
    format!(
        "INSERT INTO products (id, name, description, price, parent, active) VALUES {}",
        vec![row; 100].join(", ")
    )
}

fn statements() -> [(&'static str, String); 4] {
    [("short", SHORT.into()), ("orm", ORM.into()), ("parameters", PARAMETERS.into()), ("rows", rows())]
}

#[divan::bench(args = [0, 1, 2, 3])]
fn sanitizes(bencher: Bencher, statement: usize) {
    let (_, text) = &statements()[statement];
    let mut out = String::with_capacity(text.len());
    bencher.counter(BytesCount::of_str(text)).bench_local(|| {
        out.clear();
        sanitize(black_box(text), Dialect::PostgreSql, &mut out);
        black_box(out.len())
    });
}

#[divan::bench(args = [0, 1, 2, 3])]
fn summarises(bencher: Bencher, statement: usize) {
    let (_, text) = &statements()[statement];
    let mut out = String::with_capacity(256);
    bencher.counter(BytesCount::of_str(text)).bench_local(|| {
        out.clear();
        summary(black_box(text), Dialect::PostgreSql, &mut out);
        black_box(out.len())
    });
}

#[divan::bench(args = [0, 1, 2, 3])]
fn analyses(bencher: Bencher, statement: usize) {
    let (_, text) = &statements()[statement];
    bencher.counter(BytesCount::of_str(text)).bench_local(|| analyze(black_box(text), Dialect::PostgreSql));
}

#[divan::bench(args = [0, 1, 2, 3], sample_size = 1000)]
fn cache_hits(bencher: Bencher, statement: usize) {
    let cache = StatementCache::default();
    let (_, text) = &statements()[statement];
    bencher.bench_local(|| cache.get(black_box(text), Dialect::PostgreSql, usize::MAX));
}

fn main() {
    divan::main();
}
