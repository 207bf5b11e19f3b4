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
//! flags := bit 0: expires_at is present, Unix milliseconds; not with deletes
//! ```

use std::ops::Range;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::key::{Expiry, KEY_BYTES_MAX, KeyspaceId, ValueKind, prefix_end};
use crate::range_delete::end_of_keys;

/// Bytes of an operation beside its key, its value and its time of expiry.
const OP_HEADER_BYTES: usize = 16;

/// Flag of an operation with a time of expiry.
const EXPIRES: u8 = 1;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpKind {
    /// To one key.
    Entry(ValueKind),
    /// To every key from one to another: a range delete.
    RangeDelete,
}

impl OpKind {
    fn byte(self) -> u8 {
        match self {
            OpKind::Entry(kind) => kind as u8,
            OpKind::RangeDelete => 3,
        }
    }

    fn from_byte(byte: u8) -> Option<OpKind> {
        match byte {
            3 => Some(OpKind::RangeDelete),
            byte => ValueKind::from_byte(byte).map(OpKind::Entry),
        }
    }
}

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
    /// `InvalidArgument` where the bytes are not a batch.
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
        self.put_until(keyspace, key, value, Expiry::NEVER)
    }

    /// Adds "`key` has `value` until `expires_at`". With [`Expiry::NEVER`] the
    /// keyspace's own time to live applies, if it has one.
    pub fn put_until(
        &mut self,
        keyspace: impl Into<KeyspaceId>,
        key: &[u8],
        value: &[u8],
        expires_at: Expiry,
    ) -> &mut Self {
        self.push(OpKind::Entry(ValueKind::Put), keyspace.into(), expires_at, key, value)
    }

    /// Adds "`key` has no value".
    pub fn delete(&mut self, keyspace: impl Into<KeyspaceId>, key: &[u8]) -> &mut Self {
        self.push(OpKind::Entry(ValueKind::Delete), keyspace.into(), Expiry::NEVER, key, &[])
    }

    /// Adds "the value of `key` is merged with `operand`", by the keyspace's
    /// merge operator.
    pub fn merge(&mut self, keyspace: impl Into<KeyspaceId>, key: &[u8], operand: &[u8]) -> &mut Self {
        self.push(OpKind::Entry(ValueKind::Merge), keyspace.into(), Expiry::NEVER, key, operand)
    }

    /// Adds "no key from `start` on and below `end` has a value", what this
    /// batch has done to them before included. Nothing if `end` is not above
    /// `start`.
    pub fn delete_range(&mut self, keyspace: impl Into<KeyspaceId>, start: &[u8], end: &[u8]) -> &mut Self {
        self.push(OpKind::RangeDelete, keyspace.into(), Expiry::NEVER, start, end)
    }

    /// Adds "no key that starts with `prefix` has a value"; with an empty
    /// prefix, no key at all.
    pub fn delete_prefix(&mut self, keyspace: impl Into<KeyspaceId>, prefix: &[u8]) -> &mut Self {
        let end = prefix_end(prefix).unwrap_or_else(end_of_keys);
        self.delete_range(keyspace, prefix, &end)
    }

    /// Adds any operation.
    pub(crate) fn push(
        &mut self,
        kind: OpKind,
        keyspace: KeyspaceId,
        expires_at: Expiry,
        key: &[u8],
        value: &[u8],
    ) -> &mut Self {
        let mut header = [0; OP_HEADER_BYTES];
        header[0] = kind.byte();
        header[1] = if expires_at == Expiry::NEVER { 0 } else { EXPIRES };
        header[4..8].copy_from_slice(&keyspace.0.to_le_bytes());
        // Lengths past u32 cannot be encoded; saturating makes them fail the
        // limit check at commit, which is where all limits are checked.
        header[8..12].copy_from_slice(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_le_bytes());
        header[12..16].copy_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
        let expiry = expires_at.0.to_le_bytes();
        let expiry = if expires_at == Expiry::NEVER { &[][..] } else { &expiry };
        self.encoded.reserve(OP_HEADER_BYTES + expiry.len() + key.len() + value.len());
        self.encoded.extend_from_slice(&header);
        self.encoded.extend_from_slice(expiry);
        self.encoded.extend_from_slice(key);
        self.encoded.extend_from_slice(value);
        self.count += 1;
        self
    }

    /// Adds an operation of an encoded batch.
    pub(crate) fn push_op(&mut self, encoded: &[u8], op: &Op) {
        self.encoded.extend_from_slice(&encoded[op.start..op.value.end]);
        self.count += 1;
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

    /// Adds the operations of another batch.
    pub fn extend(&mut self, other: &WriteBatch) -> &mut Self {
        self.encoded.extend_from_slice(&other.encoded);
        self.count += other.count;
        self
    }

    /// Goes back to what it was with so many operations and bytes.
    pub(crate) fn truncate(&mut self, count: usize, encoded_bytes: usize) {
        self.encoded.truncate(encoded_bytes);
        self.count = count;
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
            if op.kind == OpKind::RangeDelete {
                // The end of all keys is one byte longer than the longest key.
                if op.value.len() > KEY_BYTES_MAX + 1 {
                    return Err(Error::invalid(format!(
                        "end of a range of {} bytes is over the limit of {KEY_BYTES_MAX} bytes",
                        op.value.len()
                    )));
                }
            } else if op.value.len() > limits.value_bytes_max {
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
    pub kind: OpKind,
    /// The keyspace it is for.
    pub keyspace: KeyspaceId,
    /// When what it writes expires.
    pub expires_at: Expiry,
    /// Where the operation begins.
    pub start: usize,
    /// Where the key is, or the start of a range.
    pub key: Range<usize>,
    /// Where the value is, or the end of a range. The operation ends with it.
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
}

impl DecodeError {
    fn into_invalid(self) -> Error {
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
    let fail = |what| DecodeError { offset, what };
    let header: &[u8; OP_HEADER_BYTES] =
        encoded[offset..].first_chunk().ok_or(fail("an operation header is cut short"))?;
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let kind = OpKind::from_byte(header[0]).ok_or(fail("unknown operation kind"))?;
    if header[2..4] != [0; 2] {
        return Err(fail("reserved bytes are not zero"));
    }
    let mut key_start = offset + OP_HEADER_BYTES;
    let expires_at = match header[1] {
        0 => Expiry::NEVER,
        EXPIRES => {
            let bytes = encoded[key_start..].first_chunk().ok_or(fail("a time of expiry is cut short"))?;
            key_start += bytes.len();
            Expiry(u64::from_le_bytes(*bytes))
        }
        _ => return Err(fail("unknown flags of an operation")),
    };
    if expires_at > Expiry::MAX || (header[1] == EXPIRES && expires_at == Expiry::NEVER) {
        return Err(fail("an impossible time of expiry"));
    }
    let left = encoded.len() - key_start;
    let (key_len, value_len) = (word(8) as usize, word(12) as usize);
    if key_len.checked_add(value_len).is_none_or(|need| need > left) {
        return Err(fail("key or value runs past the end"));
    }
    let deletes = matches!(kind, OpKind::Entry(ValueKind::Delete) | OpKind::RangeDelete);
    if kind == OpKind::Entry(ValueKind::Delete) && value_len != 0 {
        return Err(fail("a delete carries a value"));
    }
    if deletes && expires_at != Expiry::NEVER {
        return Err(fail("a delete that expires"));
    }
    let value_start = key_start + key_len;
    let (key, value) = (key_start..value_start, value_start..value_start + value_len);
    Ok(Op { kind, keyspace: KeyspaceId(word(4)), expires_at, start: offset, key, value })
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
        assert_eq!((ops[1].kind, ops[1].keyspace), (OpKind::Entry(ValueKind::Delete), KeyspaceId(2)));
        assert_eq!(WriteBatch::from_encoded(bytes).unwrap().len(), 2);
    }

    #[test]
    fn every_operation_round_trips_and_every_truncation_is_refused() {
        let id = KeyspaceId(1);
        let mut batch = WriteBatch::new();
        batch.put_until(id, b"key", b"value", Expiry(7)).merge(id, b"k", b"1").delete_range(id, b"a", b"b");
        let bytes = batch.into_encoded();
        let ops: Vec<Op> = decode(&bytes).map(Result::unwrap).collect();
        assert_eq!(ops.iter().map(|op| op.kind.byte()).collect::<Vec<_>>(), [0, 2, 3]);
        assert_eq!(ops.iter().map(|op| op.expires_at.0).collect::<Vec<_>>(), [7, 0, 0]);
        assert_eq!((&bytes[ops[2].key.clone()], &bytes[ops[2].value.clone()]), (&b"a"[..], &b"b"[..]));
        let ends: Vec<usize> = ops.iter().map(|op| op.value.end).collect();
        for cut in 1..bytes.len() {
            let whole = WriteBatch::from_encoded(bytes[..cut].to_vec()).is_ok();
            assert_eq!(whole, ends.contains(&cut), "cut at {cut}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let mut put = WriteBatch::new();
        put.put(KeyspaceId(1), b"a", b"b");
        let mut until = WriteBatch::new();
        until.put_until(KeyspaceId(1), b"a", b"b", Expiry(1));
        for (batch, at, byte) in [
            (&put, 0, 1),      // A delete with a value.
            (&put, 0, 4),      // Unknown kind.
            (&put, 1, 2),      // Unknown flag.
            (&put, 2, 1),      // Reserved.
            (&until, 0, 3),    // A range delete that expires.
            (&until, 16, 0),   // Expires at the time that means never.
            (&until, 23, 128), // Past the largest time.
        ] {
            let mut bytes = batch.clone().into_encoded();
            bytes[at] = byte;
            let refused = WriteBatch::from_encoded(bytes);
            assert!(matches!(refused, Err(Error::InvalidArgument(_))), "byte {at} = {byte}");
        }
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
