//! Between the engine's types and the WIT's.

use std::io::ErrorKind;
use std::ops::Bound;

use duramen::api::ScanRange;
use duramen::stats::{
    BackgroundError, JobStats, KeyspaceStats, Lane, LevelStats, Problem, RunStats, StallCause, StallKind,
    StallState, StallStats,
};
use duramen::{
    CheckpointReport, CompactionStrategy, Compression, Durability, Error, KeyspaceOptions, MemtableKind,
    Options, Stats, VerifyReport,
};
use duramen_bindings::exports::duramen::db::engine as wit;

pub fn error(error: Error) -> wit::Error {
    match error {
        Error::Io { operation, file, source } => wit::Error::Io(wit::IoError {
            operation: operation.to_owned(),
            file,
            kind: io_error_kind(source.kind()),
            message: source.to_string(),
        }),
        Error::Corruption { file, offset, what } => {
            wit::Error::Corruption(wit::Damage { file, offset, what })
        }
        Error::InvalidArgument(what) => wit::Error::InvalidArgument(what),
        Error::Locked(what) => wit::Error::Locked(what),
        Error::Conflict { key } => wit::Error::Conflict(key),
        Error::Poisoned(what) => wit::Error::Poisoned(what),
        Error::Unsupported(what) => wit::Error::Unsupported(what),
        Error::Stalled(what) => wit::Error::Stalled(what),
        // A case that this version of the interface does not have.
        other => wit::Error::Unsupported(other.to_string()),
    }
}

fn io_error_kind(kind: ErrorKind) -> wit::IoErrorKind {
    match kind {
        ErrorKind::NotFound => wit::IoErrorKind::NotFound,
        ErrorKind::PermissionDenied => wit::IoErrorKind::PermissionDenied,
        ErrorKind::AlreadyExists => wit::IoErrorKind::AlreadyExists,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => wit::IoErrorKind::StorageFull,
        ErrorKind::ReadOnlyFilesystem => wit::IoErrorKind::ReadOnlyFilesystem,
        ErrorKind::FileTooLarge => wit::IoErrorKind::FileTooLarge,
        ErrorKind::UnexpectedEof => wit::IoErrorKind::UnexpectedEof,
        ErrorKind::WriteZero => wit::IoErrorKind::WriteZero,
        ErrorKind::Unsupported => wit::IoErrorKind::Unsupported,
        _ => wit::IoErrorKind::Other,
    }
}

pub fn durability(durability: wit::Durability) -> Durability {
    match durability {
        wit::Durability::None => Durability::None,
        wit::Durability::Buffered => Durability::Buffered,
        wit::Durability::Sync => Durability::Sync,
    }
}

pub fn options(wit: wit::Options) -> Result<Options, wit::Error> {
    let default = Options::default();
    Ok(Options {
        create_if_missing: wit.create_if_missing,
        durability: wit.durability.map_or(default.durability, durability),
        memtable_bytes: size("memtable-bytes", wit.memtable_bytes, default.memtable_bytes)?,
        write_buffer_bytes: match wit.write_buffer_bytes {
            None => default.write_buffer_bytes,
            bytes => Some(size("write-buffer-bytes", bytes, 0)?),
        },
        cache_bytes: size("cache-bytes", wit.cache_bytes, default.cache_bytes)?,
        target_file_bytes: wit.target_file_bytes.unwrap_or(default.target_file_bytes),
        compaction: strategy(wit.compaction.as_deref())?.unwrap_or(default.compaction),
        wal_bytes_max: wit.wal_bytes_max.or(default.wal_bytes_max),
        value_bytes_max: size("value-bytes-max", wit.value_bytes_max, default.value_bytes_max)?,
        batch_bytes_max: size("batch-bytes-max", wit.batch_bytes_max, default.batch_bytes_max)?,
        stall_ms_max: wit.stall_ms_max.unwrap_or(default.stall_ms_max),
        compression: wit.compression.map_or(default.compression, |compression| match compression {
            wit::Compression::None => Compression::None,
            wit::Compression::Snappy => Compression::Snappy,
        }),
        ..default
    })
}

fn strategy(text: Option<&str>) -> Result<Option<CompactionStrategy>, wit::Error> {
    text.map(str::parse).transpose().map_err(error)
}

fn size(name: &str, bytes: Option<u64>, default: usize) -> Result<usize, wit::Error> {
    let Some(bytes) = bytes else { return Ok(default) };
    usize::try_from(bytes).map_err(|_| {
        wit::Error::InvalidArgument(format!("{name} of {bytes} bytes is more than a guest can have"))
    })
}

pub fn keyspace_options(options: wit::KeyspaceOptions) -> Result<KeyspaceOptions, wit::Error> {
    let wit::KeyspaceOptions { merge_operator, ttl_ms, memtable, compaction } = options;
    let memtable = memtable.map(|kind| match kind {
        wit::MemtableKind::Sorted => MemtableKind::Sorted,
        wit::MemtableKind::SkipList => MemtableKind::SkipList,
        wit::MemtableKind::Trie => MemtableKind::Trie,
    });
    let compaction = strategy(compaction.as_deref())?;
    Ok(KeyspaceOptions { merge_operator, ttl_ms, memtable, compaction })
}

pub fn scan_range(range: wit::ScanRange) -> ScanRange {
    ScanRange { start: bound(range.start), end: bound(range.end), reverse: range.reverse }
}

