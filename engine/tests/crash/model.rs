//! What a database must hold: ordered maps that the same commits went into.
//!
//! Every commit puts its number under [`NUMBER`], so that a database tells by
//! itself how far into the history it is, and all of it can then be compared.

use std::collections::BTreeMap;
use std::sync::Arc;

use duramen::api::pairs;
use duramen::{Database, Expiry, KeyspaceId, KeyspaceOptions, MemtableKind, Result, ScanRange, WriteBatch};

use crate::random::Random;

/// Names of the keyspaces that commits are spread over.
pub const KEYSPACES: [&str; 2] = ["left", "right"];

/// The merge operator of all but the first.
const OPERATOR: &str = "append";

/// A keyspace that comes and goes; commits write to it while it is there, and
/// what they write expires.
pub const PASSING: &str = "passing";

/// Its index in operations, after those of [`KEYSPACES`].
const PASSING_AT: usize = KEYSPACES.len();

/// Milliseconds that entries of [`PASSING`] live, in turn: until before and after
/// [`SOON_MS`], and for ever.
pub const PASSING_TTLS_MS: [u64; 3] = [500, 20, 0];

/// The key, in the first keyspace, of the number of the last commit.
const NUMBER: &[u8] = b"\0number";

/// When workloads run, in Unix milliseconds.
pub const NOW_MS: u64 = 1000;

/// When some has expired of what ever expires.
pub const SOON_MS: u64 = NOW_MS + 40;

/// When all that ever expires has expired.
pub const LATE_MS: u64 = 1_000_000;

/// What a commit does.
#[derive(Clone, Debug)]
enum Op {
    /// The key has the value until then; 0 is for ever.
    Put(usize, Vec<u8>, Arc<[u8]>, u64),
    Delete(usize, Vec<u8>),
    Merge(usize, Vec<u8>, Arc<[u8]>),
    DeleteRange(usize, Vec<u8>, Vec<u8>),
    Clear(usize),
}

/// Operations that are applied together.
#[derive(Clone, Debug)]
pub struct Commit {
    number: u64,
    ops: Vec<Op>,
    /// Committed by a transaction.
    pub in_transaction: bool,
}

fn random_key(random: &mut Random) -> Vec<u8> {
    format!("{:02}{}", random.below(40), "k".repeat(random.below(3) * 5)).into_bytes()
}

fn random_value(random: &mut Random) -> Arc<[u8]> {
    let len_max = if random.one_in(30) { 6000 } else { 120 };
    let len = random.below(len_max);
    random.bytes(len).into()
}

impl Commit {
    /// Commit `number`, from 1: a few puts and deletes of keys that collide often.
    pub fn random(number: u64, random: &mut Random) -> Commit {
        let mut commit = Commit::numbered(number);
        for _ in 0..random.below(6) {
            let value = (!random.one_in(4)).then(|| random_value(random));
            let key = random_key(random);
            let keyspace = random.below(KEYSPACES.len());
            commit.ops.push(match value {
                Some(value) => Op::Put(keyspace, key, value, 0),
                None => Op::Delete(keyspace, key),
            });
        }
        commit
    }

    /// Commit `number` of operations of every kind.
    pub fn of_every_kind(number: u64, random: &mut Random) -> Commit {
        let mut commit = Commit::numbered(number);
        for _ in 0..random.below(6) {
            let op = commit.op(random);
            commit.ops.push(op);
        }
        commit.in_transaction = random.one_in(3);
        commit
    }

    fn op(&self, random: &mut Random) -> Op {
        let [left, right] = [0, 1];
        let keyspace = random.below(KEYSPACES.len() + 1);
        // Half of it to keys that operands, expiries and tombstones meet at.
        let key = if random.one_in(2) { vec![b'0' + random.below(4) as u8] } else { random_key(random) };
        match random.below(16) {
            0 | 1 => Op::Delete(keyspace, key),
            2 | 3 => {
                // The number is below all of these.
                let mut ends = [key, random_key(random)];
                ends.sort();
                let [start, end] = ends;
                Op::DeleteRange(keyspace, start, end)
            }
            4 if keyspace != left && random.one_in(2) => Op::Clear(keyspace),
            5..9 => {
                let len = 1 + random.below(40);
                Op::Merge(keyspace.max(right), key, random.bytes(len).into())
            }
            9..12 => {
                // Gone at once, some of it, and before operands above it or after.
                let later = if random.one_in(4) { LATE_MS / 2 } else { NOW_MS - 2 };
                let expires_at = later + random.below(100) as u64;
                Op::Put(keyspace, key, random_value(random), expires_at)
            }
            _ => Op::Put(keyspace, key, random_value(random), 0),
        }
    }

