//! Goal: a checkpoint of a database that is open in a sandbox is complete, stays so,
//! and is no database until then. Method: make it while writes go on, where something
//! is in the way, and with the guest ended in the middle; open it natively and in a
//! sandbox.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;

use duramen::checkpoint::STAGING_DIR;
use duramen::{Database, Durability, Error, KeyspaceId, Result, WriteBatch};
use duramen_host::{Sandbox, SandboxOptions};

use crate::traps::io;
use crate::{existing, open, options};

/// A database with tables in two keyspaces, one keyspace that is empty, and a WAL.
fn filled(directory: &Path) -> (Sandbox, KeyspaceId) {
    let db = open(directory);
    let keyspace = db.create_keyspace("k").unwrap();
    let other = db.create_keyspace("other").unwrap();
    db.create_keyspace("empty").unwrap();
    for number in 0..1000u64 {
        let mut batch = WriteBatch::new();
        batch.put(keyspace, &number.to_be_bytes(), &[number as u8; 200]);
        batch.put(other, &number.to_be_bytes(), b"");
        db.write(batch, Durability::Buffered).unwrap();
        if number == 700 {
            db.flush().unwrap();
        }
    }
    (db, keyspace)
}

fn check_filled(directory: &Path) {
    for native in [true, false] {
        let copy = duramen_host::open(directory, native, existing()).unwrap();
        let keyspace = copy.find_keyspace("k").unwrap().unwrap();
        assert!(copy.find_keyspace("empty").unwrap().is_some());
        for number in 0..1000u64 {
            let value = copy.get(keyspace, &number.to_be_bytes(), None).unwrap().unwrap();
            assert_eq!(value, [number as u8; 200][..]);
        }
        assert_eq!(copy.get(keyspace, b"later", None).unwrap(), None);
        assert_eq!(copy.verify().unwrap().problems, []);
        copy.close().unwrap();
    }
}

