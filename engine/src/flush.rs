//! Flushes: a memtable that was set aside becomes an SSTable on level 0.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::core::Core;
use crate::edit::{Header, Item, Placed, State};
use crate::error::Result;
use crate::filename;
use crate::job::{MergeJob, MergePlan};
use crate::key::FileNumber;
use crate::keyspace::{Keyspace, Memory, View};
use crate::merge::MergeCursor;
use crate::options::Budget;
use crate::sync::lock;

/// A flush in progress.
pub(crate) struct Flush {
    keyspace: Arc<Keyspace>,
    memory: Arc<Memory>,
    merge: MergeJob,
}

impl Flush {
    /// The flush that frees the oldest WAL; the memtables of a keyspace go
    /// oldest first.
    pub fn next(core: &Core) -> Option<Flush> {
        let oldest = |keyspace: Arc<Keyspace>| {
            let memory = keyspace.view().immutable.last().cloned()?;
            Some((keyspace, memory))
        };
        let waiting = core.keyspaces().into_iter().filter_map(oldest);
        let (keyspace, memory) = waiting.min_by_key(|(_, memory)| memory.first_wal())?;
        let plan = MergePlan {
            keyspace: Arc::clone(&keyspace),
            level: 0,
            table_bytes: u64::MAX,
            boundaries: Vec::new(),
            cursor: MergeCursor::new(vec![Arc::clone(&memory.table).cursor(None).into()]),
            parts: 1,
            range: (None, None),
            range_deletes: memory.range_deletes().as_deref().cloned().unwrap_or_default(),
            expires: memory.expires(),
            older: keyspace.view().version.runs.clone(),
        };
        let merge = MergeJob::new(core, plan);
        Some(Flush { keyspace, memory, merge })
    }

    /// Works for about `budget`; true once the outcome is installed.
    ///
    /// # Errors
    /// Any: [`Flush::abandon`] it. The memtable is still there.
    pub fn step(&mut self, core: &Core, budget: Budget) -> Result<bool> {
        if !self.merge.step(core, budget)? {
            return Ok(false);
        }
        core.storage.sync_dir(&filename::sst_dir(self.keyspace.id))?;
        self.install(core)?;
        Ok(true)
    }

    /// Gives up and removes what was written.
    pub fn abandon(self, core: &Core) {
        // After a failed change of the manifest the tables may be live.
        if core.check_writable().is_ok() {
            self.merge.abandon(core);
        }
    }

    fn install(&self, core: &Core) -> Result<()> {
        let facts = self.keyspace.facts(self.memory.last_seq());
        let added: Vec<Placed> = self.merge.tables().iter().map(placed).collect();
        let bytes = added.iter().map(|table| table.meta.bytes).sum();
        let mut manifest = lock(&core.manifest);
        if self.keyspace.is_dropped() {
            drop(manifest);
            self.merge.remove_tables(core);
            return Ok(());
        }
        let State { wals, header, .. } = manifest.state();
        let unneeded = self.unneeded_wals(core, wals.keys());
        let mut items = vec![Item::Keyspace(self.keyspace.id, facts)];
        let last_of = |number| lock(&core.old_wals).get(number).map(|wal| wal.last_seq);
        if let Some(last) = unneeded.iter().filter_map(last_of).max() {
            // Where no later WAL has a batch, nothing but tables would tell the last
            // commit, and they may go with their keyspace.
            let last_sequence = header.last_sequence.max(last);
            items.push(Item::Header(Header { last_sequence, ..*header }));
        }
        items.extend(unneeded.iter().copied().map(Item::WalRemoved));
        core.install(&self.keyspace, &mut manifest, items, &[], added, |view, version| View {
            active: Arc::clone(&view.active),
            immutable: view.immutable.iter().filter(|m| !Arc::ptr_eq(m, &self.memory)).cloned().collect(),
            version: Arc::new(version),
        })?;
        drop(manifest);
        core.counters.flushes.fetch_add(1, Relaxed);
        core.counters.flush_bytes.fetch_add(bytes, Relaxed);
        self.keyspace.note_flush(bytes);
        for number in unneeded {
            lock(&core.old_wals).remove(&number);
            if core.names_durable {
                core.remove_wal(number);
            }
        }
        Ok(())
    }

    /// Those of the WALs listed that hold nothing but what is flushed, this
    /// memtable included. The manifest must be locked: then no WAL is added,
    /// and one that takes batches meanwhile is not older than the current one.
    fn unneeded_wals<'a>(
        &self,
        core: &Core,
        listed: impl Iterator<Item = &'a FileNumber>,
    ) -> Vec<FileNumber> {
        // Read before the memtables: a WAL that becomes current later is newer.
        let mut needed = core.open_wals.oldest();
        for keyspace in core.keyspaces() {
            let view = keyspace.view();
            let others = view.memtables().filter(|memory| !Arc::ptr_eq(memory, &self.memory));
            needed = others.filter_map(|memory| memory.first_wal()).fold(needed, FileNumber::min);
        }
        listed.copied().filter(|number| *number < needed).collect()
    }
}

fn placed(meta: &crate::sstable::TableMeta) -> Placed {
    Placed { level: 0, run: meta.number.0, meta: meta.clone() }
}
