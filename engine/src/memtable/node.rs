//! What an ordered map keeps of a version, and how it is found again: by the
//! version itself, or by a borrowed internal key without allocating.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ops::Bound;

use bytes::Bytes;

use super::contents::Contents;
use super::cursor::Copied;
use crate::key::{Entry, EntryRef, Expiry, SequenceNumber, ValueKind, compare_internal, long_head};

/// An internal key, borrowed.
pub(super) type Probe<'k> = (&'k [u8], SequenceNumber);

/// Bytes of a key that are in its head.
const HEAD_BYTES: usize = 16;

/// A version, found by its internal key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    /// The first [`HEAD_BYTES`] of the key: decides comparisons without a look at the
    /// key, which lies elsewhere, but for those of long keys that begin alike.
    head: u128,
    seq: SequenceNumber,
    key_len: u32,
    kind: ValueKind,
    /// The key, and the value after it.
    pair: Bytes,
}

impl Version {
    /// `entry` but for its expiry, with a copy of its key and value.
    pub fn new(entry: &EntryRef<'_>, contents: &mut Contents) -> Version {
        let EntryRef { key, seq, kind, value, .. } = *entry;
        let pair = contents.copy(key, value);
        // Keys are at most 64 KiB long.
        Version { head: long_head(key), seq, key_len: key.len() as u32, kind, pair }
    }

    #[inline]
    pub fn key(&self) -> &[u8] {
        &self.pair[..self.key_len as usize]
    }

    /// The entry with its expiry; its bytes are shared.
    pub fn entry(&self, expires_at: Expiry) -> Entry {
        let mut key = self.pair.clone();
        let value = key.split_off(self.key_len as usize);
        Entry { key, seq: self.seq, kind: self.kind, expires_at, value }
    }
}

impl Copied for (Version, Expiry) {
    #[inline]
    fn borrowed(&self) -> EntryRef<'_> {
        let (Version { seq, key_len, kind, pair, .. }, expires_at) = self;
        let (key, value) = pair.split_at(*key_len as usize);
        EntryRef { key, seq: *seq, kind: *kind, expires_at: *expires_at, value }
    }

    fn value(&self) -> Bytes {
        self.0.pair.slice(self.0.key_len as usize..)
    }
}

/// An internal key to search for.
#[derive(Clone, Copy)]
pub(super) struct Sought<'k> {
    head: u128,
    probe: Probe<'k>,
}

impl<'k> From<Probe<'k>> for Sought<'k> {
    fn from(probe: Probe<'k>) -> Self {
        Sought { head: long_head(probe.0), probe }
    }
}

/// Lets a map be searched with a borrowed key, without allocating.
pub(super) trait AsInternal {
    fn head(&self) -> u128;
    fn key_len(&self) -> usize;
    fn seq(&self) -> SequenceNumber;
    fn internal(&self) -> Probe<'_>;
}

impl AsInternal for Version {
    #[inline]
    fn head(&self) -> u128 {
        self.head
    }

    #[inline]
    fn key_len(&self) -> usize {
        self.key_len as usize
    }

    #[inline]
    fn seq(&self) -> SequenceNumber {
        self.seq
    }

    #[inline]
    fn internal(&self) -> Probe<'_> {
        (self.key(), self.seq)
    }
}

impl AsInternal for Sought<'_> {
    #[inline]
    fn head(&self) -> u128 {
        self.head
    }

    #[inline]
    fn key_len(&self) -> usize {
        self.probe.0.len()
    }

    #[inline]
    fn seq(&self) -> SequenceNumber {
        self.probe.1
    }

    #[inline]
    fn internal(&self) -> Probe<'_> {
        self.probe
    }
}

#[inline]
fn compare<A: AsInternal + ?Sized, B: AsInternal + ?Sized>(a: &A, b: &B) -> Ordering {
    a.head().cmp(&b.head()).then_with(|| match a.key_len().max(b.key_len()) {
        // Of two that differ in nothing but zeros at the end, the shorter comes first.
        ..=HEAD_BYTES => a.key_len().cmp(&b.key_len()).then_with(|| b.seq().cmp(&a.seq())),
        _ => compare_internal(a.internal(), b.internal()),
    })
}

impl Ord for Version {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self, other)
    }
}

impl PartialOrd for Version {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<'a> Borrow<dyn AsInternal + 'a> for Version {
    fn borrow(&self) -> &(dyn AsInternal + 'a) {
        self
    }
}

impl Ord for dyn AsInternal + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self, other)
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

/// An end of a range, as a map takes it.
pub(super) fn erased<'b, 'k>(bound: &'b Bound<Sought<'k>>) -> Bound<&'b (dyn AsInternal + 'k)> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}
