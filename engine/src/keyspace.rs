//! The inside of a keyspace: what its readers look at.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use arc_swap::Guard;
use bytes::Bytes;

use crate::batch::{Op, OpKind};
use crate::cursor::{Found, Lookup};
use crate::edit::KeyspaceFacts;
use crate::error::{Error, Result};
use crate::gaps::Gaps;
use crate::key::{EntryRef, Expiry, FileNumber, KeyspaceId, SequenceNumber, ValueKind};
use crate::key_filter::KeyFilter;
use crate::memtable::{self, Memtable, Versioned};
use crate::merge_operator::{Operator, refused};
use crate::options::{KeyspaceOptions, MemtableKind};
use crate::range_delete::RangeDeletes;
use crate::scaling::{Adaptive, CompactionStrategy, Mix, Scaling};
use crate::sstable::hash_key;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use crate::sync::{Mutex, RwLock, Swap, lock, read, write};
use crate::version::Version;

/// Operations that come into a memtable at once. Readers may wait for them.
const OPS_AT_ONCE: usize = 16;

/// Bytes that a range delete costs in memory beside its keys, roughly: it parts at
/// most two fragments of others.
const RANGE_DELETE_OVERHEAD_BYTES: usize = 300;

/// Bytes of a memtable over those of the table that a flush makes of it, where nothing
/// else is known: entries cost more in memory, and pages are compressed.
const FLUSH_SHARE: u64 = 3;

/// A keyspace of an open database.
#[derive(Debug)]
pub(crate) struct Keyspace {
    pub id: KeyspaceId,
    pub name: String,
    pub operator: Operator,
    /// Milliseconds that an entry lives unless it says otherwise; 0: for ever.
    ttl_ms: AtomicU64,
    /// Kind of the next memtable.
    memtable: RwLock<MemtableKind>,
    view: Swap<View>,
    /// Held while the view is replaced.
    changing: Mutex<()>,
    /// When its runs are merged, where it has a strategy of its own.
    compaction: RwLock<Option<CompactionStrategy>>,
    adaptive: Mutex<Adaptive>,
    pub usage: Usage,
    /// What of it is known to be empty.
    pub gaps: Gaps,
    /// Bytes of a flush, of late; 0 before the first.
    flush_bytes: AtomicU64,
    /// True once it has been dropped; handles to it are refused from then on.
    dropped: AtomicBool,
}

impl Keyspace {
    pub fn new(id: KeyspaceId, facts: &KeyspaceFacts, operator: Operator, version: Version) -> Self {
        let active = Arc::new(Memory::new(facts.memtable));
        let view = View { active, immutable: Vec::new(), version: Arc::new(version) };
        Keyspace {
            id,
            name: facts.name.clone(),
            operator,
            ttl_ms: AtomicU64::new(facts.ttl_ms),
            memtable: RwLock::new(facts.memtable),
            compaction: RwLock::new(facts.compaction.clone()),
            adaptive: Mutex::default(),
            usage: Usage::default(),
            gaps: Gaps::default(),
            view: Swap::new(view),
            changing: Mutex::default(),
            flush_bytes: AtomicU64::new(0),
            dropped: AtomicBool::new(false),
        }
    }

    /// Milliseconds that an entry lives unless it says otherwise; 0: for ever.
    pub fn ttl_ms(&self) -> u64 {
        self.ttl_ms.load(Relaxed)
    }

    /// Takes on what may change in it. Only with the write path held still.
    pub fn change(&self, facts: &KeyspaceFacts) {
        self.ttl_ms.store(facts.ttl_ms, Relaxed);
        *write(&self.memtable) = facts.memtable;
        write(&self.compaction).clone_from(&facts.compaction);
        if self.view().active.is_empty() {
            self.update(|view| View { active: Arc::new(Memory::new(facts.memtable)), ..view.clone() });
        }
    }

