//! What every part of an open database shares: its files, its keyspaces and
//! what is visible.
//!
//! Order of locks: writer (of the write path), next WAL, manifest, catalog, view. Whoever
//! holds one takes only later ones.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::cursor::Moment;
use crate::edit::{Item, KeyspaceFacts, Placed, check_name};
use crate::error::{Error, Result};
use crate::filename;
use crate::key::{FileNumber, KeyspaceId, SequenceNumber};
use crate::keyspace::{Keyspace, View};
use crate::manifest::{self, Manifest};
use crate::merge_operator::{self, BuiltIn, MergeOperator};
use crate::open_wals::OpenWals;
use crate::options::{KeyspaceOptions, Options};
use crate::snapshots::Snapshots;
use crate::sstable::{Cache, TableMeta};
use crate::stall::{Buffered, Stalls};
use crate::stats::JobStats;
use crate::storage::{Lock, Storage};
use crate::sync::atomic::{AtomicBool, AtomicU64};
use crate::sync::{Condvar, Mutex, RwLock, lock, read, write};
use crate::trash::Trash;
use crate::version::{TableHandle, Version};

/// The shared state of an open database.
#[derive(Debug)]
pub(crate) struct Core {
    pub storage: Arc<dyn Storage>,
    pub options: Options,
    pub cache: Cache,
    pub database_id: u64,
    /// False where names of files cannot be synced; then nothing is removed
    /// before the next open.
    pub names_durable: bool,
    pub snapshots: Snapshots,
    pub counters: Counters,
    pub stalls: Stalls,
    /// Compactions that are done, the last one at the end.
    pub jobs: Mutex<VecDeque<JobStats>>,
    pub trash: Arc<Trash>,
    pub work: Signal,
    pub progress: Signal,
    /// Highest sequence number that readers may see.
    pub visible: AtomicU64,
    pub manifest: Mutex<Manifest>,
    pub open_wals: OpenWals,
    /// WALs that take no more batches.
    pub old_wals: Mutex<BTreeMap<FileNumber, OldWal>>,
    wal_pins: Mutex<WalPins>,
    catalog: RwLock<Catalog>,
    next_file: AtomicU64,
    poison: OnceLock<String>,
    closed: AtomicBool,
    /// Held until the database is closed.
    lock: Mutex<Option<Box<dyn Lock>>>,
}

/// Keyspaces by id.
type Catalog = BTreeMap<KeyspaceId, Arc<Keyspace>>;

/// What recovery hands to a new [`Core`].
#[derive(Debug)]
pub(crate) struct Parts {
    pub storage: Arc<dyn Storage>,
    pub options: Options,
    pub cache: Cache,
    pub manifest: Manifest,
    pub keyspaces: Vec<Arc<Keyspace>>,
    pub old_wals: BTreeMap<FileNumber, OldWal>,
    pub last_seq: SequenceNumber,
    pub next_file: FileNumber,
    pub counters: Counters,
    pub lock: Box<dyn Lock>,
}

impl Core {
    pub fn new(parts: Parts) -> Core {
        let trash = Trash::new(Arc::clone(&parts.storage), !parts.options.threaded());
        Core {
            trash: Arc::new(trash),
            database_id: parts.manifest.current().database_id,
            names_durable: parts.manifest.current().names_durable,
            storage: parts.storage,
            options: parts.options,
            cache: parts.cache,
            snapshots: Snapshots::default(),
            counters: parts.counters,
            stalls: Stalls::default(),
            jobs: Mutex::default(),
            work: Signal::default(),
            progress: Signal::default(),
            visible: AtomicU64::new(parts.last_seq.0),
            manifest: Mutex::new(parts.manifest),
            open_wals: OpenWals::default(),
            old_wals: Mutex::new(parts.old_wals),
            wal_pins: Mutex::default(),
            catalog: RwLock::new(parts.keyspaces.into_iter().map(|k| (k.id, k)).collect()),
            next_file: AtomicU64::new(parts.next_file.0),
            poison: OnceLock::new(),
            closed: AtomicBool::new(false),
            lock: Mutex::new(Some(parts.lock)),
        }
    }

