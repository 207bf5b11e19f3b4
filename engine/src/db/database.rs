//! [`Database`] for the native handle.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arc_swap::Guard;
use bytes::Bytes;

use super::{Db, Engine, Keyspace, Parts};
use crate::api::{
    CompactionProgress, Database, DatabaseTransaction, Page, PageBuilder, Progress, Scan, ScanRange,
    SnapshotId, next_page_bytes,
};
use crate::background::Wanted;
use crate::batch::WriteBatch;
use crate::compaction;
use crate::compaction::pick::{self, RunLevel, Work};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::key::{KeyspaceId, SequenceNumber};
use crate::keyspace;
use crate::options::{Budget, Durability, KeyspaceOptions};
use crate::read::RowCursor;
use crate::stats::{KeyspaceStats, LevelStats, RunStats, Stats, VerifyReport};
use crate::sync::lock;
use crate::verify;
use crate::version::Run;

impl Db {
    fn handle(&self, id: KeyspaceId) -> Result<Keyspace> {
        self.core().check_open()?;
        Ok(Keyspace { engine: Arc::clone(&self.engine), inner: self.core().keyspace(id)? })
    }

    fn sequence_of(&self, snapshot: Option<SnapshotId>) -> Result<Option<SequenceNumber>> {
        let Some(id) = snapshot else { return Ok(None) };
        let found = lock(&self.engine.snapshots).live.get(&id).copied();
        found.map(Some).ok_or_else(|| unknown_snapshot(id))
    }
}

fn unknown_snapshot(id: SnapshotId) -> Error {
    Error::invalid(format!("there is no snapshot {}; it may have been released", id.0))
}

impl Database for Db {
    fn create_keyspace_with(&self, name: &str, options: &KeyspaceOptions) -> Result<KeyspaceId> {
        Ok(self.keyspace_with(name, options.clone())?.id())
    }

    fn drop_keyspace(&self, name: &str) -> Result<bool> {
        let Parts { core, writes, .. } = &*self.engine.parts;
        core.check_writable()?;
        writes.with_wal(|_| core.drop_keyspace(name))
    }

    fn find_keyspace(&self, name: &str) -> Result<Option<KeyspaceId>> {
        self.core().check_open()?;
        Ok(self.core().find_keyspace(name).map(|keyspace| keyspace.id))
    }

    fn keyspaces(&self) -> Result<Vec<(String, KeyspaceId)>> {
        self.core().check_open()?;
        Ok(self.core().keyspaces().into_iter().map(|keyspace| (keyspace.name.clone(), keyspace.id)).collect())
    }

    fn get(&self, keyspace: KeyspaceId, key: &[u8], snapshot: Option<SnapshotId>) -> Result<Option<Bytes>> {
        let seq = self.sequence_of(snapshot)?;
        self.handle(keyspace)?.get_at(key, seq)
    }

    fn multi_get(
        &self,
        keyspace: KeyspaceId,
        keys: &[&[u8]],
        snapshot: Option<SnapshotId>,
    ) -> Result<Vec<Option<Bytes>>> {
        let seq = self.sequence_of(snapshot)?;
        self.handle(keyspace)?.multi_get_at(keys, seq)
    }

    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<()> {
        self.engine.commit(batch, durability, None)
    }

    fn transaction(&self) -> Result<Box<dyn DatabaseTransaction>> {
        self.core().check_open()?;
        Ok(Box::new(Db::transaction(self)))
    }

    fn snapshot(&self) -> Result<SnapshotId> {
        let core = self.core();
        core.check_open()?;
        let mut snapshots = lock(&self.engine.snapshots);
        snapshots.last += 1;
        let id = SnapshotId(snapshots.last);
        snapshots.live.insert(id, core.snapshots.acquire(&core.visible));
        Ok(id)
    }

    fn release(&self, snapshot: SnapshotId) -> Result<()> {
        let seq = lock(&self.engine.snapshots).live.remove(&snapshot);
        let seq = seq.ok_or_else(|| unknown_snapshot(snapshot))?;
        self.core().snapshots.release(seq);
        Ok(())
    }

