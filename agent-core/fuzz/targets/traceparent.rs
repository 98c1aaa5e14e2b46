#![no_main]

use agent_core::propagation::w3c::{parse_trace_parent, write_trace_parent};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(context) = parse_trace_parent(bytes) {
        let written = write_trace_parent(&context);
        assert_eq!(parse_trace_parent(&written), Some(context));
        // The version may be a later one; ids and flags are as they came.
        assert!(bytes.windows(53).any(|window| window == &written[2..]));
    }
});
