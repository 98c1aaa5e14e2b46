//! ASGI applications as servers call them: the SERVER span where no framework of ours makes one, and what outer
//! middleware does where one takes it over.

use agent_core::Key;
use agent_core::span::{SpanKind, SpanSpec};
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyString};

use super::{starlette, wsgi};
use crate::breaker::Breaker;
use crate::ffi::intern;
use crate::http::asgi::Server;
use crate::http::excluded_urls::ExcludedUrls;
use crate::http::server;
use crate::instrumentations::{Instrumentation, Target};
use crate::objects::attribute;
use crate::wrapper::{self, Call, Flight, HookResult};

/// The library.
pub static LIBRARY: Instrumentation = Instrumentation {
    name: "asgi",
    distribution: "",
    breaker: Breaker::new("asgi"),
    targets: &[
        Target::call("uvicorn.config", "Config.load", load),
        // Older releases call the application themselves.
        Target::coroutine("hypercorn.app_wrappers", "ASGIWrapper.__call__", method).optional(),
    ],
};

static SCOPE: Key = Key::new("remora.asgi");
static SERVER: Server = Server {
    spec: SpanSpec { name: "HTTP", kind: SpanKind::Server, scope: &SCOPE },
    excluded: ExcludedUrls::of("asgi"),
    breaker: &LIBRARY.breaker,
    bare: true,
};

fn method(call: &mut Call<'_>) -> HookResult<Option<Box<dyn Flight>>> {
    SERVER.serve(call, 1)
}

/// Around an application itself.
pub fn application(call: &mut Call<'_>) -> HookResult<Option<Box<dyn Flight>>> {
    SERVER.serve(call, 0)
}

/// The application that uvicorn was given, and what of its own middleware holds it.
fn innermost<'py>(application: &Bound<'py, PyAny>) -> (Option<Bound<'py, PyAny>>, Bound<'py, PyAny>) {
    let py = application.py();
    let (mut holder, mut inner) = (None, application.clone());
    // There are three kinds, each at most once.
    for _ in 0..4 {
        let module = attribute(inner.get_type().as_any(), intern!(py, "__module__"));
        let own = module.is_some_and(|module| {
            module.cast::<PyString>().is_ok_and(|name| {
                let name = name.to_string_lossy();
                // Its WSGI middleware, where that package is there.
                name.starts_with("uvicorn.middleware.") || name.starts_with("a2wsgi.")
            })
        });
        match attribute(&inner, intern!(py, "app")).filter(|_| own) {
            Some(app) => (holder, inner) = (Some(inner), app),
            None => break,
        }
    }
    (holder, inner)
}

/// The configuration has found the application that its protocols are going to call.
fn load(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    call.proceed();
    let (Some(_), Some(config)) = (call.result(), call.arg(0)) else { return Ok(()) };
    let loaded = intern!(py, "loaded_app");
    let Some(application) = attribute(&config, loaded) else { return Ok(()) };
    let (holder, inner) = innermost(&application);
    let interface = attribute(&config, intern!(py, "interface"));
    if interface.is_some_and(|interface| {
        interface.cast::<PyString>().is_ok_and(|interface| interface.to_string_lossy() == "wsgi")
    }) {
        // A WSGI application's own span says more than one around what calls it.
        if let (Some(holder), Some(wrapped)) = (holder, wsgi::wrapped(&inner)?) {
            holder.setattr(intern!(py, "app"), wrapped)?;
        }
    } else if !wrapper::is_wrapper(&application) && (!server::is_hooked(&inner) || starlette::passes(&inner))
    {
        config.setattr(loaded, wrapper::wrap_async(&application, self::application, &LIBRARY.breaker)?)?;
    }
    Ok(())
}
