//! Crashes that once lost something, each named after its defect.

use duramen::storage::fault::{Crash, FaultStorage};
use duramen::{Database, Db, Durability, KeyspaceId};

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
