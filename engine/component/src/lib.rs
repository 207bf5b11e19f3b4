//! The Duramen engine as a WebAssembly component: a thin adapter from the WIT
//! interface `duramen:db/engine` to [`duramen::Database`].
//!
//! One thread, one open database. A handle is a Rust value that the generated
//! glue owns; a cursor or snapshot keeps the database alive. Whatever arrives is
//! checked by the engine; nothing here can fail beyond what the engine answers,
//! except that packed bytes may be malformed.
//!
//! With the default feature `component` directories are synced through
//! `wasi:filesystem`, and the module must be encoded as a component. Without it
//! the module imports WASI preview 1 alone (and the resource intrinsics that
//! the WIT explains), for hosts without component support.

mod convert;
mod packed;

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use duramen::api::split_keys;
use duramen::checkpoint::STAGING_DIR;
use duramen::{
    Budget, CompactionProgress, Database, DatabaseTransaction, Db, KeyspaceId, Options, Progress, Savepoint,
    Scan, SnapshotId, WriteBatch,
};
use duramen_bindings::exports::duramen::db::engine as wit;

/// The directory that the host preopens.
const DIRECTORY: &str = "/";

type Result<T, E = wit::Error> = std::result::Result<T, E>;

struct Component;

duramen_bindings::export!(Component);

impl wit::Guest for Component {
    type Database = DatabaseHandle;
    type Keyspace = KeyspaceHandle;
    type Transaction = TransactionHandle;
    type Snapshot = SnapshotHandle;
    type Cursor = CursorHandle;
}

/// What every handle shares.
struct Shared {
    database: Db,
    durability: duramen::Durability,
    closed: Cell<bool>,
}

impl Shared {
    fn database(&self) -> &dyn Database {
        &self.database
    }

    fn write(&self, batch: WriteBatch, durability: Option<wit::Durability>) -> Result<()> {
        let durability = durability.map_or(self.durability, convert::durability);
        self.database().write(batch, durability).map_err(convert::error)
    }
}

thread_local! {
    /// The open database, if one is: WASI has no locks that would tell.
    static OPEN: RefCell<Weak<Shared>> = const { RefCell::new(Weak::new()) };
}

struct DatabaseHandle(Rc<Shared>);

impl DatabaseHandle {
    fn keyspace(&self, id: KeyspaceId) -> wit::Keyspace {
        wit::Keyspace::new(KeyspaceHandle { shared: Rc::clone(&self.0), id })
    }

    fn database(&self) -> &dyn Database {
        self.0.database()
    }
}

impl wit::GuestDatabase for DatabaseHandle {
    fn open(options: wit::Options) -> Result<wit::Database> {
        let options: Options = convert::options(options)?;
        let live = OPEN.with_borrow(Weak::upgrade);
        if live.is_some_and(|shared| !shared.closed.get()) {
            return Err(wit::Error::Locked("this instance has the database open already".to_owned()));
        }
        let durability = options.durability;
        let database = Db::open(DIRECTORY, options).map_err(convert::error)?;
        let shared = Rc::new(Shared { database, durability, closed: Cell::new(false) });
        OPEN.set(Rc::downgrade(&shared));
        Ok(wit::Database::new(DatabaseHandle(shared)))
    }

    fn create_keyspace(&self, name: String, options: wit::KeyspaceOptions) -> Result<wit::Keyspace> {
        let options = convert::keyspace_options(options)?;
        let id = self.database().create_keyspace_with(&name, &options).map_err(convert::error)?;
        Ok(self.keyspace(id))
    }

    fn drop_keyspace(&self, name: String) -> Result<bool> {
        self.database().drop_keyspace(&name).map_err(convert::error)
    }

    fn find_keyspace(&self, name: String) -> Result<Option<wit::Keyspace>> {
        let id = self.database().find_keyspace(&name).map_err(convert::error)?;
        Ok(id.map(|id| self.keyspace(id)))
    }

    fn keyspace_by_id(&self, id: u32) -> Result<wit::Keyspace> {
        let id = KeyspaceId(id);
        let keyspaces = self.database().keyspaces().map_err(convert::error)?;
        if keyspaces.iter().any(|(_, known)| *known == id) {
            Ok(self.keyspace(id))
        } else {
            Err(wit::Error::InvalidArgument(format!("there is no keyspace with id {}", id.0)))
        }
    }

    fn keyspaces(&self) -> Result<Vec<wit::KeyspaceInfo>> {
        let keyspaces = self.database().keyspaces().map_err(convert::error)?;
        Ok(keyspaces.into_iter().map(|(name, id)| wit::KeyspaceInfo { id: id.0, name }).collect())
    }

    fn write(&self, batch: Vec<u8>, durability: Option<wit::Durability>) -> Result<()> {
        let batch = WriteBatch::from_encoded(batch).map_err(convert::error)?;
        self.0.write(batch, durability)
    }

