//! What is made arrives; what does not is counted. `made = sent + lost + pending` after every fault.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests"
)]
mod support;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use agent_core::queue::Loss;
use exporters::status::State;
use exporters::{Compression, Exporter, Otlp, Protocol};
use support::{Collector, Reply, Under};

fn lost(under: &Under, reason: Loss) -> u64 {
    under.balance().lost[reason as usize]
}

#[test]
fn spans_arrive_and_are_counted_as_sent() {
    for compression in [Compression::None, Compression::Gzip, Compression::Deflate] {
        let collector = Collector::start(|_| Reply::Ok);
        let mut otlp = Otlp::new(Protocol::HttpProtobuf, collector.url());
        otlp.compression = compression;
        let under = Under::test(otlp, |_| {});
        under.finish(1_000);
        assert!(under.pipeline.flush(Duration::from_secs(10)));
        assert_eq!(collector.spans(), 1_000);
        assert_eq!(under.balance().sent, 1_000);
        assert_eq!(under.pipeline.status().state, State::Ok);
        under.pipeline.shutdown();
        assert!(under.lines().is_empty(), "{:?}", under.lines());
    }
}

#[test]
fn an_idle_threads_spans_go_with_the_timer() {
    let collector = Collector::start(|_| Reply::Ok);
    let under = Under::http(collector.url());
    let slot = under.pipeline.queue().slot();
    for round in 1..=3 {
        support::finish(under.pipeline, slot);
        under.pipeline.start();
        under.wait("timer", |_| collector.spans() == round);
        // Long enough to doze: the next span must wake it.
        std::thread::sleep(Duration::from_millis(200));
    }
    under.balance();
}

#[test]
fn three_hundred_thousand_spans_in_a_burst_all_arrive_within_the_exit_bound() {
    let collector = Collector::start(|_| Reply::Ok);
    let under = Under::test(Otlp::new(Protocol::HttpProtobuf, collector.url()), |config| {
        config.schedule_delay = Duration::from_secs(5);
    });
    let slot = under.pipeline.queue().slot();
    under.pipeline.start();
    for _ in 0..300_000 {
        support::finish(under.pipeline, slot);
    }
    let start = Instant::now();
    under.pipeline.shutdown();
    let took = start.elapsed();
    println!("exit after {took:?}");
    let counters = under.balance();
    assert_eq!((counters.made, counters.sent), (300_000, 300_000), "after {took:?}: {counters:?}");
    assert_eq!(collector.spans(), 300_000);
}

#[test]
fn a_refused_connection_keeps_spans_says_so_once_and_recovers() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let under = Under::http(format!("http://{address}/v1/traces"));
    under.finish(10);
    under.wait("two failures", |u| u.pipeline.status().failures >= 2);
    let counters = under.balance();
    assert_eq!((counters.sent, counters.pending), (0, 10));
    assert_eq!(
        under.lines(),
        [format!("cannot reach http://{address}/v1/traces (connection refused); retrying, spans are kept")]
    );
    let collector = Collector::on(TcpListener::bind(address).unwrap(), |_| Reply::Ok);
    assert!(under.pipeline.flush(Duration::from_secs(10)));
    assert_eq!(collector.spans(), 10);
    assert_eq!(under.balance().sent, 10);
    assert_eq!(under.lines()[1..], [format!("http://{address}/v1/traces reachable again")]);
}

#[test]
fn exit_with_a_refused_connection_takes_at_most_a_third_of_a_second_and_counts() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let under = Under::http(format!("http://{address}/v1/traces"));
    under.finish(10);
    let start = Instant::now();
    under.pipeline.shutdown();
    assert!(start.elapsed() < Duration::from_millis(800), "{:?}", start.elapsed());
    assert_eq!(lost(&under, Loss::Exit), 10);
    assert_eq!(under.lines().last().unwrap(), "10 spans lost (exit=10), 0 sent");
}

#[test]
fn exit_with_a_silent_receiver_takes_two_seconds_and_counts() {
    let collector = Collector::start(|_| Reply::Hang);
    let under = Under::http(collector.url());
    under.finish(10);
    let start = Instant::now();
    under.pipeline.shutdown();
    let took = start.elapsed();
    assert!(took > Duration::from_millis(1_900) && took < Duration::from_millis(3_000), "{took:?}");
    assert_eq!(lost(&under, Loss::Exit), 10);
    assert_eq!(under.balance().pending, 0);
}

