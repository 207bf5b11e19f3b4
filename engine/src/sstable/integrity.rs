//! The private block: what binds pages and filters to their places.
//!
//! ```text
//! block := magic "DURAMENI" | version u32 | pages u32 | row_groups u32 | range_tombstones u32 = 0
//!        | (page crc u32 × 4) × pages | (filter xxh64 u64) × row_groups | xxh64 u64
//! ```
//!
//! Integers are little-endian; columns are in the order of the schema; the last
//! word is the xxh64 of everything before it. The block lies between the last
//! row group and the page indexes, where readers of Parquet do not look. It is
//! the head of the *tail*, whose xxh64 is in the manifest.

use super::thrift::{Decoded, Malformed};

const MAGIC: [u8; 8] = *b"DURAMENI";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 24;

/// CRC-32 of the pages of one row range, in each column.
pub(super) type PageCrcs = [u32; super::COLUMNS];

/// The decoded block.
#[derive(Debug, Default)]
pub(super) struct Integrity {
    pub pages: Vec<PageCrcs>,
    /// xxh64 of each row group's filter.
    pub filters: Vec<u64>,
}

impl Integrity {
    /// Bytes of the encoding.
    pub fn encoded_bytes(&self) -> usize {
        HEADER_BYTES + self.pages.len() * size_of::<PageCrcs>() + self.filters.len() * 8 + 8
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.encoded_bytes());
        out.extend_from_slice(&MAGIC);
        for word in [VERSION, self.pages.len() as u32, self.filters.len() as u32, 0] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        self.pages.iter().flatten().for_each(|crc| out.extend_from_slice(&crc.to_le_bytes()));
        self.filters.iter().for_each(|hash| out.extend_from_slice(&hash.to_le_bytes()));
        let checksum = xxhash_rust::xxh64::xxh64(&out, 0);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Decodes the block at the head of `tail`.
    pub fn decode(tail: &[u8]) -> Decoded<Integrity> {
        let fail = |at: usize, what: &'static str| Err(Malformed::new(at, what));
        let Some((header, rest)) = tail.split_at_checked(HEADER_BYTES) else {
            return fail(0, "the private block is cut short");
        };
        let (magic, words) = header.split_at(MAGIC.len());
        let (words, _) = words.as_chunks::<4>();
        let [version, pages, row_groups, range_tombstones] =
            [0, 1, 2, 3].map(|i| u32::from_le_bytes(words[i]));
        if magic != MAGIC || version != VERSION {
            return fail(0, "not a private block of a version that this program knows");
        }
        if range_tombstones != 0 {
            return fail(20, "range tombstones, which need a newer version of this program");
        }
        let pages_bytes = pages as u64 * size_of::<PageCrcs>() as u64;
        let bytes = pages_bytes + u64::from(row_groups) * 8 + 8;
        if bytes > rest.len() as u64 {
            return fail(8, "the private block is longer than the tail");
        }
        let (body, _) = rest.split_at(bytes as usize);
        let (body, checksum) = body.split_at(body.len() - 8);
        let checked = xxhash_rust::xxh64::xxh64(&tail[..HEADER_BYTES + body.len()], 0);
        if checksum != checked.to_le_bytes() {
            return fail(0, "the checksum of the private block does not match");
        }
        let (pages, filters) = body.split_at(pages_bytes as usize);
        let crcs = pages.as_chunks::<4>().0.iter().map(|crc| u32::from_le_bytes(*crc));
        let crcs: Vec<u32> = crcs.collect();
        Ok(Integrity {
            pages: crcs.as_chunks().0.to_vec(),
            filters: filters.as_chunks::<8>().0.iter().map(|hash| u64::from_le_bytes(*hash)).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_refusal_of_every_change() {
        let block = Integrity { pages: vec![[1, 2, 3, 4], [5, 6, 7, 8]], filters: vec![9] };
        let bytes = block.encode();
        assert_eq!(bytes.len(), block.encoded_bytes());
        let decoded = Integrity::decode(&bytes).unwrap();
        assert_eq!((decoded.pages, decoded.filters), (block.pages, block.filters));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(Integrity::decode(&bad).is_err(), "byte {at}");
            assert!(Integrity::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }
}
