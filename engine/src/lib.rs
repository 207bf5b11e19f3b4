//! Duramen: an embedded, persistent key-value database whose SSTables are
//! Parquet files.

pub mod batch;
pub mod cursor;
pub mod error;
pub mod key;
pub mod options;
pub mod sstable;
pub mod storage;

pub use batch::WriteBatch;
pub use error::{Error, Result};
pub use key::{FileNumber, KeyspaceId, SequenceNumber, ValueKind};
pub use options::{Background, Budget, Compression, Durability, Options};
