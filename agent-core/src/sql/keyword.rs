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

/// What a word says of the texts in double quotes behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// A name, or a word without a meaning here.
    None,
    /// A value is next, alone or in parentheses.
    Compares,
    Between,
    In,
    Not,
    When,
    /// `AND` and its kin.
    Logic,
    Where,
    By,
    Join,
    From,
    Distinct,
    As,
    On,
    Select,
    Values,
    Set,
    /// A password is next.
    Key,
    /// Any other beginning of a clause.
    Clause,
}

pub(super) fn mark(word: &[u8]) -> Mark {
    const LONGEST: usize = 10;
    let mut upper = [0; LONGEST];
    let Some(upper) = upper.get_mut(..word.len()) else { return Mark::None };
    upper.copy_from_slice(word);
    upper.make_ascii_uppercase();
    match &*upper {
        b"LIKE" | b"ILIKE" | b"RLIKE" | b"GLOB" | b"REGEXP" | b"MATCH" | b"ESCAPE" | b"CONTAINS" | b"IS"
        | b"THEN" | b"ELSE" | b"DEFAULT" => Mark::Compares,
        b"BETWEEN" => Mark::Between,
        b"IN" => Mark::In,
        b"NOT" => Mark::Not,
        b"WHEN" => Mark::When,
        b"AND" | b"OR" | b"XOR" => Mark::Logic,
        b"WHERE" | b"HAVING" => Mark::Where,
        b"BY" | b"RETURNING" => Mark::By,
        b"JOIN" => Mark::Join,
        b"FROM" => Mark::From,
        b"DISTINCT" => Mark::Distinct,
        b"AS" | b"OVER" | b"FILTER" | b"PARTITION" => Mark::As,
        b"ON" => Mark::On,
        b"SELECT" => Mark::Select,
        b"VALUES" | b"VALUE" | b"PRAGMA" => Mark::Values,
        b"SET" => Mark::Set,
        b"KEY" | b"REKEY" | b"PASSWORD" => Mark::Key,
        b"INTO" | b"TABLE" | b"INDEX" | b"REFERENCES" | b"USING" | b"CONFLICT" | b"WITH" | b"INSERT"
        | b"UPDATE" | b"DELETE" | b"MERGE" | b"ORDER" | b"GROUP" | b"LIMIT" | b"OFFSET" | b"FETCH"
        | b"FOR" | b"UNION" | b"EXCEPT" | b"INTERSECT" | b"MINUS" | b"WINDOW" | b"QUALIFY" | b"EXISTS"
        | b"CONSTRAINT" | b"PRIMARY" | b"UNIQUE" | b"CHECK" | b"FOREIGN" | b"GENERATED" | b"BEGIN"
        | b"OUTPUT" => Mark::Clause,
        _ => Mark::None,
    }
}

/// Operators that compare what is on their left with what is on their right.
pub(super) fn compares(word: &[u8]) -> bool {
    is_any(word, &["LIKE", "ILIKE", "RLIKE", "GLOB", "REGEXP", "MATCH", "CONTAINS", "IN", "IS", "BETWEEN"])
}

/// These may stand between an operator and its right side.
pub(super) fn continues_comparison(word: &[u8]) -> bool {
    is_any(word, &["NOT", "DISTINCT", "FROM", "ANY", "ALL", "SOME"])
}

/// A right side that says nothing of the left one.
pub(super) fn is_no_column(word: &[u8]) -> bool {
    is_any(
        word,
        &[
            "NULL",
            "TRUE",
            "FALSE",
            "UNKNOWN",
            "SELECT",
            "WITH",
            "VALUES",
            "DEFAULT",
            "CURRENT_DATE",
            "CURRENT_TIME",
            "CURRENT_TIMESTAMP",
        ],
    )
}

/// These end the list of a `SELECT` that has no `FROM`.
pub(super) fn ends_list(word: &[u8]) -> bool {
    is_any(word, &["WHERE", "GROUP", "HAVING", "ORDER", "LIMIT", "UNION", "EXCEPT", "INTERSECT", "MINUS"])
}
