//! Bounds of the keys of a page, for the index: exact while keys are short, and
//! no longer than they need to be beyond that.

use crate::key::{prefix_end, shared_prefix};

/// Longest key that is its own bound, in bytes.
const EXACT_BYTES_MAX: usize = 256;

/// A lower bound of a page that begins with `first`, where the page before ends
/// with `before`: above `before`, unless the page goes on with the same key.
pub(super) fn lower(before: &[u8], first: &[u8]) -> Vec<u8> {
    if first.len() <= EXACT_BYTES_MAX || before == first {
        return first.to_vec();
    }
    let shared = shared_prefix(before, first);
    first[..first.len().min((shared + 1).max(EXACT_BYTES_MAX))].to_vec()
}

/// An upper bound of a page that ends with `last`.
pub(super) fn upper(last: &[u8]) -> Vec<u8> {
    let cut = last.get(..EXACT_BYTES_MAX).filter(|_| last.len() > EXACT_BYTES_MAX);
    cut.and_then(prefix_end).unwrap_or_else(|| last.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold_and_are_short() {
        let long = |tail: &[u8]| [&[b'x'; 300][..], tail].concat();
        let keys = [
            b"a".to_vec(),
            b"b".to_vec(),
            [b'x'; 256].to_vec(),
            long(b""),
            long(b"a"),
            long(b"b"),
            b"y".to_vec(),
        ];
        for pair in keys.windows(2) {
            let bound = lower(&pair[0], &pair[1]);
            assert!(pair[0] < bound && bound <= pair[1]);
            assert!(upper(&pair[0]) >= pair[0]);
        }
        assert_eq!(lower(b"a", &long(b"z")).len(), 256);
        assert_eq!(lower(&long(b"z"), &long(b"z")), long(b"z"));
        assert_eq!(upper(&long(b"z")).len(), 256);
        assert_eq!(upper(&[0xff; 400]).len(), 400);
    }
}
