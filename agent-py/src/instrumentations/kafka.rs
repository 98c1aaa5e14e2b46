//! kafka-python: a PRODUCER span for each `send`, a CLIENT span for each `poll` that brings messages, a CONSUMER span for
//! each message that a loop over the consumer gets.
//!
//! A `send` ends when its future is done: a callable of ours in the future's callbacks stands for the span, and nothing
//! of ours holds the future. Where the future is never done the span ends with it, or with the process.

use agent_core::context::{Carried, RemoteContext};
use agent_core::record::Link;
use agent_core::semconv;
use agent_core::span::{ActiveSpan, Parent, SpanKind, SpanSpec};
use agent_core::{Key, clock};
use pyo3::exceptions::{PyBaseException, PyStopIteration};
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBytes, PyDict, PyInt, PyList, PyString, PyTuple};
use smallvec::SmallVec;

use crate::breaker::Breaker;
use crate::current::{self, Span};
use crate::exception;
use crate::ffi::{intern, quiet};
use crate::http;
use crate::instrumentations::{Instrumentation, Target};
use crate::messaging::{self, Constants, Operation, Place};
use crate::objects::{attribute, text};
use crate::settings;
use crate::suppression::{self, Of};
use crate::wrapper::{self, Call, HookResult};

/// The library.
pub static LIBRARY: Instrumentation = Instrumentation {
    name: "kafka",
    distribution: "kafka-python",
    breaker: Breaker::new("kafka"),
    targets: &[
        Target::call("kafka.producer.kafka", "KafkaProducer.send", send),
        Target::call("kafka.consumer.group", "KafkaConsumer.poll", poll),
        Target::call("kafka.consumer.group", "KafkaConsumer.__next__", next),
        Target::call("kafka.consumer.group", "KafkaConsumer.close", close),
    ],
};

static SCOPE: Key = Key::new("remora.kafka");
static SEND: SpanSpec = SpanSpec { name: "send", kind: SpanKind::Producer, scope: &SCOPE };
static POLL: SpanSpec = SpanSpec { name: "poll", kind: SpanKind::Client, scope: &SCOPE };
static PROCESS: SpanSpec = SpanSpec { name: "process", kind: SpanKind::Consumer, scope: &SCOPE };

static KEY: Key = Key::new("messaging.kafka.message.key");
static TOMBSTONE: Key = Key::new("messaging.kafka.message.tombstone");
static OFFSET: Key = Key::new("messaging.kafka.offset");

const fn operation(name: &'static str, kind: &'static str) -> Operation {
    Operation { system: "kafka", name, kind, default_port: 9092 }
}
static SENDS: Operation = operation("send", "send");
static POLLS: Operation = operation("poll", "receive");
static PROCESSES: Operation = operation("process", "process");

fn send(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    if suppression::suppressed(py, Of::Any) {
        call.proceed();
        return Ok(());
    }
    let parent = current::current(py);
    let Some(span) = current::start(py, &SEND, &parent) else {
        call.proceed();
        return Ok(());
    };
    let config = call.arg(0).and_then(|producer| config(&producer));
    if span.is_recording() {
        describe_send(call, &span, config.as_ref());
    }
    let headers = call.argument(4, intern!(py, "headers"));
    let headers = if takes_headers(config.as_ref()) { quiet(py, with_context(&span, headers)) } else { None };
    {
        let _entered = span.enter_call(parent);
        match headers.flatten() {
            Some(headers) => quiet(py, call.proceed_passing(4, intern!(py, "headers"), headers.as_any())),
            None => None,
        };
        // Nothing is done twice: this is for where the headers could not be passed.
        call.proceed();
    }
    if !span.is_recording() {
        return Ok(());
    }
    if let Some(error) = call.error() {
        failed(&span, &error);
    } else if let Some(future) = call.result()
        && quiet(py, await_delivery(&span, &future)) == Some(true)
    {
        return Ok(());
    }
    span.finish();
    Ok(())
}

