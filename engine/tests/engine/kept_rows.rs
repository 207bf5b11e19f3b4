//! Goal: a row that is kept, because it was read again and again, is answered to nobody
//! for whom it is not the newest. Method: every get three times, after all that may come
//! between two of them.

use duramen::api::Database;
use duramen::storage::memory::MemoryStorage;
use duramen::{Db, Keyspace, KeyspaceOptions, Options, Snapshot};

use crate::support::{open, settle, small};

const KEY: &[u8] = b"key";

/// A database that keeps rows, and a keyspace of lists in it.
fn database() -> (Db, Keyspace) {
    let db = open(&MemoryStorage::new(), Options { cache_bytes: 1 << 20, ..small() }).unwrap();
    let options = KeyspaceOptions { merge_operator: Some("append".to_owned()), ..KeyspaceOptions::default() };
    let keyspace = db.keyspace_with("lists", options).unwrap();
    (db, keyspace)
}

/// Reads it often enough that it is kept.
#[track_caller]
fn is(keyspace: &Keyspace, value: Option<&str>) {
    for _ in 0..3 {
        let found = keyspace.get(KEY).unwrap();
        assert_eq!(found.as_deref(), value.map(str::as_bytes));
    }
}

#[track_caller]
fn was(snapshot: &Snapshot, keyspace: &Keyspace, value: Option<&str>) {
    for _ in 0..3 {
        let found = snapshot.get(keyspace, KEY).unwrap();
        assert_eq!(found.as_deref(), value.map(str::as_bytes));
    }
}

#[test]
fn a_newer_version_in_memory_or_in_a_table_is_found() {
    let (db, keyspace) = database();
    keyspace.put(KEY, b"one").unwrap();
    db.flush().unwrap();
    is(&keyspace, Some("one"));
    let before = db.snapshot();
    keyspace.put(KEY, b"two").unwrap();
    is(&keyspace, Some("two"));
    was(&before, &keyspace, Some("one"));
    db.flush().unwrap();
    // What the snapshot finds in the older table is not for others.
    was(&before, &keyspace, Some("one"));
    is(&keyspace, Some("two"));
    was(&before, &keyspace, Some("one"));
    keyspace.delete(KEY).unwrap();
    is(&keyspace, None);
    db.flush().unwrap();
    is(&keyspace, None);
    was(&before, &keyspace, Some("one"));
    drop(before);
    settle(&db);
    db.compact().unwrap();
    is(&keyspace, None);
}

#[test]
fn what_an_operand_is_folded_into_is_not_the_value() {
    let (db, keyspace) = database();
    keyspace.put(KEY, b"a").unwrap();
    db.flush().unwrap();
    is(&keyspace, Some("a"));
    keyspace.merge(KEY, b"b").unwrap();
    is(&keyspace, Some("ab"));
    db.flush().unwrap();
    is(&keyspace, Some("ab"));
    keyspace.merge(KEY, b"c").unwrap();
    is(&keyspace, Some("abc"));
    db.flush().unwrap();
    is(&keyspace, Some("abc"));
    db.compact().unwrap();
    is(&keyspace, Some("abc"));
}

#[test]
fn a_range_delete_hides_it() {
    let (db, keyspace) = database();
    keyspace.put(KEY, b"one").unwrap();
    db.flush().unwrap();
    is(&keyspace, Some("one"));
    let before = db.snapshot();
    keyspace.delete_range("a".."z").unwrap();
    is(&keyspace, None);
    was(&before, &keyspace, Some("one"));
    db.flush().unwrap();
    is(&keyspace, None);
    was(&before, &keyspace, Some("one"));
    is(&keyspace, None);
}

#[test]
fn keyspaces_have_rows_of_their_own() {
    let (db, keyspace) = database();
    let other = db.keyspace("other").unwrap();
    keyspace.put(KEY, b"mine").unwrap();
    other.put(KEY, b"yours").unwrap();
    db.flush().unwrap();
    for _ in 0..3 {
        is(&keyspace, Some("mine"));
        is(&other, Some("yours"));
    }
    db.drop_keyspace("lists").unwrap();
    is(&other, Some("yours"));
    let options = KeyspaceOptions { merge_operator: Some("append".to_owned()), ..KeyspaceOptions::default() };
    let again = db.keyspace_with("lists", options).unwrap();
    is(&again, None);
}
