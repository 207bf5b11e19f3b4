//! The shipped core module, driven by its canonical ABI as the WIT describes it
//! for hosts without component support: arguments are lowered and results are
//! lifted by hand.
//!
//! A list or string is a pointer and a length in memory that `cabi_realloc`
//! gave and the callee frees. A result that is more than one number is a
//! pointer into the guest, valid until `cabi_post_…` of the call. A result
//! `<T, error>` is a tag byte and, because an error holds a 64-bit number, its
//! payload eight bytes later.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, ErrorKind};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use duramen::api::Page;
use duramen::stats::{
    BackgroundError, JobStats, KeyspaceStats, Lane, LevelStats, Problem, RunStats, StallCause, StallKind,
    StallState, StallStats,
};
use duramen::{
    Budget, CheckpointReport, CompactionProgress, Compression, Database, DatabaseTransaction, Durability,
    Error, KeyspaceId, KeyspaceOptions, MemtableKind, Options, Progress, Result, Savepoint, Scan, ScanRange,
    SnapshotId, Stats, VerifyReport, WriteBatch,
};
use wasmtime46::{Config, Engine, Linker, Memory, Module, Store, TypedFunc, Val};

use crate::disk::Names;
use crate::wasi::{self, Host, SharedDisk, hold};

const INTERFACE: &str = "duramen:db/engine@0.1.0";

/// Where the payload of a `result` begins.
const PAYLOAD: u32 = 8;

/// Instructions that one call may take, roughly: far more than any does here,
/// so that an endless loop ends in a trap.
const FUEL: u64 = 20_000_000_000;

/// Builds the core module as `host/build.rs` does for shipping, in the same
/// place, and returns its path.
fn build() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace above");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(workspace.join("target"), PathBuf::from);
    let target = workspace.join(target).join("component/core");
    let output = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--package", "duramen-component", "--no-default-features"])
        .args(["--target", "wasm32-wasip1", "--profile", "component", "--target-dir"])
        .arg(&target)
        .current_dir(workspace)
        .env("CONST_RANDOM_SEED", "duramen")
        .env_remove("RUSTFLAGS")
        .output()
        .expect("cargo starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the core module did not build:\n{text}");
    target.join("wasm32-wasip1/component/duramen_component.wasm")
}

/// The module, compiled once.
fn compiled() -> &'static Module {
    static MODULE: OnceLock<Module> = OnceLock::new();
    MODULE.get_or_init(|| {
        let mut config = Config::new();
        config.consume_fuel(true);
        let engine = Engine::new(&config).unwrap();
        Module::from_file(&engine, build()).unwrap()
    })
}

/// The database in an instance of the module; dropping it is what a kill is to
/// a process.
///
/// # Panics
/// Every call, if the guest traps.
#[derive(Clone)]
pub struct Guest(Arc<Mutex<Instance>>);

struct Instance {
    store: Store<Host>,
    instance: wasmtime46::Instance,
    memory: Memory,
    realloc: TypedFunc<(u32, u32, u32, u32), u32>,
    database: u32,
    keyspaces: HashMap<KeyspaceId, u32>,
    snapshots: BTreeSet<SnapshotId>,
}

impl Guest {
    /// Instantiates the module over `disk` and opens the database there.
    pub fn open(disk: &SharedDisk, names: Names, options: &Options) -> Result<Guest> {
        let module = compiled();
        let mut linker = Linker::new(module.engine());
        wasi::add_to_linker(&mut linker, names).unwrap();
        let intrinsics = format!("[export]{INTERFACE}");
        for resource in ["database", "keyspace", "transaction", "snapshot", "cursor"] {
            linker.func_wrap(&intrinsics, &format!("[resource-new]{resource}"), |rep: u32| rep).unwrap();
            linker.func_wrap(&intrinsics, &format!("[resource-rep]{resource}"), |rep: u32| rep).unwrap();
            linker.func_wrap(&intrinsics, &format!("[resource-drop]{resource}"), |_: u32| {}).unwrap();
        }
        let mut store = Store::new(module.engine(), Host::new(Arc::clone(disk)));
        store.set_fuel(FUEL).unwrap();
        let instance = linker.instantiate(&mut store, module).unwrap();
        let memory = instance.get_memory(&mut store, "memory").unwrap();
        let realloc = instance.get_typed_func(&mut store, "cabi_realloc").unwrap();
        let (keyspaces, snapshots) = (HashMap::new(), BTreeSet::new());
        let mut guest = Instance { store, instance, memory, realloc, database: 0, keyspaces, snapshots };
        let options = guest.options(options);
        guest.database = guest.call("[static]database.open", &[i32(options)], |at| at.u32(PAYLOAD))?;
        Ok(Guest(Arc::new(Mutex::new(guest))))
    }

