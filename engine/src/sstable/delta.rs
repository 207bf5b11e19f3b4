//! DELTA_BINARY_PACKED: integers as a first value and bit-packed differences.
//!
//! ```text
//! packed := 128 varint | 4 varint | count varint | first zigzag | block*
//! block  := min_delta zigzag | width u8 × 4 | miniblock × (as many as have values)
//! miniblock := 32 × (delta - min_delta), each `width` bits, least significant first
//! ```
//!
//! Arithmetic wraps at 64 bits, as the specification asks. Blocks have 128
//! differences in 4 miniblocks of 32; other shapes are legal Parquet that this
//! engine never writes, so they are refused. Source: Encodings.md of
//! parquet-format.

use super::thrift::{Decoded, Malformed, Reader, put_varint, put_zigzag};

const BLOCK_VALUES: usize = 128;
const MINIBLOCKS: usize = 4;
const MINIBLOCK_VALUES: usize = BLOCK_VALUES / MINIBLOCKS;

/// Bits of values that need not begin at a byte and still lie within eight.
const NARROW_BITS_MAX: u32 = 57;

/// Appends the encoding of `values`.
pub(super) fn encode(out: &mut Vec<u8>, values: &[i64]) {
    put_varint(out, BLOCK_VALUES as u64);
    put_varint(out, MINIBLOCKS as u64);
    put_varint(out, values.len() as u64);
    let Some((&first, rest)) = values.split_first() else {
        put_zigzag(out, 0);
        return;
    };
    put_zigzag(out, first);
    let mut previous = first;
    let mut deltas = [0i64; BLOCK_VALUES];
    for block in rest.chunks(BLOCK_VALUES) {
        let mut min = i64::MAX;
        for (delta, &value) in deltas.iter_mut().zip(block) {
            *delta = value.wrapping_sub(previous);
            previous = value;
            min = min.min(*delta);
        }
        put_zigzag(out, min);
        let widths = out.len();
        out.extend_from_slice(&[0; MINIBLOCKS]);
        for (index, mini) in deltas[..block.len()].chunks(MINIBLOCK_VALUES).enumerate() {
            let used = mini.iter().fold(0, |bits, delta| bits | delta.wrapping_sub(min) as u64);
            let width = 64 - used.leading_zeros();
            out[widths + index] = width as u8;
            pack(out, mini, min, width);
        }
    }
}

/// Packs one miniblock, padded with zeros to 32 values.
fn pack(out: &mut Vec<u8>, deltas: &[i64], min: i64, width: u32) {
    if width == 0 {
        return;
    }
    let end = out.len() + MINIBLOCK_VALUES * width as usize / 8;
    let mut pending: u128 = 0;
    let mut pending_bits = 0;
    for delta in deltas {
        pending |= u128::from(delta.wrapping_sub(min) as u64) << pending_bits;
        pending_bits += width;
        while pending_bits >= 32 {
            out.extend_from_slice(&(pending as u32).to_le_bytes());
            pending >>= 32;
            pending_bits -= 32;
        }
    }
    if pending_bits > 0 {
        out.extend_from_slice(&(pending as u32).to_le_bytes());
    }
    out.resize(end, 0);
}

/// Integers decoded; progressions with a fixed step take no memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Packed {
    /// `first`, `first + step`, ...
    Progression { first: i64, step: i64 },
    /// Anything else.
    Values(Vec<i64>),
}

impl Packed {
    /// The value at `index`, which must be below the count decoded.
    #[inline]
    pub fn get(&self, index: usize) -> i64 {
        match self {
            Packed::Progression { first, step } => first.wrapping_add(step.wrapping_mul(index as i64)),
            Packed::Values(values) => values[index],
        }
    }
}

