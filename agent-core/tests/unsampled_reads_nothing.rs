//! A span that is not sampled calls back nothing, keeps nothing, is not counted as made, and still propagates.

use std::sync::Mutex;

use agent_core::context::RemoteContext;
use agent_core::record::Link;
use agent_core::span::{Parent, RANDOM, SAMPLED};
use agent_core::tracer;

mod support;

/// Both tests count traces of one process.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn nothing_is_asked_for_and_nothing_is_made() {
    let _alone = ALONE.lock();
    let before = tracer::sampled_out();
    let queue = support::install(1 << 20, None, 512);
    let remote = RemoteContext { trace_id: [7; 16], span_id: [8; 8], flags: RANDOM };
    let mut span = support::started(Parent::Remote(&remote, None));
    assert!(!span.is_recording() && !span.is_sampled());
    span.str_with("a", |_| panic!("read"));
    span.name_with(|_| panic!("read"));
    span.event("b", |_| panic!("read"));
    span.link(&Link { trace_id: [1; 16], span_id: [1; 8], flags: 0, remote: false, trace_state: "" }, |_| {
        panic!("read")
    });
    span.error("c");
    let child = support::started(Parent::Local(&span));
    assert_eq!((child.trace_id, child.parent_span_id, child.flags), ([7; 16], span.span_id, RANDOM));
    assert!(span.span_id != [8; 8] && span.span_id != [0; 8]);
    span.finish();
    assert_eq!(queue.counters(), agent_core::queue::Counters::default());
    assert_eq!(tracer::sampled_out() - before, 1, "the trace, not each span");
}

#[test]
fn the_random_flag_is_ours_at_a_root_and_theirs_below() {
    let _alone = ALONE.lock();
    assert_eq!(support::started(Parent::Root(None)).flags, SAMPLED | RANDOM);
    // Of a remote parent all other flags are dropped, as W3C demands.
    for (theirs, ours) in [(0x01, 0x01), (0x03, 0x03), (0xfd, 0x01), (0xff, 0x03), (0x02, 0x02), (0x00, 0x00)]
    {
        let remote = RemoteContext { trace_id: [7; 16], span_id: [8; 8], flags: theirs };
        let span = support::started(Parent::Remote(&remote, None));
        assert_eq!((span.flags, support::started(Parent::Local(&span)).flags), (ours, ours), "{theirs:#x}");
    }
}
