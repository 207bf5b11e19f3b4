//! The merge of sorted entries into SSTables, in steps: the work of flushes and
//! compactions alike.
//!
//! Which entries survive: a version of a key is needed if somebody may read it,
//! that is, if somebody reads at a moment from its commit on and before whatever
//! ends it: the next newer value or tombstone of the key, or a range delete over
//! it. What nothing ends, everybody may read. A tombstone that is needed may still
//! go if no snapshot is older than it (so every older version in the merge goes)
//! and no older run holds the key; what has expired counts as one. A range
//! tombstone goes by the same rule.
//!
//! An operand ends nothing: what is below it is its base. It is folded into the
//! next older version where nobody reads between the two, where the two expire in such an order that
//! folding makes no difference, and where the outcome is no longer than a value may
//! be. Beyond that operands stay apart, and reads fold them.
//!
//! Versions of one key always go to the same table, and range tombstones are cut
//! where tables are: the tables of a run must not overlap.
//!
//! A page of one input between whose keys no other has entries goes over as it is
//! stored: each of its entries is a put that is the newest of its key, which somebody
//! may read. So do most long values, which have pages of their own. Where range
//! tombstones are merged, entries are looked at one by one.
//!
//! A large merge is several jobs beside each other, each over a range of keys.

use std::iter::Peekable;
use std::sync::Arc;

use bytes::Bytes;

use crate::core::Core;
use crate::cursor::Cursor;
use crate::error::{Error, Result};
use crate::filename;
use crate::key::{Entry, EntryRef, Expiry, FileNumber, KeyspaceId, SequenceNumber, ValueKind};
use crate::keyspace::Keyspace;
use crate::merge::MergeCursor;
use crate::options::Budget;
use crate::range_delete::RangeDeletes;
use crate::sstable::{StoredPage, TableIdentity, TableMeta, TableOptions, TableWriter};
use crate::version::Run;

/// Bytes a step counts for an entry beside its key and value.
const ENTRY_BYTES: u64 = 16;

/// Least bytes of a row group before the next one begins.
const ROW_GROUP_BYTES_MIN: usize = 64 << 10;

/// Most bytes of the row groups that merges beside each other write.
const ROW_GROUPS_BYTES_MAX: usize = 24 << 20;

/// Most bytes that are written, and synced, at once where commits wait for it.
const BURST_BYTES: usize = 2 << 20;

/// A merge in progress.
pub(crate) struct MergeJob {
    cursor: MergeCursor,
    range: KeyRange,
    started: bool,
    done: bool,
    /// Entries taken.
    entries: u64,
    sieve: Sieve,
    output: Output,
}

/// Decides which entries survive, and as what.
struct Sieve {
    keyspace: Arc<Keyspace>,
    /// Sequence numbers that somebody reads at, ascending.
    snapshots: Vec<SequenceNumber>,
    /// What had expired when the job began, in Unix milliseconds.
    now_ms: u64,
    /// Longest value that folding may make.
    value_bytes_max: usize,
    /// Runs older than what is merged.
    older: Vec<Run>,
    /// Range tombstones of what is merged.
    range_deletes: RangeDeletes,
    /// The key at hand.
    key: Vec<u8>,
    /// The lowest sequence number of the key, so far, that ends older versions.
    ended_at: Option<SequenceNumber>,
    /// An operand that waits for what is below it.
    operand: Option<Entry>,
}

/// The tables that a merge writes.
struct Output {
    keyspace: KeyspaceId,
    level: u32,
    /// Bytes after which the next key begins a new table.
    table_bytes: u64,
    /// Bytes of a row group, which is held in memory while it is written.
    row_group_bytes: usize,
    sync_bytes: usize,
    /// Keys, ascending, before which a table ends that has half of its bytes.
    boundaries: Peekable<std::vec::IntoIter<Vec<u8>>>,
    expires: bool,
    /// Range tombstones that are still to be written.
    range_deletes: RangeDeletes,
    writer: Option<TableWriter>,
    finished: Vec<TableMeta>,
    /// Every file begun.
    files: Vec<FileNumber>,
}

/// Keys from the first on and below the second; all, where there is none.
pub(crate) type KeyRange = (Option<Vec<u8>>, Option<Vec<u8>>);

