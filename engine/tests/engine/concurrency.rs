//! Goal: with many threads nothing is seen torn, out of order or unfrozen, and
//! a close in their midst gives clean errors and loses nothing. Method: batches
//! that write one number to several keys of two keyspaces, with memtables so
//! small that flushes and compactions run all the time; every thread does a
//! fixed number of rounds, and the invariants hold whatever the interleaving.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;

use bytes::Bytes;
use duramen::api::Database;
use duramen::storage::memory::MemoryStorage;
use duramen::{Background, Batch, Db, Durability, Keyspace, KeyspaceOptions, MemtableKind, Options, Result};

use crate::random::Random;
use crate::support::{kind, open, small};

const WRITERS: u64 = 3;
const KEYS: u64 = 4;

fn threaded() -> Options {
    Options { background: Background::Threads, ..small() }
}

fn keyspaces(db: &Db) -> [Keyspace; 2] {
    [("first", MemtableKind::Sorted), ("second", MemtableKind::SkipList)].map(|(name, memtable)| {
        let options = KeyspaceOptions { memtable: Some(memtable), ..KeyspaceOptions::default() };
        db.keyspace_with(name, options).unwrap()
    })
}

/// Key `n` of a writer; the keys of one lie together.
fn key(writer: u64, n: u64) -> Vec<u8> {
    format!("writer{writer}/key{n}").into_bytes()
}

/// A number as a value, long enough to fill memtables.
fn value(number: u64) -> Vec<u8> {
    [&number.to_le_bytes()[..], &vec![number as u8; number as usize % 50]].concat()
}

fn number(value: &[u8]) -> u64 {
    let number = u64::from_le_bytes(value[..8].try_into().unwrap());
    assert_eq!(value, self::value(number), "a value that nobody wrote");
    number
}

/// The number that is under all `values`; 0 if there are none.
fn one_number<'v>(values: impl IntoIterator<Item = Option<&'v Bytes>>) -> u64 {
    let numbers: Vec<u64> = values.into_iter().map(|value| value.map_or(0, |value| number(value))).collect();
    assert!(numbers.iter().all(|number| *number == numbers[0]), "a torn batch: {numbers:?}");
    numbers[0]
}

fn batch(db: &Db, keyspaces: &[Keyspace; 2], writer: u64, number: u64) -> Batch {
    let mut batch = db.batch();
    for n in 0..KEYS {
        keyspaces.iter().for_each(|keyspace| {
            batch.put(keyspace, &key(writer, n), &value(number));
        });
    }
    // So that there are tombstones to compact, too.
    batch.delete(&keyspaces[0], format!("gone{}", number % 10).as_bytes());
    batch
}

/// What every reader sees of one writer, by all ways of reading: numbers that
/// are the same everywhere and never smaller than `before`.
fn look(db: &Db, keyspaces: &[Keyspace; 2], writer: u64, before: u64) -> u64 {
    let [first, second] = keyspaces;
    let keys: Vec<Vec<u8>> = (0..KEYS).map(|n| key(writer, n)).collect();
    let found = first.multi_get(&keys).unwrap();
    let together = one_number(found.iter().map(Option::as_ref));
    assert!(together >= before, "{together} after {before}");

    let snapshot = db.snapshot();
    let gets: Vec<Option<Bytes>> = keyspaces
        .iter()
        .flat_map(|keyspace| keys.iter().map(|key| snapshot.get(keyspace, key).unwrap()))
        .collect();
    let frozen = one_number(gets.iter().map(Option::as_ref));
    assert!(frozen >= together, "the snapshot shows {frozen} after {together}");
    for keyspace in keyspaces {
        let prefix = format!("writer{writer}/");
        let rows = snapshot.prefix(keyspace, prefix.as_bytes()).map(|row| row.unwrap().1);
        let rows: Vec<Bytes> = rows.collect();
        assert_eq!(rows.len() as u64, if frozen == 0 { 0 } else { KEYS });
        assert_eq!(rows.first().map_or(0, |_| one_number(rows.iter().map(Some))), frozen);
    }
    let rows: Vec<Bytes> =
        second.prefix(format!("writer{writer}/").as_bytes()).rev().map(|row| row.unwrap().1).collect();
    let scanned = rows.first().map_or(0, |_| one_number(rows.iter().map(Some)));
    assert!(scanned >= frozen, "a scan shows {scanned} after {frozen}");
    scanned
}

