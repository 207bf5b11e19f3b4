//! Between the engine's types and those generated from the WIT.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::ops::Bound;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use duramen::api::ScanRange;
use duramen::stats::{
    BackgroundError, JobStats, KeyspaceStats, Lane, LevelStats, Problem, RunStats, StallCause, StallKind,
    StallState, StallStats,
};
use duramen::{
    CheckpointReport, Compression, Durability, Error, KeyspaceId, KeyspaceOptions, MemtableKind, Options,
    Result, Stats, VerifyReport,
};

use crate::instance::bindings::exports::duramen::db::engine as wit;

/// Length that stands for "no value" among packed values.
const ABSENT: u32 = u32::MAX;

pub fn error(error: wit::Error) -> Error {
    match error {
        wit::Error::Io(wit::IoError { operation, file, kind, message }) => {
            Error::io(intern(operation), file, io::Error::new(io_error_kind(kind), message))
        }
        wit::Error::Corruption(wit::Damage { file, offset, what }) => {
            Error::Corruption { file, offset, what }
        }
        wit::Error::InvalidArgument(what) => Error::InvalidArgument(what),
        wit::Error::Locked(what) => Error::Locked(what),
        wit::Error::Conflict(key) => Error::Conflict { key },
        wit::Error::Poisoned(what) => Error::Poisoned(what),
        wit::Error::Unsupported(what) => Error::Unsupported(what),
        wit::Error::Stalled(what) => Error::Stalled(what),
    }
}

fn io_error_kind(kind: wit::IoErrorKind) -> ErrorKind {
    match kind {
        wit::IoErrorKind::NotFound => ErrorKind::NotFound,
        wit::IoErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        wit::IoErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
        wit::IoErrorKind::StorageFull => ErrorKind::StorageFull,
        wit::IoErrorKind::ReadOnlyFilesystem => ErrorKind::ReadOnlyFilesystem,
        wit::IoErrorKind::FileTooLarge => ErrorKind::FileTooLarge,
        wit::IoErrorKind::UnexpectedEof => ErrorKind::UnexpectedEof,
        wit::IoErrorKind::WriteZero => ErrorKind::WriteZero,
        wit::IoErrorKind::Unsupported => ErrorKind::Unsupported,
        wit::IoErrorKind::Other => ErrorKind::Other,
    }
}

/// A verb of the engine as text that lives as long as the program. The engine
/// has a dozen; a guest that invents more does not make this program grow.
fn intern(verb: String) -> &'static str {
    const VERBS_MAX: usize = 64;
    const VERB_BYTES_MAX: usize = 64;
    static VERBS: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

    let mut verbs = VERBS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = verbs.get(verb.as_str()) {
        return known;
    }
    if verbs.len() >= VERBS_MAX || verb.len() > VERB_BYTES_MAX {
        return "use";
    }
    let verb: &'static str = verb.leak();
    verbs.insert(verb);
    verb
}

pub fn durability(durability: Durability) -> wit::Durability {
    match durability {
        Durability::None => wit::Durability::None,
        Durability::Buffered => wit::Durability::Buffered,
        Durability::Sync => wit::Durability::Sync,
    }
}

pub fn engine_options(options: &Options, create_if_missing: bool) -> wit::Options {
    wit::Options {
        create_if_missing,
        durability: Some(durability(options.durability)),
        memtable_bytes: Some(options.memtable_bytes as u64),
        write_buffer_bytes: options.write_buffer_bytes.map(|bytes| bytes as u64),
        cache_bytes: Some(options.cache_bytes as u64),
        target_file_bytes: Some(options.target_file_bytes),
        compaction: Some(options.compaction.to_string()),
        wal_bytes_max: options.wal_bytes_max,
        value_bytes_max: Some(options.value_bytes_max as u64),
        batch_bytes_max: Some(options.batch_bytes_max as u64),
        stall_ms_max: Some(options.stall_ms_max),
        compression: Some(match options.compression {
            Compression::None => wit::Compression::None,
            Compression::Snappy => wit::Compression::Snappy,
        }),
    }
}

pub fn keyspace_options(options: &KeyspaceOptions) -> wit::KeyspaceOptions {
    let KeyspaceOptions { merge_operator, ttl_ms, memtable, compaction } = options.clone();
    let memtable = memtable.map(|kind| match kind {
        MemtableKind::Sorted => wit::MemtableKind::Sorted,
        MemtableKind::SkipList => wit::MemtableKind::SkipList,
        MemtableKind::Trie => wit::MemtableKind::Trie,
    });
    let compaction = compaction.map(|strategy| strategy.to_string());
    wit::KeyspaceOptions { merge_operator, ttl_ms, memtable, compaction }
}

pub fn scan_range(range: &ScanRange) -> wit::ScanRange {
    wit::ScanRange { start: bound(&range.start), end: bound(&range.end), reverse: range.reverse }
}

fn bound(bound: &Bound<Vec<u8>>) -> wit::Bound {
    match bound {
        Bound::Unbounded => wit::Bound::Unbounded,
        Bound::Included(key) => wit::Bound::Included(key.clone()),
        Bound::Excluded(key) => wit::Bound::Excluded(key.clone()),
    }
}

