//! Keys, values and their order: made from numbers, so that every engine gets the
//! same and every value can be checked without being kept.

/// Bytes of the keys of all benchmarks but `memtable`.
pub const KEY_BYTES: usize = 16;

/// Distance of numbers that differ in every respect; the constant of splitmix64.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Another number for each number, without order. The finalizer of splitmix64:
/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
#[inline]
pub fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(GOLDEN);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Random numbers; the same seed gives the same ones.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Numbers of this seed.
    pub fn new(seed: u64) -> Self {
        Random(mix(seed))
    }

    /// Any number.
    #[inline]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// A number below `end`, which is not 0.
    #[inline]
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }
}

/// The key of entry `number` where keys come in random order. No two numbers
/// have the same.
#[inline]
pub fn random_key(number: u64) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..8].copy_from_slice(&mix(number).to_be_bytes());
    key[8..].copy_from_slice(&mix(!number).to_be_bytes());
    key
}

/// The key of entry `number` where keys come in their order: decimal digits.
#[inline]
pub fn sequential_key(number: u64) -> [u8; KEY_BYTES] {
    let (mut key, mut rest) = ([b'0'; KEY_BYTES], number);
    for digit in key.iter_mut().rev() {
        *digit += (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// Bytes of a value that are copied at once: on some processors, more bytes over a distance
/// of whole pages of memory take several times as long to copy (glibc bug 30994), and
/// that would be measured with every engine.
const COPIED_BYTES: usize = 1 << 10;

/// Values of one length, half random, half a repetition of that: what an LZ
/// codec shrinks to about a half, as in LevelDB's `db_bench`.
#[derive(Debug)]
pub struct Values {
    value: Vec<u8>,
}

impl Values {
    /// Values of `bytes` bytes.
    pub fn new(bytes: usize) -> Self {
        Values { value: vec![0; bytes] }
    }

    /// The value that `key`, of 16 bytes, has after its `version`th write.
    #[inline]
    pub fn of(&mut self, key: &[u8], version: u64) -> &[u8] {
        let seed = seed(key, version);
        let half = self.value.len().div_ceil(2);
        let (random, repeated) = self.value.split_at_mut(half);
        for (at, chunk) in random.chunks_mut(8).enumerate() {
            chunk.copy_from_slice(&mix(seed ^ at as u64).to_le_bytes()[..chunk.len()]);
        }
        for (to, from) in repeated.chunks_mut(COPIED_BYTES).zip(random.chunks(COPIED_BYTES)) {
            to.copy_from_slice(&from[..to.len()]);
        }
        &self.value
    }
}

/// True if `value` has the right beginning, which is enough to tell values apart
/// and costs little beside a step of a scan.
#[inline]
pub fn begins_right(key: &[u8], version: u64, value: &[u8]) -> bool {
    let begin = mix(seed(key, version)).to_le_bytes();
    let bytes = value.len().div_ceil(2).min(begin.len());
    value[..bytes] == begin[..bytes]
}

fn seed(key: &[u8], version: u64) -> u64 {
    let half = |at: usize| {
        key.get(at..at + 8).and_then(|half| half.first_chunk()).map_or(0, |half| u64::from_le_bytes(*half))
    };
    mix(half(0) ^ version.rotate_right(16)) ^ half(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_and_sequential_ones_are_in_order() {
        let random: std::collections::BTreeSet<_> = (0..10_000).map(random_key).collect();
        assert_eq!(random.len(), 10_000);
        assert!((0..10_000).map(sequential_key).is_sorted());
        assert_eq!(&sequential_key(90_210), b"0000000000090210");
    }

    #[test]
    fn values_differ_by_key_and_version_and_repeat_themselves() {
        let (key, other) = (random_key(1), random_key(2));
        let mut values = Values::new(100);
        let first = values.of(&key, 0).to_vec();
        assert_eq!(first[..50], first[50..]);
        assert_eq!(values.of(&key, 0), first);
        assert_ne!(values.of(&key, 1), first);
        assert_ne!(values.of(&other, 0), first);
        assert!(begins_right(&key, 0, &first));
        assert!(!begins_right(&key, 1, &first) && !begins_right(&other, 0, &first));
        assert!(begins_right(&key, 3, Values::new(7).of(&key, 3)));
        let mut long = Values::new(5 * COPIED_BYTES + 1);
        let (random, repeated) = long.of(&key, 0).split_at(5 * COPIED_BYTES / 2 + 1);
        assert_eq!(random[..repeated.len()], *repeated);
    }

    #[test]
    fn random_numbers_stay_below_their_end() {
        let mut random = Random::new(1);
        assert!((0..1000).all(|_| random.below(3) < 3));
    }
}
