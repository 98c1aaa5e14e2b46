//! Words that are values: passwords without quotes, and SQL Server's texts without quotes behind `EXEC`.

use super::keyword::{is, is_any};
use super::verb;

/// `IDENTIFIED BY secret`: the password may stand without quotes (Oracle).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Password {
    No,
    Identified,
    /// `PASSWORD`: it is next, perhaps behind an equals sign.
    Named,
    /// That sign.
    Assigned,
    /// Behind `IDENTIFIED BY`.
    Next,
    /// Behind that; Oracle asks for the old one by `REPLACE`, for the new one by `SET`, and has lists of them.
    Seen,
}

/// What a password may be called in the statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Statement {
    Start,
    /// `CREATE` and `ALTER`: of what is not yet known.
    Defines,
    /// `PASSWORD` is followed by one.
    Account,
    /// `KEY` is too: `PRAGMA`, `ATTACH`.
    Keyed,
    /// `password` is a column, and `EXEC` may follow.
    Calls,
    /// `password` is a column.
    Other,
}

/// `EXEC p bob, secret`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exec {
    No,
    Name,
    Named,
    /// Where an argument stands.
    Argument,
    /// Behind one.
    After,
}

/// Which words of a text are secrets.
pub(super) struct Secrets {
    password: Password,
    statement: Statement,
    exec: Exec,
    /// Statements are told apart: the dialect is not one that asks for quotes everywhere.
    telling: bool,
    generic: bool,
}

impl Secrets {
    pub(super) fn new(telling: bool, generic: bool) -> Self {
        Self { password: Password::No, statement: Statement::Start, exec: Exec::No, telling, generic }
    }

    /// Whether a quoted name in this place would be a value.
    #[inline]
    pub(super) fn are_next(&self) -> bool {
        matches!(self.password, Password::Next | Password::Named | Password::Assigned)
            || self.exec == Exec::Argument
    }

    /// Whether the word from `start` to `end` is a value.
    #[inline]
    pub(super) fn word(&mut self, bytes: &[u8], start: usize, end: usize) -> bool {
        let idle = !self.telling && self.password == Password::No;
        !(idle && end - start != 10) && self.read(bytes, start, end)
    }

    fn read(&mut self, bytes: &[u8], start: usize, end: usize) -> bool {
        let word = &bytes[start..end];
        if self.is_password(bytes, start, end) {
            self.saw_password();
            return true;
        }
        if self.telling {
            self.note(word);
            return self.generic && self.is_argument(word);
        }
        false
    }

    fn saw_password(&mut self) {
        self.password = if self.password == Password::Next { Password::Seen } else { Password::No };
    }

    fn is_password(&mut self, bytes: &[u8], start: usize, end: usize) -> bool {
        let word = &bytes[start..end];
        match self.password {
            Password::Next => {
                // `BY PASSWORD 'hash'`, `BY RANDOM PASSWORD`.
                let next = bytes[end..].iter().take(64).find(|b| !b.is_ascii_whitespace());
                let kept = is_any(word, &["PASSWORD", "VALUES", "VALUE", "HASH"])
                    && matches!(next, Some(b'\'' | b'"'))
                    || is(word, "RANDOM") && matches!(next, Some(b'P' | b'p'));
                if is(word, "RANDOM") && kept {
                    self.password = Password::No;
                }
                return !kept;
            }
            Password::Assigned => return true,
            Password::Named if !after_password(word) => return true,
            Password::Identified if is(word, "BY") => self.password = Password::Next,
            Password::Seen if is_any(word, &["REPLACE", "SET"]) => self.password = Password::Next,
            _ if is(word, "IDENTIFIED") => self.password = Password::Identified,
            _ => self.password = Password::No,
        }
        false
    }

    fn note(&mut self, word: &[u8]) {
        match self.statement {
            Statement::Start => self.statement = self.begin(word),
            Statement::Defines if is_account(word) => self.statement = Statement::Account,
            Statement::Defines if verb::is_object(word) => self.statement = Statement::Other,
            Statement::Defines | Statement::Calls | Statement::Other => {}
            Statement::Account | Statement::Keyed => {
                let named = is(word, "PASSWORD")
                    || self.statement == Statement::Keyed
                        && is_any(word, &["KEY", "REKEY", "TEXTKEY", "TEXTREKEY", "HEXKEY", "HEXREKEY"]);
                if named && self.password == Password::No {
                    self.password = Password::Named;
                }
            }
        }
    }

