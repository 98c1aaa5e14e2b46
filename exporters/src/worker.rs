//! What the exporter thread does, and all that it owns. Survives the thread: a pause parks it in the pipeline.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use agent_core::clock::{Anchor, Timeline};
use agent_core::queue::Loss;
use agent_core::span::Chunk;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use crate::batch::Batch;
use crate::config::{ExporterConfig, Level};
use crate::pipeline::{Orders, Pipeline};
use crate::request::Outcome;
use crate::sink::{Ledger, Sink, sinks};
use crate::status::{State, loss_line};

/// What an exit waits for a receiver that answers.
const EXIT: Duration = Duration::from_secs(2);
/// What it waits for one that failed last time.
const EXIT_FAILING: Duration = Duration::from_millis(300);
/// Loss is said at most once in this time.
const QUIET: Duration = Duration::from_secs(60);
/// While requests are in flight the thread waits for sockets, and looks for other news this often: first, and at last.
const LOOKS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));
/// As good as never.
const FAR: Duration = Duration::from_secs(86_400);

/// Somebody waits for everything that is pending now.
pub(crate) struct Flush {
    pub(crate) reply: SyncSender<bool>,
    begun: Option<Begun>,
}

struct Begun {
    /// Chunks are encoded once so many spans were taken.
    taken: u64,
    /// Then: delivered once no request below this number is left.
    number: Option<u64>,
    lost: u64,
}

impl Flush {
    pub(crate) fn new(reply: SyncSender<bool>) -> Self {
        Self { reply, begun: None }
    }
}

/// What follows an exit flush.
enum Then {
    /// The thread ends, and who waits is told.
    End(SyncSender<()>),
    /// The process dies of its signal.
    Die,
    /// The C library goes on with its exit; Python may still run and finish spans.
    Leave,
}

/// The process ends.
pub(crate) struct Exit {
    then: Then,
    started: Instant,
    deadline: Instant,
}

type Flights = JoinSet<(usize, u64, Outcome)>;

/// The state of the exporter thread.
pub(crate) struct Worker {
    sinks: Vec<Sink>,
    timeline: Option<Timeline>,
    batch: Batch,
    /// A chunk that did not fit into the last batch.
    aside: Option<Chunk>,
    number: u64,
    taken: u64,
    drain_to: u64,
    next_tick: Instant,
    dozing: bool,
    flushes: Vec<Flush>,
    exit: Option<Exit>,
    /// Of the bound of an exit, by one that came before.
    spent: Duration,
    said_lost: u64,
    said_at: Option<Instant>,
}

impl Worker {
    pub(crate) fn new(config: &ExporterConfig, generation: u32) -> Self {
        // The embedder's code: without it the spans still go, from an unnamed resource.
        let resource = catch_unwind(AssertUnwindSafe(|| (config.resource)(generation))).unwrap_or_default();
        Self {
            sinks: sinks(config, &resource),
            timeline: None,
            batch: Batch::default(),
            aside: None,
            number: 0,
            taken: 0,
            drain_to: 0,
            next_tick: Instant::now() + config.schedule_delay,
            dozing: false,
            flushes: Vec::new(),
            exit: None,
            spent: Duration::ZERO,
            said_lost: 0,
            said_at: None,
        }
    }

