//! Backups: checkpoints side by side in one directory, which share the SSTables
//! that did not change in between.
//!
//! ```text
//! DIR/LOCK            held while backups are made, deleted or restored
//! DIR/000001/         a checkpoint: CURRENT, manifest, wal, sst
//! DIR/000002/         the next; its SSTables are second names of those of
//!                     000001 where they are the same, and copies otherwise
//! ```
//!
//! An SSTable is the same if database id, keyspace, number, length and the
//! checksum of its tail are, which covers the checksums of all pages. It is never
//! a second name of a file of the database itself: what damages that must not
//! damage its backups. Where files cannot have second names everything is copied
//! from the database.
//!
//! Backups that share a file share what happens to its bytes. Restoring checks
//! all of them first; [`Backups::verify`] does it ahead of the day. Where a shared
//! file is damaged, delete the backups that have it: the next copies it afresh.
//!
//! A backup counts while it has a valid `CURRENT`: that is written last and
//! removed first. What an interruption leaves says so by its file `CHECKPOINT`,
//! and is removed by the next backup. Names that are not backups are left alone.

use std::collections::{BTreeMap, BTreeSet};
#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
use std::path::Path;
use std::sync::Arc;

use crate::api::Database;
use crate::checkpoint::{self, CheckpointReport};
use crate::core::Core;
use crate::current::{self, CurrentState};
use crate::db::Db;
use crate::edit::State;
use crate::error::{Error, Result};
use crate::filename;
use crate::key::{FileNumber, KeyspaceId};
use crate::manifest::{self, Loaded};
use crate::options::{Background, Options};
use crate::recovery;
use crate::sstable::{Cache, TableMeta};
use crate::stats::VerifyReport;
use crate::storage::{Storage, Within, copy, link};
use crate::version::TableHandle;
use crate::write::WritePath;

/// Bytes of cache while a backup is checked: every page is read once.
const CACHE_BYTES: usize = 1 << 20;

/// One backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupInfo {
    /// Its number; later ones are higher.
    pub id: u64,
    /// Id of the database it is of.
    pub database_id: u64,
    /// SSTables and WALs in it.
    pub files: u64,
    /// Bytes of its SSTables, shared ones included.
    pub table_bytes: u64,
    /// Why it cannot be restored, as far as that can be told without reading all
    /// of it; then the other numbers are 0.
    pub problem: Option<String>,
}

/// A directory of backups.
#[derive(Clone, Debug)]
pub struct Backups {
    storage: Arc<dyn Storage>,
}

impl Backups {
    /// Those in a directory, which need not exist yet. Touches nothing.
    #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
    pub fn new(path: impl AsRef<Path>) -> Backups {
        Backups::with_storage(Arc::new(crate::storage::fs::FsStorage::new(path.as_ref())))
    }

    /// Those in any storage. Where that is not of files, nothing is shared, and
    /// deleting one leaves empty directories.
    pub fn with_storage(storage: Arc<dyn Storage>) -> Backups {
        Backups { storage }
    }

    /// Every backup, oldest first.
    ///
    /// # Errors
    /// `Io`; `InvalidArgument` where the directory is a database. A damaged
    /// backup is listed with its problem.
    pub fn list(&self) -> Result<Vec<BackupInfo>> {
        let mut found = Vec::new();
        for id in self.ids()? {
            let (database_id, state) = match manifest::load(&self.within(id)) {
                Ok(Some(Loaded { current, state, .. })) => (current.database_id, state),
                Ok(None) => continue,
                Err(Error::Io { operation, file, source }) => {
                    return Err(Error::Io { operation, file, source });
                }
                Err(error) => {
                    let problem = Some(error.to_string());
                    found.push(BackupInfo { id, database_id: 0, files: 0, table_bytes: 0, problem });
                    continue;
                }
            };
            found.push(describe(id, database_id, &state));
        }
        Ok(found)
    }

    /// Reads and checks every byte of a backup.
    ///
    /// # Errors
    /// `InvalidArgument` where it does not exist; `Corruption` where it does not
    /// even open; other damage is in the report. `Locked`, `Io`.
    pub fn verify(&self, id: u64) -> Result<VerifyReport> {
        self.check_exists(id)?;
        let _lock = self.storage.lock_shared()?;
        self.open(id)?.verify()
    }

