//! Atomic batches over the keyspaces of one database.

use std::sync::Arc;

use super::{Engine, Keyspace};
use crate::batch::WriteBatch;
use crate::error::Result;
use crate::key::Expiry;
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

    /// Adds "`key` has `value` until `expires_at`".
    pub fn put_until(
        &mut self,
        keyspace: &Keyspace,
        key: &[u8],
        value: &[u8],
        expires_at: Expiry,
    ) -> &mut Self {
        self.ops.put_until(keyspace.id(), key, value, expires_at);
        self
    }

    /// Adds "the value of `key` is merged with `operand`".
    pub fn merge(&mut self, keyspace: &Keyspace, key: &[u8], operand: &[u8]) -> &mut Self {
        self.ops.merge(keyspace.id(), key, operand);
        self
    }

    /// Adds "no key from `start` on and below `end` has a value".
    pub fn delete_range(&mut self, keyspace: &Keyspace, start: &[u8], end: &[u8]) -> &mut Self {
        self.ops.delete_range(keyspace.id(), start, end);
        self
    }

    /// Adds "no key that starts with `prefix` has a value".
    pub fn delete_prefix(&mut self, keyspace: &Keyspace, prefix: &[u8]) -> &mut Self {
        self.ops.delete_prefix(keyspace.id(), prefix);
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
        self.engine.commit(self.ops, durability, None)
    }
}
