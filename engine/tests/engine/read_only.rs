//! Goal: a database open for reading alone answers everything, refuses every
//! change and changes nothing. Method: databases as a kill left them are opened
//! so over a storage that records its calls, and on disk; what they hold is
//! compared with what an ordinary open finds.

use std::sync::Arc;

use duramen::api::{Database, ScanRange};
use duramen::storage::memory::MemoryStorage;
use duramen::storage::trace::TraceStorage;
use duramen::{Background, Budget, Db, Durability, KeyspaceOptions, Options, Result, WriteBatch};

use crate::support::{contents, files, files_in, kind, open, scan, small, with_file, without_file};

fn read_only() -> Options {
    Options { read_only: true, background: Background::Threads, ..small() }
}

/// Tables, commits in the log alone, a torn tail and files that nobody needs;
/// nobody has it open.
fn database() -> MemoryStorage {
    let storage = MemoryStorage::new();
    let db = open(&storage, small()).unwrap();
    fill(&db);
    let killed = storage.deep_clone();
    let wal = files_in(&killed, "wal/").pop().unwrap();
    let mut bytes = killed.read(&wal).unwrap();
    bytes.extend_from_slice(&[7; 40]);
    killed.write(&wal, bytes);
    killed.write("sst/1/999999.parquet", "left over");
    killed.write("manifest/999998.log", "left over");
    killed
}

fn fill(db: &Db) {
    let sum = KeyspaceOptions { merge_operator: Some("i64.add".into()), ..KeyspaceOptions::default() };
    let sums = db.create_keyspace_with("sums", &sum).unwrap();
    let lasting = KeyspaceOptions { ttl_ms: Some(1 << 40), ..KeyspaceOptions::default() };
    let id = db.create_keyspace_with("keys", &lasting).unwrap();
    for n in 0..150u32 {
        let mut batch = WriteBatch::new();
        batch.put(id, format!("key{:03}", n * 37 % 80).as_bytes(), &n.to_le_bytes());
        batch.merge(sums, b"sum", &1i64.to_le_bytes());
        db.write(batch, Durability::Buffered).unwrap();
        if n == 60 {
            db.compact().unwrap();
        }
    }
}

#[test]
fn everything_is_answered_and_nothing_is_changed() {
    let storage = database();
    let before = files(&storage);
    let expected = contents(&open(&storage.deep_clone(), small()).unwrap()).unwrap();
    let trace = TraceStorage::new(Arc::new(storage.clone()));
    let db = Db::open_with(Arc::new(trace.clone()), read_only()).unwrap();
    assert_eq!(contents(&db).unwrap(), expected);
    let report = db.verify().unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    let keys = db.keyspace("keys").unwrap();
    let snapshot = db.snapshot();
    assert_eq!(keys.get(b"key000").unwrap().as_deref(), Some(&80u32.to_le_bytes()[..]));
    drop(snapshot);
    let mut transaction = Db::transaction(&db);
    assert!(transaction.get(&keys, b"key000").unwrap().is_some());
    drop(transaction);
    let stats = db.stats().unwrap();
    assert!(stats.recovered_commits > 0 && stats.recovered_bytes_dropped == 40);

    let id = keys.id();
    let refused: Vec<(&str, Result<()>)> = vec![
        ("put", db.put(id, b"k", b"v", Durability::Buffered)),
        ("sync put", db.put(id, b"k", b"v", Durability::Sync)),
        ("delete", db.delete(id, b"k", Durability::None)),
        ("delete range", db.delete_range(id, b"a", b"z", Durability::None)),
        ("nothing", db.write(WriteBatch::new(), Durability::Sync)),
        ("transaction", {
            let mut transaction = Db::transaction(&db);
            transaction.put(&keys, b"k", b"v").and_then(|()| transaction.commit(Durability::Sync))
        }),
        ("new keyspace", db.create_keyspace("new").map(drop)),
        (
            "another time to live",
            db.create_keyspace_with(
                "keys",
                &KeyspaceOptions { ttl_ms: Some(5), ..KeyspaceOptions::default() },
            )
            .map(drop),
        ),
        ("drop", db.drop_keyspace("keys").map(drop)),
        ("flush", Database::flush(&db)),
        ("compact", Database::compact(&db)),
        ("sync", Database::sync(&db)),
        ("maintain", db.maintain(Budget::bytes(1 << 20)).map(drop)),
    ];
    for (what, outcome) in refused {
        let error = outcome.expect_err(what);
        assert_eq!(kind(&error), "InvalidArgument", "{what}: {error}");
        assert!(error.to_string().contains("read-only"), "{what}: {error}");
    }
    assert_eq!(contents(&db).unwrap(), expected);
    drop(keys);
    db.close().unwrap();
    assert!(db.get(id, b"key000", None).is_err());
    drop(db);
    assert_eq!(trace.take_changes(), "");
    assert_eq!(files(&storage), before);
}

