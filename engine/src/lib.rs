//! Duramen: an embedded, persistent key-value database whose SSTables are
//! Parquet files.
//!
//! A [`Db`] is open over a directory, or over any [`storage::Storage`]. It has
//! [`Keyspace`]s; a [`Batch`] commits over several of them as one; a [`Snapshot`]
//! keeps what was visible. [`Durability`] says what a commit survives. What went
//! wrong, and what to do about it, is in the variants of [`Error`].
//!
//! ```
//! use std::sync::Arc;
//!
//! use duramen::storage::memory::MemoryStorage;
//! use duramen::{Db, Durability, Options};
//!
//! // `Db::open("data", ...)` for a directory.
//! let db = Db::open_with(Arc::new(MemoryStorage::new()), Options::default())?;
//! let users = db.keyspace("users")?;
//! users.put(b"user:42", b"ada")?;
//!
//! let mut batch = db.batch();
//! batch.put(&users, b"user:43", b"grace").delete(&users, b"user:42");
//! batch.commit(Durability::Sync)?;
//!
//! let names: Vec<_> = users.prefix(b"user:").map(|row| row.map(|(_, name)| name)).collect::<Result<_, _>>()?;
//! assert_eq!(names, ["grace"]);
//! # Ok::<(), duramen::Error>(())
//! ```
//!
//! The same engine runs inside a WebAssembly sandbox, in the crate
//! `duramen-host`; [`Database`] is the face that both share. ARCHITECTURE.md in
//! the repository is the map of the rooms below.

pub mod api;
mod background;
pub mod backup;
pub mod batch;
pub mod checkpoint;
pub mod compaction;
mod core;
mod count;
pub mod current;
pub mod cursor;
pub mod db;
pub mod edit;
pub mod error;
pub mod filename;
mod flush;
mod fold;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod gaps;
mod job;
pub mod key;
mod key_filter;
mod keyspace;
pub mod manifest;
#[cfg(feature = "measuring")]
#[doc(hidden)]
pub mod measuring;
pub mod memtable;
mod merge;
pub mod merge_operator;
mod open_wals;
pub mod options;
pub mod range_delete;
mod read;
mod read_set;
pub mod record;
mod recovery;
pub mod repair;
pub mod scaling;
mod snapshots;
pub mod sstable;
mod stall;
pub mod stats;
pub mod storage;
mod sync;
mod trash;
mod verify;
mod version;
pub mod wal;
mod write;

pub use api::{
    CompactionProgress, Database, DatabaseTransaction, Progress, Savepoint, Scan, ScanRange, SnapshotId,
};
pub use backup::{BackupInfo, Backups};
pub use batch::WriteBatch;
pub use checkpoint::CheckpointReport;
pub use db::{Batch, Db, Keyspace, Rows, Snapshot, Transaction};
pub use error::{Error, Result};
pub use key::{Expiry, FileNumber, KeyspaceId, SequenceNumber, ValueKind};
pub use merge_operator::{BuiltIn, MergeOperator};
pub use options::{Background, Budget, Compression, Durability, KeyspaceOptions, MemtableKind, Options};
pub use repair::{Loss, RepairReport, repair};
pub use scaling::{CompactionStrategy, Scaling, ScalingParameter};
pub use stats::{Stats, VerifyReport};