fn describe_send<'py>(call: &Call<'py>, span: &Span<'py>, config: Option<&Bound<'py, PyDict>>) {
    let py = call.py();
    let topic = call.argument(1, intern!(py, "topic")).map(|topic| topic.to_owned());
    constants(config, topic, false).set(span, &SENDS);
    let value = call.argument(2, intern!(py, "value"));
    let key = call.argument(3, intern!(py, "key")).map(|key| key.to_owned());
    set_message(span, key, value.is_none_or(|value| value.is_none()));
}

/// The settings of a producer or consumer.
#[inline]
fn config<'py>(of: &Bound<'py, PyAny>) -> Option<Bound<'py, PyDict>> {
    attribute(of, intern!(of.py(), "config"))?.cast_into::<PyDict>().ok()
}

#[inline]
fn constants<'py>(
    config: Option<&Bound<'py, PyDict>>,
    topic: Option<Bound<'py, PyAny>>,
    consumer: bool,
) -> Constants<'py> {
    let destination = topic.and_then(|topic| topic.cast_into::<PyString>().ok());
    let Some(config) = config else { return Constants { destination, ..Constants::default() } };
    let py = config.py();
    let setting = |name| quiet(py, config.get_item(name)).flatten();
    let text = |value: Option<Bound<'py, PyAny>>| value?.cast_into::<PyString>().ok();
    let servers = setting(intern!(py, "bootstrap_servers"));
    let server = servers.and_then(|servers| {
        if let Ok(list) = servers.cast::<PyList>() {
            quiet(py, list.get_item(0))
        } else if let Ok(tuple) = servers.cast::<PyTuple>() {
            quiet(py, tuple.get_item(0))
        } else {
            Some(servers)
        }
    });
    Constants {
        destination,
        client: text(setting(intern!(py, "client_id"))),
        server: text(server),
        group: if consumer { text(setting(intern!(py, "group_id"))) } else { None },
    }
}

/// Sets what a span says of one message. A key that is no text has no form of its own that is told.
fn set_message<'py>(span: &Span<'py>, key: Option<Bound<'py, PyAny>>, tombstone: bool) {
    let number = key.as_ref().and_then(|key| key.cast_exact::<PyInt>().ok());
    let number = number.and_then(|number| quiet(number.py(), number.extract::<i64>()));
    let key = text(&key);
    span.with(|span| {
        match (key, number) {
            (Some(key), _) => span.str(&KEY, key),
            (None, Some(number)) => span.str_with(&KEY, |out| decimal(number, out)),
            (None, None) => {}
        }
        if tombstone {
            span.bool(&TOMBSTONE, true);
        }
    });
}

fn decimal(number: i64, out: &mut Vec<u8>) {
    use std::io::Write;
    let _ = write!(out, "{number}");
}

/// Brokers before 0.11 know no headers.
fn takes_headers(config: Option<&Bound<'_, PyDict>>) -> bool {
    let version = || {
        let py = config?.py();
        let version =
            quiet(py, config?.get_item(intern!(py, "api_version")))??.cast_into::<PyTuple>().ok()?;
        let part = |at| quiet(py, version.get_item(at)).and_then(|part| quiet(py, part.extract::<u32>()));
        Some((part(0)?, part(1).unwrap_or(0)))
    };
    version().is_some_and(|version| version >= (0, 11))
}

