//! A cursor that copies handles of neighbouring entries in chunks, so that a scan
//! searches the table, or takes its lock, seldom, and holds nothing of it between
//! calls but an `Arc`.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;

use super::node::{Located, Probe, Version};
use crate::cursor::Cursor;
use crate::error::Result;
use crate::key::{Entry, EntryRef, SequenceNumber, ValueKind, is_same_key};

/// Entries that are copied at a seek; each time that a cursor goes on, so many times as
/// many; and at most.
const CHUNK_ENTRIES: usize = 4;
const CHUNK_GROWTH: usize = 2;
const CHUNK_ENTRIES_MAX: usize = 128;

/// Entries passed by one by one before a walk seeks past those of their key.
const PASSED_MAX: usize = 16;

/// Entries that are looked at together.
const LOT: usize = 16;

/// After all versions of a key: no commit has this number.
const AFTER_ALL: SequenceNumber = SequenceNumber(0);

/// What of a table is wanted.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    /// At most so many entries.
    pub count: usize,
    /// Without what a reader at this sequence number has no need of.
    pub reader: Option<SequenceNumber>,
}

/// An entry that shares the memory of its table.
pub(super) trait Copied: Send {
    fn borrowed(&self) -> EntryRef<'_>;

    fn value(&self) -> Bytes;
}

impl Copied for Entry {
    #[inline]
    fn borrowed(&self) -> EntryRef<'_> {
        self.borrowed()
    }

    fn value(&self) -> Bytes {
        self.value.clone()
    }
}

impl Copied for Version {
    #[inline]
    fn borrowed(&self) -> EntryRef<'_> {
        self.borrowed()
    }

    fn value(&self) -> Bytes {
        self.value()
    }
}

/// A table that knows the neighbours of a place.
pub(super) trait Neighbours: Send + Sync {
    type Item: Copied;

