//! Checkpoints: a complete database elsewhere, as this one is at some moment,
//! made while writes go on.
//!
//! 1. The target must be empty; it is marked as unfinished by a file
//!    `CHECKPOINT`, durable before anything else comes.
//! 2. With the write path held still the WAL is sealed; then the state in the
//!    manifest, the SSTables it names and the WALs are the whole database. Their
//!    files are held, and writes go on, in the next WAL.
//! 3. SSTables are linked or copied; WALs are copied, as far as they count.
//!    Files and directories are synced.
//! 4. A manifest with that state is written, then `CURRENT`. From here on it is a
//!    database.
//! 5. `CHECKPOINT` is removed.
//!
//! Until step 4 opening the target is refused, since it says that it is
//! unfinished; a new checkpoint may begin it anew. A checkpoint is a database of
//! the same id: its logs are copies and bound to that.
//!
//! A database in a sandbox reaches its own directory alone. It makes its
//! checkpoints in [`STAGING_DIR`] there, and [`deliver`] brings them out, by the
//! same steps: mark, files, `CURRENT`. Whoever delivers removes the directory; the
//! engine never looks into it.

use std::sync::Arc;

use crate::core::Core;
use crate::current::{self, CurrentState};
use crate::edit::State;
use crate::error::{Error, Result};
use crate::filename;
use crate::key::{FileNumber, KeyspaceId};
use crate::manifest::Manifest;
use crate::recovery;
use crate::sstable::TableMeta;
use crate::storage::{DirSync, Lock, Storage, Within, copy, link};
use crate::sync::lock;
use crate::version::Version;
use crate::write::WritePath;

/// Directory, within that of the database, of a checkpoint on its way out of a
/// sandbox.
pub const STAGING_DIR: &str = "checkpoint.tmp";

/// What [`crate::Db::checkpoint`] made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckpointReport {
    /// Sequence number of the last commit in it.
    pub last_sequence: u64,
    /// SSTables and WALs in it.
    pub files: u64,
    /// Bytes in those.
    pub bytes: u64,
    /// Bytes of SSTables that are second names of existing files and take no room.
    pub bytes_linked: u64,
}

/// Makes a checkpoint in `target`.
pub(crate) fn checkpoint(
    core: &Core,
    writes: &WritePath,
    target: &Arc<dyn Storage>,
) -> Result<CheckpointReport> {
    let _lock = lock_target(&**target)?;
    build(core, writes, target, |meta| {
        let path = filename::sst(meta.keyspace, meta.number);
        let (from, to) = ((&*core.storage, &*path), (&**target, &*path));
        if link(from, to, meta.bytes)? {
            return Ok(true);
        }
        copy(from, to, meta.bytes).map(|()| false)
    })
}

/// The same, with copies of all files, so that damage to one is not damage to
/// the other.
pub(crate) fn copied(core: &Core, writes: &WritePath, target: &Arc<dyn Storage>) -> Result<CheckpointReport> {
    let _lock = lock_target(&**target)?;
    build(core, writes, target, |meta| {
        let path = filename::sst(meta.keyspace, meta.number);
        copy((&*core.storage, &path), (&**target, &path), meta.bytes)?;
        Ok(false)
    })
}

/// Has `make` make a checkpoint in [`STAGING_DIR`] of `database`, and brings it to
/// `target`, by second names for its files where that is possible. What it is
/// brought from stays, and nobody else may use it meanwhile.
///
/// Only the names of files and `CURRENT` are read: whoever made the checkpoint
/// need not be trusted, and opening it checks the rest.
///
/// # Errors
/// As [`crate::Db::checkpoint`], of the target before `make` is called; what `make`
/// answers; `Corruption` if there is no checkpoint afterwards. What is then in the
/// target is no database.
pub fn deliver(
    database: Arc<dyn Storage>,
    target: &dyn Storage,
    make: impl FnOnce() -> Result<CheckpointReport>,
) -> Result<CheckpointReport> {
    let _lock = lock_target(target)?;
    let report = make()?;
    let staging: &dyn Storage = &Within::new(database, STAGING_DIR.to_owned());
    let CurrentState::Live(current) = current::read(staging)? else {
        return Err(Error::corruption(filename::CURRENT, 0, "the checkpoint is not complete"));
    };
    begin(target)?;
    let keyspaces: Vec<KeyspaceId> =
        staging.list(filename::SST_DIR)?.iter().filter_map(|name| filename::parse_keyspace(name)).collect();
    create_keyspaces(target, keyspaces.iter().copied())?;
    let mut copied = false;
    for path in recovery::list_files(staging)?.iter().filter(|path| filename::parse(path).is_some()) {
        let bytes = staging.open(path)?.size()?;
        if !link((staging, path), (target, path), bytes)? {
            copy((staging, path), (target, path), bytes)?;
            copied = true;
        }
    }
    let names = sync_names(target, keyspaces.into_iter())?;
    let names = if current.names_durable { names } else { DirSync::Unsupported };
    current::create(target, current.manifest, current.database_id, names)?;
    unmark(target);
    Ok(CheckpointReport { bytes_linked: if copied { 0 } else { report.bytes_linked }, ..report })
}

/// Locks a target that may become a database.
///
/// # Errors
/// `InvalidArgument` where it holds something; then nothing was changed.
pub(crate) fn lock_target(target: &dyn Storage) -> Result<Box<dyn Lock>> {
    check_target(target)?;
    target.create_dir("")?;
    target.lock()
}

