//! Every tunable, with unit, default and reason.

use std::fmt::Debug;
use std::sync::Arc;

use crate::batch::BatchLimits;
use crate::merge_operator::MergeOperator;
use crate::scaling::CompactionStrategy;

/// What a commit survives once it has returned. See `docs/durability.md`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Nothing more than the prefix rule: after a crash, what is found is a
    /// prefix of the commit order.
    None,
    /// A process kill or a guest trap: the bytes were handed to the host.
    #[default]
    Buffered,
    /// Power loss, where the storage can sync files and names.
    Sync,
}

/// Compression of value pages. Keys are never compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Stored as they are.
    None,
    /// Snappy, per page, where it shrinks the page.
    #[default]
    Snappy,
}

/// Who drives flushes and compactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Background {
    /// Worker threads of the database. The default natively.
    Threads,
    /// Each write pays a slice in proportion to the bytes it adds, and
    /// [`crate::Db::maintain`] does more when the host is idle. The default on
    /// wasm, where there are no threads.
    Inline,
}

/// Time and randomness from outside, so that a run can be replayed. No order of
/// commits depends on either; what expires does so by this clock.
pub trait Environment: Send + Sync + Debug {
    /// Monotonic milliseconds, for durations in statistics.
    fn monotonic_ms(&self) -> u64;
    /// Milliseconds since 1970 UTC, for what expires.
    fn unix_ms(&self) -> u64;
    /// Random bits, for the id of a new database.
    fn random(&self) -> u64;
}

/// How a database is opened. `Options::default()` suits a small server.
#[derive(Clone, Debug)]
pub struct Options {
    /// Create the database if the directory is empty or absent. Default: true.
    pub create_if_missing: bool,
    /// Open for reading alone, beside any number of other readers and no writer:
    /// not one byte of the storage changes, and every call that would write
    /// answers `InvalidArgument`. Commits that are only in the log are replayed
    /// into memory and stay there, whatever `memtable_bytes` is. Other openers
    /// are kept out by the lock file, which is not made where there is none; a
    /// writer elsewhere is then not noticed and must not be. Default: false.
    pub read_only: bool,
    /// Durability of the calls that do not name one. Default: `Buffered`.
    pub durability: Durability,
    /// Bytes at which a memtable is set aside for its flush. Default: 64 MiB
    /// natively, 16 MiB on wasm, where two of them must fit in the guest beside the
    /// cache.
    pub memtable_bytes: usize,
    /// Bytes of all memtables of all keyspaces, those that wait for their flush
    /// included, at which writers wait for flushes. Those that take writes share a
    /// half of it; beyond that the largest are set aside before they are full.
    /// Default: 4 × `memtable_bytes` natively, which lets a burst of three go by
    /// unnoticed, and 2 × on wasm.
    pub write_buffer_bytes: Option<usize>,
    /// Bytes of decoded pages and filters, and of rows that are read often, kept.
    /// Default: 256 MiB natively, 64 MiB on wasm.
    pub cache_bytes: usize,
    /// Bytes at which a compaction starts its next output file. Default: 64 MiB natively,
    /// 16 MiB on wasm, where whoever writes waits for the removal of a file as well.
    pub target_file_bytes: u64,
    /// When sorted runs are merged, in keyspaces that have no strategy of their own.
    /// It may be another at every open: nothing is rewritten for it. Default:
    /// `balanced`.
    pub compaction: CompactionStrategy,
    /// Bytes a second that worker threads read and write for compactions at most.
    /// Default: no limit.
    pub compaction_bytes_per_second: Option<u64>,
    /// Threads that one large compaction is parted among, each with keys of its own and
    /// files of `target_file_bytes`. Default: one less than the machine has, up to four:
    /// a thread that commits would wait for its turn among them, milliseconds at a time.
    pub compaction_threads: usize,
    /// Bytes of WAL after which every memtable that holds on to an old segment
    /// is flushed. Default: 4 × `memtable_bytes`.
    pub wal_bytes_max: Option<u64>,
    /// Longest value that is written, in bytes. Operands of merges may add up to a
    /// longer one: reads answer it, and compactions leave its operands apart. Default: 64 MiB natively; on wasm the host sets
    /// min(64 MiB, memory cap / 8).
    pub value_bytes_max: usize,
    /// Longest encoded batch, in bytes. Default: 256 MiB natively; on wasm the
    /// host sets min(256 MiB, memory cap / 4).
    pub batch_bytes_max: usize,
    /// Compression of value pages. Default: Snappy.
    pub compression: Compression,
    /// Longest a commit waits for background work, in milliseconds, before it
    /// answers `Stalled`. Default: 60 s: longer than it takes to merge as many runs
    /// of full memtables as may pile up, and short enough to tell somebody.
    pub stall_ms_max: u64,
    /// Who does the background work. Default: threads natively, inline on wasm.
    pub background: Background,
    /// Merge operators beside the built-in ones, for the keyspaces that were
    /// created with them. Default: none.
    pub merge_operators: Vec<Arc<dyn MergeOperator>>,
    /// Clock and randomness. Default: the system's.
    pub environment: Arc<dyn Environment>,
}