    /// The strategy that its runs are merged by; `default` where it has none.
    pub fn strategy(&self, default: &CompactionStrategy) -> CompactionStrategy {
        read(&self.compaction).clone().unwrap_or_else(|| default.clone())
    }

    /// The scaling parameters that its runs are merged by now, and why, where it chose
    /// them itself.
    pub fn scaling(&self, default: &CompactionStrategy) -> (Scaling, Option<String>) {
        match self.strategy(default) {
            CompactionStrategy::Fixed(scaling) => (scaling, None),
            CompactionStrategy::Adaptive => {
                self.usage.counts_reads.store(true, Relaxed);
                let mut adaptive = lock(&self.adaptive);
                let scaling = adaptive.look(self.usage.mix());
                (scaling, Some(adaptive.why().to_owned()))
            }
        }
    }

    /// Bytes of a flush, of late; a guess before the first.
    pub fn flush_bytes(&self, memtable_bytes: usize) -> u64 {
        match self.flush_bytes.load(Relaxed) {
            0 => memtable_bytes as u64 / FLUSH_SHARE,
            bytes => bytes,
        }
    }

    /// Takes the bytes of a flush in.
    pub fn note_flush(&self, bytes: u64) {
        self.usage.flush_bytes.fetch_add(bytes, Relaxed);
        let before = self.flush_bytes.load(Relaxed);
        let now = if before == 0 { bytes } else { before - before / 4 + bytes / 4 };
        self.flush_bytes.store(now, Relaxed);
    }

    /// True if it is as `options` want it; false if something is to be changed.
    ///
    /// # Errors
    /// `InvalidArgument` where the merge operator is another.
    pub fn accepts(&self, options: &KeyspaceOptions) -> Result<bool> {
        let found = self.operator.as_ref().map(|operator| operator.name());
        if let Some(wanted) = &options.merge_operator
            && found.unwrap_or_default() != wanted
        {
            return Err(Error::invalid(format!(
                "the keyspace {} has the merge operator {:?}, not {wanted:?}; that cannot be changed",
                self.name,
                found.unwrap_or_default()
            )));
        }
        let same_ttl = options.ttl_ms.is_none_or(|ttl_ms| ttl_ms == self.ttl_ms());
        let compaction = read(&self.compaction);
        let same_compaction = options.compaction.is_none() || options.compaction == *compaction;
        Ok(same_ttl
            && same_compaction
            && options.memtable.is_none_or(|memtable| memtable == *read(&self.memtable)))
    }

    /// What the manifest says of it, with another point up to which it is flushed.
    pub fn facts(&self, flushed_through: SequenceNumber) -> KeyspaceFacts {
        KeyspaceFacts {
            name: self.name.clone(),
            flushed_through,
            merge_operator: self.operator.as_ref().map_or_else(String::new, |o| o.name().to_owned()),
            ttl_ms: self.ttl_ms(),
            memtable: *read(&self.memtable),
            compaction: read(&self.compaction).clone(),
        }
    }

    /// # Errors
    /// `InvalidArgument` once it has been dropped.
    pub fn check(&self) -> Result<()> {
        match self.is_dropped() {
            true => Err(Error::invalid(format!("the keyspace {} has been dropped", self.name))),
            false => Ok(()),
        }
    }

    /// # Errors
    /// `InvalidArgument` where the merge operator refuses `operand`, or there is
    /// none.
    pub fn check_operand(&self, key: &[u8], operand: &[u8]) -> Result<()> {
        match &self.operator {
            Some(operator) => operator.check(operand).map_err(|why| refused(key, &why)),
            None => Err(refused(key, "the keyspace has no merge operator")),
        }
    }

    pub fn is_dropped(&self) -> bool {
        self.dropped.load(Acquire)
    }

    /// Marks it as dropped and lets go of everything in it.
    pub fn drop_contents(&self) {
        self.dropped.store(true, Release);
        self.update(|_| View::default());
    }

