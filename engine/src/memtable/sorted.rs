//! The sorted memtable: a B-tree behind a lock. The fastest with one writer.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use crate::cursor::Cursor;
use crate::error::Result;
use crate::key::{Entry, EntryRef, Expiry, SequenceNumber, ValueKind, compare_internal};
use crate::memtable::Memtable;
use crate::sync::atomic::AtomicUsize;
use crate::sync::{RwLock, read, write};

/// Bytes of an entry beside key and value: two `Bytes`, sequence number, kind,
/// expiry, and the slack of B-tree nodes two thirds full.
const ENTRY_OVERHEAD_BYTES: usize = 132;

/// Most entries a cursor copies under one acquisition of the lock.
const CHUNK_ENTRIES_MAX: usize = 128;

/// An internal key that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct InternalKey {
    key: Bytes,
    seq: SequenceNumber,
}

/// Lets the map be searched with a borrowed key, without allocating.
trait AsInternal {
    fn internal(&self) -> (&[u8], SequenceNumber);
}

impl AsInternal for InternalKey {
    fn internal(&self) -> (&[u8], SequenceNumber) {
        (&self.key, self.seq)
    }
}

impl AsInternal for (&[u8], SequenceNumber) {
    fn internal(&self) -> (&[u8], SequenceNumber) {
        *self
    }
}

impl Ord for InternalKey {
    fn cmp(&self, other: &Self) -> Ordering {
        compare_internal(self.internal(), other.internal())
    }
}

impl PartialOrd for InternalKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<'a> Borrow<dyn AsInternal + 'a> for InternalKey {
    fn borrow(&self) -> &(dyn AsInternal + 'a) {
        self
    }
}

impl Ord for dyn AsInternal + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        compare_internal(self.internal(), other.internal())
    }
}

impl PartialOrd for dyn AsInternal + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn AsInternal + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.internal() == other.internal()
    }
}

impl Eq for dyn AsInternal + '_ {}

/// What a version has beside its key.
#[derive(Debug)]
struct Content {
    kind: ValueKind,
    expires_at: Expiry,
    value: Bytes,
}

type Map = BTreeMap<InternalKey, Content>;

fn range<'m>(
    map: &'m Map,
    start: Bound<(&[u8], SequenceNumber)>,
    end: Bound<(&[u8], SequenceNumber)>,
) -> std::collections::btree_map::Range<'m, InternalKey, Content> {
    fn erased<'b, 'k>(bound: &'b Bound<(&'k [u8], SequenceNumber)>) -> Bound<&'b (dyn AsInternal + 'k)> {
        match bound {
            Bound::Included(key) => Bound::Included(key),
            Bound::Excluded(key) => Bound::Excluded(key),
            Bound::Unbounded => Bound::Unbounded,
        }
    }
    map.range::<dyn AsInternal, _>((erased(&start), erased(&end)))
}

/// An ordered map of versions.
#[derive(Debug, Default)]
pub struct SortedMemtable {
    map: RwLock<Map>,
    bytes: AtomicUsize,
}

impl Memtable for SortedMemtable {
    fn insert(&self, entry: Entry) {
        let Entry { key, seq, kind, expires_at, value } = entry;
        self.bytes.fetch_add(key.len() + value.len() + ENTRY_OVERHEAD_BYTES, Relaxed);
        write(&self.map).insert(InternalKey { key, seq }, Content { kind, expires_at, value });
    }

    fn get(&self, key: &[u8], seq: SequenceNumber) -> Option<Entry> {
        let map = read(&self.map);
        let found = range(&map, Bound::Included((key, seq)), Bound::Unbounded).next()?;
        (found.0.key == key).then(|| entry(found))
    }

    fn cursor(self: Arc<Self>) -> Box<dyn Cursor + Send> {
        Box::new(SortedCursor { table: self, chunk: Vec::new(), at: 0, chunk_entries: 0 })
    }

    fn entries(&self) -> usize {
        read(&self.map).len()
    }

    fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }
}

