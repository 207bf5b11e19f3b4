//! Goal: a scan answers every visible row once, in order, however rows lie in runs
//! and pages. Method: blocks of neighbouring keys, so that one run is ahead for long,
//! with other runs' entries, older versions that snapshots keep, and tombstones strewn
//! between; then random scans, from one end and from both, against a map.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use duramen::storage::memory::MemoryStorage;
use duramen::{Background, Db, Keyspace, KeyspaceOptions, Options, Rows, Snapshot};

use crate::random::{Random, for_seeds, seed_count};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// Keys there are: several pages of them.
const KEYS: u64 = 1_500;

/// Some are prefixes of the next ones, and most differ in their last bytes only.
fn key(number: u64) -> Vec<u8> {
    match number % 7 {
        0 => format!("{number:06}"),
        rest => format!("{:06}{rest}", number - rest),
    }
    .into_bytes()
}

/// Puts or deletes a block of neighbours, a few keys anywhere, or one many times.
fn change(random: &mut Random, keyspace: &Keyspace, model: &mut Model) {
    if random.one_in(6) {
        let key = key(random.below(KEYS));
        for version in 0..random.below(100) {
            let value = random.bytes((version % 5) as usize);
            keyspace.put(&key, &value).unwrap();
            model.insert(key.clone(), value);
        }
        if random.one_in(3) {
            keyspace.delete(&key).unwrap();
            model.remove(&key);
        }
        return;
    }
    let (first, count, step) = match random.below(3) {
        0 => (random.below(KEYS), 1 + random.below(600), 1),
        1 => (random.below(KEYS), 1 + random.below(60), 1 + random.below(50)),
        _ => (random.below(KEYS), 1, 1),
    };
    if random.one_in(12) {
        let (start, end) = (key(first), key(first + count));
        keyspace.delete_range(&start[..]..&end[..]).unwrap();
        model.retain(|key, _| *key < start || *key >= end);
        return;
    }
    let deletes = random.one_in(4);
    for number in (first..KEYS).step_by(step as usize).take(count as usize) {
        let key = key(number);
        if deletes {
            keyspace.delete(&key).unwrap();
            model.remove(&key);
        } else {
            let value = random.bytes((number % 40) as usize);
            keyspace.put(&key, &value).unwrap();
            model.insert(key, value);
        }
    }
}

fn bound(random: &mut Random) -> Bound<Vec<u8>> {
    match random.below(3) {
        0 => Bound::Unbounded,
        1 => Bound::Included(key(random.below(KEYS))),
        _ => Bound::Excluded(key(random.below(KEYS))),
    }
}

/// Whatever order its bounds are in; an empty range of them is no range to a map.
fn within<'m>(model: &'m Model, range: &(Bound<Vec<u8>>, Bound<Vec<u8>>)) -> Vec<(&'m [u8], &'m [u8])> {
    let inside = |key: &Vec<u8>| std::ops::RangeBounds::contains(range, key);
    model.iter().filter(|(key, _)| inside(key)).map(|(key, value)| (&key[..], &value[..])).collect()
}

fn scan(random: &mut Random, rows: &mut Rows, mut expected: &[(&[u8], &[u8])]) {
    let ways = random.below(5);
    loop {
        let (reverse, borrows) = match ways {
            0 => (false, false),
            1 => (true, false),
            2 => (false, true),
            3 => (true, true),
            _ => (random.one_in(2), random.one_in(2)),
        };
        let wanted = match reverse {
            false => expected.split_off_first(),
            true => expected.split_off_last(),
        };
        let same = |found: Option<(&[u8], &[u8])>| assert_eq!(found, wanted.copied(), "reverse: {reverse}");
        match (reverse, borrows) {
            (false, true) => same(rows.next_borrowed().unwrap()),
            (false, false) => same(rows.next().transpose().unwrap().as_ref().map(|(k, v)| (&k[..], &v[..]))),
            (true, true) => same(rows.next_back_borrowed().unwrap()),
            (true, false) => {
                same(rows.next_back().transpose().unwrap().as_ref().map(|(k, v)| (&k[..], &v[..])))
            }
        }
        // Now and then a scan is given up.
        if wanted.is_none() || random.one_in(2_000) {
            return;
        }
    }
}

