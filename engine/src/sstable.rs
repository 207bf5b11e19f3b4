//! SSTables: sorted, immutable files that are standard Parquet.
//!
//! ```text
//! file      := "PAR1" row_group* tail
//! row_group := keys | values | seqs | kinds | [expiries] | filter      each but the last a column chunk
//! tail      := private block | column indexes | offset indexes | footer | footer length | "PAR1"
//! ```
//!
//! Columns, in this order, all required, with field ids from 1: `key` and
//! `value` BYTE_ARRAY, `seq` INT64, `kind` INT32 (0 put, 1 delete, 2 merge); and
//! where entries expire, `expires_at` INT64, Unix milliseconds, 0 for never.
//! Range tombstones are in the private block, out of sight of other readers. Rows
//! are in order of key ascending, seq descending. Pages have the same row boundaries in
//! every column but that of values, so that row `r` of page `p` is one entry; they hold
//! about 128 rows or 16 KiB of values. A page longer than that has versions of one key.
//! Their values are in one page, or in some of about 3 KiB each: who wants one value reads
//! and decompresses no more than that. Keys never straddle row groups.
//!
//! What is read is checked first: the tail against the xxh64 in the manifest
//! before anything decodes it; each page against its checksum in the private block;
//! each filter against its xxh64 there.

mod bounds;
mod cache;
mod cursor;
mod delta;
mod filter;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod index;
mod integrity;
mod keys;
#[cfg(feature = "measuring")]
pub(crate) mod measuring;
mod page;
mod row_cache;
mod salvage;
mod schema;
mod stored;
mod stretch;
mod table;
mod thrift;
mod verify;
mod writer;

pub use cache::Cache;
pub use cursor::{Purpose, TableCursor};
pub use filter::hash_key;
pub(crate) use filter::{FILTER_BLOCK_BYTES, filter_bit, filter_block};
pub(crate) use salvage::{Lost, SalvageCursor, SalvageTable};
pub use stored::StoredPage;
pub use stretch::Stretch;
pub use table::Table;
pub use writer::TableWriter;

use crate::key::{Expiry, FileNumber, KeyspaceId, SequenceNumber};
use crate::options::Compression;
use crate::range_delete::RangeDeletes;

/// Columns that every table has.
const COLUMNS_MIN: usize = 4;

/// Columns of a table whose entries may expire.
const COLUMNS_MAX: usize = 5;

/// How a table is laid out.
#[derive(Clone, Debug)]
pub struct TableOptions {
    /// Rows of a page. Default: 128, the best of reads and scans as measured.
    pub page_rows: usize,
    /// Bytes of values in a page; one of half as many has a page of its own. Default:
    /// 16 KiB.
    pub page_value_bytes: usize,
    /// Bytes of values, roughly, that are compressed together. Default: 3 KiB.
    pub value_page_bytes: usize,
    /// Rows of a row group. Default: 98,304, whose filter of 128 KiB has at
    /// least ten bits for each key.
    pub row_group_rows: usize,
    /// Encoded bytes of a row group, which the writer keeps in memory. Default:
    /// 16 MiB.
    pub row_group_bytes: usize,
    /// Bytes after which what was written is synced, before a row group. Default:
    /// 8 MiB: the last sync is short then, and does not hold up those of the WAL.
    pub sync_bytes: usize,
    /// Bits of the filter for each key, before rounding up. Default: 10.
    pub bloom_bits_per_key: usize,
    /// Compression of values. Default: Snappy.
    pub compression: Compression,
    /// The table has a column of expiries. Default: no; needed before an entry
    /// that expires can be added.
    pub expires: bool,
}

impl Default for TableOptions {
    fn default() -> Self {
        TableOptions {
            page_rows: 128,
            page_value_bytes: 16 << 10,
            value_page_bytes: 3 << 10,
            row_group_rows: 98_304,
            row_group_bytes: 16 << 20,
            sync_bytes: 8 << 20,
            bloom_bits_per_key: 10,
            compression: Compression::default(),
            expires: false,
        }
    }
}

impl TableOptions {
    /// True for a value so long that it has a page of its own: such a page is read for
    /// nothing else, and merges copy it as it is stored.
    fn is_long(&self, value_bytes: usize) -> bool {
        value_bytes >= self.page_value_bytes / 2
    }
}

/// What a table says of itself in its footer.
#[derive(Clone, Copy, Debug)]
pub struct TableIdentity {
    /// Id of the database.
    pub database_id: u64,
    /// Number of the file.
    pub number: FileNumber,
    /// Keyspace of its entries.
    pub keyspace: KeyspaceId,
    /// Level it was written for; it may have moved since.
    pub level: u32,
}

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
    /// First key, of entries and range tombstones.
    pub key_min: Vec<u8>,
    /// Last key of entries, or the end of the last range tombstone, which it does
    /// not cover any more.
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

    /// True if some entry expires.
    pub fn expires(&self) -> bool {
        self.expires_min != 0
    }

    /// Takes an entry's expiry in. Until [`TableMeta::settle_expiry`], no time at
    /// all is the largest number, for the earliest as for the latest.
    fn note_expiry(&mut self, expiry: Expiry) {
        if expiry == Expiry::NEVER {
            self.expires_max = u64::MAX;
        } else {
            self.expires_min = self.expires_min.min(expiry.0);
            self.expires_max = self.expires_max.max(expiry.0);
        }
    }

    fn settle_expiry(&mut self) {
        for time in [&mut self.expires_min, &mut self.expires_max] {
            if *time == u64::MAX {
                *time = 0;
            }
        }
    }

    /// Widens ranges of keys and sequence numbers by those of range tombstones.
    fn cover(&mut self, range_deletes: &RangeDeletes) {
        self.range_deletes = range_deletes.len() as u64;
        for (start, end, seq) in range_deletes.iter() {
            if self.key_min.as_slice() > start {
                self.key_min = start.to_vec();
            }
            if self.key_max.as_slice() < end {
                self.key_max = end.to_vec();
            }
            self.seq_min = self.seq_min.min(seq);
            self.seq_max = self.seq_max.max(seq);
        }
    }
}

#[cfg(test)]
mod tests;
