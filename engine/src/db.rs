//! The database: its handle, and how it opens and closes.

use std::collections::BTreeMap;
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::api::SnapshotId;
use crate::background::Background;
use crate::backup::{BackupInfo, Backups};
use crate::batch::WriteBatch;
use crate::checkpoint::{self, CheckpointReport};
use crate::compaction::{self, pick};
use crate::core::Core;
use crate::edit::Item;
use crate::error::{Error, Result};
use crate::key::SequenceNumber;
use crate::options::{Durability, KeyspaceOptions, Options};
use crate::read_set::ReadSet;
use crate::recovery;
use crate::stats::{Lane, RunInfo};
use crate::storage::Storage;
use crate::sync::thread::{self, JoinHandle};
use crate::sync::{Mutex, lock};
use crate::write::WritePath;

mod batch;
mod database;
mod keyspace;
mod rows;
mod snapshot;
mod transaction;

pub use batch::Batch;
pub use keyspace::Keyspace;
pub use rows::Rows;
pub use snapshot::Snapshot;
pub use transaction::Transaction;

/// An open database. Clones share it; it is closed when the last clone, and the
/// last [`Keyspace`], [`Snapshot`] and [`Rows`], is gone.
#[derive(Clone)]
pub struct Db {
    engine: Arc<Engine>,
}

/// What all handles of a database share.
struct Engine {
    parts: Arc<Parts>,
    workers: Mutex<Vec<JoinHandle<()>>>,
    snapshots: Mutex<NamedSnapshots>,
}

/// Snapshots by id, for callers that hold no handles.
#[derive(Default)]
struct NamedSnapshots {
    live: BTreeMap<SnapshotId, SequenceNumber>,
    /// The last id given; none is given twice, so that a late release cannot
    /// hit somebody else's snapshot.
    last: u64,
}

/// What worker threads share with the handles.
struct Parts {
    core: Core,
    writes: WritePath,
    background: Background,
}

