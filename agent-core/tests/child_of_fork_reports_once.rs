//! A fork: the child neither reports its parent's spans a second time nor draws the ids of its siblings, and a span
//! that was open at the fork ends in the process where it began.
#![expect(unsafe_code, reason = "the test forks")]
#![expect(clippy::unwrap_used, reason = "helpers of a test")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::sync::Mutex;

use agent_core::generation;
use agent_core::id::SpanId;
use agent_core::local::{set_queue_source, with_ids};
use agent_core::queue::Queue;
use agent_core::span::Parent;

mod support;

/// The queue of each generation, as an embedder keeps it.
static QUEUES: Mutex<Vec<(u32, &'static Queue)>> = Mutex::new(Vec::new());

fn queue() -> Option<&'static Queue> {
    let mut queues = QUEUES.lock().ok()?;
    let now = generation::current();
    if let Some((_, queue)) = queues.iter().find(|(of, _)| *of == now) {
        return Some(queue);
    }
    let new = support::new_queue(1 << 20, None, 512);
    queues.push((now, new));
    Some(new)
}

fn swept() -> Vec<SpanId> {
    let queue = queue().unwrap();
    queue.sweep();
    support::drain(queue)
}

extern "C" fn in_child() {
    generation::bump();
}

/// Runs `child` in a fork of this process; returns the ids that it answers with.
fn forked(child: impl FnOnce() -> Vec<SpanId>) -> Vec<SpanId> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for the two descriptors. This process has one other thread, the test harness's, which
    // waits; the child allocates, which glibc allows after a fork, and leaves by `_exit`.
    let (pid, mut read, mut write) = unsafe {
        assert_eq!(libc::pipe(ends.as_mut_ptr()), 0);
        let pid = libc::fork();
        (pid, File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1]))
    };
    if pid == 0 {
        let ids = child();
        let written = write.write_all(ids.as_flattened());
        // SAFETY: ends this process at once, without the harness's destructors.
        unsafe { libc::_exit(i32::from(written.is_err())) };
    }
    assert!(pid > 0);
    drop(write);
    let mut bytes = Vec::new();
    read.read_to_end(&mut bytes).unwrap();
    let mut status = 0;
    // SAFETY: waits for our own child; `status` is ours.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    assert_eq!(status, 0);
    bytes.as_chunks::<8>().0.to_vec()
}

#[test]
fn each_span_is_reported_once_by_the_process_where_it_began() {
    // SAFETY: the handler is one atomic addition.
    assert_eq!(unsafe { libc::pthread_atfork(None, None, Some(in_child)) }, 0);
    set_queue_source(queue);
    let (before, mut open) = (support::make(), support::started(Parent::Root(None)));

    // Ended in the child, it is not the child's; as a parent it stays.
    let of_child = forked(|| {
        let child = support::started(Parent::Local(&open));
        assert_eq!(child.parent_span_id, open.span_id);
        open.finish();
        let made = support::make();
        let reported = swept();
        assert_eq!(reported, [made]);
        support::assert_adds_up(&queue().unwrap().counters());
        reported
    });
    assert_eq!(of_child.len(), 1);
    assert!(open.is_recording());
    open.finish();
    assert_eq!(swept(), [before, open.span_id]);

    // Ids drawn straight after a fork, before any span has ended.
    let draw = || (0..4).map(|_| with_ids(|ids| ids.span_id())).collect::<Vec<_>>();
    let (first, second, grandchild) = (forked(draw), forked(draw), forked(|| forked(draw)));
    let mut all = [draw(), first, second, grandchild].concat();
    assert_eq!(all.len(), 16);
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 16, "siblings draw different ids");
}
