//! Transactions: reads at a snapshot and of one's own writes, validated at the
//! commit.

use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use arc_swap::Guard;
use bytes::Bytes;

use super::database::PageScan;
use super::{Engine, Keyspace};
use crate::api::{DatabaseTransaction, Pairs, Savepoint, Scan, ScanRange, pairs};
use crate::batch::{self, OpKind, WriteBatch};
use crate::cursor::{Cursor, Moment};
use crate::error::{Error, Result};
use crate::fold::Folded;
use crate::key::{Entry, EntryRef, Expiry, KeyspaceId, SequenceNumber, ValueKind, compare_internal};
use crate::keyspace;
use crate::options::Durability;
use crate::read::{Bounds, OWN, OwnRows, RowCursor, Search};
use crate::read_set::ReadSet;

/// A transaction over all keyspaces of a database: optimistic and serializable.
///
/// It reads at the snapshot of its beginning, and what it has written itself.
/// The commit succeeds only if nothing that it read has changed since, ranges and
/// missing keys included; so transactions behave as if they had run one after
/// another. What it writes without reading never conflicts. A transaction that
/// wrote nothing has read at one moment and is never refused. Dropping it gives it
/// up. It keeps old versions while it lives. What expires does so for a transaction
/// as for anybody else, by the clock and not by the snapshot.
///
/// ```
/// # use std::sync::Arc;
/// # use duramen::{Db, Durability, Error, Options, storage::memory::MemoryStorage};
/// let db = Db::open_with(Arc::new(MemoryStorage::new()), Options::default())?;
/// let accounts = db.keyspace("accounts")?;
/// accounts.put(b"ada", b"7")?;
/// db.transact(10, Durability::Sync, |transaction| {
///     let balance = transaction.get(&accounts, b"ada")?.unwrap_or_default();
///     transaction.put(&accounts, b"ada", b"6")?;
///     transaction.put(&accounts, b"grace", if balance == "7" { b"1" } else { b"0" })
/// })?;
/// assert_eq!(accounts.get(b"grace")?.as_deref(), Some(&b"1"[..]));
/// # Ok::<(), Error>(())
/// ```
pub struct Transaction {
    engine: Arc<Engine>,
    seq: SequenceNumber,
    reads: ReadSet,
    /// Everything written, in order: what the commit commits.
    log: WriteBatch,
    own: Folded,
    /// Length of the log, in operations and bytes, at each savepoint.
    savepoints: Vec<(usize, usize)>,
    /// Why no more can be done: a read failed, and what depends on it is unknown.
    poison: Option<Error>,
}

impl Transaction {
    pub(super) fn new(engine: Arc<Engine>) -> Transaction {
        let core = &engine.parts.core;
        let seq = core.snapshots.acquire(&core.visible);
        Transaction {
            engine,
            seq,
            reads: ReadSet::new(seq),
            log: WriteBatch::new(),
            own: Folded::new(OWN),
            savepoints: Vec::new(),
            poison: None,
        }
    }

