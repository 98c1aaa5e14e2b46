#![no_main]

use agent_core::propagation::{baggage, w3c};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let lines = || bytes.split(|byte| *byte == b'\n');
    let state = w3c::parse_trace_state(lines());
    assert!(state.len() <= w3c::TRACE_STATE_LEN);
    assert_eq!(w3c::parse_trace_state([state.as_bytes()]), state);
    let members = baggage::parse(lines());
    assert!(members.len() <= baggage::MAX_BYTES);
    assert_eq!(baggage::parse([members.as_bytes()]), members);
});
