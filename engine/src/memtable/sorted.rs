//! The sorted memtable: a B-tree behind a lock. The fastest with one writer.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::Memtable;
use super::contents::Contents;
use super::cursor::{ChunkCursor, Neighbours};
use super::node::{Probe, Version};
use crate::cursor::Cursor;
use crate::key::{Entry, EntryRef, Expiry, SequenceNumber};
use crate::sync::{RwLock, read, write};

/// Bytes of an entry beside key and value. Nodes are two thirds full where keys
/// come in any order, and a little more than half where they ascend.
const ENTRY_BYTES: usize = (size_of::<Version>() + size_of::<Expiry>()) * 5 / 3;

type Map = BTreeMap<Version, Expiry>;

/// An ordered map of versions.
#[derive(Debug, Default)]
pub struct SortedMemtable {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    map: Map,
    contents: Contents,
}

impl Memtable for SortedMemtable {
    fn insert(&self, entry: EntryRef<'_>) {
        let Inner { map, contents } = &mut *write(&self.inner);
        map.insert(Version::new(&entry, contents), entry.expires_at);
    }

    fn get(&self, key: &[u8], seq: SequenceNumber) -> Option<Entry> {
        let inner = read(&self.inner);
        let (version, expires_at) =
            range(&inner.map, Bound::Included((key, seq)), Bound::Unbounded).next()?;
        (version.key() == key).then(|| version.entry(*expires_at))
    }

    fn cursor(self: Arc<Self>) -> Box<dyn Cursor + Send> {
        Box::new(ChunkCursor::new(self))
    }

    fn entries(&self) -> usize {
        read(&self.inner).map.len()
    }

    fn bytes(&self) -> usize {
        let inner = read(&self.inner);
        inner.contents.bytes() + inner.map.len() * ENTRY_BYTES
    }
}

impl Neighbours for SortedMemtable {
    type Item = (Version, Expiry);

    fn after(&self, start: Bound<Probe<'_>>, count: usize, entries: &mut Vec<Self::Item>) {
        entries.extend(range(&read(&self.inner).map, start, Bound::Unbounded).take(count).map(copy));
    }

    fn before(&self, end: Bound<Probe<'_>>, count: usize, entries: &mut Vec<Self::Item>) {
        entries.extend(range(&read(&self.inner).map, Bound::Unbounded, end).rev().take(count).map(copy));
    }
}

fn range<'m>(
    map: &'m Map,
    start: Bound<Probe<'_>>,
    end: Bound<Probe<'_>>,
) -> impl DoubleEndedIterator<Item = (&'m Version, &'m Expiry)> {
    map.range((start.map(Version::sought), end.map(Version::sought)))
}

fn copy((version, expires_at): (&Version, &Expiry)) -> (Version, Expiry) {
    (version.clone(), *expires_at)
}
