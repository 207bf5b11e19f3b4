//! What an ordered map keeps of a version, and how it is found again.

use std::cmp::Ordering;

use bytes::Bytes;

use super::contents::Contents;
use super::cursor::Copied;
use crate::key::{Entry, EntryRef, Expiry, SequenceNumber, ValueKind, long_head};

/// An internal key, borrowed.
pub(super) type Probe<'k> = (&'k [u8], SequenceNumber);

/// Bytes of a key that are in its head.
const HEAD_BYTES: u32 = 16;

/// A version, found by its internal key.
#[derive(Clone, Debug)]
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

    /// What an internal key is searched for with; it is not to be inserted.
    #[inline]
    pub fn sought((key, seq): Probe<'_>) -> Version {
        let key_len = key.len() as u32;
        let pair = if key_len > HEAD_BYTES { Bytes::copy_from_slice(key) } else { Bytes::new() };
        Version { head: long_head(key), seq, key_len, kind: ValueKind::Put, pair }
    }

    /// The key; not of one that is [sought](Version::sought).
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

impl Ord for Version {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        let keys = || match self.key_len.min(other.key_len) {
            // It is what the other begins with.
            ..=HEAD_BYTES => self.key_len.cmp(&other.key_len),
            _ => self.key().cmp(other.key()),
        };
        self.head.cmp(&other.head).then_with(keys).then_with(|| other.seq.cmp(&self.seq))
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
            let entry = EntryRef { key, seq, kind, expires_at: Expiry::NEVER, value };
            let version = Version::new(&entry, &mut contents);
            assert_eq!(version.key(), key);
            for b in &probes {
                assert_eq!(version.cmp(&Version::sought(*b)), compare_internal(*a, *b), "{a:?} {b:?}");
                assert_eq!(Version::sought(*b).cmp(&version), compare_internal(*b, *a), "{b:?} {a:?}");
            }
        }
    }
}
