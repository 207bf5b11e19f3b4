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

use crate::cursor::Cursor;
use crate::key::{Entry, EntryRef, SequenceNumber};
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

/// Sorted versions of keys, in memory.
pub trait Memtable: Send + Sync + Debug {
    /// Adds a copy of a version; its key and sequence number together must be new.
    fn insert(&self, entry: EntryRef<'_>);

    /// The newest version of `key` at or before `seq`.
    fn get(&self, key: &[u8], seq: SequenceNumber) -> Option<Entry>;

    /// A cursor over everything, inserts to come included; or, for a reader at a sequence
    /// number that walks forward, over what it needs: neither what is newer nor what is
    /// older than a put or a tombstone that it sees.
    fn cursor(self: Arc<Self>, reader: Option<SequenceNumber>) -> Box<dyn Cursor + Send>;

    /// Number of entries.
    fn entries(&self) -> usize;

    /// Bytes of memory used, as allocated: keys, values and the structure itself.
    fn bytes(&self) -> usize;
}