#[test]
fn a_checkpoint_is_whole_and_goes_its_own_way() {
    let (directory, beside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (db, keyspace) = filled(directory.path());
    let target = beside.path().join("new/copy");
    let made = db.checkpoint(&target).unwrap();
    assert_eq!(made.last_sequence, db.stats().unwrap().last_sequence);
    assert_eq!(made.files, 3);
    assert!(made.bytes_linked > 0 && made.bytes_linked < made.bytes, "{made:?}");
    assert!(!directory.path().join(STAGING_DIR).exists());
    assert!(!target.join("CHECKPOINT").exists());

    db.put(keyspace, b"later", b"", Durability::Buffered).unwrap();
    db.compact().unwrap();
    check_filled(&target);
    // A second one, into a directory that is there and empty.
    let empty = tempfile::tempdir().unwrap();
    db.checkpoint(empty.path()).unwrap();
    assert!(matches!(db.checkpoint(empty.path()), Err(Error::InvalidArgument(_))));
    db.close().unwrap();
    assert!(matches!(db.checkpoint(beside.path().join("closed")), Err(Error::InvalidArgument(_))));
    drop(db);
    fs::remove_dir_all(directory.path()).unwrap();
    check_filled(&target);
}

#[test]
fn a_checkpoint_is_refused_where_something_is_and_changes_nothing_there() {
    let (directory, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (db, _) = filled(directory.path());
    fs::write(target.path().join("mine"), "precious").unwrap();
    assert!(matches!(db.checkpoint(target.path()), Err(Error::InvalidArgument(_))));
    let names: Vec<_> =
        fs::read_dir(target.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["mine"]);
    // Its own directory, and what is on its way there, are no places for it either.
    for place in [directory.path().to_owned(), directory.path().join(STAGING_DIR)] {
        assert!(db.checkpoint(&place).is_err());
    }
    fs::remove_file(target.path().join("mine")).unwrap();
    db.checkpoint(target.path()).unwrap();
    check_filled(target.path());
}

#[test]
fn what_an_interrupted_checkpoint_left_is_made_anew_and_removed() {
    let (directory, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (db, _) = filled(directory.path());
    // As a kill leaves it: in the target a part, in the directory all.
    let staging = directory.path().join(STAGING_DIR);
    fs::create_dir_all(staging.join("sst/1")).unwrap();
    fs::write(staging.join("sst/1/000099.parquet"), "cut").unwrap();
    fs::write(staging.join("CURRENT"), [0; 8192]).unwrap();
    fs::write(target.path().join("CHECKPOINT"), "").unwrap();
    fs::create_dir_all(target.path().join("sst/1")).unwrap();
    fs::write(target.path().join("sst/1/000098.parquet"), "cut").unwrap();
    for native in [true, false] {
        assert!(duramen_host::open(target.path(), native, existing()).is_err());
    }
    db.checkpoint(target.path()).unwrap();
    check_filled(target.path());
    assert!(!target.path().join("sst/1/000098.parquet").exists());

    fs::create_dir(&staging).unwrap();
    drop(db);
    let native = duramen_host::open(directory.path(), true, existing()).unwrap();
    drop(native);
    assert!(staging.exists(), "the engine itself does not know the directory");
    drop(open(directory.path()));
    assert!(!staging.exists());
}

#[test]
fn a_checkpoint_whose_guest_ends_is_no_database() {
    let (directory, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    drop(filled(directory.path()));
    let db =
        Sandbox::open(directory.path(), SandboxOptions { call_fuel: Some(u64::MAX), ..options() }).unwrap();
    let mut ended = 0;
    let mut fuel = 20_000;
    loop {
        db.set_fuel(None, Some(fuel)).unwrap();
        let outcome = db.checkpoint(target.path());
        db.set_fuel(None, None).unwrap();
        assert!(!directory.path().join(STAGING_DIR).exists());
        if outcome.is_ok() {
            break;
        }
        assert_eq!(io(outcome).0, ErrorKind::TimedOut);
        assert!(duramen_host::open(target.path(), true, existing()).is_err());
        assert_eq!(db.verify().unwrap().problems, []);
        (ended, fuel) = (ended + 1, fuel + fuel / 8);
    }
    assert!(ended >= 10, "ended {ended} times, finished with {fuel}");
    check_filled(target.path());
}

/// Both keys of a commit, always the same.
fn pair(db: &dyn Database, keyspace: KeyspaceId) -> Result<(u64, u64)> {
    let values = db.multi_get(keyspace, &[b"first", b"second"], None)?;
    let number = |at: usize| {
        values[at].as_ref().map_or(0, |value| u64::from_le_bytes(value[..].try_into().expect("8 bytes")))
    };
    Ok((number(0), number(1)))
}

#[test]
fn checkpoints_are_made_while_writes_go_on() {
    let (directory, beside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let db = open(directory.path());
    let keyspace = db.create_keyspace("k").unwrap();
    let (written, over) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for number in 1u64.. {
                let mut batch = WriteBatch::new();
                batch.put(keyspace, b"first", &number.to_le_bytes());
                batch.put(keyspace, &number.to_be_bytes(), &[7; 1000]);
                batch.put(keyspace, b"second", &number.to_le_bytes());
                db.write(batch, Durability::Buffered).unwrap();
                written.store(number, Relaxed);
                if over.load(Relaxed) {
                    break;
                }
            }
        });
        for round in 0..5 {
            let before = written.load(Relaxed);
            while written.load(Relaxed) == before {
                thread::yield_now();
            }
            let before = written.load(Relaxed);
            // Two at once take turns.
            let targets = [0, 1].map(|twin| beside.path().join(format!("{round}-{twin}")));
            thread::scope(|scope| {
                for target in &targets {
                    let db = &db;
                    scope.spawn(move || db.checkpoint(target).unwrap());
                }
            });
            for target in &targets {
                let copy = duramen_host::open(target, true, existing()).unwrap();
                let (first, second) = pair(copy.as_ref(), keyspace).unwrap();
                assert_eq!(first, second);
                assert!((before..=written.load(Relaxed) + 1).contains(&first), "{first}, {before} before");
            }
        }
        over.store(true, Relaxed);
        writer.join().unwrap();
    });
    assert_eq!(db.verify().unwrap().problems, []);
}
