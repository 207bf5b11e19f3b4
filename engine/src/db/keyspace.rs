//! Keyspaces: named sets of keys within a database.

use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use bytes::Bytes;

use super::{Engine, Rows};
use crate::api::ScanRange;
use crate::batch::WriteBatch;
use crate::error::Result;
use crate::key::{KeyspaceId, SequenceNumber};
use crate::keyspace;
use crate::options::Durability;
use crate::read;

/// A keyspace of an open database. Clones are cheap.
#[derive(Clone)]
pub struct Keyspace {
    pub(super) engine: Arc<Engine>,
    pub(super) inner: Arc<keyspace::Keyspace>,
}

impl Keyspace {
    /// Its id.
    pub fn id(&self) -> KeyspaceId {
        self.inner.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Commits "`key` has `value`", as durable as the options say.
    ///
    /// # Errors
    /// As [`super::Batch::commit`].
    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let mut batch = WriteBatch::new();
        batch.put(self.id(), key, value);
        self.engine.commit(batch, self.durability())
    }

    /// Commits "`key` has no value", as durable as the options say.
    ///
    /// # Errors
    /// As [`super::Batch::commit`].
    pub fn delete(&self, key: &[u8]) -> Result<()> {
        let mut batch = WriteBatch::new();
        batch.delete(self.id(), key);
        self.engine.commit(batch, self.durability())
    }

    /// The value of `key`.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.get_at(key, None)
    }

    /// The values of `keys`, in their order, all at one point in time.
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Result<Vec<Option<Bytes>>> {
        self.multi_get_at(keys, None)
    }

    /// The pairs in a range of keys, in order of their keys, as they are now.
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Rows {
        self.rows_at(&range, None)
    }

    /// The pairs whose keys start with `prefix`, in order of their keys, as they
    /// are now.
    pub fn prefix(&self, prefix: &[u8]) -> Rows {
        self.prefix_at(prefix, None)
    }

    fn durability(&self) -> Durability {
        self.engine.parts.core.options.durability
    }

    pub(super) fn get_at(&self, key: &[u8], snapshot: Option<SequenceNumber>) -> Result<Option<Bytes>> {
        let core = &self.engine.parts.core;
        core.check_open()?;
        let view = self.inner.view();
        read::get(&view, key, snapshot.unwrap_or_else(|| core.visible()))
    }

    pub(super) fn multi_get_at<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
        snapshot: Option<SequenceNumber>,
    ) -> Result<Vec<Option<Bytes>>> {
        let core = &self.engine.parts.core;
        core.check_open()?;
        let view = self.inner.view();
        let seq = snapshot.unwrap_or_else(|| core.visible());
        keys.into_iter().map(|key| read::get(&view, key.as_ref(), seq)).collect()
    }

    pub(super) fn rows_at<K: AsRef<[u8]>>(
        &self,
        range: &impl RangeBounds<K>,
        snapshot: Option<SequenceNumber>,
    ) -> Rows {
        let owned = |bound: Bound<&K>| bound.map(|key| key.as_ref().to_vec());
        Rows::new(self.clone(), (owned(range.start_bound()), owned(range.end_bound())), snapshot)
    }

    pub(super) fn prefix_at(&self, prefix: &[u8], snapshot: Option<SequenceNumber>) -> Rows {
        let range = ScanRange::prefix(prefix);
        Rows::new(self.clone(), (range.start, range.end), snapshot)
    }
}

impl From<&Keyspace> for KeyspaceId {
    fn from(keyspace: &Keyspace) -> KeyspaceId {
        keyspace.id()
    }
}

impl std::fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyspace").field("id", &self.id().0).field("name", &self.name()).finish_non_exhaustive()
    }
}
