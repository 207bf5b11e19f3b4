//! What an ordered map keeps of a version, and how it is found again: by an
//! internal key that owns its bytes, or by a borrowed one without allocating.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ops::Bound;

use bytes::Bytes;

use crate::key::{Entry, Expiry, SequenceNumber, ValueKind, compare_internal};

/// An internal key, borrowed.
pub(super) type Probe<'k> = (&'k [u8], SequenceNumber);

/// An internal key that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InternalKey {
    pub key: Bytes,
    seq: SequenceNumber,
}

/// Lets a map be searched with a borrowed key, without allocating.
pub(super) trait AsInternal {
    fn internal(&self) -> Probe<'_>;
}

impl AsInternal for InternalKey {
    fn internal(&self) -> Probe<'_> {
        (&self.key, self.seq)
    }
}

impl AsInternal for Probe<'_> {
    fn internal(&self) -> Probe<'_> {
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

/// An end of a range, as a map takes it.
pub(super) fn erased<'b, 'k>(bound: &'b Bound<Probe<'k>>) -> Bound<&'b (dyn AsInternal + 'k)> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}

/// What a version has beside its internal key.
#[derive(Debug)]
pub(super) struct Content {
    kind: ValueKind,
    expires_at: Expiry,
    value: Bytes,
}

/// Parts an entry into what it is found by and the rest.
pub(super) fn parted(entry: Entry) -> (InternalKey, Content) {
    let Entry { key, seq, kind, expires_at, value } = entry;
    (InternalKey { key, seq }, Content { kind, expires_at, value })
}

/// The entry that was parted; its bytes are shared.
pub(super) fn whole((key, content): (&InternalKey, &Content)) -> Entry {
    let Content { kind, expires_at, value } = content;
    let (kind, expires_at, value) = (*kind, *expires_at, value.clone());
    Entry { key: key.key.clone(), seq: key.seq, kind, expires_at, value }
}