    /// Appends what is wanted of what is at or after `start`, ascending; of all without it.
    fn after(&self, start: Option<Probe<'_>>, wanted: Wanted, entries: &mut Vec<Self::Item>);

    /// Appends up to `count` entries before `end`, descending, needed or not; the last ones
    /// without it.
    fn before(&self, end: Option<Probe<'_>>, count: usize, entries: &mut Vec<Self::Item>);
}

/// Appends what is wanted of the versions `from` some place on, to `versions`.
pub(super) fn collect<F: Located, I: Iterator<Item = F>>(
    from: impl Fn(Option<Probe<'_>>) -> I,
    start: Option<Probe<'_>>,
    Wanted { count, reader }: Wanted,
    versions: &mut Vec<Version>,
) {
    let mut all = from(start);
    let Some(reader) = reader else { return copy(all.take(count), versions) };
    let mut wanted: Vec<F> = Vec::with_capacity(count);
    let mut lot: Vec<F> = Vec::with_capacity(LOT.min(count));
    let mut passed = 0;
    while wanted.len() < count {
        lot.clear();
        lot.extend(all.by_ref().take(LOT.min(count - wanted.len())));
        if lot.is_empty() {
            break;
        }
        // Each is waited for otherwise until it is decided what to do with the one before.
        black_box(lot.iter().fold(0, |sum, found| sum ^ found.seq().0));
        for found in lot.drain(..) {
            let key = found.borrowed().key;
            let is_newer = found.seq() > reader;
            let hides =
                |EntryRef { key: other, kind, .. }| kind != ValueKind::Merge && is_same_key(other, key);
            if !is_newer && !wanted.last().is_some_and(|before| hides(before.borrowed())) {
                wanted.push(found);
                passed = 0;
                continue;
            }
            passed += 1;
            if passed == PASSED_MAX {
                all = from(Some((key, if is_newer { reader } else { AFTER_ALL })));
                passed = 0;
                break;
            }
        }
    }
    copy(wanted.into_iter(), versions);
}

/// Appends versions that were found.
pub(super) fn copy<F: Located>(found: impl Iterator<Item = F>, versions: &mut Vec<Version>) {
    let found: Vec<F> = found.collect();
    // Where a value ends is written before it: first that, of all.
    black_box(found.iter().fold(0, |sum, found| sum ^ found.seq().0));
    fetch(found.iter().map(F::borrowed));
    versions.extend(found.iter().map(F::version));
}

/// Has the processor fetch what is about to be read. Keys and values lie all over
/// memory; one after another, as a walk gets to them, they would be waited for one by
/// one, and so they would if they were copied at once: a reference is counted only when
/// all before is done.
pub(super) fn fetch<'e>(entries: impl Iterator<Item = EntryRef<'e>>) {
    let byte = |byte: Option<&u8>| usize::from(byte.copied().unwrap_or_default());
    let sum = |EntryRef { key, value, .. }| byte(key.first()) + byte(value.first()) + byte(value.last());
    black_box(entries.map(sum).sum::<usize>());
}

/// A chunk may miss entries that were inserted since; those are newer than
/// whatever the reader may see.
pub(super) struct ChunkCursor<T: Neighbours> {
    table: Arc<T>,
    /// Ascending; empty where the cursor stands nowhere.
    chunk: Vec<T::Item>,
    at: usize,
    /// Entries that were asked for last; 0 before a seek.
    chunk_entries: usize,
    reader: Option<SequenceNumber>,
}

impl<T: Neighbours> ChunkCursor<T> {
    pub fn new(table: Arc<T>, reader: Option<SequenceNumber>) -> Self {
        ChunkCursor { table, chunk: Vec::new(), at: 0, chunk_entries: 0, reader }
    }

    fn fill_forward(&mut self, start: Option<Probe<'_>>) {
        self.chunk_entries = (self.chunk_entries * CHUNK_GROWTH).clamp(CHUNK_ENTRIES, CHUNK_ENTRIES_MAX);
        self.chunk.clear();
        let wanted = Wanted { count: self.chunk_entries, reader: self.reader };
        self.table.after(start, wanted, &mut self.chunk);
        self.at = 0;
    }

    fn fill_backward(&mut self, end: Option<Probe<'_>>) {
        self.chunk_entries = (self.chunk_entries * CHUNK_GROWTH).clamp(CHUNK_ENTRIES, CHUNK_ENTRIES_MAX);
        self.chunk.clear();
        self.table.before(end, self.chunk_entries, &mut self.chunk);
        self.chunk.reverse();
        self.at = self.chunk.len().saturating_sub(1);
    }
}

impl<T: Neighbours> Cursor for ChunkCursor<T> {
    fn seek_first(&mut self) -> Result<()> {
        self.chunk_entries = 0;
        self.fill_forward(None);
        Ok(())
    }

    fn seek_last(&mut self) -> Result<()> {
        self.chunk_entries = 0;
        self.fill_backward(None);
        Ok(())
    }

    fn seek(&mut self, key: &[u8], seq: SequenceNumber) -> Result<()> {
        self.chunk_entries = 0;
        self.fill_forward(Some((key, seq)));
        Ok(())
    }

    fn seek_before(&mut self, key: &[u8], seq: SequenceNumber) -> Result<()> {
        self.chunk_entries = 0;
        self.fill_backward(Some((key, seq)));
        Ok(())
    }

    fn next(&mut self) -> Result<()> {
        if self.at + 1 < self.chunk.len() {
            self.at += 1;
        } else if let Some(last) = self.chunk.pop() {
            let EntryRef { key, seq, kind, .. } = last.borrowed();
            let hides_older = self.reader.is_some() && kind != ValueKind::Merge;
            let seq = if hides_older { AFTER_ALL } else { SequenceNumber(seq.0 - 1) };
            self.fill_forward(Some((key, seq)));
        }
        Ok(())
    }

    fn prev(&mut self) -> Result<()> {
        if self.at > 0 {
            self.at -= 1;
        } else if !self.chunk.is_empty() {
            let first = self.chunk.swap_remove(0);
            let EntryRef { key, seq, .. } = first.borrowed();
            self.fill_backward(Some((key, seq)));
        }
        Ok(())
    }

    #[inline]
    fn entry(&self) -> Option<EntryRef<'_>> {
        self.chunk.get(self.at).map(Copied::borrowed)
    }

    fn value(&self) -> Bytes {
        self.chunk.get(self.at).map(Copied::value).unwrap_or_default()
    }
}
