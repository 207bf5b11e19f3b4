//! Range tombstones: deletes of whole ranges of keys.
//!
//! A range delete at sequence number `s` hides every entry with a key in
//! `[start, end)` and a sequence number below `s`. Ranges that overlap are kept
//! as *fragments*: disjoint ranges, each with the sequence numbers of all the
//! deletes that cover it, so that one search answers for a key.
//!
//! ```text
//! [a ────── 5 ──────) m              a     g     m     z
//!         g (────── 7 ──────) z  =   |  5  | 7 5 |  7  |
//! ```
//!
//! Source of the idea: range tombstone fragments of RocksDB and Pebble.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use crate::key::{KEY_BYTES_MAX, SequenceNumber};

/// The end of a range that has no end: above every key.
pub fn end_of_keys() -> Vec<u8> {
    vec![0xff; KEY_BYTES_MAX + 1]
}

/// A set of range tombstones of one keyspace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeDeletes {
    /// By where they start; they do not overlap.
    fragments: BTreeMap<Bytes, Fragment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Fragment {
    end: Bytes,
    /// Descending, never empty.
    seqs: Vec<SequenceNumber>,
}

impl RangeDeletes {
    /// True without tombstones.
    pub fn is_empty(&self) -> bool {
        self.fragments.is_empty()
    }

    /// Number of tombstones, as [`RangeDeletes::iter`] tells them.
    pub fn len(&self) -> usize {
        self.fragments.values().map(|fragment| fragment.seqs.len()).sum()
    }

    /// Adds the delete of `[start, end)` at `seq`; nothing where that is empty.
    pub fn insert(&mut self, start: Bytes, end: Bytes, seq: SequenceNumber) {
        if start >= end {
            return;
        }
        self.split_at(&start);
        self.split_at(&end);
        // What lies within is covered from edge to edge; the gaps become
        // fragments of their own.
        let mut gap = start.clone();
        let mut gaps = Vec::new();
        for (from, fragment) in self.fragments.range_mut(start..end.clone()) {
            if gap < *from {
                gaps.push((gap, from.clone()));
            }
            fragment.add(seq);
            gap = fragment.end.clone();
        }
        if gap < end {
            gaps.push((gap, end));
        }
        for (from, end) in gaps {
            self.fragments.insert(from, Fragment { end, seqs: vec![seq] });
        }
    }

    /// Adds every tombstone of `other`.
    pub fn extend(&mut self, other: &RangeDeletes) {
        for (start, end, seq) in other.iter() {
            self.insert(start.clone(), end.clone(), seq);
        }
    }

    /// Parts the fragment that `key` lies within, if one does.
    fn split_at(&mut self, key: &Bytes) {
        let before =
            self.fragments.range_mut::<Bytes, _>((Bound::Unbounded, Bound::Excluded(key))).next_back();
        let Some((_, fragment)) = before.filter(|(_, fragment)| fragment.end > *key) else { return };
        let seqs = fragment.seqs.clone();
        let end = std::mem::replace(&mut fragment.end, key.clone());
        self.fragments.insert(key.clone(), Fragment { end, seqs });
    }

    fn fragment_at(&self, key: &[u8]) -> Option<&Fragment> {
        let upto = (Bound::Unbounded, Bound::Included(key));
        let (_, fragment) = self.fragments.range::<[u8], _>(upto).next_back()?;
        (fragment.end > *key).then_some(fragment)
    }

    /// The highest sequence number at or before `at` of a delete that covers
    /// `key`; 0 without one. It hides what is below it.
    pub fn newest_over(&self, key: &[u8], at: SequenceNumber) -> SequenceNumber {
        let seqs = self.fragment_at(key).map_or(&[][..], |fragment| &fragment.seqs);
        seqs.iter().find(|seq| **seq <= at).copied().unwrap_or_default()
    }

    /// The lowest sequence number above `above` of a delete that covers `key`.
    pub fn oldest_over(&self, key: &[u8], above: SequenceNumber) -> Option<SequenceNumber> {
        self.fragment_at(key)?.oldest_above(above)
    }

    /// The sequence number from which on every entry is hidden that has a key from `min`
    /// to `max`, both included, and a sequence number of at most `seq`; `None` where some
    /// key is not covered.
    pub fn covering(&self, min: &[u8], max: &[u8], seq: SequenceNumber) -> Option<SequenceNumber> {
        let mut fragment = self.fragment_at(min)?;
        let mut hidden_from = fragment.oldest_above(seq)?;
        while fragment.end.as_ref() <= max {
            fragment = self.fragments.get(&fragment.end)?;
            hidden_from = hidden_from.max(fragment.oldest_above(seq)?);
        }
        Some(hidden_from)
    }

