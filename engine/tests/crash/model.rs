//! What a database must hold: ordered maps that the same commits went into.
//!
//! Every commit puts its number under [`NUMBER`], so that a database tells by
//! itself how far into the history it is, and all of it can then be compared.

use std::collections::BTreeMap;
use std::sync::Arc;

use duramen::api::pairs;
use duramen::{Database, KeyspaceId, Result, ScanRange, WriteBatch};

use crate::random::Random;

/// Names of the keyspaces that commits are spread over.
pub const KEYSPACES: [&str; 2] = ["left", "right"];

/// The key, in the first keyspace, of the number of the last commit.
const NUMBER: &[u8] = b"\0number";

/// A key and its value; `None` deletes it.
type Op = (usize, Vec<u8>, Option<Arc<[u8]>>);

/// Operations that are applied together.
#[derive(Clone, Debug)]
pub struct Commit {
    ops: Vec<Op>,
}

impl Commit {
    /// Commit `number`, from 1: a few puts and deletes of keys that collide often.
    pub fn random(number: u64, random: &mut Random) -> Commit {
        let mut commit = Commit::numbered(number);
        for _ in 0..random.below(6) {
            let value = (!random.one_in(4)).then(|| {
                let len_max = if random.one_in(30) { 6000 } else { 120 };
                let len = random.below(len_max);
                random.bytes(len).into()
            });
            let key = format!("{:02}{}", random.below(40), "k".repeat(random.below(3) * 5));
            commit.ops.push((random.below(KEYSPACES.len()), key.into_bytes(), value));
        }
        commit
    }

    /// Commit `number` with one key of `len` bytes.
    pub fn long_key(number: u64, len: usize) -> Commit {
        let mut commit = Commit::numbered(number);
        commit.ops.push((0, vec![b'l'; len], Some(number.to_be_bytes().to_vec().into())));
        commit
    }

    fn numbered(number: u64) -> Commit {
        Commit { ops: vec![(0, NUMBER.to_vec(), Some(number.to_be_bytes().to_vec().into()))] }
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

/// Both keyspaces of a database.
pub fn create_keyspaces(db: &dyn Database) -> Result<[KeyspaceId; KEYSPACES.len()]> {
    Ok([db.create_keyspace(KEYSPACES[0])?, db.create_keyspace(KEYSPACES[1])?])
}

/// Number of the last commit found in a database; 0 before the first.
pub fn last_commit(db: &dyn Database) -> Result<usize> {
    let Some(keyspace) = db.find_keyspace(KEYSPACES[0])? else { return Ok(0) };
    let number = db.get(keyspace, NUMBER, None)?;
    let number = number.and_then(|bytes| bytes[..].try_into().ok()).map(u64::from_be_bytes);
    Ok(number.unwrap_or(0) as usize)
}

/// What both keyspaces hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    maps: [BTreeMap<Vec<u8>, Arc<[u8]>>; KEYSPACES.len()],
}

impl Model {
    /// Applies a commit.
    pub fn apply(&mut self, commit: &Commit) {
        for (keyspace, key, value) in &commit.ops {
            match value {
                Some(value) => self.maps[*keyspace].insert(key.clone(), Arc::clone(value)),
                None => self.maps[*keyspace].remove(key),
            };
        }
    }

    /// Compares every pair, by scans in both directions and by gets.
    pub fn check(&self, db: &dyn Database) -> Result<(), String> {
        for (name, map) in KEYSPACES.iter().zip(&self.maps) {
            let Some(id) = db.find_keyspace(name).map_err(|error| error.to_string())? else {
                if map.is_empty() {
                    continue;
                }
                return Err(format!("there is no keyspace {name}"));
            };
            self.check_scan(db, id, map, false).map_err(|what| format!("scan of {name}: {what}"))?;
            self.check_scan(db, id, map, true).map_err(|what| format!("reverse scan of {name}: {what}"))?;
            for (key, value) in map.iter().step_by(7) {
                let found = db.get(id, key, None).map_err(|error| error.to_string())?;
                if found.as_deref() != Some(&**value) {
                    return Err(format!("get of {} in {name}", String::from_utf8_lossy(key)));
                }
            }
        }
        Ok(())
    }

    fn check_scan(
        &self,
        db: &dyn Database,
        id: KeyspaceId,
        map: &BTreeMap<Vec<u8>, Arc<[u8]>>,
        reverse: bool,
    ) -> Result<(), String> {
        let range = if reverse { ScanRange::all().reversed() } else { ScanRange::all() };
        let scan = db.scan(id, &range, None).map_err(|error| error.to_string())?;
        let mut expected: Box<dyn Iterator<Item = _>> =
            if reverse { Box::new(map.iter().rev()) } else { Box::new(map.iter()) };
        for pair in pairs(scan) {
            let (key, value) = pair.map_err(|error| error.to_string())?;
            match expected.next() {
                Some((k, v)) if k[..] == key[..] && v[..] == value[..] => {}
                Some((k, _)) => {
                    let [found, wanted] = [&key[..], &k[..]]
                        .map(|key| String::from_utf8_lossy(&key[..key.len().min(40)]).into_owned());
                    return Err(format!(
                        "found {found:?} (value of {} bytes), wanted {wanted:?}",
                        value.len()
                    ));
                }
                None => return Err(format!("{:?} has come back", String::from_utf8_lossy(&key))),
            }
        }
        match expected.next() {
            Some((key, _)) => Err(format!("{:?} is missing", String::from_utf8_lossy(key))),
            None => Ok(()),
        }
    }
}
