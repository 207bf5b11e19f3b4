//! Opening a database: what is on disk becomes a [`Core`].
//!
//! 1. Refuse a directory that is something else, take the lock, read `CURRENT`
//!    and the manifest.
//! 2. Check that every SSTable is there at its length.
//! 3. Replay the WALs into memtables, up to a torn tail at most, and sync what
//!    was read, `CURRENT` and its name included: a kill leaves bytes and names
//!    that a power loss could still take.
//! 4. Write a new manifest, which fences older writers off and fixes where torn
//!    WALs end, and make it live.
//! 5. Remove files that nothing refers to.
//!
//! Opened for reading alone, a database is left as it is: the lock is shared,
//! and recovery ends with the replay of the WALs.
//!
//! Nothing is changed before step 3 has succeeded, and a crash at any point
//! leaves a database that opens the same way. A recovered WAL is never appended
//! to; its memtables are flushed like any other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use crate::batch::{self, Op};
use crate::core::{Core, Counters, OldWal, Parts};
use crate::current::{self, CurrentState};
use crate::edit::{Header, State, WalEnd, WalRecord};
use crate::error::{Error, Result};
use crate::filename::{self, FileKind};
use crate::key::{FileNumber, KeyspaceId, SequenceNumber};
use crate::keyspace::Keyspace;
use crate::manifest::{self, Loaded, Manifest};
use crate::merge_operator;
use crate::options::Options;
use crate::sstable::Cache;
use crate::storage::{Lock, Storage};
use crate::version::{TableHandle, Version};
use crate::wal;

/// Longest batch that is read back, whatever the limits for new ones are.
pub(crate) const BATCH_BYTES_MAX: usize = 256 << 20;

/// Opens the database in `storage`, or creates it.
pub(crate) fn open(storage: Arc<dyn Storage>, options: Options) -> Result<Core> {
    let unfinished = check_directory(&*storage, &options)?;
    let lock = if options.read_only { storage.lock_shared()? } else { storage.lock()? };
    match manifest::load(&*storage)? {
        Some(loaded) => {
            let recovery = Recovery::new(Arc::clone(&storage), options, loaded)?;
            let core = recovery.run(lock)?;
            if unfinished && !core.options.read_only {
                // The checkpoint was finished, save that it still says it is not.
                let _ = storage.remove(filename::CHECKPOINT);
            }
            Ok(core)
        }
        None if unfinished => Err(unfinished_checkpoint(&*storage)),
        None if options.read_only => Err(no_database(&*storage)),
        None => create(storage, options, lock),
    }
}

fn no_database(storage: &dyn Storage) -> Error {
    Error::invalid(format!("there is no database in {}", storage.describe()))
}

fn unfinished_checkpoint(storage: &dyn Storage) -> Error {
    Error::invalid(format!(
        "{} holds a checkpoint that was not finished; make it again or remove the directory",
        storage.describe()
    ))
}

/// Refuses, before anything is touched, a directory that holds no database and
/// may not become one. True if it says that it is an unfinished checkpoint.
fn check_directory(storage: &dyn Storage, options: &Options) -> Result<bool> {
    let names = storage.list("")?;
    let unfinished = names.iter().any(|name| name == filename::CHECKPOINT);
    if names.iter().any(|name| name == filename::CURRENT) {
        return Ok(unfinished);
    }
    if unfinished {
        return Err(unfinished_checkpoint(storage));
    }
    let ours = [filename::LOCK, filename::MANIFEST_DIR, filename::WAL_DIR, filename::SST_DIR];
    if let Some(name) = names.iter().find(|name| !ours.contains(&name.as_str())) {
        return Err(Error::invalid(format!(
            "{} is not a Duramen database (it holds {name:?} and no {}); name an empty or new directory to create one",
            storage.describe(),
            filename::CURRENT
        )));
    }
    if options.read_only || !options.create_if_missing {
        return Err(no_database(storage));
    }
    storage.create_dir("")?;
    Ok(false)
}