    /// True if worker threads do the background work.
    pub fn threaded(&self) -> bool {
        self.options.threaded()
    }

    pub fn new_file(&self) -> FileNumber {
        FileNumber(self.next_file.fetch_add(1, Relaxed))
    }

    /// The sequence number that a read begun now reads at. Load the view
    /// before: what is visible then is in the view, and what the view lacks is
    /// not missed but not yet seen.
    pub fn visible(&self) -> SequenceNumber {
        SequenceNumber(self.visible.load(Acquire))
    }

    /// When a read of `view` takes place that begins now, or at a snapshot. The
    /// clock is looked at only where something may expire: in a sandbox it costs as
    /// much as the rest of a get.
    pub fn moment(&self, view: &View, snapshot: Option<SequenceNumber>) -> Moment {
        let seq = snapshot.unwrap_or_else(|| self.visible());
        let now_ms = if view.expires() { self.options.environment.unix_ms() } else { 0 };
        Moment { seq, now_ms }
    }

    // --- Whether calls are answered -------------------------------------------

    /// # Errors
    /// `InvalidArgument` once the database is closed.
    pub fn check_open(&self) -> Result<()> {
        if self.is_open() { Ok(()) } else { Err(Error::invalid("the database is closed")) }
    }

    #[inline]
    pub fn is_open(&self) -> bool {
        !self.closed.load(Acquire)
    }

    /// # Errors
    /// `InvalidArgument` where the database is open read-only; otherwise as
    /// [`Core::check_sound`].
    pub fn check_writable(&self) -> Result<()> {
        self.check_sound()?;
        match self.options.read_only {
            true => Err(manifest::read_only()),
            false => Ok(()),
        }
    }

    /// # Errors
    /// `Poisoned` after a failure that leaves what is durable unknown.
    pub fn check_sound(&self) -> Result<()> {
        self.check_open()?;
        match self.poison.get() {
            Some(why) => Err(Error::Poisoned(why.clone())),
            None => Ok(()),
        }
    }

    /// Refuses calls from now on, and lets another opener in.
    pub fn close(&self) {
        self.empty_trash();
        self.closed.store(true, Release);
        self.trash.close();
        *lock(&self.lock) = None;
    }

    /// Looks at the outcome of a change to the log or the manifest: after a
    /// failed sync, or where another writer has taken over, nothing more may be
    /// written.
    pub fn note<T>(&self, outcome: Result<T>) -> Result<T> {
        if let Err(Error::Poisoned(why) | Error::Locked(why)) = &outcome {
            let _ = self.poison.set(why.clone());
            self.progress.raise();
        }
        outcome
    }

    /// Looks how much is in memory.
    pub fn look_at_memory(&self) -> Buffered {
        let mut buffered = Buffered::default();
        read(&self.catalog).values().for_each(|keyspace| buffered.add(&keyspace.view()));
        self.stalls.set_buffered(&buffered, &self.options);
        buffered
    }

    /// Looks how far background work is behind. Two that look at once may leave
    /// what the slower one has seen: look again before acting on it.
    pub fn look(&self) {
        self.look_at_memory();
        let overlap = |keyspace: &Arc<Keyspace>| keyspace.view().version.overlap();
        self.stalls.set_overlap(read(&self.catalog).values().map(overlap).max().unwrap_or(0));
    }

    /// Looks how far background work is behind after memtables or runs came or
    /// went, and wakes whoever waits for either.
    pub fn views_changed(&self) {
        self.look();
        self.work.raise();
        self.progress.raise();
    }

    // --- Keyspaces -------------------------------------------------------------