    /// The view for a reader who is soon done.
    ///
    /// # Errors
    /// `InvalidArgument` once it has been dropped. That is looked at after the view
    /// was taken: a view that a drop has emptied is not read.
    pub fn view_to_read(&self) -> Result<Guard<Arc<View>>> {
        let view = self.view.look();
        self.check()?;
        Ok(view)
    }

    /// What is there now.
    pub fn view(&self) -> Arc<View> {
        self.view.load()
    }

    /// The memtable that takes writes. Whoever inserts keeps no more than this: who
    /// holds a whole view may be the last to hold a flushed memtable, and must free it.
    pub fn active(&self) -> Arc<Memory> {
        Arc::clone(&self.view.look().active)
    }

    /// True if nothing has been put that `view` does not show: what is visible now is
    /// in it.
    pub fn is_complete(&self, view: &View) -> bool {
        Arc::ptr_eq(&self.view.look().active, &view.active)
    }

    /// Replaces the view by one made from it.
    pub fn update(&self, change: impl FnOnce(&View) -> View) {
        let _changing = lock(&self.changing);
        self.view.store(change(&self.view.look()));
    }

    /// Sets the active memtable aside and begins a new one. Only with the write
    /// path held still.
    pub fn freeze(&self) {
        let active = Arc::new(Memory::new(*read(&self.memtable)));
        self.update(|view| {
            let mut immutable = view.immutable.clone();
            immutable.insert(0, Arc::clone(&view.active));
            View { active, immutable, version: Arc::clone(&view.version) }
        });
    }
}

/// What a keyspace was used for since it was opened, and what that has cost.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    /// Reads are counted: somebody wants to know.
    counts_reads: AtomicBool,
    writes: AtomicU64,
    /// Bytes of keys and values in them.
    pub bytes_put: AtomicU64,
    gets: AtomicU64,
    scans: AtomicU64,
    /// Bytes of tables that flushes wrote.
    pub flush_bytes: AtomicU64,
    /// Bytes of tables that compactions wrote.
    pub compaction_bytes: AtomicU64,
}

impl Usage {
    /// One writer at a time.
    pub fn note_writes(&self, writes: u64, bytes: u64) {
        self.writes.store(self.writes.load(Relaxed) + writes, Relaxed);
        self.bytes_put.store(self.bytes_put.load(Relaxed) + bytes, Relaxed);
    }

    pub fn note_gets(&self, gets: u64) {
        if self.counts_reads.load(Relaxed) {
            self.gets.fetch_add(gets, Relaxed);
        }
    }

    pub fn note_scan(&self) {
        if self.counts_reads.load(Relaxed) {
            self.scans.fetch_add(1, Relaxed);
        }
    }

    fn mix(&self) -> Mix {
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        Mix { writes: of(&self.writes), gets: of(&self.gets), scans: of(&self.scans) }
    }
}

/// Everything in a keyspace at some moment, newest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// Takes writes.
    pub active: Arc<Memory>,
    /// Wait to be flushed, newest first.
    pub immutable: Vec<Arc<Memory>>,
    /// SSTables.
    pub version: Arc<Version>,
}

impl View {
    /// True if some entry may expire.
    pub fn expires(&self) -> bool {
        self.memtables().any(|memory| memory.expires()) || self.version.expires()
    }

    /// Memtables, newest first.
    pub fn memtables(&self) -> impl Iterator<Item = &Arc<Memory>> {
        std::iter::once(&self.active).chain(&self.immutable)
    }
}

/// A memtable, its range tombstones, and where the log has its contents.
#[derive(Debug)]
pub(crate) struct Memory {
    pub table: Arc<dyn Memtable>,
    /// On its keys.
    filter: KeyFilter,
    range_deletes: RwLock<Arc<RangeDeletes>>,
    /// Bytes of keys of range deletes, and what keeping them costs; 0 without any.
    range_delete_bytes: AtomicUsize,
    /// Lowest WAL that holds an entry of it; `u64::MAX` while it is empty.
    first_wal: AtomicU64,
    /// Highest sequence number in it.
    last_seq: AtomicU64,
    /// True if some entry expires.
    expires: AtomicBool,
}

