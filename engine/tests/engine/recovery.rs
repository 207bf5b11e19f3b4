//! Goal: what a crash interrupted is finished or undone at the next open, and a
//! directory that is damaged or not ours is refused with the right error and
//! left byte for byte as it was. Method: files as they are at telling moments of
//! a workload, and files changed by hand.

use std::sync::Arc;

use duramen::api::Database;
use duramen::record::{LogId, LogKind, LogWriter};
use duramen::storage::Storage;
use duramen::storage::fault::{Crash, FaultStorage};
use duramen::storage::memory::MemoryStorage;
use duramen::storage::trace::TraceStorage;
use duramen::{Budget, Db, Durability, Error, FileNumber, KeyspaceId, Options, SequenceNumber, WriteBatch};

use crate::support::{
    Contents, contents, files, files_in, frames, kind, newest_file, number_of, open, reseal_header, settle,
    small, with_file, without_file,
};

/// Puts keys `from..to` into two keyspaces.
fn fill(db: &Db, from: u32, to: u32) {
    for n in from..to {
        for name in ["first", "second"] {
            let keyspace = db.keyspace(name).unwrap();
            keyspace.put(format!("key{n:03}").as_bytes(), &[n as u8; 40]).unwrap();
        }
    }
}

fn filled(from: u32, to: u32) -> Contents {
    let pairs = (from..to).flat_map(|n| {
        let pair =
            move |name: &str| ((name.to_owned(), format!("key{n:03}").into_bytes()), vec![n as u8; 40]);
        ["first", "second"].map(pair)
    });
    pairs.collect()
}

/// No flush but on demand.
fn roomy() -> Options {
    Options { memtable_bytes: 1 << 20, compaction_threads: 1, ..small() }
}

/// A database over a storage that remembers its changes.
fn recorded() -> (FaultStorage, Db) {
    let storage = FaultStorage::new(1);
    let db = Db::open_with(Arc::new(storage.clone()), roomy()).unwrap();
    (storage, db)
}

/// A kill within the last write.
const TORN: Crash = Crash::TearLast(1);

/// Files and directories of a storage, in one that the test may change.
fn copied(storage: &FaultStorage) -> MemoryStorage {
    let files = MemoryStorage::new();
    let mut paths = storage.list("").unwrap();
    while let Some(path) = paths.pop() {
        match storage.read(&path) {
            Some(bytes) => files.write(&path, bytes),
            None => {
                files.create_dir(&path).unwrap();
                paths.extend(storage.list(&path).unwrap().iter().map(|name| format!("{path}/{name}")));
            }
        }
    }
    files
}

/// What a crash leaves after the first change since `from` that begins with
/// `change`, and the file that was changed.
fn crashed_at(storage: &FaultStorage, from: usize, change: &str, crash: Crash) -> (MemoryStorage, String) {
    let mut replay = storage.replay();
    replay.advance_to(from);
    while replay.advance() {
        let last = replay.last_change();
        if last.starts_with(change) {
            let path = last.split(' ').nth(1).unwrap().to_owned();
            return (copied(&replay.crash(crash)), path);
        }
    }
    panic!("no {change} in the workload")
}

/// Opens, and checks that exactly `expected` is there and all is sound.
fn recovers(files: &MemoryStorage, expected: &Contents, what: &str) -> Db {
    let db = open(files, roomy()).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(&contents(&db).unwrap(), expected, "{what}");
    assert_eq!(db.verify().unwrap().problems, [], "{what}");
    db
}

// --- What a crash interrupted --------------------------------------------------

