//! What holds for any text.
//!
//! 256 texts for each property; `PROPTEST_CASES=20000 cargo test -p agent-core --test sql_properties --release` is
//! the slow profile, for nights.

use agent_core::sql::{Dialect, MAX_SUMMARY_CHARS, analyze, analyze_limited};
use proptest::prelude::*;

const DIALECTS: [Dialect; 5] =
    [Dialect::Generic, Dialect::PostgreSql, Dialect::MySql, Dialect::Sqlite, Dialect::GoogleSql];
/// In no keyword, and of letters and digits, so that it could pass for a name.
const MARKER: &str = "zq9zq";

fn dialect() -> impl Strategy<Value = Dialect> {
    prop::sample::select(&DIALECTS[..])
}

/// Pieces that matter to the lexer, in any order.
fn soup() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "'",
            "\"",
            "`",
            "[",
            "]",
            "$",
            "$$",
            "$a$",
            "\\",
            "--",
            "/*",
            "*/",
            "/*!50001",
            "/*M!",
            "//",
            "\r",
            "]]",
            "[a",
            "\"\"\"",
            "\"a\"",
            "'\\\\'",
            "£1",
            "#",
            "\n",
            " ",
            ";",
            ",",
            "(",
            ")",
            "{",
            "}",
            "?",
            "?1",
            "$1",
            ":a",
            ":1",
            "::",
            "@a",
            "@@b",
            "%s",
            "%(a)s",
            "%",
            ".",
            "-",
            "+",
            "1",
            "0x1F",
            "1.5e-3",
            "1e",
            ".5",
            "E'",
            "N'",
            "U&'",
            "q'[",
            "nq'",
            "x''",
            "''",
            "a",
            "b1",
            "é",
            "=",
            "<",
            "||",
            "IN",
            "IN (",
            "VALUES",
            "SELECT",
            "FROM",
            "JOIN",
            "WITH",
            "AS",
            "UPDATE",
            "SET",
            "DELETE",
            "INSERT",
            "INTO",
            "USING",
            "CREATE",
            "TABLE",
            "CALL",
            "BEGIN",
            "IDENTIFIED",
            "BY",
            "PASSWORD",
            "REPLACE",
            "ESCAPE",
            "LIKE",
            "DISTINCT",
            "EXPLAIN",
            "TRIGGER",
            "*",
            "BETWEEN",
            "AND",
            "WHERE",
            "ON",
            "NOT",
            "PRAGMA",
            "ATTACH",
            "KEY",
            "USER",
            "EXEC",
            "p",
            "ALL",
            "STRAIGHT_JOIN",
            "FOR",
            "INDEX",
            "f(",
        ])
        .prop_map(str::to_owned),
        "[ -~]{0,4}",
    ];
    let glue = prop::sample::select(vec!["", "", " "]);
    prop::collection::vec((piece, glue), 0..40)
        .prop_map(|pieces| pieces.into_iter().map(|(piece, glue)| piece + glue).collect())
}

/// A literal of the dialect that holds the marker, and nothing of which may be seen.
fn literal(dialect: Dialect) -> BoxedStrategy<String> {
    let text = "[a-z '%_;(){}-]{0,6}"
        .prop_map(move |around| format!("{around}{MARKER}{around}").replace('\'', "''"));
    let plain = text.clone().prop_map(|text| format!("'{text}'"));
    let numbers = "[0-9]{0,3}".prop_map(|digits| format!("1{digits}{MARKER}"));
    let prefixed = (prop::sample::select(vec!["N", "n", "B", "X", "x"]), plain.clone())
        .prop_map(|(p, s)| p.to_owned() + &s);
    let mut all = vec![plain.boxed(), numbers.boxed(), prefixed.boxed()];
    match dialect {
        Dialect::PostgreSql => {
            all.push(text.clone().prop_map(|text| format!("E'\\'{text}\\\\'")).boxed());
            all.push(text.clone().prop_map(|text| format!("$${text}' \" $ $$")).boxed());
            all.push(text.prop_map(|text| format!("$tag$ $$ {text} '$tag$")).boxed());
        }
        Dialect::MySql => {
            all.push(text.clone().prop_map(|text| format!("'\\'{text}\\\\'")).boxed());
            all.push(text.clone().prop_map(|text| format!("\"it's \\\" {text}\"\"\"")).boxed());
            all.push(text.prop_map(|text| format!("_utf8'{text}'")).boxed());
        }
        Dialect::Generic => {
            all.push(text.clone().prop_map(|text| format!("'\\'{text}'")).boxed());
            all.push(text.clone().prop_map(|text| format!("'{text}\\'")).boxed());
            all.push(text.clone().prop_map(|text| format!("q'[it's {text}]'")).boxed());
            all.push(text.prop_map(|text| format!("$${text}' $$")).boxed());
        }
        Dialect::Sqlite => all.push(text.prop_map(|text| format!("'{text}\\'")).boxed()),
        Dialect::GoogleSql => {
            let text = text.prop_map(|text| text.replace('\'', ""));
            all = vec![
                text.clone().prop_map(|text| format!("'\\'{text}\\\\'")).boxed(),
                text.clone().prop_map(|text| format!("\"it's \\\" {text}\"")).boxed(),
                text.clone().prop_map(|text| format!("'''it's {text}'''")).boxed(),
                text.prop_map(|text| format!("r\"\"\"it's \"{text}\"\"\"")).boxed(),
            ];
        }
    }
    prop::strategy::Union::new(all).boxed()
}