/// What to merge, and into what.
pub(crate) struct MergePlan {
    pub keyspace: Arc<Keyspace>,
    /// Level of the outcome.
    pub level: u32,
    /// Bytes after which the next key begins a new table.
    pub table_bytes: u64,
    /// Keys, ascending, before which a table had better end.
    pub boundaries: Vec<Vec<u8>>,
    pub cursor: MergeCursor,
    /// Keys outside are left to others.
    pub range: KeyRange,
    /// Merges beside each other, this one included, which share their memory.
    pub parts: usize,
    /// Range tombstones of what is merged.
    pub range_deletes: RangeDeletes,
    /// Some entry of what is merged expires.
    pub expires: bool,
    /// Runs older than what is merged.
    pub older: Vec<Run>,
}

impl MergeJob {
    pub fn new(core: &Core, plan: MergePlan) -> MergeJob {
        let snapshots = core.snapshots.points();
        let mut kept = plan.range_deletes.clone();
        let oldest = snapshots.first().copied();
        kept.retain(|start, end, seq| {
            oldest.is_some_and(|oldest| oldest < seq) || plan.older.iter().any(|run| run.overlaps(start, end))
        });
        if let Some(start) = &plan.range.0 {
            kept.take_below(Some(start));
        }
        let kept = kept.take_below(plan.range.1.as_deref());
        let defaults = TableOptions::default();
        let burst_bytes = if core.threaded() { usize::MAX } else { BURST_BYTES };
        let row_group_bytes =
            defaults.row_group_bytes.min(ROW_GROUPS_BYTES_MAX / plan.parts.max(1)).min(burst_bytes);
        let output = Output {
            keyspace: plan.keyspace.id,
            level: plan.level,
            table_bytes: plan.table_bytes,
            row_group_bytes: row_group_bytes.min(core.options.memtable_bytes).max(ROW_GROUP_BYTES_MIN),
            sync_bytes: defaults.sync_bytes.min(burst_bytes),
            boundaries: plan.boundaries.into_iter().peekable(),
            expires: plan.expires,
            range_deletes: kept,
            writer: None,
            finished: Vec::new(),
            files: Vec::new(),
        };
        let sieve = Sieve {
            keyspace: plan.keyspace,
            snapshots,
            now_ms: core.options.environment.unix_ms(),
            value_bytes_max: core.options.value_bytes_max,
            older: plan.older,
            range_deletes: plan.range_deletes,
            key: Vec::new(),
            ended_at: None,
            operand: None,
        };
        MergeJob {
            cursor: plan.cursor,
            range: plan.range,
            started: false,
            done: false,
            entries: 0,
            sieve,
            output,
        }
    }

    /// Merges about `budget` bytes; true once everything is merged and synced.
    ///
    /// # Errors
    /// Any: [`MergeJob::abandon`] the job.
    pub fn step(&mut self, core: &Core, budget: Budget) -> Result<bool> {
        if !self.started {
            self.started = true;
            match &self.range.0 {
                Some(start) => self.cursor.seek(start, SequenceNumber::MAX)?,
                None => self.cursor.seek_first()?,
            }
        }
        let mut spent = 0;
        while spent < budget.bytes {
            if self.cursor.may_copy()
                && let Some(bytes) = self.copy_page(core)?
            {
                spent += bytes;
                continue;
            }
            let end = self.range.1.as_deref();
            let inside = |entry: &EntryRef<'_>| end.is_none_or(|end| entry.key < end);
            let Some(entry) = self.cursor.entry().filter(inside) else {
                self.sieve.end_key(core, &mut self.output)?;
                self.output.finish(core)?;
                // What it has read ahead is not needed while others go on.
                self.cursor = MergeCursor::new(Vec::new());
                self.done = true;
                return Ok(true);
            };
            spent += (entry.key.len() + entry.value.len()) as u64 + ENTRY_BYTES;
            self.entries += 1;
            self.sieve.take(core, entry, &self.cursor, &mut self.output)?;
            self.cursor.next()?;
        }
        Ok(false)
    }

