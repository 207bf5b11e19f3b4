//! What a database must hold: ordered maps that the same commits went into.
//!
//! Every commit puts its number under [`NUMBER`], so that a database tells by
//! itself how far into the history it is, and all of it can then be compared.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use duramen::api::pairs;
use duramen::{Database, KeyspaceId, Result, ScanRange, SnapshotId, WriteBatch};

use crate::random::Random;

/// Names of the keyspaces that commits are spread over.
pub const KEYSPACES: [&str; 2] = ["left", "right"];

/// The key, in the first keyspace, of the number of the last commit.
pub const NUMBER: &[u8] = b"\0number";

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// Operations that are applied together. A key without a value is deleted.
#[derive(Clone, Debug)]
pub struct Commit {
    ops: Vec<(usize, Vec<u8>, Option<Vec<u8>>)>,
}

impl Commit {
    /// Commit `number`, from 1: a few puts and deletes of keys that collide often.
    pub fn random(number: u64, random: &mut Random) -> Self {
        let mut ops = vec![(0, NUMBER.to_vec(), Some(number.to_be_bytes().to_vec()))];
        for _ in 0..random.below(8) {
            let keyspace = random.below(KEYSPACES.len());
            let value = (!random.one_in(4)).then(|| {
                // Some are longer than a page.
                let len = if random.one_in(40) { 20_000 } else { 200 };
                let len = random.below(len);
                random.bytes(len)
            });
            ops.push((keyspace, random_key(random), value));
        }
        Commit { ops }
    }

    /// The operations for a database whose keyspaces have these ids.
    pub fn batch(&self, ids: [KeyspaceId; KEYSPACES.len()]) -> WriteBatch {
        let mut batch = WriteBatch::new();
        for (keyspace, key, value) in &self.ops {
            match value {
                Some(value) => batch.put(ids[*keyspace], key, value),
                None => batch.delete(ids[*keyspace], key),
            };
        }
        batch
    }
}

/// One of some hundred keys of several lengths with common prefixes.
fn random_key(random: &mut Random) -> Vec<u8> {
    let number = random.below(150);
    let mut key = format!("{:02}", number % 15).into_bytes();
    key.resize(key.len() + number / 15 * 3, b'k');
    key
}

/// Both keyspaces of a database.
pub fn create_keyspaces(db: &dyn Database) -> Result<[KeyspaceId; KEYSPACES.len()]> {
    Ok([db.create_keyspace(KEYSPACES[0])?, db.create_keyspace(KEYSPACES[1])?])
}

/// Number of the last commit found in a database; 0 before the first.
pub fn last_commit(db: &dyn Database) -> Result<u64> {
    let Some(keyspace) = db.find_keyspace(KEYSPACES[0])? else { return Ok(0) };
    let number = db.get(keyspace, NUMBER, None)?;
    Ok(number.map_or(0, |bytes| u64::from_be_bytes(bytes[..].try_into().expect("a commit's number"))))
}

/// What both keyspaces hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    maps: [Map; KEYSPACES.len()],
}

impl Model {
    /// What is there after `commits`.
    pub fn after(commits: &[Commit]) -> Self {
        let mut model = Model::default();
        commits.iter().for_each(|commit| model.apply(commit));
        model
    }

    /// Applies a commit.
    pub fn apply(&mut self, commit: &Commit) {
        for (keyspace, key, value) in &commit.ops {
            match value {
                Some(value) => self.maps[*keyspace].insert(key.clone(), value.clone()),
                None => self.maps[*keyspace].remove(key),
            };
        }
    }

    /// Compares every pair, by scans in both directions.
    ///
    /// # Panics
    /// Where they differ; `context` is part of the message.
    pub fn check(&self, db: &dyn Database, snapshot: Option<SnapshotId>, context: &str) {
        for (name, map) in KEYSPACES.iter().zip(&self.maps) {
            let Some(id) = db.find_keyspace(name).unwrap() else {
                assert!(map.is_empty(), "{context}: there is no keyspace {name}");
                continue;
            };
            for range in [ScanRange::all(), ScanRange::all().reversed()] {
                compare(map, scan(db, id, &range, snapshot), &range, &format!("{context}: {name}"));
            }
        }
    }

    /// Compares gets and scans at random places.
    ///
    /// # Panics
    /// As [`Model::check`].
    pub fn probe(&self, db: &dyn Database, snapshot: Option<SnapshotId>, random: &mut Random, context: &str) {
        for (name, map) in KEYSPACES.iter().zip(&self.maps) {
            let id = db.find_keyspace(name).unwrap().expect(name);
            let keys: Vec<_> = (0..8).map(|_| random_key(random)).collect();
            let borrowed: Vec<_> = keys.iter().map(Vec::as_slice).collect();
            let values = db.multi_get(id, &borrowed, snapshot).unwrap();
            for (key, value) in keys.iter().zip(values) {
                let expected = map.get(key).map(Vec::as_slice);
                let text = String::from_utf8_lossy(key);
                assert_eq!(value.as_deref(), expected, "{context}: multi-get of {name} {text}");
                let value = db.get(id, key, snapshot).unwrap();
                assert_eq!(value.as_deref(), expected, "{context}: get of {name} {text}");
            }
            for _ in 0..4 {
                let mut ends = [random_key(random), random_key(random)];
                ends.sort();
                let [start, end] = ends.map(|key| match random.below(3) {
                    0 => Bound::Unbounded,
                    1 => Bound::Included(key),
                    _ => Bound::Excluded(key),
                });
                let range = ScanRange { start, end, reverse: random.one_in(2) };
                compare(map, scan(db, id, &range, snapshot), &range, &format!("{context}: {name}"));
            }
        }
    }
}

/// All pairs of a scan.
pub fn scan(
    db: &dyn Database,
    keyspace: KeyspaceId,
    range: &ScanRange,
    snapshot: Option<SnapshotId>,
) -> Vec<(Bytes, Bytes)> {
    pairs(db.scan(keyspace, range, snapshot).unwrap()).map(Result::unwrap).collect()
}

fn compare(map: &Map, found: Vec<(Bytes, Bytes)>, range: &ScanRange, context: &str) {
    let inside = |key: &[u8]| {
        let after = match &range.start {
            Bound::Unbounded => true,
            Bound::Included(start) => key >= start.as_slice(),
            Bound::Excluded(start) => key > start.as_slice(),
        };
        after
            && match &range.end {
                Bound::Unbounded => true,
                Bound::Included(end) => key <= end.as_slice(),
                Bound::Excluded(end) => key < end.as_slice(),
            }
    };
    let mut expected: Vec<_> = map.iter().filter(|(key, _)| inside(key)).collect();
    if range.reverse {
        expected.reverse();
    }
    let keys = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
    let expected_keys: Vec<_> = expected.iter().map(|(key, _)| keys(key)).collect();
    let found_keys: Vec<_> = found.iter().map(|(key, _)| keys(key)).collect();
    assert_eq!(found_keys, expected_keys, "{context}: keys of {range:?}");
    for ((key, value), (_, expected)) in found.iter().zip(expected) {
        assert!(value == expected, "{context}: value of {} in {range:?}", keys(key));
    }
}
