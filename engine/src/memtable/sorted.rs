//! The sorted memtable: a B+-tree behind a lock. The fastest with one writer.

use std::sync::Arc;

use self::tree::Tree;
use super::Memtable;
use super::cursor::{ChunkCursor, Neighbours, Wanted, collect, copy};
use super::node::{Located, Probe, Version};
use crate::cursor::Cursor;
use crate::key::{Entry, EntryRef, SequenceNumber};
use crate::sync::{RwLock, read, write};

mod records;
#[cfg(test)]
mod tests;
mod tree;

/// An ordered set of versions.
#[derive(Debug, Default)]
pub struct SortedMemtable {
    tree: RwLock<Tree>,
}

impl Memtable for SortedMemtable {
    fn insert(&self, entry: EntryRef<'_>) {
        write(&self.tree).insert(&entry);
    }

    fn get(&self, key: &[u8], seq: SequenceNumber) -> Option<Entry> {
        let tree = read(&self.tree);
        let found = tree.from(Some((key, seq))).next()?;
        (found.probe().0 == key).then(|| found.version().into_entry())
    }

    fn cursor(self: Arc<Self>, reader: Option<SequenceNumber>) -> Box<dyn Cursor + Send> {
        Box::new(ChunkCursor::new(self, reader))
    }

    fn entries(&self) -> usize {
        read(&self.tree).len()
    }

    fn bytes(&self) -> usize {
        read(&self.tree).bytes()
    }
}

impl Neighbours for SortedMemtable {
    type Item = Version;

    fn after(&self, start: Option<Probe<'_>>, wanted: Wanted, entries: &mut Vec<Self::Item>) {
        let tree = read(&self.tree);
        collect(|start| tree.from(start), start, wanted, entries);
    }

    fn before(&self, end: Option<Probe<'_>>, count: usize, entries: &mut Vec<Self::Item>) {
        let tree = read(&self.tree);
        copy(tree.back_from(end).take(count), entries);
    }
}