    /// Copies the page under the cursor as it is stored, if it may be; answers its
    /// bytes.
    fn copy_page(&mut self, core: &Core) -> Result<Option<u64>> {
        if !self.sieve.range_deletes.is_empty() {
            return Ok(None);
        }
        // An operand or a newer version of its first key may have been there before.
        let Some(page) = self.cursor.stored_page(&self.sieve.key, self.sieve.now_ms)? else {
            return Ok(None);
        };
        if self.range.1.as_deref().is_some_and(|end| page.last_key() >= end) {
            return Ok(None);
        }
        self.sieve.end_key(core, &mut self.output)?;
        if !self.output.copy(core, &page)? {
            return Ok(None);
        }
        self.sieve.key.clear();
        self.sieve.key.extend_from_slice(page.last_key());
        self.sieve.ended_at = Some(page.last_seq());
        self.entries += page.rows() as u64;
        self.cursor.skip(page.rows())?;
        Ok(Some(page.bytes() as u64 + ENTRY_BYTES * page.rows() as u64))
    }

    /// True once everything is merged and synced.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Entries merged so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The tables written; only once [`MergeJob::step`] has answered true.
    pub fn tables(&self) -> &[TableMeta] {
        &self.output.finished
    }

    /// Removes what was written, as far as that works: what stays is an orphan
    /// that the next open removes.
    pub fn abandon(self, core: &Core) {
        self.remove_tables(core);
    }

    /// The same while the job is still borrowed.
    pub fn remove_tables(&self, core: &Core) {
        for number in &self.output.files {
            let _ = core.storage.remove(&filename::sst(self.output.keyspace, *number));
        }
    }
}

impl Sieve {
    /// Does with the entry under the cursor what it deserves.
    fn take(
        &mut self,
        core: &Core,
        entry: EntryRef<'_>,
        cursor: &dyn Cursor,
        output: &mut Output,
    ) -> Result<()> {
        if entry.key != self.key {
            self.end_key(core, output)?;
            self.key.clear();
            self.key.extend_from_slice(entry.key);
            self.ended_at = None;
        }
        let ends = [self.ended_at, self.range_deletes.oldest_over(entry.key, entry.seq)];
        let end = ends.into_iter().flatten().min();
        if end.is_some_and(|end| !self.is_read_between(entry.seq, end)) {
            return Ok(());
        }
        let gone = entry.is_gone(self.now_ms);
        if let Some(operand) = self.operand.take() {
            match self.folded(&operand, &entry, gone) {
                None => output.write(core, operand.borrowed())?,
                Some(folded) if folded.kind == ValueKind::Merge => {
                    self.operand = Some(folded);
                    return Ok(());
                }
                Some(folded) => {
                    self.ended_at = Some(folded.seq);
                    return output.write(core, folded.borrowed());
                }
            }
        }
        if !gone && entry.kind == ValueKind::Merge {
            self.operand = Some(owned(entry, cursor));
            return Ok(());
        }
        self.ended_at = Some(entry.seq);
        if !gone {
            output.write(core, entry)?;
        } else if self.is_tombstone_needed(entry.seq) {
            let tombstone =
                EntryRef { kind: ValueKind::Delete, expires_at: Expiry::NEVER, value: &[], ..entry };
            output.write(core, tombstone)?;
        }
        Ok(())
    }

    /// True if somebody reads at or after `from` and before `to`.
    fn is_read_between(&self, from: SequenceNumber, to: SequenceNumber) -> bool {
        let next = self.snapshots.partition_point(|snapshot| *snapshot < from);
        self.snapshots.get(next).is_some_and(|snapshot| *snapshot < to)
    }

    /// True if a tombstone of the key at hand may hide something.
    fn is_tombstone_needed(&self, seq: SequenceNumber) -> bool {
        self.snapshots.first().is_some_and(|oldest| *oldest < seq)
            || self.older.iter().any(|run| run.overlaps(&self.key, &self.key))
    }

