//! One instance of the component with the database open in it, from
//! instantiation to the trap or the drop that ends it.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;

use duramen::{Error, KeyspaceId, Result, SnapshotId};
use wasmtime::component::{ResourceAny, ResourceTable};
use wasmtime::{Store, Trap};
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxView, WasiView};

use crate::compile::Compiled;
use crate::convert;
use crate::limits::{CallLimit, MemoryLimit, MemoryMeter};
use crate::options::SandboxOptions;

/// Glue generated from `engine/wit`.
pub mod bindings {
    wasmtime::component::bindgen!({ path: "../engine/wit", world: "duramen" });
}

use bindings::exports::duramen::db::engine as wit;

/// Name of the one directory, as the guest sees it.
const GUEST_DIRECTORY: &str = "/";

/// Bytes kept of what the guest prints: the message of a panic.
const STDERR_BYTES_MAX: usize = 16 * 1024;

/// What a call into the guest answers: the outer error is a trap.
pub type GuestResult<T> = wasmtime::Result<Result<T, wit::Error>>;

/// What a store holds beside the guest's own memory.
pub struct Guest {
    wasi: WasiCtx,
    table: ResourceTable,
    memory: MemoryLimit,
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// A live instance.
pub struct Instance {
    store: Store<Guest>,
    exports: bindings::Duramen,
    database: ResourceAny,
    keyspaces: BTreeMap<KeyspaceId, ResourceAny>,
    snapshots: HashMap<SnapshotId, ResourceAny>,
    stderr: MemoryOutputPipe,
    /// The code counts fuel.
    counts_fuel: bool,
}

/// The parts of an instance that a call needs.
pub struct Call<'a> {
    pub store: &'a mut Store<Guest>,
    pub engine: &'a wit::Guest,
    pub database: ResourceAny,
}

impl Instance {
    /// Instantiates the component over `directory` and opens the database.
    pub fn open(
        compiled: &Compiled,
        directory: &Path,
        options: &SandboxOptions,
        create_if_missing: bool,
        limit: CallLimit,
        meter: &Arc<MemoryMeter>,
    ) -> Result<Self> {
        let stderr = MemoryOutputPipe::new(STDERR_BYTES_MAX);
        let mut wasi = WasiCtx::builder();
        // Before the directory, which copies the flag: otherwise every file
        // operation takes a detour through another thread.
        wasi.allow_blocking_current_thread(true);
        wasi.stderr(stderr.clone());
        wasi.preopened_dir(directory, GUEST_DIRECTORY, FsPerms::ReadWrite).map_err(|error| {
            Error::io("open", directory.display().to_string(), io::Error::other(format!("{error:#}")))
        })?;
        let memory = MemoryLimit::new(options.memory_bytes_max, Arc::clone(meter));
        let guest = Guest { wasi: wasi.build(), table: ResourceTable::new(), memory };
        let mut store = Store::new(compiled.engine(), guest);
        store.limiter(|guest| &mut guest.memory);
        let counts_fuel = options.counts_fuel();
        grant(&mut store, limit, counts_fuel);

        let engine_options = convert::engine_options(&options.engine, create_if_missing);
        let opened = compiled.instance().instantiate(&mut store).and_then(|exports| {
            let open = exports.duramen_db_engine().database().call_open(&mut store, &engine_options)?;
            Ok((exports, open))
        });
        match opened {
            Ok((exports, database)) => Ok(Instance {
                database: database.map_err(convert::error)?,
                exports,
                store,
                keyspaces: BTreeMap::new(),
                snapshots: HashMap::new(),
                stderr,
                counts_fuel,
            }),
            Err(error) => Err(describe("open", limit, &error, &store, &stderr)),
        }
    }

    /// Begins a call that is held to `limit`.
    pub fn begin_call(&mut self, limit: CallLimit) {
        self.store.data_mut().memory.begin_call();
        grant(&mut self.store, limit, self.counts_fuel);
    }

