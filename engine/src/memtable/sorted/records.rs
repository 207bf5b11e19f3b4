//! Where the entries of the tree lie: one after another, as they come, in chunks that
//! share their bytes with readers once they are full.
//!
//! ```text
//! record := seq u64 | what u32 | value_len u32 | key | value | [expires_at u64]
//! what   := key_len | kind << 24 | expires << 31
//! ```
//!
//! Integers are little-endian.

use std::mem;
use std::ops::Range;

use bytes::Bytes;

use super::super::arena::grow;
use super::super::node::{Located, Probe, Version};
use crate::key::{EntryRef, Expiry, SequenceNumber, ValueKind};

/// Bytes of a chunk; the first ones of a memtable are smaller, as many memtables
/// stay so.
const CHUNK_BYTES_MIN: usize = 1 << 9;
const CHUNK_BYTES_MAX: usize = 64 << 10;

/// Longer records get a chunk of their own: they would waste the rest of one.
const RECORD_BYTES_MAX: usize = CHUNK_BYTES_MAX / 16;

const HEADER_BYTES: usize = 16;
const KIND_SHIFT: u32 = 24;
const EXPIRES: u32 = 1 << 31;

/// Bytes of a full chunk beside its contents: how `bytes` shares them.
const SHARED_BYTES: usize = 4 * size_of::<usize>();

/// Where a record is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    chunk: u32,
    offset: u32,
}

/// Records; none is ever moved or removed.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// Chunks by number; empty for the one that is being filled.
    chunks: Vec<Bytes>,
    filling: Vec<u8>,
    /// The number of that one, once there is one.
    filling_number: Option<u32>,
    /// Bytes allocated for chunks.
    allocated: usize,
}

/// What comes before a key.
#[derive(Clone, Copy)]
struct Header {
    seq: SequenceNumber,
    what: u32,
    value_len: u32,
}

impl Header {
    #[inline]
    fn decode(bytes: &[u8]) -> Header {
        let (seq, rest) = bytes.split_first_chunk().unwrap_or((&[0; 8], bytes));
        let (what, rest) = rest.split_first_chunk().unwrap_or((&[0; 4], rest));
        let value_len = rest.first_chunk().unwrap_or(&[0; 4]);
        Header {
            seq: SequenceNumber(u64::from_le_bytes(*seq)),
            what: u32::from_le_bytes(*what),
            value_len: u32::from_le_bytes(*value_len),
        }
    }

    #[inline]
    fn key_len(self) -> usize {
        (self.what & ((1 << KIND_SHIFT) - 1)) as usize
    }

    fn kind(self) -> ValueKind {
        match self.what >> KIND_SHIFT & 3 {
            0 => ValueKind::Put,
            1 => ValueKind::Delete,
            _ => ValueKind::Merge,
        }
    }

    fn expires(self) -> bool {
        self.what & EXPIRES != 0
    }

    /// Appends a record to a chunk that has room for it.
    fn encode(self, key: &[u8], value: &[u8], expires_at: Expiry, chunk: &mut Vec<u8>) {
        chunk.extend_from_slice(&self.seq.0.to_le_bytes());
        chunk.extend_from_slice(&self.what.to_le_bytes());
        chunk.extend_from_slice(&self.value_len.to_le_bytes());
        chunk.extend_from_slice(key);
        chunk.extend_from_slice(value);
        if self.expires() {
            chunk.extend_from_slice(&expires_at.0.to_le_bytes());
        }
    }

    /// The entry that `pair` is the rest of.
    #[inline]
    fn entry(self, pair: &[u8]) -> EntryRef<'_> {
        let (key, rest) = pair.split_at(self.key_len());
        let (value, rest) = rest.split_at(self.value_len as usize);
        let expires_at = match rest.first_chunk().filter(|_| self.expires()) {
            Some(expires_at) => Expiry(u64::from_le_bytes(*expires_at)),
            None => Expiry::NEVER,
        };
        EntryRef { key, seq: self.seq, kind: self.kind(), expires_at, value }
    }

    /// Bytes of what follows it.
    fn pair_bytes(self) -> usize {
        self.key_len() + self.value_len as usize + if self.expires() { size_of::<u64>() } else { 0 }
    }
}

