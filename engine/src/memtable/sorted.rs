//! The sorted memtable: a B-tree behind a lock. The fastest with one writer.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Memtable;
use super::cursor::{ChunkCursor, Neighbours};
use super::node::{AsInternal, Content, InternalKey, Probe, erased, parted, whole};
use crate::cursor::Cursor;
use crate::key::{Entry, SequenceNumber};
use crate::sync::atomic::AtomicUsize;
use crate::sync::{RwLock, read, write};

/// Bytes of an entry beside key and value. Nodes are two thirds full where keys
/// come in any order, and a little more than half where they ascend.
const ENTRY_OVERHEAD_BYTES: usize = (size_of::<InternalKey>() + size_of::<Content>()) * 5 / 3;

type Map = BTreeMap<InternalKey, Content>;

/// An ordered map of versions.
#[derive(Debug, Default)]
pub struct SortedMemtable {
    map: RwLock<Map>,
    bytes: AtomicUsize,
}

impl Memtable for SortedMemtable {
    fn insert(&self, entry: Entry) {
        self.bytes.fetch_add(entry.key.len() + entry.value.len() + ENTRY_OVERHEAD_BYTES, Relaxed);
        let (key, content) = parted(entry);
        write(&self.map).insert(key, content);
    }

    fn get(&self, key: &[u8], seq: SequenceNumber) -> Option<Entry> {
        let map = read(&self.map);
        let found = range(&map, Bound::Included((key, seq)), Bound::Unbounded).next()?;
        (found.0.key == key).then(|| whole(found))
    }

    fn cursor(self: Arc<Self>) -> Box<dyn Cursor + Send> {
        Box::new(ChunkCursor::new(self))
    }

    fn entries(&self) -> usize {
        read(&self.map).len()
    }

    fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }
}

impl Neighbours for SortedMemtable {
    fn after(&self, start: Bound<Probe<'_>>, count: usize, entries: &mut Vec<Entry>) {
        entries.extend(range(&read(&self.map), start, Bound::Unbounded).take(count).map(whole));
    }

    fn before(&self, end: Bound<Probe<'_>>, count: usize, entries: &mut Vec<Entry>) {
        entries.extend(range(&read(&self.map), Bound::Unbounded, end).rev().take(count).map(whole));
    }
}

fn range<'m>(
    map: &'m Map,
    start: Bound<Probe<'_>>,
    end: Bound<Probe<'_>>,
) -> impl DoubleEndedIterator<Item = (&'m InternalKey, &'m Content)> {
    map.range::<dyn AsInternal, _>((erased(&start), erased(&end)))
}