/// A copy of the headers with the span's context; none where there is nothing to add, or where they are not what the
/// library takes.
fn with_context<'py>(
    span: &Span<'py>,
    headers: Option<Borrowed<'_, 'py, PyAny>>,
) -> PyResult<Option<Bound<'py, PyList>>> {
    let headers = headers.filter(|headers| !headers.is_none());
    let Some(py) =
        settings::get().propagators.ne(&agent_core::propagation::Propagators::NONE).then(|| span.py())
    else {
        return Ok(None);
    };
    let mut added: SmallVec<[(Bound<'py, PyString>, Bound<'py, PyBytes>); 3]> = SmallVec::new();
    http::inject(py, span, |name, value| {
        let value = value.cast_into::<PyString>()?;
        added.push((name.clone(), PyBytes::new(py, value.to_str()?.as_bytes())));
        Ok(())
    })?;
    if added.is_empty() {
        return Ok(None);
    }
    let copy = PyList::empty(py);
    if let Some(headers) = headers {
        // The library takes lists, of the application's kinds too, and asks them for their items as we do.
        let Ok(headers) = headers.cast::<PyList>() else { return Ok(None) };
        for header in headers.try_iter()? {
            let header = header?;
            // A message that is passed on: its old context, with the state that belongs to it, makes way.
            let name = header.cast::<PyTuple>().ok().and_then(|pair| pair.get_item(0).ok());
            let name = text(&name);
            let ours = name.is_some_and(|name| {
                name == "tracestate" && settings::get().propagators.trace_context()
                    || added.iter().any(|(added, _)| quiet(py, added.to_str()) == Some(name))
            });
            if !ours {
                copy.append(header)?;
            }
        }
    }
    for pair in added {
        copy.append(pair)?;
    }
    Ok(Some(copy))
}

/// Waits in a future's callbacks for what becomes of a message.
#[pyclass(frozen, module = "remora._native")]
struct Delivery {
    span: Place,
}

#[pymethods]
impl Delivery {
    fn __call__(&self, outcome: &Bound<'_, PyAny>) {
        wrapper::guarded(&LIBRARY.breaker, || {
            if let Some(span) = messaging::waited(&self.span) {
                delivered(&span.get(outcome.py()), outcome);
            }
            Ok(())
        });
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        drop(messaging::waited(&self.span));
    }
}

/// Lets the span end when the future is done; false where too many wait. An error where it is no future as we know
/// them.
fn await_delivery<'py>(span: &Span<'py>, future: &Bound<'py, PyAny>) -> PyResult<bool> {
    let py = future.py();
    if future.getattr(intern!(py, "is_done"))?.is_truthy()? {
        let error = future.getattr(intern!(py, "exception"))?;
        let outcome = if error.is_none() { future.getattr(intern!(py, "value"))? } else { error };
        delivered(span, &outcome);
        return Ok(true);
    }
    let Some(place) = messaging::wait(span.clone().store()) else { return Ok(false) };
    let delivery = Bound::new(py, Delivery { span: place })?;
    // Newer releases register both under one lock.
    if let Some(both) = future.getattr_opt(intern!(py, "_add_cb_eb"))? {
        both.call1((&delivery, &delivery))?;
    } else {
        future.call_method1(intern!(py, "add_callback"), (&delivery,))?;
        future.call_method1(intern!(py, "add_errback"), (&delivery,))?;
    }
    Ok(true)
}

fn delivered(span: &Span<'_>, outcome: &Bound<'_, PyAny>) {
    if outcome.is_instance_of::<PyBaseException>() {
        failed(span, outcome);
    } else {
        let (partition, offset) = (number(outcome, "partition"), number(outcome, "offset"));
        span.with(|span| set_place(span, partition, offset));
    }
    span.finish();
}

fn number(of: &Bound<'_, PyAny>, name: &str) -> Option<i64> {
    let py = of.py();
    let name = if name == "offset" { intern!(py, "offset") } else { intern!(py, "partition") };
    quiet(py, attribute(of, name)?.extract())
}

fn set_place(span: &mut ActiveSpan, partition: Option<i64>, offset: Option<i64>) {
    if let Some(partition) = partition {
        span.str_with(&semconv::MESSAGING_DESTINATION_PARTITION_ID, |out| decimal(partition, out));
    }
    // -1 where the broker was not asked to acknowledge.
    if let Some(offset) = offset.filter(|offset| *offset >= 0) {
        span.int(&OFFSET, offset);
    }
}

#[cold]
fn failed(span: &Span<'_>, error: &Bound<'_, PyAny>) {
    if !exception::is_cancellation(error) {
        let type_name = exception::type_name(error);
        span.with(|span| exception::set_error(span, &type_name, ""));
    }
}

