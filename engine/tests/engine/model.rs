//! Goal: every operation does what its description says, whatever happens
//! beneath it. Method: random operations, reopening included, against a model that
//! keeps every commit and answers by folding them in order. Seeds are printed.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use duramen::api::{Database, DatabaseTransaction, Savepoint, Scan, ScanRange, SnapshotId, pairs};
use duramen::options::Environment;
use duramen::storage::memory::MemoryStorage;
use duramen::{
    Background, Budget, Compression, Db, Durability, Error, Expiry, KeyspaceId, KeyspaceOptions,
    MemtableKind, Options, WriteBatch,
};

use crate::random::{Random, for_seeds, seed_count};

/// A value and when it expires; 0 is never.
type Cell = (Vec<u8>, u64);

/// What a keyspace holds, expired values included: time passes without commits.
type Map = BTreeMap<(usize, Vec<u8>), Cell>;

/// Keyspaces of every kind.
const KEYSPACES: [(&str, Option<&str>, Option<u64>); 4] = [
    ("plain", None, None),
    ("sums", Some("i64.add"), None),
    ("lists", Some("append"), None),
    ("short", None, Some(50)),
];

const SUMS: usize = 1;
const LISTS: usize = 2;
const SHORT: usize = 3;

/// A clock that only the test moves.
#[derive(Debug, Default)]
struct Clock(AtomicU64);

