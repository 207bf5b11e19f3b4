//! SSTables: sorted, immutable files that are standard Parquet.

use crate::key::{FileNumber, KeyspaceId, SequenceNumber};

/// What the manifest records of an SSTable: enough to check the file before
/// anything decodes it, and to know without opening it which keys it may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableMeta {
    /// Number of the file.
    pub number: FileNumber,
    /// Keyspace of its entries.
    pub keyspace: KeyspaceId,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// Where the tail (private block, page indexes, footer) begins.
    pub tail_offset: u64,
    /// xxh64 (seed 0) of the tail, from `tail_offset` to the end of the file.
    pub tail_checksum: u64,
    /// First key.
    pub key_min: Vec<u8>,
    /// Last key.
    pub key_max: Vec<u8>,
    /// Lowest sequence number.
    pub seq_min: SequenceNumber,
    /// Highest sequence number.
    pub seq_max: SequenceNumber,
    /// Number of puts.
    pub puts: u64,
    /// Number of tombstones.
    pub deletes: u64,
    /// Number of merge operands.
    pub merges: u64,
    /// Number of range tombstones.
    pub range_deletes: u64,
    /// Earliest expiry in Unix milliseconds; 0 if no entry expires.
    pub expires_min: u64,
    /// Latest expiry in Unix milliseconds; 0 if some entry never expires.
    pub expires_max: u64,
}

impl TableMeta {
    /// Number of entries, versions and tombstones included.
    pub fn entries(&self) -> u64 {
        self.puts + self.deletes + self.merges
    }
}
