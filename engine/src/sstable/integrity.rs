//! The private block: what binds pages and filters to their places, and range
//! tombstones, which Parquet has no place for.
//!
//! ```text
//! block     := magic "DURAMENI" | version u16 = 3 | flags u16 | pages u32 | row_groups u32
//!            | range_tombstones u32 | value_pages u32
//!            | (checksums × columns but that of values) × pages | checksums × value_pages
//!            | (filter xxh64 u64) × row_groups | tombstone × range_tombstones | xxh64 u64
//! checksums := crc u32 | xxh64 u64                of the body of a page
//! tombstone := seq u64 | start_len u32 | end_len u32 | start | end
//! flags     := bit 0: there are five columns, the last one of expiries; otherwise four
//! ```
//!
//! Older versions are read and no longer written. In them there are as many pages of
//! values as of the other columns, and no count of them; their checksums are among those
//! of the other columns. Version 1 has the CRCs alone. Integers are
//! little-endian; columns are in the order of the schema; the last
//! word is the xxh64 of everything before it. Ranges of tombstones are equal or
//! disjoint, by start, then newest first. The block lies between the last row
//! group and the page indexes, where readers of Parquet do not look. It is the
//! head of the *tail*, whose xxh64 is in the manifest.

use std::num::NonZeroU64;

use bytes::Bytes;

use super::page::Checksums;
use super::schema::VALUE;
use super::thrift::{Decoded, Malformed};
use super::{COLUMNS_MAX, COLUMNS_MIN};
use crate::key::{KEY_BYTES_MAX, SequenceNumber};
use crate::range_delete::RangeDeletes;

pub(super) const MAGIC: [u8; 8] = *b"DURAMENI";
const EXPIRES: u16 = 1;
const HEADER_BYTES: usize = 24;
const TOMBSTONE_HEADER_BYTES: usize = 16;

/// Of the pages of one row range, in each column but that of values.
pub(super) type PageChecksums = [Checksums; COLUMNS_MAX];

/// Version of the block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Version {
    /// Pages are known by their CRCs alone.
    Crcs = 1,
    /// Pages of values have the rows of the others.
    Aligned = 2,
    #[default]
    Current = 3,
}

/// The decoded block.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Integrity {
    /// There is a column of expiries.
    pub expires: bool,
    pub version: Version,
    pub pages: Vec<PageChecksums>,
    /// Of the pages of values.
    pub values: Vec<Checksums>,
    /// xxh64 of each row group's filter.
    pub filters: Vec<u64>,
    pub range_deletes: RangeDeletes,
}

impl Integrity {
    /// Columns of the table.
    pub fn columns(&self) -> usize {
        if self.expires { COLUMNS_MAX } else { COLUMNS_MIN }
    }

    /// Bytes of what is known of a page.
    fn checksums_bytes(&self) -> usize {
        if self.version == Version::Crcs { 4 } else { 12 }
    }

