//! Write batches: operations that are applied together or not at all.
//!
//! The encoding is the payload of a WAL record and of the component's packed
//! calls alike; integers are little-endian:
//!
//! ```text
//! batch := op*
//! op    := kind u8 | flags u8 | zero u16 | keyspace u32
//!        | key_len u32 | value_len u32 | [expires_at u64] | key | value
//! kind  := 0 put | 1 delete | 2 merge | 3 range delete (key = start, value = end)
//! flags := bit 0: expires_at is present
//! ```
//!
//! Kinds 2 and 3 and the flag are part of format version 1; this build refuses
//! them as unsupported rather than misread them.

use std::ops::Range;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::key::{KEY_BYTES_MAX, KeyspaceId, ValueKind};

/// Bytes of an operation beside its key and value.
pub const OP_HEADER_BYTES: usize = 16;

/// Limits of one batch; set by the database from its options.
#[derive(Clone, Copy, Debug)]
pub struct BatchLimits {
    /// Longest value, in bytes.
    pub value_bytes_max: usize,
    /// Longest encoded batch, in bytes.
    pub batch_bytes_max: usize,
}

/// Operations over any keyspaces of one database, committed atomically.
///
/// The last operation on a key wins. Building a batch checks nothing; the
/// commit checks everything before it writes anything.
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {
    encoded: Vec<u8>,
    count: usize,
}

impl WriteBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a batch as encoded by another [`WriteBatch`], a foreign host, say.
    ///
    /// # Errors
    /// `InvalidArgument` where the bytes are not a batch; `Unsupported` where
    /// they use an operation that this build does not have.
    pub fn from_encoded(encoded: Vec<u8>) -> Result<Self> {
        let mut count = 0;
        for op in decode(&encoded) {
            op.map_err(DecodeError::into_invalid)?;
            count += 1;
        }
        Ok(Self { encoded, count })
    }

    /// Adds "`key` has `value`".
    pub fn put(&mut self, keyspace: impl Into<KeyspaceId>, key: &[u8], value: &[u8]) -> &mut Self {
        self.push(ValueKind::Put, keyspace.into(), key, value)
    }

    /// Adds "`key` has no value".
    pub fn delete(&mut self, keyspace: impl Into<KeyspaceId>, key: &[u8]) -> &mut Self {
        self.push(ValueKind::Delete, keyspace.into(), key, &[])
    }

    fn push(&mut self, kind: ValueKind, keyspace: KeyspaceId, key: &[u8], value: &[u8]) -> &mut Self {
        let mut header = [0; OP_HEADER_BYTES];
        header[0] = kind as u8;
        header[4..8].copy_from_slice(&keyspace.0.to_le_bytes());
        // Lengths past u32 cannot be encoded; saturating makes them fail the
        // limit check at commit, which is where all limits are checked.
        header[8..12].copy_from_slice(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_le_bytes());
        header[12..16].copy_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.encoded.reserve(OP_HEADER_BYTES + key.len() + value.len());
        self.encoded.extend_from_slice(&header);
        self.encoded.extend_from_slice(key);
        self.encoded.extend_from_slice(value);
        self.count += 1;
        self
    }

    /// Number of operations.
    pub fn len(&self) -> usize {
        self.count
    }

    /// True without operations.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the encoding.
    pub fn encoded_bytes(&self) -> usize {
        self.encoded.len()
    }

    /// Forgets all operations and keeps the allocation.
    pub fn clear(&mut self) {
        self.encoded.clear();
        self.count = 0;
    }

    /// The encoding, for a packed call or a WAL record.
    pub fn into_encoded(self) -> Vec<u8> {
        self.encoded
    }

    /// The encoding, borrowed.
    pub fn as_encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// Checks every operation against the limits: the one place for every
    /// write path.
    ///
    /// # Errors
    /// `InvalidArgument` naming the operation and the limit.
    pub fn check(&self, limits: BatchLimits) -> Result<()> {
        if self.encoded.len() > limits.batch_bytes_max {
            return Err(Error::invalid(format!(
                "batch of {} bytes is over the limit of {} bytes; commit it in parts",
                self.encoded.len(),
                limits.batch_bytes_max
            )));
        }
        for op in decode(&self.encoded) {
            let op = op.map_err(DecodeError::into_invalid)?;
            if op.key.len() > KEY_BYTES_MAX {
                return Err(Error::invalid(format!(
                    "key of {} bytes is over the limit of {KEY_BYTES_MAX} bytes",
                    op.key.len()
                )));
            }
            if op.value.len() > limits.value_bytes_max {
                return Err(Error::invalid(format!(
                    "value of {} bytes is over the limit of {} bytes",
                    op.value.len(),
                    limits.value_bytes_max
                )));
            }
        }
        Ok(())
    }
}

/// One decoded operation: ranges into the encoded batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// What it does.
    pub kind: ValueKind,
    /// The keyspace it is for.
    pub keyspace: KeyspaceId,
    /// Where the key is.
    pub key: Range<usize>,
    /// Where the value is.
    pub value: Range<usize>,
}

