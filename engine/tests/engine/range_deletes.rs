//! Goal: a table that range tombstones hide goes without being read, and not before
//! nobody sees any of its keys.

use duramen::api::Database;
use duramen::storage::memory::MemoryStorage;

use crate::support::{files_in, open, settle, small};

/// Two range deletes hide a table between them; the snapshot sees what the second hides.
#[test]
fn a_snapshot_sees_into_a_table_that_is_hidden_bit_by_bit() {
    let storage = MemoryStorage::default();
    let db = open(&storage, small()).unwrap();
    let keyspace = db.keyspace("default").unwrap();
    for key in ["a", "b", "c", "d"] {
        keyspace.put(key.as_bytes(), key.as_bytes()).unwrap();
    }
    db.flush().unwrap();
    let table = files_in(&storage, "sst/").pop().unwrap();
    keyspace.delete_range("a".."c").unwrap();
    let snapshot = db.snapshot();
    keyspace.delete_range("c".."e").unwrap();
    db.flush().unwrap();
    settle(&db);
    let seen = |key: &str| snapshot.get(&keyspace, key.as_bytes()).unwrap().is_some();
    assert_eq!(["a", "b", "c", "d"].map(seen), [false, false, true, true]);

    drop(snapshot);
    settle(&db);
    assert!(!files_in(&storage, "sst/").contains(&table), "nobody sees into the table");
}

/// What was hidden at first need not be hidden by the same delete for good.
#[test]
fn a_snapshot_between_deletes_of_one_range_keeps_no_table() {
    let storage = MemoryStorage::default();
    let db = open(&storage, small()).unwrap();
    let keyspace = db.keyspace("default").unwrap();
    keyspace.put(b"b", b"b").unwrap();
    db.flush().unwrap();
    let table = files_in(&storage, "sst/").pop().unwrap();
    keyspace.delete_range("a".."c").unwrap();
    let snapshot = db.snapshot();
    keyspace.delete_range("a".."c").unwrap();
    db.flush().unwrap();
    settle(&db);
    assert!(!files_in(&storage, "sst/").contains(&table), "the snapshot sees the first delete");
    assert_eq!(snapshot.get(&keyspace, b"b").unwrap(), None);
}