    /// Makes a checkpoint in its directory beside the database.
    pub fn checkpoint(&self) -> Result<CheckpointReport> {
        self.on_database("checkpoint", &[], |at| CheckpointReport {
            last_sequence: at.u64(PAYLOAD),
            files: at.u64(PAYLOAD + 8),
            bytes: at.u64(PAYLOAD + 16),
            bytes_linked: at.u64(PAYLOAD + 24),
        })
    }

    fn on_database<T>(&self, method: &str, arguments: &[Val], lift: impl FnOnce(At<'_>) -> T) -> Result<T> {
        let mut guest = hold(&self.0);
        let arguments = [&[i32(guest.database)], arguments].concat();
        guest.call(&format!("[method]database.{method}"), &arguments, lift)
    }
}

fn i32(value: u32) -> Val {
    Val::I32(value.cast_signed())
}

impl Instance {
    /// Calls a function of the interface and lifts what it answers.
    fn call<T>(&mut self, name: &str, arguments: &[Val], lift: impl FnOnce(At<'_>) -> T) -> Result<T> {
        let result = self.call_raw(&format!("{INTERFACE}#{name}"), arguments).expect("a pointer");
        let at = At { memory: self.memory.data(&self.store), base: result };
        let answer = if at.u8(0) == 0 { Ok(lift(at)) } else { Err(at.plus(PAYLOAD).error()) };
        self.call_raw(&format!("cabi_post_{INTERFACE}#{name}"), &[i32(result)]);
        answer
    }

    fn call_raw(&mut self, name: &str, arguments: &[Val]) -> Option<u32> {
        self.store.set_fuel(FUEL).unwrap();
        let function = self.instance.get_func(&mut self.store, name).unwrap_or_else(|| panic!("no {name}"));
        let mut results = vec![Val::I32(0); function.ty(&self.store).results().len()];
        if let Err(error) = function.call(&mut self.store, arguments, &mut results) {
            panic!("{name} trapped: {error:?}\n{}", self.store.data().stderr());
        }
        results.first().map(|result| result.unwrap_i32().cast_unsigned())
    }

    fn alloc(&mut self, align: u32, len: usize) -> u32 {
        if len == 0 {
            return align;
        }
        self.realloc.call(&mut self.store, (0, 0, align, len as u32)).expect("guest memory")
    }

    fn bytes(&mut self, bytes: &[u8]) -> [Val; 2] {
        let pointer = self.alloc(1, bytes.len());
        self.memory.write(&mut self.store, pointer as usize, bytes).unwrap();
        [i32(pointer), i32(bytes.len() as u32)]
    }

    /// The record `options`, in memory: it has more fields than a call takes.
    fn options(&mut self, options: &Options) -> u32 {
        let mut record = [0; 152];
        record[0] = options.create_if_missing.into();
        record[1] = 1;
        record[2] = options.durability as u8;
        let numbers = [
            Some(options.memtable_bytes as u64),
            options.write_buffer_bytes.map(|bytes| bytes as u64),
            Some(options.cache_bytes as u64),
            Some(options.target_file_bytes),
            options.wal_bytes_max,
            Some(options.value_bytes_max as u64),
            Some(options.batch_bytes_max as u64),
            Some(options.stall_ms_max),
        ];
        for (field, number) in record[8..136].chunks_exact_mut(16).zip(numbers) {
            field[0] = number.is_some().into();
            field[8..].copy_from_slice(&number.unwrap_or_default().to_le_bytes());
        }
        record[136] = 1;
        record[137] = (options.compression == Compression::Snappy).into();
        let compaction = self.bytes(options.compaction.to_string().as_bytes());
        record[140] = 1;
        for (field, value) in record[144..].chunks_exact_mut(4).zip(compaction) {
            field.copy_from_slice(&value.unwrap_i32().to_le_bytes());
        }
        let pointer = self.alloc(8, record.len());
        self.memory.write(&mut self.store, pointer as usize, &record).unwrap();
        pointer
    }

    fn bound(&mut self, bound: &Bound<Vec<u8>>) -> [Val; 3] {
        let (tag, key) = match bound {
            Bound::Unbounded => return [i32(0); 3],
            Bound::Included(key) => (1, key),
            Bound::Excluded(key) => (2, key),
        };
        let [pointer, len] = self.bytes(key);
        [i32(tag), pointer, len]
    }

    fn keyspace(&mut self, id: KeyspaceId) -> Result<u32> {
        if let Some(keyspace) = self.keyspaces.get(&id) {
            return Ok(*keyspace);
        }
        let arguments = [i32(self.database), i32(id.0)];
        let keyspace = self.call("[method]database.keyspace-by-id", &arguments, |at| at.u32(PAYLOAD))?;
        self.keyspaces.insert(id, keyspace);
        Ok(keyspace)
    }

    /// Keeps the handle of a keyspace, and asks for its id.
    fn adopt_keyspace(&mut self, keyspace: u32) -> Result<KeyspaceId> {
        let id = KeyspaceId(self.call("[method]keyspace.id", &[i32(keyspace)], |at| at.u32(PAYLOAD))?);
        if let Some(known) = self.keyspaces.insert(id, keyspace) {
            self.drop_handle("keyspace", known);
        }
        Ok(id)
    }

    fn drop_handle(&mut self, resource: &str, rep: u32) {
        self.call_raw(&format!("{INTERFACE}#[dtor]{resource}"), &[i32(rep)]);
    }

    fn snapshot(&self, snapshot: Option<SnapshotId>) -> Result<[Val; 2]> {
        match snapshot {
            None => Ok([i32(0); 2]),
            Some(id) if self.snapshots.contains(&id) => Ok([i32(1), i32(id.0 as u32)]),
            Some(_) => Err(Error::invalid("no such snapshot")),
        }
    }
}

fn durability(durability: Durability) -> [Val; 2] {
    [i32(1), i32(durability as u32)]
}

/// A place in the guest's memory.
#[derive(Clone, Copy)]
struct At<'a> {
    memory: &'a [u8],
    base: u32,
}

impl<'a> At<'a> {
    fn plus(self, offset: u32) -> Self {
        At { base: self.base + offset, ..self }
    }

