//! The inside of a keyspace: what its readers look at.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use bytes::Bytes;

use crate::batch::{Op, OpKind};
use crate::cursor::{Found, Lookup};
use crate::edit::KeyspaceFacts;
use crate::error::{Error, Result};
use crate::key::{Entry, Expiry, FileNumber, KeyspaceId, SequenceNumber, ValueKind};
use crate::memtable::{Memtable, sorted::SortedMemtable};
use crate::merge_operator::{Operator, refused};
use crate::options::KeyspaceOptions;
use crate::range_delete::RangeDeletes;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use crate::sync::{RwLock, read, write};
use crate::version::Version;

/// Bytes that a range delete costs in memory beside its keys, roughly: it parts at
/// most two fragments of others.
const RANGE_DELETE_OVERHEAD_BYTES: usize = 300;

/// A keyspace of an open database.
#[derive(Debug)]
pub(crate) struct Keyspace {
    pub id: KeyspaceId,
    pub name: String,
    pub operator: Operator,
    /// Milliseconds that an entry lives unless it says otherwise; 0: for ever.
    ttl_ms: AtomicU64,
    view: RwLock<Arc<View>>,
    /// True once it has been dropped; handles to it are refused from then on.
    dropped: AtomicBool,
}

impl Keyspace {
    pub fn new(id: KeyspaceId, facts: &KeyspaceFacts, operator: Operator, version: Version) -> Self {
        let view = View { active: Arc::default(), immutable: Vec::new(), version: Arc::new(version) };
        Keyspace {
            id,
            name: facts.name.clone(),
            operator,
            ttl_ms: AtomicU64::new(facts.ttl_ms),
            view: RwLock::new(Arc::new(view)),
            dropped: AtomicBool::new(false),
        }
    }

    /// Milliseconds that an entry lives unless it says otherwise; 0: for ever.
    pub fn ttl_ms(&self) -> u64 {
        self.ttl_ms.load(Relaxed)
    }

    pub fn set_ttl_ms(&self, ttl_ms: u64) {
        self.ttl_ms.store(ttl_ms, Relaxed);
    }

    /// True if it is as `options` want it; false if its time to live is another.
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
        Ok(options.ttl_ms.is_none_or(|ttl_ms| ttl_ms == self.ttl_ms()))
    }

    /// What the manifest says of it, with another point up to which it is flushed.
    pub fn facts(&self, flushed_through: SequenceNumber) -> KeyspaceFacts {
        KeyspaceFacts {
            name: self.name.clone(),
            flushed_through,
            merge_operator: self.operator.as_ref().map_or_else(String::new, |o| o.name().to_owned()),
            ttl_ms: self.ttl_ms(),
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
        self.update(|_| View { active: Arc::default(), immutable: Vec::new(), version: Arc::default() });
    }

    /// The view for a reader.
    ///
    /// # Errors
    /// `InvalidArgument` once it has been dropped. That is looked at after the view
    /// was taken: a view that a drop has emptied is not read.
    pub fn view_to_read(&self) -> Result<Arc<View>> {
        let view = self.view();
        self.check()?;
        Ok(view)
    }

    /// What is there now.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&read(&self.view))
    }

    /// Replaces the view by one made from it.
    pub fn update(&self, change: impl FnOnce(&View) -> View) {
        let mut view = write(&self.view);
        *view = Arc::new(change(&view));
    }

    /// Sets the active memtable aside and begins a new one. Only with the write
    /// path held still.
    pub fn freeze(&self) {
        self.update(|view| {
            let mut immutable = view.immutable.clone();
            immutable.insert(0, Arc::clone(&view.active));
            View { active: Arc::default(), immutable, version: Arc::clone(&view.version) }
        });
    }
}

/// Everything in a keyspace at some moment, newest first.
#[derive(Debug, Default)]
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
        Memory {
            table: Arc::new(SortedMemtable::default()),
            range_deletes: RwLock::default(),
            range_delete_bytes: AtomicUsize::new(0),
            first_wal: AtomicU64::new(u64::MAX),
            last_seq: AtomicU64::new(0),
            expires: AtomicBool::new(false),
        }
    }
}

impl Memory {
    /// Adds an operation of a batch that `wal` holds. One writer at a time.
    pub fn insert(&self, wal: FileNumber, seq: SequenceNumber, op: &Op, batch: &Bytes) {
        self.first_wal.fetch_min(wal.0, Release);
        self.last_seq.store(seq.0, Release);
        let (key, value) = op.slices(batch);
        match op.kind {
            OpKind::Entry(kind) => {
                if op.expires_at != Expiry::NEVER {
                    self.expires.store(true, Release);
                }
                self.table.insert(Entry { key, seq, kind, expires_at: op.expires_at, value });
            }
            OpKind::RangeDelete => {
                let bytes = RANGE_DELETE_OVERHEAD_BYTES + key.len() + value.len();
                self.range_delete_bytes.fetch_add(bytes, Release);
                // A reader keeps the set that it has taken.
                Arc::make_mut(&mut write(&self.range_deletes)).insert(key, value, seq);
            }
        }
    }

    /// What the newest version of a key that a reader may see says. Range
    /// tombstones are for the caller to have looked at.
    pub fn get(&self, lookup: &Lookup<'_>) -> Option<Found> {
        let Entry { seq, kind, expires_at, value, .. } = self.table.get(lookup.key, lookup.seq)?;
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

    /// Bytes of memory, roughly.
    pub fn bytes(&self) -> usize {
        self.table.bytes() + self.range_delete_bytes.load(Relaxed)
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
