//! Where the keys and values of a memtable lie: copied one after another into
//! chunks, so that hundreds of entries cost one allocation, neighbours in time are
//! neighbours in memory, and a flushed memtable is freed chunk by chunk.

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes of a chunk; the first ones of a memtable are smaller, as many memtables
/// stay so.
const CHUNK_BYTES_MIN: usize = 1 << 10;
const CHUNK_BYTES_MAX: usize = 64 << 10;

/// Longer pairs get an allocation of their own: they would waste the rest of a chunk.
const PAIR_BYTES_MAX: usize = CHUNK_BYTES_MAX / 16;

/// Bytes that sharing an allocation costs beside it, as `bytes` does it.
const SHARED_BYTES: usize = 6 * size_of::<usize>();

/// Takes keys and values in.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// What is left of the last chunk.
    chunk: BytesMut,
    /// Bytes of the last chunk when it was new.
    chunk_bytes: usize,
    /// Bytes allocated.
    bytes: usize,
}

impl Contents {
    /// Copies a key, the value after it, and what comes after that, as one, which keeps
    /// its chunk alive.
    pub fn copy(&mut self, key: &[u8], value: &[u8], rest: &[u8]) -> Bytes {
        let bytes = key.len() + value.len() + rest.len();
        if bytes > PAIR_BYTES_MAX {
            let mut own = self.allocate(bytes);
            [key, value, rest].into_iter().for_each(|part| own.put_slice(part));
            return own.freeze();
        }
        if self.chunk.capacity() < bytes {
            self.chunk_bytes = (self.chunk_bytes * 2).clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX).max(bytes);
            self.chunk = self.allocate(self.chunk_bytes);
        }
        self.chunk.put_slice(key);
        self.chunk.put_slice(value);
        if !rest.is_empty() {
            self.chunk.put_slice(rest);
        }
        self.chunk.split().freeze()
    }

    fn allocate(&mut self, bytes: usize) -> BytesMut {
        self.bytes += bytes + SHARED_BYTES;
        BytesMut::with_capacity(bytes)
    }

    /// Bytes allocated, but for those left of the last chunk.
    pub fn bytes(&self) -> usize {
        self.bytes - self.chunk.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_every_length_come_back_and_little_is_wasted() {
        let mut contents = Contents::default();
        let (mut pairs, mut bytes) = (Vec::new(), 0);
        for number in 0..3_000_usize {
            let key = vec![number as u8; number % 50];
            let value = vec![!number as u8; if number % 100 == 0 { 40 * number } else { number % 300 }];
            bytes += key.len() + value.len();
            pairs.push((contents.copy(&key, &value, &[]), [key, value].concat()));
        }
        for (pair, model) in &pairs {
            assert_eq!(pair, model);
        }
        let allocated = contents.bytes();
        assert!(
            (bytes..bytes + bytes / 16 + CHUNK_BYTES_MAX).contains(&allocated),
            "{allocated} for {bytes}"
        );
    }
}
