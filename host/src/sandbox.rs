//! [`Sandbox`]: a database inside an instance that may die and is replaced.
//!
//! Invariants:
//! - One instance at most, used under one mutex. The lock on the directory is
//!   held from open to close or drop, whether an instance lives or not.
//! - A trap ends the instance; the call answers with the reason. The next call
//!   makes another, which recovers from the WAL. Ids of keyspaces are the
//!   database's and stay good; snapshots and scans are the instance's and end
//!   with it.
//! - The ids of snapshots are the sandbox's, never reused, so that one of a dead
//!   instance is recognised.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use bytes::Bytes;
use duramen::api::Page;
use duramen::checkpoint::{self, STAGING_DIR};
use duramen::storage::fs::FsStorage;
use duramen::{
    Budget, CheckpointReport, CompactionProgress, Database, DatabaseTransaction, Durability, Error,
    KeyspaceId, KeyspaceOptions, Progress, Result, Savepoint, Scan, ScanRange, SnapshotId, Stats,
    VerifyReport, WriteBatch,
};
use wasmtime::component::ResourceAny;
use wasmtime_wasi::runtime::with_ambient_tokio_runtime;

use crate::compile::Compiled;
use crate::convert;
use crate::instance::bindings::exports::duramen::db::engine as wit;
use crate::instance::{Call, GuestResult, Instance};
use crate::limits::CallLength::{self, Long, Usual};
use crate::limits::{CallLimits, MemoryMeter, Ticker};
use crate::lock::DirectoryLock;
use crate::options::SandboxOptions;

/// A database whose engine runs inside a WebAssembly sandbox.
///
/// Many threads may call; the calls take turns and block, so an async program
/// makes them where blocking is allowed (`tokio::task::spawn_blocking`). Dropping a sandbox closes the
/// directory at once, even while scans of it live: those answer
/// `InvalidArgument` from then on.
///
/// # Errors
/// Every call answers what the engine inside answers. In addition, a call whose
/// instance was ended answers `Io`, whose source is of kind `OutOfMemory` (the
/// memory cap), `TimedOut` (the deadline, or the limit of fuel) or `Other` (a defect of the engine).
/// The outcome of a write is then unknown but all or nothing; later calls work,
/// and every earlier commit of [`Durability::Buffered`] or better is there.
/// Snapshots, scans and transactions that the ended instance had answer `Io` of
/// kind `ConnectionReset`: begin them again.
#[derive(Debug)]
pub struct Sandbox {
    shared: Arc<Shared>,
}

struct Shared {
    compiled: Arc<Compiled>,
    options: SandboxOptions,
    meter: Arc<MemoryMeter>,
    state: Mutex<State>,
    /// Handles to drop, with the generation that they are of; apart from `state`,
    /// so that dropping a scan or a transaction never waits for a call.
    dropped: Mutex<Vec<(u64, ResourceAny)>>,
    /// There are some: each call looks, and few find any.
    any_dropped: AtomicBool,
    /// Held by whoever makes a checkpoint, before `state`: there is room for one.
    checkpoints: Mutex<()>,
    _ticker: Arc<Ticker>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("options", &self.options).finish_non_exhaustive()
    }
}

struct State {
    /// `None` once closed.
    lock: Option<Arc<DirectoryLock>>,
    /// `None` after a trap, until the next call.
    instance: Option<Instance>,
    /// Counts instances.
    generation: u64,
    last_snapshot: u64,
    /// Snapshots that ended with an instance and have not been released.
    lost_snapshots: HashSet<SnapshotId>,
    limits: CallLimits,
}

impl State {
    /// Ends the instance after a trap.
    fn end_instance(&mut self, call: &str, length: CallLength, trap: &wasmtime::Error) -> Option<Error> {
        let (error, snapshots) = self.instance.take()?.end(call, self.limits.of(length), trap);
        self.lost_snapshots.extend(snapshots);
        Some(error)
    }

    fn close(&mut self) {
        // The instance first: it holds the directory open.
        self.instance = None;
        self.lock = None;
    }
}

