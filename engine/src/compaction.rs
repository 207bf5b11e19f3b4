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
use crate::job::{MergeJob, MergePlan};
use crate::key::FileNumber;
use crate::keyspace::{Keyspace, View};
use crate::merge::{MergeCursor, Source};
use crate::options::Budget;
use crate::range_delete::RangeDeletes;
use crate::sstable::TableMeta;
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
    /// `None` if nothing is read.
    merge: Option<MergeJob>,
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
        let mut sources = Vec::new();
        let mut inputs = Vec::new();
        for run in &version.runs {
            let tables: Vec<Arc<TableHandle>> = run.tables.iter().filter(|t| is_input(t)).cloned().collect();
            if !tables.is_empty() {
                inputs.extend(tables.iter().cloned());
                let count = tables.len();
                sources.push(Source::Run(RunCursor::new(Arc::new(tables), 0..count)));
            }
        }
        let target = version.runs.get(pick.run).map_or((0, 0), |run| (run.level, run.id));
        if pick.work != Work::Merge {
            return Ok(Compaction { keyspace, pick, inputs, target, merge: None, began_ms });
        }
        let older: Vec<Run> = version.runs.iter().skip(pick.run + 1).cloned().collect();
        let mut range_deletes = RangeDeletes::default();
        for table in inputs.iter().filter(|table| table.meta().range_deletes > 0) {
            range_deletes.extend(table.table()?.range_deletes());
        }
        // Where tables end together, later merges take few that they need not.
        let boundaries = older.last().map_or(&[][..], |run| &run.tables);
        let plan = MergePlan {
            keyspace: Arc::clone(&keyspace),
            level: pick.level,
            table_bytes: core.options.target_file_bytes,
            boundaries: boundaries.iter().map(|table| table.meta().key_min.clone()).collect(),
            cursor: Box::new(MergeCursor::new(sources)),
            range_deletes,
            expires: inputs.iter().any(|table| table.meta().expires()),
            older,
        };
        let merge = Some(MergeJob::new(core, plan));
        Ok(Compaction { keyspace, pick, inputs, target, merge, began_ms })
    }

    /// Entries merged, of how many.
    pub fn progress(&self) -> CompactionProgress {
        let total = self.inputs.iter().map(|table| table.meta().entries()).sum();
        let done = self.merge.as_ref().map_or(0, MergeJob::entries);
        CompactionProgress { done, total }
    }

    /// Works for about `budget`; true once the outcome is installed.
    ///
    /// # Errors
    /// Any: [`Compaction::abandon`] it. The inputs are still there.
    pub fn step(&mut self, core: &Core, budget: Budget) -> Result<bool> {
        if let Some(merge) = &mut self.merge {
            if !merge.step(core, budget)? {
                return Ok(false);
            }
            core.storage.sync_dir(&filename::sst_dir(self.keyspace.id))?;
        }
        self.install(core)?;
        Ok(true)
    }

    /// Gives up and removes what was written.
    pub fn abandon(self, core: &Core) {
        // After a failed change of the manifest the tables may be live.
        if let Some(merge) = self.merge
            && core.check_writable().is_ok()
        {
            merge.abandon(core);
        }
    }

    fn install(&self, core: &Core) -> Result<()> {
        let (level, run) = self.target;
        let placed = |meta| Placed { level, run, meta };
        let added: Vec<Placed> = match (&self.merge, self.pick.work) {
            (Some(merge), _) => merge.tables().iter().cloned().map(placed).collect(),
            (None, Work::Drop) => Vec::new(),
            (None, _) => self.inputs.iter().map(|table| placed(table.meta().clone())).collect(),
        };
        let removed: Vec<FileNumber> = self.inputs.iter().map(|table| table.meta().number).collect();
        let written: Vec<&TableMeta> = match &self.merge {
            Some(merge) => merge.tables().iter().collect(),
            None => Vec::new(),
        };
        let stats = self.stats(core, &written);
        let mut manifest = lock(&core.manifest);
        if self.keyspace.is_dropped() {
            drop(manifest);
            if let Some(merge) = &self.merge {
                merge.remove_tables(core);
            }
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
            let hidden_below = newer.covering(&meta.key_min, &meta.key_max);
            let read = points.iter().any(|point| (meta.seq_min..hidden_below).contains(point));
            (meta.seq_max < hidden_below && !read).then_some(meta.number)
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
