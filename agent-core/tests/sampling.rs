//! The six samplers decide as the specification says, and as the OpenTelemetry SDK for Python does.

use agent_core::sampling::{NAMES, ParentInfo, Sampler};

const PARENTS: [Option<ParentInfo>; 5] = [
    None,
    Some(ParentInfo { sampled: true, remote: true }),
    Some(ParentInfo { sampled: true, remote: false }),
    Some(ParentInfo { sampled: false, remote: true }),
    Some(ParentInfo { sampled: false, remote: false }),
];

fn id(low: u64) -> [u8; 16] {
    let mut id = [0xff; 16];
    id[8..].copy_from_slice(&low.to_be_bytes());
    id
}

fn decisions(name: &str, ratio: f64, low: u64) -> [bool; 5] {
    let sampler = Sampler::named(name, ratio);
    PARENTS.map(|parent| sampler.is_some_and(|sampler| sampler.should_sample(parent, id(low))))
}

#[test]
fn each_sampler_decides_by_parent_and_ratio() {
    assert_eq!(decisions("always_on", 0.0, 7), [true; 5]);
    assert_eq!(decisions("always_off", 1.0, 7), [false; 5]);
    assert_eq!(decisions("parentbased_always_on", 0.0, 7), [true, true, true, false, false]);
    assert_eq!(decisions("parentbased_always_off", 0.0, 7), [false, true, true, false, false]);
    assert_eq!(decisions("traceidratio", 0.5, 7), [true; 5]);
    assert_eq!(decisions("traceidratio", 0.5, u64::MAX), [false; 5]);
    assert_eq!(decisions("parentbased_traceidratio", 0.5, u64::MAX), [false, true, true, false, false]);
}

#[test]
fn the_bound_is_exact() {
    assert!(decisions("traceidratio", 0.5, (1 << 63) - 1)[0]);
    assert!(!decisions("traceidratio", 0.5, 1 << 63)[0]);
    assert!(decisions("traceidratio", 1.0, u64::MAX)[0]);
    assert!(!decisions("traceidratio", 0.0, 0)[0]);
    // round(0.1 * 2**64) in Python.
    assert!(decisions("traceidratio", 0.1, 1_844_674_407_370_955_263)[0]);
    assert!(!decisions("traceidratio", 0.1, 1_844_674_407_370_955_264)[0]);
}

#[test]
fn what_is_no_sampler_is_refused() {
    assert!(NAMES.iter().all(|name| Sampler::named(name, 1.0).is_some()));
    for name in ["", "parentbased_", "jaeger_remote", "parentbased_parentbased_always_on", "ALWAYS_ON"] {
        assert_eq!(Sampler::named(name, 1.0), None, "{name:?}");
    }
    for ratio in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        assert_eq!(Sampler::named("traceidratio", ratio), None, "{ratio}");
    }
    assert_eq!(Sampler::default(), Sampler::named("parentbased_always_on", 1.0).unwrap());
}
