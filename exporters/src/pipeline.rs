//! One generation's pipeline: queue, exporter thread and what both share. Leaked, never dropped: a child of a fork
//! must not touch its parent's threads or sockets, and builds its own.
//!
//! Locks: `control` is the only one that both sides take, never across an await, a join of a running thread or a
//! call out. None is taken around a fork: a child only ever sees a pipeline of its own generation.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use agent_core::queue::{Queue, QueueOptions};
use tokio::runtime::Runtime;

use crate::config::{ExporterConfig, Level};
use crate::descriptors;
use crate::status::{Shared, Status};
use crate::thread::{self, Bell};
use crate::worker::{Flush, Worker};

/// Added to what a caller waits for the thread, which keeps the bound itself.
const GRACE: Duration = Duration::from_millis(500);
/// The longest exit flush, where no setting says otherwise.
const LONGEST_EXIT: Duration = Duration::from_secs(2);

/// What the worker is to do next.
#[derive(Default)]
pub(crate) struct Orders {
    pub(crate) flushes: Vec<Flush>,
    pub(crate) exit: Option<SyncSender<()>>,
}

#[derive(Default)]
struct Control {
    orders: Orders,
    /// A fork is near: the thread stops once what is in flight has landed, and no later than this.
    pause: Option<Instant>,
    closed: bool,
    running: bool,
    thread: Option<(JoinHandle<()>, Arc<AtomicI32>)>,
    /// What the thread leaves to the next one.
    parked: Option<Box<Worker>>,
    said_no_thread: bool,
}

/// One generation's pipeline.
pub struct Pipeline {
    generation: u32,
    config: Arc<ExporterConfig>,
    queue: &'static Queue,
    control: Mutex<Control>,
    stopped: Condvar,
    running: AtomicBool,
    pub(crate) bell: Bell,
    pub(crate) sigterm: AtomicBool,
    /// An exit that may lock nothing asks for its flush, and waits until it has `left`.
    pub(crate) leaving: AtomicBool,
    pub(crate) left: AtomicBool,
    /// The exit flush is over: what comes later is for the C library's exit.
    ended: AtomicBool,
    /// The exporter did not answer an exit in time: nobody waits for it again.
    given_up: AtomicBool,
    pub(crate) shared: Shared,
}

fn new_runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .thread_name("remora-dns")
        .thread_keep_alive(Duration::from_millis(10))
        .build()
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").field("generation", &self.generation).field("queue", &self.queue).finish()
    }
}

