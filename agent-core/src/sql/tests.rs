//! Linear time, counted in steps: what every scan reads, ahead or not.

use super::scan::steps;
use super::{Dialect, analyze};

const DIALECTS: [Dialect; 5] =
    [Dialect::Generic, Dialect::PostgreSql, Dialect::MySql, Dialect::Sqlite, Dialect::GoogleSql];

/// The most steps a byte may cost: a few look-aheads over it.
const STEPS_PER_BYTE: usize = 8;

#[test]
fn no_repetition_costs_more_than_its_length() {
    let pieces = [
        "'",
        "''",
        "\\'",
        "'\\'",
        "\"",
        "\"a",
        "`",
        "[",
        "[a",
        "[a ",
        "$",
        "$$",
        "$a",
        "$a$",
        "$a$b",
        "-",
        "--",
        "- ",
        "/*",
        "/* ",
        "*/",
        "/*!",
        "/",
        "*",
        "#",
        "# ",
        "# a\n",
        "#a",
        "?",
        "?1",
        "?99999",
        "%",
        "%(",
        "%(a",
        "%(a)",
        "%s",
        ":",
        ":a",
        ":9",
        "::",
        "@",
        "@@",
        "@a",
        "1",
        "1.",
        "1e",
        "1e+",
        "0x",
        ".",
        ".5",
        "a",
        "a.",
        "a ",
        "E'",
        "q'",
        "q'[",
        "nq'",
        "(",
        ")",
        "()",
        "(SELECT ",
        "IN (",
        "IN (1,",
        "IN (1)",
        ",",
        ";",
        "FROM a,",
        "WITH a AS (",
        "IDENTIFIED BY a ",
        "ESCAPE '\\'",
        "SELECT a FROM b JOIN c ",
        "é",
        "\u{0}",
        "VALUES (\"a\"),",
        "U&'",
        "/*M!",
        "/*!50001 ",
        "/*!50001 a */",
        "//",
        "//\n",
        "// a",
        "-- \r",
        "-- \ra",
        "]]",
        "[]]",
        "[a]]",
        "['",
        "[a--",
        "[a--]",
        "'''",
        "\"\"\"",
        "r'",
        "E'a'\n",
        "'a'\n",
        "\"a\" ",
        "\"a\")",
        "\"a\" (",
        "\"a\" = (",
        "\"a\" NOT ",
        "\"a\" /* */ ",
        "\"a\", ",
        "SELECT \"a\", ",
        "(SELECT \"a\", ",
        "SELECT \"a\" UNION ",
        "f(\"a\", ",
        "BETWEEN \"a\" AND ",
        "PASSWORD a ",
        "CREATE USER a PASSWORD b, ",
        "IDENTIFIED BY RANDOM ",
        "EXEC a b, ",
        "EXEC a;",
        "£1",
        "£",
        "a.",
    ];
    for dialect in DIALECTS {
        for piece in pieces {
            for prefix in ["", "SELECT a FROM t WHERE b = "] {
                let text = format!("{prefix}{}", piece.repeat(20_000 / piece.len()));
                steps::take();
                analyze(&text, dialect);
                let steps = steps::take();
                assert!(steps <= STEPS_PER_BYTE * text.len() + 64, "{dialect:?} {piece:?}: {steps} steps");
            }
        }
    }
}

#[test]
fn any_depth_of_parentheses_is_read_without_recursion() {
    for dialect in DIALECTS {
        let text = format!("SELECT a FROM {}t{}, u", "(SELECT b FROM ".repeat(100_000), ")".repeat(100_000));
        assert!(analyze(&text, dialect).summary.starts_with("SELECT SELECT SELECT"));
        let text = format!("SELECT {}1{} FROM u", "(".repeat(1000), ")".repeat(1000));
        assert_eq!(*analyze(&text, dialect).summary, *"SELECT u");
    }
}