    /// The last commit that it sees.
    pub fn sequence(&self) -> SequenceNumber {
        self.seq
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// Those of reads; the transaction cannot be committed after one.
    pub fn get(&mut self, keyspace: &Keyspace, key: &[u8]) -> Result<Option<Bytes>> {
        self.get_in(&keyspace.inner, key)
    }

    /// The pairs in a range of keys, in order of their keys. The whole range
    /// counts as read, wherever the iteration ends.
    ///
    /// # Errors
    /// As [`Transaction::get`].
    pub fn range<K: AsRef<[u8]>>(
        &mut self,
        keyspace: &Keyspace,
        range: impl RangeBounds<K>,
    ) -> Result<Pairs> {
        let owned = |bound: Bound<&K>| bound.map(|key| key.as_ref().to_vec());
        let (start, end) = (owned(range.start_bound()), owned(range.end_bound()));
        Ok(Box::new(pairs(self.scan_in(&keyspace.inner, &ScanRange { start, end, reverse: false })?)))
    }

    /// The pairs whose keys start with `prefix`, in order of their keys; all of
    /// them count as read.
    ///
    /// # Errors
    /// As [`Transaction::get`].
    pub fn prefix(&mut self, keyspace: &Keyspace, prefix: &[u8]) -> Result<Pairs> {
        Ok(Box::new(pairs(self.scan_in(&keyspace.inner, &ScanRange::prefix(prefix))?)))
    }

    /// Writes "`key` has `value`".
    ///
    /// # Errors
    /// `InvalidArgument` for what is over the limits; nothing has been added.
    pub fn put(&mut self, keyspace: &Keyspace, key: &[u8], value: &[u8]) -> Result<()> {
        self.add(|batch| batch.put(keyspace, key, value))
    }

    /// Writes "`key` has `value` until `expires_at`".
    ///
    /// # Errors
    /// As [`Transaction::put`].
    pub fn put_until(
        &mut self,
        keyspace: &Keyspace,
        key: &[u8],
        value: &[u8],
        expires_at: Expiry,
    ) -> Result<()> {
        self.add(|batch| batch.put_until(keyspace, key, value, expires_at))
    }

    /// Writes "`key` has no value".
    ///
    /// # Errors
    /// As [`Transaction::put`].
    pub fn delete(&mut self, keyspace: &Keyspace, key: &[u8]) -> Result<()> {
        self.add(|batch| batch.delete(keyspace, key))
    }

    /// Writes "the value of `key` is merged with `operand`". That reads nothing,
    /// so that counters do not conflict.
    ///
    /// # Errors
    /// As [`Transaction::put`]; `InvalidArgument` also where the merge operator
    /// refuses the operand, or there is none.
    pub fn merge(&mut self, keyspace: &Keyspace, key: &[u8], operand: &[u8]) -> Result<()> {
        self.add(|batch| batch.merge(keyspace, key, operand))
    }

    /// Writes "no key from `start` on and below `end` has a value".
    ///
    /// # Errors
    /// As [`Transaction::put`].
    pub fn delete_range(&mut self, keyspace: &Keyspace, start: &[u8], end: &[u8]) -> Result<()> {
        self.add(|batch| batch.delete_range(keyspace, start, end))
    }

    /// Writes "no key that starts with `prefix` has a value".
    ///
    /// # Errors
    /// As [`Transaction::put`].
    pub fn delete_prefix(&mut self, keyspace: &Keyspace, prefix: &[u8]) -> Result<()> {
        self.add(|batch| batch.delete_prefix(keyspace, prefix))
    }

    /// A point to come back to.
    pub fn savepoint(&mut self) -> Savepoint {
        self.savepoints.push((self.log.len(), self.log.encoded_bytes()));
        Savepoint(self.savepoints.len() as u32 - 1)
    }

    /// Takes back what was written since a savepoint, and forgets the savepoints
    /// after it. What was read since then is still validated.
    ///
    /// # Errors
    /// `InvalidArgument` for a savepoint that was forgotten.
    pub fn rollback_to(&mut self, savepoint: Savepoint) -> Result<()> {
        let Some(&(ops, bytes)) = self.savepoints.get(savepoint.0 as usize) else {
            return Err(Error::invalid(format!("there is no savepoint {}", savepoint.0)));
        };
        self.savepoints.truncate(savepoint.0 as usize + 1);
        self.log.truncate(ops, bytes);
        self.refold()
    }

    /// Commits: what was written is visible, and as durable as asked, on return.
    ///
    /// # Errors
    /// `Conflict` with a key that was read and has changed since: begin again.
    /// Nothing was written. Otherwise as [`super::Batch::commit`].
    pub fn commit(mut self, durability: Durability) -> Result<()> {
        self.check()?;
        if self.log.is_empty() {
            return Ok(());
        }
        let log = std::mem::take(&mut self.log);
        let reads = std::mem::replace(&mut self.reads, ReadSet::new(self.seq));
        self.engine.commit(log, durability, Some(reads))
    }

    /// A read now, by the clock: what has expired may be gone from the files.
    fn moment(&self) -> Moment {
        // What the transaction itself has written may expire as well.
        Moment { seq: self.seq, now_ms: self.engine.parts.core.options.environment.unix_ms() }
    }

    fn check(&self) -> Result<()> {
        self.engine.parts.core.check_open()?;
        match &self.poison {
            Some(error) => Err(error.duplicate()),
            None => Ok(()),
        }
    }

    /// What follows a failed read is built on sand.
    fn note<T>(&mut self, outcome: Result<T>) -> Result<T> {
        if let Err(error) = &outcome {
            self.poison = Some(error.duplicate());
        }
        outcome
    }

    fn add(&mut self, build: impl FnOnce(&mut WriteBatch) -> &mut WriteBatch) -> Result<()> {
        let mut batch = WriteBatch::new();
        build(&mut batch);
        self.add_batch(&batch)
    }

    fn add_batch(&mut self, batch: &WriteBatch) -> Result<()> {
        self.check()?;
        let mut limits = self.engine.parts.core.options.batch_limits();
        limits.batch_bytes_max = limits.batch_bytes_max.saturating_sub(self.log.encoded_bytes());
        batch.check(limits)?;
        if let Err(error) = self.fold(batch) {
            // An operation before the one refused may be in already.
            self.refold()?;
            return Err(error);
        }
        self.log.extend(batch);
        Ok(())
    }

    /// Folds the whole log anew.
    fn refold(&mut self) -> Result<()> {
        self.own = Folded::new(OWN);
        let log = std::mem::take(&mut self.log);
        let folded = self.fold(&log);
        self.log = log;
        self.note(folded)
    }

    fn fold(&mut self, batch: &WriteBatch) -> Result<()> {
        let core = &self.engine.parts.core;
        let encoded = Bytes::copy_from_slice(batch.as_encoded());
        for op in batch::decode(&encoded).map_while(Result::ok) {
            let keyspace = core.keyspace(op.keyspace)?;
            if op.kind == OpKind::Entry(ValueKind::Merge) {
                keyspace.check_operand(&encoded[op.key.clone()], &encoded[op.value.clone()])?;
            }
            self.own.apply(&op, &encoded, op.expires_at, &keyspace.operator)?;
        }
        Ok(())
    }

    fn get_in(&mut self, keyspace: &keyspace::Keyspace, key: &[u8]) -> Result<Option<Bytes>> {
        self.check()?;
        keyspace.check()?;
        let moment = self.moment();
        let mut search = Search::new(key, moment);
        let mut hidden = false;
        if let Some(own) = self.own.keyspace(keyspace.id) {
            hidden = own.range_deletes.newest_over(key, OWN) == OWN;
            match own.get(key) {
                Some(change) if change.expires_at.is_past(moment.now_ms) => return Ok(None),
                Some(change) => match change.kind {
                    ValueKind::Put => return Ok(Some(change.value.clone())),
                    ValueKind::Delete => return Ok(None),
                    ValueKind::Merge => search.operands.push(change.value.clone()),
                },
                None if hidden => return Ok(None),
                None => {}
            }
        }
        if hidden {
            return search.run(&keyspace::View::default(), &keyspace.operator);
        }
        self.reads.add_point(keyspace.id, key);
        let found = keyspace.view_to_read().and_then(|view| search.run(&view, &keyspace.operator));
        self.note(found)
    }

    fn scan_in(&mut self, keyspace: &Arc<keyspace::Keyspace>, range: &ScanRange) -> Result<Box<dyn Scan>> {
        self.check()?;
        let view = Guard::into_inner(keyspace.view_to_read()?);
        let bounds: Bounds = (range.start.clone(), range.end.clone());
        self.reads.add_range(keyspace.id, &bounds);
        let own = self.own.keyspace(keyspace.id).map(|changes| OwnRows {
            cursor: Box::new(OwnCursor { entries: changes.entries(OWN), at: None }),
            range_deletes: Arc::new(changes.range_deletes.clone()),
        });
        let keyspace = Arc::clone(keyspace);
        let rows = RowCursor::new(keyspace, view, bounds, self.moment(), range.reverse, own);
        let rows = self.note(rows)?;
        Ok(Box::new(PageScan::new(Arc::clone(&self.engine), rows)))
    }
}

impl DatabaseTransaction for Transaction {
    fn get(&mut self, keyspace: KeyspaceId, key: &[u8]) -> Result<Option<Bytes>> {
        let keyspace = self.engine.parts.core.keyspace(keyspace)?;
        self.get_in(&keyspace, key)
    }

