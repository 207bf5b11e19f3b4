//! Goal: a checkpoint is a whole database of its own, as the source was at some
//! moment of the call. Method: checkpoints of small databases are opened,
//! compared with the source and verified, while the source is written to,
//! flushed, compacted and removed; in memory and on disk.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use duramen::api::Database;
use duramen::storage::memory::MemoryStorage;
use duramen::storage::{AppendFile, DirSync, Lock, ReadFile, Storage, SyncFile};
use duramen::{Background, Db, Durability, Error, KeyspaceOptions, Options, Result, WriteBatch};

use crate::support::{contents, files, files_in, kind, open, settle, small};

/// Several levels, what only the log holds, every kind of operation.
fn fill(db: &Db) {
    let ids = ["first", "second"].map(|name| db.create_keyspace(name).unwrap());
    let sum = KeyspaceOptions { merge_operator: Some("i64.add".into()), ..KeyspaceOptions::default() };
    let sums = db.create_keyspace_with("sums", &sum).unwrap();
    db.create_keyspace("dropped").unwrap();
    for n in 0..200u32 {
        let mut batch = WriteBatch::new();
        batch.put(ids[0], format!("key{:03}", n * 37 % 80).as_bytes(), &n.to_le_bytes());
        batch.put(ids[1], b"last", &n.to_le_bytes());
        batch.merge(sums, b"sum", &i64::from(n).to_le_bytes());
        db.write(batch, Durability::Buffered).unwrap();
        match n {
            60 => db.compact().unwrap(),
            90 => db.flush().unwrap(),
            150 => db.delete_range(ids[0], b"key010", b"key020", Durability::Buffered).unwrap(),
            160 => assert!(db.drop_keyspace("dropped").unwrap()),
            _ => {}
        }
    }
}

fn verified(db: &Db) {
    let report = db.verify().unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}

#[test]
fn a_checkpoint_is_the_database_as_it_was() {
    let storage = MemoryStorage::new();
    let db = open(&storage, small()).unwrap();
    fill(&db);
    let before = contents(&db).unwrap();
    let target = MemoryStorage::new();
    let report = db.checkpoint_to(Arc::new(target.clone())).unwrap();
    assert_eq!(report.last_sequence, db.stats().unwrap().last_sequence);
    assert_eq!(report.files as usize, files_in(&target, "sst/").len() + files_in(&target, "wal/").len());
    assert_eq!(report.bytes_linked, 0);
    assert!(target.read("CHECKPOINT").is_none());
    let unopened = target.deep_clone();

    // Neither knows of the other from here on.
    let copy = open(&target, small()).unwrap();
    verified(&copy);
    assert_eq!(contents(&copy).unwrap(), before);
    let id = db.find_keyspace("first").unwrap().unwrap();
    db.put(id, b"source", b"1", Durability::Sync).unwrap();
    copy.put(id, b"copy", b"1", Durability::Sync).unwrap();
    db.compact().unwrap();
    copy.compact().unwrap();
    verified(&db);
    verified(&copy);
    assert_eq!(db.get(id, b"copy", None).unwrap(), None);
    assert_eq!(copy.get(id, b"source", None).unwrap(), None);
    assert_eq!(contents(&db).unwrap().len(), before.len() + 1);

    // Opening one needs nothing of the source, and a dropped id is not given
    // again.
    drop(db);
    for path in storage.files() {
        storage.remove(&path).unwrap();
    }
    let again = open(&unopened, small()).unwrap();
    assert_eq!(contents(&again).unwrap(), before);
    assert!(again.create_keyspace("new").unwrap() > again.find_keyspace("sums").unwrap().unwrap());
    assert_eq!(again.find_keyspace("dropped").unwrap(), None);
}

#[test]
fn a_checkpoint_of_a_recovered_database_and_of_a_checkpoint() {
    let storage = MemoryStorage::new();
    let db = open(&storage, small()).unwrap();
    fill(&db);
    // The log takes batches, and this one seals none: the memtables are empty.
    let id = db.find_keyspace("first").unwrap().unwrap();
    db.flush().unwrap();
    db.put(id, b"last", b"", Durability::Buffered).unwrap();
    let before = contents(&db).unwrap();
    // As a kill leaves it, in the middle of a commit.
    let killed = storage.deep_clone();
    let wal = files_in(&killed, "wal/").pop().unwrap();
    let mut bytes = killed.read(&wal).unwrap();
    bytes.extend_from_slice(&[7; 40]);
    killed.write(&wal, bytes);
    let recovered = open(&killed, Options { memtable_bytes: 1 << 20, ..small() }).unwrap();
    let mut db = recovered;
    for _ in 0..3 {
        let target = MemoryStorage::new();
        db.checkpoint_to(Arc::new(target.clone())).unwrap();
        db = open(&target, Options { memtable_bytes: 1 << 20, ..small() }).unwrap();
        assert_eq!(contents(&db).unwrap(), before);
        verified(&db);
    }
    // Of nothing at all.
    let (empty, target) = (MemoryStorage::new(), MemoryStorage::new());
    open(&empty, small()).unwrap().checkpoint_to(Arc::new(target.clone())).unwrap();
    assert!(contents(&open(&target, small()).unwrap()).unwrap().is_empty());
}

