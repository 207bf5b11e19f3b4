//! Ids and the order of entries: what every other room agrees on.
//!
//! An *internal key* is a user key and a sequence number. Internal keys are
//! ordered by key (unsigned bytes) ascending, then by sequence number
//! **descending**, so that the newest version of a key comes first.

use std::cmp::Ordering;

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 64 * 1024;

/// Position of a commit in the history of a database. All operations of one
/// batch share one. Starts at 1; 0 is "before everything".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceNumber(pub u64);

impl SequenceNumber {
    /// Largest sequence number: stored in a signed 64-bit Parquet column.
    pub const MAX: SequenceNumber = SequenceNumber(i64::MAX as u64);
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
    /// The value; empty for a tombstone.
    pub value: &'a [u8],
}

/// Order of internal keys: key ascending, sequence number descending.
pub fn compare_internal(a: (&[u8], SequenceNumber), b: (&[u8], SequenceNumber)) -> Ordering {
    a.0.cmp(b.0).then_with(|| b.1.cmp(&a.1))
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
    fn prefix_end_carries_past_0xff() {
        assert_eq!(prefix_end(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(prefix_end(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(prefix_end(b"\xff"), None);
        assert_eq!(prefix_end(b""), None);
    }
}
