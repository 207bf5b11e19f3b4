//! Keyspaces: named sets of keys within a database.

use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use bytes::Bytes;

use super::{Engine, Rows};
use crate::api::ScanRange;
use crate::batch::WriteBatch;
use crate::error::Result;
use crate::key::{Expiry, KeyspaceId, SequenceNumber};
use crate::keyspace;
use crate::options::Durability;
use crate::range_delete::end_of_keys;
use crate::read::Search;

/// A keyspace of an open database. Clones are cheap.
#[derive(Clone)]
pub struct Keyspace {
    pub(super) engine: Arc<Engine>,
    pub(crate) inner: Arc<keyspace::Keyspace>,
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
        self.write(|batch, id| batch.put(id, key, value))
    }

    /// Commits "`key` has `value` until `expires_at`", as durable as the options
    /// say.
    ///
    /// # Errors
    /// As [`super::Batch::commit`].
    pub fn put_until(&self, key: &[u8], value: &[u8], expires_at: Expiry) -> Result<()> {
        self.write(|batch, id| batch.put_until(id, key, value, expires_at))
    }

    /// Commits "`key` has no value", as durable as the options say.
    ///
    /// # Errors
    /// As [`super::Batch::commit`].
    pub fn delete(&self, key: &[u8]) -> Result<()> {
        self.write(|batch, id| batch.delete(id, key))
    }

    /// Commits "the value of `key` is merged with `operand`", by the merge
    /// operator that the keyspace was created with, as durable as the options say.
    ///
    /// # Errors
    /// As [`super::Batch::commit`]; `InvalidArgument` where the operator refuses
    /// the operand, or there is none.
    pub fn merge(&self, key: &[u8], operand: &[u8]) -> Result<()> {
        self.write(|batch, id| batch.merge(id, key, operand))
    }

    /// Commits "no key in `range` has a value", as durable as the options say. It
    /// costs as much as one put, however many keys there are.
    ///
    /// # Errors
    /// As [`super::Batch::commit`].
    pub fn delete_range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<()> {
        let after = |key: &K| [key.as_ref(), &[0]].concat();
        let start = match range.start_bound() {
            Bound::Unbounded => Vec::new(),
            Bound::Included(key) => key.as_ref().to_vec(),
            Bound::Excluded(key) => after(key),
        };
        let end = match range.end_bound() {
            Bound::Unbounded => end_of_keys(),
            Bound::Excluded(key) => key.as_ref().to_vec(),
            Bound::Included(key) => after(key),
        };
        self.write(|batch, id| batch.delete_range(id, &start, &end))
    }

    /// Commits "no key that starts with `prefix` has a value", as durable as the
    /// options say.
    ///
    /// # Errors
    /// As [`super::Batch::commit`].
    pub fn delete_prefix(&self, prefix: &[u8]) -> Result<()> {
        self.write(|batch, id| batch.delete_prefix(id, prefix))
    }

    /// Commits "no key has a value", as durable as the options say.
    ///
    /// # Errors
    /// As [`super::Batch::commit`].
    pub fn clear(&self) -> Result<()> {
        self.delete_prefix(b"")
    }

    fn write(&self, build: impl FnOnce(&mut WriteBatch, KeyspaceId) -> &mut WriteBatch) -> Result<()> {
        let mut batch = WriteBatch::new();
        build(&mut batch, self.id());
        self.engine.commit(batch, self.durability(), None)
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
        self.engine.parts.core.check_open()?;
        let view = self.inner.view_to_read()?;
        let moment = self.engine.parts.core.moment(&view, snapshot);
        self.inner.usage.note_gets(1);
        Search::new(key, moment).run(&view, &self.inner.operator)
    }

    pub(super) fn multi_get_at<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
        snapshot: Option<SequenceNumber>,
    ) -> Result<Vec<Option<Bytes>>> {
        self.engine.parts.core.check_open()?;
        let view = self.inner.view_to_read()?;
        let moment = self.engine.parts.core.moment(&view, snapshot);
        let get = |key: K| Search::new(key.as_ref(), moment).run(&view, &self.inner.operator);
        let values: Vec<_> = keys.into_iter().map(get).collect::<Result<_>>()?;
        self.inner.usage.note_gets(values.len() as u64);
        Ok(values)
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
        f.debug_struct("Keyspace")
            .field("id", &self.id().0)
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}
