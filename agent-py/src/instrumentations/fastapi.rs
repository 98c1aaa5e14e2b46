//! FastAPI: Starlette's span under its own scope, and the whole route of an included router.

use std::borrow::Cow;

use agent_core::Key;
use agent_core::span::{SpanKind, SpanSpec};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyString, PyType};

use crate::breaker::Breaker;
use crate::ffi::quiet;
use crate::http::asgi::{self, Server};
use crate::http::excluded_urls::ExcludedUrls;
use crate::instrumentations::{Hook, Instrumentation, Target};
use crate::objects::attribute;
use crate::wrapper::{Call, Flight, HookResult};

/// The library.
pub static LIBRARY: Instrumentation = Instrumentation {
    name: "fastapi",
    distribution: "fastapi",
    breaker: Breaker::new("fastapi"),
    targets: &[
        Target {
            module: "fastapi.applications",
            attribute: "FastAPI.__call__",
            hook: Hook::Async(application),
            optional: false,
        },
        // Older releases leave it to Starlette's route.
        Target {
            module: "fastapi.routing",
            attribute: "APIRoute.handle",
            hook: Hook::Call(route),
            optional: true,
        },
    ],
};

static SCOPE: Key = Key::new("remora.fastapi");
static SERVER: Server = Server {
    spec: SpanSpec { name: "HTTP", kind: SpanKind::Server, scope: &SCOPE },
    excluded: ExcludedUrls::of("fastapi"),
    breaker: &LIBRARY.breaker,
    bare: false,
};

fn application(call: &mut Call<'_>) -> HookResult<Option<Box<dyn Flight>>> {
    SERVER.serve(call, 1)
}

/// Whether a call of Starlette's is that of a FastAPI application for a URL that FastAPI's setting excludes: our hook
/// there has left it alone.
#[inline]
pub fn excludes(call: &Call<'_>) -> bool {
    SERVER.excluded.contain(|| {
        let application = call.arg(0)?;
        let is_ours = |class: Bound<'_, PyAny>| {
            let name =
                class.cast::<PyType>().ok().and_then(|class| quiet(class.py(), class.fully_qualified_name()));
            name.is_some_and(|name| name.to_string_lossy() == "fastapi.applications.FastAPI")
        };
        if !application.get_type().mro().iter().any(is_ours) {
            return None;
        }
        let scope = call.argument(1, intern!(call.py(), "scope"))?;
        Some(Cow::Owned(asgi::url(&*scope.cast::<PyDict>().ok()?)))
    })
}

fn route(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    if let (Some(route), Some(scope)) = (call.arg(0), call.argument(1, intern!(py, "scope")))
        && let Ok(scope) = scope.cast::<PyDict>()
    {
        asgi::set_route(py, &scope, || {
            let of = effective(&scope).filter(|context| {
                attribute(context, intern!(py, "original_route")).is_some_and(|original| original.is(&*route))
            });
            attribute(of.as_ref().unwrap_or(&route), intern!(py, "path"))
        });
    }
    call.proceed();
    Ok(())
}

/// What an included router makes of a route: its own `path` is only the last part.
fn effective<'py>(scope: &Bound<'py, PyDict>) -> Option<Bound<'py, PyAny>> {
    let py = scope.py();
    let get = |of: &Bound<'py, PyDict>, key: &Bound<'py, PyString>| quiet(py, of.get_item(key)).flatten();
    let own = get(scope, intern!(py, "fastapi"))?.cast_into::<PyDict>().ok()?;
    get(&own, intern!(py, "effective_route_context"))
}