impl Sandbox {
    /// Opens the database in `directory` and recovers it.
    ///
    /// # Errors
    /// `Locked` if anyone, this process included, has it open;
    /// `InvalidArgument` if the directory holds something else, which is left
    /// untouched, or if there is no database and none may be created;
    /// `Unsupported` where this machine cannot run compiled code; and what
    /// recovery answers.
    pub fn open(directory: impl AsRef<Path>, options: SandboxOptions) -> Result<Self> {
        if options.engine.read_only {
            let text = "a sandbox cannot open a database read-only; open it natively";
            return Err(Error::Unsupported(text.into()));
        }
        let options = options.fitted()?;
        let lock = DirectoryLock::take(directory.as_ref(), options.engine.create_if_missing)?;
        let _ = remove_staging(&lock);
        let compiled = Compiled::shared(&options)?;
        let ticker = compiled.ticker().map_err(|error| Error::io("start", "the epoch thread", error))?;
        let shared = Shared {
            meter: Arc::default(),
            state: Mutex::new(State {
                lock: Some(Arc::new(lock)),
                instance: None,
                generation: 0,
                last_snapshot: 0,
                lost_snapshots: HashSet::new(),
                limits: options.call_limits(),
            }),
            dropped: Mutex::default(),
            any_dropped: AtomicBool::new(false),
            checkpoints: Mutex::default(),
            _ticker: ticker,
            compiled,
            options,
        };
        shared.revive(&mut shared.lock(), shared.options.engine.create_if_missing)?;
        Ok(Sandbox { shared: Arc::new(shared) })
    }

    /// Gives later calls other limits of fuel than the options did; see
    /// [`SandboxOptions::call_fuel`].
    ///
    /// # Errors
    /// `InvalidArgument` if the sandbox was opened without any limit of fuel: then
    /// its code does not count.
    pub fn set_fuel(&self, call_fuel: Option<u64>, long_call_fuel: Option<u64>) -> Result<()> {
        if !self.shared.options.counts_fuel() {
            return Err(Error::invalid(
                "a sandbox that was opened without a limit of fuel does not count it",
            ));
        }
        let mut state = self.shared.lock();
        state.limits.usual.fuel = call_fuel;
        state.limits.long.fuel = long_call_fuel;
        Ok(())
    }

    /// Makes a complete database of its own in a new or empty directory, as this one
    /// is now: what [`Db::checkpoint`](duramen::Db::checkpoint) does, for a database
    /// that is open in a sandbox.
    ///
    /// The guest makes it within the database directory, on that file system; other
    /// calls wait for that. Then this process brings it to `path`, while calls go on.
    ///
    /// # Errors
    /// As [`Db::checkpoint`](duramen::Db::checkpoint), and as any call into the guest.
    /// What is there after an error is no database, and is refused as one.
    pub fn checkpoint(&self, path: impl AsRef<Path>) -> Result<CheckpointReport> {
        let shared = &self.shared;
        let _turn = shared.checkpoints.lock().unwrap_or_else(PoisonError::into_inner);
        // Held to the end: whoever opens the directory removes what is on its way.
        let lock = shared.lock().lock.clone().ok_or_else(closed)?;
        let database = Arc::new(FsStorage::new(lock.directory()));
        let target = FsStorage::new(path.as_ref());
        let delivered = checkpoint::deliver(database, &target, || {
            remove_staging(&lock)?;
            shared.call("checkpoint", Long, |instance| {
                let Call { store, engine, database } = instance.parts();
                Ok(engine.database().call_checkpoint(store, database)?.map(convert::checkpoint_report))
            })
        });
        // What stays takes room until the next checkpoint or the next open.
        let _ = remove_staging(&lock);
        delivered
    }

    /// Bytes of linear memory that the guest has now. It never shrinks while an
    /// instance lives, so this is also the most that the instance has needed.
    pub fn guest_memory_bytes(&self) -> u64 {
        self.shared.meter.now()
    }

    /// Most bytes of linear memory that any instance of this sandbox has had.
    pub fn guest_memory_bytes_peak(&self) -> u64 {
        self.shared.meter.peak()
    }