    /// Bytes of the encoding.
    pub fn encoded_bytes(&self) -> usize {
        let tombstones = self.range_deletes.iter();
        let tombstones = tombstones.map(|(start, end, _)| TOMBSTONE_HEADER_BYTES + start.len() + end.len());
        let pages = self.pages.len() * (self.columns() - 1) + self.values.len();
        HEADER_BYTES
            + if self.version == Version::Current { 4 } else { 0 }
            + pages * self.checksums_bytes()
            + self.filters.len() * 8
            + tombstones.sum::<usize>()
            + 8
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.encoded_bytes());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&(self.version as u16).to_le_bytes());
        out.extend_from_slice(&(if self.expires { EXPIRES } else { 0 }).to_le_bytes());
        for count in [self.pages.len(), self.filters.len(), self.range_deletes.len()] {
            out.extend_from_slice(&(count as u32).to_le_bytes());
        }
        let put = |out: &mut Vec<u8>, checksums: &Checksums| {
            out.extend_from_slice(&checksums.crc.to_le_bytes());
            if self.version != Version::Crcs {
                out.extend_from_slice(&checksums.xxh.map_or(0, NonZeroU64::get).to_le_bytes());
            }
        };
        let mut values = self.values.iter();
        if self.version == Version::Current {
            out.extend_from_slice(&(self.values.len() as u32).to_le_bytes());
        }
        for page in &self.pages {
            for (column, checksums) in page[..self.columns()].iter().enumerate() {
                match (column, self.version) {
                    (VALUE, Version::Current) => {}
                    (VALUE, _) => values.by_ref().take(1).for_each(|checksums| put(&mut out, checksums)),
                    _ => put(&mut out, checksums),
                }
            }
        }
        values.for_each(|checksums| put(&mut out, checksums));
        self.filters.iter().for_each(|hash| out.extend_from_slice(&hash.to_le_bytes()));
        for (start, end, seq) in self.range_deletes.iter() {
            out.extend_from_slice(&seq.0.to_le_bytes());
            out.extend_from_slice(&(start.len() as u32).to_le_bytes());
            out.extend_from_slice(&(end.len() as u32).to_le_bytes());
            out.extend_from_slice(start);
            out.extend_from_slice(end);
        }
        let checksum = xxhash_rust::xxh64::xxh64(&out, 0);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Decodes the block at the head of `tail`; answers how long it is.
    pub fn decode(tail: &[u8]) -> Decoded<(Integrity, usize)> {
        let mut reader = Fields { tail, at: 0 };
        let magic: [u8; 8] = reader.take()?;
        let version = u16::from_le_bytes(reader.take()?);
        let version = [Version::Crcs, Version::Aligned, Version::Current]
            .into_iter()
            .find(|known| *known as u16 == version);
        let flags = u16::from_le_bytes(reader.take()?);
        let Some(version) = version.filter(|_| magic == MAGIC && flags <= EXPIRES) else {
            return Err(Malformed::new(0, "not a private block of a version that this program knows"));
        };
        let [pages, row_groups, range_tombstones] = [reader.u32()?, reader.u32()?, reader.u32()?];
        let value_pages = if version == Version::Current { reader.u32()? } else { pages };
        let mut block = Integrity { expires: flags == EXPIRES, version, ..Integrity::default() };
        let columns = block.columns();
        // Before anything is allocated: what is counted must be there.
        let least = (u64::from(pages) * (columns as u64 - 1) + u64::from(value_pages))
            * block.checksums_bytes() as u64
            + u64::from(row_groups) * 8
            + u64::from(range_tombstones) * TOMBSTONE_HEADER_BYTES as u64;
        if least > (tail.len() - reader.at) as u64 {
            return Err(Malformed::new(12, "the private block is longer than the tail"));
        }
        for _ in 0..pages {
            let mut page = PageChecksums::default();
            for (column, checksums) in page[..columns].iter_mut().enumerate() {
                match (column, version) {
                    (VALUE, Version::Current) => {}
                    (VALUE, _) => block.values.push(reader.checksums(version)?),
                    _ => *checksums = reader.checksums(version)?,
                }
            }
            block.pages.push(page);
        }
        while block.values.len() < value_pages as usize {
            block.values.push(reader.checksums(version)?);
        }
        for _ in 0..row_groups {
            block.filters.push(reader.u64()?);
        }
        let mut before: (&[u8], &[u8], SequenceNumber) = (&[], &[], SequenceNumber(0));
        for _ in 0..range_tombstones {
            let at = reader.at;
            let seq = SequenceNumber(reader.u64()?);
            let (start, end) = (reader.u32()? as usize, reader.u32()? as usize);
            let (start, end) = (reader.bytes(start)?, reader.bytes(end)?);
            if start >= end || end.len() > KEY_BYTES_MAX + 1 || seq >= SequenceNumber::MAX {
                return Err(Malformed::new(at, "an impossible range tombstone"));
            }
            // Parting those that overlap would take memory by the square.
            let follows = start >= before.1 || ((start, end) == (before.0, before.1) && seq < before.2);
            if !follows {
                return Err(Malformed::new(at, "range tombstones that overlap or are out of order"));
            }
            before = (start, end, seq);
            let (start, end) = (Bytes::copy_from_slice(start), Bytes::copy_from_slice(end));
            block.range_deletes.insert(start, end, seq);
        }
        let end = reader.at;
        if reader.u64()? != xxhash_rust::xxh64::xxh64(&tail[..end], 0) {
            return Err(Malformed::new(0, "the checksum of the private block does not match"));
        }
        Ok((block, reader.at))
    }
}

struct Fields<'a> {
    tail: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    fn bytes(&mut self, len: usize) -> Decoded<&'a [u8]> {
        let found = self.tail[self.at..].get(..len);
        let found = found.ok_or_else(|| Malformed::new(self.at, "the private block is cut short"))?;
        self.at += len;
        Ok(found)
    }

    fn take<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        let at = self.at;
        self.bytes(N)?.try_into().map_err(|_| Malformed::new(at, "the private block is cut short"))
    }

    fn u32(&mut self) -> Decoded<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Decoded<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn checksums(&mut self, version: Version) -> Decoded<Checksums> {
        let crc = self.u32()?;
        let xxh = if version == Version::Crcs { None } else { NonZeroU64::new(self.u64()?) };
        Ok(Checksums { crc, xxh })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_refusal_of_every_change() {
        let versions = [Version::Crcs, Version::Aligned, Version::Current];
        for (expires, version) in [false, true].into_iter().flat_map(|e| versions.map(|v| (e, v))) {
            let of = |crc: u32| Checksums {
                crc,
                xxh: NonZeroU64::new(u64::from(crc) << 33).filter(|_| version != Version::Crcs),
            };
            let page = |first: u32| {
                let mut page = PageChecksums::default();
                for (number, checksums) in page.iter_mut().enumerate().take(4 + usize::from(expires)) {
                    if number != VALUE {
                        *checksums = of(first + number as u32);
                    }
                }
                page
            };
            let value_pages = if version == Version::Current { 5 } else { 2 };
            let mut block = Integrity {
                expires,
                version,
                pages: vec![page(1), page(11)],
                values: (21..).take(value_pages).map(of).collect(),
                filters: vec![9],
                ..Integrity::default()
            };
            block.range_deletes.insert("a".into(), "m".into(), SequenceNumber(5));
            block.range_deletes.insert("g".into(), "z".into(), SequenceNumber(7));
            let bytes = block.encode();
            assert_eq!(bytes.len(), block.encoded_bytes());
            assert_eq!(Integrity::decode(&bytes).unwrap(), (block, bytes.len()));
            for at in 0..bytes.len() {
                let mut bad = bytes.clone();
                bad[at] ^= 1;
                assert!(Integrity::decode(&bad).is_err(), "byte {at}");
                assert!(Integrity::decode(&bytes[..at]).is_err(), "cut at {at}");
            }
        }
    }
}