    fn scan(
        &self,
        keyspace: KeyspaceId,
        range: &ScanRange,
        snapshot: Option<SnapshotId>,
    ) -> Result<Box<dyn Scan>> {
        let seq = self.sequence_of(snapshot)?;
        let keyspace = self.handle(keyspace)?;
        keyspace.inner.usage.note_scan();
        let view = Guard::into_inner(keyspace.inner.view_to_read()?);
        let bounds = (range.start.clone(), range.end.clone());
        let moment = self.core().moment(&view, seq);
        let rows = RowCursor::new(keyspace.inner, view, bounds, moment, range.reverse, None)?;
        Ok(Box::new(PageScan::new(Arc::clone(&self.engine), rows)))
    }

    fn flush(&self) -> Result<()> {
        let parts = &self.engine.parts;
        parts.writes.freeze_all(&parts.core)?;
        parts.background.flush(&parts.core)
    }

    fn compact(&self) -> Result<()> {
        self.flush()?;
        self.engine.parts.background.compact(self.core())
    }

    fn compact_slice(
        &self,
        keyspace: KeyspaceId,
        range: &ScanRange,
        budget: Budget,
    ) -> Result<Option<CompactionProgress>> {
        self.handle(keyspace)?;
        // What touches the range from outside is merged with it.
        let limit = |bound: &Bound<Vec<u8>>| match bound {
            Bound::Unbounded => None,
            Bound::Included(key) | Bound::Excluded(key) => Some(key.clone()),
        };
        let wanted = Wanted { keyspace, range: (limit(&range.start), limit(&range.end)) };
        self.engine.parts.background.compact_slice(self.core(), &wanted, budget)
    }

    fn cancel_compactions(&self) -> Result<()> {
        self.core().check_open()?;
        self.engine.parts.background.cancel_compactions(self.core());
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.engine.parts.writes.sync(self.core())
    }

    fn verify(&self) -> Result<VerifyReport> {
        self.core().check_open()?;
        verify::verify(self.core(), &self.engine.parts.writes)
    }

    fn stats(&self) -> Result<Stats> {
        self.core().check_open()?;
        Ok(stats(&self.engine))
    }

    fn maintain(&self, budget: Budget) -> Result<Progress> {
        self.engine.parts.background.maintain(self.core(), budget)
    }

    fn close(&self) -> Result<()> {
        self.engine.close()
    }
}

/// A scan that keeps its database open.
pub(super) struct PageScan {
    engine: Arc<Engine>,
    rows: RowCursor,
    /// Bytes of the pages so far.
    read: usize,
}

impl PageScan {
    pub fn new(engine: Arc<Engine>, rows: RowCursor) -> PageScan {
        PageScan { engine, rows, read: 0 }
    }
}

impl Scan for PageScan {
    fn next_page(&mut self, bytes_max: usize, pairs_max: usize) -> Result<Page> {
        self.engine.parts.core.check_open()?;
        let bytes = next_page_bytes(self.read).min(bytes_max);
        // With room for the pair that reaches beyond.
        let mut page = PageBuilder::with_capacity(bytes + bytes / 8);
        let mut pairs = 0;
        while (pairs == 0 || (page.len() < bytes_max && pairs < pairs_max)) && self.rows.advance()? {
            page.push(self.rows.key(), self.rows.value());
            pairs += 1;
        }
        self.read = self.read.saturating_add(page.len());
        Ok(page.finish())
    }
}