impl Records {
    /// Copies an entry.
    pub fn add(&mut self, entry: &EntryRef<'_>) -> Place {
        let EntryRef { key, seq, kind, expires_at, value } = *entry;
        let expires = if expires_at == Expiry::NEVER { 0 } else { EXPIRES };
        // Keys are at most 64 KiB long, and values 4 GiB.
        let what = key.len() as u32 | u32::from(kind as u8) << KIND_SHIFT | expires;
        let header = Header { seq, what, value_len: value.len() as u32 };
        let bytes = HEADER_BYTES + header.pair_bytes();
        if bytes > RECORD_BYTES_MAX {
            grow(&mut self.chunks);
            let mut own = self.allocate(bytes);
            header.encode(key, value, expires_at, &mut own);
            self.chunks.push(own.into());
            return Place { chunk: self.chunks.len() as u32 - 1, offset: 0 };
        }
        if self.filling.capacity() - self.filling.len() < bytes {
            let next_bytes = (self.filling.capacity() * 2).clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX).max(bytes);
            let next = self.allocate(next_bytes);
            let full = mem::replace(&mut self.filling, next);
            if let Some(number) = self.filling_number {
                self.chunks[number as usize] = full.into();
            }
            self.filling_number = Some(self.chunks.len() as u32);
            grow(&mut self.chunks);
            self.chunks.push(Bytes::new());
        }
        let place = Place { chunk: self.filling_number.unwrap_or(0), offset: self.filling.len() as u32 };
        header.encode(key, value, expires_at, &mut self.filling);
        place
    }

    fn allocate(&mut self, bytes: usize) -> Vec<u8> {
        self.allocated += bytes + SHARED_BYTES;
        Vec::with_capacity(bytes)
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        let unused = self.filling.capacity() - self.filling.len();
        self.allocated - unused + self.chunks.capacity() * size_of::<Bytes>()
    }

    /// Header, and what follows it.
    #[inline]
    fn at(&self, place: Place) -> (Header, &[u8]) {
        let chunk = if Some(place.chunk) == self.filling_number {
            &*self.filling
        } else {
            &*self.chunks[place.chunk as usize]
        };
        let (header, rest) = chunk[place.offset as usize..].split_at(HEADER_BYTES);
        (Header::decode(header), rest)
    }

    /// Bytes of what follows its header, to keep.
    fn bytes_of(&self, place: Place, Range { start, end }: Range<usize>) -> Bytes {
        let before = place.offset as usize + HEADER_BYTES;
        let range = before + start..before + end;
        if Some(place.chunk) == self.filling_number {
            Bytes::copy_from_slice(&self.filling[range])
        } else {
            self.chunks[place.chunk as usize].slice(range)
        }
    }

    /// The internal key of a record.
    #[inline]
    pub fn probe(&self, place: Place) -> Probe<'_> {
        let (header, pair) = self.at(place);
        (&pair[..header.key_len()], header.seq)
    }
}

/// A record, to be looked at.
#[derive(Clone, Copy)]
pub(super) struct Record<'r> {
    pub records: &'r Records,
    pub place: Place,
}

impl<'r> Record<'r> {
    /// Its internal key.
    #[inline]
    pub fn probe(self) -> Probe<'r> {
        self.records.probe(self.place)
    }
}

impl Located for Record<'_> {
    #[inline]
    fn seq(&self) -> SequenceNumber {
        self.records.at(self.place).0.seq
    }

    #[inline]
    fn borrowed(&self) -> EntryRef<'_> {
        let (header, pair) = self.records.at(self.place);
        header.entry(pair)
    }

    fn version(&self) -> Version {
        let Record { records, place } = *self;
        let (header, _) = records.at(place);
        let pair = records.bytes_of(place, 0..header.pair_bytes());
        Version::of_pair(header.seq, header.kind(), header.expires(), header.key_len(), pair)
    }

    fn value(&self) -> Bytes {
        let Record { records, place } = *self;
        let (header, _) = records.at(place);
        let start = header.key_len();
        records.bytes_of(place, start..start + header.value_len as usize)
    }
}
