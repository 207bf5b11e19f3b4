//! The skip-list memtable: no lock at all. Readers and any number of writers go
//! on beside each other; each entry is a node of its own.

use std::fmt::Debug;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crossbeam_epoch as epoch;
use crossbeam_skiplist::SkipList;

use super::Memtable;
use super::cursor::{ChunkCursor, Neighbours};
use super::node::{AsInternal, Content, InternalKey, Probe, erased, parted, whole};
use crate::cursor::Cursor;
use crate::key::{Entry, SequenceNumber};
use crate::sync::atomic::AtomicUsize;

/// Bytes of an entry beside key and value: its node has a count and, on the
/// average, two links.
const ENTRY_OVERHEAD_BYTES: usize = size_of::<InternalKey>() + size_of::<Content>() + 3 * size_of::<usize>();

/// A skip list of versions.
#[derive(Debug)]
pub struct SkipListMemtable {
    /// Used with guards of our own, so that a walk costs no count per entry.
    /// Nothing is ever removed, so no guard holds garbage back.
    list: SkipList<InternalKey, Content>,
    bytes: AtomicUsize,
}

impl Default for SkipListMemtable {
    fn default() -> Self {
        let list = SkipList::new(epoch::default_collector().clone());
        SkipListMemtable { list, bytes: AtomicUsize::new(0) }
    }
}

impl Memtable for SkipListMemtable {
    fn insert(&self, entry: Entry) {
        self.bytes.fetch_add(entry.key.len() + entry.value.len() + ENTRY_OVERHEAD_BYTES, Relaxed);
        let (key, content) = parted(entry);
        let guard = epoch::pin();
        self.list.insert(key, content, &guard).release(&guard);
    }

    fn get(&self, key: &[u8], seq: SequenceNumber) -> Option<Entry> {
        let guard = epoch::pin();
        let start = Bound::Included((key, seq));
        let found = self.list.lower_bound::<dyn AsInternal>(erased(&start), &guard)?;
        (found.key().key == key).then(|| whole((found.key(), found.value())))
    }

    fn cursor(self: Arc<Self>) -> Box<dyn Cursor + Send> {
        Box::new(ChunkCursor::new(self))
    }

    fn entries(&self) -> usize {
        self.list.len()
    }

    fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }
}

impl Neighbours for SkipListMemtable {
    fn after(&self, start: Bound<Probe<'_>>, count: usize, entries: &mut Vec<Entry>) {
        let guard = epoch::pin();
        let first = self.list.lower_bound::<dyn AsInternal>(erased(&start), &guard);
        let found = std::iter::successors(first, |entry| entry.next());
        entries.extend(found.take(count).map(|entry| whole((entry.key(), entry.value()))));
    }

    // Links lead forward alone: each step is a search.
    fn before(&self, end: Bound<Probe<'_>>, count: usize, entries: &mut Vec<Entry>) {
        let guard = epoch::pin();
        let last = self.list.upper_bound::<dyn AsInternal>(erased(&end), &guard);
        let found = std::iter::successors(last, |entry| entry.prev());
        entries.extend(found.take(count).map(|entry| whole((entry.key(), entry.value()))));
    }
}