    /// Times that an ended instance was replaced since open.
    pub fn restarts(&self) -> u64 {
        self.shared.lock().generation.saturating_sub(1)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.shared.lock().close();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| {
            // A panic on this side, in the middle of a call: what the instance
            // was doing is unknown, so it goes the way of a trap.
            self.state.clear_poison();
            let mut state = poisoned.into_inner();
            state.end_instance("panic", Usual, &wasmtime::Error::msg("the host panicked"));
            state
        })
    }

    /// Makes sure that an instance lives.
    fn revive<'a>(&self, state: &'a mut State, create_if_missing: bool) -> Result<&'a mut Instance> {
        let lock = state.lock.as_ref().ok_or_else(closed)?;
        match &mut state.instance {
            Some(instance) => Ok(instance),
            none => {
                let instance = Instance::open(
                    &self.compiled,
                    lock.directory(),
                    &self.options,
                    create_if_missing,
                    state.limits.of(Long),
                    &self.meter,
                )?;
                state.generation += 1;
                Ok(none.insert(instance))
            }
        }
    }

    /// Tidies up, which may end the instance, and makes sure that one lives.
    fn ready<'a>(&self, state: &'a mut State) -> Result<&'a mut Instance> {
        self.drop_handles(state);
        self.revive(state, false)
    }

    /// Runs one call in the live instance, or in a new one.
    fn call<R>(
        &self,
        name: &str,
        length: CallLength,
        call: impl FnOnce(&mut Instance) -> GuestResult<R>,
    ) -> Result<R> {
        let mut state = self.lock();
        self.ready(&mut state)?;
        self.call_in(&mut state, name, length, call)
    }

    /// The same with the state in hand, after [`Shared::ready`]: handles looked
    /// up since then are of the instance that the call runs in.
    fn call_in<R>(
        &self,
        state: &mut State,
        name: &str,
        length: CallLength,
        call: impl FnOnce(&mut Instance) -> GuestResult<R>,
    ) -> Result<R> {
        let limit = state.limits.of(length);
        let instance = self.revive(state, false)?;
        instance.begin_call(limit);
        // Otherwise each read and write of a file in it would enter a runtime, and wait for
        // it to have had a turn.
        match with_ambient_tokio_runtime(|| call(instance)) {
            Ok(answer) => answer.map_err(convert::error),
            Err(trap) => Err(state.end_instance(name, length, &trap).unwrap_or_else(closed)),
        }
    }

    /// Runs a read of a keyspace, at a snapshot where one is given.
    fn read<R>(
        &self,
        name: &str,
        keyspace: KeyspaceId,
        snapshot: Option<SnapshotId>,
        call: impl FnOnce(Call<'_>, ResourceAny, Option<ResourceAny>) -> GuestResult<R>,
    ) -> Result<(R, u64)> {
        let mut state = self.lock();
        let instance = self.ready(&mut state)?;
        let snapshot = match snapshot {
            None => None,
            Some(id) => {
                let handle = instance.snapshot(id);
                if handle.is_none() && state.lost_snapshots.contains(&id) {
                    return Err(lost("the snapshot"));
                }
                Some(handle.ok_or_else(|| no_snapshot(id))?)
            }
        };
        let answer =
            self.call_in(&mut state, name, Usual, |instance| match instance.keyspace(keyspace)? {
                Ok(handle) => call(instance.parts(), handle, snapshot),
                Err(error) => Ok(Err(error)),
            })?;
        Ok((answer, state.generation))
    }

    /// Runs the destructors of scans and transactions that were dropped.
    fn drop_handles(&self, state: &mut State) {
        if !self.any_dropped.load(Relaxed) {
            return;
        }
        let mut dropped = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        self.any_dropped.store(false, Relaxed);
        for (generation, handle) in dropped.drain(..) {
            let Some(instance) = &mut state.instance else { continue };
            if generation != state.generation {
                continue;
            }
            instance.begin_call(state.limits.of(Usual));
            if let Err(trap) = instance.drop_handle(handle) {
                // Nobody asked for this call: the next one finds a new instance.
                state.end_instance("drop a handle", Usual, &trap);
            }
        }
    }

    /// Refuses a batch that would not fit in the guest, where everything else is
    /// checked.
    fn check_batch(&self, batch: &WriteBatch) -> Result<()> {
        let limits = self.options.engine.batch_limits();
        if batch.encoded_bytes() > limits.batch_bytes_max {
            batch.check(limits)?;
        }
        Ok(())
    }

    /// A range as the guest takes it.
    fn scan_range(&self, range: &ScanRange) -> Result<wit::ScanRange> {
        let range = convert::scan_range(range);
        for bound in [&range.start, &range.end] {
            if let wit::Bound::Included(key) | wit::Bound::Excluded(key) = bound {
                self.check_size("key", key.len())?;
            }
        }
        Ok(range)
    }

    /// Refuses an argument that would not fit in the guest beside the rest.
    fn check_size(&self, what: &str, bytes: usize) -> Result<()> {
        let bytes_max = self.options.engine.batch_bytes_max;
        if bytes <= bytes_max {
            return Ok(());
        }
        Err(Error::invalid(format!("{what} of {bytes} bytes is over the limit of {bytes_max} bytes")))
    }
}

fn closed() -> Error {
    Error::invalid("the database is closed")
}

