//! Processes: a child of a fork delivers its own spans by a pipeline of its own, a signal flushes, a pause leaves
//! one thread. Each case is this binary started again, so that nothing else runs in the process.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    unsafe_code,
    reason = "tests; fork, kill and waitpid"
)]
mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use agent_core::Key;
use agent_core::local::{set_queue_source, with_ids};
use agent_core::span::{ActiveSpan, Parent, SpanKind, SpanSpec};
use exporters::{Exporter, ExporterConfig, Otlp, Protocol, Resource, ResourceValue, global};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use support::{Collector, Reply};

static SCOPE: Key = Key::new("remora.fork");

fn finish(count: usize) {
    let spec = SpanSpec { name: "work", kind: SpanKind::Internal, scope: &SCOPE };
    let mut span = ActiveSpan::new();
    for _ in 0..count {
        with_ids(|ids| span.start(&spec, Parent::Root(None), ids));
        span.finish();
    }
}

fn init(endpoint: &str) {
    let otlp = Otlp::new(Protocol::HttpProtobuf, endpoint);
    let mut config = ExporterConfig::new(vec![Exporter::Otlp(Box::new(otlp))]);
    config.schedule_delay = Duration::from_millis(100);
    // A machine that stands still for two seconds is not what is tested.
    config.exit_timeout = Some(Duration::from_secs(30));
    config.resource = Box::new(|_| Resource {
        attributes: vec![("process.pid".into(), ResourceValue::Int(std::process::id().into()))],
    });
    config.log = Box::new(|level, line| eprintln!("remora: {level:?}: {line}"));
    config.after_sigterm = Box::new(|| {
        // SAFETY: restores the default action and sends a signal to this process.
        unsafe {
            libc::signal(libc::SIGTERM, libc::SIG_DFL);
            libc::kill(libc::getpid(), libc::SIGTERM);
        }
    });
    agent_core::clock::init();
    assert!(global::init(config));
    assert!(set_queue_source(global::queue_source));
    extern "C" fn child() {
        agent_core::generation::bump();
    }
    // SAFETY: the handler is one atomic add.
    unsafe { libc::pthread_atfork(None, None, Some(child)) };
}

fn balance() -> agent_core::queue::Counters {
    let counters = global::status().counters;
    assert_eq!(
        counters.made,
        counters.sent + counters.lost.iter().sum::<u64>() + counters.pending,
        "{counters:?}"
    );
    counters
}

/// Runs `body` in a forked child; its panics are its exit status.
fn fork(body: impl FnOnce()) -> i32 {
    // SAFETY: the child only runs `body` and leaves by `_exit`.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
        // SAFETY: ends the process.
        unsafe { libc::_exit(i32::from(result.is_err())) };
    }
    pid
}

fn wait(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: `status` is written by the call.
    unsafe { libc::waitpid(pid, &mut status, 0) };
    status
}

/// Starts this binary again as `case`, with the Collector's address.
fn run(case: &str, collector: &Collector) -> std::process::Output {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([case, "--exact", "--nocapture", "--include-ignored"])
        .env("REMORA_TEST_ENDPOINT", collector.url())
        .output()
        .unwrap();
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    output
}

fn endpoint() -> Option<String> {
    std::env::var("REMORA_TEST_ENDPOINT").ok()
}

/// Spans by the process id in the resource.
fn by_process(collector: &Collector) -> std::collections::BTreeMap<i64, usize> {
    let mut found = std::collections::BTreeMap::new();
    for request in collector.taken.lock().unwrap().iter() {
        let attribute = &request.resource_spans[0].resource.as_ref().unwrap().attributes[0];
        if let Some(Value::IntValue(pid)) = attribute.value.as_ref().unwrap().value {
            *found.entry(pid).or_default() += support::count(request);
        }
    }
    found
}

#[test]
#[ignore = "a process of its own, started by the test below"]
fn forking() {
    let Some(endpoint) = endpoint() else { return };
    init(&endpoint);
    for round in 0..30 {
        finish(100);
        let child = fork(|| {
            // Nothing of the parent's is ours.
            assert!(global::current().is_none());
            finish(50);
            let grandchild = fork(|| {
                finish(25);
                global::shutdown();
                assert_eq!(balance().sent, 25);
            });
            assert_eq!(wait(grandchild), 0);
            global::shutdown();
            let counters = balance();
            assert_eq!((counters.made, counters.sent), (50, 50));
        });
        assert_eq!(wait(child), 0, "round {round}");
    }
    global::shutdown();
    let counters = balance();
    assert_eq!((counters.made, counters.sent), (3_000, 3_000));
}

#[test]
fn children_of_forks_deliver_their_own_spans_and_nothing_twice() {
    let collector = Collector::start(|_| Reply::Ok);
    assert!(run("forking", &collector).status.success());
    let processes = by_process(&collector);
    assert_eq!(processes.len(), 61);
    let mut counts: Vec<usize> = processes.into_values().collect();
    counts.sort_unstable();
    assert_eq!(counts[..30], [25; 30]);
    assert_eq!(counts[30..60], [50; 30]);
    assert_eq!(counts[60], 3_000);
}

#[test]
#[ignore = "a process of its own, started by the test below"]
fn pausing() {
    let Some(endpoint) = endpoint() else { return };
    init(&endpoint);
    let threads = || {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let after = stat.rsplit_once(") ").unwrap().1.to_owned();
        after.split(' ').nth(17).unwrap().parse::<usize>().unwrap()
    };
    let before = threads();
    for _ in 0..200 {
        finish(10);
        assert!(global::pause_for_fork(Duration::from_millis(500)));
        // What CPython counts at os.fork.
        assert_eq!(threads(), before);
        balance();
        let child = fork(|| {
            global::resume_after_fork();
            finish(1);
            global::shutdown();
            assert_eq!(balance().sent, 1);
        });
        global::resume_after_fork();
        assert_eq!(wait(child), 0);
    }
    global::shutdown();
    assert_eq!(balance().sent, 2_000);
}

#[test]
fn a_pause_leaves_no_thread_behind_and_loses_nothing() {
    let collector = Collector::start(|_| Reply::Ok);
    assert!(run("pausing", &collector).status.success());
    let processes = by_process(&collector);
    assert_eq!(processes.len(), 201);
    assert_eq!(processes.values().sum::<usize>(), 2_200);
}

#[test]
#[ignore = "a process of its own, started by the test below"]
fn terminated() {
    let Some(endpoint) = endpoint() else { return };
    init(&endpoint);
    extern "C" fn handler(_: i32) {
        assert!(global::sigterm_flush_request());
    }
    // SAFETY: the handler is async-signal-safe.
    unsafe { libc::signal(libc::SIGTERM, handler as *const () as libc::sighandler_t) };
    finish(1_000);
    // SAFETY: a signal to this process.
    unsafe { libc::kill(libc::getpid(), libc::SIGTERM) };
    std::thread::sleep(Duration::from_secs(20));
}

#[test]
fn sigterm_flushes_and_then_kills() {
    use std::os::unix::process::ExitStatusExt;
    let collector = Collector::start(|_| Reply::Ok);
    let start = Instant::now();
    assert_eq!(run("terminated", &collector).status.signal(), Some(libc::SIGTERM));
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(collector.spans(), 1_000);
}
