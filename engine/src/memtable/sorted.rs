//! The sorted memtable: a B+-tree behind a lock. The fastest with one writer.

use std::sync::Arc;

use self::tree::Tree;
use super::cursor::{ChunkCursor, Neighbours, Wanted, collect, copy};
use super::node::{Located, Probe, Version};
use super::{Memtable, Versioned};
use crate::cursor::Cursor;
use crate::key::{EntryRef, SequenceNumber};
use crate::sync::WideLock;

mod records;
#[cfg(test)]
mod tests;
mod tree;

/// An ordered set of versions.
#[derive(Debug, Default)]
pub struct SortedMemtable {
    tree: WideLock<Tree>,
}

impl Memtable for SortedMemtable {
    fn insert_all(&self, entries: &mut dyn Iterator<Item = EntryRef<'_>>) {
        let mut tree = self.tree.write();
        entries.for_each(|entry| tree.insert(&entry));
    }

    fn get(&self, key: &[u8], seq: SequenceNumber) -> Option<Versioned> {
        let tree = self.tree.read();
        let found = tree.from(Some((key, seq))).next()?;
        (found.probe().0 == key).then(|| found.versioned())
    }

    fn cursor(self: Arc<Self>, reader: Option<SequenceNumber>) -> Box<dyn Cursor + Send> {
        Box::new(ChunkCursor::new(self, reader))
    }

    fn entries(&self) -> usize {
        self.tree.read().len()
    }

    fn bytes(&self) -> usize {
        self.tree.read().bytes()
    }
}

impl Neighbours for SortedMemtable {
    type Item = Version;

    fn after(&self, start: Option<Probe<'_>>, wanted: Wanted, entries: &mut Vec<Self::Item>) {
        let tree = self.tree.read();
        collect(|start| tree.from(start), start, wanted, entries);
    }

    fn before(&self, end: Option<Probe<'_>>, count: usize, entries: &mut Vec<Self::Item>) {
        let tree = self.tree.read();
        copy(tree.back_from(end).take(count), entries);
    }
}
