//! Goal: repair saves whatever passes its checks, says what it could not save,
//! changes nothing of the original and never invents a value. Method: a small
//! database of several levels and keyspaces, with every kind of damage: files
//! gone, cut, and a bit flipped at places all over each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use duramen::api::Database;
use duramen::storage::Storage;
use duramen::storage::memory::MemoryStorage;
use duramen::{
    Compression, Db, Durability, KeyspaceOptions, Options, RepairReport, Result, WriteBatch, repair,
};

use crate::support::{
    Contents, contents, files, files_in, frames, kind, open, small, with_file, without_file,
};

/// Bytes between two flips; no divisor of anything.
const STRIDE: usize = 23;

fn options() -> Options {
    Options { memtable_bytes: 1 << 20, compression: Compression::Snappy, ..small() }
}

/// Every value that a key ever had.
type Values = BTreeMap<(String, Vec<u8>), BTreeSet<Vec<u8>>>;

/// A level of several tables, runs above it, commits in the log; killed.
fn database() -> (MemoryStorage, Contents, Values) {
    let storage = MemoryStorage::new();
    let db = open(&storage, options()).unwrap();
    let ids = ["first", "second"].map(|name| db.create_keyspace(name).unwrap());
    let lasting = KeyspaceOptions { ttl_ms: Some(1 << 40), ..KeyspaceOptions::default() };
    let third = db.create_keyspace_with("third", &lasting).unwrap();
    let mut values = Values::new();
    for n in 0..240u32 {
        let mut batch = WriteBatch::new();
        let mut put = |space: usize, key: String, value: Vec<u8>| {
            let (name, id) = [("first", ids[0]), ("second", ids[1]), ("third", third)][space];
            batch.put(id, key.as_bytes(), &value);
            values.entry((name.to_owned(), key.into_bytes())).or_default().insert(value);
        };
        put(0, format!("key{:03}", n * 37 % 200), [&n.to_le_bytes()[..], &[7; 60]].concat());
        put(2, format!("key{:03}", n % 10), n.to_le_bytes().to_vec());
        if n % 5 == 0 {
            put(1, format!("key{n:03}"), n.to_le_bytes().to_vec());
            batch.delete(ids[0], format!("key{:03}", n / 2).as_bytes());
        }
        db.write(batch, Durability::Sync).unwrap();
        match n {
            150 => db.delete_range(ids[0], b"key050", b"key060", Durability::Sync).unwrap(),
            180 => db.compact().unwrap(),
            200 | 220 => db.flush().unwrap(),
            _ => {}
        }
    }
    let expected = contents(&db).unwrap();
    (storage.deep_clone(), expected, values)
}

/// Repairs into a new database, which must be sound.
fn repaired(storage: &MemoryStorage) -> Result<(RepairReport, Db, Contents)> {
    let target = MemoryStorage::new();
    let before = files(storage);
    let report = repair(Arc::new(storage.clone()), Arc::new(target.clone()), &options());
    assert!(files(storage) == before, "the original was changed");
    let report = report?;
    let db = open(&target, options())?;
    let verified = db.verify()?;
    assert!(verified.problems.is_empty(), "{:?}", verified.problems);
    let found = contents(&db)?;
    assert_eq!(report.keyspaces, db.keyspaces()?);
    Ok((report, db, found))
}

/// As if keyspaces had their names.
fn named(found: &Contents) -> Contents {
    let name = |name: &str| match name {
        "recovered-1" => "first".to_owned(),
        "recovered-2" => "second".to_owned(),
        "recovered-3" => "third".to_owned(),
        name => name.to_owned(),
    };
    found.iter().map(|((space, key), value)| ((name(space), key.clone()), value.clone())).collect()
}

/// Panics where a key has a value that it never had.
fn check_values(found: &Contents, values: &Values, whence: &str) {
    for (at, value) in found {
        let known = values.get(at).unwrap_or_else(|| panic!("{whence}: {at:?}"));
        assert!(known.contains(value), "{whence}: {at:?}");
    }
}

#[test]
fn nothing_is_lost_of_what_is_sound() {
    let (storage, expected, _) = database();
    let (report, db, found) = repaired(&storage).unwrap();
    assert!(report.lost.is_empty() && !report.manifest_lost, "{:?}", report.lost);
    assert_eq!(found, expected);
    assert!(report.batches > 0 && report.entries > 0 && report.last_sequence > 240);
    // It is used like any other.
    let id = db.find_keyspace("first").unwrap().unwrap();
    db.put(id, b"new", b"1", Durability::Sync).unwrap();
    db.compact().unwrap();
    assert_eq!(contents(&db).unwrap().len(), expected.len() + 1);
    assert_eq!(db.stats().unwrap().last_sequence, report.last_sequence + 1);
    assert_eq!(db.create_keyspace("fourth").unwrap().0, 4);
}

