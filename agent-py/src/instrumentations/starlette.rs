//! Starlette: the SERVER span of a request, and what runs in the background after its response.
//!
//! `Starlette.__call__` is the request; the `handle` of the matched route, and of each mount above it,
//! knows its template.

use agent_core::Key;
use agent_core::semconv;
use agent_core::span::{SpanKind, SpanSpec};
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyDict};

use super::fastapi;
use crate::breaker::Breaker;
use crate::current::{self, Span, StoredSpan};
use crate::ffi::{Held, intern, quiet};
use crate::http::asgi::{self, Server};
use crate::http::excluded_urls::ExcludedUrls;
use crate::instrumentations::{Instrumentation, Target};
use crate::objects::{Class, attribute};
use crate::suppression::{self, Of};
use crate::wrapper::{self, Call, Flight, HookResult};

/// The library.
pub static LIBRARY: Instrumentation = Instrumentation {
    name: "starlette",
    distribution: "starlette",
    breaker: Breaker::new("starlette"),
    targets: &[
        Target::coroutine("starlette.applications", "Starlette.__call__", application),
        Target::call("starlette.routing", "Route.handle", route),
        Target::call("starlette.routing", "WebSocketRoute.handle", route),
        Target::call("starlette.routing", "Mount.handle", mount),
        Target::coroutine("starlette.background", "BackgroundTask.__call__", background),
    ],
};

static SCOPE: Key = Key::new("remora.starlette");
static SERVER: Server = Server {
    spec: SpanSpec { name: "HTTP", kind: SpanKind::Server, scope: &SCOPE },
    excluded: ExcludedUrls::of("starlette"),
    breaker: &LIBRARY.breaker,
    bare: false,
};
static BACKGROUND: SpanSpec = SpanSpec { name: "background", kind: SpanKind::Internal, scope: &SCOPE };

/// `Starlette.__call__`, which `FastAPI.__call__` ends in.
pub fn application(call: &mut Call<'_>) -> HookResult<Option<Box<dyn Flight>>> {
    let own = || LIBRARY.is_enabled().then_some(&SERVER);
    match call.arg(0).and_then(|application| fastapi::server(&application)).or_else(own) {
        Some(server) => server.serve(call, 1),
        None => Ok(None),
    }
}

/// Whether that hook, there for FastAPI's sake, lets requests to this application pass without a span.
pub fn passes(application: &Bound<'_, PyAny>) -> bool {
    static STARLETTE: Class = Class::new("starlette.applications", "Starlette");
    !LIBRARY.is_enabled() && STARLETTE.is_base_of(application) && fastapi::server(application).is_none()
}

fn route(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    if let (Some(route), Some(scope)) = (call.arg(0), call.argument(1, intern!(py, "scope")))
        && let Ok(scope) = scope.cast::<PyDict>()
    {
        asgi::set_route(py, &scope, || attribute(&route, intern!(py, "path")));
    }
    call.proceed();
    Ok(())
}

fn mount(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    if let (Some(mount), Some(scope)) = (call.arg(0), call.argument(1, intern!(py, "scope")))
        && let Ok(scope) = scope.cast::<PyDict>()
    {
        asgi::set_mount(py, &scope, || attribute(&mount, intern!(py, "path")));
    }
    call.proceed();
    Ok(())
}

fn background(call: &mut Call<'_>) -> HookResult<Option<Box<dyn Flight>>> {
    let py = call.py();
    // Without a request's span there is nothing that it would belong to.
    if current::current(py).is_none() || suppression::suppressed(py, Of::Any) {
        return Ok(None);
    }
    let function = call.arg(0).and_then(|task| attribute(&task, intern!(py, "func")));
    Ok(function.map(|function| Box::new(Background { function: Held::new(&function) }) as Box<dyn Flight>))
}

/// A background task: a child of the request's span, which has ended by now.
struct Background {
    function: Held,
}

impl Flight for Background {
    fn start(&mut self, py: Python<'_>) -> HookResult<Option<StoredSpan>> {
        let request = current::current(py);
        if let Some(request) = &request {
            asgi::before_background(request);
        }
        let Some(span) = current::start(py, &BACKGROUND, &request) else { return Ok(None) };
        if span.is_recording() {
            let function = self.function.bind(py);
            let named =
                |name| attribute(&function, name).and_then(|name| quiet(py, name.extract::<String>()));
            if let Some(name) = named(intern!(py, "__qualname__")) {
                let module = named(intern!(py, "__module__"));
                span.with(|span| {
                    span.name(&name);
                    span.str_with(&semconv::CODE_FUNCTION_NAME, |out| {
                        if let Some(module) = module {
                            out.extend_from_slice(module.as_bytes());
                            out.push(b'.');
                        }
                        out.extend_from_slice(name.as_bytes());
                    });
                });
            }
        }
        Ok(Some(span.store()))
    }

    fn finish(
        &mut self,
        _py: Python<'_>,
        span: Option<&Span<'_>>,
        outcome: Result<&Bound<'_, PyAny>, &Bound<'_, PyAny>>,
    ) -> HookResult {
        let Some(span) = span else { return Ok(()) };
        if let Err(error) = outcome {
            wrapper::record(span, error);
        }
        span.finish();
        Ok(())
    }
}