fn stats(engine: &Engine) -> Stats {
    let Parts { core, background, writes } = &*engine.parts;
    core.look();
    let stalls = core.stalls.stats();
    let counters = &core.counters;
    let (snapshots, oldest_snapshot) = core.snapshots.summary();
    let current = writes.with_wal(|wal| wal.map(|wal| wal.bytes()));
    let (old_wals, old_wal_bytes) = {
        let wals = lock(&core.old_wals);
        (wals.len() as u64, wals.values().map(|wal| wal.bytes).sum::<u64>())
    };
    let keyspaces = core.keyspaces();
    Stats {
        keyspaces: keyspaces.iter().map(|keyspace| keyspace_stats(core, keyspace)).collect(),
        last_sequence: core.visible().0,
        snapshots,
        oldest_snapshot: oldest_snapshot.unwrap_or_default().0,
        wal_files: old_wals + u64::from(current.is_some()),
        wal_bytes: old_wal_bytes + current.unwrap_or(0),
        bytes_committed: counters.bytes_committed.load(Relaxed),
        commits: counters.commits.load(Relaxed),
        wal_syncs: counters.wal_syncs.load(Relaxed),
        flushes: counters.flushes.load(Relaxed),
        flush_bytes: counters.flush_bytes.load(Relaxed),
        compactions: counters.compactions.load(Relaxed),
        compaction_bytes_read: counters.compaction_bytes_read.load(Relaxed),
        compaction_bytes_written: counters.compaction_bytes_written.load(Relaxed),
        stall_ms: stalls.iter().map(|stall| stall.total_ms).sum(),
        cache_bytes: core.cache.bytes(),
        cache_hits: core.cache.hits(),
        cache_misses: core.cache.misses(),
        recovered_commits: counters.recovered_commits.load(Relaxed),
        recovered_bytes_dropped: counters.recovered_bytes_dropped.load(Relaxed),
        flush_failures: counters.flush_failures.load(Relaxed),
        compaction_failures: counters.compaction_failures.load(Relaxed),
        names_durable: core.names_durable,
        stall: core.stalls.state(),
        background_errors: background.errors(core),
        stalls,
        jobs: lock(&core.jobs).iter().cloned().collect(),
    }
}

fn keyspace_stats(core: &Core, keyspace: &keyspace::Keyspace) -> KeyspaceStats {
    let view = keyspace.view();
    let parameters = compaction::parameters(core, keyspace);
    let shapes = compaction::shapes(&view.version);
    let (bounds, run_levels) = pick::levels(&shapes, &parameters);
    let runs: Vec<RunStats> = view.version.runs.iter().zip(run_levels).map(run_stats).collect();
    let deepest = bounds.len() - 1;
    let level = |(level, density): (usize, &f64)| {
        let on_level = || runs.iter().filter(|run| run.level == level as u32);
        LevelStats {
            level: level as u32,
            scaling: parameters.scaling.of(level, deepest).to_string(),
            runs: on_level().count() as u64,
            files: on_level().map(|run| run.files).sum(),
            bytes: on_level().map(|run| run.bytes).sum(),
            density_max: *density as u64,
        }
    };
    let (scaling, adaptive) = keyspace.scaling(&core.options.compaction);
    let usage = &keyspace.usage;
    KeyspaceStats {
        id: keyspace.id,
        name: keyspace.name.clone(),
        memtable_entries: view.memtables().map(|memory| memory.table.entries() as u64).sum(),
        memtable_bytes: view.memtables().map(|memory| memory.bytes() as u64).sum(),
        levels: bounds.iter().enumerate().map(level).collect(),
        runs,
        scaling: scaling.to_string(),
        adaptive: adaptive.unwrap_or_default(),
        overlap: view.version.overlap() as u64,
        pending_bytes: pick::pick(&shapes, &parameters).map_or(0, |pick| match pick.work {
            Work::Merge => pick.bytes,
            Work::Move | Work::Drop => 0,
        }),
        bytes_put: usage.bytes_put.load(Relaxed),
        flush_bytes: usage.flush_bytes.load(Relaxed),
        compaction_bytes: usage.compaction_bytes.load(Relaxed),
    }
}

fn run_stats((run, RunLevel { level, density }): (&Run, RunLevel)) -> RunStats {
    let tables = || run.tables.iter().map(|table| table.meta());
    RunStats {
        level,
        density: density as u64,
        files: run.tables.len() as u64,
        bytes: run.bytes(),
        entries: tables().map(|meta| meta.entries()).sum(),
        tombstones: tables().map(|meta| meta.deletes).sum(),
        range_tombstones: tables().map(|meta| meta.range_deletes).sum(),
    }
}
