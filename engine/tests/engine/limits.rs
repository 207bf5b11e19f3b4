//! Goal: what is within the limits is stored whole, and what is not is refused
//! before anything is written. Method: sizes at and one past each limit; after a
//! refusal the files and the sequence number are what they were.

use std::ops::Bound;

use duramen::api::{Database, ScanRange};
use duramen::key::KEY_BYTES_MAX;
use duramen::storage::memory::MemoryStorage;
use duramen::{Durability, Error, KeyspaceId, KeyspaceOptions, Options, Result, SnapshotId, WriteBatch};

use crate::support::{contents, files, kind, open, scan, small};

/// Runs `call`, which must be refused and leave no trace.
fn refused<T>(storage: &MemoryStorage, db: &dyn Database, call: impl FnOnce() -> Result<T>) -> Error {
    let before = (files(storage), db.stats().unwrap().last_sequence);
    let error = call().map(drop).expect_err("this is over a limit");
    assert_eq!(kind(&error), "InvalidArgument", "{error}");
    assert!((files(storage), db.stats().unwrap().last_sequence) == before, "something was written: {error}");
    error
}

#[test]
fn keys_up_to_64_kib() {
    let storage = MemoryStorage::new();
    let db = open(&storage, small()).unwrap();
    let keyspace = db.keyspace("keys").unwrap();
    assert_eq!(KEY_BYTES_MAX, 64 << 10);
    let longest = [vec![b'k'; KEY_BYTES_MAX - 1], vec![1]].concat();
    let neighbour = [vec![b'k'; KEY_BYTES_MAX - 1], vec![2]].concat();
    keyspace.put(&longest, b"one").unwrap();
    keyspace.put(&neighbour, b"two").unwrap();
    keyspace.put(b"k", b"short").unwrap();
    let too_long = vec![b'k'; KEY_BYTES_MAX + 1];
    let error = refused(&storage, &db, || keyspace.put(&too_long, b""));
    assert!(error.to_string().contains("65537"), "{error}");
    refused(&storage, &db, || keyspace.delete(&too_long));
    // One operation over the limit, and none of its batch is written.
    let mut batch = WriteBatch::new();
    batch.put(keyspace.id(), b"fine", b"").put(keyspace.id(), &too_long, b"").delete(keyspace.id(), b"k");
    refused(&storage, &db, || db.write(batch, Durability::Sync));
    for _ in 0..2 {
        assert_eq!(keyspace.get(&longest).unwrap().as_deref(), Some(&b"one"[..]));
        assert_eq!(keyspace.get(&neighbour).unwrap().as_deref(), Some(&b"two"[..]));
        assert_eq!(keyspace.get(&too_long).unwrap(), None);
        assert_eq!(keyspace.range::<&[u8]>(..).count(), 3);
        let from = ScanRange { start: Bound::Excluded(longest.clone()), ..ScanRange::all() };
        let rest = scan(&db, keyspace.id(), &from).unwrap();
        assert_eq!(rest, [(neighbour.clone(), b"two".to_vec())]);
        db.compact().unwrap();
    }
    drop((keyspace, db));
    let db = open(&storage, small()).unwrap();
    assert_eq!(db.keyspace("keys").unwrap().get(&longest).unwrap().as_deref(), Some(&b"one"[..]));
    assert_eq!(db.verify().unwrap().problems, []);
}

#[test]
fn values_and_batches_up_to_their_options() {
    let storage = MemoryStorage::new();
    // No flush of what was committed before may look like a trace of the refused.
    let memtable_bytes = 64 << 10;
    let options = Options { value_bytes_max: 1000, batch_bytes_max: 4096, memtable_bytes, ..small() };
    let db = open(&storage, options.clone()).unwrap();
    let keyspace = db.keyspace("values").unwrap();
    keyspace.put(b"at the limit", &[7; 1000]).unwrap();
    let error = refused(&storage, &db, || keyspace.put(b"over it", &[7; 1001]));
    assert!(error.to_string().contains("1001"), "{error}");

    // 16 bytes for each operation beside its key and value.
    let batch = |last: usize| {
        let mut batch = WriteBatch::new();
        for n in 0..4u8 {
            batch.put(keyspace.id(), &[n; 8], &vec![n; if n == 3 { last } else { 1000 }]);
        }
        batch
    };
    let spare = 4096 - 4 * (16 + 8) - 3 * 1000;
    assert_eq!(batch(spare).encoded_bytes(), 4096);
    db.write(batch(spare), Durability::Buffered).unwrap();
    let error = refused(&storage, &db, || db.write(batch(spare + 1), Durability::Buffered));
    assert!(error.to_string().contains("4097"), "{error}");
    // What would be superseded counts, too: the batch is refused as it is.
    let mut same = WriteBatch::new();
    for _ in 0..5 {
        same.put(keyspace.id(), b"same", &[1; 1000]);
    }
    refused(&storage, &db, || db.write(same, Durability::Buffered));

    // Lower limits later are for new data: what is there is read and merged.
    let before = contents(&db).unwrap();
    assert_eq!(before.len(), 5);
    drop((keyspace, db));
    let options = Options { value_bytes_max: 10, batch_bytes_max: 100, ..options };
    let db = open(&storage, options).unwrap();
    assert_eq!(contents(&db).unwrap(), before);
    db.compact().unwrap();
    assert_eq!(contents(&db).unwrap(), before);
    let keyspace = db.keyspace("values").unwrap();
    refused(&storage, &db, || keyspace.put(b"eleven", &[0; 11]));
}

