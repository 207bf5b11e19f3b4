//! Compactions: sorted runs are merged into fewer, so that reads look in fewer
//! places and what is shadowed or deleted gives its space back.
//!
//! [`pick`] decides, on plain descriptions of the runs and without I/O; a
//! `Compaction` carries it out in steps. [`simulate`] shows what becomes of a tree
//! that grows by picks, and [`picture`] what one looks like.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::core::Core;
use crate::cursor::Cursor;
use crate::edit::Placed;
use crate::error::Result;
use crate::filename;
use crate::job::{MergeJob, MergePlan};
use crate::key::FileNumber;
use crate::keyspace::{Keyspace, View};
use crate::merge::MergeCursor;
use crate::options::Budget;
use crate::range_delete::RangeDeletes;
use crate::sync::lock;
use crate::version::{Run, RunCursor, TableHandle, Version};

pub mod pick;
pub mod picture;
pub mod simulate;

use pick::{Parameters, Pick, RunShape, Work};

/// A compaction in progress.
pub(crate) struct Compaction {
    keyspace: Arc<Keyspace>,
    pick: Pick,
    inputs: Vec<Arc<TableHandle>>,
    /// The run that the outcome joins, by its level and id.
    target: (u32, u64),
    /// `None` if nothing is read.
    merge: Option<MergeJob>,
}

impl Compaction {
    /// The most urgent compaction of any keyspace.
    ///
    /// # Errors
    /// As all of [`Compaction`].
    pub fn next(core: &Core) -> Result<Option<Compaction>> {
        let picked = core.keyspaces().into_iter().filter_map(|keyspace| {
            let version = Arc::clone(&keyspace.view().version);
            let pick = pick::pick(&shapes(&version), &parameters(core, &keyspace))?;
            Some((keyspace, version, pick))
        });
        let urgent = picked.max_by(|a, b| a.2.score.total_cmp(&b.2.score));
        urgent.map(|(keyspace, version, pick)| Compaction::new(core, keyspace, &version, pick)).transpose()
    }

    /// The compaction that makes one run of a keyspace; `None` if it has no
    /// tables.
    pub fn full(core: &Core, keyspace: Arc<Keyspace>) -> Result<Option<Compaction>> {
        let version = Arc::clone(&keyspace.view().version);
        let pick = pick::pick_range(&shapes(&version), (None, None), &parameters(core, &keyspace));
        pick.map(|pick| Compaction::new(core, keyspace, &version, pick)).transpose()
    }

    /// # Errors
    /// Those of opening an input with range tombstones.
    fn new(core: &Core, keyspace: Arc<Keyspace>, version: &Version, pick: Pick) -> Result<Compaction> {
        let is_input = |table: &Arc<TableHandle>| pick.inputs.contains(&table.meta().number);
        let mut sources: Vec<Box<dyn Cursor + Send>> = Vec::new();
        let mut inputs = Vec::new();
        for run in &version.runs {
            let tables: Vec<Arc<TableHandle>> = run.tables.iter().filter(|t| is_input(t)).cloned().collect();
            if !tables.is_empty() {
                inputs.extend(tables.iter().cloned());
                sources.push(Box::new(RunCursor::new(tables)));
            }
        }
        let target = version.runs.get(pick.run).map_or((0, 0), |run| (run.level, run.id));
        if pick.work != Work::Merge {
            return Ok(Compaction { keyspace, pick, inputs, target, merge: None });
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
        Ok(Compaction { keyspace, pick, inputs, target, merge })
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
        let bytes_written: u64 = added.iter().map(|table| table.meta.bytes).sum();
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
        if self.merge.is_some() {
            let bytes_read = self.inputs.iter().map(|table| table.meta().bytes).sum();
            core.counters.compaction_bytes_read.fetch_add(bytes_read, Relaxed);
            core.counters.compaction_bytes_written.fetch_add(bytes_written, Relaxed);
        }
        Ok(())
    }
}

/// What picks in a keyspace depend on now.
pub(crate) fn parameters(core: &Core, keyspace: &Keyspace) -> Parameters {
    let (_, oldest_snapshot) = core.snapshots.summary();
    Parameters {
        scaling: core.options.scaling.clone(),
        flush_bytes: keyspace.flush_bytes(core.options.memtable_bytes),
        target_file_bytes: core.options.target_file_bytes,
        now_ms: core.options.environment.unix_ms(),
        oldest_snapshot,
        // What a storage cannot tell is taken to be enough.
        space_left: core.storage.space_left().ok().flatten().unwrap_or(u64::MAX),
    }
}

/// The runs of a version as picks look at them.
pub(crate) fn shapes(version: &Version) -> Vec<RunShape<'_>> {
    let runs = version.runs.iter();
    runs.map(|run| RunShape { tables: run.tables.iter().map(|table| table.meta()).collect() }).collect()
}
