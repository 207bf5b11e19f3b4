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

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use bytes::Bytes;
use quick_cache::{Weighter, sync};

use crate::cursor::{Found, Lookup};
use crate::key::{Expiry, KeyspaceId};

/// Most bytes of a key and its value; a larger one is worth its page.
const ROW_BYTES_MAX: usize = 2 << 10;

/// Bytes of an entry beside key and value.
const ENTRY_BYTES: usize = 152;

/// Typical bytes of an entry, to size the tables.
const TYPICAL_BYTES: u64 = 256;

/// A keyspace, and the hash of a key.
pub(super) type Place = (KeyspaceId, u64);
type Rows = sync::Cache<Place, Row, ByWeight, BuildHasherDefault<PlaceHasher>>;

#[derive(Debug)]
pub(super) struct RowCache {
    rows: Rows,
    /// Of rows that were read and are not kept, a part of their hash each.
    seen: Box<[AtomicU32]>,
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
        let lifecycle = sync::DefaultLifecycle::default();
        let rows = Rows::with(typical, bytes, ByWeight, BuildHasherDefault::default(), lifecycle);
        let seen = (0..typical.next_power_of_two()).map(|_| AtomicU32::new(0)).collect();
        RowCache { rows, seen }
    }

    pub fn weight(&self) -> u64 {
        self.rows.weight()
    }

    pub fn get(&self, place: Place) -> Option<Row> {
        self.rows.get(&place)
    }

    /// Keeps a row with so many bytes of key and value, if it was noted before and few
    /// others since.
    pub fn note(&self, (keyspace, hash): Place, bytes: usize, row: impl FnOnce() -> Row) {
        if bytes > ROW_BYTES_MAX {
            return;
        }
        let slot = &self.seen[hash as usize & (self.seen.len() - 1)];
        let tag = (hash >> 32) as u32 | 1;
        if slot.load(Relaxed) == tag {
            self.rows.insert((keyspace, hash), row());
        } else {
            slot.store(tag, Relaxed);
        }
    }
}

/// Mixes two integers that nobody chooses to collide.
#[derive(Clone, Debug, Default)]
struct PlaceHasher(u64);

impl Hasher for PlaceHasher {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_u64(&mut self, word: u64) {
        // Source of the constant: 2^64 over the golden ratio.
        self.0 = (self.0.rotate_left(29) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[derive(Clone, Debug)]
struct ByWeight;

impl Weighter<Place, Row> for ByWeight {
    fn weight(&self, _: &Place, row: &Row) -> u64 {
        (row.bytes.len() + ENTRY_BYTES) as u64
    }
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
        let keyspace = KeyspaceId(3);
        let note = |number: u32, value: &[u8]| {
            let (key, hash) = (number.to_be_bytes(), hash_key(&number.to_be_bytes()));
            cache.note((keyspace, hash), value.len() + 4, || row(&key, value, Expiry::NEVER));
            cache.get((keyspace, hash)).is_some()
        };
        assert!(!note(1, b"small") && note(1, b"small"));
        assert!(!note(2, &[7; 4000]) && !note(2, &[7; 4000]));
        assert!(cache.get((KeyspaceId(4), hash_key(&1u32.to_be_bytes()))).is_none());
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
    }
}