    /// # Errors
    /// `InvalidArgument` for an id that does not exist.
    pub fn keyspace(&self, id: KeyspaceId) -> Result<Arc<Keyspace>> {
        let found = read(&self.catalog).get(&id).cloned();
        found.ok_or_else(|| Error::invalid(format!("there is no keyspace with id {}", id.0)))
    }

    pub fn find_keyspace(&self, name: &str) -> Option<Arc<Keyspace>> {
        read(&self.catalog).values().find(|keyspace| keyspace.name == name).cloned()
    }

    /// All keyspaces in order of their ids.
    pub fn keyspaces(&self) -> Vec<Arc<Keyspace>> {
        read(&self.catalog).values().cloned().collect()
    }

    /// The keyspace `name`, if it exists and is as `options` want it.
    ///
    /// # Errors
    /// `InvalidArgument` where it has another merge operator.
    pub fn find_keyspace_with(&self, name: &str, options: &KeyspaceOptions) -> Result<Option<Arc<Keyspace>>> {
        let Some(found) = self.find_keyspace(name) else { return Ok(None) };
        Ok(found.accepts(options)?.then_some(found))
    }

    /// The keyspace `name`, created or changed to be as `options` want it; durable
    /// on return. Only with the write path held still.
    ///
    /// # Errors
    /// `InvalidArgument` where the name will not do, the merge operator is
    /// unknown, or the keyspace exists with another one.
    pub fn create_keyspace(&self, name: &str, options: &KeyspaceOptions) -> Result<Arc<Keyspace>> {
        self.check_writable()?;
        check_name(name)?;
        let mut manifest = lock(&self.manifest);
        if let Some(found) = self.find_keyspace(name) {
            if !found.accepts(options)? {
                self.change_keyspace(&mut manifest, &found, options)?;
            }
            return Ok(found);
        }
        let merge_operator = options.merge_operator.clone().unwrap_or_default();
        let supplied = &self.options.merge_operators;
        if !merge_operator.is_empty() && !merge_operator::exists(&merge_operator, supplied) {
            let built_in = BuiltIn::ALL.map(|operator| operator.name().to_owned()).join(", ");
            return Err(Error::invalid(format!(
                "there is no merge operator {merge_operator:?}; there are {built_in}, and those in the options"
            )));
        }
        let id = manifest.state().keyspace_max.0.checked_add(1).map(KeyspaceId);
        let id = id.ok_or_else(|| Error::Unsupported("the database has no keyspace ids left".into()))?;
        self.storage.create_dir(&filename::sst_dir(id))?;
        self.storage.sync_dir(filename::SST_DIR)?;
        let operator = merge_operator::find(&merge_operator, supplied);
        let facts = KeyspaceFacts {
            name: name.to_owned(),
            flushed_through: SequenceNumber(0),
            merge_operator,
            ttl_ms: options.ttl_ms.unwrap_or(0),
            memtable: options.memtable.unwrap_or_default(),
            compaction: options.compaction.clone(),
        };
        self.commit(&mut manifest, &[Item::Keyspace(id, facts.clone())])?;
        let keyspace = Arc::new(Keyspace::new(id, &facts, operator, Version::default()));
        write(&self.catalog).insert(id, Arc::clone(&keyspace));
        Ok(keyspace)
    }

    fn change_keyspace(
        &self,
        manifest: &mut Manifest,
        keyspace: &Keyspace,
        options: &KeyspaceOptions,
    ) -> Result<()> {
        let record = manifest.state().keyspaces.get(&keyspace.id);
        let Some(mut facts) = record.map(|record| record.facts.clone()) else { return Ok(()) };
        facts.ttl_ms = options.ttl_ms.unwrap_or(facts.ttl_ms);
        facts.memtable = options.memtable.unwrap_or(facts.memtable);
        facts.compaction = options.compaction.clone().or(facts.compaction);
        self.commit(manifest, &[Item::Keyspace(keyspace.id, facts.clone())])?;
        keyspace.change(&facts);
        Ok(())
    }