#[test]
fn without_a_manifest_tables_and_logs_are_enough() {
    let (storage, expected, _) = database();
    let manifest = files_in(&storage, "manifest/").remove(0);
    // CURRENT alone: the manifest says all.
    for storage in [without_file(&storage, "CURRENT"), with_file(&storage, "CURRENT", vec![9; 8192])] {
        let (report, _, found) = repaired(&storage).unwrap();
        assert_eq!((found, report.manifest_lost), (expected.clone(), false));
        assert_eq!(report.lost.len(), 1);
    }
    // The manifest.
    let gone = without_file(&storage, &manifest);
    let (report, _, found) = repaired(&gone).unwrap();
    assert!(report.manifest_lost);
    assert_eq!(report.keyspaces[0].0, "recovered-1");
    assert_eq!(named(&found), expected);
    assert_eq!(report.lost.len(), 1, "{:?}", report.lost);
    // Its last edits: names are known.
    let mut cut = storage.read(&manifest).unwrap();
    let at = frames(&cut);
    cut[at[at.len() - 4] + 30] ^= 1;
    let (report, _, found) = repaired(&with_file(&storage, &manifest, cut)).unwrap();
    assert!(report.manifest_lost);
    assert_eq!(report.keyspaces[0].0, "first");
    assert_eq!(found, expected);
    // Both, and every log.
    let bare = without_file(&gone, "CURRENT");
    for wal in files_in(&bare, "wal/") {
        bare.remove(&wal).unwrap();
    }
    let (_, _, found) = repaired(&bare).unwrap();
    assert!(found.len() > 100);
    // Nothing at all.
    let error = repaired(&MemoryStorage::new()).map(|_| ()).unwrap_err();
    assert_eq!(kind(&error), "InvalidArgument");
}

#[test]
fn a_damaged_page_costs_its_keys_and_says_which() {
    let (storage, expected, values) = database();
    let manifest = files_in(&storage, "manifest/").remove(0);
    for path in files_in(&storage, "sst/") {
        let mut bytes = storage.read(&path).unwrap();
        bytes[60] ^= 1;
        let damaged = with_file(&storage, &path, bytes);
        let (report, _, found) = repaired(&damaged).unwrap();
        let [loss] = &report.lost[..] else { panic!("{:?}", report.lost) };
        assert_eq!(loss.file, path);
        let (start, end) = loss.keys.as_ref().unwrap();
        let names: BTreeMap<_, _> = report.keyspaces.iter().map(|(name, id)| (*id, name)).collect();
        let name = names[&loss.keyspace.unwrap()];
        for (at, value) in &expected {
            let hit = at.0 == *name && at.1 >= *start && at.1 <= *end;
            assert!(found.get(at) == Some(value) || hit, "{path}: {at:?}");
        }
        check_values(&found, &values, &path);
        // The same without the manifest: the walk goes on behind the page.
        let (report, _, found) = repaired(&without_file(&damaged, &manifest)).unwrap();
        assert!(report.lost.iter().any(|loss| loss.file == path), "{:?}", report.lost);
        check_values(&named(&found), &values, &path);
    }
}

#[test]
fn commits_behind_damage_in_a_log_are_saved() {
    let (storage, expected, _) = database();
    let wal = files_in(&storage, "wal/").pop().unwrap();
    let good = storage.read(&wal).unwrap();
    let at = frames(&good);
    assert!(at.len() > 15);
    let mut bad = good.clone();
    bad[at[5] + 40] ^= 1;
    let damaged = with_file(&storage, &wal, bad);
    assert_eq!(kind(&open(&damaged, options()).unwrap_err()), "Corruption");
    let (report, _, found) = repaired(&damaged).unwrap();
    assert_eq!(report.lost.len(), 1, "{:?}", report.lost);
    assert_eq!((&report.lost[0].file, report.lost[0].offset), (&wal, at[5] as u64));
    assert_eq!(report.batches as usize, at.len() - 3, "all but the header, the end and one");
    let missing = expected.iter().filter(|(at, value)| found.get(*at) != Some(value)).count();
    assert!(missing <= 3, "{missing}");
    // Its header alone.
    let mut bad = good;
    bad[2] ^= 1;
    let (report, _, found) = repaired(&with_file(&storage, &wal, bad)).unwrap();
    assert_eq!((found, report.lost.len()), (expected, 1));
}