    /// `operand` and the next older version of its key as one entry; `None`
    /// where that could make a difference, or too long a value.
    fn folded(&self, operand: &Entry, older: &EntryRef<'_>, gone: bool) -> Option<Entry> {
        let operator = self.keyspace.operator.as_ref()?;
        if self.is_read_between(older.seq, operand.seq) {
            return None;
        }
        let hidden = self.range_deletes.oldest_over(&operand.key, older.seq);
        let gone = gone || hidden.is_some_and(|seq| seq <= operand.seq);
        let (kind, value) = match older.kind {
            _ if gone => (ValueKind::Put, operator.apply(None, &operand.value)),
            // What is above must not outlive what is below: the latter would
            // still count where it should have gone.
            _ if !older.expires_at.outlives(operand.expires_at) => return None,
            ValueKind::Merge => (ValueKind::Merge, operator.combine(older.value, &operand.value)),
            _ => (ValueKind::Put, operator.apply(Some(older.value), &operand.value)),
        };
        let value = value.ok().filter(|value| value.len() <= self.value_bytes_max)?;
        Some(Entry { kind, value: value.into(), ..operand.clone() })
    }

    /// After the last version of the key at hand.
    fn end_key(&mut self, core: &Core, output: &mut Output) -> Result<()> {
        let Some(mut operand) = self.operand.take() else { return Ok(()) };
        if !self.older.iter().any(|run| run.overlaps(&self.key, &self.key))
            && let Some(operator) = &self.keyspace.operator
            && let Ok(value) = operator.apply(None, &operand.value)
            && value.len() <= self.value_bytes_max
        {
            operand = Entry { kind: ValueKind::Put, value: value.into(), ..operand };
        }
        output.write(core, operand.borrowed())
    }
}

/// The entry under the cursor, which need not be copied there.
fn owned(entry: EntryRef<'_>, cursor: &dyn Cursor) -> Entry {
    let EntryRef { key, seq, kind, expires_at, .. } = entry;
    Entry { key: Bytes::copy_from_slice(key), seq, kind, expires_at, value: cursor.value() }
}

impl Output {
    fn write(&mut self, core: &Core, entry: EntryRef<'_>) -> Result<()> {
        self.writer(core, entry.key)?.add(entry)
    }

    /// Writes a page as it is stored; false if its entries are to be written one by
    /// one.
    fn copy(&mut self, core: &Core, page: &StoredPage) -> Result<bool> {
        if self.boundaries.peek().is_some_and(|boundary| boundary.as_slice() <= page.last_key()) {
            return Ok(false);
        }
        self.writer(core, page.first_key())?.add_page(page)
    }

    /// The table that takes `key` next.
    fn writer(&mut self, core: &Core, key: &[u8]) -> Result<&mut TableWriter> {
        let mut boundary = false;
        while self.boundaries.next_if(|boundary| boundary.as_slice() <= key).is_some() {
            boundary = true;
        }
        let enough = if boundary { self.table_bytes / 2 } else { self.table_bytes };
        let full = self.writer.as_ref().is_some_and(|writer| writer.estimated_bytes() >= enough);
        if full && self.writer.as_ref().is_some_and(|writer| !writer.ends_with(key)) {
            self.finish_table(Some(key))?;
        }
        if self.writer.is_none() {
            self.writer = Some(self.new_table(core)?);
        }
        // Just made where there was none.
        self.writer.as_mut().ok_or_else(|| Error::invalid("there is no table"))
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
        let options = TableOptions {
            compression: core.options.compression,
            row_group_bytes: self.row_group_bytes,
            sync_bytes: self.sync_bytes,
            expires: self.expires,
            ..TableOptions::default()
        };
        let file = core.storage.create(&path)?;
        self.files.push(number);
        TableWriter::new(file, path, identity, options)
    }

    /// Ends the last table; what range tombstones are left may need one of their
    /// own.
    fn finish(&mut self, core: &Core) -> Result<()> {
        if self.writer.is_none() && !self.range_deletes.is_empty() {
            self.writer = Some(self.new_table(core)?);
        }
        self.finish_table(None)
    }

    /// Ends a table before the key `next`, or the last one.
    fn finish_table(&mut self, next: Option<&[u8]>) -> Result<()> {
        if let Some(mut writer) = self.writer.take() {
            writer.add_range_deletes(self.range_deletes.take_below(next));
            self.finished.push(writer.finish()?);
        }
        Ok(())
    }
}