fn poll(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    // Iteration polls too, and says so: the messages are not handed on together then.
    let update = call.argument(3, intern!(py, "update_offsets"));
    if update.is_some_and(|update| quiet(py, update.is_truthy()) == Some(false)) {
        call.proceed();
        return Ok(());
    }
    if let Some(consumer) = call.arg(0) {
        messaging::leave(py, consumer.as_ptr() as usize);
    }
    let start = clock::now();
    call.proceed();
    received(call, start);
    Ok(())
}

/// Makes the span of a `poll` that brought something or failed.
fn received(call: &Call<'_>, start: clock::Ticks) {
    let py = call.py();
    let Some(consumer) = call.arg(0) else { return };
    let batches =
        call.result().and_then(|result| result.cast::<PyDict>().ok().map(|batches| batches.to_owned()));
    let brought = batches.as_ref().is_some_and(|batches| !batches.is_empty());
    let error = call.error().filter(|error| !exception::is_cancellation(error));
    if !brought && error.is_none() || suppression::suppressed(py, Of::Any) {
        return;
    }
    // As in `next`: a thread that polls outlives what started it.
    let around = current::current(py).filter(|around| around.is_recording() || !around.is_sampled());
    let Some(span) = current::start(py, &POLL, &around).filter(Span::is_recording) else { return };
    span.with(|span| span.began_at(start));
    let config = config(&consumer);
    if let Some(error) = error {
        constants(config.as_ref(), None, true).set(&span, &POLLS);
        failed(&span, &error);
    } else if let Some(batches) = batches {
        describe_poll(&span, config.as_ref(), &batches);
    }
    span.finish();
}

fn describe_poll<'py>(span: &Span<'py>, config: Option<&Bound<'py, PyDict>>, batches: &Bound<'py, PyDict>) {
    let py = batches.py();
    let mut topics: SmallVec<[Bound<'py, PyAny>; 2]> = SmallVec::new();
    let mut count = 0;
    let mut records: SmallVec<[Bound<'py, PyList>; 4]> = SmallVec::new();
    let mut partition = None;
    for (place, batch) in batches.iter() {
        partition = number(&place, "partition");
        let topic = attribute(&place, intern!(py, "topic"));
        if let Some(topic) = topic.filter(|topic| !topics.iter().any(|known| text_equal(known, topic))) {
            topics.push(topic);
        }
        if let Ok(batch) = batch.cast_into::<PyList>() {
            count += batch.len();
            records.push(batch);
        }
    }
    // An attribute of a batch holds for each of its messages.
    let several = topics.len() > 1;
    let topic = if several { None } else { topics.pop() };
    constants(config, topic, true).set(span, &POLLS);
    span.with(|span| {
        span.int(&semconv::MESSAGING_BATCH_MESSAGE_COUNT, count as i64);
        if batches.len() == 1 {
            set_place(span, partition, None);
        }
    });
    for record in records.iter().flat_map(|records| records.iter()) {
        let (Some(remote), carried) = message_context(&record) else { continue };
        let topic = if several { attribute(&record, intern!(py, "topic")) } else { None };
        let topic = text(&topic);
        let (partition, offset) = (number(&record, "partition"), number(&record, "offset"));
        span.with(|span| {
            span.link(&link(&remote, &carried), |link| {
                if let Some(topic) = topic {
                    link.str(&semconv::MESSAGING_DESTINATION_NAME, topic);
                }
                if let Some(partition) = partition {
                    let mut digits = Vec::with_capacity(8);
                    decimal(partition, &mut digits);
                    let digits = std::str::from_utf8(&digits).unwrap_or_default();
                    link.str(&semconv::MESSAGING_DESTINATION_PARTITION_ID, digits);
                }
                if let Some(offset) = offset {
                    link.int(&OFFSET, offset);
                }
            });
        });
    }
}

fn text_equal(one: &Bound<'_, PyAny>, other: &Bound<'_, PyAny>) -> bool {
    one.is(other) || text(&Some(one.clone())) == text(&Some(other.clone()))
}

fn link<'a>(remote: &RemoteContext, carried: &'a Carried) -> Link<'a> {
    Link {
        trace_id: remote.trace_id,
        span_id: remote.span_id,
        flags: remote.flags,
        remote: true,
        trace_state: &carried.trace_state,
    }
}