/// Copies handles of neighbouring entries in chunks, so that a scan takes the
/// lock seldom and never holds it between calls. A chunk may miss entries that
/// were inserted since; those are newer than whatever the reader may see.
struct SortedCursor {
    table: Arc<SortedMemtable>,
    /// Ascending; empty where the cursor stands nowhere.
    chunk: Vec<Entry>,
    at: usize,
    /// Doubles while the cursor keeps its direction, from one entry at a seek.
    chunk_entries: usize,
}

fn entry((key, content): (&InternalKey, &Content)) -> Entry {
    let Content { kind, expires_at, value } = content;
    let (kind, expires_at, value) = (*kind, *expires_at, value.clone());
    Entry { key: key.key.clone(), seq: key.seq, kind, expires_at, value }
}

/// Has the processor fetch what a walk is about to read. Keys and values lie all
/// over memory; one after another, as a walk gets to them, they would be waited
/// for one by one.
fn fetch(chunk: &[Entry]) {
    let byte = |byte: Option<&u8>| usize::from(byte.copied().unwrap_or_default());
    let sum = |Entry { key, value, .. }: &Entry| byte(key.first()) + byte(value.first()) + byte(value.last());
    std::hint::black_box(chunk.iter().map(sum).sum::<usize>());
}

impl SortedCursor {
    fn fill_forward(&mut self, start: Bound<(&[u8], SequenceNumber)>) {
        self.chunk_entries = (self.chunk_entries * 2).clamp(1, CHUNK_ENTRIES_MAX);
        let map = read(&self.table.map);
        let entries = range(&map, start, Bound::Unbounded).take(self.chunk_entries);
        self.chunk.clear();
        self.chunk.extend(entries.map(entry));
        drop(map);
        fetch(&self.chunk);
        self.at = 0;
    }

    fn fill_backward(&mut self, end: Bound<(&[u8], SequenceNumber)>) {
        self.chunk_entries = (self.chunk_entries * 2).clamp(1, CHUNK_ENTRIES_MAX);
        let map = read(&self.table.map);
        let entries = range(&map, Bound::Unbounded, end).rev().take(self.chunk_entries);
        self.chunk.clear();
        self.chunk.extend(entries.map(entry));
        drop(map);
        fetch(&self.chunk);
        self.chunk.reverse();
        self.at = self.chunk.len().saturating_sub(1);
    }
}

impl Cursor for SortedCursor {
    fn seek_first(&mut self) -> Result<()> {
        self.chunk_entries = 0;
        self.fill_forward(Bound::Unbounded);
        Ok(())
    }

    fn seek_last(&mut self) -> Result<()> {
        self.chunk_entries = 0;
        self.fill_backward(Bound::Unbounded);
        Ok(())
    }

    fn seek(&mut self, key: &[u8], seq: SequenceNumber) -> Result<()> {
        self.chunk_entries = 0;
        self.fill_forward(Bound::Included((key, seq)));
        Ok(())
    }

    fn seek_before(&mut self, key: &[u8], seq: SequenceNumber) -> Result<()> {
        self.chunk_entries = 0;
        self.fill_backward(Bound::Excluded((key, seq)));
        Ok(())
    }

    fn next(&mut self) -> Result<()> {
        if self.at + 1 < self.chunk.len() {
            self.at += 1;
        } else if let Some(last) = self.chunk.pop() {
            self.fill_forward(Bound::Excluded((&last.key, last.seq)));
        }
        Ok(())
    }

    fn prev(&mut self) -> Result<()> {
        if self.at > 0 {
            self.at -= 1;
        } else if !self.chunk.is_empty() {
            let first = self.chunk.swap_remove(0);
            self.fill_backward(Bound::Excluded((&first.key, first.seq)));
        }
        Ok(())
    }

    fn entry(&self) -> Option<EntryRef<'_>> {
        self.chunk.get(self.at).map(Entry::borrowed)
    }

    fn value(&self) -> Bytes {
        self.chunk.get(self.at).map(|entry| entry.value.clone()).unwrap_or_default()
    }
}