    /// Checks every byte of a backup, then copies it to a new or empty directory,
    /// where it is a database.
    ///
    /// # Errors
    /// `Corruption` where the backup is damaged, `InvalidArgument` where it does
    /// not exist or the directory holds anything; nothing was made. Otherwise as
    /// [`Db::checkpoint`].
    #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
    pub fn restore(&self, id: u64, path: impl AsRef<Path>) -> Result<CheckpointReport> {
        self.restore_to(id, Arc::new(crate::storage::fs::FsStorage::new(path.as_ref())))
    }

    /// The same in any storage.
    ///
    /// # Errors
    /// As [`Backups::restore`].
    pub fn restore_to(&self, id: u64, target: Arc<dyn Storage>) -> Result<CheckpointReport> {
        self.check_exists(id)?;
        let _lock = self.storage.lock_shared()?;
        let backup = self.open(id)?;
        if let Some(problem) = backup.verify()?.problems.into_iter().next() {
            let file = format!("{}/{}", filename::backup(id), problem.file);
            return Err(Error::corruption(file, problem.offset, problem.what));
        }
        backup.copy_to(&target)
    }

    /// Deletes a backup; others keep the files they share with it.
    ///
    /// # Errors
    /// `InvalidArgument` where it does not exist; `Locked`; `Io`: then it may not
    /// be listed any more, and the next backup removes the rest.
    pub fn delete(&self, id: u64) -> Result<()> {
        self.check_exists(id)?;
        let _lock = self.storage.lock()?;
        self.remove(id)
    }

    /// Makes a backup of an open database.
    pub(crate) fn create(&self, core: &Core, writes: &WritePath) -> Result<BackupInfo> {
        core.check_sound()?;
        self.ids()?;
        self.storage.create_dir("")?;
        let _lock = self.storage.lock()?;
        let ids = self.ids()?;
        for id in &ids {
            if is_unfinished(&self.within(*id))? {
                self.remove(*id)?;
            }
        }
        let before = self.newest_of(core.database_id, &ids);
        let next = ids.last().copied().unwrap_or(0).checked_add(1);
        let id = next.ok_or_else(|| Error::Unsupported("there are no numbers of backups left".into()))?;
        let target: Arc<dyn Storage> = Arc::new(self.within(id));
        target.create_dir("")?;
        self.storage.sync_dir("")?;
        checkpoint::build(core, writes, &target, |meta| {
            let path = filename::sst(meta.keyspace, meta.number);
            if let Some(before) = before.as_ref().filter(|before| before.has(meta))
                && link((&*before.storage, &path), (&*target, &path), meta.bytes)?
            {
                return Ok(true);
            }
            copy((&*core.storage, &path), (&*target, &path), meta.bytes).map(|()| false)
        })?;
        let made = manifest::load(&*target)?;
        let made =
            made.ok_or_else(|| Error::corruption(target.describe(), 0, "the new backup is not there"))?;
        Ok(describe(id, made.current.database_id, &made.state))
    }

    /// Opens a backup for reading; the directory must be locked.
    fn open(&self, id: u64) -> Result<Db> {
        let options = Options {
            read_only: true,
            background: Background::Inline,
            cache_bytes: CACHE_BYTES,
            ..Options::default()
        };
        Db::open_with(Arc::new(self.within(id)), options)
    }

    fn within(&self, id: u64) -> Within {
        Within::new(Arc::clone(&self.storage), filename::backup(id))
    }