/// Statements with `{}` where a value may stand.
const TEMPLATES: &[&str] = &[
    "SELECT {}",
    "SELECT a, {} AS b, c FROM t WHERE d = {} AND e <> {}",
    "SELECT a FROM t WHERE b IN ({}, {},{}) AND c LIKE {} ORDER BY d LIMIT {}",
    "SELECT a FROM t JOIN u ON t.a = u.a AND u.b = {} , v WHERE c BETWEEN {} AND {}",
    "SELECT a FROM t WHERE b IS DISTINCT FROM {} OR f(TRIM({} FROM {})) = 1",
    "SELECT a FROM (SELECT {} FROM t WHERE b = {}) x WHERE c IN (SELECT d FROM u WHERE e = {})",
    "WITH x AS (SELECT {} UNION SELECT {}), y AS (VALUES ({}, {})) SELECT * FROM x, y WHERE z = {}",
    "INSERT INTO t (a, b) VALUES ({}, {}), ({},{})",
    "INSERT INTO t (a) SELECT {} FROM u WHERE b = {} ON CONFLICT DO NOTHING",
    "UPDATE t SET a = {}, b = b || {} WHERE c = {}; DELETE FROM u WHERE d = {}",
    "CALL p({}, {}); EXEC q @a = {}, @b = {}",
    "SET x = {}, y = {}; COPY t FROM {}; CREATE TABLE v (a int DEFAULT {} CHECK (a > {}))",
    "MERGE INTO t USING s ON t.a = {} WHEN MATCHED THEN UPDATE SET b = {}, c = {}",
    "SELECT CASE WHEN a = {} THEN {} ELSE {} END -- it's {{}}\nFROM t /* it's */ WHERE b = {}",
    "{}",
    "SELECT a FROM t WHERE d = {",
];

fn filled() -> impl Strategy<Value = (Dialect, String)> {
    (dialect(), prop::sample::select(TEMPLATES)).prop_flat_map(|(dialect, template)| {
        prop::collection::vec(literal(dialect), 5).prop_map(move |literals| {
            let (template, mut literals) = (template.replace("{{}}", "x"), literals.iter().cycle());
            let mut text = String::new();
            for (i, piece) in template.split("{}").enumerate() {
                text += if i == 0 { "" } else { literals.next().map_or("", String::as_str) };
                text += piece;
            }
            // Never closed.
            (dialect, text.replace("= {", &format!("= '{MARKER} and so on")))
        })
    })
}

