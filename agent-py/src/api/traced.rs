//! `traced`: every call of a callable of the application is a span.
//!
//! The name is the callable's `__qualname__` unless given. Costs one native call more than the callable; nothing is read
//! from Python unless it raises.

use std::sync::Arc;

use agent_core::span::{Parent, SpanKind, SpanSpec};
use agent_core::tracer;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyFunction, PyType};

use super::{SCOPE, names};
use crate::breaker::Breaker;
use crate::current::{self, Span, StoredSpan};
use crate::ffi::{intern, quiet};
use crate::objects::{attribute, text};
use crate::wrapper::{self, Behaviour, Call, Coroutines, Flight, Flights, Generators, HookResult, Start};
use crate::{agent, patch};

static BREAKER: Breaker = Breaker::new("traced");

/// How `kind` is written.
pub fn kind_of(kind: &str) -> PyResult<SpanKind> {
    match kind {
        "internal" => Ok(SpanKind::Internal),
        "server" => Ok(SpanKind::Server),
        "client" => Ok(SpanKind::Client),
        "producer" => Ok(SpanKind::Producer),
        "consumer" => Ok(SpanKind::Consumer),
        other => Err(PyValueError::new_err(format!(
            "kind is '{other}', not 'internal', 'server', 'client', 'producer' or 'consumer'"
        ))),
    }
}

/// Name and kind of a callable's spans.
#[derive(Clone)]
struct Named {
    spec: SpanSpec,
    /// Where the name is not kept for ever.
    name: Option<Arc<str>>,
}

impl Named {
    fn new(name: &str, kind: SpanKind) -> Self {
        match names::intern(name) {
            Some(name) => Self { spec: SpanSpec { name, kind, scope: &SCOPE }, name: None },
            None => Self { spec: SpanSpec { name: "", kind, scope: &SCOPE }, name: Some(name.into()) },
        }
    }

    #[inline]
    fn begin<'py>(&self, py: Python<'py>, parent: &Option<Span<'py>>) -> Option<Span<'py>> {
        let span = begin(py, &self.spec, parent)?;
        if let Some(name) = &self.name {
            span.with(|span| span.name(name));
        }
        Some(span)
    }
}

/// A span, unless the agent is not active or the one in force stands for it as well: neither would be recorded.
#[inline]
pub fn begin<'py>(py: Python<'py>, spec: &SpanSpec, parent: &Option<Span<'py>>) -> Option<Span<'py>> {
    if !needed(parent) {
        return None;
    }
    let span = current::start(py, spec, parent)?;
    if let Some(parent) = parent {
        span.lie_within(parent);
    }
    Some(span)
}

/// A root is needed even where nothing is sampled: what is sent from under it is one trace, decided once.
#[inline]
fn needed(parent: &Option<Span<'_>>) -> bool {
    agent::is_active()
        && parent.as_ref().is_none_or(|parent| {
            parent
                .with(|span| match span.as_parent() {
                    Parent::Local(span) => tracer::current().sampler.may_sample_under(span.is_sampled()),
                    _ => true,
                })
                .unwrap_or(false)
        })
}

impl Start for Named {
    fn start<'py>(&self, py: Python<'py>, parent: &Option<Span<'py>>) -> Option<Span<'py>> {
        self.begin(py, parent)
    }
}

/// A plain function.
struct Function(Named);

impl Behaviour for Function {
    #[inline]
    fn call(&self, call: &mut Call<'_>) -> HookResult {
        let py = call.py();
        let parent = current::current(py);
        let Some(span) = self.0.begin(py, &parent) else {
            call.proceed();
            return Ok(());
        };
        {
            let _entered = span.enter(parent);
            call.proceed();
        }
        if let Some(error) = call.error() {
            wrapper::record(&span, &error);
        }
        span.finish();
        Ok(())
    }
}

/// A coroutine function.
struct CoroutineFunction(Named);

impl Flights for CoroutineFunction {
    fn board(&self, call: &mut Call<'_>) -> HookResult<Option<Box<dyn Flight>>> {
        // Where it is made is nearly always where it runs: nothing needed here, nothing there.
        let here = current::current(call.py());
        Ok(if needed(&here) { Some(Box::new(OneCoroutine(self.0.clone()))) } else { None })
    }
}

struct OneCoroutine(Named);

impl Flight for OneCoroutine {
    fn start(&mut self, py: Python<'_>) -> HookResult<Option<StoredSpan>> {
        Ok(self.0.begin(py, &current::current(py)).map(Span::store))
    }

    fn finish(
        &mut self,
        _py: Python<'_>,
        span: Option<&Span<'_>>,
        outcome: Result<&Bound<'_, PyAny>, &Bound<'_, PyAny>>,
    ) -> HookResult {
        if let Some(span) = span {
            if let Err(error) = outcome {
                wrapper::record(span, error);
            }
            span.finish();
        }
        Ok(())
    }
}

