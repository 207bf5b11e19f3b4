//! Compactions: sorted runs are merged into fewer, so that reads look in fewer
//! places and what is shadowed or deleted gives its space back.
//!
//! [`pick`] decides, on plain descriptions of the runs and without I/O; a
//! `Compaction` carries it out in steps. [`simulate`] shows what becomes of a tree
//! that grows by picks, and [`picture`] what one looks like.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::api::CompactionProgress;
use crate::core::Core;
use crate::edit::Placed;
use crate::error::Result;
use crate::filename;
use crate::job::{KeyRange, MergeJob, MergePlan};
use crate::key::FileNumber;
use crate::keyspace::{Keyspace, View};
use crate::merge::{MergeCursor, Source};
use crate::options::Budget;
use crate::range_delete::RangeDeletes;
use crate::sstable::{Purpose, TableMeta};
use crate::stats::JobStats;
use crate::sync::lock;
use crate::version::{Run, RunCursor, TableHandle, Version};

pub mod pick;
pub mod picture;
pub mod simulate;

use pick::{Parameters, Pick, RunShape, Work};

/// Compactions whose statistics are kept.
const JOBS_KEPT: usize = 32;

/// A compaction in progress.
pub(crate) struct Compaction {
    keyspace: Arc<Keyspace>,
    pick: Pick,
    inputs: Vec<Arc<TableHandle>>,
    /// The run that the outcome joins, by its level and id.
    target: (u32, u64),
    /// In order of their keys; none if nothing is read.
    merges: Vec<MergeJob>,
    /// When it began, by the monotonic clock.
    began_ms: u64,
}

impl Compaction {
    /// The most urgent compaction of any keyspace.
    ///
    /// # Errors
    /// As all of [`Compaction`].
    pub fn next(core: &Core) -> Result<Option<Compaction>> {
        let mut picked = Vec::new();
        for keyspace in core.keyspaces() {
            let version = Arc::clone(&keyspace.view().version);
            let covered = covered(core, &version)?;
            let parameters = Parameters { covered, ..parameters(core, &keyspace) };
            if let Some(pick) = pick::pick(&shapes(&version), &parameters) {
                picked.push((keyspace, version, pick));
            }
        }
        let urgent = picked.into_iter().max_by(|a, b| a.2.score.total_cmp(&b.2.score));
        urgent.map(|(keyspace, version, pick)| Compaction::new(core, keyspace, &version, pick)).transpose()
    }

    /// The compaction that makes one run of whatever may hold a key in a range, its
    /// ends included; `None` without tables.
    pub fn of_range(
        core: &Core,
        keyspace: Arc<Keyspace>,
        range: (Option<&[u8]>, Option<&[u8]>),
    ) -> Result<Option<Compaction>> {
        let version = Arc::clone(&keyspace.view().version);
        let pick = pick::pick_range(&shapes(&version), range, &parameters(core, &keyspace));
        pick.map(|pick| Compaction::new(core, keyspace, &version, pick)).transpose()
    }

