//! The way of a finished span from its thread to the exporter.
//!
//! Each thread fills a chunk of its own, lying in its [`Slot`]: one atomic exchange takes it, one store puts it
//! back. A full chunk goes through a channel; a chunk that lies idle is taken by the exporter's timer. Nothing
//! blocks: what would exceed the bound is dropped, chunk by chunk, and counted.
//!
//! The bound is on what was handed over. Beside it every thread may hold one unfinished chunk: at most 64 spans, and
//! 64 KiB of records with one record on top; and up to 32 empty ones are kept for the next spans.
//!
//! Always true: `made = sent + lost + pending` ([`Counters`]).
#![expect(unsafe_code, reason = "slots are leaked and linked")]

use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender};

use crate::clock::Ticks;
use crate::exchange::{Doze, Exchange};
use crate::span::{ActiveSpan, Chunk};

/// Why a span was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The queue's bound was reached.
    QueueFull,
    /// The bound of requests waiting for another try was reached.
    RetryFull,
    /// The receiver refused it for good.
    Rejected,
    /// It could not be encoded.
    Encode,
    /// The process ended before it was delivered.
    Exit,
    /// The file could not be written.
    File,
}

impl Loss {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 6] =
        [Self::QueueFull, Self::RetryFull, Self::Rejected, Self::Encode, Self::Exit, Self::File];

    /// The key in `status()`, log lines and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::RetryFull => "retry_full",
            Self::Rejected => "rejected",
            Self::Encode => "encode",
            Self::Exit => "exit",
            Self::File => "file",
        }
    }
}

/// A count of spans by fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Finished and recorded.
    pub made: u64,
    /// Accepted by the receiver.
    pub sent: u64,
    /// Lost, by [`Loss`] in the order of [`Loss::ALL`].
    pub lost: [u64; Loss::ALL.len()],
    /// In a chunk, in the channel or held by the exporter.
    pub pending: u64,
}

/// Bounds of a queue and what wakes its exporter.
pub struct QueueOptions {
    /// Bytes of handed-over chunks.
    pub max_bytes: usize,
    /// Spans of handed-over chunks, where the operator bound them.
    pub max_spans: Option<usize>,
    /// Handed-over spans at which the exporter is woken before its timer.
    pub wake_at: usize,
    /// Bytes of handed-over chunks at which it is.
    pub wake_at_bytes: usize,
    /// Wakes the exporter. Called without a lock, from any thread.
    pub wake: Box<dyn Fn() + Send + Sync>,
}

/// Spans of a chunk.
const CHUNK_SPANS: usize = 64;
/// Bytes of records after which a chunk goes, full or not.
const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks that are used again: as many as are on their way at some thousand spans a second. What is needed beyond that
/// comes from the heap and goes back to it.
const REUSED: usize = 32;

/// One generation's queue. Lives as long as the process: a fork leaks its parent's.
pub struct Queue {
    options: QueueOptions,
    chunk_spans: usize,
    sender: Sender<Chunk>,
    receiver: Receiver<Chunk>,
    slots: AtomicPtr<Slot>,
    bytes: AtomicUsize,
    spans: AtomicUsize,
    held: AtomicU64,
    sent: AtomicU64,
    lost: [AtomicU64; Loss::ALL.len()],
    /// Bytes of records in the last full chunk: what the next ones will need.
    record_bytes: AtomicUsize,
    /// Spans that came without a slot.
    stray: AtomicU64,
    doze: Doze,
    /// Empty chunks, the last used at the end: its pages are still warm. Contended, it is passed by.
    spare: Mutex<Vec<Chunk>>,
    /// How many more may be made for it.
    left: AtomicUsize,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("bytes", &self.bytes()).field("counters", &self.counters()).finish()
    }
}

/// One thread's chunk and counts. Written by its thread, emptied by the exporter.
pub struct Slot {
    queue: &'static Queue,
    chunk: Exchange<Chunk>,
    made: AtomicU64,
    taken: AtomicU64,
    owned: AtomicBool,
    next: *const Slot,
}

// SAFETY: all that changes is atomic, the chunk's owner included; `next` is written before the slot is published and
// never again, and points to a leaked slot.
unsafe impl Sync for Slot {}
// SAFETY: as above; nothing in a slot is tied to the thread that made it.
unsafe impl Send for Slot {}