    fn slice(self, offset: u32, len: u32) -> &'a [u8] {
        &self.memory[(self.base + offset) as usize..][..len as usize]
    }

    fn u8(self, offset: u32) -> u8 {
        self.slice(offset, 1)[0]
    }

    fn u32(self, offset: u32) -> u32 {
        u32::from_le_bytes(self.slice(offset, 4).try_into().unwrap())
    }

    fn u64(self, offset: u32) -> u64 {
        u64::from_le_bytes(self.slice(offset, 8).try_into().unwrap())
    }

    fn bytes(self, offset: u32) -> Bytes {
        let list = At { base: self.u32(offset), ..self };
        Bytes::copy_from_slice(list.slice(0, self.u32(offset + 4)))
    }

    fn string(self, offset: u32) -> String {
        String::from_utf8(self.bytes(offset).to_vec()).expect("UTF-8")
    }

    /// Elements of `size` bytes each.
    fn list<T>(self, offset: u32, size: u32, lift: impl Fn(At<'a>) -> T) -> Vec<T> {
        let list = At { base: self.u32(offset), ..self };
        (0..self.u32(offset + 4)).map(|index| lift(list.plus(index * size))).collect()
    }

    fn error(self) -> Error {
        let text = || self.string(PAYLOAD);
        match self.u8(0) {
            0 => {
                let kind = match self.u8(24) {
                    0 => ErrorKind::NotFound,
                    1 => ErrorKind::PermissionDenied,
                    2 => ErrorKind::AlreadyExists,
                    3 => ErrorKind::StorageFull,
                    4 => ErrorKind::ReadOnlyFilesystem,
                    5 => ErrorKind::FileTooLarge,
                    6 => ErrorKind::UnexpectedEof,
                    7 => ErrorKind::WriteZero,
                    8 => ErrorKind::Unsupported,
                    _ => ErrorKind::Other,
                };
                let message = format!("{}: {}", self.string(8), self.string(28));
                Error::io("use", self.string(16), io::Error::new(kind, message))
            }
            1 => {
                let Problem { file, offset, what } = self.plus(PAYLOAD).damage();
                Error::Corruption { file, offset, what }
            }
            2 => Error::InvalidArgument(text()),
            3 => Error::Locked(text()),
            4 => Error::Conflict { key: self.bytes(PAYLOAD).to_vec() },
            5 => Error::Poisoned(text()),
            6 => Error::Unsupported(text()),
            7 => Error::Stalled(text()),
            tag => panic!("no such error: {tag}"),
        }
    }

    fn damage(self) -> Problem {
        Problem { file: self.string(0), offset: self.u64(8), what: self.string(16) }
    }

    fn stats(self) -> Stats {
        let counter = |index: u32| self.u64(8 + 8 * index);
        Stats {
            keyspaces: self.list(0, 104, At::keyspace_stats),
            last_sequence: counter(0),
            snapshots: counter(1),
            oldest_snapshot: counter(2),
            wal_files: counter(3),
            wal_bytes: counter(4),
            bytes_committed: counter(5),
            commits: counter(6),
            wal_syncs: counter(7),
            flushes: counter(8),
            flush_bytes: counter(9),
            compactions: counter(10),
            compaction_bytes_read: counter(11),
            compaction_bytes_written: counter(12),
            stall_ms: counter(13),
            cache_bytes: counter(14),
            cache_hits: counter(15),
            cache_misses: counter(16),
            recovered_commits: counter(17),
            recovered_bytes_dropped: counter(18),
            flush_failures: counter(19),
            compaction_failures: counter(20),
            names_durable: self.u8(176) != 0,
            stall: (self.u8(177) != 0)
                .then(|| StallState { cause: self.stall_cause(178), kind: self.stall_kind(179) }),
            background_errors: self.list(180, 32, |at| BackgroundError {
                lane: Lane::ALL[at.u8(0) as usize],
                message: at.string(4),
                count: at.u64(16),
                since_ms: at.u64(24),
            }),
            stalls: self.list(188, 32, |at| StallStats {
                cause: at.stall_cause(0),
                kind: at.stall_kind(1),
                count: at.u64(8),
                total_ms: at.u64(16),
                max_ms: at.u64(24),
            }),
            jobs: self.list(196, 72, |at| JobStats {
                keyspace: KeyspaceId(at.u32(0)),
                cause: at.string(4),
                level: at.u32(12),
                inputs: at.u64(16),
                outputs: at.u64(24),
                bytes_read: at.u64(32),
                bytes_written: at.u64(40),
                entries: at.u64(48),
                entries_dropped: at.u64(56),
                ms: at.u64(64),
            }),
        }
    }

    fn stall_cause(self, offset: u32) -> StallCause {
        StallCause::ALL[usize::from(self.u8(offset))]
    }

    fn stall_kind(self, offset: u32) -> StallKind {
        [StallKind::Slowed, StallKind::Waited, StallKind::Refused][usize::from(self.u8(offset))]
    }

    fn keyspace_stats(self) -> KeyspaceStats {
        KeyspaceStats {
            id: KeyspaceId(self.u32(0)),
            name: self.string(4),
            memtable_entries: self.u64(16),
            memtable_bytes: self.u64(24),
            runs: self.list(32, 56, |at| RunStats {
                level: at.u32(0),
                density: at.u64(8),
                files: at.u64(16),
                bytes: at.u64(24),
                entries: at.u64(32),
                tombstones: at.u64(40),
                range_tombstones: at.u64(48),
            }),
            levels: self.list(40, 48, |at| LevelStats {
                level: at.u32(0),
                scaling: at.string(4),
                runs: at.u64(16),
                files: at.u64(24),
                bytes: at.u64(32),
                density_max: at.u64(40),
            }),
            scaling: self.string(48),
            adaptive: self.string(56),
            overlap: self.u64(64),
            pending_bytes: self.u64(72),
            bytes_put: self.u64(80),
            flush_bytes: self.u64(88),
            compaction_bytes: self.u64(96),
        }
    }
}

/// Its number in the enumeration.
fn memtable(kind: MemtableKind) -> u32 {
    match kind {
        MemtableKind::Sorted => 0,
        MemtableKind::SkipList => 1,
        MemtableKind::Trie => 2,
    }
}

impl Database for Guest {
    fn create_keyspace_with(&self, name: &str, options: &KeyspaceOptions) -> Result<KeyspaceId> {
        let mut guest = hold(&self.0);
        let name = guest.bytes(name.as_bytes());
        let operator = match &options.merge_operator {
            Some(operator) => [&[i32(1)][..], &guest.bytes(operator.as_bytes())].concat(),
            None => vec![i32(0); 3],
        };
        let compaction = match &options.compaction {
            Some(strategy) => [&[i32(1)][..], &guest.bytes(strategy.to_string().as_bytes())].concat(),
            None => vec![i32(0); 3],
        };
        drop(guest);
        let ttl_ms =
            [i32(options.ttl_ms.is_some().into()), Val::I64(options.ttl_ms.unwrap_or(0).cast_signed())];
        let memtable = [i32(options.memtable.is_some().into()), i32(options.memtable.map_or(0, memtable))];
        let arguments = [&name[..], &operator, &ttl_ms, &memtable, &compaction].concat();
        let keyspace = self.on_database("create-keyspace", &arguments, |at| at.u32(PAYLOAD))?;
        hold(&self.0).adopt_keyspace(keyspace)
    }