impl Default for Memory {
    fn default() -> Self {
        Memory::new(MemtableKind::default())
    }
}

impl Memory {
    fn new(kind: MemtableKind) -> Self {
        Memory {
            table: memtable::new(kind),
            filter: KeyFilter::default(),
            range_deletes: RwLock::default(),
            range_delete_bytes: AtomicUsize::new(0),
            first_wal: AtomicU64::new(u64::MAX),
            last_seq: AtomicU64::new(0),
            expires: AtomicBool::new(false),
        }
    }

    /// Adds operations of a batch that `wal` holds. One writer at a time.
    pub fn insert(&self, wal: FileNumber, seq: SequenceNumber, ops: &[Op], batch: &[u8]) {
        if wal.0 < self.first_wal.load(Relaxed) {
            self.first_wal.store(wal.0, Release);
        }
        self.last_seq.store(seq.0, Release);
        let entry = |op: &Op| {
            let (key, value) = (&batch[op.key.clone()], &batch[op.value.clone()]);
            match op.kind {
                OpKind::Entry(kind) => Some(EntryRef { key, seq, kind, expires_at: op.expires_at, value }),
                OpKind::RangeDelete => None,
            }
        };
        for some in ops.chunks(OPS_AT_ONCE) {
            for entry in some.iter().filter_map(entry) {
                if entry.expires_at != Expiry::NEVER {
                    self.expires.store(true, Release);
                }
                self.filter.insert(hash_key(entry.key));
            }
            self.table.insert_all(&mut some.iter().filter_map(entry));
        }
        for op in ops.iter().filter(|op| op.kind == OpKind::RangeDelete) {
            let (start, end) = (&batch[op.key.clone()], &batch[op.value.clone()]);
            let bytes = RANGE_DELETE_OVERHEAD_BYTES + start.len() + end.len();
            self.range_delete_bytes.fetch_add(bytes, Release);
            let (start, end) = (Bytes::copy_from_slice(start), Bytes::copy_from_slice(end));
            // A reader keeps the set that it has taken.
            Arc::make_mut(&mut write(&self.range_deletes)).insert(start, end, seq);
        }
    }

    /// What the newest version of a key that a reader may see says, by the key's hash
    /// too. Range tombstones are for the caller to have looked at.
    pub fn get(&self, lookup: &Lookup<'_>, hash: u64) -> Option<Found> {
        if !self.filter.may_hold(hash) {
            return None;
        }
        let Versioned { seq, kind, expires_at, value } = self.table.get(lookup.key, lookup.seq)?;
        if seq < lookup.hidden_below || expires_at.is_past(lookup.now_ms) {
            return Some(Found::Gone);
        }
        Some(match kind {
            ValueKind::Put => Found::Value(value),
            ValueKind::Delete => Found::Gone,
            ValueKind::Merge => Found::Operand(seq, value),
        })
    }

    /// Range tombstones as they are now, if there are any.
    pub fn range_deletes(&self) -> Option<Arc<RangeDeletes>> {
        let any = self.range_delete_bytes.load(Acquire) > 0;
        any.then(|| Arc::clone(&read(&self.range_deletes)))
    }

    /// True if some entry expires.
    pub fn expires(&self) -> bool {
        self.expires.load(Acquire)
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.table.bytes() + self.filter.bytes() + self.range_delete_bytes.load(Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.first_wal().is_none()
    }

    pub fn first_wal(&self) -> Option<FileNumber> {
        let number = self.first_wal.load(Acquire);
        (number != u64::MAX).then_some(FileNumber(number))
    }

    pub fn last_seq(&self) -> SequenceNumber {
        SequenceNumber(self.last_seq.load(Relaxed))
    }
}