    /// Drops the keyspace `name`; false if there is none. Durable on return. Only
    /// with the write path held still.
    pub fn drop_keyspace(&self, name: &str) -> Result<bool> {
        let mut manifest = lock(&self.manifest);
        let Some(keyspace) = self.find_keyspace(name) else { return Ok(false) };
        self.commit(&mut manifest, &[Item::KeyspaceDropped(keyspace.id)])?;
        let view = keyspace.view();
        // First, so that whoever waits for its flush does not wait for one that
        // finds nothing to do.
        keyspace.drop_contents();
        write(&self.catalog).remove(&keyspace.id);
        if self.names_durable {
            view.version.tables().for_each(|table| table.retire(&self.trash));
        }
        drop((manifest, view));
        self.empty_trash();
        self.views_changed();
        Ok(true)
    }

    // --- The manifest ------------------------------------------------------------

    /// Makes an edit durable, and begins a new manifest where this one has
    /// grown long.
    ///
    /// # Errors
    /// Any error poisons the database, save `InvalidArgument`.
    pub fn commit(&self, manifest: &mut Manifest, items: &[Item]) -> Result<()> {
        self.check_writable()?;
        let outcome = manifest.commit(items).map_err(unknown_outcome);
        self.note(outcome)?;
        if manifest.is_long() {
            self.note(manifest.roll(self.new_file()).map_err(unknown_outcome))?;
        }
        Ok(())
    }

    /// The same, for an edit that can wait: an edit that finds no room ends all writing, so
    /// none is begun where the storage tells that there is none.
    ///
    /// # Errors
    /// `Io` for want of room; then all is as it was. Otherwise as [`Core::commit`].
    fn commit_with_room(&self, manifest: &mut Manifest, items: &[Item]) -> Result<()> {
        self.check_writable()?;
        manifest.check_room(items)?;
        self.commit(manifest, items)
    }

    /// Lists a new WAL in the manifest, or removes it.
    ///
    /// # Errors
    /// As [`Core::commit_with_room`].
    pub fn list_wal(
        &self,
        manifest: &mut Manifest,
        number: FileNumber,
        first_seq: SequenceNumber,
    ) -> Result<()> {
        self.commit_with_room(manifest, &[Item::WalAdded(number, first_seq)]).inspect_err(|_| {
            // After an unknown outcome it may be listed.
            if self.check_writable().is_ok() {
                self.remove_wal(number);
            }
        })
    }

    pub fn table_handle(&self, meta: TableMeta) -> Arc<TableHandle> {
        Arc::new(TableHandle::new(meta, Arc::clone(&self.storage), self.cache.clone()))
    }

    /// Makes the outcome of a flush or a compaction durable, then visible to
    /// readers: tables go and come, WALs go, and `install` makes the new view. The
    /// keyspace must not have been dropped.
    pub fn install(
        &self,
        keyspace: &Keyspace,
        manifest: &mut Manifest,
        mut items: Vec<Item>,
        removed: &[FileNumber],
        added: Vec<Placed>,
        install: impl FnOnce(&View, Version) -> View,
    ) -> Result<()> {
        items.extend(removed.iter().map(|number| Item::TableRemoved(keyspace.id, *number)));
        items.extend(added.iter().cloned().map(Item::TableAdded));
        self.commit_with_room(manifest, &items)?;
        let before = keyspace.view().version.clone();
        let mut placed: Vec<(Placed, Arc<TableHandle>)> = Vec::with_capacity(added.len());
        for table in added {
            // A table that moves to another level stays open.
            let moved = before.tables().find(|handle| handle.meta().number == table.meta.number);
            let handle = moved.cloned().unwrap_or_else(|| self.table_handle(table.meta.clone()));
            placed.push((table, handle));
        }
        let kept: Vec<FileNumber> = placed.iter().map(|(table, _)| table.meta.number).collect();
        keyspace.update(|view| install(view, view.version.edited(removed, placed)));
        if self.names_durable {
            let gone = |handle: &&Arc<TableHandle>| {
                removed.contains(&handle.meta().number) && !kept.contains(&handle.meta().number)
            };
            before.tables().filter(gone).for_each(|handle| handle.retire(&self.trash));
        }
        self.views_changed();
        Ok(())
    }