/// Creates a database, or finishes what an interrupted creation began.
fn create(storage: Arc<dyn Storage>, options: Options, lock: Box<dyn Lock>) -> Result<Core> {
    let first = FileNumber(1);
    for path in list_files(&*storage)? {
        match filename::parse(&path) {
            // The creation ends with CURRENT, and only later come other files.
            Some(FileKind::Manifest(number)) if number == first => {}
            Some(_) => {
                let what = format!("there is no live generation, though {path} exists; restore a backup");
                return Err(Error::corruption(filename::CURRENT, 0, what));
            }
            None => {}
        }
    }
    if current::read(&*storage)? == CurrentState::Incomplete {
        storage.remove(filename::CURRENT)?;
    }
    for dir in [filename::MANIFEST_DIR, filename::WAL_DIR, filename::SST_DIR] {
        storage.create_dir(dir)?;
    }
    match storage.remove(&filename::manifest(first)) {
        Err(error) if !error.is_not_found() => return Err(error),
        _ => {}
    }
    storage.sync_dir("")?;
    let header = Header { epoch: 1, ..Header::default() };
    let state = State { header, ..State::default() };
    let id = options.environment.random();
    let manifest = Manifest::create(Arc::clone(&storage), first, state, Err(id))?;
    Ok(Core::new(Parts {
        cache: Cache::new(options.cache_bytes as u64),
        storage,
        options,
        manifest,
        keyspaces: Vec::new(),
        old_wals: BTreeMap::new(),
        last_seq: SequenceNumber(0),
        next_file: FileNumber(first.0 + 1),
        counters: Counters::default(),
        lock,
    }))
}

/// Paths of all files in the directories of a database.
pub(crate) fn list_files(storage: &dyn Storage) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for dir in [filename::MANIFEST_DIR, filename::WAL_DIR] {
        files.extend(storage.list(dir)?.iter().map(|name| format!("{dir}/{name}")));
    }
    let keyspaces = storage.list(filename::SST_DIR)?;
    for id in keyspaces.iter().filter_map(|name| filename::parse_keyspace(name)) {
        let dir = filename::sst_dir(id);
        files.extend(storage.list(&dir)?.iter().map(|name| format!("{dir}/{name}")));
    }
    Ok(files)
}

/// A recovery in progress.
struct Recovery {
    storage: Arc<dyn Storage>,
    options: Options,
    loaded: Loaded,
    cache: Cache,
    keyspaces: BTreeMap<KeyspaceId, Arc<Keyspace>>,
    counters: Counters,
}

impl Recovery {
    fn new(storage: Arc<dyn Storage>, options: Options, loaded: Loaded) -> Result<Recovery> {
        let cache = Cache::new(options.cache_bytes as u64);
        let mut keyspaces = BTreeMap::new();
        for (id, record) in &loaded.state.keyspaces {
            let mut tables = Vec::new();
            for placed in record.tables.values() {
                check_table(&*storage, &filename::sst(*id, placed.meta.number), placed.meta.bytes)?;
                let handle = TableHandle::new(placed.meta.clone(), Arc::clone(&storage), cache.clone());
                tables.push((placed.clone(), Arc::new(handle)));
            }
            let operator = merge_operator::find(&record.facts.merge_operator, &options.merge_operators);
            let keyspace = Keyspace::new(*id, &record.facts, operator, Version::new(tables));
            keyspaces.insert(*id, Arc::new(keyspace));
        }
        Ok(Recovery { storage, options, loaded, cache, keyspaces, counters: Counters::default() })
    }

