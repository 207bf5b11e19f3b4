//! The one way to walk sorted entries: memtables, SSTables and merges of them
//! all offer this [`Cursor`].

use bytes::Bytes;

use crate::error::Result;
use crate::key::{EntryRef, SequenceNumber};

/// A position among entries in internal-key order (key ascending, sequence
/// number descending). Fresh cursors stand nowhere; moving past either end
/// makes the cursor stand nowhere again. After an error the cursor stands
/// nowhere until the next seek.
pub trait Cursor {
    /// Moves to the first entry.
    fn seek_first(&mut self) -> Result<()>;
    /// Moves to the last entry.
    fn seek_last(&mut self) -> Result<()>;
    /// Moves to the first entry at or after the internal key `(key, seq)`.
    fn seek(&mut self, key: &[u8], seq: SequenceNumber) -> Result<()>;
    /// Moves to the last entry before the internal key `(key, seq)`.
    fn seek_before(&mut self, key: &[u8], seq: SequenceNumber) -> Result<()>;
    /// Moves forward; the cursor must stand on an entry.
    fn next(&mut self) -> Result<()>;
    /// Moves backward; the cursor must stand on an entry.
    fn prev(&mut self) -> Result<()>;
    /// The entry under the cursor, or `None` where it stands nowhere.
    ///
    /// `value` may be left empty by a cursor made for keys only.
    fn entry(&self) -> Option<EntryRef<'_>>;
    /// The key of the entry under the cursor.
    fn key(&self) -> Option<&[u8]> {
        self.entry().map(|entry| entry.key)
    }
    /// The value under the cursor without copying; the cursor must stand on an
    /// entry.
    fn value(&self) -> Bytes;
}

/// When a read takes place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// Later commits are not seen.
    pub seq: SequenceNumber,
    /// What has expired by then is not seen, in Unix milliseconds.
    pub now_ms: u64,
}

/// A point read on its way from the newest layer to the oldest.
#[derive(Clone, Copy, Debug)]
pub struct Lookup<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Newer versions are not looked at.
    pub seq: SequenceNumber,
    /// Versions below are hidden by a range tombstone; 0 without one.
    pub hidden_below: SequenceNumber,
    /// The time, in Unix milliseconds.
    pub now_ms: u64,
}

/// What a point read found in a layer: the newest version that it may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The key has this value.
    Value(Bytes),
    /// It has none: a tombstone, an expired entry, or a range tombstone.
    Gone,
    /// An operand for what is found below this sequence number.
    Operand(SequenceNumber, Bytes),
}
