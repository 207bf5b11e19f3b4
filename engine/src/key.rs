//! Ids and the order of entries: what every other room agrees on.
//!
//! An *internal key* is a user key and a sequence number. Internal keys are
//! ordered by key (unsigned bytes) ascending, then by sequence number
//! **descending**, so that the newest version of a key comes first.

use std::cmp::Ordering;

use bytes::Bytes;

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 64 * 1024;

/// Position of a commit in the history of a database. All operations of one
/// batch share one. Starts at 1; 0 is "before everything".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceNumber(pub u64);

impl SequenceNumber {
    /// Above that of any commit; stored in a signed 64-bit Parquet column.
    pub const MAX: SequenceNumber = SequenceNumber(i64::MAX as u64);
}

/// When an entry expires, in Unix milliseconds. An expired entry acts as a
/// tombstone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Expiry(pub u64);

impl Expiry {
    /// Not at all.
    pub const NEVER: Expiry = Expiry(0);
    /// The latest there is: stored in a signed 64-bit Parquet column.
    pub const MAX: Expiry = Expiry(i64::MAX as u64);

    /// True once the time has come.
    #[inline]
    pub fn is_past(self, now_ms: u64) -> bool {
        self != Expiry::NEVER && self.0 <= now_ms
    }

    /// The one that comes first.
    pub fn earlier(self, other: Expiry) -> Expiry {
        if self.outlives(other) { other } else { self }
    }

    /// True if this one comes no earlier than `other`.
    pub fn outlives(self, other: Expiry) -> bool {
        self == Expiry::NEVER || (other != Expiry::NEVER && self >= other)
    }
}

/// Number of a file; never reused within a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileNumber(pub u64);

/// Id of a keyspace; never reused within a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyspaceId(pub u32);

/// What an entry does to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ValueKind {
    /// The key has this value.
    Put = 0,
    /// The key has no value: a tombstone.
    Delete = 1,
    /// The value is an operand of the keyspace's merge operator.
    Merge = 2,
}

impl ValueKind {
    /// The kind stored as `byte`.
    pub fn from_byte(byte: u8) -> Option<ValueKind> {
        match byte {
            0 => Some(ValueKind::Put),
            1 => Some(ValueKind::Delete),
            2 => Some(ValueKind::Merge),
            _ => None,
        }
    }
}

/// One version of one key, borrowed from a memtable or a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryRef<'a> {
    /// The user's key.
    pub key: &'a [u8],
    /// The commit that wrote it.
    pub seq: SequenceNumber,
    /// What it does.
    pub kind: ValueKind,
    /// When it expires.
    pub expires_at: Expiry,
    /// The value; empty for a tombstone.
    pub value: &'a [u8],
}

/// One version of one key, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The user's key.
    pub key: Bytes,
    /// The commit that wrote it.
    pub seq: SequenceNumber,
    /// What it does.
    pub kind: ValueKind,
    /// When it expires.
    pub expires_at: Expiry,
    /// The value; empty for a tombstone.
    pub value: Bytes,
}

impl Entry {
    /// The same, borrowed.
    pub fn borrowed(&self) -> EntryRef<'_> {
        let Entry { key, seq, kind, expires_at, value } = self;
        EntryRef { key, seq: *seq, kind: *kind, expires_at: *expires_at, value }
    }
}

impl EntryRef<'_> {
    /// True if nobody who looks at `now_ms` finds a value here: a tombstone, or
    /// what has expired.
    #[inline]
    pub fn is_gone(&self, now_ms: u64) -> bool {
        self.kind == ValueKind::Delete || self.expires_at.is_past(now_ms)
    }
}

/// The first eight bytes of a key as an integer, which orders as they do; those that
/// a short key lacks count as zeros.
#[inline]
pub fn head(key: &[u8]) -> u64 {
    if let Some(first) = key.first_chunk() {
        return u64::from_be_bytes(*first);
    }
    let mut first = [0; 8];
    first[..key.len()].copy_from_slice(key);
    u64::from_be_bytes(first)
}

/// The first 16 bytes of a key as an integer, like [`head`].
#[inline]
pub fn long_head(key: &[u8]) -> u128 {
    if let Some(first) = key.first_chunk() {
        return u128::from_be_bytes(*first);
    }
    let mut first = [0; 16];
    first[..key.len()].copy_from_slice(key);
    u128::from_be_bytes(first)
}

/// True if two keys are one, by words: keys are short, and a call costs more than the
/// comparison, which in a sandbox goes byte by byte besides.
#[inline]
pub fn is_same_key(a: &[u8], b: &[u8]) -> bool {
    let ((a_words, a_rest), (b_words, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    a.len() == b.len() && a_words.iter().eq(b_words) && a_rest.iter().eq(b_rest)
}

/// Order of internal keys: key ascending, sequence number descending.
pub fn compare_internal(a: (&[u8], SequenceNumber), b: (&[u8], SequenceNumber)) -> Ordering {
    a.0.cmp(b.0).then_with(|| b.1.cmp(&a.1))
}

/// Number of bytes that both begin with.
pub fn shared_prefix(a: &[u8], b: &[u8]) -> usize {
    // Eight bytes at a time: prefixes may be long.
    let words = a.chunks_exact(8).zip(b.chunks_exact(8)).take_while(|(a, b)| a == b).count() * 8;
    let rest = a[words..].iter().zip(&b[words..]).take_while(|(a, b)| a == b).count();
    words + rest
}

/// The first key that is greater than every key with `prefix`, or `None` if
/// there is none (the prefix is empty or all 0xff).
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_version_first() {
        let order = compare_internal((b"a", SequenceNumber(2)), (b"a", SequenceNumber(1)));
        assert_eq!(order, Ordering::Less);
        let order = compare_internal((b"a", SequenceNumber(1)), (b"b", SequenceNumber(9)));
        assert_eq!(order, Ordering::Less);
    }

    #[test]
    fn keys_are_one_if_all_their_bytes_are() {
        let key: Vec<u8> = (0..20).collect();
        for len in 0..=key.len() {
            assert!(is_same_key(&key[..len], &key.clone()[..len]));
            for at in 0..len {
                let mut other = key[..len].to_vec();
                assert!(!is_same_key(&key[..len], &other[..at]));
                other[at] ^= 0x80;
                assert!(!is_same_key(&key[..len], &other));
            }
        }
    }

    #[test]
    fn prefix_end_carries_past_0xff() {
        assert_eq!(prefix_end(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(prefix_end(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(prefix_end(b"\xff"), None);
        assert_eq!(prefix_end(b""), None);
    }
}