    fn run(mut self, lock: Box<dyn Lock>) -> Result<Core> {
        let files = list_files(&*self.storage)?;
        let mut state = self.loaded.state.clone();
        let (old_wals, wal_seq) = self.replay_all(&mut state)?;
        if !self.options.read_only {
            self.sync_names()?;
        }
        let last_seq = highest_sequence(&state).max(wal_seq);
        if let Some(closed_at) = state.clean_close.filter(|closed_at| *closed_at != last_seq) {
            let what = format!("closed at commit {}, but the last one found is {}", closed_at.0, last_seq.0);
            let path = filename::manifest(self.loaded.current.manifest);
            return Err(Error::corruption(path, 0, what));
        }
        self.check_unlisted_wals(&files, last_seq)?;
        let mut old_wals = old_wals;
        let views = self.keyspaces.values().map(|keyspace| keyspace.view());
        let needed = views.flat_map(|view| view.memtables().filter_map(|m| m.first_wal()).min()).min();
        let is_needed = |number: &FileNumber| needed.is_some_and(|needed| *number >= needed);
        state.wals.retain(|number, _| is_needed(number));
        old_wals.retain(|number, _| is_needed(number));
        let number = FileNumber(next_file(&state, &files));
        state.header.last_sequence = last_seq;
        let previous = self.loaded.current;
        if self.options.read_only {
            let manifest = Manifest::read_only(Arc::clone(&self.storage), self.loaded, state);
            return Ok(Core::new(Parts {
                storage: self.storage,
                options: self.options,
                cache: self.cache,
                manifest,
                keyspaces: self.keyspaces.into_values().collect(),
                old_wals,
                last_seq,
                next_file: number,
                counters: self.counters,
                lock,
            }));
        }
        state.header.epoch += 1;
        if !previous.names_durable {
            // This host may be one that can: from now on they would count as durable.
            for dir in ["", filename::WAL_DIR, filename::SST_DIR] {
                self.storage.sync_dir(dir)?;
            }
            for id in state.keyspaces.keys() {
                self.storage.sync_dir(&filename::sst_dir(*id))?;
            }
        }
        let manifest = Manifest::create(Arc::clone(&self.storage), number, state, Ok(previous))?;
        remove_orphans(&*self.storage, &manifest, &files);
        let core = Core::new(Parts {
            storage: self.storage,
            options: self.options,
            cache: self.cache,
            manifest,
            keyspaces: self.keyspaces.into_values().collect(),
            old_wals,
            last_seq,
            next_file: FileNumber(number.0 + 1),
            counters: self.counters,
            lock,
        });
        core.views_changed();
        Ok(core)
    }

    /// Makes durable what led here and a kill may have left unsynced: a slot of
    /// `CURRENT`, before the other one is overwritten, and the name of the file.
    fn sync_names(&self) -> Result<()> {
        if !self.loaded.current.names_durable {
            // The edit that creates a keyspace may have outlived its directory.
            for dir in [filename::WAL_DIR, filename::SST_DIR] {
                self.storage.create_dir(dir)?;
            }
            for id in self.keyspaces.keys() {
                self.storage.create_dir(&filename::sst_dir(*id))?;
            }
        }
        self.storage.sync(filename::CURRENT)?;
        self.storage.sync_dir("").map(drop)
    }