    /// Numbers of everything that may be a backup, ascending.
    fn ids(&self) -> Result<Vec<u64>> {
        let names = self.storage.list("")?;
        let ours = [filename::CURRENT, filename::CHECKPOINT, filename::MANIFEST_DIR, filename::SST_DIR];
        if let Some(name) = names.iter().find(|name| ours.contains(&name.as_str())) {
            return Err(Error::invalid(format!(
                "{} is a database (it holds {name:?}) and no directory of backups",
                self.storage.describe()
            )));
        }
        let mut ids: Vec<u64> = names.iter().filter_map(|name| filename::parse_backup(name)).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    fn check_exists(&self, id: u64) -> Result<()> {
        let within = self.within(id);
        match self.ids()?.contains(&id) && !matches!(current::read(&within), Ok(CurrentState::Missing)) {
            true => Ok(()),
            false => Err(Error::invalid(format!("there is no backup {id} in {}", self.storage.describe()))),
        }
    }

    /// The newest backup of a database whose manifest is whole.
    fn newest_of(&self, database_id: u64, ids: &[u64]) -> Option<Shared> {
        ids.iter().rev().find_map(|id| {
            let storage = self.within(*id);
            let loaded = manifest::load(&storage).ok().flatten()?;
            if loaded.current.database_id != database_id {
                return None;
            }
            let records = loaded.state.keyspaces.into_iter();
            let tables = records.flat_map(|(keyspace, record)| {
                record.tables.into_iter().map(move |(number, placed)| ((keyspace, number), placed.meta))
            });
            Some(Shared { storage: Arc::new(storage), tables: tables.collect() })
        })
    }

    /// Removes a backup or what is left of one: `CURRENT` first, the mark last.
    fn remove(&self, id: u64) -> Result<()> {
        let within = self.within(id);
        match within.create(filename::CHECKPOINT) {
            Ok(mut mark) => mark.sync_data()?,
            Err(error) if !is_there(&error) => return Err(error),
            Err(_) => {}
        }
        within.sync_dir("")?;
        match within.remove(filename::CURRENT) {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
        within.sync_dir("")?;
        let mut dirs = BTreeSet::new();
        for path in recovery::list_files(&within)? {
            if filename::parse(&path).is_some() {
                within.remove(&path)?;
                dirs.extend(path.rsplit_once('/').map(|(dir, _)| dir.to_owned()));
            }
        }
        // Without the mark nobody would remove files that came back.
        dirs.iter().try_for_each(|dir| within.sync_dir(dir).map(drop))?;
        within.remove(filename::CHECKPOINT)?;
        #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
        self.remove_dirs(&within)?;
        self.storage.sync_dir("").map(drop)
    }

    /// Removes the directories of a backup; one that holds something else stays.
    #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
    fn remove_dirs(&self, within: &Within) -> Result<()> {
        let keyspaces = within.list(filename::SST_DIR)?;
        let keyspaces = keyspaces.iter().filter_map(|name| filename::parse_keyspace(name));
        let mut dirs: Vec<String> = keyspaces.map(filename::sst_dir).collect();
        dirs.extend([filename::SST_DIR, filename::WAL_DIR, filename::MANIFEST_DIR, ""].map(str::to_owned));
        for dir in dirs {
            if let Some((files, path)) = within.locate(&dir) {
                let _ = files.remove_dir(&path);
            }
        }
        Ok(())
    }
}

fn is_there(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::AlreadyExists)
}

/// True for what an interruption has left: marked, and no database.
fn is_unfinished(storage: &dyn Storage) -> Result<bool> {
    let marked = storage.list("")?.iter().any(|name| name == filename::CHECKPOINT);
    Ok(marked && matches!(current::read(storage), Ok(CurrentState::Missing | CurrentState::Incomplete)))
}

fn describe(id: u64, database_id: u64, state: &State) -> BackupInfo {
    let tables = || state.keyspaces.values().flat_map(|record| record.tables.values());
    BackupInfo {
        id,
        database_id,
        files: (tables().count() + state.wals.len()) as u64,
        table_bytes: tables().map(|placed| placed.meta.bytes).sum(),
        problem: None,
    }
}

/// A backup to share files with.
struct Shared {
    storage: Arc<dyn Storage>,
    tables: BTreeMap<(KeyspaceId, FileNumber), TableMeta>,
}

impl Shared {
    /// True if it has this table, as far as the tail tells.
    fn has(&self, meta: &TableMeta) -> bool {
        let same = self.tables.get(&(meta.keyspace, meta.number)) == Some(meta);
        same && TableHandle::new(meta.clone(), Arc::clone(&self.storage), Cache::new(0)).table().is_ok()
    }
}