    fn drop_keyspace(&self, name: &str) -> Result<bool> {
        let name = hold(&self.0).bytes(name.as_bytes());
        self.on_database("drop-keyspace", &name, |at| at.u8(PAYLOAD) != 0)
    }

    fn transaction(&self) -> Result<Box<dyn DatabaseTransaction>> {
        let transaction = self.on_database("begin", &[], |at| at.u32(PAYLOAD))?;
        Ok(Box::new(Transaction { guest: self.clone(), transaction }))
    }

    fn find_keyspace(&self, name: &str) -> Result<Option<KeyspaceId>> {
        let name = hold(&self.0).bytes(name.as_bytes());
        let option = |at: At<'_>| (at.u8(PAYLOAD) != 0).then(|| at.u32(PAYLOAD + 4));
        let keyspace = self.on_database("find-keyspace", &name, option)?;
        keyspace.map(|keyspace| hold(&self.0).adopt_keyspace(keyspace)).transpose()
    }

    fn keyspaces(&self) -> Result<Vec<(String, KeyspaceId)>> {
        let info = |at: At<'_>| (at.string(4), KeyspaceId(at.u32(0)));
        self.on_database("keyspaces", &[], |at| at.list(PAYLOAD, 12, info))
    }

    fn get(&self, keyspace: KeyspaceId, key: &[u8], snapshot: Option<SnapshotId>) -> Result<Option<Bytes>> {
        let mut guest = hold(&self.0);
        let keyspace = guest.keyspace(keyspace)?;
        let snapshot = guest.snapshot(snapshot)?;
        let [pointer, len] = guest.bytes(key);
        let arguments = [i32(keyspace), pointer, len, snapshot[0], snapshot[1]];
        let option = |at: At<'_>| (at.u8(PAYLOAD) != 0).then(|| at.bytes(PAYLOAD + 4));
        guest.call("[method]keyspace.get", &arguments, option)
    }