    /// Replays every WAL, in order; answers those that hold anything, with
    /// their lengths, and the last sequence number found.
    fn replay_all(&mut self, state: &mut State) -> Result<(BTreeMap<FileNumber, OldWal>, SequenceNumber)> {
        let listed: Vec<(FileNumber, WalRecord)> =
            state.wals.iter().map(|(n, record)| (*n, *record)).collect();
        let mut last_with_data = None;
        for (number, _) in &listed {
            if wal::holds_data(&*self.storage, *number).map_err(|error| missing_wal(error, *number))? {
                last_with_data = Some(*number);
            }
        }
        let mut wals = BTreeMap::new();
        let mut last_seq = None;
        for (number, record) in listed {
            let path = filename::wal(number);
            let may_be_torn = record.end.is_some() || last_with_data.is_none_or(|last| number >= last);
            let found = self.replay(number, may_be_torn)?;
            // One that was made ahead did not know what it would begin with.
            let unknown = SequenceNumber(0);
            if found.created_for.is_none_or(|seq| seq != unknown && seq != record.first_sequence) {
                return Err(Error::corruption(path, 0, "the header is missing or that of another WAL"));
            }
            let told = Some(record.first_sequence).filter(|seq| *seq != unknown);
            let Some(first) = told.or(found.first_seq) else {
                state.wals.remove(&number);
                continue;
            };
            let follows = match last_seq {
                Some(SequenceNumber(last)) => first.0 == last + 1,
                // What was in WALs that are not needed any more is in the header.
                None => told.is_some() || first.0 <= state.header.last_sequence.0 + 1,
            };
            if !follows || found.first_seq.is_some_and(|seq| seq != first) {
                let last = last_seq.unwrap_or(state.header.last_sequence).0;
                let what = format!(
                    "begins with commit {}, but what comes before ends with commit {last}: commits are missing",
                    found.first_seq.unwrap_or(first).0
                );
                return Err(Error::corruption(path, 0, what));
            }
            let end = SequenceNumber((first.0 - 1).saturating_add(found.batches));
            last_seq = Some(end);
            if found.batches == 0 {
                state.wals.remove(&number);
                continue;
            }
            wals.insert(number, OldWal { bytes: found.bytes, last_seq: end });
            let end = WalEnd { bytes: found.bytes, last_sequence: end };
            match record.end {
                Some(recorded) if recorded != end => {
                    let what = format!(
                        "an earlier recovery found commits up to {}, this one up to {}",
                        recorded.last_sequence.0, end.last_sequence.0
                    );
                    return Err(Error::corruption(path, found.bytes, what));
                }
                None => {
                    // Earlier WALs were synced before this one took batches. Of
                    // this one even a seal may be there and not be durable.
                    if may_be_torn && !self.options.read_only {
                        self.storage.sync(&path)?;
                    }
                    let end = Some(end).filter(|_| !found.sealed);
                    state.wals.insert(number, WalRecord { first_sequence: first, end });
                    self.counters.recovered_bytes_dropped.fetch_add(found.bytes_dropped, Relaxed);
                }
                Some(_) => {}
            }
        }
        Ok((wals, last_seq.unwrap_or_default()))
    }

    /// A WAL takes commits only once the manifest lists it, and stays listed
    /// until they are in SSTables. One that has later commits than all that was
    /// found tells that the end of the manifest is no trace of a crash.
    fn check_unlisted_wals(&self, files: &[String], last_seq: SequenceNumber) -> Result<()> {
        let Loaded { state, current, bytes, .. } = &self.loaded;
        if !current.names_durable {
            // Then the end of the manifest may have been given up on purpose.
            return Ok(());
        }
        for path in files {
            let Some(FileKind::Wal(number)) = filename::parse(path) else { continue };
            if state.wals.contains_key(&number) {
                continue;
            }
            let ignore = |_, _| Ok(());
            let found =
                wal::replay(&*self.storage, number, current.database_id, true, BATCH_BYTES_MAX, ignore);
            // What cannot be read is no proof.
            let Ok(found) = found else { continue };
            if let Some(last) = found.last_seq.filter(|last| *last > last_seq) {
                let manifest = filename::manifest(current.manifest);
                let what = format!(
                    "the edits go as far as commit {}, and {path}, which they do not list, to commit {}",
                    last_seq.0, last.0
                );
                return Err(Error::corruption(manifest, *bytes, what));
            }
        }
        Ok(())
    }

    /// Replays one WAL into the memtables.
    fn replay(&self, number: FileNumber, may_be_torn: bool) -> Result<wal::Replayed> {
        let id = self.loaded.current.database_id;
        let apply = |seq: SequenceNumber, batch: Bytes| self.apply(number, seq, &batch);
        wal::replay(&*self.storage, number, id, may_be_torn, BATCH_BYTES_MAX, apply)
    }

