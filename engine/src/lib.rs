//! Duramen: an embedded, persistent key-value database whose SSTables are
//! Parquet files.

pub mod api;
mod background;
pub mod batch;
mod compaction;
mod core;
pub mod current;
pub mod cursor;
pub mod db;
pub mod edit;
pub mod error;
pub mod filename;
mod flush;
mod fold;
mod job;
pub mod key;
mod keyspace;
pub mod manifest;
pub mod memtable;
mod merge;
pub mod merge_operator;
pub mod options;
pub mod range_delete;
mod read;
mod read_set;
pub mod record;
mod recovery;
mod snapshots;
pub mod sstable;
pub mod stats;
pub mod storage;
mod sync;
mod verify;
mod version;
pub mod wal;
mod write;

pub use api::{Database, DatabaseTransaction, Progress, Savepoint, Scan, ScanRange, SnapshotId};
pub use batch::WriteBatch;
pub use db::{Batch, Db, Keyspace, Rows, Snapshot, Transaction};
pub use error::{Error, Result};
pub use key::{Expiry, FileNumber, KeyspaceId, SequenceNumber, ValueKind};
pub use merge_operator::{BuiltIn, MergeOperator};
pub use options::{Background, Budget, Compression, Durability, KeyspaceOptions, Options};
pub use stats::{Stats, VerifyReport};