impl Op {
    /// Key and value as slices of the batch, without copying.
    pub fn slices(&self, batch: &Bytes) -> (Bytes, Bytes) {
        (batch.slice(self.key.clone()), batch.slice(self.value.clone()))
    }
}

/// Why bytes are not a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// Bytes from the start of the batch.
    pub offset: usize,
    /// What was found.
    pub what: &'static str,
    /// True for an operation that the format has and this build does not.
    pub unsupported: bool,
}

impl DecodeError {
    fn into_invalid(self) -> Error {
        if self.unsupported {
            return Error::Unsupported(self.what.to_owned());
        }
        Error::invalid(format!("not a batch: {} at byte {}", self.what, self.offset))
    }
}

/// Walks the operations of an encoded batch; stops after the first error.
pub fn decode(encoded: &[u8]) -> impl Iterator<Item = Result<Op, DecodeError>> + '_ {
    let mut offset = 0;
    let mut failed = false;
    std::iter::from_fn(move || {
        if failed || offset == encoded.len() {
            return None;
        }
        let op = decode_op(encoded, offset);
        match &op {
            Ok(op) => offset = op.value.end,
            Err(_) => failed = true,
        }
        Some(op)
    })
}

fn decode_op(encoded: &[u8], offset: usize) -> Result<Op, DecodeError> {
    let fail = |what| DecodeError { offset, what, unsupported: false };
    let header: &[u8; OP_HEADER_BYTES] =
        encoded[offset..].first_chunk().ok_or(fail("an operation header is cut short"))?;
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if header[0] == 3 || header[1] == 1 {
        let what = "range deletes and expiry times need a newer version of this program";
        return Err(DecodeError { offset, what, unsupported: true });
    }
    let kind = ValueKind::from_byte(header[0]).ok_or(fail("unknown operation kind"))?;
    if kind == ValueKind::Merge {
        let what = "merge operands need a newer version of this program";
        return Err(DecodeError { offset, what, unsupported: true });
    }
    if header[1..4] != [0; 3] {
        return Err(fail("reserved bytes are not zero"));
    }
    let key_start = offset + OP_HEADER_BYTES;
    let left = encoded.len() - key_start;
    let (key_len, value_len) = (word(8) as usize, word(12) as usize);
    if key_len.checked_add(value_len).is_none_or(|need| need > left) {
        return Err(fail("key or value runs past the end"));
    }
    if kind == ValueKind::Delete && value_len != 0 {
        return Err(fail("a delete carries a value"));
    }
    let value_start = key_start + key_len;
    Ok(Op {
        kind,
        keyspace: KeyspaceId(word(4)),
        key: key_start..value_start,
        value: value_start..value_start + value_len,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let mut batch = WriteBatch::new();
        batch.put(KeyspaceId(1), b"k", b"v").delete(KeyspaceId(2), b"gone");
        let bytes = batch.clone().into_encoded();
        let ops: Vec<Op> = decode(&bytes).map(Result::unwrap).collect();
        assert_eq!(ops.len(), 2);
        assert_eq!(&bytes[ops[0].key.clone()], b"k");
        assert_eq!(&bytes[ops[0].value.clone()], b"v");
        assert_eq!((ops[1].kind, ops[1].keyspace), (ValueKind::Delete, KeyspaceId(2)));
        assert_eq!(WriteBatch::from_encoded(bytes).unwrap().len(), 2);
    }

    #[test]
    fn every_truncation_is_refused() {
        let mut batch = WriteBatch::new();
        batch.put(KeyspaceId(1), b"key", b"value");
        let bytes = batch.into_encoded();
        for cut in 1..bytes.len() {
            assert!(WriteBatch::from_encoded(bytes[..cut].to_vec()).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn reserved_operations_are_unsupported() {
        let mut batch = WriteBatch::new();
        batch.put(KeyspaceId(1), b"a", b"b");
        let mut bytes = batch.into_encoded();
        for kind in [2, 3] {
            bytes[0] = kind;
            assert!(matches!(WriteBatch::from_encoded(bytes.clone()), Err(Error::Unsupported(_))));
        }
        bytes[0] = 0;
        bytes[1] = 1;
        assert!(matches!(WriteBatch::from_encoded(bytes), Err(Error::Unsupported(_))));
    }

    #[test]
    fn limits() {
        let limits = BatchLimits { value_bytes_max: 10, batch_bytes_max: 1 << 20 };
        let mut batch = WriteBatch::new();
        batch.put(KeyspaceId(1), &vec![0; KEY_BYTES_MAX], b"0123456789");
        assert!(batch.check(limits).is_ok());
        batch.put(KeyspaceId(1), b"k", b"0123456789a");
        assert!(batch.check(limits).is_err());
        batch.clear();
        batch.put(KeyspaceId(1), &vec![0; KEY_BYTES_MAX + 1], b"");
        assert!(batch.check(limits).is_err());
    }
}