#[test]
fn batches_are_never_torn_and_never_go_back() {
    const COMMITS: u64 = 400;
    let storage = MemoryStorage::new();
    let db = open(&storage, threaded()).unwrap();
    let spaces = keyspaces(&db);
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (db, spaces) = (&db, &spaces);
            scope.spawn(move || {
                for number in 1..=COMMITS {
                    let durability = if number % 7 == 0 { Durability::Sync } else { Durability::Buffered };
                    batch(db, spaces, writer, number).commit(durability).unwrap();
                    // Who has committed sees it, or what came later.
                    let own = spaces[1].get(&key(writer, number % KEYS)).unwrap();
                    assert_eq!(own.map(|value| self::number(&value)), Some(number));
                }
            });
        }
        for reader in 0..3 {
            let (db, spaces) = (&db, &spaces);
            scope.spawn(move || {
                let mut random = Random::new(reader);
                let mut seen = [0; WRITERS as usize];
                for _ in 0..150 {
                    let writer = random.below(WRITERS);
                    let before = &mut seen[writer as usize];
                    *before = look(db, spaces, writer, *before);
                }
            });
        }
        scope.spawn(|| {
            for round in 0..12 {
                if round % 3 == 0 { db.compact().unwrap() } else { db.flush().unwrap() }
            }
        });
    });
    let stats = db.stats().unwrap();
    assert_eq!((stats.commits, stats.last_sequence), (WRITERS * COMMITS, WRITERS * COMMITS));
    assert!(stats.flushes > 10 && stats.compactions > 1, "{stats:?}");
    assert_eq!(stats.snapshots, 0);
    for writer in 0..WRITERS {
        assert_eq!(look(&db, &spaces, writer, COMMITS), COMMITS);
    }
    assert_eq!(db.verify().unwrap().problems, []);
    drop((db, spaces));
    let db = open(&storage, threaded()).unwrap();
    let spaces = keyspaces(&db);
    for writer in 0..WRITERS {
        assert_eq!(look(&db, &spaces, writer, COMMITS), COMMITS, "after reopening");
    }
    assert_eq!(db.stats().unwrap().last_sequence, WRITERS * COMMITS);
}

