//! What the words of a statement mean to its summary.

use super::keyword::{is, is_any};

/// A statement's first word, by what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Select,
    Insert,
    /// Oracle's `INSERT ALL INTO a … INTO b …`.
    InsertAll,
    Update,
    Delete,
    Merge,
    Call,
    With,
    Values,
    /// `CREATE`, `ALTER`, `DROP`: a kind, then a name.
    Define,
    Truncate,
    Lock,
    Explain,
    Transaction,
    /// A name and nothing else.
    Name,
    /// As `Define` once a name without a query behind it has been read.
    Named,
    /// A query may follow.
    Prepare,
    /// Nothing in it is looked at.
    Opaque,
}

/// The verb of a statement's first word; `None` for a word that begins no statement we know.
pub(super) fn of(word: &[u8]) -> Option<Verb> {
    const VERBS: [(&[&str], Verb); 15] = [
        (&["SELECT"], Verb::Select),
        (&["INSERT", "REPLACE", "UPSERT"], Verb::Insert),
        (&["UPDATE"], Verb::Update),
        (&["DELETE"], Verb::Delete),
        (&["WITH"], Verb::With),
        (&["MERGE"], Verb::Merge),
        (&["CALL", "EXEC", "EXECUTE"], Verb::Call),
        (&["VALUES"], Verb::Values),
        (&["CREATE", "ALTER", "DROP", "REFRESH"], Verb::Define),
        (&["TRUNCATE"], Verb::Truncate),
        (&["LOCK"], Verb::Lock),
        (&["EXPLAIN"], Verb::Explain),
        (&["BEGIN", "START", "COMMIT", "ROLLBACK"], Verb::Transaction),
        (&["USE", "DESCRIBE", "DESC", "PRAGMA", "TABLE", "COPY"], Verb::Name),
        (&["PREPARE", "DECLARE"], Verb::Prepare),
    ];
    const OPAQUE: [&str; 39] = [
        "SET",
        "SHOW",
        "GRANT",
        "REVOKE",
        "SAVEPOINT",
        "RELEASE",
        "END",
        "ABORT",
        "ANALYZE",
        "VACUUM",
        "REINDEX",
        "OPTIMIZE",
        "REPAIR",
        "CHECK",
        "CLUSTER",
        "COMMENT",
        "ATTACH",
        "DETACH",
        "DEALLOCATE",
        "LISTEN",
        "UNLISTEN",
        "NOTIFY",
        "DISCARD",
        "RESET",
        "CHECKPOINT",
        "FETCH",
        "MOVE",
        "CLOSE",
        "OPEN",
        "KILL",
        "FLUSH",
        "HANDLER",
        "LOAD",
        "DO",
        "UNLOCK",
        "RENAME",
        "INSTALL",
        "BACKUP",
        "XA",
    ];
    let found = VERBS.iter().find(|(words, _)| is_any(word, words)).map(|(_, verb)| *verb);
    found.or_else(|| is_any(word, &OPAQUE).then_some(Verb::Opaque))
}

impl Verb {
    /// `FROM` and `JOIN` name tables.
    pub(super) fn has_from(self) -> bool {
        matches!(self, Self::Select | Self::Update | Self::Delete)
    }

    pub(super) fn is_opaque(self) -> bool {
        matches!(self, Self::Opaque | Self::Named | Self::Call)
    }

    /// A `SELECT` in the same parentheses is a query of its own.
    pub(super) fn may_contain_query(self) -> bool {
        !self.is_opaque() && !matches!(self, Self::Truncate | Self::Lock | Self::Transaction | Self::Name)
    }