/// The context that a message's headers carry. Of several headers of one name the last counts, as for Kafka itself.
fn message_context(record: &Bound<'_, PyAny>) -> (Option<RemoteContext>, Carried) {
    let py = record.py();
    let mut found: [Option<Bound<'_, PyBytes>>; 3] = [None, None, None];
    let headers = attribute(record, intern!(py, "headers"));
    let Some(headers) = headers.and_then(|headers| quiet(py, headers.try_iter())) else {
        return (None, Carried::default());
    };
    for header in headers {
        let Some(header) = quiet(py, header).and_then(|header| header.cast_into::<PyTuple>().ok()) else {
            break;
        };
        let name = quiet(py, header.get_item(0));
        let place = agent_core::propagation::HEADERS.iter().position(|known| Some(*known) == text(&name));
        if let Some(place) = place {
            let value = quiet(py, header.get_item(1)).and_then(|value| value.cast_into::<PyBytes>().ok());
            found[place] = value.or(found[place].take());
        }
    }
    let [trace_parent, trace_state, baggage] = &found;
    let bytes = |value: &Option<Bound<'_, PyBytes>>| value.as_ref().map(|value| value.as_bytes().to_vec());
    if trace_parent.is_none() && baggage.is_none() {
        return (None, Carried::default());
    }
    let (trace_parent, trace_state, baggage) = (bytes(trace_parent), bytes(trace_state), bytes(baggage));
    settings::get().propagators.extract(trace_parent.as_deref(), trace_state.as_deref(), baggage.as_deref())
}

fn next(call: &mut Call<'_>) -> HookResult {
    let py = call.py();
    let Some(consumer) = call.arg(0).map(|consumer| consumer.to_owned()) else {
        call.proceed();
        return Ok(());
    };
    messaging::leave(py, consumer.as_ptr() as usize);
    let start = clock::now();
    call.proceed();
    if let Some(error) = call.error() {
        if !error.is_instance_of::<PyStopIteration>() {
            received(call, start);
        }
        return Ok(());
    }
    let Some(record) = call.result() else { return Ok(()) };
    if suppression::suppressed(py, Of::Any) {
        return Ok(());
    }
    let (remote, carried) = message_context(&record);
    let outer = current::current(py);
    let carries = !(carried.trace_state.is_empty() && carried.baggage.is_empty());
    let carried = carries.then(|| std::sync::Arc::new(carried));
    // The trace goes on from the message, unless one is going on here, as in a job that empties a topic. What started
    // this thread is over for the most part; it may also have been left out, which says nothing of the message.
    let goes_on = |outer: &Span<'_>| outer.is_recording() || remote.is_none() && !outer.is_sampled();
    let around = outer.clone().filter(goes_on);
    let span = match (&around, &remote) {
        (Some(_), _) => current::start(py, &PROCESS, &around),
        (None, Some(remote)) => current::start_with(py, &PROCESS, Parent::Remote(remote, carried.as_ref())),
        (None, None) => current::start_with(py, &PROCESS, Parent::Root(carried.as_ref())),
    };
    let Some(span) = span else { return Ok(()) };
    if span.is_recording() {
        let topic = attribute(&record, intern!(py, "topic"));
        constants(config(&consumer).as_ref(), topic, true).set(&span, &PROCESSES);
        let key = attribute(&record, intern!(py, "key"));
        set_message(&span, key, attribute(&record, intern!(py, "value")).is_none());
        let (partition, offset) = (number(&record, "partition"), number(&record, "offset"));
        span.with(|span| {
            set_place(span, partition, offset);
            if let Some(remote) = &remote {
                let none = Carried::default();
                span.link(&link(remote, carried.as_deref().unwrap_or(&none)), |_| {});
            }
        });
    }
    messaging::open(&consumer, span, outer.as_ref());
    Ok(())
}

fn close(call: &mut Call<'_>) -> HookResult {
    if let Some(consumer) = call.arg(0) {
        messaging::close(call.py(), consumer.as_ptr() as usize);
    }
    call.proceed();
    Ok(())
}
