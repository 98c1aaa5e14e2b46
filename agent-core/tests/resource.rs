//! The resource says who we are, lets the operator win, and holds no secret.

use agent_core::resource::{Detectors, ProcessFacts, ResourceValue, build, host_arch};
use agent_core::settings::ResourceSettings;

fn facts() -> ProcessFacts {
    ProcessFacts {
        pid: 42,
        executable_name: "python3.11".into(),
        executable_path: "/usr/bin/python3.11".into(),
        command: "python".into(),
        runtime_name: "cpython".into(),
        host_name: "box".into(),
        host_arch: host_arch("x86_64").into(),
        os_type: "linux".into(),
        ..ProcessFacts::default()
    }
}

fn settings(name: Option<&str>, attributes: &[(&str, &str)], detectors: Detectors) -> ResourceSettings {
    ResourceSettings {
        service_name: name.map(str::to_owned),
        attributes: attributes.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        detectors,
    }
}

fn get(settings: &ResourceSettings, key: &str) -> Option<ResourceValue> {
    let built = build(&facts(), settings, "an-instance");
    let mut found: Vec<_> = built.into_iter().filter(|(name, _)| name == key).collect();
    assert!(found.len() <= 1, "{key} is there twice");
    found.pop().map(|(_, value)| value)
}

#[test]
fn the_service_name_follows_the_specification() {
    let name = |settings: ResourceSettings| get(&settings, "service.name").unwrap();
    let given = &[("service.name", "from-attributes")];
    assert_eq!(name(settings(Some("own"), given, Detectors::ALL)), "own".into());
    assert_eq!(name(settings(None, given, Detectors::NONE)), "from-attributes".into());
    assert_eq!(name(settings(None, &[], Detectors::NONE)), "unknown_service:python3.11".into());
}

#[test]
fn the_operator_wins_over_detectors() {
    let own =
        settings(None, &[("host.name", "mine"), ("service.instance.id", "7"), ("team", "a")], Detectors::ALL);
    assert_eq!(get(&own, "host.name"), Some("mine".into()));
    assert_eq!(get(&own, "service.instance.id"), Some("7".into()));
    assert_eq!(get(&own, "team"), Some("a".into()));
    assert_eq!(get(&own, "host.arch"), Some("amd64".into()));
}

#[test]
fn detectors_are_chosen() {
    let some = settings(None, &[], Detectors::PROCESS);
    assert_eq!(get(&some, "process.pid"), Some(ResourceValue::Int(42)));
    assert_eq!(get(&some, "process.owner"), None, "unknown is left out");
    for absent in ["host.name", "os.type", "service.instance.id"] {
        assert_eq!(get(&some, absent), None, "{absent}");
    }
    let none = settings(None, &[], Detectors::NONE);
    assert_eq!(build(&facts(), &none, "x").len(), 6);
    assert_eq!(get(&none, "telemetry.sdk.language"), Some("python".into()));
    assert_eq!(get(&none, "telemetry.distro.name"), Some("remora".into()));
    assert_eq!(get(&settings(None, &[], Detectors::ALL), "os.type"), Some("linux".into()));
}

#[test]
fn no_argument_of_the_command_line_is_kept() {
    let built = build(&facts(), &settings(None, &[], Detectors::ALL), "x");
    assert!(built.iter().all(|(key, _)| key != "process.command_args" && key != "process.command_line"));
}
