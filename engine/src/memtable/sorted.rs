//! The sorted memtable: a B-tree behind a lock. The fastest with one writer.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use super::Memtable;
use super::contents::Contents;
use super::cursor::{ChunkCursor, Neighbours, Wanted, collect};
use super::node::{Probe, Version};
use crate::cursor::Cursor;
use crate::key::{Entry, EntryRef, SequenceNumber};
use crate::sync::{RwLock, read, write};

/// Bytes of an entry beside key and value. Nodes are two thirds full where keys
/// come in any order, and a little more than half where they ascend.
const ENTRY_BYTES: usize = size_of::<Version>() * 5 / 3;

/// An ordered set of versions.
#[derive(Debug, Default)]
pub struct SortedMemtable {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    versions: BTreeSet<Version>,
    contents: Contents,
}

impl Memtable for SortedMemtable {
    fn insert(&self, entry: EntryRef<'_>) {
        let Inner { versions, contents } = &mut *write(&self.inner);
        versions.insert(Version::new(&entry, contents));
    }

    fn get(&self, key: &[u8], seq: SequenceNumber) -> Option<Entry> {
        let inner = read(&self.inner);
        let version = inner.versions.range(Version::sought((key, seq))..).next()?;
        (version.key() == key).then(|| version.entry())
    }

    fn cursor(self: Arc<Self>, reader: Option<SequenceNumber>) -> Box<dyn Cursor + Send> {
        Box::new(ChunkCursor::new(self, reader))
    }

    fn entries(&self) -> usize {
        read(&self.inner).versions.len()
    }

    fn bytes(&self) -> usize {
        let inner = read(&self.inner);
        inner.contents.bytes() + inner.versions.len() * ENTRY_BYTES
    }
}

impl Neighbours for SortedMemtable {
    type Item = Version;

    fn after(&self, start: Bound<Probe<'_>>, wanted: Wanted, entries: &mut Vec<Self::Item>) {
        let versions = &read(&self.inner).versions;
        collect(|start| versions.range((start, Bound::Unbounded)), start, wanted, entries);
    }

    fn before(&self, end: Bound<Probe<'_>>, count: usize, entries: &mut Vec<Self::Item>) {
        let versions = &read(&self.inner).versions;
        let found = versions.range((Bound::Unbounded, end.map(Version::sought)));
        entries.extend(found.rev().take(count).cloned());
    }
}
