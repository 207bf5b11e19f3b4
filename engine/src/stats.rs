//! What a database says about itself: sizes, counters and the outcome of a
//! verification.

use std::fmt;

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
    /// Milliseconds writers were slowed by background work or waited for it.
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
    /// Flushes that failed; they are tried again.
    pub flush_failures: u64,
    /// Compactions that failed; they are tried again.
    pub compaction_failures: u64,
    /// False where the host cannot sync directories: names of files are then
    /// not promised to survive power loss, and the engine keeps old ones.
    pub names_durable: bool,
    /// What the next commit meets; `None` while background work keeps up.
    pub stall: Option<StallState>,
    /// Background work that has failed and has not succeeded since.
    pub background_errors: Vec<BackgroundError>,
    /// What writers met, by cause and kind; what never happened is left out.
    pub stalls: Vec<StallStats>,
    /// The last compactions that were done, the newest at the end.
    pub jobs: Vec<JobStats>,
}

/// Why writers are slowed or wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StallCause {
    /// The memtables fill [`crate::Options::write_buffer_bytes`]: flushes do not
    /// keep up.
    WriteBuffer,
    /// A keyspace has too many sorted runs: compactions do not keep up.
    Runs,
}

impl StallCause {
    /// Every cause.
    pub const ALL: [StallCause; 2] = [StallCause::WriteBuffer, StallCause::Runs];
}

impl fmt::Display for StallCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StallCause::WriteBuffer => "write buffer",
            StallCause::Runs => "runs",
        })
    }
}

/// What a stall does to a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StallKind {
    /// Past the soft limit: the writer was held up by a millisecond at most. Without
    /// worker threads it does more of the work instead, which is not counted.
    Slowed,
    /// At the hard limit: the writer waited, or did the work, and then went on.
    Waited,
    /// The commit was refused as `Stalled`, after a wait.
    Refused,
}

impl fmt::Display for StallKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StallKind::Slowed => "slowed",
            StallKind::Waited => "waited",
            StallKind::Refused => "refused",
        })
    }
}

/// A stall that is there now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StallState {
    /// What presses most.
    pub cause: StallCause,
    /// `Slowed`, or `Waited` once the hard limit is reached.
    pub kind: StallKind,
}

/// The stalls of one cause and kind since open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StallStats {
    /// Why.
    pub cause: StallCause,
    /// With what effect.
    pub kind: StallKind,
    /// How often.
    pub count: u64,
    /// Milliseconds of all together.
    pub total_ms: u64,
    /// Milliseconds of the longest.
    pub max_ms: u64,
}

/// A kind of background work; there is one job of each at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Memtables become SSTables.
    Flush,
    /// Sorted runs are merged.
    Compaction,
    /// The next write-ahead log is made, and the present one synced, before commits
    /// need it.
    Log,
}

impl Lane {
    /// Every kind.
    pub const ALL: [Lane; 3] = [Lane::Flush, Lane::Compaction, Lane::Log];
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lane::Flush => "flush",
            Lane::Compaction => "compaction",
            Lane::Log => "log",
        })
    }
}

/// Background work that does not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackgroundError {
    /// Which.
    pub lane: Lane,
    /// The last failure.
    pub message: String,
    /// Failures since it last succeeded.
    pub count: u64,
    /// Milliseconds since the first of them.
    pub since_ms: u64,
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
    /// Levels, from the top.
    pub levels: Vec<LevelStats>,
    /// The scaling parameters in force, as text.
    pub scaling: String,
    /// Why they are in force, where the keyspace chooses them itself; else empty.
    pub adaptive: String,
    /// Most runs that may hold one key: what a get looks into at worst.
    pub overlap: u64,
    /// Bytes that the next compaction reads; 0 while none is due.
    pub pending_bytes: u64,
    /// Bytes of keys and values put since open.
    pub bytes_put: u64,
    /// Bytes of SSTables that flushes wrote since open.
    pub flush_bytes: u64,
    /// Bytes of SSTables that compactions wrote since open.
    pub compaction_bytes: u64,
}

impl KeyspaceStats {
    /// Bytes of SSTables written for each byte put, since open; the log is apart. `None`
    /// before the first flush.
    pub fn write_amplification(&self) -> Option<f64> {
        let written = self.flush_bytes + self.compaction_bytes;
        (self.flush_bytes > 0 && self.bytes_put > 0).then(|| written as f64 / self.bytes_put as f64)
    }

    /// Bytes of all runs over those of the largest: an upper bound of what obsolete
    /// versions and tombstones make of the space. `None` without runs.
    pub fn space_amplification(&self) -> Option<f64> {
        let total: u64 = self.runs.iter().map(|run| run.bytes).sum();
        let densest = self.runs.iter().map(|run| run.density).max().filter(|density| *density > 0)?;
        Some((total as f64 / densest as f64).max(1.0))
    }
}

/// One level in [`KeyspaceStats`]: the runs that are about as dense.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LevelStats {
    /// Its number, from 0 at the top.
    pub level: u32,
    /// Its scaling parameter, as `T4`.
    pub scaling: String,
    /// Runs whose densest part belongs to it.
    pub runs: u64,
    /// SSTables of these.
    pub files: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Density at which it ends, in bytes.
    pub density_max: u64,
}

/// A compaction that was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobStats {
    /// Where.
    pub keyspace: KeyspaceId,
    /// Why: `overlap`, `space`, `disjoint`, `tombstones`, `expired`, `covered`, `small files` or
    /// `asked`.
    pub cause: String,
    /// Level that it made.
    pub level: u32,
    /// SSTables that it took.
    pub inputs: u64,
    /// SSTables that it made.
    pub outputs: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Entries taken.
    pub entries: u64,
    /// Entries that did not survive.
    pub entries_dropped: u64,
    /// Milliseconds from its beginning to its end, pauses included.
    pub ms: u64,
}

/// One sorted run in [`KeyspaceStats`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunStats {
    /// Its level, by its density; 0 is that of flushes.
    pub level: u32,
    /// Bytes over the share of the keyspace that its keys span.
    pub density: u64,
    /// SSTables.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Entries in them, versions and tombstones included.
    pub entries: u64,
    /// Tombstones of single keys among them.
    pub tombstones: u64,
    /// Range tombstones among them.
    pub range_tombstones: u64,
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
