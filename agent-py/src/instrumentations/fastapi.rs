//! FastAPI: Starlette's span under its own scope, and the whole route of an included router.

use agent_core::Key;
use agent_core::span::{SpanKind, SpanSpec};
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict, PyString};

use super::starlette;
use crate::breaker::Breaker;
use crate::ffi::{intern, quiet};
use crate::http::asgi::{self, Server};
use crate::http::excluded_urls::ExcludedUrls;
use crate::instrumentations::{Instrumentation, Needed, Target};
use crate::objects::{Class, attribute};
use crate::wrapper::{Call, HookResult};

/// The library.
pub static LIBRARY: Instrumentation = Instrumentation {
    name: "fastapi",
    distribution: "fastapi",
    breaker: Breaker::new("fastapi"),
    targets: &[
        // What `FastAPI.__call__` hands over to: one hook for both, whichever of the two is enabled.
        Target::coroutine("fastapi.applications", "Starlette.__call__", starlette::application),
        // Older releases leave it to Starlette's route, and so does a route that no router was included for.
        Target::call("fastapi.routing", "APIRoute.handle", route).optional().unless(hands_on_all),
        Target::call("fastapi.routing", "_IncludedRouter.__init__", include).optional(),
    ],
};

static SCOPE: Key = Key::new("remora.fastapi");
static SERVER: Server = Server {
    spec: SpanSpec { name: "HTTP", kind: SpanKind::Server, scope: &SCOPE },
    excluded: ExcludedUrls::of("fastapi"),
    breaker: &LIBRARY.breaker,
    bare: false,
};

/// Who makes the spans of an application of Starlette's that is FastAPI's.
#[inline]
pub fn server(application: &Bound<'_, PyAny>) -> Option<&'static Server> {
    static FASTAPI: Class = Class::new("fastapi.applications", "FastAPI");
    (FASTAPI.is_base_of(application) && LIBRARY.is_enabled() && !LIBRARY.breaker.is_open()).then_some(&SERVER)
}

/// Whether a router has been included: its routes are not Starlette's any more.
static INCLUDED: Needed = Needed::new();

/// Whether every route still hands its requests on to Starlette's, which has a hook. Sure only while the module is being
/// imported: later a router may be there already.
fn hands_on_all(module: &Bound<'_, PyAny>) -> bool {
    let py = module.py();
    let is_new = attribute(module, intern!(py, "__spec__"))
        .and_then(|spec| attribute(&spec, intern!(py, "_initializing")))
        .is_some_and(|initializing| quiet(py, initializing.is_truthy()) == Some(true));
    is_new && !INCLUDED.is() && attribute(module, intern!(py, "_IncludedRouter")).is_some()
}

fn include(call: &mut Call<'_>) -> HookResult {
    INCLUDED.now(call.py(), &LIBRARY);
    call.proceed();
    Ok(())
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
