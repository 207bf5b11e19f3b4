//! A filter on the keys of a memtable: a get of what is not in it looks at few cache
//! lines, most of them in a processor's own cache, and not at a path through the
//! memtable, which is as many waits for memory as it is deep.
//!
//! Split blocks as in the filters of tables ([`crate::sstable`]), but for keys whose
//! number is not known before. So there are generations, each for eight times as many
//! keys as the one before; a key goes into the last one, and is looked for in all.
//! Source of the idea: "Scalable Bloom Filters" (Almeida et al., 2007).

use std::sync::OnceLock;
// Not those of `crate::sync`: an order of loads and stores here changes no answer.
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicUsize};

use crate::sstable::{FILTER_BLOCK_BYTES, filter_bit, filter_block};

/// Keys of the first generation.
const FIRST_KEYS: usize = 1 << 7;

/// How many times as many the next one has, as a power of two.
const GROWTH_SHIFT: u32 = 3;

const GENERATIONS: usize = 6;

const BITS_PER_KEY: usize = 10;

/// Which keys may have been inserted.
#[derive(Debug, Default)]
pub(crate) struct KeyFilter {
    generations: [OnceLock<Box<[Block]>>; GENERATIONS],
    keys: AtomicUsize,
}

#[derive(Debug, Default)]
#[repr(align(32))]
struct Block([AtomicU32; FILTER_BLOCK_BYTES / 4]);

impl KeyFilter {
    /// Adds a key by its hash. One writer at a time; who reads at a moment when the
    /// entry is visible finds it.
    pub fn insert(&self, hash: u64) {
        let keys = self.keys.load(Relaxed);
        self.keys.store(keys + 1, Relaxed);
        let generation = generation_of(keys);
        let blocks = self.generations[generation].get_or_init(|| {
            let bits = (FIRST_KEYS << (GROWTH_SHIFT * generation as u32)) * BITS_PER_KEY;
            (0..bits.div_ceil(8 * FILTER_BLOCK_BYTES)).map(|_| Block::default()).collect()
        });
        for (word, bits) in blocks[filter_block(hash, blocks.len())].0.iter().enumerate() {
            bits.store(bits.load(Relaxed) | filter_bit(hash, word), Relaxed);
        }
    }

    /// False if no key with this hash was inserted.
    pub fn may_hold(&self, hash: u64) -> bool {
        let mut generations = self.generations.iter().map_while(OnceLock::get);
        generations.any(|blocks| {
            let words = blocks[filter_block(hash, blocks.len())].0.iter().enumerate();
            words.fold(true, |all, (word, bits)| all & (bits.load(Relaxed) & filter_bit(hash, word) != 0))
        })
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.generations.iter().map_while(OnceLock::get).map(|blocks| size_of_val(&**blocks)).sum()
    }
}

/// Where the key after so many goes.
fn generation_of(keys: usize) -> usize {
    let beyond = (keys / FIRST_KEYS).checked_ilog2().map_or(0, |log| log / GROWTH_SHIFT + 1);
    (beyond as usize).min(GENERATIONS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sstable::hash_key;

    #[test]
    fn holds_its_keys_and_few_others() {
        let filter = KeyFilter::default();
        assert!(!filter.may_hold(hash_key(b"")));
        assert_eq!(filter.bytes(), 0);
        let hash = |n: u32| hash_key(&n.to_be_bytes());
        for n in 0..100_000 {
            filter.insert(hash(n));
            assert!(filter.may_hold(hash(n)));
        }
        assert!((0..100_000).all(|n| filter.may_hold(hash(n))));
        let others = (100_000..200_000).filter(|n| filter.may_hold(hash(*n)));
        assert!(others.count() < 4000, "more than 4 % false positives");
        assert!(filter.bytes() < 1 << 20, "{}", filter.bytes());
    }

    #[test]
    fn a_generation_is_eight_times_the_one_before() {
        let begins: Vec<usize> = (1..1 << 20).filter(|n| generation_of(*n) > generation_of(n - 1)).collect();
        assert_eq!(begins, [1 << 7, 1 << 10, 1 << 13, 1 << 16, 1 << 19]);
        assert_eq!(generation_of(usize::MAX), GENERATIONS - 1);
    }
}
