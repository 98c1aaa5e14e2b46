/// How a database system reads quotes, comments and parameters.
///
/// A mode that the server can switch (`ANSI_QUOTES`, `NO_BACKSLASH_ESCAPES`, `standard_conforming_strings`) is
/// taken at its default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// An unknown system: where two systems read a text differently, the reading that shows less wins.
    Generic,
    /// PostgreSQL.
    PostgreSql,
    /// MySQL and MariaDB.
    MySql,
    /// SQLite.
    Sqlite,
    /// GoogleSQL: Spanner, BigQuery.
    GoogleSql,
}

impl Dialect {
    /// The dialect of a `db.system.name`; [`Dialect::Generic`] for those without one of their own.
    pub fn from_name(name: &str) -> Self {
        match name {
            "postgresql" | "cockroachdb" => Self::PostgreSql,
            "mysql" | "mariadb" => Self::MySql,
            "sqlite" => Self::Sqlite,
            "gcp.spanner" | "bigquery" => Self::GoogleSql,
            _ => Self::Generic,
        }
    }

    /// `'it\'s'` is one string.
    pub(super) const fn has_backslash_escapes(self) -> bool {
        matches!(self, Self::MySql | Self::GoogleSql)
    }

    /// `"…"` is a string.
    pub(super) const fn double_quotes_are_strings(self) -> bool {
        matches!(self, Self::MySql | Self::GoogleSql)
    }

    /// `'''it's'''` is one string.
    pub(super) const fn has_triple_quotes(self) -> bool {
        matches!(self, Self::GoogleSql)
    }

    /// A carriage return may end a comment; in PostgreSQL it does.
    pub(super) const fn lines_may_end_at_return(self) -> bool {
        !matches!(self, Self::MySql | Self::Sqlite)
    }

    /// `FROM 'name'` is a table.
    pub(super) const fn tables_may_be_texts(self) -> bool {
        matches!(self, Self::Sqlite)
    }

    /// `"…"` is an identifier that becomes a string where no such column exists (SQLite, section 8 of its
    /// "quirks"), or a string in some of the systems behind `Generic`.
    pub(super) const fn double_quotes_may_be_strings(self) -> bool {
        matches!(self, Self::Sqlite | Self::Generic)
    }

    pub(super) const fn has_backticks(self) -> bool {
        !matches!(self, Self::PostgreSql)
    }

    pub(super) const fn has_brackets(self) -> bool {
        matches!(self, Self::Sqlite | Self::Generic)
    }

    pub(super) const fn has_dollar_quotes(self) -> bool {
        matches!(self, Self::PostgreSql | Self::Generic)
    }
}