    fn begin(&self, word: &[u8]) -> Statement {
        if is_any(word, &["PRAGMA", "ATTACH"]) {
            return Statement::Keyed;
        }
        if !self.generic {
            return Statement::Other;
        }
        if is_any(word, &["CREATE", "ALTER"]) {
            Statement::Defines
        } else if is(word, "BEGIN") {
            Statement::Start
        } else if is_any(word, &["EXEC", "EXECUTE", "INSERT", "DECLARE"]) {
            Statement::Calls
        } else if is_any(
            word,
            &[
                "SELECT", "UPDATE", "DELETE", "MERGE", "WITH", "REPLACE", "UPSERT", "VALUES", "EXPLAIN",
                "DESCRIBE", "CALL", "TRUNCATE", "DROP", "COMMENT", "TABLE",
            ],
        ) {
            Statement::Other
        } else {
            Statement::Account
        }
    }

    fn is_argument(&mut self, word: &[u8]) -> bool {
        match self.exec {
            Exec::No | Exec::Named | Exec::After
                if is_any(word, &["EXEC", "EXECUTE"])
                    && matches!(self.statement, Statement::Calls | Statement::Account) =>
            {
                self.exec = Exec::Name;
            }
            Exec::No => {}
            Exec::Name if is_any(word, &["PROCEDURE", "PROC", "FUNCTION", "TASK"]) => {}
            Exec::Name if is_any(word, &["IMMEDIATE", "BLOCK", "STATEMENT", "ON", "AS", "TO", "IN"]) => {
                self.exec = Exec::No;
            }
            Exec::Name => self.exec = Exec::Named,
            Exec::Named if ends_call(word) => self.exec = Exec::No,
            Exec::Argument if is_any(word, &["NULL", "DEFAULT"]) => self.exec = Exec::After,
            Exec::Named | Exec::Argument => {
                self.exec = Exec::After;
                return true;
            }
            Exec::After if is_any(word, &["OUTPUT", "OUT", "READONLY"]) => {}
            Exec::After => self.exec = Exec::No,
        }
        false
    }

    /// Any token that is neither a word nor punctuation.
    #[inline]
    pub(super) fn operand(&mut self) {
        self.saw_password();
        self.exec = match self.exec {
            Exec::No => return,
            Exec::Named | Exec::Argument | Exec::After => Exec::After,
            Exec::Name => Exec::Name,
        };
    }

    /// A name in quotes or brackets.
    pub(super) fn name(&mut self) {
        let exec = self.exec;
        self.operand();
        if exec == Exec::Name {
            self.exec = Exec::Named;
        }
    }

    #[inline]
    pub(super) fn punct(&mut self, b: u8) {
        if b == b';' {
            (self.password, self.statement, self.exec) = (Password::No, Statement::Start, Exec::No);
        } else if self.password != Password::No || self.exec != Exec::No {
            self.after_punct(b);
        }
    }

    fn after_punct(&mut self, b: u8) {
        self.password = match (self.password, b) {
            (Password::Seen, b',') => Password::Next,
            (Password::Named, b'=') => Password::Assigned,
            (Password::Named, b'(') if self.statement == Statement::Keyed => Password::Assigned,
            (Password::Named, _) => Password::No,
            (password, _) => password,
        };
        self.exec = match (self.exec, b) {
            (Exec::Named, b'.') => Exec::Name,
            (Exec::After, b',' | b'=') => Exec::Argument,
            (Exec::Name | Exec::Named, b'(' | b',') => Exec::No,
            (exec, _) => exec,
        };
    }
}

/// Words behind `PASSWORD` that are none.
fn after_password(word: &[u8]) -> bool {
    is_any(
        word,
        &[
            "EXPIRE",
            "EXPIRED",
            "IDENTIFIED",
            "LIFETIME",
            "CHANGE",
            "POLICY",
            "HISTORY",
            "REUSE",
            "REQUIRE",
            "VERIFY",
            "LOCK",
            "NULL",
            "DISABLE",
            "ENABLE",
            "OPTION",
            "FOR",
            "IS",
            "FROM",
            "AS",
            "WITH",
            "ON",
            "AND",
            "OR",
            "BY",
            "SET",
            "TO",
            "USING",
            "HASH",
            "ATTEMPTS",
        ],
    )
}

/// What has a password.
fn is_account(word: &[u8]) -> bool {
    is_any(
        word,
        &["USER", "ROLE", "LOGIN", "ACCOUNT", "PROFILE", "CREDENTIAL", "DATABASE", "SERVER", "LINK", "GROUP"],
    )
}

/// What begins the next statement where a first argument might stand.
fn ends_call(word: &[u8]) -> bool {
    verb::of(word).is_some()
        || is_any(
            word,
            &[
                "NULL",
                "OUTPUT",
                "OUT",
                "AT",
                "USING",
                "INTO",
                "IF",
                "ELSE",
                "RETURN",
                "PRINT",
                "GO",
                "WHILE",
                "THROW",
                "RAISERROR",
                "WAITFOR",
            ],
        )
}
