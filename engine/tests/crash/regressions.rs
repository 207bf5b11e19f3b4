//! Crashes that once lost something, each named after its defect.

use duramen::storage::fault::{Crash, Fault, FaultKind, FaultStorage, Names, Operation};
use duramen::{Database, Db, Durability, Error, KeyspaceId};

use crate::run::{open, options};
use crate::workload;

/// A database with one keyspace.
fn new_database() -> (FaultStorage, Db, KeyspaceId) {
    let storage = FaultStorage::new(1);
    let db = open_again(&storage);
    let id = db.create_keyspace("k").unwrap();
    (storage, db, id)
}

fn open_again(storage: &FaultStorage) -> Db {
    open(storage, &options(&workload::commits(0))).unwrap()
}

/// The storage as a kill leaves it right after the change that `last` begins.
fn killed_after(storage: &FaultStorage, last: &str) -> FaultStorage {
    let mut replay = storage.replay();
    let mut found = None;
    while replay.advance() {
        if replay.last_change().starts_with(last) {
            found = Some(replay.crash(Crash::Kill));
        }
    }
    found.unwrap_or_else(|| panic!("there is no {last}"))
}

/// Commits to what a kill left, and loses power.
fn write_and_lose_power(killed: &FaultStorage, id: KeyspaceId) -> Db {
    let db = open_again(killed);
    db.put(id, b"later", b"2", Durability::Sync).unwrap();
    open_again(&killed.crash(Crash::LoseAll))
}