#[test]
fn what_is_acknowledged_before_the_call_is_in_it_and_commits_are_whole() {
    let options = Options { background: Background::Threads, ..small() };
    let storage = MemoryStorage::new();
    let db = open(&storage, options).unwrap();
    let ids = ["first", "second"].map(|name| db.create_keyspace(name).unwrap());
    let acknowledged = AtomicU64::new(0);
    let stop = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0u64;
            while stop.load(SeqCst) == 0 {
                n += 1;
                let mut batch = WriteBatch::new();
                batch.put(ids[0], b"n", &n.to_le_bytes()).put(ids[1], b"n", &n.to_le_bytes());
                batch.put(ids[(n % 2) as usize], &n.to_be_bytes(), &[n as u8; 50]);
                db.write(batch, Durability::Buffered).unwrap();
                acknowledged.store(n, SeqCst);
            }
        });
        for _ in 0..40 {
            let least = acknowledged.load(SeqCst);
            let target = MemoryStorage::new();
            db.checkpoint_to(Arc::new(target.clone())).unwrap();
            let copy = open(&target, small()).unwrap();
            verified(&copy);
            let read = |space: usize| {
                let n = copy.get(ids[space], b"n", None).unwrap();
                n.map_or(0, |n| u64::from_le_bytes(n[..].try_into().unwrap()))
            };
            let found = read(0);
            assert_eq!(found, read(1));
            assert!(found >= least, "{found} of at least {least}");
            for n in 1..=found {
                assert!(copy.get(ids[(n % 2) as usize], &n.to_be_bytes(), None).unwrap().is_some(), "{n}");
            }
        }
        stop.store(1, SeqCst);
    });
    verified(&db);
}

/// Runs something when a WAL is about to be copied.
struct Hook {
    files: MemoryStorage,
    before_wal: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hook")
    }
}

impl Storage for Hook {
    fn open(&self, path: &str) -> Result<Arc<dyn ReadFile>> {
        self.files.open(path)
    }

    fn create(&self, path: &str) -> Result<Box<dyn AppendFile>> {
        if path.starts_with("wal/")
            && let Some(hook) = self.before_wal.lock().unwrap().take()
        {
            hook();
        }
        self.files.create(path)
    }

    fn open_to_sync(&self, path: &str) -> Result<Box<dyn SyncFile>> {
        self.files.open_to_sync(path)
    }

    fn overwrite(&self, path: &str, offset: u64, bytes: &[u8]) -> Result<()> {
        self.files.overwrite(path, offset, bytes)
    }

    fn sync(&self, path: &str) -> Result<()> {
        self.files.sync(path)
    }

    fn create_dir(&self, path: &str) -> Result<()> {
        self.files.create_dir(path)
    }

    fn remove(&self, path: &str) -> Result<()> {
        self.files.remove(path)
    }

    fn list(&self, path: &str) -> Result<Vec<String>> {
        self.files.list(path)
    }

    fn sync_dir(&self, path: &str) -> Result<DirSync> {
        self.files.sync_dir(path)
    }

    fn lock(&self) -> Result<Box<dyn Lock>> {
        self.files.lock()
    }

    fn lock_shared(&self) -> Result<Box<dyn Lock>> {
        self.files.lock_shared()
    }

    fn describe(&self) -> String {
        self.files.describe()
    }
}

#[test]
fn files_stay_until_they_are_copied() {
    let storage = MemoryStorage::new();
    let db = open(&storage, Options { memtable_bytes: 1 << 20, ..small() }).unwrap();
    fill(&db);
    let before = contents(&db).unwrap();
    let meanwhile = {
        let (db, storage) = (db.clone(), storage.clone());
        move || {
            let wals = files_in(&storage, "wal/");
            db.compact().unwrap();
            assert_eq!(files_in(&storage, "wal/"), wals, "they are being copied");
        }
    };
    let target = MemoryStorage::new();
    let hook = Hook { files: target.clone(), before_wal: Mutex::new(Some(Box::new(meanwhile))) };
    db.checkpoint_to(Arc::new(hook)).unwrap();
    assert!(files_in(&storage, "wal/").is_empty(), "they were needed no more");
    let live: usize =
        db.stats().unwrap().keyspaces.iter().flat_map(|k| &k.runs).map(|r| r.files as usize).sum();
    assert_eq!(files_in(&storage, "sst/").len(), live, "nothing is held any more");
    let copy = open(&target, small()).unwrap();
    verified(&copy);
    assert_eq!(contents(&copy).unwrap(), before);
}