#[test]
fn a_torn_wal_is_cut_and_the_loss_is_told() {
    let storage = MemoryStorage::new();
    let db = open(&storage, roomy()).unwrap();
    fill(&db, 0, 5);
    drop(db);
    let wal = newest_file(&storage, "wal/");
    let bytes = storage.read(&wal).unwrap();
    let offsets = frames(&bytes);
    let (last, end) = (offsets[offsets.len() - 2], bytes.len());
    for cut in [last + 1, last + 28, end - 1] {
        let torn = with_file(&storage, &wal, &bytes[..cut]);
        let mut expected = filled(0, 5);
        expected.remove(&("second".into(), b"key004".to_vec()));
        let db = recovers(&torn, &expected, &format!("cut at {cut}"));
        let stats = db.stats().unwrap();
        let dropped = bytes[last..cut].iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        assert_eq!(stats.recovered_bytes_dropped, dropped as u64, "zeros are none");
        assert_eq!((stats.recovered_commits, stats.last_sequence), (9, 9));
        // The number of the lost commit is given to the next one.
        fill(&db, 50, 51);
        expected.append(&mut filled(50, 51));
        drop(db);
        let db = recovers(&torn, &expected, "again");
        let stats = db.stats().unwrap();
        assert_eq!((stats.recovered_bytes_dropped, stats.last_sequence), (0, 11), "told once");
        db.compact().unwrap();
        db.close().unwrap();
        drop(db);
        recovers(&torn, &expected, "after a flush");
    }
    // Bytes that were never a commit are dropped alike.
    let torn = with_file(&storage, &wal, [&bytes[..], b"garbage"].concat());
    let db = recovers(&torn, &filled(0, 5), "garbage");
    assert_eq!(db.stats().unwrap().recovered_bytes_dropped, 7);
}

#[test]
fn an_interrupted_flush_leaves_nothing_behind() {
    let (storage, db) = recorded();
    fill(&db, 0, 5);
    let from = storage.moment();
    db.flush().unwrap();
    drop(db);
    for (change, crash) in [
        ("create sst/1/", Crash::Kill),
        ("write sst/1/", TORN),
        ("write sst/1/", Crash::Kill),
        ("create sst/2/", Crash::Kill),
        ("write sst/2/", Crash::Kill),
    ] {
        let (files, path) = crashed_at(&storage, from, change, crash);
        assert!(files.files().contains(&path));
        let db = recovers(&files, &filled(0, 5), change);
        assert!(!files.files().contains(&path), "{path} is still there");
        assert!(db.stats().unwrap().recovered_commits > 0);
        let before = files_in(&files, "sst/");
        db.flush().unwrap();
        let mut again = files_in(&files, "sst/");
        again.retain(|file| !before.contains(file));
        assert!(!again.is_empty());
        assert!(again.iter().all(|file| number_of(file) > number_of(&path)), "{path}, then {again:?}");
        drop(db);
        recovers(&files, &filled(0, 5), change);
    }
    // After a part of the edit the flush is undone, after all of it done.
    for (crash, done) in [(TORN, false), (Crash::Kill, true)] {
        let (files, _) = crashed_at(&storage, from, "write manifest/", crash);
        let before = files_in(&files, "sst/1/");
        recovers(&files, &filled(0, 5), "edit");
        assert_eq!(files_in(&files, "sst/1/") == before, done, "{crash:?}");
    }
}

#[test]
fn an_interrupted_compaction_leaves_its_inputs() {
    let (storage, db) = recorded();
    for n in 0..4 {
        fill(&db, 3 * n, 3 * n + 5);
        db.flush().unwrap();
    }
    let from = storage.moment();
    let inputs = 2 * 4;
    db.compact().unwrap();
    drop(db);
    let expected = filled(0, 14);
    for (change, crash) in [
        ("create sst/", Crash::Kill),
        ("write sst/", TORN),
        ("write sst/", Crash::Kill),
        ("write manifest/", TORN),
    ] {
        let (files, _) = crashed_at(&storage, from, change, crash);
        assert_eq!(files_in(&files, "sst/").len(), inputs + 1, "{change}");
        recovers(&files, &expected, change);
        assert_eq!(files_in(&files, "sst/").len(), inputs, "{change}: the output is gone");
    }
    // Files go when both keyspaces are merged.
    for (change, left) in [("write manifest/", inputs - 4 + 1), ("remove sst/", 2)] {
        let (files, _) = crashed_at(&storage, from, change, Crash::Kill);
        recovers(&files, &expected, change);
        assert_eq!(files_in(&files, "sst/").len(), left, "{change}: the inputs are gone");
    }
}

