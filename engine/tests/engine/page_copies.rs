//! Goal: pages that a merge copies as they are stored hold what entries merged one by one
//! would, and nothing that nobody can read. Method: tables whose pages meet where it
//! matters, merged into one run; entries are counted.

use duramen::api::{Database, ScanRange};
use duramen::storage::memory::MemoryStorage;
use duramen::{Db, Keyspace, Options};

use crate::support::{open, scan, small};

/// A database whose tables and memtables have room for many pages.
fn database() -> (Db, Keyspace) {
    let options = Options { memtable_bytes: 8 << 20, target_file_bytes: 16 << 20, ..small() };
    let db = open(&MemoryStorage::new(), options).unwrap();
    let keyspace = db.keyspace("default").unwrap();
    (db, keyspace)
}

fn key(number: usize) -> Vec<u8> {
    format!("key{number:05}").into_bytes()
}

/// Entries in all tables.
fn entries(db: &Db) -> u64 {
    let stats = db.stats().unwrap();
    assert!(stats.keyspaces[0].runs.len() <= 1, "{:?}", stats.keyspaces[0].runs);
    stats.keyspaces[0].runs.iter().map(|run| run.entries).sum()
}

fn rows(db: &Db, keyspace: &Keyspace) -> Vec<(Vec<u8>, Vec<u8>)> {
    scan(db, keyspace.id(), &ScanRange::all()).unwrap()
}

/// Each has a page of its own, and so has the older version in the other table.
#[test]
fn of_long_values_only_what_somebody_reads_is_kept() {
    let (db, keyspace) = database();
    let value = |number: usize, version: u8| vec![version; 9_000 + number];
    for number in 0..60 {
        keyspace.put(&key(number), &value(number, 1)).unwrap();
    }
    db.flush().unwrap();
    let snapshot = db.snapshot();
    for number in (0..60).step_by(2) {
        keyspace.put(&key(number), &value(number, 2)).unwrap();
    }
    keyspace.delete(&key(31)).unwrap();
    db.flush().unwrap();
    db.compact().unwrap();
    let expected: Vec<_> = (0..60)
        .filter(|number| *number != 31)
        .map(|number| (key(number), value(number, if number % 2 == 0 { 2 } else { 1 })))
        .collect();
    assert_eq!(rows(&db, &keyspace), expected);
    assert_eq!(entries(&db), 60 + 30 + 1);
    for number in 0..60 {
        assert_eq!(snapshot.get(&keyspace, &key(number)).unwrap().unwrap(), value(number, 1));
    }
    drop(snapshot);
    db.compact().unwrap();
    assert_eq!(rows(&db, &keyspace), expected);
    assert_eq!(entries(&db), 59);
}

/// The last key of a full page has a newer version, or an older one, elsewhere.
#[test]
fn pages_that_meet_in_a_key_are_merged() {
    for newer in [true, false] {
        let (db, keyspace) = database();
        let many = |version: u8| {
            for number in 0..1_000 {
                keyspace.put(&key(number), &[version; 100]).unwrap();
            }
        };
        let few = |version: u8| {
            // Pages have 128 rows.
            for number in [127, 255, 256, 511] {
                keyspace.put(&key(number), &[version; 100]).unwrap();
            }
        };
        if newer {
            many(1)
        } else {
            few(1)
        }
        db.flush().unwrap();
        if newer {
            few(2)
        } else {
            many(2)
        }
        db.flush().unwrap();
        db.compact().unwrap();
        let version = |number| if newer && ![127, 255, 256, 511].contains(&number) { 1 } else { 2 };
        let expected: Vec<_> = (0..1_000).map(|number| (key(number), vec![version(number); 100])).collect();
        assert_eq!(rows(&db, &keyspace), expected, "newer: {newer}");
        assert_eq!(entries(&db), 1_000, "newer: {newer}");
    }
}