/// Removes what a checkpoint on its way out has left in the directory.
fn remove_staging(lock: &DirectoryLock) -> Result<()> {
    match fs::remove_dir_all(lock.directory().join(STAGING_DIR)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", STAGING_DIR, error)),
        _ => Ok(()),
    }
}

fn lost(what: &str) -> Error {
    let text = "it ended with its sandbox, which was restarted; begin it again";
    Error::io("use", what, io::Error::new(io::ErrorKind::ConnectionReset, text))
}

fn no_snapshot(id: SnapshotId) -> Error {
    Error::invalid(format!("there is no snapshot {}", id.0))
}

impl Database for Sandbox {
    fn create_keyspace_with(&self, name: &str, options: &KeyspaceOptions) -> Result<KeyspaceId> {
        let operator = options.merge_operator.as_ref().map_or(0, String::len);
        self.shared.check_size("name", name.len().saturating_add(operator))?;
        let options = convert::keyspace_options(options);
        self.shared.call("create-keyspace", Usual, |instance| {
            let Call { store, engine, database } = instance.parts();
            match engine.database().call_create_keyspace(store, database, name, &options)? {
                Ok(handle) => instance.adopt_keyspace(handle),
                Err(error) => Ok(Err(error)),
            }
        })
    }

    fn drop_keyspace(&self, name: &str) -> Result<bool> {
        self.shared.check_size("name", name.len())?;
        self.shared.call("drop-keyspace", Usual, |instance| {
            let Call { store, engine, database } = instance.parts();
            engine.database().call_drop_keyspace(store, database, name)
        })
    }

    fn find_keyspace(&self, name: &str) -> Result<Option<KeyspaceId>> {
        self.shared.check_size("name", name.len())?;
        self.shared.call("find-keyspace", Usual, |instance| {
            let Call { store, engine, database } = instance.parts();
            match engine.database().call_find_keyspace(store, database, name)? {
                Ok(Some(handle)) => Ok(instance.adopt_keyspace(handle)?.map(Some)),
                Ok(None) => Ok(Ok(None)),
                Err(error) => Ok(Err(error)),
            }
        })
    }

    fn keyspaces(&self) -> Result<Vec<(String, KeyspaceId)>> {
        let keyspaces = self.shared.call("keyspaces", Usual, |instance| {
            let Call { store, engine, database } = instance.parts();
            engine.database().call_keyspaces(store, database)
        })?;
        Ok(keyspaces.into_iter().map(convert::keyspace).collect())
    }

    fn get(&self, keyspace: KeyspaceId, key: &[u8], snapshot: Option<SnapshotId>) -> Result<Option<Bytes>> {
        self.shared.check_size("key", key.len())?;
        let (value, _) = self.shared.read("get", keyspace, snapshot, |call, keyspace, snapshot| {
            call.engine.keyspace().call_get(call.store, keyspace, key, snapshot)
        })?;
        Ok(value.map(Bytes::from))
    }

    fn multi_get(
        &self,
        keyspace: KeyspaceId,
        keys: &[&[u8]],
        snapshot: Option<SnapshotId>,
    ) -> Result<Vec<Option<Bytes>>> {
        let packed = convert::packed_keys(keys);
        self.shared.check_size("multi-get", packed.len())?;
        let (values, _) = self.shared.read("multi-get", keyspace, snapshot, |call, keyspace, snapshot| {
            call.engine.keyspace().call_multi_get(call.store, keyspace, &packed, snapshot)
        })?;
        convert::values(values, keys.len())
    }

    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<()> {
        self.shared.check_batch(&batch)?;
        self.shared.call("write", Usual, |instance| {
            let Call { store, engine, database } = instance.parts();
            let durability = Some(convert::durability(durability));
            engine.database().call_write(store, database, batch.as_encoded(), durability)
        })
    }

    fn transaction(&self) -> Result<Box<dyn DatabaseTransaction>> {
        let mut state = self.shared.lock();
        self.shared.ready(&mut state)?;
        let handle = self.shared.call_in(&mut state, "begin", Usual, |instance| {
            let Call { store, engine, database } = instance.parts();
            engine.database().call_begin(store, database)
        })?;
        let generation = state.generation;
        drop(state);
        let handle = Handle { shared: Arc::clone(&self.shared), resource: handle, generation };
        Ok(Box::new(SandboxTransaction { handle }))
    }

