//! Snapshots that release themselves.

use std::ops::RangeBounds;
use std::sync::Arc;

use bytes::Bytes;

use super::{Engine, Keyspace, Rows};
use crate::error::Result;
use crate::key::SequenceNumber;

/// A frozen view of the whole database: what was visible when it was taken.
/// Compactions keep what it needs until it is dropped.
pub struct Snapshot {
    engine: Arc<Engine>,
    seq: SequenceNumber,
}

impl Snapshot {
    pub(super) fn new(engine: Arc<Engine>) -> Snapshot {
        let core = &engine.parts.core;
        let seq = core.snapshots.acquire(&core.visible);
        Snapshot { engine, seq }
    }

    /// The last commit that it shows.
    pub fn sequence(&self) -> SequenceNumber {
        self.seq
    }

    /// The value that `key` had.
    pub fn get(&self, keyspace: &Keyspace, key: &[u8]) -> Result<Option<Bytes>> {
        keyspace.get_at(key, Some(self.seq))
    }

    /// The pairs that a range of keys had, in order of their keys.
    pub fn range<K: AsRef<[u8]>>(&self, keyspace: &Keyspace, range: impl RangeBounds<K>) -> Rows {
        keyspace.rows_at(&range, Some(self.seq))
    }

    /// The pairs whose keys start with `prefix`, in order of their keys.
    pub fn prefix(&self, keyspace: &Keyspace, prefix: &[u8]) -> Rows {
        keyspace.prefix_at(prefix, Some(self.seq))
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.engine.parts.core.snapshots.release(self.seq);
    }
}
