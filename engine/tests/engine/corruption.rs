//! Goal: a damaged bit anywhere is told, by file and place, or makes no
//! difference; it never gives a wrong answer and never a panic. Method: a small
//! database of several keyspaces and levels, one bit flipped in each byte of
//! each file in turn; it is opened, verified, scanned and asked for every key.

use std::collections::BTreeMap;

use duramen::api::{Database, ScanRange};
use duramen::storage::memory::MemoryStorage;
use duramen::{Compression, Durability, Error, Options, Result, WriteBatch};

use crate::support::{Contents, contents, files, open, scan, small, with_file};

/// Zeros of `CURRENT` that nobody reads are tried at this distance only.
const PADDING_STRIDE: usize = 97;

fn options() -> Options {
    Options { memtable_bytes: 1 << 20, compression: Compression::Snappy, ..small() }
}

/// A level 1 of several files, two runs of level 0 and commits in the WAL, of
/// two keyspaces; closed or killed. `number` is different after each commit.
fn database(closed: bool) -> (MemoryStorage, Vec<Contents>) {
    let storage = MemoryStorage::new();
    let db = open(&storage, options()).unwrap();
    let ids = ["first", "second"].map(|name| db.create_keyspace(name).unwrap());
    let mut history = vec![Contents::new()];
    for n in 0..110u32 {
        let mut now = history.last().unwrap().clone();
        let mut batch = WriteBatch::new();
        let mut put = |space: usize, key: Vec<u8>, value: Vec<u8>| {
            batch.put(ids[space], &key, &value);
            now.insert((["first", "second"][space].to_owned(), key), value);
        };
        put(1, b"number".to_vec(), n.to_le_bytes().to_vec());
        let value = [b"compressible".repeat(n as usize % 4), (n * n * 7919).to_le_bytes().to_vec()].concat();
        put(0, format!("key{:03}", n * 37 % 80).into_bytes(), value.clone());
        if n % 10 == 0 {
            put(1, format!("key{n:03}").into_bytes(), value);
            let gone = format!("key{:03}", n / 2).into_bytes();
            batch.delete(ids[0], &gone);
            now.remove(&("first".to_owned(), gone));
        }
        db.write(batch, Durability::Sync).unwrap();
        history.push(now);
        match n {
            70 => db.compact().unwrap(),
            85 | 100 => db.flush().unwrap(),
            _ => {}
        }
    }
    if closed {
        db.close().unwrap();
    }
    assert_eq!(&contents(&db).ok(), &(!closed).then(|| history.last().unwrap().clone()));
    (storage, history)
}

/// What the error says about its place, or a panic if it does not.
fn place(error: Error) -> (String, u64) {
    match error {
        Error::Corruption { file, offset, .. } => (file, offset),
        other => panic!("not corruption: {other}"),
    }
}

fn keep(outcome: Result<Contents>, told: &mut Vec<(String, u64)>) -> Option<Contents> {
    outcome.map_err(|error| told.push(place(error))).ok()
}

/// Asks for everything in every way. Answers that are given must be one of
/// `allowed`; answers the damage that was told.
fn look(db: &dyn Database, allowed: &[Contents]) -> Vec<(String, u64)> {
    let mut told = Vec::new();
    let found = keep(contents(db), &mut told);
    let allowed: Vec<&Contents> = match &found {
        Some(found) => {
            assert!(allowed.contains(found), "a wrong answer");
            vec![found]
        }
        None => allowed.iter().collect(),
    };
    for (name, id) in db.keyspaces().unwrap() {
        let backward = scan(db, id, &ScanRange::all().reversed());
        let named = |(key, value)| ((name.clone(), key), value);
        if let Some(found) = keep(backward.map(|pairs| pairs.into_iter().map(named).collect()), &mut told) {
            let in_name = |contents: &Contents| -> Contents {
                contents.clone().into_iter().filter(|((keyspace, _), _)| *keyspace == name).collect()
            };
            assert!(allowed.iter().any(|contents| in_name(contents) == found), "a wrong answer backwards");
        }
        for n in 0..112 {
            let key = if n < 111 { format!("key{n:03}").into_bytes() } else { b"number".to_vec() };
            match db.get(id, &key, None) {
                Ok(value) => {
                    let value = value.map(|value| value.to_vec());
                    let name_and_key = (name.clone(), key);
                    let right = |contents: &&Contents| contents.get(&name_and_key) == value.as_ref();
                    assert!(allowed.iter().any(right), "a wrong answer for {name_and_key:?}");
                }
                Err(error) => told.push(place(error)),
            }
        }
    }
    told
}

/// What became of each byte of a file.
#[derive(Debug, Default)]
struct Tally {
    refused: usize,
    reported: usize,
    harmless: usize,
}

