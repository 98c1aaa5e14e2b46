//! What enters and leaves with a request follows W3C, whatever a peer sends.

use agent_core::context::RemoteContext;
use agent_core::propagation::w3c::{parse_trace_parent, parse_trace_state, write_trace_parent};
use agent_core::propagation::{Propagators, baggage};
use proptest::prelude::*;

const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn parent(text: &str) -> Option<RemoteContext> {
    parse_trace_parent(text.as_bytes())
}

fn state(lines: &[&str]) -> String {
    parse_trace_state(lines.iter().map(|line| line.as_bytes())).into()
}

fn bag(lines: &[&str]) -> String {
    baggage::parse(lines.iter().map(|line| line.as_bytes())).into()
}

#[test]
fn a_good_trace_parent_is_read() {
    let context = parent(GOOD).unwrap();
    assert_eq!(context.trace_id[..2], [0x0a, 0xf7]);
    assert_eq!(context.span_id, [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]);
    assert_eq!(context.flags, 1);
    assert_eq!(parent(&format!(" \t{GOOD} ")), Some(context));
}

#[test]
fn a_malformed_trace_parent_is_none() {
    for bad in [
        "",
        "00",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g",
        "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "0x-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.",
        "00-0af7651916cd43dd8448eb211c80319-cb7ad6b7169203331-01",
        "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.x",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01,00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ] {
        assert_eq!(parent(bad), None, "{bad:?}");
    }
}

#[test]
fn a_later_version_is_read_as_far_as_we_know_it() {
    let known = parent(GOOD);
    for later in [
        "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-ever",
        "fe-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
    ] {
        assert_eq!(parent(later), known, "{later:?}");
    }
}

#[test]
fn trace_state_lines_are_combined_in_order() {
    assert_eq!(state(&["a=1, b=2 ,", "\tc=3 4,tenant@sys=x"]), "a=1,b=2,c=3 4,tenant@sys=x");
    assert_eq!(state(&[]), "");
    assert_eq!(state(&["", " , "]), "");
}

#[test]
fn a_malformed_trace_state_is_dropped_whole() {
    for bad in ["a", "a=", "=1", "A=1", "a =1", "a=1=2", "a=\u{e9}", "a=1\r\nx: y", "_a=1", "a=\x7f"] {
        assert_eq!(state(&["ok=1", bad]), "", "{bad:?}");
    }
    let many: Vec<String> = (0..33).map(|n| format!("k{n}=1")).collect();
    assert_eq!(state(&[&many.join(",")]), "");
    assert_eq!(state(&[&many[..32].join(",")]).split(',').count(), 32);
    assert_eq!(state(&[&format!("{}=1", "k".repeat(257))]), "");
    assert_eq!(state(&[&format!("k={}", "v".repeat(257))]), "");
}

#[test]
fn a_long_trace_state_loses_long_members_first_and_then_the_last() {
    let long = format!("long={}", "v".repeat(200));
    let short: Vec<String> = (0..20).map(|n| format!("k{n:02}={}", "v".repeat(24))).collect();
    let kept = state(&[&long, &short.join(",")]);
    assert!(kept.len() <= 512 && kept.starts_with("k00=") && !kept.contains("long"));
    assert_eq!(kept.split(',').count(), 513 / 29);
    assert_eq!(state(&[&long]), long);
}

#[test]
fn baggage_travels_as_it_came() {
    assert_eq!(bag(&["user=alice%20b;ttl=1;secret , k = v"]), "user=alice%20b;ttl=1;secret,k = v");
    assert_eq!(bag(&["a=1", "b=2"]), "a=1,b=2");
    assert_eq!(bag(&["a=1,bad,=2,c=\"x\",d=a b,e=\r\n,f=\u{e9},g="]), "a=1,g=");
    assert_eq!(bag(&[]), "");
}

#[test]
fn baggage_is_bounded() {
    let many: Vec<String> = (0..500).map(|n| format!("k{n}=1")).collect();
    assert_eq!(bag(&[&many.join(",")]).split(',').count(), baggage::MAX_MEMBERS);
    let wide: Vec<String> = (0..100).map(|n| format!("k{n}={}", "v".repeat(200))).collect();
    let kept = bag(&[&wide.join(",")]);
    assert!(kept.len() <= baggage::MAX_BYTES && kept.len() > baggage::MAX_BYTES - 220);
    assert_eq!(bag(&[&format!("k={}", "v".repeat(9000)), "a=1"]), "a=1");
}

#[test]
fn each_propagator_reads_its_own_headers() {
    let headers =
        |propagators: Propagators| propagators.extract(Some(GOOD.as_bytes()), [&b"a=1"[..]], [&b"k=v"[..]]);
    let (remote, carried) = headers(Propagators::DEFAULT);
    assert!(remote.is_some());
    assert_eq!((&*carried.trace_state, &*carried.baggage), ("a=1", "k=v"));
    let (remote, carried) = headers(Propagators::BAGGAGE);
    assert!(remote.is_none() && carried.trace_state.is_empty() && &*carried.baggage == "k=v");
    let (remote, carried) = headers(Propagators::TRACE_CONTEXT);
    assert!(remote.is_some() && carried.baggage.is_empty());
    let (remote, carried) = headers(Propagators::NONE);
    assert!(remote.is_none() && carried == Default::default());
    let (remote, carried) = Propagators::DEFAULT.extract(Some(b"junk"), [&b"a=1"[..]], [&b"k=v"[..]]);
    assert!(remote.is_none() && carried.trace_state.is_empty() && &*carried.baggage == "k=v");
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(trace_id: [u8; 16], span_id: [u8; 8], flags: u8) {
        prop_assume!(trace_id != [0; 16] && span_id != [0; 8]);
        let context = RemoteContext { trace_id, span_id, flags };
        prop_assert_eq!(parse_trace_parent(&write_trace_parent(&context)), Some(context));
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_trace_parent(&bytes);
        let kept = parse_trace_state([&bytes[..], &bytes[..]]);
        prop_assert!(kept.len() <= 512);
        let kept = baggage::parse([&bytes[..]]);
        prop_assert!(kept.len() <= bytes.len());
    }

    #[test]
    fn one_changed_byte_is_survived(at in 0_usize..55, byte: u8) {
        let mut header = GOOD.as_bytes().to_vec();
        header[at] = byte;
        if let Some(context) = parse_trace_parent(&header) {
            prop_assert!(context.trace_id != [0; 16] && context.span_id != [0; 8]);
        }
    }

    #[test]
    fn what_was_kept_is_kept_again(text in "([a-z0-9@]{1,8}=[ -~]{0,12}[;,]?){0,40}") {
        let once = state(&[&text]);
        prop_assert_eq!(state(&[&once]), once);
        let once = bag(&[&text]);
        prop_assert_eq!(bag(&[&once]), once);
    }
}
