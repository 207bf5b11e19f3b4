//! What a database says about itself: sizes, counters and the outcome of a
//! verification.

use crate::key::{FileNumber, KeyspaceId};

/// Sizes and counters of an open database. Counters start at zero at open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Keyspaces in order of their ids.
    pub keyspaces: Vec<KeyspaceStats>,
    /// Highest sequence number visible.
    pub last_sequence: u64,
    /// Live snapshots.
    pub snapshots: u64,
    /// Sequence number of the oldest live snapshot; 0 without snapshots.
    pub oldest_snapshot: u64,
    /// WAL files that recovery would read.
    pub wal_files: u64,
    /// Bytes in them.
    pub wal_bytes: u64,
    /// Keys and values handed to commits, in bytes.
    pub bytes_committed: u64,
    /// Commits.
    pub commits: u64,
    /// WAL syncs.
    pub wal_syncs: u64,
    /// Memtables flushed.
    pub flushes: u64,
    /// Bytes of SSTables written by flushes.
    pub flush_bytes: u64,
    /// Compactions finished.
    pub compactions: u64,
    /// Bytes of SSTables read by compactions.
    pub compaction_bytes_read: u64,
    /// Bytes of SSTables written by compactions.
    pub compaction_bytes_written: u64,
    /// Milliseconds writers waited for background work.
    pub stall_ms: u64,
    /// Bytes in the cache.
    pub cache_bytes: u64,
    /// Reads that the cache answered.
    pub cache_hits: u64,
    /// Reads that went to storage.
    pub cache_misses: u64,
    /// Commits replayed from the WAL at open.
    pub recovered_commits: u64,
    /// Bytes of a torn WAL tail that open dropped: commits that were never
    /// promised to survive.
    pub recovered_bytes_dropped: u64,
    /// False where the host cannot sync directories: names of files are then
    /// not promised to survive power loss, and the engine keeps old ones.
    pub names_durable: bool,
}

/// One keyspace in [`Stats`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyspaceStats {
    /// Its id.
    pub id: KeyspaceId,
    /// Its name.
    pub name: String,
    /// Entries in its memtables, immutable ones included.
    pub memtable_entries: u64,
    /// Bytes of its memtables.
    pub memtable_bytes: u64,
    /// Sorted runs, newest first.
    pub runs: Vec<RunStats>,
}

/// One sorted run in [`KeyspaceStats`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunStats {
    /// Its level; 0 is where flushes arrive.
    pub level: u32,
    /// SSTables.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Entries in them, versions and tombstones included.
    pub entries: u64,
    /// Tombstones among them.
    pub tombstones: u64,
}

/// One sorted run, table by table, as [`crate::Db::tables`] tells it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunInfo {
    /// The deepest level of its tables.
    pub level: u32,
    /// Bytes that it would have if it spanned all keys as densely as it does its own.
    pub density: f64,
    /// Its tables, in order of their keys.
    pub tables: Vec<TableInfo>,
}

impl RunInfo {
    /// Bytes of its tables.
    pub fn bytes(&self) -> u64 {
        self.tables.iter().map(|table| table.bytes).sum()
    }
}

/// One SSTable in [`RunInfo`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TableInfo {
    /// Number of its file.
    pub number: FileNumber,
    /// Its level.
    pub level: u32,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// As in [`RunInfo`].
    pub density: f64,
    /// Entries, versions and tombstones included.
    pub entries: u64,
    /// Tombstones among them, and range tombstones.
    pub tombstones: u64,
    /// First key.
    pub key_min: Vec<u8>,
    /// Last key.
    pub key_max: Vec<u8>,
    /// Share of the keyspace's bytes below its first key, 0 to 1.
    pub share_min: f64,
    /// Share of the keyspace's bytes up to its last key, 0 to 1.
    pub share_max: f64,
    /// Latest expiry in Unix milliseconds; 0 if some entry never expires.
    pub expires_max: u64,
}

/// What [`crate::Database::verify`] read and found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Files read.
    pub files: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Entries in SSTables.
    pub entries: u64,
    /// Damage found; empty means sound.
    pub problems: Vec<Problem>,
}

/// One damaged place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, relative to the database directory.
    pub file: String,
    /// Bytes from the start of the file.
    pub offset: u64,
    /// What was found there.
    pub what: String,
}