#[test]
fn whatever_is_damaged_no_value_is_invented_and_losses_are_told() {
    let (storage, expected, values) = database();
    let manifest = files_in(&storage, "manifest/").remove(0);
    let mut tried = 0;
    for (path, good) in files(&storage) {
        for with_manifest in [true, false] {
            for at in (0..good.len()).step_by(STRIDE) {
                let whence = format!("{path}: byte {at}, manifest {with_manifest}");
                let mut bad = good.clone();
                bad[at] ^= 1 << (at % 8);
                let damaged = with_file(&storage, &path, bad);
                if !with_manifest {
                    damaged.remove(&manifest).unwrap();
                }
                let (report, _, found) =
                    repaired(&damaged).unwrap_or_else(|error| panic!("{whence}: {error}"));
                let found = named(&found);
                check_values(&found, &values, &whence);
                let told = report.lost.iter().any(|loss| loss.file == path);
                assert!(told || found == expected, "{whence}: a loss in silence");
                tried += 1;
            }
        }
        // Cut short, and gone.
        for cut in [0, 3, good.len() / 2, good.len() - 1] {
            let (_, _, found) = repaired(&with_file(&storage, &path, &good[..cut])).unwrap();
            check_values(&named(&found), &values, &format!("{path} cut at {cut}"));
        }
        let (report, _, found) = repaired(&without_file(&storage, &path)).unwrap();
        let found = named(&found);
        check_values(&found, &values, &format!("without {path}"));
        assert!(found == expected || !report.lost.is_empty(), "without {path}");
    }
    assert!(tried > 1000, "{tried}");
}

#[test]
fn merge_operands_stay_what_they_are() {
    let storage = MemoryStorage::new();
    let db = open(&storage, options()).unwrap();
    let sum = KeyspaceOptions { merge_operator: Some("i64.add".into()), ..KeyspaceOptions::default() };
    let id = db.create_keyspace_with("sums", &sum).unwrap();
    for n in 0..30i64 {
        db.merge(id, b"sum", &n.to_le_bytes(), Durability::Sync).unwrap();
        if n % 9 == 0 {
            db.flush().unwrap();
        }
    }
    let (_, db, found) = repaired(&storage.deep_clone()).unwrap();
    assert_eq!(found.values().next().unwrap(), &435i64.to_le_bytes());
    let id = db.find_keyspace("sums").unwrap().unwrap();
    db.merge(id, b"sum", &1i64.to_le_bytes(), Durability::Sync).unwrap();
    assert_eq!(db.get(id, b"sum", None).unwrap().unwrap(), &436i64.to_le_bytes()[..]);
}

#[test]
fn what_is_open_or_not_empty_is_refused() {
    let storage = MemoryStorage::new();
    let db = open(&storage, options()).unwrap();
    db.create_keyspace("k").unwrap();
    let source: Arc<dyn Storage> = Arc::new(storage.clone());
    let run = |target: &MemoryStorage| repair(Arc::clone(&source), Arc::new(target.clone()), &options());
    assert_eq!(kind(&run(&MemoryStorage::new()).unwrap_err()), "Locked");
    drop(db);
    let other = MemoryStorage::new();
    other.write("notes.txt", "mine");
    assert_eq!(kind(&run(&other).unwrap_err()), "InvalidArgument");
    assert_eq!(files(&other).len(), 1);
    assert_eq!(kind(&run(&storage).unwrap_err()), "InvalidArgument");
    run(&MemoryStorage::new()).unwrap();
}

#[test]
fn on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let [source, target] = ["db", "repaired"].map(|name| directory.path().join(name));
    let db = Db::open(&source, options()).unwrap();
    let id = db.create_keyspace("k").unwrap();
    for n in 0..100u32 {
        db.put(id, &n.to_be_bytes(), &[n as u8; 50], Durability::Buffered).unwrap();
    }
    db.flush().unwrap();
    let expected = contents(&db).unwrap();
    drop(db);
    std::fs::remove_file(source.join("CURRENT")).unwrap();
    let report = repair::repair_directory(&source, &target, &options()).unwrap();
    assert_eq!(report.lost.len(), 1);
    assert_eq!(contents(&Db::open(&target, options()).unwrap()).unwrap(), expected);
    assert!(!source.join("CURRENT").exists());
}
