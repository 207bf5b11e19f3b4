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
use super::cursor::{ChunkCursor, Neighbours, Wanted, fetch};
use super::node::Probe;
use super::{Memtable, Versioned};
use crate::cursor::Cursor;
use crate::key::{Entry, EntryRef, SequenceNumber};
use crate::sync::WideLock;

mod node;
#[cfg(test)]
mod tests;
mod tree;
mod walk;

/// A trie of keys with their versions.
#[derive(Debug, Default)]
pub struct TrieMemtable {
    tree: WideLock<Tree>,
}

impl Neighbours for TrieMemtable {
    type Item = Entry;

    fn after(&self, start: Option<Probe<'_>>, wanted: Wanted, entries: &mut Vec<Entry>) {
        walk::after(&self.tree.read(), start, wanted, entries);
    }

    fn before(&self, end: Option<Probe<'_>>, count: usize, entries: &mut Vec<Entry>) {
        walk::before(&self.tree.read(), end, count, entries);
    }
}

impl Memtable for TrieMemtable {
    fn insert_all(&self, entries: &mut dyn Iterator<Item = EntryRef<'_>>) {
        let mut tree = self.tree.write();
        entries.for_each(|entry| tree.insert(entry));
    }

    fn get(&self, key: &[u8], seq: SequenceNumber) -> Option<Versioned> {
        let tree = self.tree.read();
        let leaf = tree.find(key)?;
        leaf.versions_at(seq).last().cloned()
    }

    fn cursor(self: Arc<Self>, reader: Option<SequenceNumber>) -> Box<dyn Cursor + Send> {
        Box::new(ChunkCursor::new(self, reader))
    }

    fn entries(&self) -> usize {
        self.tree.read().entries()
    }

    fn bytes(&self) -> usize {
        self.tree.read().bytes()
    }
}
