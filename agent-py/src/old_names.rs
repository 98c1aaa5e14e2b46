//! Attribute names of before the conventions of HTTP and of databases were stable, for `OTEL_SEMCONV_STABILITY_OPT_IN`
//! with `http/dup` or `database/dup`: emitted beside the stable ones.
//!
//! <https://opentelemetry.io/docs/specs/semconv/non-normative/http-migration/> and
//! <https://opentelemetry.io/docs/specs/semconv/non-normative/db-migration/> pair old and new.

use agent_core::Key;

use crate::settings;

macro_rules! names {
    ($($constant:ident = $name:literal;)*) => {
        $(#[doc = concat!("`", $name, "`")] pub static $constant: Key = Key::new($name);)*
    };
}

names! {
    DB_MONGODB_COLLECTION = "db.mongodb.collection";
    DB_NAME = "db.name";
    DB_OPERATION = "db.operation";
    DB_STATEMENT = "db.statement";
    DB_SYSTEM = "db.system";
    HTTP_FLAVOR = "http.flavor";
    HTTP_HOST = "http.host";
    HTTP_METHOD = "http.method";
    HTTP_SCHEME = "http.scheme";
    HTTP_STATUS_CODE = "http.status_code";
    HTTP_TARGET = "http.target";
    HTTP_URL = "http.url";
    HTTP_USER_AGENT = "http.user_agent";
    NET_HOST_NAME = "net.host.name";
    NET_HOST_PORT = "net.host.port";
    NET_PEER_IP = "net.peer.ip";
    NET_PEER_NAME = "net.peer.name";
    NET_PEER_PORT = "net.peer.port";
}

/// Whether those of HTTP are wanted.
#[inline]
pub fn http() -> bool {
    settings::get().old_names.http
}

/// Whether those of databases are wanted.
#[inline]
pub fn database() -> bool {
    settings::get().old_names.database
}
