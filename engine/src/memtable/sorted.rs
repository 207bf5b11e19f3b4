//! The sorted memtable: a B+-tree behind a lock. The fastest with one writer.

use std::sync::Arc;

use self::tree::Tree;
use super::Memtable;
use super::contents::Contents;
use super::cursor::{ChunkCursor, Neighbours, Wanted, collect};
use super::node::{Probe, Version};
use crate::cursor::Cursor;
use crate::key::{Entry, EntryRef, SequenceNumber};
use crate::sync::{RwLock, read, write};

#[cfg(test)]
mod tests;
mod tree;

/// An ordered set of versions.
#[derive(Debug, Default)]
pub struct SortedMemtable {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    tree: Tree,
    contents: Contents,
}

impl Memtable for SortedMemtable {
    fn insert(&self, entry: EntryRef<'_>) {
        let Inner { tree, contents } = &mut *write(&self.inner);
        tree.insert(Version::new(&entry, contents));
    }

    fn get(&self, key: &[u8], seq: SequenceNumber) -> Option<Entry> {
        let inner = read(&self.inner);
        let version = inner.tree.from(Some((key, seq))).next()?;
        (version.key() == key).then(|| version.entry())
    }

    fn cursor(self: Arc<Self>, reader: Option<SequenceNumber>) -> Box<dyn Cursor + Send> {
        Box::new(ChunkCursor::new(self, reader))
    }

    fn entries(&self) -> usize {
        read(&self.inner).tree.len()
    }

    fn bytes(&self) -> usize {
        let inner = read(&self.inner);
        inner.contents.bytes() + inner.tree.bytes()
    }
}

impl Neighbours for SortedMemtable {
    type Item = Version;

    fn after(&self, start: Option<Probe<'_>>, wanted: Wanted, entries: &mut Vec<Self::Item>) {
        let tree = &read(&self.inner).tree;
        collect(|start| tree.from(start), start, wanted, entries);
    }

    fn before(&self, end: Option<Probe<'_>>, count: usize, entries: &mut Vec<Self::Item>) {
        let tree = &read(&self.inner).tree;
        entries.extend(tree.back_from(end).take(count).cloned());
    }
}
