//! Attribute names that several libraries use, as OpenTelemetry's semantic conventions 1.44 spell them.
//!
//! A name that only one library uses is a static of that library's file.

use crate::keys::Key;

/// The schema that spans follow.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

macro_rules! names {
    ($($constant:ident = $name:literal;)*) => {
        $(#[doc = concat!("`", $name, "`")] pub static $constant: Key = Key::new($name);)*
    };
}

names! {
    CLIENT_ADDRESS = "client.address";
    CODE_FUNCTION_NAME = "code.function.name";
    DB_COLLECTION_NAME = "db.collection.name";
    DB_NAMESPACE = "db.namespace";
    DB_OPERATION_BATCH_SIZE = "db.operation.batch.size";
    DB_OPERATION_NAME = "db.operation.name";
    DB_QUERY_SUMMARY = "db.query.summary";
    DB_QUERY_TEXT = "db.query.text";
    DB_RESPONSE_STATUS_CODE = "db.response.status_code";
    DB_STORED_PROCEDURE_NAME = "db.stored_procedure.name";
    DB_SYSTEM_NAME = "db.system.name";
    ERROR_TYPE = "error.type";
    EXCEPTION = "exception";
    EXCEPTION_MESSAGE = "exception.message";
    EXCEPTION_STACKTRACE = "exception.stacktrace";
    EXCEPTION_TYPE = "exception.type";
    HTTP_REQUEST_METHOD = "http.request.method";
    HTTP_REQUEST_METHOD_ORIGINAL = "http.request.method_original";
    HTTP_REQUEST_RESEND_COUNT = "http.request.resend_count";
    HTTP_RESPONSE_STATUS_CODE = "http.response.status_code";
    HTTP_ROUTE = "http.route";
    NETWORK_PEER_ADDRESS = "network.peer.address";
    NETWORK_PEER_PORT = "network.peer.port";
    NETWORK_PROTOCOL_NAME = "network.protocol.name";
    NETWORK_PROTOCOL_VERSION = "network.protocol.version";
    SERVER_ADDRESS = "server.address";
    SERVER_PORT = "server.port";
    URL_FULL = "url.full";
    URL_PATH = "url.path";
    URL_QUERY = "url.query";
    URL_SCHEME = "url.scheme";
    USER_AGENT_ORIGINAL = "user_agent.original";
}
