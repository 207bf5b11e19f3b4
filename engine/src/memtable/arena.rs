//! Items by number. They never move as more are added, so that growth neither
//! copies a memtable nor needs twice its memory.

use std::ops::{Index, IndexMut};

/// About the bytes of a full chunk: large enough for few chunks, small enough
/// that the unused rest of the last one does not matter.
const CHUNK_BYTES: usize = 128 << 10;

/// Makes room for one item, in steps of a quarter: what a memtable grows by at once is
/// what it may have too much.
pub(super) fn grow<T>(items: &mut Vec<T>) {
    if items.len() == items.capacity() {
        items.reserve_exact((items.len() / 4).max(1));
    }
}

/// Items in chunks, all full but the last; that one grows by a quarter at a time.
#[derive(Debug)]
pub(super) struct Arena<T> {
    chunks: Vec<Vec<T>>,
    /// Numbers of items that are no longer needed.
    free: Vec<u32>,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Arena { chunks: Vec::new(), free: Vec::new() }
    }
}

impl<T> Arena<T> {
    /// A chunk has two to the power of this many items.
    const SHIFT: u32 = (CHUNK_BYTES / size_of::<T>()).ilog2();
    const CHUNK_ITEMS: usize = 1 << Self::SHIFT;

    fn place(number: u32) -> (usize, usize) {
        (number as usize >> Self::SHIFT, number as usize & (Self::CHUNK_ITEMS - 1))
    }

    /// Adds an item and returns its number.
    pub fn add(&mut self, item: T) -> u32 {
        if let Some(number) = self.free.pop() {
            self[number] = item;
            return number;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == Self::CHUNK_ITEMS) {
            grow(&mut self.chunks);
            self.chunks.push(Vec::new());
        }
        let before = self.chunks.len() - 1;
        let chunk = &mut self.chunks[before];
        grow(chunk);
        chunk.push(item);
        ((before << Self::SHIFT) + chunk.len() - 1) as u32
    }

    /// Gives the number of an item to one to come.
    pub fn free(&mut self, number: u32) {
        self.free.push(number);
    }

    /// Bytes of memory, what is not in use included.
    pub fn bytes(&self) -> usize {
        let last = self.chunks.last().map_or(0, Vec::capacity);
        let items = self.chunks.len().saturating_sub(1) * Self::CHUNK_ITEMS + last;
        items * size_of::<T>()
            + self.chunks.capacity() * size_of::<Vec<T>>()
            + self.free.capacity() * size_of::<u32>()
    }
}

impl<T> Index<u32> for Arena<T> {
    type Output = T;

    #[inline]
    fn index(&self, number: u32) -> &T {
        let (chunk, at) = Self::place(number);
        &self.chunks[chunk][at]
    }
}

impl<T> IndexMut<u32> for Arena<T> {
    #[inline]
    fn index_mut(&mut self, number: u32) -> &mut T {
        let (chunk, at) = Self::place(number);
        &mut self.chunks[chunk][at]
    }
}