    /// # Errors
    /// Those of opening an input with range tombstones.
    fn new(core: &Core, keyspace: Arc<Keyspace>, version: &Version, pick: Pick) -> Result<Compaction> {
        let began_ms = core.options.environment.monotonic_ms();
        let is_input = |table: &Arc<TableHandle>| pick.inputs.contains(&table.meta().number);
        let mut runs: Vec<Arc<Vec<Arc<TableHandle>>>> = Vec::new();
        for run in &version.runs {
            let tables: Vec<Arc<TableHandle>> = run.tables.iter().filter(|t| is_input(t)).cloned().collect();
            if !tables.is_empty() {
                runs.push(Arc::new(tables));
            }
        }
        let inputs: Vec<Arc<TableHandle>> = runs.iter().flat_map(|run| run.iter().cloned()).collect();
        let target = version.runs.get(pick.run).map_or((0, 0), |run| (run.level, run.id));
        if pick.work != Work::Merge {
            return Ok(Compaction { keyspace, pick, inputs, target, merges: Vec::new(), began_ms });
        }
        let older: Vec<Run> = version.runs.iter().skip(pick.run + 1).cloned().collect();
        let mut range_deletes = RangeDeletes::default();
        for table in inputs.iter().filter(|table| table.meta().range_deletes > 0) {
            range_deletes.extend(table.table()?.range_deletes());
        }
        let metas: Vec<&TableMeta> = inputs.iter().map(|table| table.meta()).collect();
        let ranges = ranges(&metas, core.options.target_file_bytes, core.options.compaction_threads);
        let parts = ranges.len();
        // Where tables end together, later merges take few that they need not.
        let boundaries: &[_] = older.last().map_or(&[], |run| &run.tables);
        let merge = |range: KeyRange| {
            let sources = runs
                .iter()
                .map(|run| Source::Run(RunCursor::new(Arc::clone(run), 0..run.len(), Purpose::Rewriting)));
            let inside = |key: &Vec<u8>| range.0.as_ref().is_none_or(|start| key > start);
            let plan = MergePlan {
                keyspace: Arc::clone(&keyspace),
                level: pick.level,
                table_bytes: core.options.target_file_bytes,
                boundaries: boundaries.iter().map(|t| t.meta().key_min.clone()).filter(inside).collect(),
                cursor: MergeCursor::new(sources.collect()),
                range,
                parts,
                range_deletes: range_deletes.clone(),
                expires: inputs.iter().any(|table| table.meta().expires()),
                older: older.clone(),
            };
            MergeJob::new(core, plan)
        };
        let merges = ranges.into_iter().map(merge).collect();
        Ok(Compaction { keyspace, pick, inputs, target, merges, began_ms })
    }

    /// Entries merged, of how many.
    pub fn progress(&self) -> CompactionProgress {
        let total = self.inputs.iter().map(|table| table.meta().entries()).sum();
        let done = self.merges.iter().map(MergeJob::entries).sum();
        CompactionProgress { done, total }
    }

    /// Works for about `budget`; true once the outcome is installed.
    ///
    /// # Errors
    /// Any: [`Compaction::abandon`] it. The inputs are still there.
    pub fn step(&mut self, core: &Core, budget: Budget) -> Result<bool> {
        if !self.merges.is_empty() {
            if !self.step_merges(core, budget)? {
                return Ok(false);
            }
            core.storage.sync_dir(&filename::sst_dir(self.keyspace.id))?;
        }
        self.install(core)?;
        Ok(true)
    }