/// Keys as the packed request of a multi-get.
pub fn packed_keys(keys: &[&[u8]]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(keys.iter().map(|key| 4 + key.len()).sum());
    for key in keys {
        // A longer key runs past the end, and the guest refuses the request.
        packed.extend_from_slice(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_le_bytes());
        packed.extend_from_slice(key);
    }
    packed
}

/// The values of a packed answer, sharing its memory.
pub fn values(packed: Vec<u8>, count: usize) -> Result<Vec<Option<Bytes>>> {
    let mut rest = Bytes::from(packed);
    let mut values = Vec::with_capacity(count);
    while let Some(len) = rest.first_chunk().map(|len| u32::from_le_bytes(*len)) {
        let _ = rest.split_to(4);
        if len == ABSENT {
            values.push(None);
        } else if len as usize <= rest.len() {
            values.push(Some(rest.split_to(len as usize)));
        } else {
            break;
        }
    }
    if values.len() == count && rest.is_empty() {
        Ok(values)
    } else {
        Err(Error::Unsupported("the sandbox answered with bytes that are not packed values".to_owned()))
    }
}

pub fn keyspace(info: wit::KeyspaceInfo) -> (String, KeyspaceId) {
    (info.name, KeyspaceId(info.id))
}

pub fn verify_report(report: wit::VerifyReport) -> VerifyReport {
    let wit::VerifyReport { files, bytes, entries, problems } = report;
    let problems = problems
        .into_iter()
        .map(|wit::Damage { file, offset, what }| Problem { file, offset, what })
        .collect();
    VerifyReport { files, bytes, entries, problems }
}

pub fn checkpoint_report(report: wit::CheckpointReport) -> CheckpointReport {
    let wit::CheckpointReport { last_sequence, files, bytes, bytes_linked } = report;
    CheckpointReport { last_sequence, files, bytes, bytes_linked }
}

pub fn stats(stats: wit::Stats) -> Stats {
    Stats {
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
        stall: stats.stall.map(|wit::StallState { cause, kind }| StallState {
            cause: stall_cause(cause),
            kind: stall_kind(kind),
        }),
        background_errors: stats.background_errors.into_iter().map(background_error).collect(),
        stalls: stats.stalls.into_iter().map(stall_stats).collect(),
        jobs: stats.jobs.into_iter().map(job_stats).collect(),
    }
}

fn stall_cause(cause: wit::StallCause) -> StallCause {
    match cause {
        wit::StallCause::WriteBuffer => StallCause::WriteBuffer,
        wit::StallCause::Runs => StallCause::Runs,
    }
}

fn stall_kind(kind: wit::StallKind) -> StallKind {
    match kind {
        wit::StallKind::Slowed => StallKind::Slowed,
        wit::StallKind::Waited => StallKind::Waited,
        wit::StallKind::Refused => StallKind::Refused,
    }
}

fn stall_stats(stats: wit::StallStats) -> StallStats {
    let wit::StallStats { cause, kind, count, total_ms, max_ms } = stats;
    StallStats { cause: stall_cause(cause), kind: stall_kind(kind), count, total_ms, max_ms }
}

fn background_error(error: wit::BackgroundError) -> BackgroundError {
    let wit::BackgroundError { lane, message, count, since_ms } = error;
    let lane = match lane {
        wit::Lane::Flush => Lane::Flush,
        wit::Lane::Compaction => Lane::Compaction,
        wit::Lane::Log => Lane::Log,
    };
    BackgroundError { lane, message, count, since_ms }
}

fn keyspace_stats(stats: wit::KeyspaceStats) -> KeyspaceStats {
    KeyspaceStats {
        id: KeyspaceId(stats.id),
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

fn level_stats(stats: wit::LevelStats) -> LevelStats {
    let wit::LevelStats { level, scaling, runs, files, bytes, density_max } = stats;
    LevelStats { level, scaling, runs, files, bytes, density_max }
}

fn job_stats(stats: wit::JobStats) -> JobStats {
    let wit::JobStats { keyspace, cause, level, inputs, outputs, .. } = stats;
    JobStats {
        keyspace: KeyspaceId(keyspace),
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

fn run_stats(stats: wit::RunStats) -> RunStats {
    let wit::RunStats { level, density, files, bytes, entries, tombstones, range_tombstones } = stats;
    RunStats { level, density, files, bytes, entries, tombstones, range_tombstones }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_values_are_split_and_every_cut_is_refused() {
        let answer = b"\xff\xff\xff\xff\0\0\0\0\x01\0\0\0v".to_vec();
        let expected = [None, Some(Bytes::new()), Some(Bytes::from_static(b"v"))];
        assert_eq!(values(answer.clone(), 3).unwrap(), expected);
        for cut in 0..answer.len() {
            assert!(values(answer[..cut].to_vec(), 3).is_err(), "cut at {cut}");
        }
        assert!(values(answer, 4).is_err());
    }

    #[test]
    fn keys_are_packed_as_the_wit_says() {
        assert_eq!(packed_keys(&[b"a", b"", b"bc"]), b"\x01\0\0\0a\0\0\0\0\x02\0\0\0bc");
    }

    #[test]
    fn verbs_are_kept_once_and_long_ones_not_at_all() {
        assert!(std::ptr::eq(intern("append to".to_owned()), intern("append to".to_owned())));
        assert_eq!(intern("x".repeat(65)), "use");
    }
}