/// Decodes exactly `count` integers; answers how many bytes they took.
pub(super) fn decode(bytes: &[u8], count: usize) -> Decoded<(Packed, usize)> {
    let mut reader = Reader::new(bytes);
    if reader.varint()? != BLOCK_VALUES as u64 || reader.varint()? != MINIBLOCKS as u64 {
        return reader.fail("delta blocks of an unexpected shape");
    }
    if reader.varint()? != count as u64 {
        return reader.fail("delta encoding of an unexpected number of values");
    }
    let first = reader.zigzag()?;
    let start = reader.clone();
    if let Some(step) = step_of(&mut reader, count)? {
        return Ok((Packed::Progression { first, step }, reader.position()));
    }
    let mut reader = start;
    // A block takes at least its minimum and the widths of its miniblocks.
    let blocks_max = reader.left() / (1 + MINIBLOCKS);
    if count.saturating_sub(1) / BLOCK_VALUES > blocks_max {
        return reader.fail("more values than the bytes can hold");
    }
    let mut values = Vec::new();
    if values.try_reserve_exact(count).is_err() {
        return Err(Malformed::new(0, format!("no memory for {count} values")));
    }
    values.push(first);
    let mut value = first;
    while values.len() < count {
        let min = reader.zigzag()?;
        let widths = reader.take(MINIBLOCKS)?;
        for &width in widths {
            let wanted = MINIBLOCK_VALUES.min(count - values.len());
            if wanted == 0 {
                break;
            }
            unpack(&mut reader, width, wanted, |delta| {
                value = value.wrapping_add(min).wrapping_add(delta as i64);
                values.push(value);
            })?;
        }
    }
    Ok((Packed::Values(values), reader.position()))
}

/// The step, if every difference is the same; leaves `reader` at the end then.
fn step_of(reader: &mut Reader<'_>, count: usize) -> Decoded<Option<i64>> {
    let mut left = count.saturating_sub(1);
    let mut step = None;
    while left > 0 {
        let min = reader.zigzag()?;
        if *step.get_or_insert(min) != min || reader.take(MINIBLOCKS)? != [0; MINIBLOCKS] {
            return Ok(None);
        }
        left -= left.min(BLOCK_VALUES);
    }
    Ok(Some(step.unwrap_or(0)))
}

fn unpack(reader: &mut Reader<'_>, width: u8, wanted: usize, mut each: impl FnMut(u64)) -> Decoded<()> {
    if width > 64 {
        return reader.fail("bit width over 64");
    }
    if width == 0 {
        (0..wanted).for_each(|_| each(0));
        return Ok(());
    }
    let width = u32::from(width);
    let packed = reader.take(MINIBLOCK_VALUES * width as usize / 8)?;
    let mask = u64::MAX >> (64 - width);
    if width <= NARROW_BITS_MAX {
        // Every value lies in the eight bytes from the one where it begins.
        let mut padded = [0; (MINIBLOCK_VALUES * NARROW_BITS_MAX as usize) / 8 + 8];
        padded[..packed.len()].copy_from_slice(packed);
        for index in 0..wanted.min(MINIBLOCK_VALUES) {
            let bit = index * width as usize;
            let word = padded[bit / 8..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
            each(word >> (bit % 8) & mask);
        }
        return Ok(());
    }
    let mut words =
        packed.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    let mut pending: u128 = 0;
    let mut pending_bits = 0;
    for _ in 0..wanted {
        while pending_bits < width {
            // 32 values of `width` bits are exactly `width` words.
            pending |= u128::from(words.next().unwrap_or(0)) << pending_bits;
            pending_bits += 32;
        }
        each(pending as u64 & mask);
        pending >>= width;
        pending_bits -= width;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(values: &[i64]) -> usize {
        let mut out = Vec::new();
        encode(&mut out, values);
        let (packed, used) = decode(&out, values.len()).unwrap();
        assert_eq!(used, out.len());
        match packed {
            Packed::Values(found) => assert_eq!(found, values),
            Packed::Progression { first, step } => {
                for (index, &value) in values.iter().enumerate() {
                    assert_eq!(first.wrapping_add(step.wrapping_mul(index as i64)), value);
                }
            }
        }
        for cut in 0..out.len() {
            assert!(decode(&out[..cut], values.len()).is_err(), "cut at {cut}");
        }
        out.len()
    }

    #[test]
    fn values_round_trip() {
        round_trip(&[7]);
        assert!(round_trip(&[16; 128]) < 16, "equal lengths cost next to nothing");
        round_trip(&(0..1000).collect::<Vec<i64>>());
        round_trip(&[i64::MAX, i64::MIN, 0, -1, i64::MAX]);
        let mut state = 1u64;
        for count in [2, 31, 32, 33, 34, 127, 128, 129, 130, 257, 600] {
            for shift in [0, 7, 33, 60] {
                let values: Vec<i64> = (0..count)
                    .map(|_| {
                        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                        (state >> shift) as i64
                    })
                    .collect();
                round_trip(&values);
            }
        }
    }

    #[test]
    fn counts_must_agree() {
        let mut out = Vec::new();
        encode(&mut out, &[1, 2, 3]);
        assert!(decode(&out, 2).is_err());
        assert!(decode(&out, 4).is_err());
    }
}