#[test]
fn empty_keys_and_values_are_like_others() {
    let storage = MemoryStorage::new();
    let db = open(&storage, small()).unwrap();
    let keyspace = db.keyspace("empty").unwrap();
    keyspace.put(b"", b"of the empty key").unwrap();
    keyspace.put(b"empty value", b"").unwrap();
    keyspace.put(b"\0", b"").unwrap();
    let check = |db: &dyn Database| {
        let id = db.find_keyspace("empty").unwrap().unwrap();
        assert_eq!(db.get(id, b"", None).unwrap().as_deref(), Some(&b"of the empty key"[..]));
        assert_eq!(db.get(id, b"empty value", None).unwrap().as_deref(), Some(&b""[..]));
        assert_eq!(db.get(id, b"absent", None).unwrap(), None);
        let keys: Vec<_> = scan(db, id, &ScanRange::all()).unwrap().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, [&b""[..], b"\0", b"empty value"]);
        assert_eq!(scan(db, id, &ScanRange::prefix(b"")).unwrap().len(), 3);
        let past_empty = ScanRange { start: Bound::Excluded(Vec::new()), ..ScanRange::all() };
        assert_eq!(scan(db, id, &past_empty).unwrap().len(), 2);
        let only_empty = ScanRange { end: Bound::Included(Vec::new()), ..ScanRange::all() };
        assert_eq!(scan(db, id, &only_empty).unwrap().len(), 1);
    };
    check(&db);
    db.compact().unwrap();
    check(&db);
    drop((keyspace, db));
    let db = open(&storage, small()).unwrap();
    check(&db);
    db.keyspace("empty").unwrap().delete(b"").unwrap();
    db.compact().unwrap();
    assert_eq!(contents(&db).unwrap().len(), 2);
}

#[test]
fn a_batch_of_nothing_is_no_commit() {
    let storage = MemoryStorage::new();
    let db = open(&storage, small()).unwrap();
    let before = files(&storage);
    db.write(WriteBatch::new(), Durability::Sync).unwrap();
    db.batch().commit(Durability::Buffered).unwrap();
    assert_eq!(db.stats().unwrap().last_sequence, 0);
    assert!(files(&storage) == before);
}

#[test]
fn unknown_keyspaces_and_snapshots_are_refused() {
    let storage = MemoryStorage::new();
    let db = open(&storage, small()).unwrap();
    let known = db.create_keyspace("known").unwrap();
    db.put(known, b"key", b"value", Durability::Buffered).unwrap();
    for unknown in [0, known.0 + 1, u32::MAX].map(KeyspaceId) {
        refused(&storage, &db, || db.put(unknown, b"key", b"value", Durability::Buffered));
        refused(&storage, &db, || db.get(unknown, b"key", None));
        refused(&storage, &db, || db.multi_get(unknown, &[], None));
        refused(&storage, &db, || db.scan(unknown, &ScanRange::all(), None).map(drop));
        let mut batch = WriteBatch::new();
        batch.put(known, b"key", b"changed").delete(unknown, b"key");
        refused(&storage, &db, || db.write(batch, Durability::Sync));
    }
    assert_eq!(db.get(known, b"key", None).unwrap().as_deref(), Some(&b"value"[..]));
    let snapshot = Database::snapshot(&db).unwrap();
    db.release(snapshot).unwrap();
    for gone in [snapshot, SnapshotId(0), SnapshotId(77)] {
        refused(&storage, &db, || db.get(known, b"key", Some(gone)));
        refused(&storage, &db, || db.release(gone));
    }
}