impl Queue {
    /// A queue that is never freed.
    pub fn leak(options: QueueOptions) -> &'static Self {
        let (sender, receiver) = crossbeam_channel::unbounded();
        let chunk_spans = options.max_spans.map_or(CHUNK_SPANS, |max| (max / 4).clamp(1, CHUNK_SPANS));
        Box::leak(Box::new(Self {
            chunk_spans: chunk_spans.min(options.wake_at.max(1)),
            options,
            sender,
            receiver,
            slots: AtomicPtr::new(ptr::null_mut()),
            bytes: AtomicUsize::new(0),
            spans: AtomicUsize::new(0),
            held: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            lost: [const { AtomicU64::new(0) }; Loss::ALL.len()],
            record_bytes: AtomicUsize::new(0),
            stray: AtomicU64::new(0),
            doze: Doze::new(),
            spare: Mutex::new(Vec::new()),
            left: AtomicUsize::new(REUSED),
        }))
    }

    /// A slot for the calling thread: one that an ended thread left, else a new one.
    pub fn slot(&'static self) -> &'static Slot {
        if let Some(free) = self.slots().find(|slot| !slot.owned.swap(true, Ordering::AcqRel)) {
            return free;
        }
        let mut head = self.slots.load(Ordering::Acquire);
        let slot = Box::leak(Box::new(Slot {
            queue: self,
            chunk: Exchange::new(),
            made: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            owned: AtomicBool::new(true),
            next: head,
        }));
        loop {
            slot.next = head;
            match self.slots.compare_exchange(head, slot, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return slot,
                Err(now) => head = now,
            }
        }
    }

    #[cold]
    fn new_chunk(&self) -> Box<Chunk> {
        let kept = self.spare.try_lock().ok().and_then(|mut spare| spare.pop());
        let one_less = |left: usize| left.checked_sub(1);
        Box::new(match kept {
            Some(kept) => kept,
            None if self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less).is_ok() => {
                Chunk::apart()
            }
            None => Chunk::with_room(self.chunk_spans, self.record_bytes.load(Ordering::Relaxed)),
        })
    }

    fn slots(&self) -> impl Iterator<Item = &'static Slot> {
        // SAFETY: the list holds leaked slots only, published with release by `slot`.
        let mut next: Option<&'static Slot> = unsafe { self.slots.load(Ordering::Acquire).as_ref() };
        std::iter::from_fn(move || {
            let slot = next?;
            // SAFETY: `next` is null or a leaked slot, written before publication.
            next = unsafe { slot.next.as_ref() };
            Some(slot)
        })
    }

    /// A span of a thread that has no slot any more: a chunk of its own, handed over at once.
    #[cold]
    pub(crate) fn push_stray(&self, span: &ActiveSpan, end: Ticks) {
        let mut chunk = Chunk::with_capacity(1);
        chunk.push(span, end);
        self.stray.fetch_add(1, Ordering::AcqRel);
        self.hand_over(chunk, true);
        self.added();
    }

    #[cold]
    fn hand_over(&self, chunk: Chunk, wake: bool) {
        let (spans, bytes) = (chunk.len(), chunk.bytes());
        let held = self.bytes.fetch_add(bytes, Ordering::AcqRel) + bytes;
        let over = held > self.options.max_bytes;
        let queued = self.spans.fetch_add(spans, Ordering::AcqRel) + spans;
        let over = over || self.options.max_spans.is_some_and(|max| queued > max);
        let refused = if over { Some(chunk) } else { self.sender.send(chunk).err().map(|error| error.0) };
        if let Some(chunk) = refused {
            self.lose(Loss::QueueFull, spans as u64);
            self.spans.fetch_sub(spans, Ordering::AcqRel);
            self.release(chunk);
            (self.options.wake)();
        } else if wake {
            // The one thread whose chunk reached a mark, or a multiple of it, wakes.
            let reached = |now: usize, by: usize, mark: usize| now / mark.max(1) != (now - by) / mark.max(1);
            if reached(queued, spans, self.options.wake_at)
                || reached(held, bytes, self.options.wake_at_bytes)
            {
                (self.options.wake)();
            }
        }
    }

    /// The next handed-over chunk. Its spans count as held until [`Self::sent`] or [`Self::lost_of_held`], its
    /// bytes until it is given back by [`Self::release`].
    pub fn take(&self) -> Option<Chunk> {
        let chunk = self.receiver.try_recv().ok()?;
        self.held.fetch_add(chunk.len() as u64, Ordering::AcqRel);
        self.spans.fetch_sub(chunk.len(), Ordering::AcqRel);
        Some(chunk)
    }

    /// Hands over every thread's unfinished chunk that is not being written to at this moment.
    pub fn sweep(&self) {
        for slot in self.slots() {
            if let Some(mut chunk) = slot.chunk.take() {
                chunk.shrink();
                slot.hand_over(*chunk, false);
            }
        }
    }

    /// Frees the room of a chunk that was encoded, or keeps it for the next spans.
    pub fn release(&self, chunk: Chunk) {
        self.bytes.fetch_sub(chunk.bytes(), Ordering::AcqRel);
        if !chunk.is_apart() {
            return;
        }
        match (chunk.reuse(), self.spare.try_lock()) {
            (Some(chunk), Ok(mut spare)) => spare.push(chunk),
            _ => {
                self.left.fetch_add(1, Ordering::AcqRel);
            }
        }
    }

    /// `spans` held spans were accepted by the receiver.
    pub fn sent(&self, spans: u64) {
        self.sent.fetch_add(spans, Ordering::AcqRel);
        self.held.fetch_sub(spans, Ordering::AcqRel);
    }

    /// `spans` held spans are lost.
    pub fn lost_of_held(&self, reason: Loss, spans: u64) {
        self.lose(reason, spans);
        self.held.fetch_sub(spans, Ordering::AcqRel);
    }

    fn lose(&self, reason: Loss, spans: u64) {
        self.lost[reason as usize].fetch_add(spans, Ordering::AcqRel);
    }

    /// Bytes of handed-over chunks.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Acquire)
    }

    /// Spans of handed-over chunks that the exporter has not taken.
    pub fn queued(&self) -> usize {
        self.spans.load(Ordering::Acquire)
    }

    /// Whether a chunk that is being filled holds anything.
    pub fn has_partial(&self) -> bool {
        self.slots().any(|slot| slot.partial() > 0)
    }

    /// The exporter has nothing to do: from now on the next finished span calls `wake`. False: there is something.
    pub fn doze(&self) -> bool {
        self.doze.doze(|| !self.has_partial() && self.queued() == 0)
    }

    /// The exporter is at work again.
    pub fn rouse(&self) {
        self.doze.rouse();
    }

    /// Whether the next finished span would call `wake`.
    pub fn is_dozing(&self) -> bool {
        self.doze.is_dozing()
    }

    /// Something waits that did not before: if the exporter dozes, it wants to know.
    #[cold]
    fn added(&self) {
        if self.doze.added() {
            (self.options.wake)();
        }
    }

    /// The counts. A chunk on its way from one place to the next is for some nanoseconds in both or in none: such a
    /// moment is looked away from, so that what comes back adds up unless spans are being finished all the time.
    pub fn counters(&self) -> Counters {
        const TRIES: usize = 100;
        let mut counters = self.read_counters();
        for _ in 0..TRIES {
            if counters.made == counters.sent + counters.lost.iter().sum::<u64>() + counters.pending {
                break;
            }
            std::thread::yield_now();
            counters = self.read_counters();
        }
        counters
    }

    fn read_counters(&self) -> Counters {
        let (mut made, mut partial) = (self.stray.load(Ordering::Acquire), 0);
        for slot in self.slots() {
            let of_slot = slot.made.load(Ordering::Acquire);
            made += of_slot;
            partial += of_slot.saturating_sub(slot.taken.load(Ordering::Acquire));
        }
        Counters {
            made,
            sent: self.sent.load(Ordering::Acquire),
            lost: std::array::from_fn(|reason| self.lost[reason].load(Ordering::Acquire)),
            pending: partial + self.queued() as u64 + self.held.load(Ordering::Acquire),
        }
    }
}

