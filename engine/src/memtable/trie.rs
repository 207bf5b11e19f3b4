//! The trie memtable: an adaptive radix tree behind a lock. Prefixes that keys
//! share cost their depth once, in comparisons and in memory.
//!
//! After Leis, Kemper and Neumann, "The Adaptive Radix Tree: ARTful Indexing for
//! Main-Memory Databases" (ICDE 2013), with these choices:
//!
//! - An inner node knows the *depth* at which keys below it part, and nothing of
//!   the bytes before: all of them are skipped on the way down (the paper's
//!   optimistic path compression), and a search ends with a comparison against
//!   the key of a leaf. A leaf keeps the whole key, which lies beside its value;
//!   so scans need not put keys together.
//! - The end of a key is a branch of its own, before byte 0: so a key may be a
//!   prefix of others.
//! - A leaf has all versions of its key.
//! - Nodes never shrink, as entries are never removed.
//!
//! A search takes as many steps as there are forks on its way: few, but for keys
//! that are each a prefix of the next.

use std::sync::Arc;

use self::tree::Tree;
use super::Memtable;
use super::cursor::{ChunkCursor, Neighbours, Wanted, fetch};
use super::node::Probe;
use crate::cursor::Cursor;
use crate::key::{Entry, EntryRef, SequenceNumber};
use crate::sync::{RwLock, read, write};

mod node;
#[cfg(test)]
mod tests;
mod tree;
mod walk;

/// A trie of keys with their versions.
#[derive(Debug, Default)]
pub struct TrieMemtable {
    tree: RwLock<Tree>,
}

impl Neighbours for TrieMemtable {
    type Item = Entry;

    fn after(&self, start: Option<Probe<'_>>, wanted: Wanted, entries: &mut Vec<Entry>) {
        walk::after(&read(&self.tree), start, wanted, entries);
    }

    fn before(&self, end: Option<Probe<'_>>, count: usize, entries: &mut Vec<Entry>) {
        walk::before(&read(&self.tree), end, count, entries);
    }
}

impl Memtable for TrieMemtable {
    fn insert(&self, entry: EntryRef<'_>) {
        write(&self.tree).insert(entry);
    }

    fn get(&self, key: &[u8], seq: SequenceNumber) -> Option<Entry> {
        let tree = read(&self.tree);
        let leaf = tree.find(key)?;
        leaf.versions_at(seq).last().map(|version| leaf.entry(version))
    }

    fn cursor(self: Arc<Self>, reader: Option<SequenceNumber>) -> Box<dyn Cursor + Send> {
        Box::new(ChunkCursor::new(self, reader))
    }

    fn entries(&self) -> usize {
        read(&self.tree).entries()
    }

    fn bytes(&self) -> usize {
        read(&self.tree).bytes()
    }
}