#[test]
fn the_exit_timeout_sets_both_bounds() {
    let collector = Collector::start(|_| Reply::Hang);
    let under = Under::test(Otlp::new(Protocol::HttpProtobuf, collector.url()), |config| {
        config.exit_timeout = Some(Duration::from_millis(100));
    });
    under.finish(10);
    let start = Instant::now();
    under.pipeline.shutdown();
    assert!(start.elapsed() < Duration::from_millis(900));
    assert_eq!(lost(&under, Loss::Exit), 10);
}

#[test]
fn retryable_answers_are_retried_until_accepted() {
    for status in [429, 502, 503, 504] {
        let collector = Collector::start(move |n| match n {
            0 => Reply::Http(status, String::new(), b"secret of the server".to_vec()),
            _ => Reply::Ok,
        });
        let under = Under::http(collector.url());
        under.finish(10);
        assert!(under.pipeline.flush(Duration::from_secs(10)), "{status}");
        assert_eq!((collector.requests(), collector.spans()), (2, 10));
        assert_eq!(under.balance().sent, 10);
        assert!(!format!("{:?}{:?}", under.lines, under.pipeline.status()).contains("secret"));
    }
}

#[test]
fn retry_after_is_waited_for() {
    let collector = Collector::start(|n| match n {
        0 => Reply::Http(429, "Retry-After: 1\r\n".into(), Vec::new()),
        _ => Reply::Ok,
    });
    let under = Under::http(collector.url());
    under.finish(10);
    let start = Instant::now();
    under.wait("sent", |u| u.balance().sent == 10);
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[test]
fn other_answers_are_final_and_counted_as_rejected() {
    for status in [301, 400, 401, 404, 413, 500] {
        let collector = Collector::start(move |_| Reply::Http(status, String::new(), b"secret".to_vec()));
        let under = Under::http(collector.url());
        under.finish(10);
        under.pipeline.flush(Duration::from_secs(10));
        assert_eq!(lost(&under, Loss::Rejected), 10, "{status}");
        assert_eq!(under.balance().pending, 0);
        assert_eq!(under.pipeline.status().state, State::Refusing);
        assert!(
            under.lines()[0].contains(&format!("refuses spans (HTTP status {status})")),
            "{:?}",
            under.lines()
        );
    }
}

#[test]
fn a_partial_success_counts_what_was_refused() {
    // partial_success { rejected_spans: 4 }
    let collector = Collector::start(|_| Reply::Http(200, String::new(), vec![0x0a, 2, 0x08, 4]));
    let under = Under::http(collector.url());
    under.finish(10);
    assert!(!under.pipeline.flush(Duration::from_secs(10)));
    let counters = under.balance();
    assert_eq!((counters.sent, counters.lost[Loss::Rejected as usize]), (6, 4));
}

#[test]
fn garbage_after_a_success_counts_as_sent_and_is_said_once() {
    let collector = Collector::start(|_| Reply::Http(200, String::new(), b"<html>hello</html>".to_vec()));
    let under = Under::http(collector.url());
    for _ in 0..3 {
        under.finish(10);
        assert!(under.pipeline.flush(Duration::from_secs(10)));
    }
    assert_eq!(under.balance().sent, 30);
    assert_eq!(under.lines().len(), 1, "{:?}", under.lines());
}

#[test]
fn an_acceptance_whose_body_breaks_off_is_not_sent_again() {
    for reply in [
        Reply::Raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", false),
        Reply::Raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", true),
        Reply::Raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", false),
    ] {
        let kind = format!("{reply:?}");
        let collector = Collector::start(move |n| if n == 0 { reply.clone() } else { Reply::Ok });
        let mut otlp = Otlp::new(Protocol::HttpProtobuf, collector.url());
        otlp.timeout = Duration::from_millis(500);
        let under = Under::test(otlp, |_| {});
        under.finish(10);
        assert!(under.pipeline.flush(Duration::from_secs(10)), "{kind}: {:?}", under.lines());
        assert_eq!((under.balance().sent, collector.requests()), (10, 1), "{kind}");
        // What is left of the connection is not used again.
        under.finish(10);
        assert!(under.pipeline.flush(Duration::from_secs(10)), "{kind}: {:?}", under.lines());
        assert_eq!((under.balance().sent, collector.spans()), (20, 20), "{kind}");
    }
}

#[test]
fn an_exit_that_gave_up_is_not_waited_for_again() {
    let collector = Collector::start(|_| Reply::Http(400, String::new(), Vec::new()));
    let (go, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let under = Under::test(Otlp::new(Protocol::HttpProtobuf, collector.url()), |config| {
        config.exit_timeout = Some(Duration::from_secs(1));
        // The exporter hangs in what it has to say.
        config.log = Box::new(move |_, _| {
            let _ = held.lock().unwrap().recv();
        });
    });
    under.finish(10);
    under.pipeline.shutdown();
    let start = Instant::now();
    under.pipeline.leave();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(!under.pipeline.request_sigterm_flush());
    drop(go);
}

#[test]
fn spans_of_after_the_exit_flush_are_sent_with_the_last_of_the_process() {
    let collector = Collector::start(|_| Reply::Ok);
    let under = Under::http(collector.url());
    for round in 1..=3 {
        under.finish(10);
        if round == 1 {
            under.pipeline.shutdown();
        } else {
            under.pipeline.leave();
        }
        assert_eq!((under.balance().sent, collector.spans()), (10 * round, 10 * round as usize));
        assert!(!under.pipeline.status().running);
    }
}

#[test]
fn a_connection_closed_mid_request_is_retried() {
    for reply in [Reply::CloseEarly, Reply::CloseLate] {
        let kind = format!("{reply:?}");
        let collector = Collector::start(move |n| if n == 0 { reply.clone() } else { Reply::Ok });
        let under = Under::http(collector.url());
        under.finish(10);
        assert!(under.pipeline.flush(Duration::from_secs(10)), "{kind}: {:?}", under.lines());
        assert_eq!(under.balance().sent, 10);
        assert_eq!(collector.spans(), 10);
    }
}

#[test]
fn a_hanging_receiver_times_out_and_is_tried_again() {
    let collector = Collector::start(|n| if n == 0 { Reply::Hang } else { Reply::Ok });
    let mut otlp = Otlp::new(Protocol::HttpProtobuf, collector.url());
    otlp.timeout = Duration::from_millis(200);
    let under = Under::test(otlp, |_| {});
    under.finish(10);
    assert!(under.pipeline.flush(Duration::from_secs(10)));
    assert_eq!(under.balance().sent, 10);
    assert!(under.lines()[0].contains("no answer within 0.2 s"), "{:?}", under.lines());
}

#[test]
fn a_slow_receiver_loses_nothing() {
    let collector = Collector::start(|_| Reply::Slow(Duration::from_millis(20)));
    let under = Under::test(Otlp::new(Protocol::HttpProtobuf, collector.url()), |config| {
        config.max_export_batch_size = 64;
    });
    for _ in 0..50 {
        under.finish(100);
        std::thread::sleep(Duration::from_millis(2));
        under.balance();
    }
    assert!(under.pipeline.flush(Duration::from_secs(20)));
    assert_eq!((under.balance().sent, collector.spans()), (5_000, 5_000));
}

#[test]
fn few_large_spans_do_not_wait_for_many() {
    let collector = Collector::start(|_| Reply::Ok);
    let under = Under::test(Otlp::new(Protocol::HttpProtobuf, collector.url()), |config| {
        config.schedule_delay = Duration::from_secs(3600);
        config.queue_max_bytes = 400_000;
    });
    // The exporter runs, and has gone to sleep again.
    under.finish(1);
    std::thread::sleep(Duration::from_millis(50));
    // Too few for a batch; a chunk of 64 and its records are some 10 KB.
    under.finish(1_499);
    let until = Instant::now() + Duration::from_secs(20);
    while collector.spans() == 0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(collector.spans() > 0);
    assert!(under.pipeline.flush(Duration::from_secs(20)));
    assert_eq!((under.balance().sent, collector.spans()), (1_500, 1_500));
}

#[test]
fn memory_is_bounded_and_the_oldest_are_lost_first_and_counted() {
    let collector = Collector::start(|_| Reply::Http(503, String::new(), Vec::new()));
    let under = Under::test(Otlp::new(Protocol::HttpProtobuf, collector.url()), |config| {
        config.max_export_batch_size = 64;
        config.queue_max_bytes = 100_000;
        config.retry_max_bytes = 50_000;
    });
    for _ in 0..100 {
        under.finish(100);
        std::thread::sleep(Duration::from_millis(3));
        let status = under.pipeline.status();
        assert!(status.queue_bytes <= 100_000 + 20_000, "{status:?}");
        assert!(status.retry_bytes <= 50_000 + 16_000, "{status:?}");
    }
    under.wait("loss", |u| u.pipeline.status().failures > 0 && lost(u, Loss::RetryFull) > 0);
    let counters = under.balance();
    assert_eq!(counters.sent, 0);
    assert!(counters.pending > 500);
    under.pipeline.shutdown();
    let counters = under.balance();
    assert_eq!((counters.made, counters.pending), (10_000, 0));
}

#[test]
fn a_file_gets_one_request_per_line_and_an_unwritable_one_is_said_once() {
    let folder = std::env::temp_dir().join(format!("remora-file-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("spans-%p.jsonl");
    let under = Under::with(vec![Exporter::File(path.to_string_lossy().into_owned())], |_| {});
    under.finish(600);
    assert!(under.pipeline.flush(Duration::from_secs(10)));
    under.finish(1);
    under.pipeline.shutdown();
    assert_eq!(under.balance().sent, 601);
    let text = std::fs::read_to_string(folder.join(format!("spans-{}.jsonl", std::process::id()))).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() >= 2);
    assert_eq!(lines[0]["resourceSpans"][0]["scopeSpans"][0]["scope"]["name"], "remora.test");

    let under = Under::with(vec![Exporter::File("/nowhere/x.jsonl".into())], |_| {});
    for _ in 0..3 {
        under.finish(10);
        under.pipeline.flush(Duration::from_secs(10));
    }
    assert_eq!(lost(&under, Loss::File), 30);
    let lines = under.lines();
    assert_eq!(
        lines.iter().filter(|line| line.starts_with("cannot write /nowhere/x.jsonl")).count(),
        1,
        "{lines:?}"
    );
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_first_of_several_exporters_decides_and_all_get_the_spans() {
    let collector = Collector::start(|_| Reply::Ok);
    let folder = std::env::temp_dir().join(format!("remora-both-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("x.jsonl").to_string_lossy().into_owned();
    let otlp = Otlp::new(Protocol::HttpProtobuf, collector.url());
    let under = Under::with(vec![Exporter::File(path.clone()), Exporter::Otlp(Box::new(otlp))], |_| {});
    under.finish(10);
    assert!(under.pipeline.flush(Duration::from_secs(10)));
    assert_eq!((under.balance().sent, collector.spans()), (10, 10));
    assert!(!std::fs::read_to_string(path).unwrap().is_empty());
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_pause_for_a_fork_keeps_everything_and_can_be_repeated() {
    let collector = Collector::start(|_| Reply::Slow(Duration::from_millis(3)));
    let under = Under::http(collector.url());
    for _ in 0..200 {
        under.finish(30);
        assert!(under.pipeline.pause_for_fork(Duration::from_millis(500)));
        assert!(!under.pipeline.status().running);
        under.balance();
        under.pipeline.resume_after_fork();
    }
    assert!(under.pipeline.flush(Duration::from_secs(10)));
    assert_eq!(under.balance().sent, 6_000);
    assert_eq!(collector.spans(), 6_000);
    // Paused and resumed with nothing pending: the next span brings the thread back.
    assert!(under.pipeline.pause_for_fork(Duration::from_millis(500)));
    under.pipeline.resume_after_fork();
    assert!(!under.pipeline.status().running);
    let slot = under.pipeline.queue().slot();
    support::finish(under.pipeline, slot);
    under.wait("thread is back", |_| collector.spans() == 6_001);
}