    fn snapshot(&self) -> Result<SnapshotId> {
        let mut state = self.shared.lock();
        self.shared.ready(&mut state)?;
        let handle = self.shared.call_in(&mut state, "snapshot", Usual, |instance| {
            let Call { store, engine, database } = instance.parts();
            engine.database().call_snapshot(store, database)
        })?;
        state.last_snapshot += 1;
        let id = SnapshotId(state.last_snapshot);
        if let Some(instance) = &mut state.instance {
            instance.adopt_snapshot(id, handle);
        }
        Ok(id)
    }

    fn release(&self, snapshot: SnapshotId) -> Result<()> {
        let mut state = self.shared.lock();
        if state.lost_snapshots.remove(&snapshot) {
            return Ok(());
        }
        let handle = self.shared.ready(&mut state)?.take_snapshot(snapshot);
        let handle = handle.ok_or_else(|| no_snapshot(snapshot))?;
        self.shared.call_in(&mut state, "release", Usual, |instance| instance.drop_handle(handle).map(Ok))
    }

    fn scan(
        &self,
        keyspace: KeyspaceId,
        range: &ScanRange,
        snapshot: Option<SnapshotId>,
    ) -> Result<Box<dyn Scan>> {
        let range = self.shared.scan_range(range)?;
        let (resource, generation) =
            self.shared.read("scan", keyspace, snapshot, |call, keyspace, snapshot| {
                call.engine.keyspace().call_scan(call.store, keyspace, &range, snapshot)
            })?;
        let handle = Handle { shared: Arc::clone(&self.shared), resource, generation };
        Ok(Box::new(SandboxScan { handle }))
    }

    fn flush(&self) -> Result<()> {
        self.shared.call("flush", Long, |instance| {
            let Call { store, engine, database } = instance.parts();
            engine.database().call_flush(store, database)
        })
    }

    fn compact(&self) -> Result<()> {
        self.shared.call("compact", Long, |instance| {
            let Call { store, engine, database } = instance.parts();
            engine.database().call_compact(store, database)
        })
    }

    fn compact_slice(
        &self,
        keyspace: KeyspaceId,
        range: &ScanRange,
        budget: Budget,
    ) -> Result<Option<CompactionProgress>> {
        let range = self.shared.scan_range(range)?;
        let progress = self.shared.call("compact", Long, |instance| {
            let Call { store, engine, database } = instance.parts();
            engine.database().call_compact_slice(store, database, keyspace.0, &range, budget.bytes)
        })?;
        Ok(progress.map(|wit::CompactionProgress { done, total }| CompactionProgress { done, total }))
    }

    fn cancel_compactions(&self) -> Result<()> {
        self.shared.call("cancel compactions", Usual, |instance| {
            let Call { store, engine, database } = instance.parts();
            engine.database().call_cancel_compactions(store, database)
        })
    }

    fn sync(&self) -> Result<()> {
        self.shared.call("sync", Usual, |instance| {
            let Call { store, engine, database } = instance.parts();
            engine.database().call_sync(store, database)
        })
    }

    fn verify(&self) -> Result<VerifyReport> {
        let report = self.shared.call("verify", Long, |instance| {
            let Call { store, engine, database } = instance.parts();
            engine.database().call_verify(store, database)
        })?;
        Ok(convert::verify_report(report))
    }

    fn stats(&self) -> Result<Stats> {
        let stats = self.shared.call("stats", Usual, |instance| {
            let Call { store, engine, database } = instance.parts();
            engine.database().call_stats(store, database)
        })?;
        Ok(convert::stats(stats))
    }

    fn maintain(&self, budget: Budget) -> Result<Progress> {
        let progress = self.shared.call("maintain", Usual, |instance| {
            let Call { store, engine, database } = instance.parts();
            engine.database().call_maintain(store, database, budget.bytes)
        })?;
        Ok(match progress {
            wit::Progress::Done => Progress::Done,
            wit::Progress::More => Progress::More,
        })
    }

    fn close(&self) -> Result<()> {
        let mut state = self.shared.lock();
        self.shared.ready(&mut state)?;
        self.shared.call_in(&mut state, "close", Long, |instance| {
            let Call { store, engine, database } = instance.parts();
            engine.database().call_close(store, database)
        })?;
        state.close();
        Ok(())
    }
}

/// Something of an instance, dropped there when this is.
struct Handle {
    shared: Arc<Shared>,
    resource: ResourceAny,
    generation: u64,
}

