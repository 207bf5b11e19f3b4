//! Rows that are read again and again.
//!
//! A row in the middle of pages is many cache lines away: of each run that may hold the
//! key an index and a filter, then those of a search in the page of keys, and two lookups.
//! Where few keys are read often, their rows alone are far fewer bytes than the pages that
//! they lie in, and fit in a processor's cache.
//!
//! A row is what the tables of a version of its keyspace say of a key, and answers for
//! that version alone, which never changes: nothing here is ever out of date. One is kept
//! when it is read for the second time within a while; what is read but once costs a word.
//! Source of the idea: the doorkeeper of "TinyLFU" (Einziger et al., 2017).

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use bytes::Bytes;

use crate::cursor::{Found, Lookup};
use crate::key::{Expiry, KeyspaceId};

/// Most bytes of a key and its value; a larger one is worth its page.
const ROW_BYTES_MAX: usize = 2 << 10;

/// Bytes of an entry beside key and value, those of the allocator among them.
const ENTRY_BYTES: usize = 160;

/// Typical bytes of an entry, to size the tables.
const TYPICAL_BYTES: u64 = 256;

/// Rows of a set.
const WAYS: usize = 4;

/// A keyspace, and the hash of a key.
pub(super) type Place = (KeyspaceId, u64);

/// A hash table of sets, each of few rows. A row is looked up without a write to memory
/// that other readers look at.
#[derive(Debug)]
pub(super) struct RowCache {
    bytes_max: u64,
    bytes: AtomicU64,
    /// A power of two of them, made with the first row.
    sets: OnceLock<Box<[Set]>>,
    /// The set where room was made last.
    hand: AtomicUsize,
    /// Of rows that were read and are not kept, a part of their hash each.
    seen: Box<[AtomicU32]>,
}

/// A line of memory.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Set {
    rows: [ArcSwapOption<Row>; WAYS],
    /// A part of the hash of each row.
    tags: [AtomicU32; WAYS],
    /// Which were read since somebody looked for room.
    used: [AtomicBool; WAYS],
}

/// The newest entry of a key in all tables of a version: a value.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// The version.
    pub version: u64,
    /// The lowest and the highest sequence number of the page that it is in.
    pub seqs: (u64, u64),
    pub expires_at: Expiry,
    pub key_len: usize,
    /// Key and value.
    pub bytes: Bytes,
}

impl Row {
    fn weight(&self) -> u64 {
        (self.bytes.len() + ENTRY_BYTES) as u64
    }

    /// True if the row is of the same key as another, perhaps in another version.
    fn is_of_key_of(&self, other: &Row) -> bool {
        self.bytes.get(..self.key_len) == other.bytes.get(..other.key_len)
    }

    /// What the row says in a version, where that needs no look into its page.
    pub fn answer(&self, version: u64, lookup: &Lookup<'_>) -> Option<Found> {
        let (seq_min, seq_max) = self.seqs;
        let decided = lookup.seq.0 >= seq_max && lookup.hidden_below.0 <= seq_min;
        if self.version != version || !decided || self.bytes.get(..self.key_len) != Some(lookup.key) {
            return None;
        }
        Some(match self.expires_at.is_past(lookup.now_ms) {
            true => Found::Gone,
            false => Found::Value(self.bytes.slice(self.key_len..)),
        })
    }
}