fn bound(bound: wit::Bound) -> Bound<Vec<u8>> {
    match bound {
        wit::Bound::Unbounded => Bound::Unbounded,
        wit::Bound::Included(key) => Bound::Included(key),
        wit::Bound::Excluded(key) => Bound::Excluded(key),
    }
}

pub fn verify_report(report: VerifyReport) -> wit::VerifyReport {
    let VerifyReport { files, bytes, entries, problems } = report;
    let problems = problems
        .into_iter()
        .map(|Problem { file, offset, what }| wit::Damage { file, offset, what })
        .collect();
    wit::VerifyReport { files, bytes, entries, problems }
}

pub fn checkpoint_report(report: CheckpointReport) -> wit::CheckpointReport {
    let CheckpointReport { last_sequence, files, bytes, bytes_linked } = report;
    wit::CheckpointReport { last_sequence, files, bytes, bytes_linked }
}

pub fn stats(stats: Stats) -> wit::Stats {
    wit::Stats {
        keyspaces: stats.keyspaces.into_iter().map(keyspace_stats).collect(),
        last_sequence: stats.last_sequence,
        snapshots: stats.snapshots,
        oldest_snapshot: stats.oldest_snapshot,
        wal_files: stats.wal_files,
        wal_bytes: stats.wal_bytes,
        bytes_committed: stats.bytes_committed,
        commits: stats.commits,
        wal_syncs: stats.wal_syncs,
        flushes: stats.flushes,
        flush_bytes: stats.flush_bytes,
        compactions: stats.compactions,
        compaction_bytes_read: stats.compaction_bytes_read,
        compaction_bytes_written: stats.compaction_bytes_written,
        stall_ms: stats.stall_ms,
        cache_bytes: stats.cache_bytes,
        cache_hits: stats.cache_hits,
        cache_misses: stats.cache_misses,
        recovered_commits: stats.recovered_commits,
        recovered_bytes_dropped: stats.recovered_bytes_dropped,
        flush_failures: stats.flush_failures,
        compaction_failures: stats.compaction_failures,
        names_durable: stats.names_durable,
        stall: stats.stall.map(|StallState { cause, kind }| wit::StallState {
            cause: stall_cause(cause),
            kind: stall_kind(kind),
        }),
        background_errors: stats.background_errors.into_iter().map(background_error).collect(),
        stalls: stats.stalls.into_iter().map(stall_stats).collect(),
        jobs: stats.jobs.into_iter().map(job_stats).collect(),
    }
}

fn stall_cause(cause: StallCause) -> wit::StallCause {
    match cause {
        StallCause::WriteBuffer => wit::StallCause::WriteBuffer,
        StallCause::Runs => wit::StallCause::Runs,
    }
}

fn stall_kind(kind: StallKind) -> wit::StallKind {
    match kind {
        StallKind::Slowed => wit::StallKind::Slowed,
        StallKind::Waited => wit::StallKind::Waited,
        StallKind::Refused => wit::StallKind::Refused,
    }
}

fn stall_stats(stats: StallStats) -> wit::StallStats {
    let StallStats { cause, kind, count, total_ms, max_ms } = stats;
    wit::StallStats { cause: stall_cause(cause), kind: stall_kind(kind), count, total_ms, max_ms }
}

fn background_error(error: BackgroundError) -> wit::BackgroundError {
    let BackgroundError { lane, message, count, since_ms } = error;
    let lane = match lane {
        Lane::Flush => wit::Lane::Flush,
        Lane::Compaction => wit::Lane::Compaction,
        Lane::Log => wit::Lane::Log,
    };
    wit::BackgroundError { lane, message, count, since_ms }
}

fn keyspace_stats(stats: KeyspaceStats) -> wit::KeyspaceStats {
    wit::KeyspaceStats {
        id: stats.id.0,
        name: stats.name,
        memtable_entries: stats.memtable_entries,
        memtable_bytes: stats.memtable_bytes,
        runs: stats.runs.into_iter().map(run_stats).collect(),
        levels: stats.levels.into_iter().map(level_stats).collect(),
        scaling: stats.scaling,
        adaptive: stats.adaptive,
        overlap: stats.overlap,
        pending_bytes: stats.pending_bytes,
        bytes_put: stats.bytes_put,
        flush_bytes: stats.flush_bytes,
        compaction_bytes: stats.compaction_bytes,
    }
}

fn level_stats(stats: LevelStats) -> wit::LevelStats {
    let LevelStats { level, scaling, runs, files, bytes, density_max } = stats;
    wit::LevelStats { level, scaling, runs, files, bytes, density_max }
}

fn job_stats(stats: JobStats) -> wit::JobStats {
    let JobStats { keyspace, cause, level, inputs, outputs, .. } = stats;
    wit::JobStats {
        keyspace: keyspace.0,
        cause,
        level,
        inputs,
        outputs,
        bytes_read: stats.bytes_read,
        bytes_written: stats.bytes_written,
        entries: stats.entries,
        entries_dropped: stats.entries_dropped,
        ms: stats.ms,
    }
}

fn run_stats(stats: RunStats) -> wit::RunStats {
    let RunStats { level, density, files, bytes, entries, tombstones, range_tombstones } = stats;
    wit::RunStats { level, density, files, bytes, entries, tombstones, range_tombstones }
}
