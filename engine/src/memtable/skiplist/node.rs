//! A version with the head of its key: comparisons seldom look at the key itself.

use std::cmp::Ordering;

use super::super::contents::Contents;
use super::super::node::{Probe, Version};
use crate::key::{EntryRef, long_head};

/// Bytes of a key that are in its head.
const HEAD_BYTES: usize = 16;

/// A version, found by its internal key.
#[derive(Debug)]
pub(super) struct Node {
    /// The first [`HEAD_BYTES`] of the key, as two integers: they decide comparisons
    /// without a look at the key, which lies elsewhere, but for those of long keys that
    /// begin alike.
    head: [u64; 2],
    pub version: Version,
}

impl Node {
    /// `entry`, with a copy of its key and value.
    pub fn new(entry: &EntryRef<'_>, contents: &mut Contents) -> Node {
        Node { head: heads(entry.key), version: Version::new(entry, contents) }
    }

    /// What an internal key is searched for with; it is not to be inserted.
    #[inline]
    pub fn sought(probe: Probe<'_>) -> Node {
        let version = Version::sought(probe, probe.0.len() > HEAD_BYTES);
        Node { head: heads(probe.0), version }
    }
}

fn heads(key: &[u8]) -> [u64; 2] {
    let head = long_head(key);
    [(head >> 64) as u64, head as u64]
}

impl Ord for Node {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        let (own, others) = (&self.version, &other.version);
        let keys = || match own.key_len().min(others.key_len()) {
            // It is what the other begins with.
            ..=HEAD_BYTES => own.key_len().cmp(&others.key_len()),
            _ => own.key().cmp(others.key()),
        };
        let heads = self.head[0].cmp(&other.head[0]).then_with(|| self.head[1].cmp(&other.head[1]));
        heads.then_with(keys).then_with(|| others.seq().cmp(&own.seq()))
    }
}

impl PartialOrd for Node {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Node {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Expiry, SequenceNumber, ValueKind, compare_internal};

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
            let version = Node::new(&entry, &mut contents);
            assert_eq!(version.version.borrowed(), entry);
            assert_eq!(version.version.value(), value);
            for b in &probes {
                assert_eq!(version.cmp(&Node::sought(*b)), compare_internal(*a, *b), "{a:?} {b:?}");
                assert_eq!(Node::sought(*b).cmp(&version), compare_internal(*b, *a), "{b:?} {a:?}");
            }
        }
    }
}
