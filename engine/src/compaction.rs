//! Compactions: sorted runs are merged into one, so that reads look in fewer
//! places and what is shadowed or deleted gives its space back.
//!
//! [`pick`] decides, on plain descriptions of the runs and without I/O; a
//! [`Compaction`] carries it out in steps.

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

use pick::{Parameters, Pick, RunShape};

/// A compaction in progress.
pub(crate) struct Compaction {
    keyspace: Arc<Keyspace>,
    pick: Pick,
    inputs: Vec<Arc<TableHandle>>,
    /// `None` if the tables move as they are.
    merge: Option<MergeJob>,
}

impl Compaction {
    /// The most urgent compaction of any keyspace.
    ///
    /// # Errors
    /// As all of [`Compaction`].
    pub fn next(core: &Core) -> Result<Option<Compaction>> {
        let parameters = parameters(core);
        let picked = core.keyspaces().into_iter().filter_map(|keyspace| {
            let version = Arc::clone(&keyspace.view().version);
            let pick = pick::pick(&shapes(&version), &parameters)?;
            Some((keyspace, version, pick))
        });
        let urgent = picked.max_by(|a, b| a.2.score.total_cmp(&b.2.score));
        urgent.map(|(keyspace, version, pick)| Compaction::new(core, keyspace, &version, pick)).transpose()
    }

    /// The compaction that makes one run of a keyspace; `None` if it has no
    /// tables.
    pub fn full(core: &Core, keyspace: Arc<Keyspace>) -> Result<Option<Compaction>> {
        let version = Arc::clone(&keyspace.view().version);
        let pick = pick::pick_all(&shapes(&version), &parameters(core));
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
        let older: Vec<Run> = version.runs.iter().filter(|run| run.level > pick.level).cloned().collect();
        let mut range_deletes = RangeDeletes::default();
        if !pick.moves {
            for table in inputs.iter().filter(|table| table.meta().range_deletes > 0) {
                range_deletes.extend(table.table()?.range_deletes());
            }
        }
        let plan = MergePlan {
            keyspace: Arc::clone(&keyspace),
            level: pick.level,
            table_bytes: core.options.target_file_bytes,
            cursor: Box::new(MergeCursor::new(sources)),
            range_deletes,
            expires: inputs.iter().any(|table| table.meta().expires()),
            older,
        };
        let merge = (!pick.moves).then(|| MergeJob::new(core, plan));
        Ok(Compaction { keyspace, pick, inputs, merge })
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
        let level = self.pick.level;
        let placed = |meta| Placed { level, run: u64::from(level), meta };
        let added: Vec<Placed> = match &self.merge {
            Some(merge) => merge.tables().iter().cloned().map(placed).collect(),
            None => self.inputs.iter().map(|table| placed(table.meta().clone())).collect(),
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

fn parameters(core: &Core) -> Parameters {
    Parameters { level_1_bytes: 4 * core.options.memtable_bytes as u64, ..Parameters::default() }
}

fn shapes<'v>(version: &'v Version) -> Vec<RunShape<'v>> {
    let tables = |run: &'v Run| run.tables.iter().map(|table| table.meta()).collect();
    version.runs.iter().map(|run| RunShape { level: run.level, tables: tables(run) }).collect()
}