    fn multi_get(
        &self,
        keyspace: KeyspaceId,
        keys: &[&[u8]],
        snapshot: Option<SnapshotId>,
    ) -> Result<Vec<Option<Bytes>>> {
        let mut guest = hold(&self.0);
        let keyspace = guest.keyspace(keyspace)?;
        let snapshot = guest.snapshot(snapshot)?;
        let packed: Vec<u8> =
            keys.iter().flat_map(|key| [&(key.len() as u32).to_le_bytes(), *key].concat()).collect();
        let [pointer, len] = guest.bytes(&packed);
        let arguments = [i32(keyspace), pointer, len, snapshot[0], snapshot[1]];
        let mut rest = guest.call("[method]keyspace.multi-get", &arguments, |at| at.bytes(PAYLOAD))?;
        let mut values = Vec::new();
        while !rest.is_empty() {
            let len = u32::from_le_bytes(rest.split_to(4)[..].try_into().unwrap());
            values.push((len != u32::MAX).then(|| rest.split_to(len as usize)));
        }
        assert_eq!(values.len(), keys.len());
        Ok(values)
    }

    fn write(&self, batch: WriteBatch, level: Durability) -> Result<()> {
        let [pointer, len] = hold(&self.0).bytes(batch.as_encoded());
        let [some, level] = durability(level);
        self.on_database("write", &[pointer, len, some, level], |_| ())
    }