#[test]
fn an_interrupted_change_of_manifests_leaves_either() {
    let (storage, db) = recorded();
    fill(&db, 0, 5);
    db.flush().unwrap();
    fill(&db, 5, 8);
    drop(db);
    let from = storage.moment();
    drop(Db::open_with(Arc::new(storage.clone()), roomy()).unwrap());
    let old = "manifest/000001.log";
    for (change, crash) in [
        ("create manifest/", Crash::Kill),
        ("write manifest/", TORN),
        ("write manifest/", Crash::Kill),
        ("write CURRENT", Crash::Kill),
    ] {
        let (files, _) = crashed_at(&storage, from, change, crash);
        let manifests = files_in(&files, "manifest/");
        assert_eq!((manifests.len(), &*manifests[0]), (2, old), "{change}");
        recovers(&files, &filled(0, 8), change);
        let after = files_in(&files, "manifest/");
        assert_eq!(after.len(), 1, "{change}");
        assert!(number_of(&after[0]) > number_of(&manifests[1]), "{change}: {after:?}");
    }
}

#[test]
fn an_interrupted_creation_begins_again() {
    let (storage, db) = recorded();
    drop(db);
    let mut replay = storage.replay();
    loop {
        for crash in [Crash::Kill, Crash::LoseAll, TORN] {
            let files = copied(&replay.crash(crash));
            let whence = format!("{crash:?} after {}", replay.last_change());
            let db = recovers(&files, &Contents::new(), &whence);
            fill(&db, 0, 2);
            drop(db);
            recovers(&files, &filled(0, 2), &whence);
        }
        if !replay.advance() {
            break;
        }
    }
    assert!(replay.moment() > 8);
}

#[test]
fn numbers_of_files_are_not_reused() {
    let storage = MemoryStorage::new();
    let mut seen = std::collections::BTreeSet::new();
    let mut before = std::collections::BTreeSet::new();
    for round in 0..6 {
        let db = open(&storage, roomy()).unwrap();
        fill(&db, round, round + 2);
        if round % 2 == 0 {
            db.compact().unwrap();
        }
        drop(db);
        let now: std::collections::BTreeSet<String> =
            storage.files().into_iter().filter(|path| path.contains('/')).collect();
        for path in now.difference(&before) {
            assert!(seen.insert(number_of(path)), "{path} has a number that was used before");
        }
        before = now;
        // What some crash may have left behind counts as used.
        let stray = format!("sst/1/{:06}.parquet", 100 * (round + 1));
        storage.write(&stray, b"stray".to_vec());
        seen.insert(number_of(&stray));
    }
}

#[test]
fn a_stray_file_does_not_use_the_numbers_up() {
    for number in [u64::MAX, u64::MAX - 1, u64::MAX / 2] {
        let storage = MemoryStorage::new();
        let db = open(&storage, roomy()).unwrap();
        fill(&db, 0, 3);
        drop(db);
        storage.write(&format!("wal/{number}.log"), b"stray".to_vec());
        let db = recovers(&storage, &filled(0, 3), "with a stray file");
        fill(&db, 3, 4);
        db.compact().unwrap();
        drop(db);
        recovers(&storage, &filled(0, 4), "after a compaction");
    }
}

#[test]
fn unknown_names_are_left_alone() {
    let storage = MemoryStorage::new();
    let db = open(&storage, roomy()).unwrap();
    fill(&db, 0, 3);
    db.flush().unwrap();
    drop(db);
    let strangers =
        ["notes.txt", "sst/1/README", "sst/x/000001.parquet", "wal/1.log", "manifest/000009.log.bak"];
    for path in strangers {
        storage.write(path, path.as_bytes());
    }
    // Numbered files that nothing refers to are ours.
    let orphans = ["sst/1/000900.parquet", "sst/77/000901.parquet", "wal/000902.log", "manifest/000903.log"];
    for path in orphans {
        storage.write(path, b"orphan".to_vec());
    }
    recovers(&storage, &filled(0, 3), "with strangers");
    for path in strangers {
        assert_eq!(storage.read(path).as_deref(), Some(path.as_bytes()), "{path}");
    }
    for path in orphans {
        assert_eq!(storage.read(path), None, "{path}");
    }
}

