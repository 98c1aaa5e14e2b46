//! The span while its call runs.
//!
//! Starting draws ids and reads the clock; attributes append to one byte run that is reused from span to span;
//! finishing copies 88 bytes of header and that run into the thread's chunk. No allocation in the steady state.

use std::sync::Arc;

use super::{FinishedSpan, RANDOM, SAMPLED, SpanKind, SpanSpec, StatusCode};
use crate::clock::{self, Ticks};
use crate::context::{Carried, RemoteContext};
use crate::id::{IdGenerator, SpanId, TraceId};
use crate::keys::Key;
use crate::limits;
use crate::record::{Attributes, Entries, Entry, KeyRef, Link, OpenStr, Value, Writer};
use crate::sampling::ParentInfo;
use crate::tracer;

/// A span that has started. Kept alive by whatever context holds it; reusable after it is finished.
#[derive(Debug)]
pub struct ActiveSpan {
    /// The trace.
    pub trace_id: TraceId,
    /// This span.
    pub span_id: SpanId,
    /// The parent, or zeros.
    pub parent_span_id: SpanId,
    /// W3C trace flags: [`SAMPLED`] and [`RANDOM`]; all others are zero, as W3C demands.
    pub flags: u8,
    /// The kind.
    pub kind: SpanKind,
    /// What propagates with the trace besides the ids.
    pub carried: Option<Arc<Carried>>,
    recording: bool,
    parent_remote: bool,
    status: StatusCode,
    scope: u16,
    generation: u32,
    start: Ticks,
    name: &'static str,
    counts: Counts,
    writer: Writer,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    attributes: u16,
    events: u16,
    links: u16,
    dropped_attributes: u16,
    dropped_events: u16,
    dropped_links: u16,
}

/// Whether `count` may grow: below the limit, and below what the counter holds.
#[inline]
fn room(count: u16, limit: usize) -> bool {
    usize::from(count) < limit && count < u16::MAX
}

