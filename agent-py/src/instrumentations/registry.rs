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
    asgi = "asgi.rs";
    django = "django.rs";
    fastapi = "fastapi.rs";
    flask = "flask.rs";
    requests = "requests.rs";
    sqlite3 = "sqlite3.rs";
    starlette = "starlette.rs";
    threading = "threading.rs";
    wsgi = "wsgi.rs";
}