impl Pipeline {
    /// A pipeline that is never freed. Its thread starts with [`Self::start`].
    pub fn leak(config: Arc<ExporterConfig>, generation: u32) -> &'static Self {
        let this: Arc<OnceLock<&'static Self>> = Arc::default();
        let waking = this.clone();
        let queue = Queue::leak(QueueOptions {
            max_bytes: config.queue_max_bytes,
            max_spans: config.max_queue_size,
            wake_at: config.max_export_batch_size.max(1),
            wake_at_bytes: config.wake_at_bytes(),
            wake: Box::new(move || {
                if let Some(pipeline) = waking.get() {
                    pipeline.wake();
                }
            }),
        });
        let pipeline: &'static Self = Box::leak(Box::new(Self {
            generation,
            config,
            queue,
            control: Mutex::default(),
            stopped: Condvar::new(),
            running: AtomicBool::new(false),
            bell: Bell::default(),
            sigterm: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            left: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            shared: Shared::default(),
        }));
        let _ = this.set(pipeline);
        pipeline
    }

    /// The fork generation that it belongs to.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Where finished spans go.
    pub fn queue(&self) -> &'static Queue {
        self.queue
    }

    pub(crate) fn config(&self) -> &ExporterConfig {
        &self.config
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&'static self) {
        if !self.running.load(Ordering::Acquire) {
            self.start();
        }
        self.bell.ring();
    }

    /// Starts the thread unless it runs, a fork is near or the process ends.
    pub fn start(&'static self) {
        let mut control = self.control();
        if control.running || control.closed || control.pause.is_some() {
            return;
        }
        if let Some((ended, _)) = control.thread.take() {
            // It has said that it ended: what is left of it takes microseconds.
            let _ = ended.join();
        }
        let id = Arc::new(AtomicI32::new(0));
        let told = id.clone();
        match thread::spawn(move || self.body(&told)) {
            Ok(handle) => {
                control.thread = Some((handle, id));
                control.running = true;
                self.running.store(true, Ordering::Release);
            }
            Err(error) if !control.said_no_thread => {
                control.said_no_thread = true;
                drop(control);
                self.config.log(
                    Level::Error,
                    &format!("cannot start the exporter thread ({error}); spans are kept"),
                );
            }
            Err(_) => {}
        }
    }

    fn body(&'static self, id: &AtomicI32) {
        id.store(thread::id(), Ordering::Release);
        // Nothing is open yet that belongs to this thread.
        descriptors::separate();
        let parked = self.control().parked.take();
        let mut worker = parked.unwrap_or_else(|| Box::new(Worker::new(&self.config, self.generation)));
        loop {
            match new_runtime() {
                Ok(runtime) => {
                    let work = || runtime.block_on(worker.run(self));
                    let failed = catch_unwind(AssertUnwindSafe(work)).is_err();
                    // Connections end here, where their descriptors are.
                    worker.ground();
                    // A look-up of a name may still hang: it is not waited for.
                    runtime.shutdown_background();
                    if failed {
                        self.config.log(Level::Error, "a fault in the exporter; it starts again");
                        worker.recover(self);
                        std::thread::sleep(Duration::from_secs(1));
                    }
                }
                Err(error) => {
                    self.config
                        .log(Level::Error, &format!("cannot start the exporter ({error}); spans are kept"));
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
            let mut control = self.control();
            // Resumed before it could stop.
            if control.pause.is_none() && !control.closed {
                continue;
            }
            let closed = control.closed;
            control.parked = Some(worker);
            control.running = false;
            self.running.store(false, Ordering::SeqCst);
            self.stopped.notify_all();
            drop(control);
            if closed && self.sigterm.swap(false, Ordering::SeqCst) {
                (self.config.after_sigterm)();
            }
            return;
        }
    }

    /// New orders for the worker.
    pub(crate) fn orders(&self) -> Orders {
        std::mem::take(&mut self.control().orders)
    }

    /// Until when what is in flight may land, where the thread is to stop for a fork.
    pub(crate) fn pausing(&self) -> Option<Instant> {
        self.control().pause
    }

    pub(crate) fn close(&self) {
        self.control().closed = true;
    }

    fn is_pending(&self) -> bool {
        self.queue.counters().pending > 0
    }

    /// Delivers everything that is pending now. True if all of it was delivered within `timeout`.
    pub fn flush(&'static self, timeout: Duration) -> bool {
        if !self.is_pending() {
            return true;
        }
        let (reply, done) = sync_channel(1);
        {
            let mut control = self.control();
            if control.closed {
                return false;
            }
            control.orders.flushes.push(Flush::new(reply));
        }
        self.wake();
        done.recv_timeout(timeout).unwrap_or(false)
    }

    /// Delivers what is pending within the bound of an exit, counts the rest as lost, says so, and ends the thread.
    /// Later calls do nothing.
    pub fn shutdown(&'static self) {
        let (reply, done) = sync_channel(1);
        {
            let mut control = self.control();
            if control.closed {
                return;
            }
            control.pause = None;
            if !control.running && !self.is_pending() {
                control.closed = true;
                self.ended.store(true, Ordering::SeqCst);
                return;
            }
            control.orders.exit = Some(reply);
        }
        self.wake();
        if done.recv_timeout(self.patience()).is_ok() {
            self.join();
            self.ended.store(true, Ordering::SeqCst);
        } else {
            self.given_up.store(true, Ordering::SeqCst);
        }
        self.close();
    }

    /// What a caller waits for an exit flush.
    fn patience(&self) -> Duration {
        self.config.exit_timeout.unwrap_or(LONGEST_EXIT) + GRACE
    }

    fn join(&self) {
        let thread = self.control().thread.take();
        if let Some((handle, _)) = thread {
            let _ = handle.join();
        }
    }

    /// What was finished after the exit flush, by later exit handlers and finalizers: another one, in what is left of
    /// the bound. The interpreter is gone, and so are this thread's locals: nothing here may need them.
    #[cold]
    fn shutdown_again(&'static self) {
        if !self.is_pending() {
            return;
        }
        let (reply, _done) = sync_channel(1);
        {
            let mut control = self.control();
            control.closed = false;
            control.orders.exit = Some(reply);
        }
        self.start();
        let until = Instant::now() + self.patience();
        while self.running.load(Ordering::SeqCst) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.close();
        if !self.running.load(Ordering::SeqCst) {
            self.join();
        }
    }

    /// Ends the thread before a fork, within `bound`. What is in flight may land in nine tenths of it, and is sent again
    /// after [`Self::resume_after_fork`] where it did not. False: the thread still runs, and goes on running.
    pub fn pause_for_fork(&'static self, bound: Duration) -> bool {
        let until = Instant::now() + bound;
        let mut control = self.control();
        control.pause = Some(until - bound / 10);
        self.bell.ring();
        while control.running {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                control.pause = None;
                return false;
            }
            control = self.stopped.wait_timeout(control, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let thread = control.thread.take();
        drop(control);
        let Some((handle, id)) = thread else { return true };
        let _ = handle.join();
        thread::wait_gone(
            id.load(Ordering::Acquire),
            until.saturating_duration_since(Instant::now()).max(GRACE / 50),
        )
    }

    /// After the fork, in the parent: the thread starts again if anything is pending, else with the next finished
    /// span.
    pub fn resume_after_fork(&'static self) {
        {
            let mut control = self.control();
            if control.pause.take().is_none() || control.running || control.closed {
                return;
            }
        }
        if self.sigterm.load(Ordering::SeqCst) || self.is_pending() || !self.queue.doze() {
            self.start();
        }
    }

    /// An exit flush for where nothing may be locked or allocated: the C library's `exit` can have been called in a
    /// signal handler. Does nothing where no thread runs; the pipeline goes on working. After [`Self::shutdown`], a
    /// flush of what came later.
    pub fn leave(&'static self) {
        if self.given_up.load(Ordering::SeqCst) {
            return;
        }
        if self.ended.load(Ordering::SeqCst) {
            // A fault of ours must not unwind into the C library.
            let _ = catch_unwind(AssertUnwindSafe(|| self.shutdown_again()));
            return;
        }
        if !self.running.load(Ordering::SeqCst) {
            return;
        }
        self.left.store(false, Ordering::SeqCst);
        self.leaving.store(true, Ordering::SeqCst);
        self.bell.ring();
        let until = Instant::now() + self.patience();
        while self.running.load(Ordering::SeqCst)
            && !self.left.load(Ordering::SeqCst)
            && Instant::now() < until
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.leaving.store(false, Ordering::SeqCst);
    }

    /// Asks for an exit flush and then `after_sigterm`. Async-signal-safe. False: no thread runs that could.
    pub fn request_sigterm_flush(&self) -> bool {
        if self.given_up.load(Ordering::SeqCst) || !self.running.load(Ordering::Acquire) {
            return false;
        }
        self.sigterm.store(true, Ordering::SeqCst);
        self.bell.ring();
        // It may have ended since we looked: then nobody answers, unless it has seen us.
        self.running.load(Ordering::SeqCst) || !self.sigterm.swap(false, Ordering::SeqCst)
    }

    /// A snapshot.
    pub fn status(&self) -> Status {
        Status {
            counters: self.queue.counters(),
            queue_bytes: self.queue.bytes(),
            queue_max_bytes: self.config.queue_max_bytes,
            retry_bytes: self.shared.retry_bytes.load(Ordering::Relaxed),
            requests: self.shared.requests.load(Ordering::Relaxed),
            failures: self.shared.failures.load(Ordering::Relaxed),
            last_error: self.shared.error(),
            state: self.shared.state(),
            running: self.running.load(Ordering::Acquire),
        }
    }
}