#[test]
fn readers_share_and_a_writer_is_kept_out() {
    let storage = database();
    let readers = [open(&storage, read_only()).unwrap(), open(&storage, read_only()).unwrap()];
    assert_eq!(kind(&open(&storage, small()).unwrap_err()), "Locked");
    drop(readers);
    let writer = open(&storage, small()).unwrap();
    assert_eq!(kind(&open(&storage, read_only()).unwrap_err()), "Locked");
    writer.close().unwrap();
    open(&storage, read_only()).unwrap();
}

#[test]
fn what_is_no_database_or_damaged_is_refused_untouched() {
    let storage = database();
    let manifest = files_in(&storage, "manifest/").remove(0);
    let table = files_in(&storage, "sst/").remove(0);
    let mut bad_manifest = storage.read(&manifest).unwrap();
    bad_manifest[70] ^= 1;
    let unfinished = without_file(&storage, "CURRENT");
    unfinished.write("CHECKPOINT", "");
    for (target, expected) in [
        (MemoryStorage::new(), "InvalidArgument"),
        (unfinished, "InvalidArgument"),
        (with_file(&MemoryStorage::new(), "notes.txt", "mine"), "InvalidArgument"),
        (with_file(&storage, "CURRENT", ""), "InvalidArgument"),
        (with_file(&storage, &manifest, bad_manifest), "Corruption"),
        (without_file(&storage, &table), "Corruption"),
    ] {
        let before = files(&target);
        let error = open(&target, read_only()).unwrap_err();
        assert_eq!(kind(&error), expected, "{error}");
        assert_eq!(files(&target), before);
    }
}

#[test]
fn damage_is_found_by_verify() {
    let storage = database();
    let db = open(&storage, read_only()).unwrap();
    assert!(db.verify().unwrap().files > 4);
    let live = db.stats().unwrap().keyspaces;
    let live: u64 = live.iter().flat_map(|keyspace| &keyspace.runs).map(|run| run.files).sum();
    // Some tables are needed no more and wait to be removed.
    let found = files_in(&storage, "sst/").into_iter().filter(|table| {
        let mut bytes = storage.read(table).unwrap();
        bytes.get_mut(20).into_iter().for_each(|byte| *byte ^= 1);
        let Ok(db) = open(&with_file(&storage, table, bytes), read_only()) else { return false };
        let problems = db.verify().unwrap().problems;
        assert!(problems.iter().all(|problem| problem.file == *table), "{problems:?}");
        problems.len() == 1
    });
    assert_eq!(found.count() as u64, live);
    // And of what changes beneath it.
    let copy = storage.deep_clone();
    let db = open(&copy, read_only()).unwrap();
    let wal = files_in(&copy, "wal/").pop().unwrap();
    let mut bytes = copy.read(&wal).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    copy.write(&wal, bytes);
    assert_eq!(db.verify().unwrap().problems[0].file, wal);
}

#[test]
fn a_checkpoint_of_one_is_whole() {
    let storage = database();
    let db = open(&storage, read_only()).unwrap();
    let before = files(&storage);
    let target = MemoryStorage::new();
    db.checkpoint_to(Arc::new(target.clone())).unwrap();
    assert_eq!(files(&storage), before);
    let copy = open(&target, small()).unwrap();
    assert_eq!(contents(&copy).unwrap(), contents(&db).unwrap());
    assert!(copy.verify().unwrap().problems.is_empty());
    let id = copy.find_keyspace("keys").unwrap().unwrap();
    copy.put(id, b"new", b"", Durability::Sync).unwrap();
}

#[cfg(unix)]
#[test]
fn on_disk_not_one_byte_or_time_changes() {
    use std::collections::BTreeMap;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    fn look(dir: &Path, found: &mut BTreeMap<String, (Vec<u8>, i64, i64, u64)>) {
        let facts = |path: &Path, bytes: Vec<u8>| {
            let stat = path.metadata().unwrap();
            (bytes, stat.mtime(), stat.mtime_nsec(), stat.ino())
        };
        found.insert(dir.display().to_string(), facts(dir, Vec::new()));
        for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.is_dir() {
                true => look(&entry, found),
                false => {
                    let bytes = std::fs::read(&entry).unwrap();
                    found.insert(entry.display().to_string(), facts(&entry, bytes));
                }
            }
        }
    }

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let absent = Db::open(&path, read_only()).unwrap_err();
    assert!(absent.to_string().contains("no database"), "{absent}");
    assert!(!path.exists());
    fill(&Db::open(&path, small()).unwrap());
    for with_lock in [true, false] {
        if !with_lock {
            std::fs::remove_file(path.join("LOCK")).unwrap();
        }
        let mut before = BTreeMap::new();
        look(&path, &mut before);
        let db = Db::open(&path, read_only()).unwrap();
        let second = Db::open(&path, read_only()).unwrap();
        let id = second.find_keyspace("keys").unwrap().unwrap();
        assert_eq!(scan(&second, id, &ScanRange::all()).unwrap().len(), 80);
        assert!(db.verify().unwrap().problems.is_empty());
        assert_eq!(kind(&Db::open(&path, small()).unwrap_err()), "Locked");
        drop((db, second));
        let mut after = BTreeMap::new();
        look(&path, &mut after);
        assert!(before == after, "something changed");
    }
}
