//! The list of libraries. Adding one is its file beside this one and its line here.

use super::Instrumentation;

macro_rules! libraries {
    ($($file:ident = $path:literal;)*) => {
        $(#[path = $path] mod $file;)*
        /// Every library, in the order that `doctor` shows.
        pub static ALL: &[&Instrumentation] = &[$(&$file::LIBRARY,)*];
    };
}

libraries! {
    aiohttp_client = "aiohttp_client.rs";
    aiohttp_server = "aiohttp_server.rs";
    asgi = "asgi.rs";
    django = "django.rs";
    fastapi = "fastapi.rs";
    flask = "flask.rs";
    httpx = "httpx.rs";
    kafka = "kafka.rs";
    logging = "logging.rs";
    psycopg = "psycopg.rs";
    psycopg2 = "psycopg2.rs";
    pymongo = "pymongo.rs";
    redis = "redis.rs";
    requests = "requests.rs";
    sqlalchemy = "sqlalchemy.rs";
    sqlite3 = "sqlite3.rs";
    starlette = "starlette.rs";
    threading = "threading.rs";
    urllib3 = "urllib3.rs";
    valkey = "valkey.rs";
    wsgi = "wsgi.rs";
}