    fn apply(&self, wal: FileNumber, seq: SequenceNumber, batch: &[u8]) -> Result<()> {
        self.counters.recovered_commits.fetch_add(1, Relaxed);
        let ops: Vec<Op> = batch::decode(batch).map_while(Result::ok).collect();
        for ops in ops.chunk_by(|a, b| a.keyspace == b.keyspace) {
            let id = ops[0].keyspace;
            let record = self.loaded.state.keyspaces.get(&id);
            if record.is_none() && id <= self.loaded.state.keyspace_max {
                // Dropped since.
                continue;
            }
            let Some((record, keyspace)) = record.zip(self.keyspaces.get(&id)) else {
                let what = format!("commit {} writes to keyspace {}, which does not exist", seq.0, id.0);
                return Err(Error::corruption(filename::wal(wal), 0, what));
            };
            if seq <= record.facts.flushed_through {
                continue;
            }
            let mut view = keyspace.view();
            // Never within a batch: the next one must find what it shares a
            // sequence number with in the same memtable.
            let full = view.active.bytes() >= self.options.memtable_bytes;
            if full && view.active.last_seq() < seq {
                keyspace.freeze();
                view = keyspace.view();
            }
            view.active.insert(wal, seq, ops, batch);
        }
        Ok(())
    }
}

fn check_table(storage: &dyn Storage, path: &str, bytes: u64) -> Result<()> {
    let found = match storage.open(path) {
        Err(error) if error.is_not_found() => {
            return Err(Error::corruption(path, 0, "the file is in the manifest and does not exist"));
        }
        other => other?.size()?,
    };
    if found != bytes {
        let what = format!("the file has {found} bytes, and {bytes} in the manifest");
        return Err(Error::corruption(path, found.min(bytes), what));
    }
    Ok(())
}

fn missing_wal(error: Error, number: FileNumber) -> Error {
    if error.is_not_found() {
        let what = "the file is in the manifest and does not exist";
        return Error::corruption(filename::wal(number), 0, what);
    }
    error
}

/// The highest sequence number that the manifest knows of.
fn highest_sequence(state: &State) -> SequenceNumber {
    let keyspaces = state.keyspaces.values().flat_map(|record| {
        let tables = record.tables.values().map(|placed| placed.meta.seq_max);
        tables.chain([record.facts.flushed_through])
    });
    keyspaces.fold(state.header.last_sequence, SequenceNumber::max)
}

/// A number above every one that is used, or was by a file that is still there.
fn next_file(state: &State, files: &[String]) -> u64 {
    let number = |path: &String| match filename::parse(path) {
        Some(FileKind::Manifest(number) | FileKind::Wal(number) | FileKind::Sst(_, number)) => Some(number.0),
        _ => None,
    };
    // No database comes to a number of this size; a stray file may have one.
    let possible = files.iter().filter_map(number).filter(|number| *number < u64::MAX / 2);
    possible.map(|number| number + 1).fold(state.header.next_file.0, u64::max)
}

/// Removes numbered files that the database does not refer to. What cannot be
/// removed is an orphan for the next open. Unknown names are left alone.
///
/// Where names are not durable the state of the manifest before may come back,
/// so that manifest stays; what it refers to is what this one refers to.
fn remove_orphans(storage: &dyn Storage, manifest: &Manifest, files: &[String]) {
    let state = manifest.state();
    let mut live: BTreeSet<FileKind> = state.wals.keys().map(|number| FileKind::Wal(*number)).collect();
    live.insert(FileKind::Manifest(manifest.current().manifest));
    live.extend(manifest.previous().map(FileKind::Manifest));
    for (id, record) in &state.keyspaces {
        live.extend(record.tables.keys().map(|number| FileKind::Sst(*id, *number)));
    }
    for path in files {
        if filename::parse(path).is_some_and(|kind| !live.contains(&kind)) {
            let _ = storage.remove(path);
        }
    }
}