    /// What a call needs.
    pub fn parts(&mut self) -> Call<'_> {
        Call { store: &mut self.store, engine: self.exports.duramen_db_engine(), database: self.database }
    }

    /// The handle of a keyspace, fetched at its first use in this instance.
    pub fn keyspace(&mut self, id: KeyspaceId) -> GuestResult<ResourceAny> {
        if let Some(handle) = self.keyspaces.get(&id) {
            return Ok(Ok(*handle));
        }
        let Call { store, engine, database } = self.parts();
        let handle = engine.database().call_keyspace_by_id(store, database, id.0)?;
        if let Ok(handle) = handle {
            self.keyspaces.insert(id, handle);
        }
        Ok(handle)
    }

    /// Keeps the handle of a keyspace, and learns its id.
    pub fn adopt_keyspace(&mut self, handle: ResourceAny) -> GuestResult<KeyspaceId> {
        let Call { store, engine, .. } = self.parts();
        let id = match engine.keyspace().call_id(&mut *store, handle)? {
            Ok(id) => KeyspaceId(id),
            Err(error) => return Ok(Err(error)),
        };
        if let Some(known) = self.keyspaces.insert(id, handle) {
            known.resource_drop(&mut self.store)?;
        }
        Ok(Ok(id))
    }

    /// Keeps the handle of a snapshot under an id of the sandbox.
    pub fn adopt_snapshot(&mut self, id: SnapshotId, handle: ResourceAny) {
        self.snapshots.insert(id, handle);
    }

    /// The handle of a snapshot, if it is of this instance and not released.
    pub fn snapshot(&self, id: SnapshotId) -> Option<ResourceAny> {
        self.snapshots.get(&id).copied()
    }

    /// Takes a snapshot out, to drop it.
    pub fn take_snapshot(&mut self, id: SnapshotId) -> Option<ResourceAny> {
        self.snapshots.remove(&id)
    }

    /// Runs the destructor of a handle.
    pub fn drop_handle(&mut self, handle: ResourceAny) -> wasmtime::Result<()> {
        handle.resource_drop(&mut self.store)
    }

    /// Ends the instance after a trap: the error for the caller, and the
    /// snapshots that went with it.
    pub fn end(
        self,
        call: &str,
        limit: CallLimit,
        error: &wasmtime::Error,
    ) -> (Error, impl Iterator<Item = SnapshotId>) {
        let error = describe(call, limit, error, &self.store, &self.stderr);
        (error, self.snapshots.into_keys())
    }
}

/// Gives the guest what its next call may use.
fn grant(store: &mut Store<Guest>, limit: CallLimit, counts_fuel: bool) {
    store.set_epoch_deadline(limit.epochs);
    if counts_fuel {
        // Refused only by code that does not count.
        let _ = store.set_fuel(limit.fuel.unwrap_or(u64::MAX));
    }
}

/// A trap as an error: why the instance ended, and the guest's last words. The
/// kind of the source is `OutOfMemory` for the memory cap, `TimedOut` for the
/// deadline and for fuel, which callers treat alike, and `Other` for a defect of
/// the guest.
fn describe(
    call: &str,
    limit: CallLimit,
    error: &wasmtime::Error,
    store: &Store<Guest>,
    stderr: &MemoryOutputPipe,
) -> Error {
    let memory = &store.data().memory;
    let trap = error.downcast_ref::<Trap>();
    let (kind, why) = if trap == Some(&Trap::Interrupt) {
        (io::ErrorKind::TimedOut, format!("it ran past its deadline of {:?}", limit.duration))
    } else if trap == Some(&Trap::OutOfFuel) {
        let units = limit.fuel.unwrap_or_default();
        (io::ErrorKind::TimedOut, format!("it is out of fuel: {units} units per call"))
    } else if memory.refused() {
        let bytes_max = memory.bytes_max();
        (io::ErrorKind::OutOfMemory, format!("it reached its memory cap of {bytes_max} bytes"))
    } else {
        (io::ErrorKind::Other, trap.map_or_else(|| error.root_cause().to_string(), ToString::to_string))
    };
    let words = last_words(&stderr.contents());
    let separator = if words.is_empty() { "" } else { ": " };
    let text = format!("the sandbox was ended because {why}{separator}{words}");
    Error::io("call", call, io::Error::new(kind, text))
}

/// What the guest printed before it ended, on one line and without the standard
/// library's advice about variables that a sandbox does not have.
fn last_words(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("note: "));
    lines.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_one_line() {
        let stderr = b"\nthread '<unnamed>' (1) panicked at engine/src/db.rs:1:1:\nwhy\nnote: run with X\n";
        assert_eq!(last_words(stderr), "thread '<unnamed>' (1) panicked at engine/src/db.rs:1:1: why");
        assert_eq!(last_words(b""), "");
    }
}