impl Handle {
    /// Runs a call on it; `what` it is, for the case that its instance has ended.
    fn call<R>(
        &self,
        what: &str,
        name: &str,
        call: impl FnOnce(&mut Instance, ResourceAny) -> GuestResult<R>,
    ) -> Result<R> {
        let mut state = self.shared.lock();
        self.shared.drop_handles(&mut state);
        if state.lock.is_some() && (state.generation != self.generation || state.instance.is_none()) {
            return Err(lost(what));
        }
        self.shared.call_in(&mut state, name, Usual, |instance| call(instance, self.resource))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut dropped = self.shared.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        dropped.push((self.generation, self.resource));
        self.shared.any_dropped.store(true, Relaxed);
        drop(dropped);
        // Now, unless a call is under way: then the next one does it.
        match self.shared.state.try_lock() {
            Ok(mut state) => self.shared.drop_handles(&mut state),
            Err(TryLockError::WouldBlock | TryLockError::Poisoned(_)) => {}
        }
    }
}

struct SandboxScan {
    handle: Handle,
}

impl Scan for SandboxScan {
    fn next_page(&mut self, bytes_max: usize, pairs_max: usize) -> Result<Page> {
        let bytes_max = u32::try_from(bytes_max).unwrap_or(u32::MAX);
        let bytes_max = bytes_max.min(self.handle.shared.options.page_bytes_max());
        let pairs_max = u32::try_from(pairs_max).unwrap_or(u32::MAX);
        let page = self.handle.call("the scan", "next-page", |instance, cursor| {
            let Call { store, engine, .. } = instance.parts();
            engine.cursor().call_next_page(store, cursor, bytes_max, pairs_max)
        })?;
        Ok(Page(Bytes::from(page)))
    }
}

struct SandboxTransaction {
    handle: Handle,
}

impl SandboxTransaction {
    fn call<R>(
        &self,
        name: &str,
        call: impl FnOnce(&mut Instance, ResourceAny) -> GuestResult<R>,
    ) -> Result<R> {
        self.handle.call("the transaction", name, call)
    }
}

impl DatabaseTransaction for SandboxTransaction {
    fn get(&mut self, keyspace: KeyspaceId, key: &[u8]) -> Result<Option<Bytes>> {
        self.handle.shared.check_size("key", key.len())?;
        let value = self.call("get", |instance, transaction| {
            let keyspace = match instance.keyspace(keyspace)? {
                Ok(keyspace) => keyspace,
                Err(error) => return Ok(Err(error)),
            };
            let Call { store, engine, .. } = instance.parts();
            engine.transaction().call_get(store, transaction, keyspace, key)
        })?;
        Ok(value.map(Bytes::from))
    }

    fn scan(&mut self, keyspace: KeyspaceId, range: &ScanRange) -> Result<Box<dyn Scan>> {
        let range = self.handle.shared.scan_range(range)?;
        let resource = self.call("scan", |instance, transaction| {
            let keyspace = match instance.keyspace(keyspace)? {
                Ok(keyspace) => keyspace,
                Err(error) => return Ok(Err(error)),
            };
            let Call { store, engine, .. } = instance.parts();
            engine.transaction().call_scan(store, transaction, keyspace, &range)
        })?;
        let (shared, generation) = (Arc::clone(&self.handle.shared), self.handle.generation);
        Ok(Box::new(SandboxScan { handle: Handle { shared, resource, generation } }))
    }

    fn write(&mut self, batch: WriteBatch) -> Result<()> {
        self.handle.shared.check_batch(&batch)?;
        self.call("write", |instance, transaction| {
            let Call { store, engine, .. } = instance.parts();
            engine.transaction().call_write(store, transaction, batch.as_encoded())
        })
    }

    fn savepoint(&mut self) -> Result<Savepoint> {
        let savepoint = self.call("savepoint", |instance, transaction| {
            let Call { store, engine, .. } = instance.parts();
            engine.transaction().call_savepoint(store, transaction)
        })?;
        Ok(Savepoint(savepoint))
    }

    fn rollback_to(&mut self, savepoint: Savepoint) -> Result<()> {
        self.call("rollback-to", |instance, transaction| {
            let Call { store, engine, .. } = instance.parts();
            engine.transaction().call_rollback_to(store, transaction, savepoint.0)
        })
    }

    fn commit(self: Box<Self>, durability: Durability) -> Result<()> {
        let durability = Some(convert::durability(durability));
        self.call("commit", |instance, transaction| {
            let Call { store, engine, .. } = instance.parts();
            engine.transaction().call_commit(store, transaction, durability)
        })
    }
}