    fn put(&self, keyspace: KeyspaceId, key: &[u8], value: &[u8], level: Durability) -> Result<()> {
        let mut guest = hold(&self.0);
        let keyspace = [i32(guest.keyspace(keyspace)?)];
        let (key, value) = (guest.bytes(key), guest.bytes(value));
        let arguments = [&keyspace[..], &key, &value, &durability(level)].concat();
        guest.call("[method]keyspace.put", &arguments, |_| ())
    }

    fn delete(&self, keyspace: KeyspaceId, key: &[u8], level: Durability) -> Result<()> {
        let mut guest = hold(&self.0);
        let keyspace = [i32(guest.keyspace(keyspace)?)];
        let arguments = [&keyspace[..], &guest.bytes(key), &durability(level)].concat();
        guest.call("[method]keyspace.delete", &arguments, |_| ())
    }

    fn snapshot(&self) -> Result<SnapshotId> {
        let id = SnapshotId(self.on_database("snapshot", &[], |at| at.u32(PAYLOAD))?.into());
        hold(&self.0).snapshots.insert(id);
        Ok(id)
    }

    fn release(&self, snapshot: SnapshotId) -> Result<()> {
        let mut guest = hold(&self.0);
        guest.snapshot(Some(snapshot))?;
        guest.snapshots.remove(&snapshot);
        guest.drop_handle("snapshot", snapshot.0 as u32);
        Ok(())
    }

    fn scan(
        &self,
        keyspace: KeyspaceId,
        range: &ScanRange,
        snapshot: Option<SnapshotId>,
    ) -> Result<Box<dyn Scan>> {
        let mut guest = hold(&self.0);
        let keyspace = [i32(guest.keyspace(keyspace)?)];
        let snapshot = guest.snapshot(snapshot)?;
        let (start, end) = (guest.bound(&range.start), guest.bound(&range.end));
        let arguments = [&keyspace[..], &start, &end, &[i32(range.reverse.into())], &snapshot].concat();
        let cursor = guest.call("[method]keyspace.scan", &arguments, |at| at.u32(PAYLOAD))?;
        Ok(Box::new(Cursor { guest: self.clone(), cursor }))
    }

    fn flush(&self) -> Result<()> {
        self.on_database("flush", &[], |_| ())
    }

    fn compact(&self) -> Result<()> {
        self.on_database("compact", &[], |_| ())
    }

    fn compact_slice(
        &self,
        keyspace: KeyspaceId,
        range: &ScanRange,
        budget: Budget,
    ) -> Result<Option<CompactionProgress>> {
        let mut guest = hold(&self.0);
        let (start, end) = (guest.bound(&range.start), guest.bound(&range.end));
        drop(guest);
        let (keyspace, reverse) = ([i32(keyspace.0)], [i32(range.reverse.into())]);
        let bytes = [Val::I64(budget.bytes.cast_signed())];
        let arguments = [&keyspace[..], &start, &end, &reverse, &bytes].concat();
        self.on_database("compact-slice", &arguments, |at| {
            let progress = || CompactionProgress { done: at.u64(PAYLOAD + 8), total: at.u64(PAYLOAD + 16) };
            (at.u8(PAYLOAD) != 0).then(progress)
        })
    }

