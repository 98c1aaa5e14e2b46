//! What is beyond a limit is dropped and counted on the span; events and links have limits of their own; no loop of
//! an application fills the memory through one span.

use agent_core::limits::Limits;
use agent_core::record::{Entry, Link, MAX_RECORD_BYTES};
use agent_core::span::{ActiveSpan, Chunk, Parent, StatusCode};
use agent_core::tracer::{self, Tracer};
use agent_core::{Key, clock};

mod support;

static NAME: Key = Key::new("test.event");

fn started() -> ActiveSpan {
    let limits = Limits {
        attribute_count: 3,
        attribute_value_length: Some(4),
        event_count: 2,
        link_count: 0,
        event_attribute_count: 1,
        link_attribute_count: 0,
    };
    tracer::install(Tracer { limits, ..Tracer::default() });
    support::started(Parent::Root(None))
}

fn chunk(span: &ActiveSpan) -> Chunk {
    let mut chunk = Chunk::with_capacity(1);
    chunk.push(span, clock::now());
    chunk
}

fn entries(span: &ActiveSpan) -> Vec<String> {
    chunk(span).iter().flat_map(|span| span.entries).map(|entry| format!("{entry:?}")).collect()
}

#[test]
fn a_text_that_was_set_can_be_read_and_an_error_taken_back() {
    let mut span = started();
    span.int("at", 1);
    span.str("at", "one");
    span.str("at", "two");
    assert_eq!(span.text("at"), Some("two"));
    assert_eq!(span.text("other"), None);
    span.error("");
    span.no_error();
    assert_eq!(span.status(), StatusCode::Unset);
}

#[test]
fn attributes_events_and_links_each_have_their_limit() {
    let mut span = started();
    for i in 0..5 {
        span.str("key", "value");
        span.event(&NAME, |event| (0..3).for_each(|_| event.int("i", i)));
        span.link(
            &Link { trace_id: [1; 16], span_id: [2; 8], flags: 1, remote: false, trace_state: "" },
            |_| {},
        );
    }
    let chunk = chunk(&span);
    let seen = chunk.iter().next().unwrap();
    let dropped = (seen.span.dropped_attributes, seen.span.dropped_events, seen.span.dropped_links);
    assert_eq!(dropped, (2, 3, 5));
    let (mut attributes, mut events) = (0, 0);
    for entry in seen.entries {
        match entry {
            Entry::Attribute(_, value) => {
                attributes += 1;
                assert_eq!(format!("{value:?}"), "Str(\"valu\")");
            }
            Entry::Event(_, name, inner, dropped) => {
                events += 1;
                assert_eq!((name, inner.count(), dropped), ("test.event", 1, 2));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((attributes, events), (3, 2));
}

#[test]
fn an_attribute_set_again_is_one_attribute() {
    let mut span = started();
    for i in 0..100_000 {
        span.replace("count");
        span.int("count", i);
    }
    assert_eq!(entries(&span), ["Attribute(\"count\", Int(99999))"]);
}

#[test]
fn a_name_set_again_and_again_takes_no_room() {
    let mut span = started();
    for i in 0..100_000 {
        span.name(&format!("name {i}"));
        span.error("again");
    }
    let chunk = chunk(&span);
    assert!(chunk.arena_len() < 8_192, "{}", chunk.arena_len());
    let last = chunk.iter().flat_map(|span| span.entries).filter(|e| matches!(e, Entry::Name(_))).last();
    assert_eq!(format!("{last:?}"), "Some(Name(\"name 99999\"))");
}

#[test]
fn a_huge_span_stays_within_its_bound() {
    let mut span = started();
    let (texts, long) = (vec!["x"; 100_000], "y".repeat(100_000));
    span.str_array("array", texts.iter().copied());
    span.str_with("long", |out| out.extend_from_slice(long.as_bytes()));
    span.name(&long);
    assert!(chunk(&span).arena_len() < 200_000);
    assert!(chunk(&span).arena_len() < MAX_RECORD_BYTES);
}