/// What a call gives.
enum Shape {
    Value,
    Coroutine,
    Generator,
}

impl Shape {
    fn of(callable: &Bound<'_, PyAny>) -> Self {
        const GENERATOR: u32 = 0x20;
        const COROUTINE: u32 = 0x80;
        const ITERABLE_COROUTINE: u32 = 0x100;
        const ASYNC_GENERATOR: u32 = 0x200;
        let flags = flags(callable, 0).unwrap_or(0);
        if flags & COROUTINE != 0 {
            Self::Coroutine
        } else if flags & ASYNC_GENERATOR != 0 || flags & GENERATOR != 0 && flags & ITERABLE_COROUTINE == 0 {
            Self::Generator
        } else {
            Self::Value
        }
    }
}

/// `co_flags` of the code that a call runs: of a function or method, of what a partial calls, of an object's `__call__`.
fn flags(callable: &Bound<'_, PyAny>, depth: u8) -> Option<u32> {
    let py = callable.py();
    if let Some(code) = quiet(py, callable.getattr_opt(intern!(py, "__code__")))? {
        return quiet(py, code.getattr(intern!(py, "co_flags")).and_then(|flags| flags.extract()));
    }
    if depth > 8 {
        return None;
    }
    let inner = if callable.get_type().name().is_ok_and(|name| name == "partial") {
        quiet(py, callable.getattr(intern!(py, "func")))?
    } else {
        quiet(py, callable.get_type().getattr(intern!(py, "__call__")))?
    };
    flags(&inner, depth + 1)
}

/// The name of a callable's spans.
fn name_of(callable: &Bound<'_, PyAny>) -> String {
    let py = callable.py();
    let text = |object: &Bound<'_, PyAny>| {
        quiet(py, object.getattr_opt(intern!(py, "__qualname__")))
            .flatten()
            .and_then(|name| quiet(py, name.extract()))
    };
    let partial = || quiet(py, callable.getattr_opt(intern!(py, "func"))).flatten();
    text(callable)
        .or_else(|| text(&partial()?))
        .or_else(|| text(callable.get_type().as_any()))
        .unwrap_or_else(|| "call".to_owned())
}

/// A wrapper around a callable.
pub fn wrap<'py>(
    callable: &Bound<'py, PyAny>,
    name: Option<&str>,
    kind: SpanKind,
) -> PyResult<Bound<'py, PyAny>> {
    let named = match name {
        Some(name) => Named::new(name, kind),
        None => Named::new(&name_of(callable), kind),
    };
    let behaviour: Box<dyn Behaviour> = match Shape::of(callable) {
        Shape::Value => Box::new(Function(named)),
        Shape::Coroutine => Box::new(Coroutines::new(CoroutineFunction(named), &BREAKER)),
        Shape::Generator => Box::new(Generators::new(Arc::new(named), &BREAKER)),
    };
    match callable.cast::<PyFunction>() {
        Ok(function) if is_implicit(function) => wrapper::wrap_implicit(function, behaviour, &BREAKER),
        _ => wrapper::wrap(callable, None, Some(behaviour), &BREAKER),
    }
}

/// Whether a class would make a method of another kind of a function.
fn is_implicit(function: &Bound<'_, PyFunction>) -> bool {
    let name = attribute(function, intern!(function.py(), "__name__"));
    text(&name).is_some_and(|name| wrapper::IMPLICIT.contains(&name))
}

fn decorate<'py>(
    function: &Bound<'py, PyAny>,
    name: Option<&str>,
    kind: SpanKind,
) -> PyResult<Bound<'py, PyAny>> {
    if let Ok(class) = function.cast::<PyType>() {
        let class = class.qualname()?;
        return Err(PyTypeError::new_err(format!(
            "traced: '{class}' is a class, which stays as it is: decorate its methods, '__init__' for its making"
        )));
    }
    patch::rebuild(function, &|inner| wrap(inner, name, kind))
}

/// Decorator, with or without arguments: every call is a span.
#[pyfunction]
#[pyo3(signature = (function=None, /, *, name=None, kind="internal"))]
pub fn traced<'py>(
    py: Python<'py>,
    function: Option<&Bound<'py, PyAny>>,
    name: Option<String>,
    kind: &str,
) -> PyResult<Bound<'py, PyAny>> {
    let kind = kind_of(kind)?;
    match function {
        Some(function) => decorate(function, name.as_deref(), kind),
        None => Ok(Bound::new(py, Traced { name, kind })?.into_any()),
    }
}

/// What `traced` with arguments returns.
#[pyclass(frozen, module = "remora._native")]
struct Traced {
    name: Option<String>,
    kind: SpanKind,
}

#[pymethods]
impl Traced {
    #[pyo3(signature = (function, /))]
    fn __call__<'py>(&self, function: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        decorate(function, self.name.as_deref(), self.kind)
    }
}