#[test]
fn files_go_only_once_the_manifest_is_durable_without_them() {
    let storage = TraceStorage::new(Arc::new(MemoryStorage::new()));
    let db = Db::open_with(Arc::new(storage.clone()), roomy()).unwrap();
    fill(&db, 0, 2);
    storage.take();
    let one = db.find_keyspace("first").unwrap().unwrap();
    db.put(one, b"last", b"", Durability::Sync).unwrap();
    let calls = storage.take_changes();
    let lines: Vec<&str> = calls.lines().collect();
    let ["append", "preallocate", "sync"] =
        lines.iter().map(|line| line.split(" wal/").next().unwrap()).collect::<Vec<_>>()[..]
    else {
        panic!("{calls}")
    };
    db.flush().unwrap();
    let calls = storage.take_changes();
    let at = |what: &str| calls.find(what).unwrap_or_else(|| panic!("no {what} in\n{calls}"));
    // The WAL is sealed and synced, then the SSTable with its name, then the
    // edit; last the WAL goes.
    let order = [
        "sync wal/",
        "create sst/1/",
        "sync sst/1/",
        "sync_dir sst/1",
        "append manifest/",
        "sync manifest/",
        "remove wal/",
    ];
    assert!(order.map(at).is_sorted(), "{calls}");
    assert!(calls.rfind("sync manifest/") < Some(at("remove wal/")), "{calls}");
    db.compact().unwrap();
    fill(&db, 0, 2);
    db.compact().unwrap();
    let calls = storage.take_changes();
    let (edit, removal) = (calls.rfind("sync manifest/").unwrap(), calls.rfind("remove sst/2").unwrap());
    assert!(edit < removal, "{calls}");
}

// --- What is refused -------------------------------------------------------------

/// A database that was killed: two keyspaces, several SSTables and a WAL.
fn killed() -> MemoryStorage {
    let storage = MemoryStorage::new();
    let db = open(&storage, roomy()).unwrap();
    for n in 0..3 {
        fill(&db, 4 * n, 4 * n + 4);
        db.flush().unwrap();
    }
    fill(&db, 12, 15);
    drop(db);
    storage
}

/// Opening must fail with this kind of error, whose text has `what`, and change
/// nothing.
fn refused(storage: &MemoryStorage, expected: &str, what: &str) {
    let before = files(storage);
    let error = open(storage, roomy()).map(drop).expect_err(what);
    assert_eq!(kind(&error), expected, "{error}");
    assert!(error.to_string().contains(what), "{error:?} does not say {what:?}");
    if let Error::Corruption { file, .. } = &error {
        assert!(what.is_empty() || error.to_string().contains(file));
    }
    assert!(files(storage) == before, "{what}: files have changed");
    // And the lock is free again.
    assert_eq!(kind(&open(storage, roomy()).map(drop).unwrap_err()), expected);
}

#[test]
fn missing_files_are_corruption() {
    let storage = killed();
    recovers(&storage.deep_clone(), &filled(0, 15), "as it was");
    let mut missing = files_in(&storage, "sst/");
    missing.extend(files_in(&storage, "wal/"));
    missing.extend(files_in(&storage, "manifest/"));
    assert_eq!(missing.len(), 6 + 1 + 1);
    for path in missing {
        refused(&without_file(&storage, &path), "Corruption", &path);
    }
    refused(&without_file(&storage, "CURRENT"), "Corruption", "CURRENT");
}

#[test]
fn files_of_another_length_are_corruption() {
    let storage = killed();
    for path in files_in(&storage, "sst/") {
        let bytes = storage.read(&path).unwrap();
        refused(&with_file(&storage, &path, &bytes[..bytes.len() - 1]), "Corruption", &path);
        refused(&with_file(&storage, &path, Vec::new()), "Corruption", &path);
        refused(&with_file(&storage, &path, [&bytes[..], &[0]].concat()), "Corruption", &path);
    }
    // An empty WAL is listed only with its header.
    let wal = newest_file(&storage, "wal/");
    for len in [0, 1, 59] {
        let bytes = storage.read(&wal).unwrap();
        refused(&with_file(&storage, &wal, &bytes[..len]), "Corruption", &wal);
    }
    let manifest = newest_file(&storage, "manifest/");
    refused(&with_file(&storage, &manifest, Vec::new()), "Corruption", &manifest);
    let current = storage.read("CURRENT").unwrap();
    for bytes in [Vec::new(), vec![0; current.len()], current[..100].to_vec()] {
        refused(&with_file(&storage, "CURRENT", bytes), "Corruption", "CURRENT");
    }
}

