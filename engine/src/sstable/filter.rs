//! The standard split-block Bloom filter of Parquet, on keys.
//!
//! ```text
//! filter := header (thrift) | block*
//! header := { 1: bitset bytes, 2: { 1: BLOCK {} }, 3: { 1: XXHASH {} }, 4: { 1: UNCOMPRESSED {} } }
//! block  := 8 words of 32 bits, little-endian
//! ```
//!
//! The upper half of a key's xxh64 chooses the block, the lower half times a
//! salt one bit in each word. Source: BloomFilter.md of parquet-format.

use bytes::Bytes;

use super::cache::Block;
use super::thrift::{Decoded, Malformed, kind, put_zigzag};

/// Bytes of a block.
pub(crate) const FILTER_BLOCK_BYTES: usize = 32;
const SALT: [u32; 8] =
    [0x47b6137b, 0x44974d91, 0x8824ad5b, 0xa2b7289d, 0x705495c7, 0x2df1424b, 0x9efc4947, 0x5c6bfb31];

/// Hash of a key, for filters: the one that Parquet prescribes.
pub fn hash_key(key: &[u8]) -> u64 {
    xxhash_rust::xxh64::xxh64(key, 0)
}

/// The block of a hash, of so many.
pub(crate) fn filter_block(hash: u64, blocks: usize) -> usize {
    (((hash >> 32) * blocks as u64) >> 32) as usize
}

/// The bit of a hash in a word of its block.
pub(crate) fn filter_bit(hash: u64, word: usize) -> u32 {
    1 << ((hash as u32).wrapping_mul(SALT[word]) >> 27)
}

fn put_header(out: &mut Vec<u8>, bitset_bytes: usize) {
    out.push(0x10 | kind::I32);
    put_zigzag(out, bitset_bytes as i64);
    for _ in 0..3 {
        // A union whose first member is an empty struct.
        out.extend_from_slice(&[0x10 | kind::STRUCT, 0x10 | kind::STRUCT, 0, 0]);
    }
    out.push(0);
}

/// The filter of `hashes`, header included: the smallest power of two of bytes
/// with at least `bits_per_key` bits for each.
pub(super) fn build(hashes: &[u64], bits_per_key: usize) -> Vec<u8> {
    let bytes = (hashes.len() * bits_per_key).div_ceil(8).next_power_of_two().max(FILTER_BLOCK_BYTES);
    let mut out = Vec::with_capacity(32 + bytes);
    put_header(&mut out, bytes);
    let start = out.len();
    out.resize(start + bytes, 0);
    let (blocks, _) = out[start..].as_chunks_mut::<FILTER_BLOCK_BYTES>();
    let count = blocks.len();
    for &hash in hashes {
        let block = &mut blocks[filter_block(hash, count)];
        for (word, bytes) in block.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *bytes = (u32::from_le_bytes(*bytes) | filter_bit(hash, word)).to_le_bytes();
        }
    }
    out
}

/// Bytes of the filter whose header `bytes` begins with.
pub(super) fn measure(bytes: &[u8]) -> Option<u64> {
    (5..31).find_map(|shift| {
        let mut header = Vec::new();
        put_header(&mut header, 1 << shift);
        bytes.starts_with(&header).then_some(header.len() as u64 + (1 << shift))
    })
}

/// A filter read back.
#[derive(Debug)]
pub(super) struct Filter {
    bitset: Bytes,
}

impl Filter {
    /// Takes the bytes that [`build`] made.
    pub fn decode(raw: &Bytes) -> Decoded<Filter> {
        let mut header = Vec::new();
        // Sizes are powers of two, so one of few headers must fit.
        for shift in 5..31 {
            header.clear();
            put_header(&mut header, 1 << shift);
            if raw.starts_with(&header) && raw.len() == header.len() + (1 << shift) {
                return Ok(Filter { bitset: raw.slice(header.len()..) });
            }
        }
        Err(Malformed::new(0, "a Bloom filter that this engine does not write"))
    }

    /// False if no key with this hash is there.
    pub fn may_hold(&self, hash: u64) -> bool {
        let (blocks, _) = self.bitset.as_chunks::<FILTER_BLOCK_BYTES>();
        let block = &blocks[filter_block(hash, blocks.len())];
        let words = block.as_chunks::<4>().0.iter().enumerate();
        words
            .fold(true, |all, (word, bytes)| all & (u32::from_le_bytes(*bytes) & filter_bit(hash, word) != 0))
    }
}

impl Block for Filter {
    fn weight(&self) -> usize {
        self.bitset.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_its_keys_and_few_others() {
        let hashes: Vec<u64> = (0..10_000u32).map(|i| hash_key(&i.to_be_bytes())).collect();
        let filter = Filter::decode(&build(&hashes, 10).into()).unwrap();
        assert!(hashes.iter().all(|hash| filter.may_hold(*hash)));
        let strangers = (10_000..30_000u32).filter(|i| filter.may_hold(hash_key(&i.to_be_bytes())));
        assert!(strangers.count() < 400, "more than 2 % false positives");
    }

    #[test]
    fn agrees_with_the_crate() {
        let hashes: Vec<u64> = (0..1000u32).map(|i| hash_key(&i.to_be_bytes())).collect();
        let ours = build(&hashes, 10);
        let mut theirs = parquet::bloom_filter::Sbbf::new_with_num_of_bytes(2048);
        (0..1000u32).for_each(|i| theirs.insert(i.to_be_bytes().as_slice()));
        let mut bytes = Vec::new();
        theirs.write(&mut bytes).unwrap();
        assert_eq!(ours, bytes);
    }

    #[test]
    fn other_sizes_are_refused() {
        let filter = Bytes::from(build(&[1, 2, 3], 10));
        assert!(Filter::decode(&filter.slice(..filter.len() - 1)).is_err());
        assert!(Filter::decode(&filter.slice(1..)).is_err());
        assert!(Filter::decode(&Bytes::new()).is_err());
    }
}
