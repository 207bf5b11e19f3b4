//! The cache of decoded pages and filters: one budget of bytes for all tables
//! of a database.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use quick_cache::{Weighter, sync};

use super::filter::Filter;
use super::keys::KeysPage;
use super::page::{BytesPage, IntsPage};
use crate::key::FileNumber;

/// Bytes of an entry beside what it holds.
const ENTRY_BYTES: usize = 96;

/// Typical bytes of an entry, to size the tables of the cache.
const TYPICAL_BYTES: u64 = 8 << 10;

/// Shared by its clones.
#[derive(Clone, Debug)]
pub struct Cache(Arc<Inner>);

type Place = (FileNumber, u64);
type Blocks = sync::Cache<Place, Block, ByWeight, BuildHasherDefault<PlaceHasher>>;

#[derive(Debug)]
struct Inner {
    blocks: Blocks,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// Something decoded from a table.
#[derive(Clone, Debug)]
pub(super) enum Block {
    Keys(Arc<KeysPage>),
    Values(Arc<BytesPage>),
    Ints(Arc<IntsPage>),
    Filter(Arc<Filter>),
}

impl Cache {
    /// A cache of at most `bytes` bytes.
    pub fn new(bytes: u64) -> Cache {
        let blocks = Blocks::with(
            (bytes / TYPICAL_BYTES).max(16) as usize,
            bytes,
            ByWeight,
            BuildHasherDefault::default(),
            sync::DefaultLifecycle::default(),
        );
        Cache(Arc::new(Inner { blocks, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }))
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        self.0.blocks.weight()
    }

    /// Bytes that it may hold.
    pub fn bytes_max(&self) -> u64 {
        self.0.blocks.capacity()
    }

    /// Lookups that found something.
    pub fn hits(&self) -> u64 {
        self.0.hits.load(Relaxed)
    }

    /// Lookups that did not.
    pub fn misses(&self) -> u64 {
        self.0.misses.load(Relaxed)
    }

    pub(super) fn get(&self, file: FileNumber, offset: u64) -> Option<Block> {
        let found = self.0.blocks.get(&(file, offset));
        let counter = if found.is_some() { &self.0.hits } else { &self.0.misses };
        counter.fetch_add(1, Relaxed);
        found
    }

    pub(super) fn insert(&self, file: FileNumber, offset: u64, block: Block) {
        self.0.blocks.insert((file, offset), block);
    }
}

#[derive(Clone, Debug)]
struct ByWeight;

impl Weighter<Place, Block> for ByWeight {
    fn weight(&self, _: &Place, block: &Block) -> u64 {
        let bytes = match block {
            Block::Keys(page) => page.weight(),
            Block::Values(page) => page.weight(),
            Block::Ints(page) => page.weight(),
            Block::Filter(filter) => filter.weight(),
        };
        (bytes + ENTRY_BYTES) as u64
    }
}

/// Mixes two integers that nobody chooses to collide.
#[derive(Clone, Debug, Default)]
struct PlaceHasher(u64);

impl Hasher for PlaceHasher {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, word: u64) {
        // Source of the constant: 2^64 over the golden ratio.
        self.0 = (self.0.rotate_left(29) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sstable::page::BytesPage;
    use bytes::Bytes;

    #[test]
    fn stays_within_its_budget_and_counts() {
        let cache = Cache::new(1 << 20);
        let page = || {
            let mut body = Vec::new();
            crate::sstable::delta::encode(&mut body, &[4000]);
            body.resize(body.len() + 4000, 7);
            Block::Values(Arc::new(BytesPage::decode(Bytes::from(body), 1).unwrap()))
        };
        for offset in 0..2000 {
            cache.insert(FileNumber(1), offset, page());
            assert!(cache.bytes() <= 1 << 20);
        }
        assert!(cache.bytes() > 1 << 18);
        let found = (0..2000).filter(|offset| cache.get(FileNumber(1), *offset).is_some()).count() as u64;
        assert!(found > 0 && cache.hits() == found && cache.misses() == 2000 - found);
        assert!(cache.get(FileNumber(2), 1999).is_none());
    }
}