    /// Removes a WAL that the manifest does not list any more, at once or when
    /// nobody copies WALs.
    pub fn remove_wal(&self, number: FileNumber) {
        let mut pins = lock(&self.wal_pins);
        if pins.holders > 0 {
            pins.waiting.push(number);
            return;
        }
        drop(pins);
        self.trash.throw(filename::wal(number));
    }

    /// Removes all files that wait for it, unless nothing may be written any more: where
    /// another writer has taken over, files are that one's.
    pub fn empty_trash(&self) {
        if self.check_writable().is_ok() {
            self.trash.empty();
        }
    }

    /// Keeps every WAL that is there now.
    pub fn pin_wals(&self) -> PinnedWals<'_> {
        lock(&self.wal_pins).holders += 1;
        PinnedWals(self)
    }

    /// Bytes of all WALs that take no more batches.
    pub fn old_wal_bytes(&self) -> u64 {
        lock(&self.old_wals).values().map(|wal| wal.bytes).sum()
    }
}

/// A manifest that could not be changed is in an unknown state.
fn unknown_outcome(error: Error) -> Error {
    match error {
        Error::Poisoned(_) | Error::Locked(_) | Error::InvalidArgument(_) => error,
        other => Error::Poisoned(format!("the manifest could not be written ({other})")),
    }
}

/// A WAL that takes no more batches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OldWal {
    pub bytes: u64,
    /// Of its last batch, or the one before its first.
    pub last_seq: SequenceNumber,
}

/// WALs that must stay for a while.
#[derive(Debug, Default)]
struct WalPins {
    holders: usize,
    /// WALs to remove when nobody holds them.
    waiting: Vec<FileNumber>,
}

/// While it lives no WAL is removed.
pub(crate) struct PinnedWals<'a>(&'a Core);

impl Drop for PinnedWals<'_> {
    fn drop(&mut self) {
        let mut pins = lock(&self.0.wal_pins);
        pins.holders -= 1;
        if pins.holders > 0 {
            return;
        }
        let waiting = std::mem::take(&mut pins.waiting);
        drop(pins);
        waiting.into_iter().for_each(|number| self.0.remove_wal(number));
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.empty_trash();
    }
}

/// Lets threads wait until something has changed.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    count: Mutex<u64>,
    raised: Condvar,
}

impl Signal {
    /// How often it was raised; take it before looking at what may change.
    pub fn count(&self) -> u64 {
        *lock(&self.count)
    }

    /// Wakes everybody who waits.
    pub fn raise(&self) {
        *lock(&self.count) += 1;
        self.raised.notify_all();
    }

    /// Waits until it has been raised since `seen`, or for `limit`; false after
    /// a wait in vain.
    pub fn wait(&self, seen: u64, limit: Duration) -> bool {
        let count = lock(&self.count);
        let outcome = self.raised.wait_timeout_while(count, limit, |count| *count == seen);
        match outcome {
            Ok((count, _)) => *count != seen,
            Err(_) => true,
        }
    }
}

/// What [`crate::Stats`] counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub bytes_committed: AtomicU64,
    pub commits: AtomicU64,
    pub wal_syncs: AtomicU64,
    pub flushes: AtomicU64,
    pub flush_bytes: AtomicU64,
    pub compactions: AtomicU64,
    pub compaction_bytes_read: AtomicU64,
    pub compaction_bytes_written: AtomicU64,
    pub flush_failures: AtomicU64,
    pub compaction_failures: AtomicU64,
    pub recovered_commits: AtomicU64,
    pub recovered_bytes_dropped: AtomicU64,
}
