//! Operations folded until each key has one at most.
//!
//! A commit has one sequence number, and an entry is unique by its keyspace, key
//! and sequence number. So within a commit the last put or delete of a key wins,
//! merges of a key become one (which expires when the first of them would), and a
//! range delete removes the operations that it
//! follows and covers; what it does not follow, it does not hide. A transaction
//! keeps its writes folded, too, to read them.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::batch::{Op, OpKind, WriteBatch};
use crate::error::Result;
use crate::key::{Entry, Expiry, KeyspaceId, SequenceNumber, ValueKind};
use crate::merge_operator::{Operator, refused};
use crate::range_delete::RangeDeletes;

/// What a commit does to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub kind: ValueKind,
    pub expires_at: Expiry,
    pub value: Bytes,
}

/// What a commit does to one keyspace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    entries: BTreeMap<Bytes, Change>,
    /// All at one sequence number.
    pub range_deletes: RangeDeletes,
}

/// Folded operations.
#[derive(Clone, Debug, Default)]
pub(crate) struct Folded {
    seq: SequenceNumber,
    keyspaces: BTreeMap<KeyspaceId, Changes>,
}

impl Folded {
    /// Nothing yet; range tombstones and entries will carry `seq`.
    pub fn new(seq: SequenceNumber) -> Self {
        Folded { seq, keyspaces: BTreeMap::new() }
    }

    /// Folds in an operation of an encoded batch; `expires_at` stands for its own.
    ///
    /// # Errors
    /// `InvalidArgument` where the merge operator refuses; nothing has changed.
    pub fn apply(&mut self, op: &Op, batch: &Bytes, expires_at: Expiry, operator: &Operator) -> Result<()> {
        let (key, value) = op.slices(batch);
        let changes = self.keyspaces.entry(op.keyspace).or_default();
        let OpKind::Entry(kind) = op.kind else {
            changes.delete_range(key, value, self.seq);
            return Ok(());
        };
        let mut change = Change { kind, expires_at, value };
        if kind == ValueKind::Merge
            && let Some(before) = changes.entries.get(&key)
        {
            let operand = &change.value;
            let folded = match (before.kind, operator) {
                (_, None) => Err("the keyspace has no merge operator".to_owned()),
                (ValueKind::Put, Some(operator)) => operator.apply(Some(&before.value), operand),
                (ValueKind::Delete, Some(operator)) => operator.apply(None, operand),
                (ValueKind::Merge, Some(operator)) => operator.combine(&before.value, operand),
            };
            change.value = folded.map_err(|why| refused(&key, &why))?.into();
            if before.kind != ValueKind::Delete {
                // Both cannot be kept; what would go first takes the other along.
                change.expires_at = before.expires_at.earlier(change.expires_at);
            }
            if before.kind != ValueKind::Merge {
                change.kind = ValueKind::Put;
            }
        }
        changes.entries.insert(key, change);
        Ok(())
    }

    /// What is done to a keyspace.
    pub fn keyspace(&self, id: KeyspaceId) -> Option<&Changes> {
        self.keyspaces.get(&id)
    }

    /// The batch that does the same.
    pub fn encode(&self) -> WriteBatch {
        let mut batch = WriteBatch::new();
        for (id, changes) in &self.keyspaces {
            for (start, end, _) in changes.range_deletes.iter() {
                batch.push(OpKind::RangeDelete, *id, Expiry::NEVER, start, end);
            }
            for (key, change) in &changes.entries {
                batch.push(OpKind::Entry(change.kind), *id, change.expires_at, key, &change.value);
            }
        }
        batch
    }
}

impl Changes {
    fn delete_range(&mut self, start: Bytes, end: Bytes, seq: SequenceNumber) {
        if start >= end {
            return;
        }
        let covered: Vec<Bytes> =
            self.entries.range(start.clone()..end.clone()).map(|(key, _)| key.clone()).collect();
        covered.iter().for_each(|key| drop(self.entries.remove(key)));
        self.range_deletes.insert(start, end, seq);
    }

    /// What is done to a key.
    pub fn get(&self, key: &[u8]) -> Option<&Change> {
        self.entries.get::<[u8]>(key)
    }

    /// All entries, at `seq`, in order of their keys.
    pub fn entries(&self, seq: SequenceNumber) -> Vec<Entry> {
        let entry = |(key, change): (&Bytes, &Change)| {
            let Change { kind, expires_at, value } = change.clone();
            Entry { key: key.clone(), seq, kind, expires_at, value }
        };
        self.entries.iter().map(entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::batch;
    use crate::merge_operator::BuiltIn;

    const ID: KeyspaceId = KeyspaceId(1);

    fn fold(build: impl FnOnce(&mut WriteBatch)) -> Folded {
        let mut batch = WriteBatch::new();
        build(&mut batch);
        let encoded = Bytes::from(batch.into_encoded());
        let mut folded = Folded::new(SequenceNumber(1));
        let operator: Operator = Some(Arc::new(BuiltIn::Append));
        for op in batch::decode(&encoded) {
            let op = op.unwrap();
            folded.apply(&op, &encoded, op.expires_at, &operator).unwrap();
        }
        folded
    }

    fn change(folded: &Folded, key: &[u8]) -> Option<(ValueKind, Vec<u8>)> {
        let change = folded.keyspace(ID)?.get(key)?;
        Some((change.kind, change.value.to_vec()))
    }

    #[test]
    fn the_last_operation_wins_and_merges_become_one() {
        let folded = fold(|batch| {
            batch.put(ID, b"a", b"1").delete(ID, b"a").put(ID, b"b", b"1").merge(ID, b"b", b"2");
            batch.merge(ID, b"c", b"1").merge(ID, b"c", b"2").delete(ID, b"d").merge(ID, b"d", b"1");
        });
        assert_eq!(change(&folded, b"a"), Some((ValueKind::Delete, vec![])));
        assert_eq!(change(&folded, b"b"), Some((ValueKind::Put, b"12".to_vec())));
        assert_eq!(change(&folded, b"c"), Some((ValueKind::Merge, b"12".to_vec())));
        assert_eq!(change(&folded, b"d"), Some((ValueKind::Put, b"1".to_vec())));
    }

    #[test]
    fn a_merge_does_not_make_a_value_live_longer() {
        let folded = fold(|batch| {
            batch.put_until(ID, b"a", b"1", Expiry(9)).merge(ID, b"a", b"2");
            batch.put(ID, b"b", b"1").merge(ID, b"b", b"2");
        });
        let expiry = |key: &[u8]| folded.keyspace(ID).unwrap().get(key).unwrap().expires_at;
        assert_eq!((expiry(b"a"), expiry(b"b")), (Expiry(9), Expiry::NEVER));
    }

    #[test]
    fn a_range_delete_removes_what_it_follows() {
        let folded = fold(|batch| {
            batch.put(ID, b"a", b"1").put(ID, b"b", b"1").put(ID, b"c", b"1");
            batch.delete_range(ID, b"b", b"c").delete_range(ID, b"z", b"z").put(ID, b"bb", b"2");
        });
        assert_eq!(change(&folded, b"b"), None);
        let entries = folded.keyspace(ID).unwrap().entries(SequenceNumber(1));
        assert_eq!(entries.iter().map(|entry| &entry.key[..]).collect::<Vec<_>>(), [&b"a"[..], b"bb", b"c"]);
        assert_eq!(folded.keyspace(ID).unwrap().range_deletes.len(), 1);
        let again = folded.encode();
        assert_eq!(again.len(), 4);
    }
}