impl Db {
    /// Opens the database in a directory, created if need be; or as it is, where
    /// [`Options::read_only`] asks for that.
    ///
    /// # Errors
    /// `InvalidArgument` where the directory is something else, or there is
    /// none and the options forbid to create it; `Locked` while another opener
    /// has it; `Unsupported` where a newer program wrote it; `Corruption`. The
    /// directory is left as it was.
    #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Db> {
        Db::open_with(Arc::new(crate::storage::fs::FsStorage::new(path.as_ref())), options)
    }

    /// Opens the database in any storage.
    ///
    /// # Errors
    /// As [`Db::open`].
    pub fn open_with(storage: Arc<dyn Storage>, options: Options) -> Result<Db> {
        let core = recovery::open(storage, options)?;
        let writes = WritePath::new(core.visible());
        let parts = Arc::new(Parts { core, writes, background: Background::default() });
        let mut workers = Vec::new();
        if parts.core.threaded() {
            for lane in Lane::ALL {
                let name = match lane {
                    Lane::Flush => "duramen-flush",
                    Lane::Compaction => "duramen-compact",
                    Lane::Log => "duramen-log",
                };
                let shared = Arc::clone(&parts);
                let worker = thread::Builder::new()
                    .name(name.into())
                    .spawn(move || shared.background.work(&shared.core, lane));
                match worker {
                    Ok(worker) => workers.push(worker),
                    Err(source) => {
                        let started =
                            Engine { parts, workers: Mutex::new(workers), snapshots: Mutex::default() };
                        drop(started);
                        return Err(Error::io("start a thread for", name, source));
                    }
                }
            }
        }
        let engine = Engine { parts, workers: Mutex::new(workers), snapshots: Mutex::default() };
        Ok(Db { engine: Arc::new(engine) })
    }

    /// The keyspace `name`, created if it does not exist; durable on return.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that is empty, longer than 255 bytes or has
    /// control characters.
    pub fn keyspace(&self, name: &str) -> Result<Keyspace> {
        self.keyspace_with(name, KeyspaceOptions::default())
    }

    /// The same with a merge operator, a time to live or a kind of memtable.
    ///
    /// # Errors
    /// `InvalidArgument` also for a merge operator that is not there, or not that
    /// of the keyspace, if it exists.
    pub fn keyspace_with(&self, name: &str, options: KeyspaceOptions) -> Result<Keyspace> {
        let Parts { core, writes, .. } = &*self.engine.parts;
        core.check_open()?;
        let inner = match core.find_keyspace_with(name, &options)? {
            Some(found) => found,
            None => {
                core.check_writable()?;
                writes.with_wal(|_| core.create_keyspace(name, &options))?
            }
        };
        Ok(Keyspace { engine: Arc::clone(&self.engine), inner })
    }

    /// Begins a transaction at what is visible now.
    pub fn transaction(&self) -> Transaction {
        Transaction::new(Arc::clone(&self.engine))
    }

    /// Runs `work` in a transaction and commits it, again from the start as often
    /// as it conflicts, `attempts` times at most.
    ///
    /// # Errors
    /// `Conflict` of the last attempt, or whatever else `work` or the commit
    /// answers, at once.
    pub fn transact<T>(
        &self,
        attempts: usize,
        durability: Durability,
        mut work: impl FnMut(&mut Transaction) -> Result<T>,
    ) -> Result<T> {
        let mut attempt = 1;
        loop {
            let mut transaction = self.transaction();
            let outcome = work(&mut transaction).and_then(|answer| {
                transaction.commit(durability)?;
                Ok(answer)
            });
            match outcome {
                Err(Error::Conflict { .. }) if attempt < attempts => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    /// A batch over any keyspaces of this database.
    pub fn batch(&self) -> Batch {
        Batch::new(Arc::clone(&self.engine))
    }

    /// What is visible now, for as long as the snapshot lives.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(Arc::clone(&self.engine))
    }

    /// Makes a complete database of its own in a new or empty directory, as this
    /// one is now, while reads and writes go on.
    ///
    /// Every commit that was acknowledged before the call is in it, and durable
    /// on return. SSTables are the same files under second names where both
    /// directories are on one file system that can do that, and copies
    /// otherwise: either database may be changed, compacted or removed without
    /// the other, but what damages the bytes of a shared file damages both. See
    /// [`crate::checkpoint`].
    ///
    /// # Errors
    /// `InvalidArgument` where the directory holds anything but an unfinished
    /// checkpoint, which is made anew; `Locked` while one is being made there;
    /// `Corruption` where a file of this database has not its length; `Io`;
    /// `Poisoned`. What is there after an error is no database, and is refused
    /// as one.
    #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
    pub fn checkpoint(&self, path: impl AsRef<Path>) -> Result<CheckpointReport> {
        self.checkpoint_to(Arc::new(crate::storage::fs::FsStorage::new(path.as_ref())))
    }

    /// The same in any storage.
    ///
    /// # Errors
    /// As [`Db::checkpoint`].
    pub fn checkpoint_to(&self, target: Arc<dyn Storage>) -> Result<CheckpointReport> {
        let Parts { core, writes, .. } = &*self.engine.parts;
        let report = checkpoint::checkpoint(core, writes, &target);
        // What it has held and nobody else needs.
        core.empty_trash();
        report
    }

    /// Adds a backup of what is committed now; reads and writes go on. SSTables
    /// that the newest backup has already are shared with it, others are copied.
    /// See [`crate::backup`].
    ///
    /// # Errors
    /// `InvalidArgument` where the directory is something else; `Locked` while it
    /// is in use; otherwise as [`Db::checkpoint`]. What is left of a failed one is
    /// not listed, and goes with the next.
    pub fn backup(&self, backups: &Backups) -> Result<BackupInfo> {
        let Parts { core, writes, .. } = &*self.engine.parts;
        backups.create(core, writes)
    }

    /// The sorted runs of the keyspace `name` as they are now, newest first, table by
    /// table; `None` if there is no such keyspace. It reads no table, and works where
    /// the database is open read-only.
    ///
    /// # Errors
    /// `InvalidArgument` once the database is closed.
    pub fn tables(&self, name: &str) -> Result<Option<Vec<RunInfo>>> {
        let core = self.core();
        core.check_open()?;
        Ok(core.find_keyspace(name).map(|keyspace| {
            let view = keyspace.view();
            let parameters = compaction::parameters(core, &keyspace);
            pick::describe(&compaction::shapes(&view.version), &parameters)
        }))
    }

    /// A checkpoint that shares no file with its source.
    pub(crate) fn copy_to(&self, target: &Arc<dyn Storage>) -> Result<CheckpointReport> {
        let Parts { core, writes, .. } = &*self.engine.parts;
        checkpoint::copied(core, writes, target)
    }

    fn core(&self) -> &Core {
        &self.engine.parts.core
    }
}

impl Engine {
    /// Commits a batch, with the background work that goes with it.
    fn commit(&self, batch: WriteBatch, durability: Durability, reads: Option<ReadSet>) -> Result<()> {
        let Parts { core, writes, background } = &*self.parts;
        let bytes = batch.encoded_bytes() as u64;
        background.make_room(core, bytes)?;
        writes.commit(core, batch, durability, reads)?;
        background.pay(core, bytes);
        Ok(())
    }

    /// Ends the workers and gives up what they were at.
    fn stop(&self) {
        let Parts { core, background, .. } = &*self.parts;
        background.stop(core);
        for worker in lock(&self.workers).drain(..) {
            // A worker that panicked has left its inputs as they were.
            let _ = worker.join();
        }
        background.abandon(core);
    }

    /// See [`crate::Database::close`].
    fn close(&self) -> Result<()> {
        let core = &self.parts.core;
        core.check_open()?;
        self.stop();
        if core.options.read_only {
            core.close();
            return Ok(());
        }
        // Whoever wrote has been told; there is nothing more to save.
        let poisoned = matches!(core.check_writable(), Err(Error::Poisoned(_)));
        let sealed = self.parts.writes.close(core).and_then(|last_seq| {
            let mut manifest = lock(&core.manifest);
            // One that was made ahead is needed no more.
            let empty = core.open_wals.next();
            let removed = empty.map(Item::WalRemoved);
            let items: Vec<Item> = removed.into_iter().chain([Item::CleanClose(last_seq)]).collect();
            core.commit(&mut manifest, &items)?;
            empty.filter(|_| core.names_durable).into_iter().for_each(|number| core.remove_wal(number));
            Ok(())
        });
        core.close();
        // Writers that wait for room need wait no more.
        core.progress.raise();
        match sealed {
            Err(Error::Poisoned(_)) if poisoned => Ok(()),
            other => other,
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let core = self.core();
        f.debug_struct("Db")
            .field("storage", &core.storage.describe())
            .field("last_sequence", &core.visible.load(Relaxed))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    //! Which kind of memtable a keyspace writes to: the one that it was told last,
    //! also in a log that is replayed. Seen from inside, as nobody can outside.

    use super::*;
    use crate::options::{self, MemtableKind};
    use crate::storage::memory::MemoryStorage;

    const SORTED: &str = "SortedMemtable";
    const SKIP_LIST: &str = "SkipListMemtable";

    /// Kinds of the memtables of a keyspace, newest first.
    fn memtables(db: &Db, name: &str) -> Vec<String> {
        let view = db.core().find_keyspace(name).unwrap().view();
        let kind = |debug: String| debug.split(' ').next().unwrap().to_owned();
        view.memtables().map(|memory| kind(format!("{:?}", memory.table))).collect()
    }

    fn with(memtable: Option<MemtableKind>) -> KeyspaceOptions {
        KeyspaceOptions { memtable, ..KeyspaceOptions::default() }
    }

    #[test]
    fn a_keyspace_has_the_memtable_it_was_told_last() {
        let options = Options { background: options::Background::Inline, ..Options::default() };
        let storage = MemoryStorage::new();
        let db = Db::open_with(Arc::new(storage.clone()), options.clone()).unwrap();
        let keyspace = db.keyspace("k").unwrap();
        assert_eq!(memtables(&db, "k"), [SORTED]);
        // At once while it is empty.
        db.keyspace_with("k", with(Some(MemtableKind::SkipList))).unwrap();
        assert_eq!(memtables(&db, "k"), [SKIP_LIST]);
        db.keyspace_with("k", with(None)).unwrap();
        assert_eq!(memtables(&db, "k"), [SKIP_LIST]);
        drop((keyspace, db));

        let db = Db::open_with(Arc::new(storage.clone()), options.clone()).unwrap();
        assert_eq!(memtables(&db, "k"), [SKIP_LIST], "recorded");
        let keyspace = db.keyspace("k").unwrap();
        keyspace.put(b"a", b"1").unwrap();
        // With the next one otherwise.
        db.keyspace_with("k", with(Some(MemtableKind::Sorted))).unwrap();
        assert_eq!(memtables(&db, "k"), [SKIP_LIST]);
        db.engine.parts.writes.freeze_all(db.core()).unwrap();
        assert_eq!(memtables(&db, "k"), [SORTED, SKIP_LIST]);
        keyspace.put(b"a", b"2").unwrap();
        assert_eq!(keyspace.get(b"a").unwrap().as_deref(), Some(&b"2"[..]));
        db.keyspace_with("k", with(Some(MemtableKind::SkipList))).unwrap();
        drop((keyspace, db));

        let db = Db::open_with(Arc::new(storage), options).unwrap();
        assert_eq!(memtables(&db, "k"), [SKIP_LIST], "replayed");
        let keyspace = db.keyspace("k").unwrap();
        assert_eq!(keyspace.get(b"a").unwrap().as_deref(), Some(&b"2"[..]));
    }
}