    fn scan(&mut self, keyspace: KeyspaceId, range: &ScanRange) -> Result<Box<dyn Scan>> {
        let keyspace = self.engine.parts.core.keyspace(keyspace)?;
        self.scan_in(&keyspace, range)
    }

    fn write(&mut self, batch: WriteBatch) -> Result<()> {
        self.add_batch(&batch)
    }

    fn savepoint(&mut self) -> Result<Savepoint> {
        self.check()?;
        Ok(Transaction::savepoint(self))
    }

    fn rollback_to(&mut self, savepoint: Savepoint) -> Result<()> {
        self.check()?;
        Transaction::rollback_to(self, savepoint)
    }

    fn commit(self: Box<Self>, durability: Durability) -> Result<()> {
        Transaction::commit(*self, durability)
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.engine.parts.core.snapshots.release(self.seq);
    }
}

/// Walks a transaction's own entries, as they were when the scan began.
struct OwnCursor {
    /// In order of their keys.
    entries: Vec<Entry>,
    at: Option<usize>,
}

impl OwnCursor {
    fn below(&self, key: &[u8], seq: SequenceNumber) -> usize {
        self.entries.partition_point(|entry| compare_internal((&entry.key, entry.seq), (key, seq)).is_lt())
    }

    fn stand(&mut self, at: Option<usize>) -> Result<()> {
        self.at = at.filter(|at| *at < self.entries.len());
        Ok(())
    }
}

impl Cursor for OwnCursor {
    fn seek_first(&mut self) -> Result<()> {
        self.stand(Some(0))
    }

    fn seek_last(&mut self) -> Result<()> {
        self.stand(self.entries.len().checked_sub(1))
    }

    fn seek(&mut self, key: &[u8], seq: SequenceNumber) -> Result<()> {
        self.stand(Some(self.below(key, seq)))
    }

    fn seek_before(&mut self, key: &[u8], seq: SequenceNumber) -> Result<()> {
        self.stand(self.below(key, seq).checked_sub(1))
    }

    fn next(&mut self) -> Result<()> {
        self.stand(self.at.map(|at| at + 1))
    }

    fn prev(&mut self) -> Result<()> {
        self.stand(self.at.and_then(|at| at.checked_sub(1)))
    }

    fn entry(&self) -> Option<EntryRef<'_>> {
        self.at.map(|at| self.entries[at].borrowed())
    }

    fn value(&self) -> Bytes {
        self.at.map(|at| self.entries[at].value.clone()).unwrap_or_default()
    }
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction")
            .field("sequence", &self.seq)
            .field("operations", &self.log.len())
            .finish_non_exhaustive()
    }
}
