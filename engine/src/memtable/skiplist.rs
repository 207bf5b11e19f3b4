//! The skip-list memtable: no lock at all. Readers and any number of writers go
//! on beside each other; each entry is a node of its own.

use std::fmt::Debug;
use std::ops::Bound;
use std::sync::Arc;

use crossbeam_epoch as epoch;
use crossbeam_skiplist::SkipList;

use super::contents::Contents;
use super::cursor::{ChunkCursor, Neighbours, Wanted, collect, copy};
use super::node::{Located, Probe, Version};
use super::{Memtable, Versioned};
use crate::cursor::Cursor;
use crate::key::{EntryRef, SequenceNumber};
use crate::sync::{Mutex, lock};

use self::node::Node;

mod node;

/// Bytes of an entry beside key and value: its node has a count and, on the
/// average, two links.
const ENTRY_BYTES: usize = size_of::<Node>() + 3 * size_of::<usize>();

/// Writers that copy at once without waiting for each other.
const SHARDS: usize = 4;

/// A skip list of versions.
#[derive(Debug)]
pub struct SkipListMemtable {
    /// Used with guards of our own, so that a walk costs no count per entry.
    /// Nothing is ever removed, so no guard holds garbage back.
    list: SkipList<Node, ()>,
    /// Where keys and values are copied to, whichever of them is free.
    contents: [Mutex<Contents>; SHARDS],
}

impl Default for SkipListMemtable {
    fn default() -> Self {
        let list = SkipList::new(epoch::default_collector().clone());
        SkipListMemtable { list, contents: Default::default() }
    }
}

impl SkipListMemtable {
    fn node(&self, entry: &EntryRef<'_>) -> Node {
        let mut free = self.contents.iter().find_map(|contents| contents.try_lock().ok());
        let contents = free.get_or_insert_with(|| lock(&self.contents[0]));
        Node::new(entry, contents)
    }
}

impl Memtable for SkipListMemtable {
    fn insert_all(&self, entries: &mut dyn Iterator<Item = EntryRef<'_>>) {
        for entry in entries {
            let node = self.node(&entry);
            let guard = epoch::pin();
            self.list.insert(node, (), &guard).release(&guard);
        }
    }

    fn get(&self, key: &[u8], seq: SequenceNumber) -> Option<Versioned> {
        let guard = epoch::pin();
        let start = Node::sought((key, seq));
        let found = self.list.lower_bound(Bound::Included(&start), &guard)?;
        let version = &found.key().version;
        (version.key() == key).then(|| (&version).versioned())
    }

    fn cursor(self: Arc<Self>, reader: Option<SequenceNumber>) -> Box<dyn Cursor + Send> {
        Box::new(ChunkCursor::new(self, reader))
    }

    fn entries(&self) -> usize {
        self.list.len()
    }

    fn bytes(&self) -> usize {
        let contents = self.contents.iter().map(|contents| lock(contents).bytes());
        contents.sum::<usize>() + self.list.len() * ENTRY_BYTES
    }
}

impl Neighbours for SkipListMemtable {
    type Item = Version;

    fn after(&self, start: Option<Probe<'_>>, wanted: Wanted, entries: &mut Vec<Self::Item>) {
        let guard = &epoch::pin();
        let from = |start: Option<Probe<'_>>| {
            let start = start.map(Node::sought);
            let bound = start.as_ref().map_or(Bound::Unbounded, Bound::Included);
            let first = self.list.lower_bound(bound, guard);
            std::iter::successors(first, |entry| entry.next()).map(|entry| &entry.key().version)
        };
        collect(from, start, wanted, entries);
    }

    // Links lead forward alone: each step is a search.
    fn before(&self, end: Option<Probe<'_>>, count: usize, entries: &mut Vec<Self::Item>) {
        let guard = epoch::pin();
        let end = end.map(Node::sought);
        let bound = end.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let last = self.list.upper_bound(bound, &guard);
        let found = std::iter::successors(last, |entry| entry.prev());
        let found: Vec<_> = found.take(count).collect();
        copy(found.iter().map(|entry| &entry.key().version), entries);
    }
}
