//! Words compared without regard to case.

/// Whether `word` is one of `list`, which is in upper case.
#[inline]
pub(super) fn is_any(word: &[u8], list: &[&str]) -> bool {
    list.iter().any(|entry| is(word, entry))
}

#[inline]
pub(super) fn is(word: &[u8], upper: &str) -> bool {
    word.eq_ignore_ascii_case(upper.as_bytes())
}

/// After these a sign belongs to the number behind it; after any other word it is an operator.
pub(super) fn expects_value(word: &[u8]) -> bool {
    is_any(
        word,
        &[
            "SELECT",
            "WHERE",
            "AND",
            "OR",
            "NOT",
            "BETWEEN",
            "THEN",
            "ELSE",
            "WHEN",
            "CASE",
            "LIMIT",
            "OFFSET",
            "BY",
            "VALUES",
            "IN",
            "LIKE",
            "RETURN",
            "DEFAULT",
            "SET",
            "ON",
            "IS",
            "TO",
            "DISTINCT",
            "ALL",
            "HAVING",
            "FROM",
            "TOP",
            "INTERVAL",
            "XOR",
            "DIV",
            "MOD",
            "WITH",
            "FIRST",
            "NEXT",
            "INCREMENT",
            "START",
        ],
    )
}

/// After these a text in double quotes is compared with, so it may be a value.
pub(super) fn compares(word: &[u8]) -> bool {
    is_any(
        word,
        &[
            "LIKE", "ILIKE", "RLIKE", "GLOB", "REGEXP", "MATCH", "BETWEEN", "IS", "NOT", "ESCAPE", "THEN",
            "ELSE", "WHEN", "DEFAULT", "IN", "CONTAINS",
        ],
    )
}

/// These begin a list of values.
pub(super) fn begins_values(word: &[u8]) -> bool {
    is_any(word, &["IN", "VALUES", "VALUE"])
}

/// These end it.
pub(super) fn ends_values(word: &[u8]) -> bool {
    is_any(word, &["ON", "AS", "AND", "OR", "SELECT", "RETURNING", "WHERE", "FROM", "INTO", "ORDER", "GROUP"])
}