    /// The first tombstone above `after` whose range meets the keys between
    /// `start` and `end`, both as bounds; answers the first key that both hold.
    pub fn first_within<'a>(
        &'a self,
        start: Bound<&'a [u8]>,
        end: Bound<&[u8]>,
        after: SequenceNumber,
    ) -> Option<&'a [u8]> {
        let from = match start {
            Bound::Unbounded => &[][..],
            Bound::Included(key) | Bound::Excluded(key) => key,
        };
        let below = |key: &[u8]| match end {
            Bound::Unbounded => true,
            Bound::Included(end) => key <= end,
            Bound::Excluded(end) => key < end,
        };
        let holding = self.fragments.range::<[u8], _>((Bound::Unbounded, Bound::Included(from))).next_back();
        let holding = holding.filter(|(_, fragment)| fragment.end > *from);
        let later = self.fragments.range::<[u8], _>((Bound::Excluded(from), Bound::Unbounded));
        let met = holding.into_iter().chain(later.take_while(|(start, _)| below(start)));
        let mut newer = met.filter(|(_, fragment)| fragment.seqs[0] > after);
        newer
            .next()
            .map(|(start, _)| if start.as_ref() < from { from } else { start.as_ref() })
            .filter(|key| below(key))
    }

    /// Every tombstone as start, end and sequence number: by start, then newest
    /// first. Their ranges are equal or disjoint.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Bytes, SequenceNumber)> {
        self.fragments
            .iter()
            .flat_map(|(start, fragment)| fragment.seqs.iter().map(move |seq| (start, &fragment.end, *seq)))
    }

    /// Where the first begins and the last ends; `None` without any.
    pub fn bounds(&self) -> Option<(&Bytes, &Bytes)> {
        let (start, _) = self.fragments.first_key_value()?;
        let (_, last) = self.fragments.last_key_value()?;
        Some((start, &last.end))
    }

    /// Takes out what lies below `end`, or all of it.
    pub fn take_below(&mut self, end: Option<&[u8]>) -> RangeDeletes {
        let Some(end) = end else { return std::mem::take(self) };
        let end = Bytes::copy_from_slice(end);
        self.split_at(&end);
        let above = self.fragments.split_off(&end);
        RangeDeletes { fragments: std::mem::replace(&mut self.fragments, above) }
    }

    /// Keeps the tombstones that `wanted` holds for.
    pub fn retain(&mut self, mut wanted: impl FnMut(&[u8], &[u8], SequenceNumber) -> bool) {
        self.fragments.retain(|start, fragment| {
            fragment.seqs.retain(|seq| wanted(start, &fragment.end, *seq));
            !fragment.seqs.is_empty()
        });
    }
}

impl Fragment {
    fn add(&mut self, seq: SequenceNumber) {
        let at = self.seqs.partition_point(|other| *other > seq);
        if self.seqs.get(at) != Some(&seq) {
            self.seqs.insert(at, seq);
        }
    }

    fn oldest_above(&self, seq: SequenceNumber) -> Option<SequenceNumber> {
        self.seqs.iter().rev().find(|over| **over > seq).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seq(seq: u64) -> SequenceNumber {
        SequenceNumber(seq)
    }

    /// Random deletes over one-letter keys, against a list of them.
    #[test]
    fn fragments_answer_as_the_list_of_deletes_does() {
        for seed in 1..200u64 {
            let mut state = seed;
            let mut next = |bound: u64| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 33) % bound
            };
            let letter = |n: u64| vec![b'a' + n as u8];
            let mut set = RangeDeletes::default();
            let mut list = Vec::new();
            for number in 1..=next(12) {
                let (start, end) = (letter(next(20)), letter(next(20)));
                set.insert(start.clone().into(), end.clone().into(), seq(number));
                list.push((start, end, number));
            }
            let cut = letter(next(20));
            let mut rest = set.clone();
            let mut parts = rest.take_below(Some(&cut));
            assert!(parts.bounds().is_none_or(|(_, end)| *end <= cut), "seed {seed}");
            assert!(rest.bounds().is_none_or(|(start, _)| *start >= cut), "seed {seed}");
            parts.extend(&rest);
            for n in 0..20 {
                let key = letter(n);
                let over = |list: &[(Vec<u8>, Vec<u8>, u64)]| -> Vec<u64> {
                    list.iter().filter(|(s, e, _)| *s <= key && key < *e).map(|(_, _, seq)| *seq).collect()
                };
                let covers = over(&list);
                for at in 0..14 {
                    let newest = covers.iter().copied().filter(|seq| *seq <= at).max().unwrap_or(0);
                    assert_eq!(set.newest_over(&key, seq(at)), seq(newest), "seed {seed}");
                    assert_eq!(parts.newest_over(&key, seq(at)), seq(newest), "seed {seed}, cut");
                    let oldest = covers.iter().copied().filter(|seq| *seq > at).min();
                    assert_eq!(set.oldest_over(&key, seq(at)), oldest.map(seq), "seed {seed}");
                }
                let last = letter((n + next(4)).min(19));
                let above = seq(next(12));
                let hidden: Option<Vec<_>> =
                    (n..=u64::from(last[0] - b'a')).map(|n| set.oldest_over(&letter(n), above)).collect();
                let expected = hidden.and_then(|hidden| hidden.into_iter().max());
                assert_eq!(set.covering(&key, &last, above), expected, "seed {seed}");
                let end = letter(next(20));
                let after = next(12);
                let expected = (n..20)
                    .map(letter)
                    .find(|k| *k < end && list.iter().any(|(s, e, q)| s <= k && k < e && *q > after));
                let found = set.first_within(Bound::Included(&key), Bound::Excluded(&end), seq(after));
                assert_eq!(found, expected.as_deref(), "seed {seed}");
            }
            let ends: Vec<_> = set.iter().map(|(start, end, _)| (start.clone(), end.clone())).collect();
            assert!(ends.windows(2).all(|pair| pair[0] == pair[1] || pair[0].1 <= pair[1].0), "seed {seed}");
        }
    }
}
