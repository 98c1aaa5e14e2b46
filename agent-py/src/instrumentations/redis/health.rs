//! Whether databases answer: a client of several asks them again and again, in tasks or a thread that carry on the
//! context of the call that came first. What it asks on its own makes no span.

use pyo3::prelude::*;
use pyo3::types::PyAny;

use crate::current::{self, Exit, Span, StoredSpan};
use crate::database;
use crate::wrapper::{Call, Flight, HookResult};

/// Stands for no span, and covers what the databases are asked.
fn cover(py: Python<'_>) -> Option<Span<'_>> {
    current::cover(py, &None, Exit::Database, database::DRIVER + 1)
}

/// Around a check: a coroutine, in the synchronous client before redis-py 7.2 a call.
pub fn check(call: &mut Call<'_>) -> HookResult<Option<Box<dyn Flight>>> {
    let py = call.py();
    if let Some(cover) = cover(py) {
        let _entered = cover.enter_call(current::current(py));
        call.proceed();
    }
    Ok(Some(Box::new(Check)))
}

struct Check;

impl Flight for Check {
    fn start(&mut self, py: Python<'_>) -> HookResult<Option<StoredSpan>> {
        Ok(cover(py).map(Span::store))
    }

    fn finish(
        &mut self,
        _py: Python<'_>,
        span: Option<&Span<'_>>,
        _outcome: Result<&Bound<'_, PyAny>, &Bound<'_, PyAny>>,
    ) -> HookResult {
        if let Some(cover) = span {
            cover.unmark();
        }
        Ok(())
    }
}