    /// Commit `number` with one key of `len` bytes.
    pub fn long_key(number: u64, len: usize) -> Commit {
        let mut commit = Commit::numbered(number);
        let value = number.to_be_bytes().to_vec();
        commit.ops.push(Op::Put(0, vec![b'l'; len], value.into(), 0));
        commit
    }

    fn numbered(number: u64) -> Commit {
        let value = number.to_be_bytes().to_vec();
        let ops = vec![Op::Put(0, NUMBER.to_vec(), value.into(), 0)];
        Commit { number, ops, in_transaction: false }
    }

    /// The operations for a database whose keyspaces have these ids; `passing`
    /// is that of [`PASSING`], if it is there.
    pub fn batch(&self, ids: [KeyspaceId; KEYSPACES.len()], passing: Option<KeyspaceId>) -> WriteBatch {
        let mut batch = WriteBatch::new();
        let id = |at: usize| ids.get(at).copied().or(passing);
        for op in &self.ops {
            match op {
                Op::Put(at, key, value, expires_at) => {
                    id(*at).map(|id| batch.put_until(id, key, value, Expiry(*expires_at)).len())
                }
                Op::Delete(at, key) => id(*at).map(|id| batch.delete(id, key).len()),
                Op::Merge(at, key, operand) => id(*at).map(|id| batch.merge(id, key, operand).len()),
                Op::DeleteRange(at, start, end) => id(*at).map(|id| batch.delete_range(id, start, end).len()),
                Op::Clear(at) => id(*at).map(|id| batch.delete_prefix(id, b"").len()),
            };
        }
        batch
    }
}

/// Both keyspaces of a database, with memtables of different kinds.
pub fn create_keyspaces(db: &dyn Database) -> Result<[KeyspaceId; KEYSPACES.len()]> {
    let options = |memtable, operator: Option<&str>| KeyspaceOptions {
        merge_operator: operator.map(str::to_owned),
        memtable: Some(memtable),
        ..KeyspaceOptions::default()
    };
    Ok([
        db.create_keyspace_with(KEYSPACES[0], &options(MemtableKind::Sorted, None))?,
        db.create_keyspace_with(KEYSPACES[1], &options(MemtableKind::SkipList, Some(OPERATOR)))?,
    ])
}

/// [`PASSING`], as it is now.
#[derive(Clone, Copy, Debug)]
pub struct Passing {
    pub id: KeyspaceId,
    /// Milliseconds that an entry lives unless it says otherwise; 0: for ever.
    pub ttl_ms: u64,
}

/// [`PASSING`] with this time to live, made if it is not there.
pub fn create_passing(db: &dyn Database, ttl_ms: u64) -> Result<Passing> {
    let options = KeyspaceOptions {
        merge_operator: Some(OPERATOR.into()),
        ttl_ms: Some(ttl_ms),
        memtable: Some(MemtableKind::Trie),
        ..KeyspaceOptions::default()
    };
    Ok(Passing { id: db.create_keyspace_with(PASSING, &options)?, ttl_ms })
}

/// A key that no commit writes: what a transaction writes that must fail.
pub const NEVER: &[u8] = b"zz never";

/// Reads what every commit changes, so that a commit meanwhile is a conflict.
pub const READ_BY_ALL: &[u8] = NUMBER;

/// Number of the last commit found in a database; 0 before the first.
pub fn last_commit(db: &dyn Database) -> Result<usize> {
    let Some(keyspace) = db.find_keyspace(KEYSPACES[0])? else { return Ok(0) };
    let number = db.get(keyspace, NUMBER, None)?;
    let number = number.and_then(|bytes| bytes[..].try_into().ok()).map(u64::from_be_bytes);
    Ok(number.unwrap_or(0) as usize)
}

/// A value, or an operand upon what is below it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Layer {
    /// Number of the commit.
    number: u64,
    is_operand: bool,
    bytes: Arc<[u8]>,
    /// 0 is never. What has expired hides what is below it.
    expires_at: u64,
}

/// What was done to a key since its last value or tombstone, oldest first.
type Layers = Vec<Layer>;

/// What a keyspace holds, expired values included.
type Map = BTreeMap<Vec<u8>, Layers>;

/// What the keyspaces hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    maps: [Map; KEYSPACES.len()],
    /// Contents of each keyspace that was ever called [`PASSING`].
    passing: BTreeMap<KeyspaceId, Map>,
}

impl Model {
    /// Applies a commit, made at `now_ms`, while `passing` was the keyspace of that
    /// name.
    pub fn apply(&mut self, commit: &Commit, passing: Option<Passing>, now_ms: u64) {
        for op in &commit.ops {
            self.apply_op(commit.number, op, passing, now_ms);
        }
    }