/// The seal was written when the process was killed, and not synced. Recovery
/// took the WAL for sealed, a later one took batches, and power loss took the
/// seal: "the log ends without its seal".
#[test]
fn a_seal_that_a_kill_left_is_synced() {
    let (storage, db, id) = new_database();
    db.put(id, b"early", b"1", Durability::Sync).unwrap();
    db.flush().unwrap();
    // The WAL is number 2; the seal is the last that is written to it.
    let db = write_and_lose_power(&killed_after(&storage, "write wal/000002.log"), id);
    assert_eq!(db.get(id, b"early", None).unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(db.get(id, b"later", None).unwrap().as_deref(), Some(&b"2"[..]));
}

/// `CURRENT` was written, and even synced, when the process that created the
/// database was killed, but its name was not durable. Recovery did not sync it,
/// and power loss took it together with everything written since: "there is no
/// live generation".
#[test]
fn the_name_of_current_that_a_kill_left_is_synced() {
    let (storage, _db, id) = new_database();
    for last in ["write CURRENT 8192", "sync CURRENT"] {
        let killed = killed_after(&storage, last);
        assert_eq!(open_again(&killed).create_keyspace("k").unwrap(), id);
        let db = write_and_lose_power(&killed, id);
        assert_eq!(db.get(id, b"later", None).unwrap().as_deref(), Some(&b"2"[..]));
    }
}

/// Two slots of `CURRENT` were written by two processes, the first of which was
/// killed before its sync; power loss kept only the second: "the generations of
/// the slots do not follow each other".
#[test]
fn a_slot_of_current_that_a_kill_left_is_synced() {
    let (storage, db, id) = new_database();
    db.put(id, b"early", b"1", Durability::Sync).unwrap();
    drop(db);
    drop(open_again(&storage));
    drop(open_again(&storage));
    // The last overwrite of a slot, without its sync.
    let killed = killed_after(&storage, "write CURRENT 4096");
    drop(open_again(&killed));
    let mut replay = killed.replay();
    while !replay.last_change().starts_with("write CURRENT") {
        assert!(replay.advance());
    }
    for seed in 0..50 {
        let db = open_again(&replay.crash(Crash::LoseSome(seed)));
        assert_eq!(db.get(id, b"early", None).unwrap().as_deref(), Some(&b"1"[..]));
    }
}

/// The sync of a new WAL failed, and the commit answered that the database
/// takes no writes until it is opened again; the next commit was taken.
#[test]
fn a_failed_sync_of_a_new_wal_poisons() {
    let (storage, db, id) = new_database();
    storage.inject(Fault { kind: FaultKind::Io, skip: 0, forever: false, only: Some(Operation::SyncData) });
    for _ in 0..2 {
        let outcome = db.put(id, b"key", b"1", Durability::Buffered);
        assert!(matches!(outcome, Err(Error::Poisoned(_))), "{outcome:?}");
    }
    assert_eq!(storage.take_fired(), [(Operation::SyncData, "wal/000002.log".to_owned())]);
    assert_eq!(db.get(id, b"key", None).unwrap(), None);
    drop(db);
    open_again(&storage).put(id, b"key", b"1", Durability::Buffered).unwrap();
}

/// The last sync of a WAL failed in `close`, which answered that all was well.
#[test]
fn close_tells_of_its_failed_sync() {
    let (storage, db, id) = new_database();
    db.put(id, b"key", b"1", Durability::Buffered).unwrap();
    storage.inject(Fault { kind: FaultKind::Io, skip: 0, forever: false, only: Some(Operation::SyncData) });
    let outcome = db.close();
    assert!(matches!(outcome, Err(Error::Poisoned(_))), "{outcome:?}");
}

/// Where directories cannot be synced, power loss took the directory of a
/// keyspace and left the edit that creates the keyspace; then no flush of it
/// succeeded any more.
#[test]
fn a_lost_directory_of_a_keyspace_is_made_again() {
    let storage = FaultStorage::with_names(1, Names::InOrder);
    let db = open_again(&storage);
    db.create_keyspace("k").unwrap();
    let mut replay = storage.replay();
    loop {
        for seed in 0..20 {
            let db = open_again(&replay.crash(Crash::LoseSome(seed)));
            let id = db.create_keyspace("k").unwrap();
            db.put(id, b"key", b"1", Durability::Sync).unwrap();
            db.flush().unwrap();
        }
        if !replay.advance() {
            return;
        }
    }
}

/// After a failed sync the system answers bytes that never reach the disk, and
/// further syncs succeed. Who opened the database again without a reboot read
/// those bytes, and the next power loss took what the new manifest relied on.
/// The storage's `sync` of a file makes up for it.
#[test]
fn bytes_of_a_failed_sync_are_saved_by_opening_again() {
    let (storage, db, id) = new_database();
    db.put(id, b"early", b"1", Durability::Buffered).unwrap();
    storage.inject(Fault { kind: FaultKind::Io, skip: 0, forever: false, only: Some(Operation::SyncData) });
    assert!(matches!(db.sync(), Err(Error::Poisoned(_))));
    assert_eq!(db.get(id, b"early", None).unwrap().as_deref(), Some(&b"1"[..]));
    drop(db);
    let db = write_and_lose_power(&storage, id);
    assert_eq!(db.get(id, b"early", None).unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(db.get(id, b"later", None).unwrap().as_deref(), Some(&b"2"[..]));
}

/// The live slot of `CURRENT` was damaged while the manifest of the generation
/// before was still there, as it is where directories cannot be synced. That
/// generation was taken for live, and the commits since were gone in silence.
#[test]
fn damage_to_the_live_slot_of_current_is_told() {
    let storage = FaultStorage::with_names(1, Names::InOrder);
    drop(open_again(&storage));
    let db = open_again(&storage);
    let id = db.create_keyspace("k").unwrap();
    db.put(id, b"key", b"1", Durability::Sync).unwrap();
    drop(db);
    // The second generation is in the second slot.
    storage.rot("CURRENT", 4096 + 20, 3);
    let options = options(&workload::commits(0));
    match open(&storage, &options) {
        Err(Error::Corruption { file, what, .. }) => assert_eq!(file, "CURRENT", "{what}"),
        other => panic!("{other:?}"),
    }
    storage.clear_faults();
    assert!(open_again(&storage).get(id, b"key", None).unwrap().is_some());
}