    fn cancel_compactions(&self) -> Result<()> {
        self.on_database("cancel-compactions", &[], |_| ())
    }

    fn sync(&self) -> Result<()> {
        self.on_database("sync", &[], |_| ())
    }

    fn verify(&self) -> Result<VerifyReport> {
        self.on_database("verify", &[], |at| VerifyReport {
            files: at.u64(PAYLOAD),
            bytes: at.u64(PAYLOAD + 8),
            entries: at.u64(PAYLOAD + 16),
            problems: at.list(PAYLOAD + 24, 24, At::damage),
        })
    }

    fn stats(&self) -> Result<Stats> {
        self.on_database("stats", &[], |at| at.plus(PAYLOAD).stats())
    }

    fn maintain(&self, budget: Budget) -> Result<Progress> {
        let bytes = [Val::I64(budget.bytes.cast_signed())];
        let progress = self.on_database("maintain", &bytes, |at| at.u8(PAYLOAD))?;
        Ok(if progress == 0 { Progress::Done } else { Progress::More })
    }

    fn close(&self) -> Result<()> {
        self.on_database("close", &[], |_| ())
    }
}

struct Transaction {
    guest: Guest,
    transaction: u32,
}

impl Transaction {
    fn call<T>(&self, method: &str, arguments: &[Val], lift: impl FnOnce(At<'_>) -> T) -> Result<T> {
        let arguments = [&[i32(self.transaction)], arguments].concat();
        hold(&self.guest.0).call(&format!("[method]transaction.{method}"), &arguments, lift)
    }
}

impl DatabaseTransaction for Transaction {
    fn get(&mut self, keyspace: KeyspaceId, key: &[u8]) -> Result<Option<Bytes>> {
        let mut guest = hold(&self.guest.0);
        let arguments = [&[i32(guest.keyspace(keyspace)?)][..], &guest.bytes(key)].concat();
        drop(guest);
        self.call("get", &arguments, |at| (at.u8(PAYLOAD) != 0).then(|| at.bytes(PAYLOAD + 4)))
    }

    fn scan(&mut self, keyspace: KeyspaceId, range: &ScanRange) -> Result<Box<dyn Scan>> {
        let mut guest = hold(&self.guest.0);
        let keyspace = [i32(guest.keyspace(keyspace)?)];
        let (start, end) = (guest.bound(&range.start), guest.bound(&range.end));
        drop(guest);
        let arguments = [&keyspace[..], &start, &end, &[i32(range.reverse.into())]].concat();
        let cursor = self.call("scan", &arguments, |at| at.u32(PAYLOAD))?;
        Ok(Box::new(Cursor { guest: self.guest.clone(), cursor }))
    }

    fn write(&mut self, batch: WriteBatch) -> Result<()> {
        let batch = hold(&self.guest.0).bytes(batch.as_encoded());
        self.call("write", &batch, |_| ())
    }

    fn savepoint(&mut self) -> Result<Savepoint> {
        self.call("savepoint", &[], |at| Savepoint(at.u32(PAYLOAD)))
    }

    fn rollback_to(&mut self, savepoint: Savepoint) -> Result<()> {
        self.call("rollback-to", &[i32(savepoint.0)], |_| ())
    }

    fn commit(self: Box<Self>, level: Durability) -> Result<()> {
        self.call("commit", &durability(level), |_| ())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        // A trap is told by the call that met it.
        if !std::thread::panicking() {
            hold(&self.guest.0).drop_handle("transaction", self.transaction);
        }
    }
}

struct Cursor {
    guest: Guest,
    cursor: u32,
}

impl Scan for Cursor {
    fn next_page(&mut self, bytes_max: usize, pairs_max: usize) -> Result<Page> {
        let clamp = |most: usize| i32(u32::try_from(most).unwrap_or(u32::MAX));
        let arguments = [i32(self.cursor), clamp(bytes_max), clamp(pairs_max)];
        let page = |at: At<'_>| Page(at.bytes(PAYLOAD));
        hold(&self.guest.0).call("[method]cursor.next-page", &arguments, page)
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        // A trap is told by the call that met it.
        if !std::thread::panicking() {
            hold(&self.guest.0).drop_handle("cursor", self.cursor);
        }
    }
}