    /// Whether `word` may stand between the verb and its target.
    pub(super) fn allows_before_target(self, word: &[u8]) -> bool {
        let words: &[&str] = match self {
            // Behind `FROM`, `JOIN` and a comma.
            Self::Select => &["ONLY", "LATERAL"],
            Self::Insert => {
                &["INTO", "OVERWRITE", "OR", "IGNORE", "LOW_PRIORITY", "HIGH_PRIORITY", "DELAYED"]
            }
            Self::Update => &["ONLY", "OR", "IGNORE", "LOW_PRIORITY"],
            Self::Delete => &["FROM", "IGNORE", "LOW_PRIORITY", "QUICK"],
            Self::Merge => &["INTO"],
            Self::Call => &["PROCEDURE", "IMMEDIATE"],
            Self::Truncate => &["TABLE", "ONLY"],
            Self::Lock => &["TABLE", "TABLES", "ONLY"],
            _ => &[],
        };
        is_any(word, words)
    }
}

/// A word inside a statement that changes what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clause {
    Select,
    From,
    Join,
    /// A join where tables stand, a word of no account behind `SELECT`.
    StraightJoin,
    Apply,
    Into,
    Using,
    With,
    /// The end of a list of tables.
    End,
}

pub(super) fn clause(word: &[u8]) -> Option<Clause> {
    const END: [&str; 22] = [
        "WHERE",
        "GROUP",
        "HAVING",
        "ORDER",
        "LIMIT",
        "UNION",
        "INTERSECT",
        "EXCEPT",
        "MINUS",
        "SET",
        "VALUES",
        "RETURNING",
        "WINDOW",
        "FOR",
        "FETCH",
        "OFFSET",
        "QUALIFY",
        "PREWHERE",
        "CONNECT",
        "OPTION",
        "SETTINGS",
        "FORMAT",
    ];
    Some(match word.len() {
        4 if is(word, "INTO") => Clause::Into,
        4 if is(word, "FROM") => Clause::From,
        4 if is(word, "JOIN") => Clause::Join,
        4 if is(word, "WITH") => Clause::With,
        5 if is(word, "APPLY") => Clause::Apply,
        5 if is(word, "USING") => Clause::Using,
        6 if is(word, "SELECT") => Clause::Select,
        13 if is(word, "STRAIGHT_JOIN") => Clause::StraightJoin,
        _ if is_any(word, &END) => Clause::End,
        _ => return None,
    })
}

/// What `CREATE` and its kin work on.
pub(super) fn is_object(word: &[u8]) -> bool {
    is_any(
        word,
        &[
            "TABLE",
            "VIEW",
            "INDEX",
            "DATABASE",
            "SCHEMA",
            "SEQUENCE",
            "TRIGGER",
            "FUNCTION",
            "PROCEDURE",
            "PROC",
            "USER",
            "ROLE",
            "LOGIN",
            "TYPE",
            "EXTENSION",
            "DOMAIN",
            "TABLESPACE",
            "EVENT",
            "SERVER",
            "POLICY",
            "PUBLICATION",
            "SUBSCRIPTION",
            "RULE",
            "COLLATION",
            "AGGREGATE",
            "STATISTICS",
            "SYNONYM",
            "PACKAGE",
            "SYSTEM",
            "SESSION",
            "KEYSPACE",
            "STREAM",
            "DICTIONARY",
            "WAREHOUSE",
        ],
    )
}

/// Objects that hold statements, which the statement that makes them does not run.
pub(super) fn has_body(word: &[u8]) -> bool {
    is_any(word, &["TRIGGER", "FUNCTION", "PROCEDURE", "PROC", "EVENT", "RULE", "PACKAGE"])
}

pub(super) fn before_object_name(word: &[u8]) -> bool {
    is_any(word, &["IF", "NOT", "EXISTS", "CONCURRENTLY", "ONLY", "BODY"])
}

/// What `EXPLAIN` explains; its options are none of these.
pub(super) fn is_explained(word: &[u8]) -> bool {
    is_any(
        word,
        &[
            "SELECT", "WITH", "INSERT", "UPDATE", "DELETE", "REPLACE", "MERGE", "VALUES", "CREATE",
            "EXECUTE", "TABLE",
        ],
    )
}