/// Refuses a target that holds anything but an unfinished checkpoint; true if it
/// holds one.
fn check_target(target: &dyn Storage) -> Result<bool> {
    let names = target.list("")?;
    let unfinished = names.iter().any(|name| name == filename::CHECKPOINT);
    // Whoever locks an empty directory leaves that file.
    let foreign = names.iter().find(|name| *name != filename::LOCK);
    if let Some(name) = foreign.filter(|_| !unfinished) {
        return Err(Error::invalid(format!(
            "{} is not empty (it holds {name:?}); name an empty or new directory",
            target.describe()
        )));
    }
    if unfinished && matches!(current::read(target)?, CurrentState::Live(_)) {
        return Err(Error::invalid(format!("{} holds a database already", target.describe())));
    }
    Ok(unfinished)
}

/// Makes `target`, which the caller has locked, an unfinished checkpoint without
/// any files.
pub(crate) fn begin(target: &dyn Storage) -> Result<()> {
    if check_target(target)? {
        let remove = |path: &str| match target.remove(path) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        };
        remove(filename::CURRENT)?;
        for path in recovery::list_files(target)? {
            if filename::parse(&path).is_some() {
                remove(&path)?;
            }
        }
    } else {
        target.create(filename::CHECKPOINT)?.sync_data()?;
    }
    target.sync_dir("")?;
    for dir in [filename::MANIFEST_DIR, filename::WAL_DIR, filename::SST_DIR] {
        target.create_dir(dir)?;
    }
    target.sync_dir("").map(drop)
}

/// Makes the directories of keyspaces, durably.
pub(crate) fn create_keyspaces(
    target: &dyn Storage,
    mut ids: impl Iterator<Item = KeyspaceId>,
) -> Result<()> {
    ids.try_for_each(|id| target.create_dir(&filename::sst_dir(id)))?;
    target.sync_dir(filename::SST_DIR).map(drop)
}

/// Makes a checkpoint a database, once its SSTables and WALs are there and
/// synced: makes their names durable, then writes the manifest and `CURRENT`.
pub(crate) fn finish(
    target: &Arc<dyn Storage>,
    manifest: FileNumber,
    state: State,
    database_id: u64,
) -> Result<()> {
    sync_names(&**target, state.keyspaces.keys().copied())?;
    Manifest::create(Arc::clone(target), manifest, state, Err(database_id))?;
    unmark(&**target);
    Ok(())
}

/// Makes the names of all files durable, save that of `CURRENT`.
fn sync_names(target: &dyn Storage, ids: impl Iterator<Item = KeyspaceId>) -> Result<DirSync> {
    for id in ids {
        target.sync_dir(&filename::sst_dir(id))?;
    }
    target.sync_dir(filename::WAL_DIR)?;
    target.sync_dir(filename::MANIFEST_DIR)
}

/// Removes the mark of an unfinished checkpoint. One that stays says less than
/// `CURRENT`, and the next open removes it.
fn unmark(target: &dyn Storage) {
    if target.remove(filename::CHECKPOINT).is_ok() {
        let _ = target.sync_dir("");
    }
}

/// Makes a checkpoint in `target`, which the caller has locked. `bring` brings
/// an SSTable there, synced, and answers whether it takes no room.
pub(crate) fn build(
    core: &Core,
    writes: &WritePath,
    target: &Arc<dyn Storage>,
    bring: impl Fn(&TableMeta) -> Result<bool>,
) -> Result<CheckpointReport> {
    core.check_sound()?;
    begin(&**target)?;
    let _pins = core.pin_wals();
    let Frozen { state, versions, wals } = freeze(core, writes)?;
    let last_sequence = state.header.last_sequence.0;
    let mut report = CheckpointReport { last_sequence, ..CheckpointReport::default() };
    create_keyspaces(&**target, state.keyspaces.keys().copied())?;
    for handle in versions.iter().flat_map(|version| version.tables()) {
        let meta = handle.meta();
        report.files += 1;
        report.bytes += meta.bytes;
        if bring(meta)? {
            report.bytes_linked += meta.bytes;
        }
    }
    drop(versions);
    for (number, bytes) in wals {
        let path = filename::wal(number);
        copy((&*core.storage, &path), (&**target, &path), bytes)?;
        report.files += 1;
        report.bytes += bytes;
    }
    finish(target, core.new_file(), state, core.database_id)?;
    Ok(report)
}

/// A database at some moment; what it names stays as long as this does, and the
/// WALs are pinned.
struct Frozen {
    state: State,
    versions: Vec<Arc<Version>>,
    /// WALs and how many of their bytes count.
    wals: Vec<(FileNumber, u64)>,
}

fn freeze(core: &Core, writes: &WritePath) -> Result<Frozen> {
    writes.with_sealed(core, |last_seq| {
        let manifest = lock(&core.manifest);
        core.check_sound()?;
        let mut state = manifest.state().clone();
        state.header.last_sequence = last_seq;
        if let Some(empty) = core.open_wals.next() {
            state.wals.remove(&empty);
        }
        // With the manifest locked these are the tables that it names.
        let versions = core.keyspaces().iter().map(|keyspace| Arc::clone(&keyspace.view().version)).collect();
        let lengths = lock(&core.old_wals);
        let length = |number: &FileNumber| match lengths.get(number) {
            Some(wal) => Ok((*number, wal.bytes)),
            None => Ok((*number, core.storage.open(&filename::wal(*number))?.size()?)),
        };
        let wals = state.wals.keys().map(length).collect::<Result<_>>()?;
        Ok(Frozen { state, versions, wals })
    })
}
