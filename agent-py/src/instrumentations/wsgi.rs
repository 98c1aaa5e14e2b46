//! WSGI applications as servers call them: the SERVER span where no framework of ours makes one, and what outer
//! middleware does where one takes it over. uWSGI calls applications from C and is not among these servers.

use agent_core::Key;
use agent_core::span::{SpanKind, SpanSpec};
use pyo3::prelude::*;
use pyo3::types::PyString;

use super::asgi;
use crate::breaker::Breaker;
use crate::ffi::intern;
use crate::http::excluded_urls::ExcludedUrls;
use crate::http::{server, wsgi};
use crate::instrumentations::{Instrumentation, Target};
use crate::wrapper::{self, Call, Flight, HookResult};

/// The library.
pub static LIBRARY: Instrumentation = Instrumentation {
    name: "wsgi",
    distribution: "",
    breaker: Breaker::new("wsgi"),
    targets: &[
        Target::call("gunicorn.app.base", "BaseApplication.wsgi", found),
        // Older releases have none.
        Target::call("hypercorn.app_wrappers", "WSGIWrapper.__init__", wrapper_made).optional(),
        // Pyramid's server.
        Target::call("waitress.server", "BaseWSGIServer.__init__", server_made).optional(),
    ],
};

static SCOPE: Key = Key::new("remora.wsgi");
static SPEC: SpanSpec = SpanSpec { name: "HTTP", kind: SpanKind::Server, scope: &SCOPE };
static EXCLUDED: ExcludedUrls = ExcludedUrls::of("wsgi");

/// Gunicorn has found the application that its workers are going to call.
fn found(call: &mut Call<'_>) -> HookResult {
    call.proceed();
    let Some(application) = call.result() else { return Ok(()) };
    if let Some(wrapped) = wrapped(&application)? {
        call.replace_result(wrapped);
    }
    Ok(())
}

/// An application with our hook around it; `None` where there is one already.
pub fn wrapped<'py>(application: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    if !application.is_callable() || wrapper::is_wrapper(application) || server::is_hooked(application) {
        return Ok(None);
    }
    wrapper::wrap_async(application, application_called, &LIBRARY.breaker).map(Some)
}

fn wrapper_made(call: &mut Call<'_>) -> HookResult {
    hand_over(call, intern!(call.py(), "app"))
}

fn server_made(call: &mut Call<'_>) -> HookResult {
    hand_over(call, intern!(call.py(), "application"))
}

/// The first argument is the application that will be called.
fn hand_over<'py>(call: &mut Call<'py>, name: &Bound<'py, PyString>) -> HookResult {
    let application = call.argument(1, name).map(|application| application.to_owned());
    if let Some(application) = application.as_ref()
        && let Some(application) = wrapped(application)?
    {
        call.proceed_replacing(1, name, &application);
    }
    Ok(())
}

/// Gunicorn does not say which kind it is: workers for ASGI pass a third argument.
fn application_called(call: &mut Call<'_>) -> HookResult<Option<Box<dyn Flight>>> {
    if call.arg(2).is_some() {
        return asgi::application(call);
    }
    wsgi::serve(call, &SPEC, &EXCLUDED, &LIBRARY.breaker)?;
    Ok(None)
}