impl Default for Options {
    fn default() -> Self {
        let wasm = cfg!(target_family = "wasm");
        Options {
            create_if_missing: true,
            read_only: false,
            durability: Durability::default(),
            memtable_bytes: if wasm { 16 << 20 } else { 64 << 20 },
            write_buffer_bytes: None,
            cache_bytes: if wasm { 64 << 20 } else { 256 << 20 },
            target_file_bytes: if wasm { 16 << 20 } else { 64 << 20 },
            compaction: CompactionStrategy::default(),
            compaction_bytes_per_second: None,
            compaction_threads: std::thread::available_parallelism()
                .map_or(1, |threads| (threads.get() - 1).clamp(1, 4)),
            wal_bytes_max: None,
            value_bytes_max: if wasm { 32 << 20 } else { 64 << 20 },
            batch_bytes_max: if wasm { 64 << 20 } else { 256 << 20 },
            compression: Compression::default(),
            stall_ms_max: 60_000,
            background: if wasm { Background::Inline } else { Background::Threads },
            merge_operators: Vec::new(),
            environment: Arc::new(SystemEnvironment::default()),
        }
    }
}

impl Options {
    /// The limits that every batch is checked against.
    pub fn batch_limits(&self) -> BatchLimits {
        BatchLimits { value_bytes_max: self.value_bytes_max, batch_bytes_max: self.batch_bytes_max }
    }

    /// True if worker threads do the background work.
    pub(crate) fn threaded(&self) -> bool {
        self.background == Background::Threads && !cfg!(target_family = "wasm") && !self.read_only
    }

    /// Bytes of all memtables at which writers wait.
    pub fn write_buffer_bytes(&self) -> usize {
        let memtables = if cfg!(target_family = "wasm") { 2 } else { 4 };
        self.write_buffer_bytes.unwrap_or_else(|| self.memtable_bytes.saturating_mul(memtables))
    }

    /// Bytes of WAL after which old segments are flushed away.
    pub fn wal_bytes_max(&self) -> u64 {
        self.wal_bytes_max.unwrap_or(4 * self.memtable_bytes as u64)
    }
}

/// The structure that keeps the writes of a keyspace sorted until they are flushed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MemtableKind {
    /// A B-tree behind a lock.
    #[default]
    Sorted,
    /// A skip list without a lock.
    SkipList,
    /// An adaptive radix tree behind a lock: keys that begin alike share what they begin with.
    Trie,
}

impl MemtableKind {
    /// Every kind.
    pub const ALL: [MemtableKind; 3] = [MemtableKind::Sorted, MemtableKind::SkipList, MemtableKind::Trie];
}

/// What a keyspace is created with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyspaceOptions {
    /// Name of the merge operator: one of [`crate::BuiltIn`], or one in
    /// [`Options::merge_operators`]. It stays what it was at creation.
    /// Default: none.
    pub merge_operator: Option<String>,
    /// Milliseconds that an entry lives unless its write says otherwise. It may
    /// be changed by opening the keyspace with another one; entries keep the
    /// expiry they were written with. Default: for ever.
    pub ttl_ms: Option<u64>,
    /// Kind of its memtables. It may be changed by opening the keyspace with
    /// another one, which then begins with the next memtable, or at once while
    /// there is nothing in the one that takes writes. Default: what the keyspace
    /// has; [`MemtableKind::Sorted`] at creation.
    pub memtable: Option<MemtableKind>,
    /// When its sorted runs are merged. It may be changed by opening the keyspace with
    /// another one: nothing is rewritten for it. Default: what it is, and
    /// [`Options::compaction`] for a new keyspace.
    pub compaction: Option<CompactionStrategy>,
}

/// How much background work one call may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Bytes read and written, roughly.
    pub bytes: u64,
}

impl Budget {
    /// Work of about `bytes` bytes.
    pub fn bytes(bytes: u64) -> Self {
        Budget { bytes }
    }
}

/// The system's clock and the standard library's per-process random keys.
#[derive(Debug)]
#[cfg_attr(all(target_family = "wasm", target_os = "unknown"), derive(Default))]
pub struct SystemEnvironment {
    #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
    start: std::time::Instant,
}

#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
impl Default for SystemEnvironment {
    fn default() -> Self {
        SystemEnvironment { start: std::time::Instant::now() }
    }
}

impl Environment for SystemEnvironment {
    #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
    fn monotonic_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
    fn unix_ms(&self) -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| since.as_millis() as u64)
    }

    // The browser has no std clock: durations in statistics read as zero there,
    // and nothing expires.
    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    fn monotonic_ms(&self) -> u64 {
        0
    }

    #[cfg(all(target_family = "wasm", target_os = "unknown"))]
    fn unix_ms(&self) -> u64 {
        0
    }

    fn random(&self) -> u64 {
        use std::hash::{BuildHasher, Hasher};
        std::collections::hash_map::RandomState::new().build_hasher().finish()
    }
}
