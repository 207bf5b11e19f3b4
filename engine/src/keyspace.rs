//! The inside of a keyspace: what its readers look at.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Arc, RwLock};

use bytes::Bytes;

use crate::key::{FileNumber, KeyspaceId, SequenceNumber, ValueKind};
use crate::memtable::{Memtable, sorted::SortedMemtable};
use crate::sync::{read, write};
use crate::version::Version;

/// A keyspace of an open database.
#[derive(Debug)]
pub(crate) struct Keyspace {
    pub id: KeyspaceId,
    pub name: String,
    view: RwLock<Arc<View>>,
}

impl Keyspace {
    pub fn new(id: KeyspaceId, name: String, version: Version) -> Self {
        let view = View { active: Arc::default(), immutable: Vec::new(), version: Arc::new(version) };
        Keyspace { id, name, view: RwLock::new(Arc::new(view)) }
    }

    /// What to read now.
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
#[derive(Debug)]
pub(crate) struct View {
    /// Takes writes.
    pub active: Arc<Memory>,
    /// Wait to be flushed, newest first.
    pub immutable: Vec<Arc<Memory>>,
    /// SSTables.
    pub version: Arc<Version>,
}

impl View {
    /// Memtables, newest first.
    pub fn memtables(&self) -> impl Iterator<Item = &Arc<Memory>> {
        std::iter::once(&self.active).chain(&self.immutable)
    }
}

/// A memtable and where the log has its contents.
#[derive(Debug)]
pub(crate) struct Memory {
    pub table: Arc<dyn Memtable>,
    /// Lowest WAL that holds an entry of it; `u64::MAX` while it is empty.
    first_wal: AtomicU64,
    /// Highest sequence number in it.
    last_seq: AtomicU64,
}

impl Default for Memory {
    fn default() -> Self {
        Memory {
            table: Arc::new(SortedMemtable::default()),
            first_wal: AtomicU64::new(u64::MAX),
            last_seq: AtomicU64::new(0),
        }
    }
}

impl Memory {
    /// Adds an entry that `wal` holds. One writer at a time.
    pub fn insert(&self, wal: FileNumber, key: Bytes, seq: SequenceNumber, kind: ValueKind, value: Bytes) {
        self.first_wal.fetch_min(wal.0, Release);
        self.last_seq.store(seq.0, Release);
        self.table.insert(key, seq, kind, value);
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