    fn begin(&self) -> Result<wit::Transaction> {
        let transaction = self.database().transaction().map_err(convert::error)?;
        let transaction = RefCell::new(Some(transaction));
        Ok(wit::Transaction::new(TransactionHandle { transaction, shared: Rc::clone(&self.0) }))
    }

    fn snapshot(&self) -> Result<wit::Snapshot> {
        let id = self.database().snapshot().map_err(convert::error)?;
        Ok(wit::Snapshot::new(SnapshotHandle { shared: Rc::clone(&self.0), id }))
    }

    fn flush(&self) -> Result<()> {
        self.database().flush().map_err(convert::error)
    }

    fn compact(&self) -> Result<()> {
        self.database().compact().map_err(convert::error)
    }

    fn compact_slice(
        &self,
        keyspace: u32,
        keys: wit::ScanRange,
        bytes: u64,
    ) -> Result<Option<wit::CompactionProgress>> {
        let (keyspace, range) = (KeyspaceId(keyspace), convert::scan_range(keys));
        let progress = self.database().compact_slice(keyspace, &range, Budget::bytes(bytes));
        let progress = progress.map_err(convert::error)?;
        Ok(progress.map(|CompactionProgress { done, total }| wit::CompactionProgress { done, total }))
    }

    fn cancel_compactions(&self) -> Result<()> {
        self.database().cancel_compactions().map_err(convert::error)
    }

    fn sync(&self) -> Result<()> {
        self.database().sync().map_err(convert::error)
    }

    fn verify(&self) -> Result<wit::VerifyReport> {
        self.database().verify().map(convert::verify_report).map_err(convert::error)
    }

    fn checkpoint(&self) -> Result<wit::CheckpointReport> {
        let target = format!("{DIRECTORY}{STAGING_DIR}");
        self.0.database.checkpoint(target).map(convert::checkpoint_report).map_err(convert::error)
    }

    fn stats(&self) -> Result<wit::Stats> {
        self.database().stats().map(convert::stats).map_err(convert::error)
    }

    fn maintain(&self, bytes: u64) -> Result<wit::Progress> {
        match self.database().maintain(Budget::bytes(bytes)).map_err(convert::error)? {
            Progress::Done => Ok(wit::Progress::Done),
            Progress::More => Ok(wit::Progress::More),
        }
    }

    fn close(&self) -> Result<()> {
        let closed = self.database().close().map_err(convert::error);
        if closed.is_ok() {
            self.0.closed.set(true);
        }
        closed
    }
}

struct KeyspaceHandle {
    shared: Rc<Shared>,
    id: KeyspaceId,
}

impl KeyspaceHandle {
    /// The engine's id of a snapshot, which must be of this database: there is
    /// no other in this instance unless one was closed.
    fn snapshot(&self, snapshot: Option<wit::SnapshotBorrow<'_>>) -> Result<Option<SnapshotId>> {
        let Some(snapshot) = snapshot else { return Ok(None) };
        let snapshot: &SnapshotHandle = snapshot.get();
        if Rc::ptr_eq(&snapshot.shared, &self.shared) {
            Ok(Some(snapshot.id))
        } else {
            Err(wit::Error::InvalidArgument("the snapshot is of a database closed since".to_owned()))
        }
    }
}

impl wit::GuestKeyspace for KeyspaceHandle {
    fn id(&self) -> Result<u32> {
        Ok(self.id.0)
    }

    fn get(&self, key: Vec<u8>, snapshot: Option<wit::SnapshotBorrow<'_>>) -> Result<Option<Vec<u8>>> {
        let snapshot = self.snapshot(snapshot)?;
        let value = self.shared.database().get(self.id, &key, snapshot).map_err(convert::error)?;
        Ok(value.map(Vec::from))
    }

    fn multi_get(&self, keys: Vec<u8>, snapshot: Option<wit::SnapshotBorrow<'_>>) -> Result<Vec<u8>> {
        let snapshot = self.snapshot(snapshot)?;
        let keys = split_keys(&keys).map_err(convert::error)?;
        let values = self.shared.database().multi_get(self.id, &keys, snapshot).map_err(convert::error)?;
        packed::values(&values)
    }

    fn put(&self, key: Vec<u8>, value: Vec<u8>, durability: Option<wit::Durability>) -> Result<()> {
        let mut batch = WriteBatch::new();
        batch.put(self.id, &key, &value);
        self.shared.write(batch, durability)
    }

    fn delete(&self, key: Vec<u8>, durability: Option<wit::Durability>) -> Result<()> {
        let mut batch = WriteBatch::new();
        batch.delete(self.id, &key);
        self.shared.write(batch, durability)
    }