    fn ledger(p: &Pipeline) -> Ledger<'_> {
        Ledger { queue: p.queue(), shared: &p.shared, config: p.config() }
    }

    /// Works until it is told to stop. The state is whole whenever this ends.
    pub(crate) async fn run(&mut self, p: &'static Pipeline) {
        let mut flights = Flights::new();
        let mut look = LOOKS.0;
        if self.dozing {
            self.rouse(p);
        }
        loop {
            let now = Instant::now();
            let seen = p.bell.rung();
            let orders = p.orders();
            if self.obey(p, orders, now, &mut flights) {
                return;
            }
            if let Some(until) = p.pausing() {
                // Who did not answer last time is not waited for.
                if !self.sinks.iter().any(Sink::is_failing) {
                    self.land_all(p, until, &mut flights).await;
                }
                return;
            }
            if self.dozing && !p.queue().is_dozing() {
                self.rouse(p);
            }
            if self.next_tick <= now {
                self.tick(p, now);
            }
            while let Some(landed) = flights.try_join_next() {
                self.land(p, landed, &mut flights);
            }
            self.launch(&mut flights, now);
            let more = self.encode(p);
            if more {
                // Let the sockets have their turn.
                tokio::task::yield_now().await;
                continue;
            }
            if self.launch(&mut flights, now) {
                continue;
            }
            self.finish_flushes(p);
            if self.finish_exit(p, now, &mut flights) {
                return;
            }
            let wake_at = self.wake_at();
            if flights.is_empty() {
                // Connections are driven for a moment only: those given up are closed, those kept learn what came.
                tokio::task::yield_now().await;
                p.bell.wait(seen, wake_at);
                tokio::task::yield_now().await;
                look = LOOKS.0;
                continue;
            }
            match timeout_at(wake_at.min(now + look).into(), flights.join_next()).await {
                Ok(Some(landed)) => {
                    self.land(p, landed, &mut flights);
                    look = LOOKS.0;
                }
                Ok(None) => {}
                Err(_) => look = LOOKS.1.min(look * 2),
            }
        }
    }

    /// What is in flight lands, until then; the rest is sent again.
    async fn land_all(&mut self, p: &'static Pipeline, until: Instant, flights: &mut Flights) {
        while let Ok(Some(landed)) = timeout_at(until.into(), flights.join_next()).await {
            self.land(p, landed, flights);
        }
    }

    /// Takes new orders. True: the thread has nothing left to do.
    fn obey(&mut self, p: &'static Pipeline, orders: Orders, now: Instant, flights: &mut Flights) -> bool {
        self.flushes.extend(orders.flushes);
        if self.flushes.iter().any(|flush| flush.begun.is_none()) {
            self.tick(p, now);
            let lost = self.lost(p);
            for flush in self.flushes.iter_mut().filter(|flush| flush.begun.is_none()) {
                flush.begun = Some(Begun { taken: self.drain_to, number: None, lost });
            }
            self.sinks.iter_mut().for_each(|sink| sink.outbox.hurry());
        }
        if let Some(reply) = orders.exit {
            self.begin_exit(p, Then::End(reply), now);
        } else if self.exit.is_none() && p.leaving.swap(false, Ordering::SeqCst) {
            self.begin_exit(p, Then::Leave, now);
        } else if self.exit.is_none() && p.sigterm.swap(false, Ordering::SeqCst) {
            self.begin_exit(p, Then::Die, now);
        }
        self.finish_exit(p, now, flights)
    }

    fn begin_exit(&mut self, p: &'static Pipeline, then: Then, now: Instant) {
        let failing = self.sinks.iter().any(Sink::is_failing);
        let limit = p.config().exit_timeout.unwrap_or(if failing { EXIT_FAILING } else { EXIT });
        self.tick(p, now);
        self.sinks.iter_mut().for_each(|sink| sink.outbox.hurry());
        let limit = limit.saturating_sub(self.spent);
        self.exit = Some(Exit { then, started: now, deadline: now + limit });
    }

    /// Ends the exit flush when everything is delivered, time is up, or nothing can be hoped for. True: and the
    /// thread with it.
    fn finish_exit(&mut self, p: &'static Pipeline, now: Instant, flights: &mut Flights) -> bool {
        let Some(exit) = &mut self.exit else { return false };
        if p.config().exit_timeout.is_none() && self.sinks.iter().any(Sink::is_failing) {
            exit.deadline = exit.deadline.min(exit.started + EXIT_FAILING.saturating_sub(self.spent));
        }
        let (started, deadline) = (exit.started, exit.deadline);
        let drained = self.taken >= self.drain_to && self.aside.is_none();
        let delivered = drained && self.sinks.iter().all(|sink| sink.outbox.is_empty());
        // What waits for a moment after the deadline need not be waited for.
        let hopeless = (drained || !self.may_encode(p))
            && self.sinks.iter().all(|sink| {
                let outbox = &sink.outbox;
                outbox.is_empty() || (!outbox.is_flying() && outbox.next_at().is_some_and(|at| at > deadline))
            });
        if !delivered && !hopeless && now < deadline {
            return false;
        }
        flights.abort_all();
        *flights = Flights::new();
        self.abandon(p);
        self.say_loss(p, true);
        let then = self.exit.take().map(|exit| exit.then);
        self.finish_flushes(p);
        p.left.store(true, Ordering::SeqCst);
        let reply = match then {
            Some(Then::End(reply)) => reply,
            Some(Then::Die) => {
                (p.config().after_sigterm)();
                return false;
            }
            Some(Then::Leave) | None => return false,
        };
        self.spent += started.elapsed();
        p.shared.set_state(State::Closed);
        p.close();
        // A signal that came meanwhile: the process dies of it, as it would have without us.
        if p.sigterm.swap(false, Ordering::SeqCst) {
            (p.config().after_sigterm)();
        }
        // Whoever waited may have given up.
        let _ = reply.try_send(());
        true
    }

    /// Counts as lost whatever is left.
    fn abandon(&mut self, p: &Pipeline) {
        let queue = p.queue();
        let ledger = Self::ledger(p);
        for sink in &mut self.sinks {
            sink.ground();
            while let Some(request) = sink.outbox.drop_oldest() {
                sink.lose(Loss::Exit, request.spans, ledger);
            }
        }
        queue.sweep();
        while let Some(chunk) = self.aside.take().or_else(|| queue.take()) {
            queue.lost_of_held(Loss::Exit, chunk.len() as u64);
            self.taken += chunk.len() as u64;
            queue.release(chunk);
        }
        self.drain_to = self.taken;
        self.publish(p);
    }

    /// The runtime ends, and with it connections; files are closed.
    pub(crate) fn ground(&mut self) {
        self.sinks.iter_mut().for_each(Sink::ground);
    }

    /// After a fault of ours: requests wait, a batch that was being encoded is lost.
    pub(crate) fn recover(&mut self, p: &Pipeline) {
        let now = Instant::now();
        self.sinks.iter_mut().for_each(|sink| {
            sink.ground();
            sink.outbox.rest(now);
        });
        self.batch.drain().for_each(|chunk| p.queue().release(chunk));
    }

    fn lost(&self, p: &Pipeline) -> u64 {
        p.queue().counters().lost.iter().sum()
    }

    fn finish_flushes(&mut self, p: &Pipeline) {
        if self.flushes.is_empty() {
            return;
        }
        let lost = self.lost(p);
        let (taken, next) = (self.taken, self.number);
        let sinks = &self.sinks;
        self.flushes.retain_mut(|flush| {
            let Some(begun) = &mut flush.begun else { return true };
            if taken < begun.taken {
                return true;
            }
            let number = *begun.number.get_or_insert(next);
            if sinks.iter().any(|sink| sink.outbox.holds_before(number)) {
                return true;
            }
            let _ = flush.reply.try_send(lost == begun.lost);
            false
        });
    }

    /// The timer: takes what lies in unfinished chunks, follows the wall clock, says what was lost.
    fn tick(&mut self, p: &Pipeline, now: Instant) {
        let queue = p.queue();
        queue.sweep();
        self.drain_to =
            self.taken + self.aside.as_ref().map_or(0, |c| c.len() as u64) + queue.queued() as u64;
        if let Some(timeline) = &mut self.timeline {
            timeline.reanchor(Anchor::take());
        }
        self.next_tick = now + p.config().schedule_delay;
        self.say_loss(p, false);
        let idle = self.drain_to == self.taken && self.sinks.iter().all(|sink| sink.outbox.is_empty());
        if idle && self.exit.is_none() && self.flushes.is_empty() && queue.doze() {
            // The next finished span wakes us: an idle process is not disturbed every few seconds.
            self.dozing = true;
            self.next_tick = now + FAR;
            self.sinks.iter_mut().for_each(Sink::doze);
        }
    }

    fn rouse(&mut self, p: &Pipeline) {
        p.queue().rouse();
        self.dozing = false;
        self.next_tick = Instant::now() + p.config().schedule_delay;
        if let Some(timeline) = &mut self.timeline {
            timeline.reanchor(Anchor::take());
        }
    }

    fn say_loss(&mut self, p: &Pipeline, last: bool) {
        let counters = p.queue().counters();
        let lost: u64 = counters.lost.iter().sum();
        let due = last || self.said_at.is_none_or(|at| at.elapsed() >= QUIET);
        if lost > self.said_lost
            && due
            && let Some(line) = loss_line(&counters)
        {
            self.said_lost = lost;
            self.said_at = Some(Instant::now());
            p.config().log(Level::Warn, &line);
        }
    }

    /// Whether a batch may be encoded now: there is room for it, or the queue needs it more.
    fn may_encode(&self, p: &Pipeline) -> bool {
        let config = p.config();
        let queue = p.queue();
        // A full outbox gives up its oldest request only when the queue is half full too: together they keep the most.
        self.sinks.iter().all(|sink| sink.has_room(config.retry_max_bytes))
            || queue.bytes() > config.queue_max_bytes / 2
            || config.max_queue_size.is_some_and(|max| queue.queued() > max / 2)
    }

    /// Encodes one batch, if there is one worth it. True: it did.
    fn encode(&mut self, p: &Pipeline) -> bool {
        let (config, queue) = (p.config(), p.queue());
        let most = config.max_export_batch_size.max(1);
        let wanted = self.taken < self.drain_to
            || queue.queued() >= most
            || (queue.bytes() >= config.wake_at_bytes() && queue.queued() > 0);
        if !wanted || !self.may_encode(p) {
            return false;
        }
        let mut bytes = 0;
        while let Some(chunk) = self.aside.take().or_else(|| queue.take()) {
            bytes += chunk.bytes();
            let full = self.batch.len() + chunk.len() > most || bytes > config.wake_at_bytes();
            if full && !self.batch.is_empty() {
                self.aside = Some(chunk);
                break;
            }
            self.batch.push(chunk);
        }
        self.taken += self.batch.len() as u64;
        if self.batch.is_empty() {
            // Counted by its thread and not yet in the channel: it comes with a wake-up of its own.
            self.drain_to = self.taken;
            return false;
        }
        let ledger = Self::ledger(p);
        let timeline = self.timeline.get_or_insert_with(Timeline::begin);
        for sink in &mut self.sinks {
            sink.make_room(config.retry_max_bytes, ledger);
            sink.put(&self.batch, timeline, &mut self.number, ledger);
        }
        self.batch.drain().for_each(|chunk| queue.release(chunk));
        self.publish(p);
        true
    }

    fn publish(&self, p: &Pipeline) {
        let bytes = self.sinks.iter().map(|sink| sink.outbox.bytes()).sum();
        p.shared.retry_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Starts attempts. True: at least one.
    fn launch(&mut self, flights: &mut Flights, now: Instant) -> bool {
        let mut any = false;
        for (index, sink) in self.sinks.iter_mut().enumerate() {
            let Some(receiver) = sink.receiver().cloned() else { continue };
            while let Some(entry) = sink.outbox.next(now) {
                let receiver = receiver.clone();
                flights.spawn(async move {
                    let outcome = receiver.send(entry.request.body.clone()).await;
                    (index, entry.number, outcome)
                });
                any = true;
            }
        }
        any
    }

    fn land(
        &mut self,
        p: &Pipeline,
        landed: Result<(usize, u64, Outcome), tokio::task::JoinError>,
        flights: &mut Flights,
    ) {
        match landed {
            Ok((index, number, outcome)) => {
                if let Some(sink) = self.sinks.get_mut(index) {
                    sink.landed(number, outcome, Self::ledger(p));
                }
            }
            // A fault of ours in an attempt. Which one is unknown: all wait.
            Err(_) => {
                flights.abort_all();
                *flights = Flights::new();
                let now = Instant::now();
                self.sinks.iter_mut().for_each(|sink| sink.outbox.rest(now));
            }
        }
        self.publish(p);
    }

    fn wake_at(&self) -> Instant {
        let waiting = self.sinks.iter().map(|sink| &sink.outbox).filter(|outbox| !outbox.is_flying());
        let retry = waiting.filter_map(|outbox| outbox.next_at()).min();
        let exit = self.exit.as_ref().map(|exit| exit.deadline);
        [retry, exit].into_iter().flatten().fold(self.next_tick, Instant::min)
    }
}