/// Flips a bit in each byte of each file for which `wanted` holds. An open that
/// succeeds must show one of `allowed`.
fn flip(
    storage: &MemoryStorage,
    allowed: &[Contents],
    wanted: impl Fn(&str) -> bool,
) -> BTreeMap<String, Tally> {
    let mut tallies = BTreeMap::new();
    for (path, good) in files(storage).into_iter().filter(|(path, _)| wanted(path)) {
        let tally: &mut Tally = tallies.entry(path.clone()).or_default();
        let mut at = 0;
        while at < good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            let whence = || format!("{path}: bit {} of byte {at}", at % 8);
            let db = match open(&with_file(storage, &path, bad), options()) {
                Ok(db) => Some(db),
                Err(error) => {
                    assert_eq!(place(error).0, path, "{}", whence());
                    tally.refused += 1;
                    None
                }
            };
            if let Some(db) = db {
                let report = db.verify().unwrap_or_else(|error| panic!("{}: {error}", whence()));
                for problem in &report.problems {
                    assert!(problem.file == path && problem.offset <= good.len() as u64, "{problem:?}");
                }
                let told = look_at(&db, allowed, &whence());
                for (file, offset) in &told {
                    assert!(*file == path && *offset <= good.len() as u64, "{}: {file}", whence());
                }
                assert!(told.is_empty() || !report.problems.is_empty(), "{}: verify is blind", whence());
                match report.problems.is_empty() {
                    true => tally.harmless += 1,
                    false => tally.reported += 1,
                }
            }
            let padding = path == "CURRENT" && at % 4096 >= 44;
            at += if padding { PADDING_STRIDE.min(4096 - at % 4096) } else { 1 };
        }
    }
    tallies
}

fn look_at(db: &dyn Database, allowed: &[Contents], whence: &str) -> Vec<(String, u64)> {
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| look(db, allowed)));
    outcome.unwrap_or_else(|panic| {
        eprintln!("{whence}");
        std::panic::resume_unwind(panic)
    })
}

#[test]
fn every_byte_of_an_sstable_is_covered() {
    let (storage, history) = database(true);
    let tallies = flip(&storage, &history[history.len() - 1..], |path| path.starts_with("sst/"));
    assert!(tallies.len() >= 6, "{tallies:?}");
    for (path, tally) in tallies {
        assert!(tally.reported > 500, "{path}: {tally:?}");
        assert_eq!((tally.refused, tally.harmless), (0, 0), "{path}: {tally:?}");
    }
}

#[test]
fn damage_to_logs_after_a_close_is_told_or_harmless() {
    let (storage, history) = database(true);
    let tallies = flip(&storage, &history[history.len() - 1..], |path| !path.starts_with("sst/"));
    assert_eq!(tallies.len(), 3, "{tallies:?}");
    for (path, tally) in tallies {
        // Of the last frame nobody knows that it was synced: the seal of the
        // WAL, the clean close in the manifest. Neither is missed.
        assert!(tally.refused > 40 && tally.reported == 0, "{path}: {tally:?}");
        if path != "CURRENT" {
            assert!((1..100).contains(&tally.harmless), "{path}: {tally:?}");
        }
    }
}

#[test]
fn damage_to_logs_after_a_kill_takes_at_most_the_last_commit() {
    let (storage, history) = database(false);
    let all = history.len();
    let wal = flip(&storage, &history[all - 2..], |path| path.starts_with("wal/"));
    let others =
        flip(&storage, &history[all - 1..], |path| path == "CURRENT" || path.starts_with("manifest/"));
    assert_eq!((wal.len(), others.len()), (1, 2));
    for (path, tally) in wal.into_iter().chain(others) {
        assert!(tally.refused > 40 && tally.reported == 0, "{path}: {tally:?}");
    }
}

#[test]
fn what_is_not_damaged_stays_readable() {
    let (storage, history) = database(true);
    let expected = history.last().unwrap();
    for (path, good) in files(&storage).into_iter().filter(|(path, _)| path.starts_with("sst/")) {
        // In the first pages: the tail is whole, and other pages are.
        let mut bad = good;
        bad[10] ^= 1;
        let damaged = with_file(&storage, &path, bad.clone());
        let db = open(&damaged, options()).unwrap();
        let mut lost = 0;
        for ((name, key), value) in expected {
            let id = db.find_keyspace(name).unwrap().unwrap();
            match db.get(id, key, None) {
                Ok(found) => assert_eq!(found.as_deref(), Some(&value[..])),
                Err(error) => {
                    assert_eq!(place(error).0, path);
                    lost += 1;
                }
            }
        }
        assert!(lost < expected.len(), "{path}: nothing is left");
        // A compaction does not spread the damage: it fails, and its inputs stay.
        let error = db.compact().unwrap_err();
        assert_eq!(place(error).0, path);
        assert!(damaged.read(&path) == Some(bad));
        db.put(db.keyspaces().unwrap()[0].1, b"new", b"", Durability::Sync).unwrap();
    }
}