    /// Works on all parts at once, where there are threads, and on one after the other
    /// where there are none; true once all are done.
    fn step_merges(&mut self, core: &Core, budget: Budget) -> Result<bool> {
        let mut left: Vec<&mut MergeJob> = self.merges.iter_mut().filter(|merge| !merge.is_done()).collect();
        let Some(first) = left.pop() else { return Ok(true) };
        if !core.threaded() || left.is_empty() {
            return Ok(first.step(core, budget)? && left.is_empty());
        }
        std::thread::scope(|scope| {
            let others: Vec<_> =
                left.into_iter().map(|merge| scope.spawn(|| merge.step(core, budget))).collect();
            let mut done = first.step(core, budget)?;
            for other in others {
                // A panic goes on here.
                done &= other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            Ok(done)
        })
    }

    /// Gives up and removes what was written.
    pub fn abandon(self, core: &Core) {
        // After a failed change of the manifest the tables may be live.
        if core.check_writable().is_ok() {
            self.merges.iter().for_each(|merge| merge.remove_tables(core));
        }
    }

    fn install(&self, core: &Core) -> Result<()> {
        let (level, run) = self.target;
        let placed = |meta| Placed { level, run, meta };
        let written: Vec<&TableMeta> = self.merges.iter().flat_map(MergeJob::tables).collect();
        let added: Vec<Placed> = match self.pick.work {
            Work::Merge => written.iter().copied().cloned().map(placed).collect(),
            Work::Drop => Vec::new(),
            Work::Move => self.inputs.iter().map(|table| placed(table.meta().clone())).collect(),
        };
        let removed: Vec<FileNumber> = self.inputs.iter().map(|table| table.meta().number).collect();
        let stats = self.stats(core, &written);
        let mut manifest = lock(&core.manifest);
        if self.keyspace.is_dropped() {
            drop(manifest);
            self.merges.iter().for_each(|merge| merge.remove_tables(core));
            return Ok(());
        }
        core.install(&self.keyspace, &mut manifest, Vec::new(), &removed, added, |view, version| View {
            active: Arc::clone(&view.active),
            immutable: view.immutable.clone(),
            version: Arc::new(version),
        })?;
        drop(manifest);
        core.counters.compactions.fetch_add(1, Relaxed);
        core.counters.compaction_bytes_read.fetch_add(stats.bytes_read, Relaxed);
        core.counters.compaction_bytes_written.fetch_add(stats.bytes_written, Relaxed);
        self.keyspace.usage.compaction_bytes.fetch_add(stats.bytes_written, Relaxed);
        let mut jobs = lock(&core.jobs);
        if jobs.len() == JOBS_KEPT {
            jobs.pop_front();
        }
        jobs.push_back(stats);
        Ok(())
    }

    /// What it did, with these tables written.
    fn stats(&self, core: &Core, written: &[&TableMeta]) -> JobStats {
        let inputs = || self.inputs.iter().map(|table| table.meta());
        let entries: u64 = inputs().map(TableMeta::entries).sum();
        let (bytes_read, outputs, left) = match self.pick.work {
            Work::Merge => {
                let left = written.iter().map(|meta| meta.entries()).sum();
                (inputs().map(|meta| meta.bytes).sum(), written.len(), left)
            }
            Work::Move => (0, self.inputs.len(), entries),
            Work::Drop => (0, 0, 0),
        };
        JobStats {
            keyspace: self.keyspace.id,
            cause: self.pick.cause.to_string(),
            level: self.pick.level,
            inputs: self.inputs.len() as u64,
            outputs: outputs as u64,
            bytes_read,
            bytes_written: written.iter().map(|meta| meta.bytes).sum(),
            entries,
            entries_dropped: entries.saturating_sub(left),
            ms: core.options.environment.monotonic_ms().saturating_sub(self.began_ms),
        }
    }
}

/// Ranges of keys with about as many bytes of `inputs` each, so many that each is
/// worth a file at least, and no more than `parts_max`.
fn ranges(inputs: &[&TableMeta], target_file_bytes: u64, parts_max: usize) -> Vec<KeyRange> {
    let bytes: u64 = inputs.iter().map(|meta| meta.bytes).sum();
    let count = (bytes / target_file_bytes.max(1)).min(parts_max as u64).max(1);
    let mut starts: Vec<(&[u8], u64)> = inputs.iter().map(|meta| (&meta.key_min[..], meta.bytes)).collect();
    starts.sort_unstable();
    let (mut cuts, mut before, mut last) = (Vec::new(), 0, starts.first().map_or(&[][..], |start| start.0));
    for (start, bytes_here) in starts {
        if start > last && before * count >= bytes * (cuts.len() as u64 + 1) {
            cuts.push(start.to_vec());
            last = start;
        }
        before += bytes_here;
    }
    let from = std::iter::once(None).chain(cuts.iter().cloned().map(Some));
    from.zip(cuts.iter().cloned().map(Some).chain([None])).collect()
}

/// What picks in a keyspace depend on now.
pub(crate) fn parameters(core: &Core, keyspace: &Keyspace) -> Parameters {
    let (_, oldest_snapshot) = core.snapshots.summary();
    Parameters {
        scaling: keyspace.scaling(&core.options.compaction).0,
        flush_bytes: keyspace.flush_bytes(core.options.memtable_bytes),
        target_file_bytes: core.options.target_file_bytes,
        now_ms: core.options.environment.unix_ms(),
        oldest_snapshot,
        covered: Vec::new(),
        // What a storage cannot tell is taken to be enough.
        space_left: core.storage.space_left().ok().flatten().unwrap_or(u64::MAX),
    }
}

/// Tables all of whose entries a range tombstone hides that is in a newer table, from
/// everybody who reads. (One that is in memory may be lost with its commit.)
fn covered(core: &Core, version: &Version) -> Result<Vec<FileNumber>> {
    let points = core.snapshots.points();
    let mut newer = RangeDeletes::default();
    let mut covered = Vec::new();
    for run in &version.runs {
        let metas = run.tables.iter().map(|table| table.meta()).filter(|_| !newer.is_empty());
        covered.extend(metas.filter_map(|meta| {
            let hidden_from = newer.covering(&meta.key_min, &meta.key_max, meta.seq_max)?;
            let read = points.iter().any(|point| (meta.seq_min..hidden_from).contains(point));
            (!read).then_some(meta.number)
        }));
        for table in run.tables.iter().filter(|table| table.meta().range_deletes > 0) {
            newer.extend(table.table()?.range_deletes());
        }
    }
    Ok(covered)
}

/// The runs of a version as picks look at them.
pub(crate) fn shapes(version: &Version) -> Vec<RunShape<'_>> {
    let runs = version.runs.iter();
    runs.map(|run| RunShape { tables: run.tables.iter().map(|table| table.meta()).collect() }).collect()
}