#[test]
fn swapped_sstables_are_corruption() {
    let storage = killed();
    let paths = files_in(&storage, "sst/");
    let mut swapped = 0;
    for (one, other) in paths.iter().flat_map(|one| paths.iter().map(move |other| (one, other))) {
        let (first, second) = (storage.read(one).unwrap(), storage.read(other).unwrap());
        if one >= other || first == second {
            continue;
        }
        swapped += 1;
        let same_length = first.len() == second.len();
        let copy = with_file(&with_file(&storage, one, second), other, first);
        if !same_length {
            refused(&copy, "Corruption", "bytes");
            continue;
        }
        // Found at the first look into them.
        let db = open(&copy, roomy()).unwrap();
        let error = contents(&db).unwrap_err();
        assert!(matches!(&error, Error::Corruption { file, .. } if file == one || file == other), "{error}");
        let problems = db.verify().unwrap().problems;
        let mut found: Vec<&str> = problems.iter().map(|problem| &*problem.file).collect();
        found.sort_unstable();
        assert_eq!(found, [one, other]);
    }
    assert!(swapped > 5);
}

#[test]
fn stale_logs_are_corruption() {
    let storage = killed();
    // The edits of the last flush, or everything but the first edit, undone:
    // then WALs are named that went long ago, or one with data is not.
    let manifest = newest_file(&storage, "manifest/");
    let bytes = storage.read(&manifest).unwrap();
    let offsets = frames(&bytes);
    let mut stale = 0;
    for &offset in &offsets[2..offsets.len() - 1] {
        let copy = with_file(&storage, &manifest, &bytes[..offset]);
        refused(&copy, "Corruption", "");
        stale += 1;
    }
    assert!(stale > 6);
    // A clean close that more or fewer commits than it says follow.
    let db = open(&storage, roomy()).unwrap();
    db.close().unwrap();
    drop(db);
    let closed = storage.deep_clone();
    drop(open(&storage, roomy()).unwrap());
    recovers(&closed.deep_clone(), &filled(0, 15), "closed");
    let wal = newest_file(&closed, "wal/");
    let bytes = closed.read(&wal).unwrap();
    let offsets = frames(&bytes);
    let cut = &bytes[..offsets[offsets.len() - 2]];
    refused(&with_file(&closed, &wal, cut), "Corruption", "commits");
    // The CURRENT of a generation whose manifest went.
    let stale = with_file(&storage, "CURRENT", closed.read("CURRENT").unwrap());
    refused(&stale, "Corruption", "CURRENT");
}

#[test]
fn logs_of_another_database_are_corruption() {
    let (storage, other) = (killed(), killed());
    for dir in ["wal/", "manifest/"] {
        let path = newest_file(&storage, dir);
        refused(&with_file(&storage, &path, other.read(&path).unwrap()), "Corruption", "belongs to database");
    }
}

#[test]
fn newer_formats_are_unsupported() {
    let storage = killed();
    for path in ["wal/", "manifest/"].map(|dir| newest_file(&storage, dir)) {
        let mut bytes = storage.read(&path).unwrap();
        bytes[28 + 8] = 2;
        reseal_header(&mut bytes, number_of(&path));
        refused(&with_file(&storage, &path, bytes), "Unsupported", "format version 2");
    }
    for slot in [0, 4096] {
        let mut bytes = storage.read("CURRENT").unwrap();
        // Both generations, if there are two, or a newer one beside the first.
        bytes.copy_within(..44, slot);
        bytes[slot + 8] = 2;
        let crc = crc32fast::hash(&bytes[slot..slot + 40]);
        bytes[slot + 40..slot + 44].copy_from_slice(&crc.to_le_bytes());
        refused(&with_file(&storage, "CURRENT", bytes), "Unsupported", "format version 2");
    }
}