impl Slot {
    /// Appends a finished span. Called by the owning thread only.
    #[inline]
    pub fn push(&self, span: &ActiveSpan, end: Ticks) {
        let taken = self.chunk.take();
        let begun = taken.is_none();
        let mut chunk = taken.unwrap_or_else(|| self.queue.new_chunk());
        chunk.push(span, end);
        // Not an addition that others see half: no other thread writes it.
        self.made.store(self.made.load(Ordering::Relaxed) + 1, Ordering::Release);
        if chunk.len() >= self.queue.chunk_spans || chunk.arena_len() >= CHUNK_BYTES {
            // A little more than that, and never more than one chunk takes.
            let room = chunk.arena_len() + chunk.arena_len() / 8;
            self.queue.record_bytes.store(room.min(CHUNK_BYTES), Ordering::Relaxed);
            self.hand_over(*chunk, true);
        } else {
            self.chunk.put(chunk);
        }
        if begun {
            self.queue.added();
        }
    }

    #[cold]
    fn hand_over(&self, chunk: Chunk, wake: bool) {
        self.taken.fetch_add(chunk.len() as u64, Ordering::AcqRel);
        self.queue.hand_over(chunk, wake);
    }

    fn partial(&self) -> u64 {
        self.made.load(Ordering::Acquire).saturating_sub(self.taken.load(Ordering::Acquire))
    }

    /// The owning thread ends: its chunk is handed over and the slot serves the next thread.
    pub fn release(&self) {
        if let Some(mut chunk) = self.chunk.take() {
            chunk.shrink();
            self.hand_over(*chunk, true);
        }
        self.owned.store(false, Ordering::Release);
    }
}
