//! Duramen: an embedded, persistent key-value database whose SSTables are
//! Parquet files.

pub mod api;
pub mod batch;
pub mod current;
pub mod cursor;
pub mod db;
pub mod edit;
pub mod error;
pub mod filename;
pub mod key;
pub mod manifest;
pub mod memtable;
mod merge;
pub mod options;
pub mod record;
pub mod sstable;
pub mod stats;
pub mod storage;
mod sync;
pub mod wal;

pub use api::{Database, Progress, Scan, ScanRange, SnapshotId};
pub use batch::WriteBatch;
pub use db::Db;
pub use error::{Error, Result};
pub use key::{FileNumber, KeyspaceId, SequenceNumber, ValueKind};
pub use options::{Background, Budget, Compression, Durability, Options};
pub use stats::{Stats, VerifyReport};
