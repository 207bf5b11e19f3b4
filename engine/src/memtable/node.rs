//! What an ordered map keeps of a version, and how it is found again.

use std::cmp::Ordering;
use std::ops::Range;

use bytes::Bytes;

use super::contents::Contents;
use crate::key::{Entry, EntryRef, Expiry, SequenceNumber, ValueKind, long_head};

/// An internal key, borrowed.
pub(super) type Probe<'k> = (&'k [u8], SequenceNumber);

/// Bytes of a key that are in its head.
const HEAD_BYTES: u32 = 16;

/// A version, found by its internal key.
#[derive(Clone, Debug)]
pub(super) struct Version {
    /// The first [`HEAD_BYTES`] of the key, as two integers: they decide comparisons
    /// without a look at the key, which lies elsewhere, but for those of long keys that
    /// begin alike.
    head: [u64; 2],
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
        Version { head: heads(key), seq, key_len: key.len() as u32, kind, expires, pair }
    }

    /// What an internal key is searched for with; it is not to be inserted.
    #[inline]
    pub fn sought((key, seq): Probe<'_>) -> Version {
        let key_len = key.len() as u32;
        let pair = if key_len > HEAD_BYTES { Bytes::copy_from_slice(key) } else { Bytes::new() };
        Version { head: heads(key), seq, key_len, kind: ValueKind::Put, expires: false, pair }
    }

    /// The key; not of one that is [sought](Version::sought).
    #[inline]
    pub fn key(&self) -> &[u8] {
        &self.pair[..self.key_len as usize]
    }

    /// Its sequence number.
    #[inline]
    pub fn seq(&self) -> SequenceNumber {
        self.seq
    }

    /// True if whoever sees it needs none that is older.
    #[inline]
    pub fn hides_older(&self) -> bool {
        self.kind != ValueKind::Merge
    }

    /// True if it is a version of the same key as another.
    #[inline]
    pub fn has_key_of(&self, other: &Version) -> bool {
        self.head == other.head
            && self.key_len == other.key_len
            && (self.key_len <= HEAD_BYTES || self.key() == other.key())
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

    /// The entry; its bytes are shared.
    pub fn entry(&self) -> Entry {
        let (value, expires_at) = self.value_and_expiry();
        let key = self.pair.slice(..self.key_len as usize);
        Entry { key, seq: self.seq, kind: self.kind, expires_at, value: self.pair.slice(value) }
    }
}

fn heads(key: &[u8]) -> [u64; 2] {
    let head = long_head(key);
    [(head >> 64) as u64, head as u64]
}

impl Ord for Version {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        let keys = || match self.key_len.min(other.key_len) {
            // It is what the other begins with.
            ..=HEAD_BYTES => self.key_len.cmp(&other.key_len),
            _ => self.key().cmp(other.key()),
        };
        let heads = self.head[0].cmp(&other.head[0]).then_with(|| self.head[1].cmp(&other.head[1]));
        heads.then_with(keys).then_with(|| other.seq.cmp(&self.seq))
    }
}

impl PartialOrd for Version {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Version {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::compare_internal;

    #[test]
    fn versions_are_ordered_as_internal_keys_are() {
        let mut keys: Vec<Vec<u8>> = (0..40).map(|len| vec![0; len]).collect();
        for len in [1, 15, 16, 17, 18, 33] {
            for last in [1, 255] {
                let mut key = vec![0; len];
                key[len - 1] = last;
                keys.push(key.clone());
                keys.push([key.as_slice(), &[0]].concat());
                keys.push([key.as_slice(), b"more than a head has room for"].concat());
            }
        }
        let probes = keys.iter().flat_map(|key| [1, 7].map(|seq| (key.as_slice(), SequenceNumber(seq))));
        let probes: Vec<Probe<'_>> = probes.collect();
        let mut contents = Contents::default();
        for a in &probes {
            let (key, seq, kind, value) = (a.0, a.1, ValueKind::Put, b"value".as_slice());
            let expires_at = if seq.0 == 7 { Expiry(7 << 40) } else { Expiry::NEVER };
            let entry = EntryRef { key, seq, kind, expires_at, value };
            let version = Version::new(&entry, &mut contents);
            assert_eq!((version.borrowed(), version.entry().borrowed()), (entry, entry));
            assert_eq!(version.value(), value);
            for b in &probes {
                assert_eq!(version.cmp(&Version::sought(*b)), compare_internal(*a, *b), "{a:?} {b:?}");
                assert_eq!(Version::sought(*b).cmp(&version), compare_internal(*b, *a), "{b:?} {a:?}");
            }
        }
    }
}