/// As [`TEMPLATES`], of places where SQLite takes a text in double quotes for a value.
const QUOTED_VALUES: &[&str] = &[
    "SELECT a FROM t WHERE b = {} AND c <> {} OR d || {} > e",
    "SELECT a FROM t WHERE {} = b AND {} LIKE c OR {} IN (d, e) AND {} || f = g",
    "SELECT a FROM t WHERE b BETWEEN {} AND {} AND c NOT BETWEEN ? AND {}",
    "SELECT a FROM t WHERE (b, c) = ({}, {}) AND d IN ({}, lower({}), (SELECT e), {})",
    "SELECT a FROM t WHERE ({}, {}) = (b, c) AND b = (({})) AND c IS DISTINCT FROM {}",
    "SELECT a FROM t WHERE b = lower(trim({}, {})) AND replace(c, {}, {}) = 1 AND lower({}) = d",
    "SELECT CASE WHEN a = {} THEN {} ELSE lower({}) END, coalesce(a, {}) FROM t WHERE b LIKE {} ESCAPE {}",
    "SELECT {}, lower({}), a || {} WHERE EXISTS (SELECT 1 FROM t WHERE b = {})",
    "INSERT INTO t (a, b) VALUES (cast(? as text), {}), ((SELECT 1), {}), (a AND {}, (({})))",
    "INSERT INTO t (a) SELECT {}, {} WHERE NOT EXISTS (SELECT 1 FROM u WHERE c = {})",
    "INSERT INTO t VALUES ({}) ON CONFLICT (a) DO UPDATE SET a = coalesce(null, {}), b = {}",
    "UPDATE t SET a = coalesce(null, {}), b = b || {}, c = (SELECT {}) WHERE d = {}",
    "PRAGMA key = {}; PRAGMA rekey({}); ATTACH DATABASE ? AS e KEY {}; PRAGMA key {}",
];

/// Found by `fuzz/targets/sql.rs`.
#[test]
fn what_a_fuzzer_found_is_the_same_when_read_twice() {
    for (text, sanitized) in [(r#""y" = d'$'"#, r#""y" = d?"#), (r#""y"!D'$"#, r#""y"!D?"#)] {
        let once = analyze(text, Dialect::Generic).sanitized;
        assert_eq!(&*once, sanitized);
        for dialect in DIALECTS {
            let once = analyze(text, dialect).sanitized;
            assert_eq!(analyze(&once, dialect).sanitized, once, "{text} {dialect:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_and_bounded(bytes in prop::collection::vec(any::<u8>(), 0..300), dialect in dialect()) {
        let text = String::from_utf8_lossy(&bytes);
        let analysis = analyze(&text, dialect);
        prop_assert!(analysis.sanitized.len() <= text.len());
        prop_assert!(analysis.summary.chars().count() <= MAX_SUMMARY_CHARS);
        prop_assert!(analysis.summary.starts_with(analysis.operation()));
    }

    #[test]
    fn any_tokens_are_read_and_bounded(text in soup(), dialect in dialect(), max_len in 0_usize..200) {
        let analysis = analyze(&text, dialect);
        prop_assert!(analysis.sanitized.len() <= text.len());
        prop_assert!(analysis.summary.chars().count() <= MAX_SUMMARY_CHARS);
        prop_assert!(analysis.summary.starts_with(analysis.operation()));
        prop_assert!(analyze_limited(&text, dialect, max_len).sanitized.len() <= max_len.max(text.len().min(max_len)));
    }

    #[test]
    fn sanitizing_twice_changes_nothing(text in soup(), dialect in dialect()) {
        let once = analyze(&text, dialect).sanitized;
        let twice = analyze(&once, dialect).sanitized;
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn nothing_of_a_literal_survives((dialect, text) in filled()) {
        let analysis = analyze(&text, dialect);
        prop_assert!(!analysis.sanitized.contains(MARKER), "{:?} {:?}", text, analysis);
        prop_assert!(!analysis.summary.contains(MARKER), "{:?} {:?}", text, analysis);
        prop_assert!(!analysis.sanitized.contains(&MARKER[..3]), "{:?} {:?}", text, analysis);
    }

    #[test]
    fn nothing_of_a_value_in_double_quotes_survives(
        template in prop::sample::select(QUOTED_VALUES),
        around in "[a-z ._-]{0,4}",
        glue in prop::sample::select(vec!["", " ", "\n", " /* it's */ ", " -- it's\n"]),
    ) {
        let text = template.replace("{}", &format!("{glue}\"{around}{MARKER}\"{glue}"));
        let analysis = analyze(&text, Dialect::Sqlite);
        prop_assert!(!analysis.sanitized.contains(MARKER), "{:?} {:?}", text, analysis);
        prop_assert!(!analysis.summary.contains(MARKER), "{:?} {:?}", text, analysis);
    }

    #[test]
    fn nothing_of_a_literal_survives_a_cut((dialect, text) in filled(), max_len in 0_usize..200) {
        let analysis = analyze_limited(&text, dialect, max_len);
        prop_assert!(!analysis.sanitized.contains(&MARKER[..3]), "{:?} {:?}", text, analysis);
        prop_assert!(!analysis.summary.contains(&MARKER[..3]), "{:?} {:?}", text, analysis);
    }
}