#[test]
fn other_directories_are_refused() {
    let storage = MemoryStorage::new();
    storage.write("thesis.tex", b"years of work".to_vec());
    refused(&storage, "InvalidArgument", "not a Duramen database");
    assert_eq!(storage.list("").unwrap(), ["thesis.tex"]);
    let empty = MemoryStorage::new();
    let missing = open(&empty, Options { create_if_missing: false, ..roomy() }).map(drop).unwrap_err();
    assert_eq!(kind(&missing), "InvalidArgument");
    assert_eq!(empty.list("").unwrap(), [""; 0]);
    drop(open(&empty, roomy()).unwrap());
    drop(open(&empty, Options { create_if_missing: false, ..roomy() }).unwrap());
}

#[test]
fn a_second_opener_is_locked_out() {
    let storage = killed();
    let db = open(&storage, roomy()).unwrap();
    let before = files(&storage);
    assert_eq!(kind(&open(&storage, roomy()).map(drop).unwrap_err()), "Locked");
    assert!(files(&storage) == before);
    // A keyspace, a snapshot or an iterator keeps it open.
    let keyspace = db.keyspace("first").unwrap();
    drop(db);
    assert_eq!(kind(&open(&storage, roomy()).map(drop).unwrap_err()), "Locked");
    let rows = keyspace.range::<&[u8]>(..);
    drop(keyspace);
    assert_eq!(kind(&open(&storage, roomy()).map(drop).unwrap_err()), "Locked");
    drop(rows);
    recovers(&storage, &filled(0, 15), "unlocked");
}

#[test]
fn a_writer_that_was_overtaken_stops() {
    // Two openers that share no lock, as over a network file system.
    let storage = killed();
    let db = open(&storage, roomy()).unwrap();
    let copy = storage.deep_clone();
    let newer = open(&copy, roomy()).unwrap();
    fill(&newer, 20, 21);
    drop(newer);
    // The newer one's CURRENT in the place of the older one's.
    storage.write("CURRENT", copy.read("CURRENT").unwrap());
    let keyspace = db.keyspace("first").unwrap();
    let error = keyspace.put(b"key", b"value").unwrap_err();
    assert_eq!(kind(&error), "Locked", "{error}");
    let error = keyspace.put(b"key", b"value").unwrap_err();
    assert_eq!(kind(&error), "Poisoned", "{error}");
    assert_eq!(keyspace.get(b"key014").unwrap().as_deref(), Some(&[14; 40][..]), "reads go on");
}

/// The last commits were of a keyspace that is gone, and so is the log of them:
/// "closed at commit 3, but the last one found is 0".
#[test]
fn a_dropped_keyspace_takes_no_sequence_numbers_with_it() {
    let at = |db: &Db| db.stats().unwrap().last_sequence;
    for close in [true, false] {
        for flush_first in [true, false] {
            let storage = MemoryStorage::new();
            let db = open(&storage, small()).unwrap();
            let (gone, kept) = (db.create_keyspace("gone").unwrap(), db.create_keyspace("kept").unwrap());
            db.put(kept, b"key", b"value", Durability::Sync).unwrap();
            db.put(gone, b"key", b"value", Durability::Sync).unwrap();
            db.put(gone, b"key", b"value", Durability::Sync).unwrap();
            if flush_first {
                db.flush().unwrap();
            }
            assert!(db.drop_keyspace("gone").unwrap());
            db.flush().unwrap();
            assert_eq!(at(&db), 3);
            if close {
                db.close().unwrap();
            }
            drop(db);
            let db = open(&storage, small()).unwrap();
            assert_eq!(at(&db), 3, "closed: {close}, flushed before: {flush_first}");
            assert_eq!(db.get(kept, b"key", None).unwrap().as_deref(), Some(&b"value"[..]));
        }
    }
}

/// The WAL at `path`, made ahead as it was, with one batch of the number `seq`.
fn with_batch(storage: &MemoryStorage, path: &str, seq: u64) -> MemoryStorage {
    let copy = storage.deep_clone();
    let bytes = copy.read(path).unwrap();
    let header = &bytes[..frames(&bytes)[1]];
    let database_id = u64::from_le_bytes(header[header.len() - 8..].try_into().unwrap());
    copy.remove(path).unwrap();
    let id = LogId { kind: LogKind::Wal, number: FileNumber(number_of(path)), database_id };
    let mut log = LogWriter::create(copy.create(path).unwrap(), id, SequenceNumber(0)).unwrap();
    assert_eq!(copy.read(path).unwrap(), header);
    let mut batch = WriteBatch::new();
    batch.put(KeyspaceId(1), b"later", b"value");
    log.append(SequenceNumber(seq), batch.as_encoded()).unwrap();
    copy
}

