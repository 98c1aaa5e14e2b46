//! What a layer above a driver says of it: the system by the layer's name, and the answer by the driver's exception.

use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyInt, PyTuple};

use super::{set_error, set_error_code};
use crate::current::Span;
use crate::exception;
use crate::ffi::{intern, quiet};
use crate::objects::{attribute, text};

/// A system's name, where the conventions have another one than SQLAlchemy or Django.
pub fn system_name(dialect: &str) -> &str {
    match dialect {
        "mssql" | "microsoft" => "microsoft.sql_server",
        "oracle" => "oracle.db",
        "redshift" => "aws.redshift",
        "spanner" | "spanner+spanner" => "gcp.spanner",
        "hana" => "sap.hana",
        "db2" | "ibm_db_sa" => "ibm.db2",
        "firebird" => "firebirdsql",
        "teradatasql" => "teradata",
        other => other,
    }
}

/// A system's own port; 0 where we know none.
pub fn default_port(system: &str) -> u16 {
    match system {
        "postgresql" => 5432,
        "mysql" | "mariadb" => 3306,
        "microsoft.sql_server" => 1433,
        "oracle.db" => 1521,
        "cockroachdb" => 26257,
        "aws.redshift" => 5439,
        _ => 0,
    }
}

/// Sets what failed, with the code that the database answered with, by the names that drivers have for it.
#[cold]
pub fn failed(span: &Span<'_>, error: &Bound<'_, PyAny>) {
    let py = error.py();
    let first = attribute(error, intern!(py, "args"))
        .and_then(|args| args.cast_into::<PyTuple>().ok())
        .and_then(|args| quiet(py, args.get_item(0)));
    if let Some(code) = first.and_then(|first| answer_code(error, &first)) {
        return set_error_code(span, error, Some(&code));
    }
    for name in [intern!(py, "sqlstate"), intern!(py, "pgcode")] {
        let code = attribute(error, name);
        if let Some(code) = text(&code) {
            return set_error_code(span, error, Some(code));
        }
    }
    if attribute(error, intern!(py, "sqlite_errorname")).is_some() {
        return set_error(span, error, intern!(py, "sqlite_errorname"));
    }
    set_error_code(span, error, None);
}

/// Drivers put it first: MySQL's the number, Oracle's an object with the whole code, ODBC's the SQLSTATE, pg8000 all the
/// fields of PostgreSQL's answer.
fn answer_code(error: &Bound<'_, PyAny>, first: &Bound<'_, PyAny>) -> Option<String> {
    let py = error.py();
    // Any other exception's first argument is anything.
    let class = exception::type_name(error);
    let package = class.split('.').next().unwrap_or_default();
    match package {
        "pymysql" | "MySQLdb" | "_mysql_exceptions" | "asyncmy" | "aiomysql" | "mysql" | "mariadb"
        | "pymssql" => {
            // MySQL's own connector has -1 where the server gave none.
            let code = quiet(py, first.cast::<PyInt>().ok()?.extract::<i64>());
            code.filter(|code| *code >= 0).map(|code| code.to_string())
        }
        "pg8000" => {
            let code = quiet(py, first.cast::<PyDict>().ok()?.get_item(intern!(py, "C"))).flatten();
            text(&code).map(str::to_owned)
        }
        "oracledb" | "cx_Oracle" => text(&attribute(first, intern!(py, "full_code"))).map(str::to_owned),
        "pyodbc" => text(&Some(first.clone())).filter(|code| code.len() == 5).map(str::to_owned),
        _ => None,
    }
}
