//! A version: how it is found, and what is kept of it.

use std::ops::Range;

use bytes::Bytes;

use super::Versioned;
use super::contents::Contents;
use crate::key::{EntryRef, Expiry, SequenceNumber, ValueKind};

/// An internal key, borrowed.
pub(super) type Probe<'k> = (&'k [u8], SequenceNumber);

/// A version that was found in a table.
pub(super) trait Located {
    fn seq(&self) -> SequenceNumber;

    fn borrowed(&self) -> EntryRef<'_>;

    /// To keep; its bytes are shared, or copied where there are few.
    fn version(&self) -> Version;

    /// The value; its bytes are shared, or copied where there are few.
    fn value(&self) -> Bytes;

    /// What a get of its key answers.
    fn versioned(&self) -> Versioned {
        Versioned::of(&self.borrowed(), self.value())
    }
}

impl Located for &Version {
    #[inline]
    fn seq(&self) -> SequenceNumber {
        Version::seq(self)
    }

    #[inline]
    fn borrowed(&self) -> EntryRef<'_> {
        Version::borrowed(self)
    }

    fn version(&self) -> Version {
        Version::clone(self)
    }

    fn value(&self) -> Bytes {
        Version::value(self)
    }
}

/// A version of a key.
#[derive(Clone, Debug)]
pub(super) struct Version {
    seq: SequenceNumber,
    key_len: u32,
    kind: ValueKind,
    expires: bool,
    /// The key, the value after it, and after that the time of expiry, if there is one.
    pair: Bytes,
}

impl Version {
    /// `entry`, with a copy of its key and value.
    pub fn new(entry: &EntryRef<'_>, contents: &mut Contents) -> Version {
        let EntryRef { key, seq, kind, expires_at, value } = *entry;
        let expires = expires_at != Expiry::NEVER;
        let expiry = expires_at.0.to_le_bytes();
        let pair = contents.copy(key, value, if expires { &expiry } else { &[] });
        // Keys are at most 64 KiB long.
        Version { seq, key_len: key.len() as u32, kind, expires, pair }
    }

    /// A version whose key, value and time of expiry lie one after another.
    pub fn of_pair(
        seq: SequenceNumber,
        kind: ValueKind,
        expires: bool,
        key_len: usize,
        pair: Bytes,
    ) -> Version {
        Version { seq, key_len: key_len as u32, kind, expires, pair }
    }

    /// What an internal key is searched for with; it has a value never, and its key only
    /// `with_key`.
    #[inline]
    pub fn sought((key, seq): Probe<'_>, with_key: bool) -> Version {
        let pair = if with_key { Bytes::copy_from_slice(key) } else { Bytes::new() };
        Version { seq, key_len: key.len() as u32, kind: ValueKind::Put, expires: false, pair }
    }

    /// Bytes of the key.
    #[inline]
    pub fn key_len(&self) -> usize {
        self.key_len as usize
    }

    /// The key.
    #[inline]
    pub fn key(&self) -> &[u8] {
        &self.pair[..self.key_len as usize]
    }

    /// Its sequence number.
    #[inline]
    pub fn seq(&self) -> SequenceNumber {
        self.seq
    }

    /// Where the value is, and when it expires.
    #[inline]
    fn value_and_expiry(&self) -> (Range<usize>, Expiry) {
        let expiry = if self.expires { self.pair.last_chunk() } else { None };
        let end = self.pair.len() - expiry.map_or(0, |expiry| expiry.len());
        (
            self.key_len as usize..end,
            expiry.map_or(Expiry::NEVER, |expiry| Expiry(u64::from_le_bytes(*expiry))),
        )
    }

    /// The entry, borrowed.
    #[inline]
    pub fn borrowed(&self) -> EntryRef<'_> {
        let (value, expires_at) = self.value_and_expiry();
        EntryRef { key: self.key(), seq: self.seq, kind: self.kind, expires_at, value: &self.pair[value] }
    }

    /// The value; its bytes are shared.
    pub fn value(&self) -> Bytes {
        self.pair.slice(self.value_and_expiry().0)
    }
}