#[test]
fn a_wal_that_was_made_ahead_takes_batches_or_goes() {
    made_ahead(false);
    made_ahead(true);
}

/// The first WAL ends by a flush that is asked for, or by a full memtable.
fn made_ahead(asked: bool) {
    let memtable_bytes = 64 << 10;
    let options = Options { memtable_bytes, ..small() };
    let storage = MemoryStorage::new();
    let db = open(&storage, options.clone()).unwrap();
    let keyspace = db.keyspace("k").unwrap();
    let (mut count, value) = (0u64, [7; 100]);
    let in_memory = || db.stats().unwrap().keyspaces[0].memtable_bytes;
    let mut put = |done: &dyn Fn(u64) -> bool| {
        while !done(in_memory()) {
            count += 1;
            keyspace.put(&count.to_be_bytes(), &value).unwrap();
        }
        count
    };
    // Opens what a kill leaves, goes on with it, and opens that again.
    let reopened = |storage: &MemoryStorage, count: u64| {
        let copy = storage.deep_clone();
        for count in [count, count + 1] {
            let db = open(&copy, options.clone()).unwrap();
            assert_eq!((db.stats().unwrap().last_sequence, db.verify().unwrap().problems), (count, vec![]));
            let keys = contents(&db).unwrap().into_keys().map(|(_, key)| key);
            assert!(keys.eq((1..=count).map(|n| n.to_be_bytes().to_vec())));
            db.keyspace("k").unwrap().put(&(count + 1).to_be_bytes(), &value).unwrap();
        }
        copy
    };
    // A little more: it is looked only now and then.
    let nearly_full = |bytes: u64| bytes >= memtable_bytes as u64 / 4 * 3 + 1024;

    // It is there, and empty.
    let count = put(&nearly_full);
    assert_eq!(files_in(&storage, "wal/").len(), 1);
    db.maintain(Budget::bytes(1)).unwrap();
    let wals = files_in(&storage, "wal/");
    assert_eq!((wals.len(), db.stats().unwrap().wal_files), (2, 1));
    let copy = reopened(&storage, count);
    assert!(!files_in(&copy, "wal/").contains(&wals[1]), "nothing was in it");
    let error = open(&without_file(&storage, &wals[1]), options.clone()).unwrap_err();
    assert_eq!(kind(&error), "Corruption", "{error}");

    // It takes the batches after those of the first one.
    if asked {
        let checkpoint = MemoryStorage::new();
        db.checkpoint_to(Arc::new(checkpoint.clone())).unwrap();
        assert_eq!(files_in(&checkpoint, "wal/").len(), 1, "without what is empty");
        reopened(&checkpoint, count);
        db.flush().unwrap();
        assert_eq!(files_in(&storage, "wal/"), wals[1..]);
        reopened(&storage, count);
    }
    let empty = storage.read(&wals[1]).unwrap().len();
    let count = put(&|_| storage.read(&wals[1]).unwrap().len() > empty);
    reopened(&storage, count);

    // It is the only one.
    settle(&db);
    assert_eq!(files_in(&storage, "wal/"), wals[1..]);
    reopened(&storage, count);
    let flushed = count - db.stats().unwrap().keyspaces[0].memtable_entries;
    for (seq, refused) in [(flushed + 1, false), (flushed + 2, true)] {
        match open(&with_batch(&storage, &wals[1], seq), options.clone()) {
            Err(error) if refused => assert!(error.to_string().contains("commits are missing"), "{error}"),
            outcome => assert!(!refused && outcome.is_ok(), "{seq}: {outcome:?}"),
        }
    }

    // The next one is made ahead, and the close takes it away.
    put(&nearly_full);
    settle(&db);
    assert_eq!(files_in(&storage, "wal/").len(), 2);
    db.close().unwrap();
    assert_eq!(files_in(&storage, "wal/"), wals[1..]);
}