#[test]
fn like_a_map_from_both_ends() {
    for_seeds(0..seed_count(25), |seed| {
        let mut random = Random::new(seed);
        let options = Options {
            background: if random.one_in(2) { Background::Inline } else { Background::Threads },
            target_file_bytes: 1 << (12 + random.below(12)),
            compaction_threads: 1 + random.below(3) as usize,
            ..Options::default()
        };
        let db = Db::open_with(Arc::new(MemoryStorage::new()), options).unwrap();
        let keyspace = db.keyspace("k").unwrap();
        let mut model = Model::new();
        let mut snapshots: Vec<(Snapshot, Model)> = Vec::new();
        for _ in 0..40 {
            match random.below(12) {
                0..=5 => change(&mut random, &keyspace, &mut model),
                6 | 7 => duramen::Database::flush(&db).unwrap(),
                // Versions of a key too long for one page; the first and the last of them
                // share theirs with other keys.
                8 if random.one_in(2) => {
                    snapshots.clear();
                    let key = key(random.below(KEYS));
                    for (version, len) in [(0, 9), (1, 70_000), (2, 70_000), (3, 9)] {
                        let value = vec![version; len];
                        keyspace.put(&key, &value).unwrap();
                        model.insert(key.clone(), value);
                        snapshots.push((db.snapshot(), model.clone()));
                    }
                }
                8 if random.one_in(2) => duramen::Database::compact(&db).unwrap(),
                // In the middle of the versions of a key.
                9 if random.one_in(2) => {
                    let key = key(random.below(KEYS));
                    snapshots.clear();
                    for version in 0..90 {
                        keyspace.put(&key, &[version]).unwrap();
                        model.insert(key.clone(), vec![version]);
                        if version % 30 == 17 {
                            snapshots.push((db.snapshot(), model.clone()));
                        }
                    }
                }
                9 if snapshots.len() < 4 => snapshots.push((db.snapshot(), model.clone())),
                10 if !snapshots.is_empty() => {
                    let at = random.below(snapshots.len() as u64) as usize;
                    snapshots.swap_remove(at);
                }
                _ => {}
            }
            let range = (bound(&mut random), bound(&mut random));
            if snapshots.is_empty() || random.one_in(2) {
                scan(&mut random, &mut keyspace.range(range.clone()), &within(&model, &range));
            } else {
                let (snapshot, model) = &snapshots[random.below(snapshots.len() as u64) as usize];
                scan(&mut random, &mut snapshot.range(&keyspace, range.clone()), &within(model, &range));
            }
        }
        for compacted in [false, true] {
            if compacted {
                drop(std::mem::take(&mut snapshots));
                duramen::Database::compact(&db).unwrap();
            }
            for key in (0..KEYS).map(key) {
                assert_eq!(keyspace.get(&key).unwrap().as_deref(), model.get(&key).map(|value| &value[..]));
            }
            assert!(duramen::Database::verify(&db).unwrap().problems.is_empty());
        }
    });
}

/// Scans pass by versions of a key that they need not look at; here a key has hundreds, of
/// every kind.
#[test]
fn keys_of_many_versions() {
    for_seeds(0..seed_count(40), |seed| {
        let mut random = Random::new(seed);
        let options = Options { background: Background::Inline, ..Options::default() };
        let db = Db::open_with(Arc::new(MemoryStorage::new()), options).unwrap();
        let append = KeyspaceOptions { merge_operator: Some("append".to_owned()), ..Default::default() };
        let keyspace = db.keyspace_with("k", append).unwrap();
        let mut model = Model::new();
        let mut snapshots: Vec<(Snapshot, Model)> = Vec::new();
        for _ in 0..30 {
            let key = vec![b'a' + random.below(3) as u8];
            let kind = random.below(6);
            for version in 0..random.below(60) {
                match kind {
                    0 | 1 => {
                        keyspace.put(&key, &[version as u8]).unwrap();
                        model.insert(key.clone(), vec![version as u8]);
                    }
                    2 | 3 => {
                        keyspace.merge(&key, &[version as u8]).unwrap();
                        model.entry(key.clone()).or_default().push(version as u8);
                    }
                    4 => {
                        keyspace.delete(&key).unwrap();
                        model.remove(&key);
                    }
                    _ => {
                        keyspace.delete_range(&key[..]..=&key[..]).unwrap();
                        model.remove(&key);
                    }
                }
                if random.one_in(20) {
                    snapshots.push((db.snapshot(), model.clone()));
                }
            }
            if snapshots.len() > 6 {
                snapshots.drain(..4);
            }
            if random.one_in(3) {
                duramen::Database::flush(&db).unwrap();
            }
            let range = (Bound::Unbounded, Bound::Unbounded);
            scan(&mut random, &mut keyspace.range::<Vec<u8>>(range.clone()), &within(&model, &range));
            for (snapshot, model) in &snapshots {
                scan(&mut random, &mut snapshot.range(&keyspace, range.clone()), &within(model, &range));
            }
        }
    });
}