#[cfg(test)]
mod tests {
    //! Parts of inputs of random extents: every key belongs to one, and none is much
    //! larger than its share.

    use super::*;
    use crate::key::{KeyspaceId, SequenceNumber};

    fn table(key_min: u64, bytes: u64) -> TableMeta {
        TableMeta {
            number: FileNumber(1),
            keyspace: KeyspaceId(1),
            bytes,
            tail_offset: 0,
            tail_checksum: 0,
            key_min: key_min.to_be_bytes().to_vec(),
            key_max: key_min.to_be_bytes().to_vec(),
            seq_min: SequenceNumber(1),
            seq_max: SequenceNumber(1),
            puts: 1,
            deletes: 0,
            merges: 0,
            range_deletes: 0,
            expires_min: 0,
            expires_max: 0,
        }
    }

    #[test]
    fn parts_share_the_work() {
        for (count, target, parts_max) in [(1, 10, 4), (3, 1_000, 4), (40, 10, 1), (40, 10, 4), (40, 200, 4)]
        {
            // Two runs of files of 10 bytes, interleaved.
            let tables: Vec<TableMeta> = (0..count).map(|number| table(number * 7 % count, 10)).collect();
            let found = ranges(&tables.iter().collect::<Vec<_>>(), target, parts_max);
            let expected = (count * 10 / target).clamp(1, parts_max as u64);
            assert_eq!(found.len() as u64, expected);
            assert!(found[0].0.is_none() && found[found.len() - 1].1.is_none());
            assert!(found.windows(2).all(|pair| pair[0].1.is_some() && pair[0].1 == pair[1].0));
            assert!(found.iter().all(|(start, end)| start.is_none() || end.is_none() || start < end));
            for (start, end) in &found {
                let inside = |table: &&TableMeta| {
                    start.as_ref().is_none_or(|start| table.key_min >= *start)
                        && end.as_ref().is_none_or(|end| table.key_min < *end)
                };
                let files = tables.iter().filter(inside).count() as u64;
                assert!(
                    files.abs_diff(count / expected) <= 1,
                    "{files} of {count} files in {expected} parts"
                );
            }
        }
        // What begins together cannot be parted.
        let same = [table(5, 100), table(5, 100), table(5, 100)];
        assert_eq!(ranges(&same.iter().collect::<Vec<_>>(), 10, 4), [(None, None)]);
    }
}