/// Where a new span hangs.
#[derive(Clone, Copy, Debug)]
pub enum Parent<'a> {
    /// A new trace; baggage may have come in without a trace.
    Root(Option<&'a Arc<Carried>>),
    /// A span of this process.
    Local(&'a ActiveSpan),
    /// A context that came in with a request.
    Remote(&'a RemoteContext, Option<&'a Arc<Carried>>),
}

impl Default for ActiveSpan {
    fn default() -> Self {
        Self::new()
    }
}

impl ActiveSpan {
    /// An empty span, to be started.
    pub const fn new() -> Self {
        Self {
            trace_id: [0; 16],
            span_id: [0; 8],
            parent_span_id: [0; 8],
            flags: 0,
            kind: SpanKind::Internal,
            carried: None,
            recording: false,
            parent_remote: false,
            status: StatusCode::Unset,
            scope: 0,
            generation: 0,
            start: Ticks(0),
            name: "",
            counts: Counts {
                attributes: 0,
                events: 0,
                links: 0,
                dropped_attributes: 0,
                dropped_events: 0,
                dropped_links: 0,
            },
            writer: Writer::new(),
        }
    }

    /// Draws the ids, asks the sampler and, where it is to be recorded, reads the clock.
    #[inline]
    pub fn start(&mut self, spec: &SpanSpec, parent: Parent<'_>, ids: &mut IdGenerator) {
        self.span_id = ids.span_id();
        let tracer = tracer::current();
        let random;
        let sampled = match parent {
            Parent::Local(parent) => {
                random = parent.flags & RANDOM;
                self.trace_id = parent.trace_id;
                self.parent_span_id = parent.span_id;
                self.carried.clone_from(&parent.carried);
                self.parent_remote = false;
                let parent = ParentInfo { sampled: parent.flags & SAMPLED != 0, remote: false };
                tracer.sampler.should_sample(Some(parent), self.trace_id)
            }
            Parent::Remote(remote, carried) => {
                random = remote.flags & RANDOM;
                self.trace_id = remote.trace_id;
                self.parent_span_id = remote.span_id;
                self.carried = carried.cloned();
                self.parent_remote = true;
                let parent = ParentInfo { sampled: remote.flags & SAMPLED != 0, remote: true };
                tracer.sampler.should_sample(Some(parent), self.trace_id)
            }
            Parent::Root(carried) => {
                random = RANDOM;
                self.trace_id = ids.trace_id();
                self.parent_span_id = [0; 8];
                self.carried = carried.cloned();
                self.parent_remote = false;
                tracer.sampler.should_sample(None, self.trace_id)
            }
        };
        self.flags = u8::from(sampled) | random;
        self.recording = sampled;
        self.kind = spec.kind;
        if sampled {
            self.scope = spec.scope.id();
            self.name = spec.name;
            self.status = StatusCode::Unset;
            self.counts = Counts::default();
            self.writer.bytes.clear();
            self.generation = crate::generation::current();
            if let Some(carried) = &self.carried
                && !carried.trace_state.is_empty()
            {
                self.writer.trace_state(&carried.trace_state);
            }
            self.start = clock::now();
        } else if !matches!(parent, Parent::Local(_)) {
            tracer::count_sampled_out();
        }
    }

    /// Makes it stand for another span, or for none: what starts under it starts under that one. It records nothing.
    pub fn stand_in(&mut self, of: Option<&Self>) {
        self.recording = false;
        match of {
            Some(of) => {
                self.trace_id = of.trace_id;
                self.span_id = of.span_id;
                self.parent_span_id = of.parent_span_id;
                self.flags = of.flags;
                self.carried.clone_from(&of.carried);
            }
            None => {
                self.trace_id = [0; 16];
                self.span_id = [0; 8];
                self.parent_span_id = [0; 8];
                self.flags = 0;
                self.carried = None;
            }
        }
    }

    /// As the parent of a new span: a stand-in for none begins a new trace.
    #[inline]
    pub fn as_parent(&self) -> Parent<'_> {
        if self.trace_id == [0; 16] { Parent::Root(self.carried.as_ref()) } else { Parent::Local(self) }
    }

    /// A span that is written to but never sent.
    pub(crate) fn recording() -> Self {
        Self { recording: true, ..Self::new() }
    }

    pub(crate) fn attribute_count(&self) -> u16 {
        self.counts.attributes
    }

    pub(crate) fn dropped_attributes(&self) -> u16 {
        self.counts.dropped_attributes
    }

    /// Counts attributes that a fragment was made without.
    #[cold]
    pub(crate) fn count_dropped(&mut self, attributes: u16) {
        if self.recording {
            self.counts.dropped_attributes = self.counts.dropped_attributes.saturating_add(attributes);
        }
    }

    /// Its record, with nothing in it that is named by number.
    pub(crate) fn into_record(mut self) -> Box<[u8]> {
        self.writer.write_out();
        std::mem::take(&mut self.writer.bytes).into_boxed_slice()
    }

    /// Appends entries that were written under the same limits, by their number where they are shared; false where
    /// they would pass the attribute limit.
    #[inline]
    pub(crate) fn append_record(
        &mut self,
        bytes: &[u8],
        number: Option<u16>,
        attributes: u16,
        limit: usize,
    ) -> bool {
        if !self.recording {
            return true;
        }
        let count = usize::from(self.counts.attributes) + usize::from(attributes);
        if count > limit.min(usize::from(u16::MAX)) || self.writer.is_full() {
            return false;
        }
        self.counts.attributes = count as u16;
        match number {
            Some(number) => self.writer.shared(number),
            None => self.writer.bytes.extend_from_slice(bytes),
        }
        true
    }

    /// Whether anything set on it goes anywhere. Ask before reading what an attribute would need.
    #[inline]
    pub fn is_recording(&self) -> bool {
        self.recording
    }

    /// Whether its trace is sampled.
    #[inline]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Its moment of starting.
    pub fn started(&self) -> Ticks {
        self.start
    }

    /// Makes it begin at a moment read before: for spans of which only the outcome tells that there is one.
    pub fn began_at(&mut self, start: Ticks) {
        self.start = start;
    }

    /// Moves it to another scope.
    #[inline]
    pub fn set_scope(&mut self, scope: &'static Key) {
        self.scope = scope.id();
    }

    /// Gives it up unsent: from here on it stands for `caller`, or for nothing that is sampled.
    pub fn abandon(&mut self, caller: Option<Self>) {
        match caller {
            Some(caller) => *self = caller,
            None => {
                self.recording = false;
                self.flags &= !SAMPLED;
            }
        }
    }

    /// Its scope's name.
    pub fn scope(&self) -> &'static str {
        crate::keys::scope_name(self.scope)
    }

    /// Names the span; the last name counts.
    pub fn name(&mut self, name: &str) {
        if self.recording {
            self.writer.name(name);
        }
    }

    /// Names the span by a text that outlives it: nothing is copied. A name that [`Self::name`] gave, before or
    /// after, counts more.
    #[inline]
    pub fn static_name(&mut self, name: &'static str) {
        self.name = name;
    }

    /// The name that [`Self::static_name`] gave, or that it started with.
    #[inline]
    pub fn given_name(&self) -> &'static str {
        self.name
    }

    /// Names the span by what `fill` appends.
    pub fn name_with(&mut self, fill: impl FnOnce(&mut Vec<u8>)) {
        if self.recording {
            self.writer.name_with(fill);
        }
    }

    #[inline]
    fn take_attribute(&mut self) -> Option<usize> {
        if !self.recording {
            return None;
        }
        let limits = limits::current();
        if !room(self.counts.attributes, limits.attribute_count) || self.writer.is_full() {
            self.counts.dropped_attributes = self.counts.dropped_attributes.saturating_add(1);
            return None;
        }
        self.counts.attributes += 1;
        Some(limits.attribute_value_length.unwrap_or(usize::MAX))
    }

    /// Adds a text attribute. The caller sets each name once; [`Self::replace`] is for names that may repeat.
    #[inline]
    pub fn str<'k>(&mut self, key: impl Into<KeyRef<'k>>, value: &str) {
        self.add_str(key.into(), value);
    }

    // Out of line, as is all that is called from many places in one request: what such code costs is its lines in the
    // instruction cache, which the application's own code has driven out before every request.
    #[inline(never)]
    fn add_str(&mut self, key: KeyRef<'_>, value: &str) {
        if let Some(max) = self.take_attribute() {
            self.writer.str(key, limits::truncate(value, max));
        }
    }

    /// Adds a text attribute whose value `fill` appends in place.
    #[inline]
    pub fn str_with<'k>(&mut self, key: impl Into<KeyRef<'k>>, fill: impl FnOnce(&mut Vec<u8>)) {
        let key = key.into();
        if let Some(open) = self.open_str(key) {
            fill(&mut self.writer.bytes);
            self.writer.end_str(key, open);
        }
    }

    #[inline(never)]
    fn open_str(&mut self, key: KeyRef<'_>) -> Option<OpenStr> {
        let max = self.take_attribute()?;
        Some(self.writer.begin_str(key, max))
    }

    /// Adds an integer attribute.
    #[inline]
    pub fn int<'k>(&mut self, key: impl Into<KeyRef<'k>>, value: i64) {
        self.add_int(key.into(), value);
    }

    #[inline(never)]
    fn add_int(&mut self, key: KeyRef<'_>, value: i64) {
        if self.take_attribute().is_some() {
            self.writer.value(key, Value::Int(value));
        }
    }

    /// Adds a double attribute.
    pub fn double<'k>(&mut self, key: impl Into<KeyRef<'k>>, value: f64) {
        if self.take_attribute().is_some() {
            self.writer.value(key.into(), Value::Double(value));
        }
    }

    /// Adds a boolean attribute.
    pub fn bool<'k>(&mut self, key: impl Into<KeyRef<'k>>, value: bool) {
        if self.take_attribute().is_some() {
            self.writer.value(key.into(), Value::Bool(value));
        }
    }

    /// Adds an attribute that is an array of texts.
    pub fn str_array<'k, 's>(&mut self, key: impl Into<KeyRef<'k>>, values: impl Iterator<Item = &'s str>) {
        self.array(key, values.map(Value::Str));
    }

    /// Adds an attribute that is an array. OpenTelemetry knows arrays of one type only: that is the caller's part.
    pub fn array<'k, 's>(&mut self, key: impl Into<KeyRef<'k>>, values: impl Iterator<Item = Value<'s>>) {
        if let Some(max) = self.take_attribute() {
            self.writer.array(key.into(), max, values);
        }
    }

    /// Forgets earlier attributes of that name, so that the next one set is the only one.
    pub fn replace(&mut self, key: &str) {
        if self.recording {
            self.counts.attributes = self.counts.attributes.saturating_sub(self.writer.replace(key));
        }
    }

    /// A text attribute that was set before. Linear in the record.
    pub fn text(&self, key: &str) -> Option<&str> {
        let of_key = |entry| match entry {
            Entry::Attribute(name, Value::Str(text)) if name == key => Some(text),
            _ => None,
        };
        Entries::of(self.record()).filter_map(of_key).last()
    }

    /// Sets the status to error, with a description unless it would repeat what an attribute says.
    pub fn error(&mut self, description: &str) {
        if self.recording {
            self.status = StatusCode::Error;
            if !description.is_empty() {
                self.writer.status_description(description);
            }
        }
    }

    /// Takes the error back, with its description.
    pub fn no_error(&mut self) {
        if self.recording {
            self.status = StatusCode::Unset;
            self.writer.no_status_description();
        }
    }

    /// The status so far.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Adds an event at the present moment.
    pub fn event<'k>(&mut self, name: impl Into<KeyRef<'k>>, fill: impl FnOnce(&mut Attributes<'_>)) {
        if !self.recording {
            return;
        }
        let limits = limits::current();
        if !room(self.counts.events, limits.event_count) || self.writer.is_full() {
            self.counts.dropped_events = self.counts.dropped_events.saturating_add(1);
            return;
        }
        self.counts.events += 1;
        self.writer.event(clock::now(), name.into(), limits.event_attribute_count, fill);
    }

    /// Adds a link.
    pub fn link(&mut self, link: &Link<'_>, fill: impl FnOnce(&mut Attributes<'_>)) {
        if !self.recording {
            return;
        }
        let limits = limits::current();
        if !room(self.counts.links, limits.link_count) || self.writer.is_full() {
            self.counts.dropped_links = self.counts.dropped_links.saturating_add(1);
            return;
        }
        self.counts.links += 1;
        self.writer.link(link, limits.link_attribute_count, fill);
    }

    /// Ends it now. Only the first call counts, and only in the process where it began.
    #[inline]
    pub fn finish(&mut self) {
        if self.recording {
            self.finish_at(clock::now());
        }
    }

    /// Ends it at a moment read before.
    #[inline]
    pub fn finish_at(&mut self, end: Ticks) {
        if std::mem::replace(&mut self.recording, false) && self.generation == crate::generation::current() {
            crate::local::push(self, end);
        }
    }

    #[inline]
    pub(crate) fn header(&self, end: Ticks, record: std::ops::Range<u32>) -> FinishedSpan {
        FinishedSpan {
            trace_id: self.trace_id,
            span_id: self.span_id,
            parent_span_id: self.parent_span_id,
            start: self.start,
            end: Ticks(end.0.max(self.start.0)),
            name: self.name,
            record_start: record.start,
            record_end: record.end,
            scope: self.scope,
            dropped_attributes: self.counts.dropped_attributes,
            dropped_events: self.counts.dropped_events,
            dropped_links: self.counts.dropped_links,
            kind: self.kind,
            flags: self.flags,
            status: self.status,
            parent_remote: self.parent_remote,
        }
    }

    #[inline]
    pub(crate) fn record(&self) -> &[u8] {
        &self.writer.bytes
    }

    /// Drops what is held beyond `max` bytes of buffer, before the span object is kept for reuse.
    pub fn shrink(&mut self, max: usize) {
        self.carried = None;
        if self.writer.bytes.capacity() > max {
            self.writer.bytes = Vec::new();
        }
    }
}