    fn apply_op(&mut self, number: u64, op: &Op, passing: Option<Passing>, now_ms: u64) {
        let (Op::Put(at, ..)
        | Op::Delete(at, _)
        | Op::Merge(at, ..)
        | Op::DeleteRange(at, ..)
        | Op::Clear(at)) = op;
        let map = match (self.maps.get_mut(*at), passing) {
            (Some(map), _) => map,
            (None, Some(Passing { id, .. })) => self.passing.entry(id).or_default(),
            (None, None) => return,
        };
        let by_keyspace = match passing {
            Some(Passing { ttl_ms, .. }) if *at == PASSING_AT && ttl_ms > 0 => now_ms + ttl_ms,
            _ => 0,
        };
        match op {
            Op::Put(_, key, value, expires_at) => {
                let expires_at = if *expires_at == 0 { by_keyspace } else { *expires_at };
                let value = Layer { number, is_operand: false, bytes: Arc::clone(value), expires_at };
                map.insert(key.clone(), vec![value]);
            }
            Op::Delete(_, key) => drop(map.remove(key)),
            Op::Merge(_, key, operand) => {
                let bytes = Arc::clone(operand);
                let operand = Layer { number, is_operand: true, bytes, expires_at: by_keyspace };
                merge(map.entry(key.clone()).or_default(), operand);
            }
            Op::DeleteRange(_, start, end) => map.retain(|key, _| key < start || key >= end),
            Op::Clear(_) => map.clear(),
        }
    }

    /// Compares every pair, by scans in both directions and by gets.
    pub fn check(&self, db: &dyn Database, now_ms: u64) -> Result<(), String> {
        for (name, map) in KEYSPACES.iter().zip(&self.maps) {
            check_keyspace(db, name, map, now_ms)?;
        }
        Ok(())
    }

    /// Compares the keyspace [`PASSING`], if it is there, with what the keyspace of
    /// that id must hold.
    pub fn check_passing(&self, db: &dyn Database, now_ms: u64) -> Result<(), String> {
        let Some(id) = db.find_keyspace(PASSING).map_err(|error| error.to_string())? else { return Ok(()) };
        check_keyspace(db, PASSING, self.passing.get(&id).unwrap_or(&Map::new()), now_ms)
    }
}

/// Puts an operand on top; a commit does one thing to a key at most, and what
/// would expire first takes the rest along.
fn merge(layers: &mut Layers, operand: Layer) {
    match layers.last_mut().filter(|last| last.number == operand.number) {
        None => layers.push(operand),
        Some(last) => {
            last.bytes = [&*last.bytes, &*operand.bytes].concat().into();
            last.expires_at = match [last.expires_at, operand.expires_at] {
                [0, at] | [at, 0] => at,
                [one, other] => one.min(other),
            };
        }
    }
}

/// The value that a reader sees.
fn value(layers: &Layers, now_ms: u64) -> Option<Arc<[u8]>> {
    let expired = |layer: &Layer| layer.expires_at != 0 && layer.expires_at <= now_ms;
    let base = layers.iter().rposition(|layer| !layer.is_operand || expired(layer)).unwrap_or(0);
    let seen = &layers[base + usize::from(expired(layers.get(base)?))..];
    match seen {
        [] => None,
        [one] => Some(Arc::clone(&one.bytes)),
        many => Some(many.iter().flat_map(|layer| layer.bytes.iter().copied()).collect()),
    }
}

fn check_keyspace(db: &dyn Database, name: &str, map: &Map, now_ms: u64) -> Result<(), String> {
    let live = |(key, layers): (&Vec<u8>, &Layers)| Some((key.clone(), value(layers, now_ms)?));
    let map: Live = map.iter().filter_map(live).collect();
    let Some(id) = db.find_keyspace(name).map_err(|error| error.to_string())? else {
        return if map.is_empty() { Ok(()) } else { Err(format!("there is no keyspace {name}")) };
    };
    check_scan(db, id, &map, false).map_err(|what| format!("scan of {name}: {what}"))?;
    check_scan(db, id, &map, true).map_err(|what| format!("reverse scan of {name}: {what}"))?;
    for (key, value) in map.iter().step_by(7) {
        let found = db.get(id, key, None).map_err(|error| error.to_string())?;
        if found.as_deref() != Some(&**value) {
            return Err(format!("get of {} in {name}", String::from_utf8_lossy(key)));
        }
    }
    Ok(())
}

/// What a keyspace shows.
type Live = BTreeMap<Vec<u8>, Arc<[u8]>>;

fn check_scan(db: &dyn Database, id: KeyspaceId, map: &Live, reverse: bool) -> Result<(), String> {
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
                return Err(format!("found {found:?} (value of {} bytes), wanted {wanted:?}", value.len()));
            }
            None => return Err(format!("{:?} has come back", String::from_utf8_lossy(&key))),
        }
    }
    match expected.next() {
        Some((key, _)) => Err(format!("{:?} is missing", String::from_utf8_lossy(key))),
        None => Ok(()),
    }
}
