//! How spans start: under what is in force, or not at all.

use agent_core::span::{Parent, SpanSpec};
use agent_core::tracer;
use pyo3::prelude::*;

use super::span::{Exit, Span, allocate};

/// Starts a span under `parent`. It is not in force until [`Span::enter`].
#[inline]
pub fn start<'py>(py: Python<'py>, spec: &SpanSpec, parent: &Option<Span<'py>>) -> Option<Span<'py>> {
    match parent {
        Some(parent) => {
            let span = allocate(py)?;
            parent.with(|parent| span.begin(spec, parent.as_parent()))?;
            Some(span)
        }
        None => start_with(py, spec, Parent::Root(None)),
    }
}

/// Whether [`start_leaf`] can have anything to record.
#[inline]
pub fn may_start_leaf(parent: &Option<Span<'_>>, exit: Exit, layer: u8) -> bool {
    !parent.as_ref().is_some_and(|parent| parent.covers(exit, layer)) && may_sample(parent).unwrap_or(false)
}

/// Whether the sampler may sample what starts under `parent`; `Err` where it would not sample a new trace.
#[inline]
fn may_sample(parent: &Option<Span<'_>>) -> Result<bool, ()> {
    let sampler = &tracer::current().sampler;
    let sampled = match parent {
        Some(parent) => parent.with(|span| match span.as_parent() {
            Parent::Local(span) => Some(span.is_sampled()),
            _ => None,
        }),
        None => Some(None),
    };
    match sampled {
        Some(Some(sampled)) => Ok(sampler.may_sample_under(sampled)),
        Some(None) if sampler.may_sample_root() => Ok(true),
        Some(None) => Err(()),
        // In use further up this very call.
        None => Ok(false),
    }
}

/// Starts a span inside which nothing of ours can start: it is never put in force. `None` where there is nothing to
/// record: not sampled, or an outer layer than `layer` already records this exit.
#[inline]
pub fn start_leaf<'py>(
    py: Python<'py>,
    spec: &SpanSpec,
    parent: &Option<Span<'py>>,
    exit: Exit,
    layer: u8,
) -> Option<Span<'py>> {
    if !may_record(parent, exit, layer) {
        return None;
    }
    start(py, spec, parent).filter(Span::is_recording)
}

/// Starts the span of an exit inside which an inner layer may want to start another: it is marked, and to be put in
/// force even where it is not recorded, so that the decision is taken once. `None` where there is nothing to record.
#[inline]
pub fn start_exit<'py>(
    py: Python<'py>,
    spec: &SpanSpec,
    parent: &Option<Span<'py>>,
    exit: Exit,
    layer: u8,
) -> Option<Span<'py>> {
    if !may_record(parent, exit, layer) {
        return None;
    }
    let span = start(py, spec, parent)?;
    span.mark(exit, layer);
    Some(span)
}

/// A stand-in for the span in force while an exit is made of which nothing is to be seen: never recorded, marked so that
/// inner layers make no span, and whatever else starts under it has the same parent as without it.
pub fn cover<'py>(py: Python<'py>, parent: &Option<Span<'py>>, exit: Exit, layer: u8) -> Option<Span<'py>> {
    let cover = stand_in(py, parent)?;
    cover.mark(exit, layer);
    Some(cover)
}

/// Whether an exit can be recorded at all; asked before an id is drawn for it. A trace that the sampler leaves out is
/// counted.
#[inline]
pub fn may_record(parent: &Option<Span<'_>>, exit: Exit, layer: u8) -> bool {
    if parent.as_ref().is_some_and(|parent| parent.covers(exit, layer)) {
        return false;
    }
    may_sample(parent).unwrap_or_else(|()| {
        tracer::count_sampled_out();
        false
    })
}

/// Starts a span under a parent that is not in a context variable.
#[inline]
pub fn start_with<'py>(py: Python<'py>, spec: &SpanSpec, parent: Parent<'_>) -> Option<Span<'py>> {
    let span = allocate(py)?;
    span.begin(spec, parent);
    Some(span)
}

/// An object that stands for `of`, or for no span, and has a note of its own: what several spans of one call share.
/// What starts while it is in force starts under `of`.
#[inline]
pub fn stand_in<'py>(py: Python<'py>, of: &Option<Span<'py>>) -> Option<Span<'py>> {
    let span = allocate(py)?;
    match of {
        Some(of) => {
            of.with(|of| span.with(|span| span.stand_in(Some(of))))??;
            span.mark_as(of);
        }
        None => span.with(|span| span.stand_in(None))?,
    }
    Some(span)
}