#[test]
fn names_of_keyspaces() {
    let storage = MemoryStorage::new();
    let db = open(&storage, small()).unwrap();
    for wrong in ["", "line\nbreak", "nul\0", "\u{7f}", "\u{85}", &"x".repeat(256), &"ü".repeat(128)] {
        let error = refused(&storage, &db, || db.create_keyspace(wrong));
        assert!(error.to_string().contains("255"), "{error}");
        assert_eq!(db.find_keyspace(wrong).unwrap(), None);
    }
    // Files are named after ids, so that a name may be any text.
    let names = ["a", "A", "../a", "a/b", " ", "CURRENT", "ключ", &"x".repeat(255), &"ü".repeat(127)];
    let ids: Vec<KeyspaceId> = names.iter().map(|name| db.create_keyspace(name).unwrap()).collect();
    assert_eq!(ids, (1..=names.len() as u32).map(KeyspaceId).collect::<Vec<_>>());
    for (name, id) in names.iter().zip(&ids) {
        db.put(*id, b"name", name.as_bytes(), Durability::Buffered).unwrap();
    }
    drop(db);
    let db = open(&storage, small()).unwrap();
    db.flush().unwrap();
    let listed: Vec<(String, KeyspaceId)> =
        names.iter().map(|name| name.to_string()).zip(ids.iter().copied()).collect();
    assert_eq!(db.keyspaces().unwrap(), listed);
    for (name, id) in &listed {
        assert_eq!(db.create_keyspace(name).unwrap(), *id, "made once");
        assert_eq!(db.get(*id, b"name", None).unwrap().as_deref(), Some(name.as_bytes()));
    }
}

/// Expiries and folded operands make a batch longer than it came in.
#[test]
fn what_a_commit_adds_to_a_batch_counts_too() {
    let options = Options { value_bytes_max: 100, batch_bytes_max: 400, ..Options::default() };
    let db = duramen::Db::open_with(std::sync::Arc::new(MemoryStorage::new()), options).unwrap();
    let with = |merge_operator: Option<&str>, ttl_ms| KeyspaceOptions {
        merge_operator: merge_operator.map(str::to_owned),
        ttl_ms,
        memtable: None,
        compaction: None,
    };
    let short = db.keyspace_with("short", with(None, Some(1000))).unwrap();
    let mut batch = db.batch();
    for key in 0..23u8 {
        batch.put(&short, &[key], b"");
    }
    assert!(matches!(batch.commit(Durability::Buffered), Err(Error::InvalidArgument(_))));
    assert_eq!(short.get(&[0]).unwrap(), None);

    let lists = db.keyspace_with("lists", with(Some("append"), None)).unwrap();
    let mut batch = db.batch();
    batch.merge(&lists, b"k", &[1; 60]).merge(&lists, b"k", &[2; 60]);
    assert!(matches!(batch.commit(Durability::Buffered), Err(Error::InvalidArgument(_))));
    assert_eq!(lists.get(b"k").unwrap(), None);
}

/// Compactions had folded operands into one value of any length.
#[test]
fn operands_that_add_up_to_more_than_a_value_stay_apart() {
    let storage = MemoryStorage::new();
    let db = open(&storage, Options { value_bytes_max: 1000, ..small() }).unwrap();
    let append = KeyspaceOptions { merge_operator: Some("append".into()), ..KeyspaceOptions::default() };
    let keyspace = db.keyspace_with("appended", append).unwrap();
    let mut expected = Vec::new();
    for n in 0..10 {
        keyspace.merge(b"key", &[n; 300]).unwrap();
        expected.extend([n; 300]);
        db.flush().unwrap();
    }
    for _ in 0..2 {
        db.compact().unwrap();
        assert_eq!(keyspace.get(b"key").unwrap().as_deref(), Some(&expected[..]));
        for range in [ScanRange::all(), ScanRange::all().reversed()] {
            let found = scan(&db, keyspace.id(), &range).unwrap();
            assert_eq!(found, [(b"key".to_vec(), expected.clone())]);
        }
        // Three to an operand, from the newest on, and the oldest is left.
        let stats = db.stats().unwrap();
        let [run] = &stats.keyspaces[0].runs[..] else { panic!("{stats:?}") };
        assert_eq!(run.entries, 4);
    }
    // What ends them ends them all.
    keyspace.put(b"key", b"short").unwrap();
    keyspace.merge(b"key", b"er").unwrap();
    db.compact().unwrap();
    assert_eq!(keyspace.get(b"key").unwrap().as_deref(), Some(&b"shorter"[..]));
    assert_eq!(db.stats().unwrap().keyspaces[0].runs[0].entries, 1);
}
