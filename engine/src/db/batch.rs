//! Atomic batches over the keyspaces of one database.

use std::sync::Arc;

use super::{Engine, Keyspace};
use crate::batch::WriteBatch;
use crate::error::Result;
use crate::options::Durability;

/// Operations that are committed together or not at all; the last one on a key
/// wins. Nothing happens before [`Batch::commit`].
pub struct Batch {
    engine: Arc<Engine>,
    ops: WriteBatch,
}

impl Batch {
    pub(super) fn new(engine: Arc<Engine>) -> Batch {
        Batch { engine, ops: WriteBatch::new() }
    }

    /// Adds "`key` has `value`".
    pub fn put(&mut self, keyspace: &Keyspace, key: &[u8], value: &[u8]) -> &mut Self {
        self.ops.put(keyspace.id(), key, value);
        self
    }

    /// Adds "`key` has no value".
    pub fn delete(&mut self, keyspace: &Keyspace, key: &[u8]) -> &mut Self {
        self.ops.delete(keyspace.id(), key);
        self
    }

    /// Number of operations.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// True without operations.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Commits the batch: visible, and as durable as asked, on return.
    ///
    /// # Errors
    /// `InvalidArgument` for keys, values or a batch over the limits; nothing
    /// was written. `Io`: not committed. `Poisoned`: unknown until reopened.
    pub fn commit(self, durability: Durability) -> Result<()> {
        self.engine.commit(self.ops, durability)
    }
}
