//! The merge of sorted entries into SSTables, in steps: the work of flushes and
//! compactions alike.
//!
//! Which entries survive: a version of a key is needed if somebody may read it,
//! that is, if there is a snapshot at or after it and before the next newer
//! version, or no newer version at all. A tombstone that is needed may still go
//! if no snapshot is older than it (so every older version in the merge goes)
//! and no older run holds the key.
//!
//! Versions of one key always go to the same table: the tables of a run must
//! not overlap.

use crate::core::Core;
use crate::cursor::Cursor;
use crate::error::Result;
use crate::filename;
use crate::key::{EntryRef, FileNumber, KeyspaceId, SequenceNumber, ValueKind};
use crate::options::Budget;
use crate::sstable::{TableIdentity, TableMeta, TableOptions, TableWriter};
use crate::version::Run;

/// Bytes a step counts for an entry beside its key and value.
const ENTRY_BYTES: u64 = 16;

/// Least bytes of a row group before the next one begins.
const ROW_GROUP_BYTES_MIN: usize = 64 << 10;

/// A merge in progress.
pub(crate) struct MergeJob {
    keyspace: KeyspaceId,
    level: u32,
    /// Bytes after which the next key begins a new table.
    table_bytes: u64,
    cursor: Box<dyn Cursor + Send>,
    started: bool,
    /// Sequence numbers that somebody reads at, ascending.
    snapshots: Vec<SequenceNumber>,
    /// Runs older than what is merged.
    older: Vec<Run>,
    /// Key and sequence number of the entry before.
    previous: Option<(Vec<u8>, SequenceNumber)>,
    writer: Option<TableWriter>,
    finished: Vec<TableMeta>,
    /// Every file begun.
    files: Vec<FileNumber>,
}

/// What to merge, and into what.
pub(crate) struct MergePlan {
    pub keyspace: KeyspaceId,
    /// Level of the outcome.
    pub level: u32,
    /// Bytes after which the next key begins a new table.
    pub table_bytes: u64,
    pub cursor: Box<dyn Cursor + Send>,
    /// Runs older than what is merged.
    pub older: Vec<Run>,
}

impl MergeJob {
    pub fn new(core: &Core, plan: MergePlan) -> MergeJob {
        MergeJob {
            keyspace: plan.keyspace,
            level: plan.level,
            table_bytes: plan.table_bytes,
            cursor: plan.cursor,
            started: false,
            snapshots: core.snapshots.points(),
            older: plan.older,
            previous: None,
            writer: None,
            finished: Vec::new(),
            files: Vec::new(),
        }
    }

    /// Merges about `budget` bytes; true once everything is merged and synced.
    ///
    /// # Errors
    /// Any: [`MergeJob::abandon`] the job.
    pub fn step(&mut self, core: &Core, budget: Budget) -> Result<bool> {
        if !self.started {
            self.started = true;
            self.cursor.seek_first()?;
        }
        let mut spent = 0;
        while spent < budget.bytes {
            let Some(entry) = self.cursor.entry() else {
                self.finish_table()?;
                return Ok(true);
            };
            spent += (entry.key.len() + entry.value.len()) as u64 + ENTRY_BYTES;
            let newer = match &self.previous {
                Some((key, seq)) if key == entry.key => Some(*seq),
                _ => None,
            };
            if self.is_needed(&entry, newer) {
                let full =
                    self.writer.as_ref().is_some_and(|writer| writer.estimated_bytes() >= self.table_bytes);
                if full && newer.is_none() {
                    self.finish_table()?;
                }
                if self.writer.is_none() {
                    self.writer = Some(self.new_table(core)?);
                }
                if let (Some(writer), Some(entry)) = (&mut self.writer, self.cursor.entry()) {
                    writer.add(entry)?;
                }
            }
            self.remember();
            self.cursor.next()?;
        }
        Ok(false)
    }

    /// The tables written; only once [`MergeJob::step`] has answered true.
    pub fn tables(&self) -> &[TableMeta] {
        &self.finished
    }

    /// Removes what was written, as far as that works: what stays is an orphan
    /// that the next open removes.
    pub fn abandon(self, core: &Core) {
        drop(self.writer);
        for number in self.files {
            let _ = core.storage.remove(&filename::sst(self.keyspace, number));
        }
    }

    fn remember(&mut self) {
        let Some(entry) = self.cursor.entry() else { return };
        let (key, seq) = self.previous.get_or_insert_with(|| (Vec::new(), entry.seq));
        key.clear();
        key.extend_from_slice(entry.key);
        *seq = entry.seq;
    }

    fn is_needed(&self, entry: &EntryRef<'_>, newer: Option<SequenceNumber>) -> bool {
        if let Some(newer) = newer {
            let next = self.snapshots.partition_point(|snapshot| *snapshot < entry.seq);
            if self.snapshots.get(next).is_none_or(|snapshot| *snapshot >= newer) {
                return false;
            }
        }
        let oldest = self.snapshots.first();
        entry.kind != ValueKind::Delete
            || oldest.is_some_and(|oldest| *oldest < entry.seq)
            || self.older.iter().any(|run| run.overlaps(entry.key, entry.key))
    }

    fn new_table(&mut self, core: &Core) -> Result<TableWriter> {
        let number = core.new_file();
        let path = filename::sst(self.keyspace, number);
        let identity = TableIdentity {
            database_id: core.database_id,
            number,
            keyspace: self.keyspace,
            level: self.level,
        };
        let TableOptions { row_group_bytes, .. } = TableOptions::default();
        let options = TableOptions {
            compression: core.options.compression,
            // It is held in memory while it is written.
            row_group_bytes: row_group_bytes.min(core.options.memtable_bytes).max(ROW_GROUP_BYTES_MIN),
            ..TableOptions::default()
        };
        let file = core.storage.create(&path)?;
        self.files.push(number);
        TableWriter::new(file, path, identity, options)
    }

    fn finish_table(&mut self) -> Result<()> {
        if let Some(writer) = self.writer.take() {
            self.finished.push(writer.finish()?);
        }
        Ok(())
    }
}