#[test]
fn snapshots_and_iterators_stay_as_they_were() {
    let db = open(&MemoryStorage::new(), threaded()).unwrap();
    let spaces = keyspaces(&db);
    let [first, second] = &spaces;
    let mut map = BTreeMap::new();
    for n in 0..200u64 {
        let (key, value) = (format!("key{:03}", n * 7 % 150).into_bytes(), value(n));
        first.put(&key, &value).unwrap();
        map.insert(key, value);
    }
    let expected: Vec<(Vec<u8>, Vec<u8>)> = map.into_iter().collect();
    let snapshot = db.snapshot();
    // Begun before everything changes, and walked on in between.
    let mut forward = first.range::<&[u8]>(..);
    let mut backward = first.range::<&[u8]>(..).rev();
    let mut both = first.range::<&[u8]>(..);
    let mut late = snapshot.range::<&[u8]>(first, ..);
    let owned = |row: Result<(Bytes, Bytes)>| row.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap();
    let mut from_front: Vec<_> = forward.by_ref().take(20).map(owned).collect();
    let mut from_back: Vec<_> = backward.by_ref().take(20).map(owned).collect();
    let mut front: Vec<_> = both.by_ref().take(5).map(owned).collect();
    let mut back: Vec<_> = both.by_ref().rev().take(5).map(owned).collect();
    thread::scope(|scope| {
        for writer in 0..2u64 {
            scope.spawn(move || {
                for n in 0..400u64 {
                    let key = format!("key{:03}", (n * 11 + writer) % 170).into_bytes();
                    match n % 3 {
                        0 => first.delete(&key).unwrap(),
                        _ => first.put(&key, &value(1000 + n)).unwrap(),
                    }
                    second.put(&key, b"elsewhere").unwrap();
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..10 {
                db.flush().unwrap();
                let rows: Vec<_> = snapshot.range::<&[u8]>(first, ..).map(owned).collect();
                assert_eq!(rows, expected, "a snapshot has changed");
            }
        });
        scope.spawn(|| {
            for _ in 0..6 {
                db.compact().unwrap();
                for (key, value) in expected.iter().step_by(9) {
                    let found = snapshot.get(first, key).unwrap();
                    assert_eq!(found.as_deref(), Some(&value[..]), "a snapshot has changed");
                }
            }
        });
    });
    db.compact().unwrap();
    from_front.extend(forward.map(owned));
    assert_eq!(from_front, expected);
    from_back.extend(backward.map(owned));
    from_back.reverse();
    assert_eq!(from_back, expected);
    while let Some(row) = both.next_back() {
        back.push(owned(row));
        front.extend(both.next().map(owned));
    }
    front.extend(back.into_iter().rev());
    assert_eq!(front, expected);
    // This one was not begun, only made; its snapshot goes before it is walked.
    let begun = late.next().map(owned);
    drop(snapshot);
    db.compact().unwrap();
    assert_eq!(begun.into_iter().chain(late.map(owned)).collect::<Vec<_>>(), expected);
    assert_eq!(db.verify().unwrap().problems, []);
}

#[test]
fn a_close_among_others_gives_clean_errors_and_loses_nothing() {
    for round in 0..60 {
        let storage = MemoryStorage::new();
        let options = if round % 3 == 0 { small() } else { threaded() };
        let db = open(&storage, options.clone()).unwrap();
        let spaces = keyspaces(&db);
        let acknowledged: [AtomicU64; WRITERS as usize] = Default::default();
        let closed = |error: duramen::Error| {
            assert_eq!(kind(&error), "InvalidArgument", "{error}");
            assert!(error.to_string().contains("closed"), "{error}");
        };
        thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (db, spaces, acknowledged) = (&db, &spaces, &acknowledged);
                scope.spawn(move || {
                    for number in 1.. {
                        match batch(db, spaces, writer, number).commit(Durability::Buffered) {
                            Ok(()) => acknowledged[writer as usize].store(number, SeqCst),
                            Err(error) => return closed(error),
                        }
                    }
                });
            }
            scope.spawn(|| {
                loop {
                    let snapshot = db.snapshot();
                    let read = snapshot.get(&spaces[0], b"key").map(drop);
                    let scanned = spaces[1].prefix(b"writer").try_for_each(|row| row.map(drop));
                    if let Err(error) = read.and(scanned).and_then(|()| db.flush()) {
                        return closed(error);
                    }
                }
            });
            scope.spawn(|| {
                let mut iterator = spaces[0].range::<&[u8]>(..);
                loop {
                    match iterator.next() {
                        Some(Ok(_)) => {}
                        None => iterator = spaces[0].range::<&[u8]>(..),
                        Some(Err(error)) => {
                            assert!(iterator.next().is_none(), "an iterator ends after an error");
                            return closed(error);
                        }
                    }
                }
            });
            while acknowledged.iter().map(|count| count.load(SeqCst)).sum::<u64>() < 20 + round {
                thread::yield_now();
            }
            db.close().unwrap();
            db.close().map_err(closed).unwrap_err();
            db.stats().map_err(closed).unwrap_err();
            db.keyspace("third").map_err(closed).unwrap_err();
        });
        drop((db, spaces));
        let db = open(&storage, options).unwrap_or_else(|error| panic!("round {round}: {error}"));
        let spaces = keyspaces(&db);
        for writer in 0..WRITERS {
            let acknowledged = acknowledged[writer as usize].load(SeqCst);
            let found = look(&db, &spaces, writer, acknowledged);
            assert_eq!(found, acknowledged, "round {round}: a refused commit is there");
        }
        assert_eq!(db.verify().unwrap().problems, []);
    }
}

#[test]
fn keyspaces_made_at_once_are_one() {
    let storage = MemoryStorage::new();
    let db = open(&storage, threaded()).unwrap();
    let ids: Vec<Vec<u32>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let make = |n| db.keyspace(&format!("keyspace{n}")).unwrap().id().0;
                    (0..30).map(make).collect::<Vec<u32>>()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|made| *made == ids[0]));
    assert_eq!(db.keyspaces().unwrap().len(), 30);
    drop(db);
    let db = open(&storage, threaded()).unwrap();
    for (n, id) in ids[0].iter().enumerate() {
        assert_eq!(db.find_keyspace(&format!("keyspace{n}")).unwrap().map(|id| id.0), Some(*id));
    }
}

#[test]
fn workers_always_hear_that_they_must_end() {
    // One that does not keeps the drop waiting, and this test with it. Flushes
    // have just been asked for: the workers are going round.
    for n in 0..600 {
        let db = open(&MemoryStorage::new(), Options { memtable_bytes: 1, ..threaded() }).unwrap();
        let keyspace = db.keyspace("busy").unwrap();
        for _ in 0..1 + n % 4 {
            keyspace.put(b"key", b"value").unwrap();
        }
        (0..n % 25).for_each(|_| thread::yield_now());
        drop((keyspace, db));
    }
}