impl RowCache {
    /// Rows of at most `bytes` bytes.
    pub fn new(bytes: u64) -> RowCache {
        let typical = (bytes / TYPICAL_BYTES).max(16) as usize;
        RowCache {
            bytes_max: bytes,
            bytes: AtomicU64::new(0),
            sets: OnceLock::new(),
            hand: AtomicUsize::new(0),
            seen: (0..typical.next_power_of_two()).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// Bytes of rows.
    pub fn weight(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// What is kept of a key in a version.
    #[inline]
    pub fn get(&self, place: Place, version: u64, lookup: &Lookup<'_>) -> Option<Found> {
        let (at, tag) = mix(place);
        let sets = self.sets.get()?;
        let set = &sets[at & (sets.len() - 1)];
        (0..WAYS).filter(|way| set.tags[*way].load(Relaxed) == tag).find_map(|way| {
            let found = set.rows[way].load().as_ref()?.answer(version, lookup)?;
            if !set.used[way].load(Relaxed) {
                set.used[way].store(true, Relaxed);
            }
            Some(found)
        })
    }

    /// Reads what [`RowCache::note`] will look at.
    #[inline]
    pub fn bring_near(&self, place: Place) {
        black_box(self.seen[mix(place).0 & (self.seen.len() - 1)].load(Relaxed));
    }

    /// Keeps a row with so many bytes of key and value, if it was noted before and few
    /// others since.
    pub fn note(&self, place: Place, bytes: usize, row: impl FnOnce() -> Row) {
        if bytes > ROW_BYTES_MAX {
            return;
        }
        let (at, tag) = mix(place);
        let slot = &self.seen[at & (self.seen.len() - 1)];
        if slot.load(Relaxed) == tag {
            self.keep(at, tag, row());
        } else {
            slot.store(tag, Relaxed);
        }
    }

    fn keep(&self, at: usize, tag: u32, row: Row) {
        let sets = self.sets.get_or_init(|| {
            let sets = (self.seen.len() / WAYS).max(1);
            (0..sets).map(|_| Set::default()).collect()
        });
        let set = &sets[at & (sets.len() - 1)];
        let way = set.way_for(tag, &row);
        self.bytes.fetch_add(row.weight(), Relaxed);
        set.tags[way].store(tag, Relaxed);
        set.used[way].store(false, Relaxed);
        self.replace(&set.rows[way], Some(row));
        while self.bytes.load(Relaxed) > self.bytes_max {
            let hand = self.hand.fetch_add(1, Relaxed);
            let set = &sets[hand & (sets.len() - 1)];
            let unused = (0..WAYS).filter(|way| !set.used[*way].swap(false, Relaxed));
            unused.for_each(|way| self.replace(&set.rows[way], None));
        }
    }

    fn replace(&self, place: &ArcSwapOption<Row>, row: Option<Row>) {
        if let Some(before) = place.swap(row.map(Arc::new)) {
            self.bytes.fetch_sub(before.weight(), Relaxed);
        }
    }
}

impl Set {
    /// Where a row goes: in place of what is said of its key, or where there is nothing,
    /// or in place of what has not been read for the longest time, roughly.
    fn way_for(&self, tag: u32, row: &Row) -> usize {
        let holds = |way: &usize, matches: fn(&Row, &Row) -> bool| {
            self.rows[*way].load().as_ref().is_some_and(|kept| matches(kept, row))
        };
        let same = |way: &usize| self.tags[*way].load(Relaxed) == tag && holds(way, Row::is_of_key_of);
        let any = |_: &Row, _: &Row| true;
        (0..WAYS)
            .find(same)
            .or_else(|| (0..WAYS).find(|way| !holds(way, any)))
            .or_else(|| (0..WAYS).find(|way| !self.used[*way].swap(false, Relaxed)))
            .unwrap_or(tag as usize % WAYS)
    }
}

/// Where a row is looked for, and what tells it from others that are looked for there.
fn mix((keyspace, hash): Place) -> (usize, u32) {
    // Source of the constant: 2^64 over the golden ratio.
    let mixed = hash ^ u64::from(keyspace.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed as usize, (mixed >> 32) as u32 | 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::SequenceNumber;
    use crate::sstable::hash_key;

    fn row(key: &[u8], value: &[u8], expires_at: Expiry) -> Row {
        Row {
            version: 7,
            seqs: (10, 20),
            expires_at,
            key_len: key.len(),
            bytes: [key, value].concat().into(),
        }
    }

    fn lookup(key: &[u8], seq: u64, hidden_below: u64, now_ms: u64) -> Lookup<'_> {
        Lookup { key, seq: SequenceNumber(seq), hidden_below: SequenceNumber(hidden_below), now_ms }
    }

    #[test]
    fn answers_only_what_is_sure() {
        let row = row(b"key", b"value", Expiry(500));
        let value = || Some(Found::Value(Bytes::from_static(b"value")));
        assert_eq!(row.answer(7, &lookup(b"key", 20, 0, 499)), value());
        assert_eq!(row.answer(7, &lookup(b"key", 20, 10, 499)), value());
        assert_eq!(row.answer(7, &lookup(b"key", 20, 0, 500)), Some(Found::Gone));
        // It may be newer than the reader, or older than the range tombstone.
        assert_eq!(row.answer(7, &lookup(b"key", 19, 0, 0)), None);
        assert_eq!(row.answer(7, &lookup(b"key", 20, 11, 0)), None);
        // In another version there may be a newer one.
        assert_eq!(row.answer(8, &lookup(b"key", 20, 0, 0)), None);
        // Two keys may have one hash.
        assert_eq!(row.answer(7, &lookup(b"kex", 20, 0, 0)), None);
        assert_eq!(row.answer(7, &lookup(b"keyvalues", 20, 0, 0)), None);
    }

    #[test]
    fn keeps_what_is_read_twice_and_is_small() {
        let cache = RowCache::new(64 << 10);
        let place = |keyspace: u32, key: u32| (KeyspaceId(keyspace), hash_key(&key.to_be_bytes()));
        let holds = |keyspace: u32, key: u32| {
            cache.get(place(keyspace, key), 7, &lookup(&key.to_be_bytes(), 20, 0, 0)).is_some()
        };
        let note = |key: u32, value: &[u8]| {
            cache.note(place(3, key), value.len() + 4, || row(&key.to_be_bytes(), value, Expiry::NEVER));
            holds(3, key)
        };
        assert!(!note(1, b"small") && note(1, b"small"));
        assert!(!note(2, &[7; 4000]) && !note(2, &[7; 4000]));
        assert!(!holds(4, 1));
        // What is read once leaves nothing, and the budget is kept to.
        let weight = cache.weight();
        let collisions = (100..600).filter(|number| note(*number, b"once")).count();
        assert_eq!((collisions, cache.weight()), (0, weight));
        for number in 1000..3000 {
            note(number, &[1; 100]);
            note(number, &[1; 100]);
            assert!(cache.weight() <= 64 << 10);
        }
        assert!(cache.weight() > 16 << 10);
        // Another version of a row takes its place.
        let weight = cache.weight();
        let newest = (1000..3000).rev().find(|number| holds(3, *number)).unwrap();
        note(newest, &[2; 100]);
        note(newest, &[2; 100]);
        assert_eq!(cache.weight(), weight);
    }

    #[test]
    fn what_is_read_stays() {
        let cache = RowCache::new(64 << 10);
        let place = |key: u32| (KeyspaceId(3), hash_key(&key.to_be_bytes()));
        let holds = |key: &u32| cache.get(place(*key), 7, &lookup(&key.to_be_bytes(), 20, 0, 0)).is_some();
        let note = |key: u32| {
            cache.note(place(key), 104, || row(&key.to_be_bytes(), &[1; 100], Expiry::NEVER));
        };
        (0..40).for_each(|key| (0..2).for_each(|_| note(key)));
        let kept: Vec<u32> = (0..40).filter(holds).collect();
        assert!(kept.len() > 30);
        for key in 100..2000 {
            (0..2).for_each(|_| note(key));
            kept.iter().for_each(|key| {
                holds(key);
            });
        }
        let left = kept.iter().filter(|key| holds(key)).count();
        assert!(left > kept.len() / 2, "{left} of {}", kept.len());
    }
}