impl Environment for Clock {
    fn monotonic_ms(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn unix_ms(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn random(&self) -> u64 {
        7
    }
}

#[derive(Clone, Debug)]
enum Change {
    Put(usize, Vec<u8>, Vec<u8>, u64),
    Delete(usize, Vec<u8>),
    Merge(usize, Vec<u8>, Vec<u8>),
    DeleteRange(usize, Vec<u8>, Vec<u8>),
    DeletePrefix(usize, Vec<u8>),
}

fn live(cell: Option<&Cell>, now: u64) -> Option<&Vec<u8>> {
    cell.filter(|(_, expires_at)| *expires_at == 0 || *expires_at > now).map(|(value, _)| value)
}

fn int(bytes: &[u8]) -> i64 {
    i64::from_le_bytes(bytes.try_into().unwrap())
}

fn apply(map: &mut Map, change: &Change, now: u64) {
    match change.clone() {
        Change::Put(keyspace, key, value, expires_at) => {
            let expires_at = match expires_at {
                0 if keyspace == SHORT => now + 50,
                other => other,
            };
            map.insert((keyspace, key), (value, expires_at));
        }
        Change::Delete(keyspace, key) => drop(map.remove(&(keyspace, key))),
        Change::Merge(keyspace, key, operand) => {
            let base = live(map.get(&(keyspace, key.clone())), now).cloned();
            let value = match (base, keyspace) {
                (Some(base), SUMS) => int(&base).wrapping_add(int(&operand)).to_le_bytes().to_vec(),
                (Some(base), _) => [base, operand].concat(),
                (None, _) => operand,
            };
            map.insert((keyspace, key), (value, 0));
        }
        Change::DeleteRange(keyspace, start, end) => {
            map.retain(|(at, key), _| *at != keyspace || *key < start || *key >= end);
        }
        Change::DeletePrefix(keyspace, prefix) => {
            map.retain(|(at, key), _| *at != keyspace || !key.starts_with(&prefix));
        }
    }
}

fn add(batch: &mut WriteBatch, ids: &[KeyspaceId], change: &Change) {
    match change {
        Change::Put(at, key, value, expires_at) => {
            batch.put_until(ids[*at], key, value, Expiry(*expires_at));
        }
        Change::Delete(at, key) => drop(batch.delete(ids[*at], key).len()),
        Change::Merge(at, key, operand) => drop(batch.merge(ids[*at], key, operand).len()),
        Change::DeleteRange(at, start, end) => drop(batch.delete_range(ids[*at], start, end).len()),
        Change::DeletePrefix(at, prefix) => drop(batch.delete_prefix(ids[*at], prefix).len()),
    }
}

/// A transaction and what it must see.
struct Open {
    transaction: Box<dyn DatabaseTransaction>,
    map: Map,
    changes: Vec<Change>,
    savepoints: Vec<(Savepoint, Map, usize)>,
    /// What it has read, to tell whether its commit must conflict.
    points: Vec<(usize, Vec<u8>)>,
    ranges: Vec<(usize, ScanRange)>,
    /// Everything committed since it began.
    since: Vec<Change>,
}

/// A scan that is held, and what it has yet to answer.
struct Held {
    scan: Box<dyn Scan>,
    rows: Vec<(Vec<u8>, Vec<u8>)>,
}

struct Pair {
    storage: MemoryStorage,
    clock: Arc<Clock>,
    options: Choice,
    db: Option<Box<dyn Database>>,
    map: Map,
    ids: Vec<KeyspaceId>,
    snapshots: Vec<(SnapshotId, Map)>,
    held: Vec<Held>,
    open: Vec<Open>,
    random: Random,
}

impl Pair {
    fn new(seed: u64, options: Choice) -> Pair {
        let clock = Arc::new(Clock::default());
        clock.0.store(1000, Relaxed);
        let mut pair = Pair {
            storage: MemoryStorage::new(),
            clock,
            options,
            db: None,
            map: Map::new(),
            ids: Vec::new(),
            snapshots: Vec::new(),
            held: Vec::new(),
            open: Vec::new(),
            random: Random::new(seed),
        };
        pair.reopen();
        pair
    }

    fn now(&self) -> u64 {
        self.clock.0.load(Relaxed)
    }

    fn db(&self) -> &dyn Database {
        self.db.as_deref().unwrap()
    }

    /// Opens the same files again, by other options; with a clean close or not.
    fn reopen(&mut self) {
        self.snapshots.clear();
        self.held.clear();
        self.open.clear();
        if let Some(db) = self.db.take()
            && self.random.one_in(2)
        {
            db.close().unwrap();
        }
        let (options, memtable) = (self.options)(&mut self.random);
        let options = Options { environment: Arc::clone(&self.clock) as Arc<dyn Environment>, ..options };
        let db = Db::open_with(Arc::new(self.storage.clone()), options).unwrap();
        let create = |(name, operator, ttl_ms): (&str, Option<&str>, Option<u64>)| {
            let merge_operator = operator.map(str::to_owned);
            let options =
                KeyspaceOptions { merge_operator, ttl_ms, memtable: Some(memtable), compaction: None };
            db.create_keyspace_with(name, &options).unwrap()
        };
        self.ids = KEYSPACES.map(create).to_vec();
        self.db = Some(Box::new(db));
    }

    fn key(&mut self) -> Vec<u8> {
        match self.random.below(20) {
            0 => self.random.bytes(1),
            1 => vec![b'k'; self.random.below(600) as usize],
            2 => Vec::new(),
            _ => format!("key{:03}", self.random.below(200)).into_bytes(),
        }
    }

    fn value(&mut self, keyspace: usize) -> Vec<u8> {
        if keyspace == SUMS {
            return (self.random.below(1000) as i64 - 500).to_le_bytes().to_vec();
        }
        let len = match self.random.below(20) {
            0 => 0,
            1 => 5000,
            // They have pages of their own.
            2 => 8000 + self.random.below(10_000),
            _ => self.random.below(60),
        };
        self.random.bytes(len as usize)
    }

    fn change(&mut self) -> Change {
        let at = self.random.below(KEYSPACES.len() as u64) as usize;
        let key = self.key();
        match self.random.below(20) {
            0..4 => Change::Delete(at, key),
            4 if self.random.one_in(3) => Change::DeletePrefix(at, b"key1".to_vec()),
            4 => Change::DeletePrefix(at, key),
            5 | 6 => {
                let mut ends = [key, self.key()];
                if !self.random.one_in(8) {
                    ends.sort();
                }
                let [start, end] = ends;
                Change::DeleteRange(at, start, end)
            }
            7..12 if at == SUMS || at == LISTS => Change::Merge(at, key, self.value(at)),
            _ => {
                let value = self.value(at);
                let expires_at =
                    if self.random.one_in(6) { self.now() + 1 + self.random.below(80) } else { 0 };
                // Where values are merged, what expires is another test's.
                let expires_at = if at == SUMS || at == LISTS { 0 } else { expires_at };
                Change::Put(at, key, value, expires_at)
            }
        }
    }

    fn changes(&mut self) -> Vec<Change> {
        let most = if self.random.one_in(5) { 40 } else { 2 };
        let count = 1 + self.random.below(most);
        (0..count).map(|_| self.change()).collect()
    }

    fn committed(&mut self, changes: &[Change]) {
        let now = self.now();
        for change in changes {
            apply(&mut self.map, change, now);
        }
        for open in &mut self.open {
            open.since.extend_from_slice(changes);
        }
    }

    fn durability(&mut self) -> Durability {
        [Durability::None, Durability::Buffered, Durability::Sync][self.random.below(3) as usize]
    }

    fn commit(&mut self) {
        let changes = self.changes();
        let mut batch = WriteBatch::new();
        changes.iter().for_each(|change| add(&mut batch, &self.ids, change));
        let durability = self.durability();
        self.db().write(batch, durability).unwrap();
        self.committed(&changes);
    }

    fn check_get(&mut self) {
        let at = self.random.below(KEYSPACES.len() as u64) as usize;
        let key = self.key();
        let (id, map) = self.view();
        let expected = live(map.get(&(at, key.clone())), self.now());
        // What is read again is kept.
        for _ in 0..1 + self.random.below(3) {
            let found = self.db().get(self.ids[at], &key, id).unwrap();
            assert_eq!(
                found.as_deref(),
                expected.map(Vec::as_slice),
                "get {}",
                String::from_utf8_lossy(&key)
            );
        }
        let keys = [key, self.key(), self.key()];
        let borrowed: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let found = self.db().multi_get(self.ids[at], &borrowed, id).unwrap();
        for (key, found) in keys.iter().zip(found) {
            let expected = live(map.get(&(at, key.clone())), self.now());
            assert_eq!(found.as_deref(), expected.map(Vec::as_slice), "multi-get");
        }
    }

    /// The present or a snapshot, and what it must show.
    fn view(&mut self) -> (Option<SnapshotId>, Map) {
        if self.snapshots.is_empty() || self.random.one_in(2) {
            return (None, self.map.clone());
        }
        let (id, map) = &self.snapshots[self.random.below(self.snapshots.len() as u64) as usize];
        (Some(*id), map.clone())
    }

    fn bound(&mut self) -> Bound<Vec<u8>> {
        match self.random.below(3) {
            0 => Bound::Unbounded,
            1 => Bound::Included(self.key()),
            _ => Bound::Excluded(self.key()),
        }
    }

    fn range(&mut self) -> ScanRange {
        let range = match self.random.below(3) {
            0 => ScanRange::prefix(&self.key()),
            1 => ScanRange::all(),
            _ => ScanRange { start: self.bound(), end: self.bound(), reverse: false },
        };
        if self.random.one_in(2) { range.reversed() } else { range }
    }

    fn rows(&self, map: &Map, at: usize, range: &ScanRange) -> Vec<(Vec<u8>, Vec<u8>)> {
        let now = self.now();
        let rows = map.iter().filter(|((other, key), _)| *other == at && is_inside(range, key));
        let rows = rows.filter_map(|((_, key), cell)| Some((key.clone(), live(Some(cell), now)?.clone())));
        let mut rows: Vec<_> = rows.collect();
        if range.reverse {
            rows.reverse();
        }
        rows
    }

    fn check_scan(&mut self) {
        let at = self.random.below(KEYSPACES.len() as u64) as usize;
        let range = self.range();
        let (id, map) = self.view();
        let expected = self.rows(&map, at, &range);
        let scan = self.db().scan(self.ids[at], &range, id).unwrap();
        compare(scan, &expected, &format!("{range:?} of {}", KEYSPACES[at].0));
    }

    /// Begins a scan to go on with after whatever comes.
    fn hold_scan(&mut self) {
        let at = self.random.below(KEYSPACES.len() as u64) as usize;
        let range = self.range();
        let (id, map) = self.view();
        let rows = self.rows(&map, at, &range);
        let scan = self.db().scan(self.ids[at], &range, id).unwrap();
        self.held.push(Held { scan, rows });
    }

    fn go_on_with_a_scan(&mut self) {
        let Some(mut held) = self.held.pop() else { return };
        let pairs_max = [0, 1, 2, usize::MAX][self.random.below(4) as usize];
        let page = held.scan.next_page(300, pairs_max).unwrap();
        assert!(page.pairs().count() <= pairs_max.max(1), "more pairs than asked for");
        for pair in page.pairs() {
            let (key, value) = pair.unwrap();
            assert!(!held.rows.is_empty(), "a row too many");
            let expected = held.rows.remove(0);
            assert_eq!((&key[..], &value[..]), (&expected.0[..], &expected.1[..]), "a held scan");
        }
        if page.is_empty() {
            assert_eq!(held.rows, [], "a held scan ends early");
        } else {
            self.held.insert(0, held);
        }
    }

    fn begin(&mut self) {
        if self.open.len() < 3 {
            let transaction = self.db().transaction().unwrap();
            self.open.push(Open {
                transaction,
                map: self.map.clone(),
                changes: Vec::new(),
                savepoints: Vec::new(),
                points: Vec::new(),
                ranges: Vec::new(),
                since: Vec::new(),
            });
        }
    }

    fn go_on_with_a_transaction(&mut self) {
        let Some(mut open) = self.open.pop() else { return };
        let now = self.now();
        for _ in 0..1 + self.random.below(3) {
            match self.random.below(10) {
                0..4 => {
                    let changes = self.changes();
                    let mut batch = WriteBatch::new();
                    changes.iter().for_each(|change| add(&mut batch, &self.ids, change));
                    open.transaction.write(batch).unwrap();
                    changes.iter().for_each(|change| apply(&mut open.map, change, now));
                    open.changes.extend(changes);
                }
                4..7 => {
                    let at = self.random.below(KEYSPACES.len() as u64) as usize;
                    let key = self.key();
                    let expected = live(open.map.get(&(at, key.clone())), self.now());
                    let found = open.transaction.get(self.ids[at], &key).unwrap();
                    // The keyspace's own time to live begins with the commit.
                    if at != SHORT {
                        assert_eq!(found.as_deref(), expected.map(Vec::as_slice), "get of a transaction");
                    }
                    open.points.push((at, key));
                }
                7 => {
                    let at = self.random.below(SHORT as u64) as usize;
                    let range = self.range();
                    let expected = self.rows(&open.map, at, &range);
                    let scan = open.transaction.scan(self.ids[at], &range).unwrap();
                    compare(scan, &expected, "scan of a transaction");
                    open.ranges.push((at, range));
                }
                8 => {
                    let savepoint = open.transaction.savepoint().unwrap();
                    open.savepoints.push((savepoint, open.map.clone(), open.changes.len()));
                }
                _ => {
                    if let Some((savepoint, map, changes)) = open.savepoints.pop() {
                        open.transaction.rollback_to(savepoint).unwrap();
                        open.map = map;
                        open.changes.truncate(changes);
                    }
                }
            }
        }
        self.open.insert(0, open);
    }

    fn end_a_transaction(&mut self) {
        let Some(open) = self.open.pop() else { return };
        if self.random.one_in(5) {
            return;
        }
        let touched = |at: usize, key: &[u8]| {
            open.since.iter().any(|change| match change {
                Change::Put(other, found, ..)
                | Change::Delete(other, found)
                | Change::Merge(other, found, _) => *other == at && found == key,
                Change::DeleteRange(other, start, end) => {
                    *other == at && start.as_slice() <= key && key < end.as_slice()
                }
                Change::DeletePrefix(other, prefix) => *other == at && key.starts_with(prefix),
            })
        };
        // A key that the transaction had written before it read it was not read.
        let may = open.points.iter().any(|(at, key)| touched(*at, key)) || !open.ranges.is_empty();
        let writes_first =
            open.changes.iter().any(|change| !matches!(change, Change::Merge(..)) || open.points.is_empty());
        let must = !open.changes.is_empty()
            && !writes_first
            && open.savepoints.is_empty()
            && open.points.iter().any(|(at, key)| touched(*at, key));
        let durability = self.durability();
        match open.transaction.commit(durability) {
            Ok(()) => {
                assert!(!must, "a changed key was read, and the commit went through");
                self.committed(&open.changes);
            }
            Err(Error::Conflict { key }) => {
                assert!(may, "conflict on {key:?}, which nobody had touched");
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..=49 => self.commit(),
            50..=63 => self.check_get(),
            64..=69 => self.check_scan(),
            70 | 71 => self.hold_scan(),
            72..=75 => self.go_on_with_a_scan(),
            76 | 77 => self.begin(),
            78..=81 => self.go_on_with_a_transaction(),
            82 => self.end_a_transaction(),
            83..=84 => {
                let id = self.db().snapshot().unwrap();
                self.snapshots.push((id, self.map.clone()));
            }
            85..=87 => {
                if let Some((id, _)) = self.snapshots.pop() {
                    self.db().release(id).unwrap();
                }
            }
            88..=89 => self.db().flush().unwrap(),
            90 => self.db().compact().unwrap(),
            91 => drop(self.db().maintain(Budget::bytes(20_000)).unwrap()),
            92 => self.db().sync().unwrap(),
            93 => {
                let report = self.db().verify().unwrap();
                assert_eq!(report.problems, [], "verify");
            }
            // Scans that are held read at the time when they began.
            94 if self.held.is_empty() => drop(self.clock.0.fetch_add(self.random.below(60), Relaxed)),
            95 if self.random.one_in(2) => self.reopen(),
            _ => self.commit(),
        }
    }
}

fn is_inside(range: &ScanRange, key: &Vec<u8>) -> bool {
    let above = match &range.start {
        Bound::Unbounded => true,
        Bound::Included(start) => key >= start,
        Bound::Excluded(start) => key > start,
    };
    let below = match &range.end {
        Bound::Unbounded => true,
        Bound::Included(end) => key <= end,
        Bound::Excluded(end) => key < end,
    };
    above && below
}

fn compare(scan: Box<dyn Scan>, expected: &[(Vec<u8>, Vec<u8>)], context: &str) {
    let found: Vec<_> = pairs(scan).map(|pair| pair.unwrap()).collect();
    let keys = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
    let found_keys: Vec<_> = found.iter().map(|(key, _)| keys(key)).collect();
    let expected_keys: Vec<_> = expected.iter().map(|(key, _)| keys(key)).collect();
    assert_eq!(found_keys, expected_keys, "{context}");
    for ((key, found), (_, expected)) in found.iter().zip(expected) {
        assert_eq!(&found[..], &expected[..], "{context}: {}", keys(key));
    }
}

/// How a database is opened, and its keyspaces. Asked again whenever that happens.
type Choice = fn(&mut Random) -> (Options, MemtableKind);

fn any_options(random: &mut Random) -> (Options, MemtableKind) {
    let options = Options {
        memtable_bytes: 1 << (10 + random.below(6)),
        target_file_bytes: 1 << (10 + random.below(8)),
        compaction_threads: 1 + random.below(4) as usize,
        cache_bytes: 1 << (10 + random.below(12)),
        background: if random.one_in(3) { Background::Threads } else { Background::Inline },
        ..Options::default()
    };
    (options, MemtableKind::ALL[random.below(MemtableKind::ALL.len() as u64) as usize])
}

fn run(seed: u64, steps: usize, options: Choice) -> Map {
    let mut pair = Pair::new(seed, options);
    for _ in 0..steps {
        pair.step();
    }
    pair.reopen();
    pair.check_scan();
    pair.db().compact().unwrap();
    let stats = pair.db().stats().unwrap();
    assert!(stats.keyspaces.iter().all(|keyspace| keyspace.runs.len() <= 1), "{stats:?}");
    let now = pair.now();
    let mut found = Map::new();
    for (at, id) in pair.ids.iter().enumerate() {
        let expected = pair.rows(&pair.map, at, &ScanRange::all());
        compare(pair.db().scan(*id, &ScanRange::all(), None).unwrap(), &expected, "at the end");
        let cells = expected.into_iter().map(|(key, value)| ((at, key), (value, now)));
        found.extend(cells);
    }
    found
}

#[test]
fn random_operations_match_the_model() {
    for_seeds(0..seed_count(60), |seed| drop(run(seed, 400, any_options)));
}

/// The same operations, whatever the options: nobody can tell from outside.
#[test]
fn options_change_nothing_that_shows() {
    use MemtableKind::{SkipList, Sorted, Trie};
    fn with(memtable: usize, target: u64, cache: usize) -> Options {
        Options {
            memtable_bytes: memtable,
            target_file_bytes: target,
            cache_bytes: cache,
            background: Background::Inline,
            ..Options::default()
        }
    }
    let sets: [Choice; 9] = [
        |_| (Options::default(), Sorted),
        |_| (Options::default(), SkipList),
        |_| (with(1 << 10, 1 << 10, 1 << 10), Sorted),
        |_| (with(4 << 10, 1 << 10, 1 << 20), Trie),
        |_| (with(1 << 10, 1 << 20, 1 << 20), Sorted),
        |_| (Options { compression: Compression::None, ..with(2 << 10, 8 << 10, 0) }, SkipList),
        |_| (Options { wal_bytes_max: Some(3 << 10), ..with(64 << 10, 8 << 10, 1 << 16) }, Sorted),
        |_| (Options { background: Background::Threads, ..with(2 << 10, 4 << 10, 1 << 16) }, Trie),
        |_| (Options { background: Background::Threads, ..with(32 << 10, 64 << 10, 1 << 16) }, Sorted),
    ];
    for_seeds(1000..1004, |seed| {
        let first = run(seed, 300, sets[0]);
        for (number, options) in sets.iter().enumerate().skip(1) {
            assert!(run(seed, 300, *options) == first, "option set {number} ends with other contents");
        }
    });
}
