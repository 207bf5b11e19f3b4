//! Memtables: sorted writes in memory, until a flush turns them into an SSTable.
//!
//! One writer inserts at a time (the commit path sees to that); any number of
//! readers look on. Entries are never changed or removed, so a cursor stays
//! valid while inserts go on; what is newer than a reader's sequence number is
//! the reader's to skip.
//!
//! Which structure does the sorting is for each keyspace to choose; nobody can
//! tell from what they answer.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;

use crate::cursor::Cursor;
use crate::key::{EntryRef, Expiry, SequenceNumber, ValueKind};
use crate::options::MemtableKind;

mod arena;
mod contents;
mod cursor;
mod node;
pub mod skiplist;
pub mod sorted;
#[cfg(test)]
mod tests;
pub mod trie;

/// An empty memtable.
pub fn new(kind: MemtableKind) -> Arc<dyn Memtable> {
    match kind {
        MemtableKind::Sorted => Arc::new(sorted::SortedMemtable::default()),
        MemtableKind::SkipList => Arc::new(skiplist::SkipListMemtable::default()),
        MemtableKind::Trie => Arc::new(trie::TrieMemtable::default()),
    }
}

/// A version of a key, which whoever asked for it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The commit that wrote it.
    pub seq: SequenceNumber,
    /// What it does.
    pub kind: ValueKind,
    /// When it expires.
    pub expires_at: Expiry,
    /// The value; empty for a tombstone. It may share the memory of others.
    pub value: Bytes,
}

impl Versioned {
    /// The same of `entry`, with a value of its own.
    fn of(entry: &EntryRef<'_>, value: Bytes) -> Versioned {
        Versioned { seq: entry.seq, kind: entry.kind, expires_at: entry.expires_at, value }
    }

    /// It, and the key.
    #[cfg(test)]
    fn with_key(self, key: &[u8]) -> crate::key::Entry {
        let Versioned { seq, kind, expires_at, value } = self;
        crate::key::Entry { key: Bytes::copy_from_slice(key), seq, kind, expires_at, value }
    }
}

/// Sorted versions of keys, in memory.
pub trait Memtable: Send + Sync + Debug {
    /// Adds copies of versions, of which each key and sequence number together must be
    /// new. Readers wait for all of them where the structure has a lock.
    fn insert_all(&self, entries: &mut dyn Iterator<Item = EntryRef<'_>>);

    /// Adds a copy of a version.
    fn insert(&self, entry: EntryRef<'_>) {
        self.insert_all(&mut std::iter::once(entry));
    }

    /// What the newest version of `key` at or before `seq` says.
    fn get(&self, key: &[u8], seq: SequenceNumber) -> Option<Versioned>;

    /// A cursor over everything, inserts to come included; or, for a reader at a sequence
    /// number that walks forward, over what it needs: neither what is newer nor what is
    /// older than a put or a tombstone that it sees.
    fn cursor(self: Arc<Self>, reader: Option<SequenceNumber>) -> Box<dyn Cursor + Send>;

    /// Number of entries.
    fn entries(&self) -> usize;

    /// Bytes of memory used, as allocated: keys, values and the structure itself.
    fn bytes(&self) -> usize;
}
