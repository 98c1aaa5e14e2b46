use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::{Analysis, Dialect, analyze, analyze_limited};

/// The longest statement that is cached, in bytes.
pub const MAX_STATEMENT_BYTES: usize = 32 * 1024;

const SHARDS: usize = 16;
/// What an entry weighs besides its texts, its fragments among it.
const ENTRY_BYTES: usize = 400;

/// Analyses by statement text, bounded by count and by bytes.
///
/// A look-up hashes the text once, compares it once and takes a shared lock that nobody waits for: where the lock is
/// held by a writer, in this process or by a thread that a fork left behind, the statement is analysed as if it were
/// new. No lock is held while a statement is analysed.
///
/// A full shard drops what was not asked for since its last sweep, else everything. One cache belongs to one fork
/// generation.
pub struct StatementCache {
    hasher: RandomState,
    shards: Box<[Shard]>,
    /// Per shard.
    max_entries: usize,
    /// Per shard.
    max_bytes: usize,
}

#[repr(align(64))]
#[derive(Default)]
struct Shard(RwLock<Entries>);

#[derive(Default)]
struct Entries {
    table: HashTable<Entry>,
    bytes: usize,
}

struct Entry {
    hash: u64,
    dialect: Dialect,
    text: Box<str>,
    used: AtomicBool,
    analysis: Arc<Analysis>,
}

impl Entry {
    fn bytes(&self) -> usize {
        // A fragment shows the text or the sanitised one, and the summary twice.
        ENTRY_BYTES
            + 2 * self.text.len()
            + 2 * self.analysis.sanitized.len()
            + 5 * self.analysis.summary.len()
    }
}

impl Default for StatementCache {
    /// 1,024 statements, 4 MiB.
    fn default() -> Self {
        Self::new(1024, 4 << 20)
    }
}

impl StatementCache {
    /// A cache of about `max_entries` statements that weigh at most `max_bytes` with their analyses.
    pub fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self {
            hasher: RandomState::default(),
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            max_entries: max_entries.div_ceil(SHARDS),
            max_bytes: max_bytes / SHARDS,
        }
    }

    /// The analysis of `text`. A text longer than `max_len` bytes is analysed up to there and never cached, nor is
    /// one longer than [`MAX_STATEMENT_BYTES`].
    #[inline]
    pub fn get(&self, text: &str, dialect: Dialect, max_len: usize) -> Arc<Analysis> {
        if text.len() > max_len.min(MAX_STATEMENT_BYTES) {
            return Arc::new(analyze_limited(text, dialect, max_len));
        }
        let hash = self.hash(text);
        let shard = &self.shards[(hash >> 48) as usize % SHARDS];
        if let Ok(entries) = shard.0.try_read()
            && let Some(entry) =
                entries.table.find(hash, |entry| entry.dialect == dialect && *entry.text == *text)
        {
            if !entry.used.load(Ordering::Relaxed) {
                entry.used.store(true, Ordering::Relaxed);
            }
            return Arc::clone(&entry.analysis);
        }
        self.fill(shard, hash, text, dialect)
    }

    #[cold]
    fn fill(&self, shard: &Shard, hash: u64, text: &str, dialect: Dialect) -> Arc<Analysis> {
        let analysis = Arc::new(analyze(text, dialect));
        let entry = Entry {
            hash,
            dialect,
            text: text.into(),
            used: AtomicBool::new(false),
            analysis: Arc::clone(&analysis),
        };
        let bytes = entry.bytes();
        if bytes > self.max_bytes || self.max_entries == 0 {
            return analysis;
        }
        let Ok(mut entries) = shard.0.try_write() else { return analysis };
        let entries = &mut *entries;
        if entries.table.find(hash, |entry| entry.dialect == dialect && *entry.text == *text).is_some() {
            return analysis;
        }
        if entries.table.len() >= self.max_entries || entries.bytes + bytes > self.max_bytes {
            entries.sweep();
        }
        if entries.table.len() >= self.max_entries || entries.bytes + bytes > self.max_bytes {
            entries.table.clear();
            entries.bytes = 0;
        }
        entries.bytes += bytes;
        entries.table.insert_unique(hash, entry, |entry| entry.hash);
        analysis
    }

    #[inline]
    fn hash(&self, text: &str) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(text.as_bytes());
        hasher.finish()
    }

    /// How many statements are held now, and their weight in bytes; shards in use at this moment are left out.
    pub fn held(&self) -> (usize, usize) {
        let shards = self.shards.iter().filter_map(|shard| shard.0.try_read().ok());
        shards.fold((0, 0), |(count, bytes), entries| (count + entries.table.len(), bytes + entries.bytes))
    }
}

impl Entries {
    /// Drops what has not been used since the last sweep.
    fn sweep(&mut self) {
        let mut bytes = 0;
        self.table.retain(|entry| {
            let keep = std::mem::take(entry.used.get_mut());
            bytes += if keep { entry.bytes() } else { 0 };
            keep
        });
        self.bytes = bytes;
    }
}