    fn merge(&self, key: Vec<u8>, operand: Vec<u8>, durability: Option<wit::Durability>) -> Result<()> {
        let mut batch = WriteBatch::new();
        batch.merge(self.id, &key, &operand);
        self.shared.write(batch, durability)
    }

    fn delete_range(&self, start: Vec<u8>, end: Vec<u8>, durability: Option<wit::Durability>) -> Result<()> {
        let mut batch = WriteBatch::new();
        batch.delete_range(self.id, &start, &end);
        self.shared.write(batch, durability)
    }

    fn scan(&self, range: wit::ScanRange, snapshot: Option<wit::SnapshotBorrow<'_>>) -> Result<wit::Cursor> {
        let snapshot = self.snapshot(snapshot)?;
        let range = convert::scan_range(range);
        let scan = self.shared.database().scan(self.id, &range, snapshot).map_err(convert::error)?;
        Ok(CursorHandle::of(scan, &self.shared))
    }
}

struct TransactionHandle {
    // Dropped first: it borrows from what the database owns.
    transaction: RefCell<Option<Box<dyn DatabaseTransaction>>>,
    shared: Rc<Shared>,
}

impl TransactionHandle {
    /// Runs `call` on the transaction, unless it has been committed.
    fn with<T>(&self, call: impl FnOnce(&mut dyn DatabaseTransaction) -> duramen::Result<T>) -> Result<T> {
        match self.transaction.borrow_mut().as_deref_mut() {
            Some(transaction) => call(transaction).map_err(convert::error),
            None => Err(committed()),
        }
    }

    /// The engine's id of a keyspace, which must be of this database.
    fn keyspace(&self, keyspace: &wit::KeyspaceBorrow<'_>) -> Result<KeyspaceId> {
        let keyspace: &KeyspaceHandle = keyspace.get();
        if Rc::ptr_eq(&keyspace.shared, &self.shared) {
            Ok(keyspace.id)
        } else {
            Err(wit::Error::InvalidArgument("the keyspace is of a database closed since".to_owned()))
        }
    }
}

fn committed() -> wit::Error {
    wit::Error::InvalidArgument("the transaction has been committed".to_owned())
}

impl wit::GuestTransaction for TransactionHandle {
    fn get(&self, keyspace: wit::KeyspaceBorrow<'_>, key: Vec<u8>) -> Result<Option<Vec<u8>>> {
        let id = self.keyspace(&keyspace)?;
        Ok(self.with(|transaction| transaction.get(id, &key))?.map(Vec::from))
    }

    fn scan(&self, keyspace: wit::KeyspaceBorrow<'_>, range: wit::ScanRange) -> Result<wit::Cursor> {
        let id = self.keyspace(&keyspace)?;
        let range = convert::scan_range(range);
        let scan = self.with(|transaction| transaction.scan(id, &range))?;
        Ok(CursorHandle::of(scan, &self.shared))
    }

    fn write(&self, batch: Vec<u8>) -> Result<()> {
        let batch = WriteBatch::from_encoded(batch).map_err(convert::error)?;
        self.with(|transaction| transaction.write(batch))
    }

    fn savepoint(&self) -> Result<u32> {
        Ok(self.with(|transaction| transaction.savepoint())?.0)
    }

    fn rollback_to(&self, savepoint: u32) -> Result<()> {
        self.with(|transaction| transaction.rollback_to(Savepoint(savepoint)))
    }

    fn commit(&self, durability: Option<wit::Durability>) -> Result<()> {
        let transaction = self.transaction.borrow_mut().take().ok_or_else(committed)?;
        let durability = durability.map_or(self.shared.durability, convert::durability);
        transaction.commit(durability).map_err(convert::error)
    }
}

struct SnapshotHandle {
    shared: Rc<Shared>,
    id: SnapshotId,
}

impl wit::GuestSnapshot for SnapshotHandle {}

impl Drop for SnapshotHandle {
    fn drop(&mut self) {
        // Only a closed database refuses, and it has no snapshots left to keep.
        let _ = self.shared.database().release(self.id);
    }
}

struct CursorHandle {
    // Dropped first: it may borrow from what the database owns.
    scan: RefCell<Box<dyn Scan>>,
    _shared: Rc<Shared>,
}

impl CursorHandle {
    fn of(scan: Box<dyn Scan>, shared: &Rc<Shared>) -> wit::Cursor {
        wit::Cursor::new(CursorHandle { scan: RefCell::new(scan), _shared: Rc::clone(shared) })
    }
}

impl wit::GuestCursor for CursorHandle {
    fn next_page(&self, bytes_max: u32, pairs_max: u32) -> Result<Vec<u8>> {
        let (bytes_max, pairs_max) = (bytes_max as usize, pairs_max as usize);
        let page = self.scan.borrow_mut().next_page(bytes_max, pairs_max).map_err(convert::error)?;
        Ok(Vec::from(page.0))
    }
}