#[test]
fn what_holds_anything_is_refused_untouched() {
    let storage = MemoryStorage::new();
    let db = open(&storage, small()).unwrap();
    fill(&db);
    settle(&db);
    let refuse = |target: &MemoryStorage| {
        let before = files(target);
        let error = db.checkpoint_to(Arc::new(target.clone())).unwrap_err();
        assert_eq!(kind(&error), "InvalidArgument", "{error}");
        assert_eq!(files(target), before);
    };
    refuse(&storage);
    let other = MemoryStorage::new();
    other.write("notes.txt", "mine");
    refuse(&other);
    let made = MemoryStorage::new();
    db.checkpoint_to(Arc::new(made.clone())).unwrap();
    refuse(&made);
    // Complete, only that the mark has come back after a loss of power.
    made.write("CHECKPOINT", "");
    refuse(&made);
    let copy = open(&made, small()).unwrap();
    verified(&copy);
    assert!(made.read("CHECKPOINT").is_none(), "opening puts it right");
    db.close().unwrap();
    assert!(matches!(db.checkpoint_to(Arc::new(MemoryStorage::new())), Err(Error::InvalidArgument(_))));
}

#[test]
fn one_that_is_not_finished_is_refused_and_can_be_made_again() {
    let storage = MemoryStorage::new();
    let db = open(&storage, small()).unwrap();
    fill(&db);
    let whole = MemoryStorage::new();
    db.checkpoint_to(Arc::new(whole.clone())).unwrap();
    whole.write("CHECKPOINT", "");
    for current in [None, Some(vec![]), Some(vec![0; 8192])] {
        let target = whole.deep_clone();
        target.remove("CURRENT").unwrap();
        if let Some(bytes) = current {
            target.write("CURRENT", bytes);
        }
        let before = files(&target);
        let error = open(&target, small()).unwrap_err();
        assert!(error.to_string().contains("was not finished"), "{error}");
        assert_eq!(files(&target), before);
        db.checkpoint_to(Arc::new(target.clone())).unwrap();
        let copy = open(&target, small()).unwrap();
        verified(&copy);
        assert_eq!(contents(&copy).unwrap(), contents(&db).unwrap());
    }
}

#[cfg(unix)]
fn identities(dir: &Path) -> BTreeMap<String, u64> {
    use std::os::unix::fs::MetadataExt;

    let mut found = BTreeMap::new();
    for keyspace in fs::read_dir(dir.join("sst")).unwrap().map(|entry| entry.unwrap()) {
        for table in fs::read_dir(keyspace.path()).unwrap().map(|entry| entry.unwrap()) {
            let name = table.path().strip_prefix(dir).unwrap().display().to_string();
            found.insert(name, table.metadata().unwrap().ino());
        }
    }
    found
}

#[cfg(unix)]
#[test]
fn on_disk_sstables_are_linked_and_outlive_the_source() {
    let directory = tempfile::tempdir().unwrap();
    let (source, target) = (directory.path().join("db"), directory.path().join("deep/er/copy"));
    let db = Db::open(&source, small()).unwrap();
    fill(&db);
    let before = contents(&db).unwrap();
    let report = db.checkpoint(&target).unwrap();
    assert!(report.bytes_linked > 0 && report.bytes_linked < report.bytes);
    let (ours, theirs) = (identities(&source), identities(&target));
    assert!(!theirs.is_empty());
    assert!(theirs.iter().all(|(name, inode)| ours.get(name) == Some(inode)));
    assert_eq!(kind(&db.checkpoint(&target).unwrap_err()), "InvalidArgument");
    assert_eq!(kind(&db.checkpoint(&source).unwrap_err()), "InvalidArgument");
    let foreign = directory.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("mine"), "").unwrap();
    assert_eq!(kind(&db.checkpoint(&foreign).unwrap_err()), "InvalidArgument");
    assert_eq!(fs::read_dir(&foreign).unwrap().count(), 1);

    // The copy goes its way, then the source is gone.
    let copy = Db::open(&target, small()).unwrap();
    copy.compact().unwrap();
    verified(&db);
    drop(db);
    fs::remove_dir_all(&source).unwrap();
    verified(&copy);
    assert_eq!(contents(&copy).unwrap(), before);
}

#[cfg(unix)]
#[test]
fn a_link_in_the_place_of_a_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("db");
    let db = Db::open(&source, small()).unwrap();
    fill(&db);
    let table = source.join(identities(&source).into_keys().next().unwrap());
    let elsewhere = directory.path().join("elsewhere");
    fs::rename(&table, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &table).unwrap();
    let target = directory.path().join("copy");
    assert_eq!(kind(&db.checkpoint(&target).unwrap_err()), "Io");
    assert!(Db::open(&target, small()).unwrap_err().to_string().contains("was not finished"));
    fs::remove_file(&table).unwrap();
    fs::rename(&elsewhere, &table).unwrap();
    db.checkpoint(&target).unwrap();
    verified(&Db::open(&target, small()).unwrap());
}
