//! Some chunks that travel together, in the order in which an encoder visits their spans.

use agent_core::span::{Chunk, SpanRef};

/// Chunks of finished spans, grouped by instrumentation scope when visited.
#[derive(Debug, Default)]
pub struct Batch {
    chunks: Vec<Chunk>,
    scopes: Vec<u16>,
    len: usize,
}

impl Batch {
    /// Adds a chunk.
    pub fn push(&mut self, chunk: Chunk) {
        for span in chunk.iter() {
            // A batch knows few scopes and most spans are of the one seen last.
            if self.scopes.last() != Some(&span.scope_id()) && !self.scopes.contains(&span.scope_id()) {
                self.scopes.push(span.scope_id());
            }
        }
        self.len += chunk.len();
        self.chunks.push(chunk);
    }

    /// Gives the chunks away and keeps the room.
    pub fn drain(&mut self) -> impl Iterator<Item = Chunk> {
        self.scopes.clear();
        self.len = 0;
        self.chunks.drain(..)
    }

    /// The count of spans.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The scopes, in the order of their first span.
    pub(crate) fn scopes(&self) -> &[u16] {
        &self.scopes
    }

    /// The spans of one scope.
    pub(crate) fn spans_of(&self, scope: u16) -> impl Iterator<Item = SpanRef<'_>> {
        self.chunks.iter().flat_map(Chunk::iter).filter(move |span| span.scope_id() == scope)
    }

    /// All spans, as they ended.
    pub(crate) fn spans(&self) -> impl Iterator<Item = SpanRef<'_>> {
        self.chunks.iter().flat_map(Chunk::iter)
    }
}
