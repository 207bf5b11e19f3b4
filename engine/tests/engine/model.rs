//! Random operations, with reopening, against an ordered map.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use duramen::api::{Database, ScanRange, SnapshotId, pairs};
use duramen::storage::memory::MemoryStorage;
use duramen::{Background, Budget, Db, Durability, KeyspaceId, Options, WriteBatch};

use crate::random::{Random, for_seeds};

type Map = BTreeMap<(u32, Vec<u8>), Vec<u8>>;

struct Pair {
    storage: MemoryStorage,
    db: Box<dyn Database>,
    map: Map,
    keyspaces: Vec<KeyspaceId>,
    snapshots: Vec<(SnapshotId, Map)>,
    random: Random,
}

fn options(random: &mut Random) -> Options {
    Options {
        memtable_bytes: 1 << (10 + random.below(6)),
        target_file_bytes: 1 << (10 + random.below(8)),
        cache_bytes: 1 << (10 + random.below(12)),
        background: if random.one_in(3) { Background::Threads } else { Background::Inline },
        ..Options::default()
    }
}

fn open(storage: &MemoryStorage, options: &Options) -> Box<dyn Database> {
    Box::new(Db::open_with(Arc::new(storage.clone()), options.clone()).unwrap())
}

impl Pair {
    fn new(seed: u64) -> Pair {
        let mut random = Random::new(seed);
        let storage = MemoryStorage::new();
        let options = options(&mut random);
        let db = open(&storage, &options);
        let keyspaces = ["a", "b", "c"].map(|name| db.create_keyspace(name).unwrap()).to_vec();
        Pair { storage, db, map: Map::new(), keyspaces, snapshots: Vec::new(), random }
    }

    fn key(&mut self) -> Vec<u8> {
        match self.random.below(20) {
            0 => self.random.bytes(1),
            1 => vec![b'k'; self.random.below(600) as usize],
            2 => Vec::new(),
            _ => format!("key{:03}", self.random.below(200)).into_bytes(),
        }
    }

    fn value(&mut self) -> Vec<u8> {
        let len = match self.random.below(20) {
            0 => 0,
            1 => 5000,
            _ => self.random.below(60),
        };
        self.random.bytes(len as usize)
    }

    fn commit(&mut self) {
        let mut batch = WriteBatch::new();
        let most = if self.random.one_in(5) { 40 } else { 2 };
        for _ in 0..1 + self.random.below(most) {
            let keyspace = self.keyspaces[self.random.below(3) as usize];
            let key = self.key();
            if self.random.one_in(3) {
                batch.delete(keyspace, &key);
                self.map.remove(&(keyspace.0, key));
            } else {
                let value = self.value();
                batch.put(keyspace, &key, &value);
                self.map.insert((keyspace.0, key), value);
            }
        }
        let durability =
            [Durability::None, Durability::Buffered, Durability::Sync][self.random.below(3) as usize];
        self.db.write(batch, durability).unwrap();
    }

    /// Opens the same files again, by other options; with a clean close or not.
    fn reopen(&mut self) {
        self.snapshots.clear();
        if self.random.one_in(2) {
            self.db.close().unwrap();
        }
        // The lock is free once the old handle is gone.
        self.db = open(&MemoryStorage::new(), &Options::default());
        self.db = open(&self.storage, &options(&mut self.random));
    }

    fn check_get(&mut self) {
        let keyspace = self.keyspaces[self.random.below(3) as usize];
        let key = self.key();
        let (id, map) = self.view();
        let expected = map.get(&(keyspace.0, key.clone())).cloned();
        let found = self.db.get(keyspace, &key, id).unwrap().map(|value| value.to_vec());
        assert_eq!(found, expected, "get {}", String::from_utf8_lossy(&key));
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

    fn check_scan(&mut self) {
        let keyspace = self.keyspaces[self.random.below(3) as usize];
        let range = match self.random.below(3) {
            0 => ScanRange::prefix(&self.key()),
            1 => ScanRange::all(),
            _ => ScanRange { start: self.bound(), end: self.bound(), reverse: false },
        };
        let range = if self.random.one_in(2) { range.reversed() } else { range };
        let (id, map) = self.view();
        let above = |key: &Vec<u8>| match &range.start {
            Bound::Unbounded => true,
            Bound::Included(start) => key >= start,
            Bound::Excluded(start) => key > start,
        };
        let below = |key: &Vec<u8>| match &range.end {
            Bound::Unbounded => true,
            Bound::Included(end) => key <= end,
            Bound::Excluded(end) => key < end,
        };
        let mut expected: Vec<(Vec<u8>, Vec<u8>)> = map
            .iter()
            .filter(|((id, key), _)| *id == keyspace.0 && above(key) && below(key))
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect();
        if range.reverse {
            expected.reverse();
        }
        let scan = self.db.scan(keyspace, &range, id).unwrap();
        let found: Vec<_> = pairs(scan).map(|pair| pair.unwrap()).collect();
        assert_eq!(found.len(), expected.len(), "{range:?}");
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!((&found.0[..], &found.1[..]), (&expected.0[..], &expected.1[..]), "{range:?}");
        }
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..=59 => self.commit(),
            60..=74 => self.check_get(),
            75..=81 => self.check_scan(),
            82..=84 => {
                let id = self.db.snapshot().unwrap();
                self.snapshots.push((id, self.map.clone()));
            }
            85..=87 => {
                if let Some((id, _)) = self.snapshots.pop() {
                    self.db.release(id).unwrap();
                }
            }
            88..=89 => self.db.flush().unwrap(),
            90 => self.db.compact().unwrap(),
            91..=92 => drop(self.db.maintain(Budget::bytes(20_000)).unwrap()),
            93 => self.db.sync().unwrap(),
            94 => {
                let report = self.db.verify().unwrap();
                assert_eq!(report.problems, [], "verify");
            }
            95..=96 => self.reopen(),
            _ => self.commit(),
        }
    }
}

#[test]
fn random_operations_match_an_ordered_map() {
    for_seeds(0..60, |seed| {
        let mut pair = Pair::new(seed);
        for _ in 0..400 {
            pair.step();
        }
        pair.reopen();
        pair.check_scan();
        pair.db.compact().unwrap();
        pair.check_scan();
        let stats = pair.db.stats().unwrap();
        assert!(stats.keyspaces.iter().all(|keyspace| keyspace.runs.len() <= 1), "{stats:?}");
    });
}
