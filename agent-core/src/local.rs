//! What a thread keeps between spans: its id generator and its slot, both of one fork generation.

use std::cell::Cell;
use std::sync::OnceLock;

use crate::clock::Ticks;
use crate::generation;
use crate::id::IdGenerator;
use crate::queue::{Queue, Slot};
use crate::span::ActiveSpan;

struct Local {
    generation: Cell<u32>,
    ids: Cell<IdGenerator>,
    slot: Cell<Option<&'static Slot>>,
}

thread_local! {
    static LOCAL: Local = const {
        Local { generation: Cell::new(0), ids: Cell::new(IdGenerator::UNSEEDED), slot: Cell::new(None) }
    };
    // Apart from LOCAL, so that the hot path reads a thread local without a destructor.
    static LEAVING: Leaving = const { Leaving(Cell::new(None)) };
}

struct Leaving(Cell<Option<(u32, &'static Slot)>>);

impl Drop for Leaving {
    fn drop(&mut self) {
        // Another thread may own the slot from now on: what this one still finishes must not go there.
        LOCAL.with(|local| local.slot.set(None));
        if let Some((of, slot)) = self.0.get()
            && of == generation::current()
        {
            slot.release();
        }
    }
}

/// Where the queue of this generation comes from: the embedder starts it at the first finished span.
static QUEUE: OnceLock<fn() -> Option<&'static Queue>> = OnceLock::new();

/// Registers what finds, or starts, the queue of the present generation. The first call wins.
pub fn set_queue_source(source: fn() -> Option<&'static Queue>) -> bool {
    QUEUE.set(source).is_ok()
}

impl Local {
    #[inline]
    fn renew(&self) {
        if self.generation.get() != generation::current() {
            self.begin();
        }
    }

    #[cold]
    fn begin(&self) {
        self.ids.set(IdGenerator::seeded());
        // The slot's chunk holds spans of the parent process, which has its own copy of them.
        self.slot.set(None);
        self.generation.set(generation::current());
    }

    /// The first span of a thread, and every span that it finishes after its thread locals were dropped.
    #[cold]
    fn push_without_slot(&self, span: &ActiveSpan, end: Ticks) {
        let Some(queue) = QUEUE.get().and_then(|source| source()) else { return };
        let slot = LEAVING.try_with(|leaving| {
            let slot = queue.slot();
            leaving.0.set(Some((self.generation.get(), slot)));
            slot
        });
        match slot {
            Ok(slot) => {
                self.slot.set(Some(slot));
                slot.push(span, end);
            }
            Err(_) => queue.push_stray(span, end),
        }
    }
}

/// Runs `draw` with this thread's generator, reseeded after a fork.
#[inline]
pub fn with_ids<R>(draw: impl FnOnce(&mut IdGenerator) -> R) -> R {
    LOCAL.with(|local| {
        local.renew();
        let mut ids = local.ids.get();
        let result = draw(&mut ids);
        local.ids.set(ids);
        result
    })
}

/// Puts a finished span into this thread's chunk.
#[inline]
pub(crate) fn push(span: &ActiveSpan, end: Ticks) {
    LOCAL.with(|local| {
        local.renew();
        match local.slot.get() {
            Some(slot) => slot.push(span, end),
            None => local.push_without_slot(span, end),
        }
    });
}
