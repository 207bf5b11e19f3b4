//! What a transaction has read, and whether it would read the same now.
//!
//! Reads of a transaction see its snapshot. At its commit, with no other commit
//! going on, every key and range it read is looked at again: any version or range
//! tombstone above the snapshot is a conflict, whatever it says. So a commit that
//! succeeds might as well have read everything at that very moment, and
//! transactions are serializable in the order of their commits; a read that found
//! nothing counts like any other. Files and memtables whose highest sequence
//! number is not above the snapshot are skipped; no log of commits is kept.
//!
//! Source: "Serializable Isolation for Snapshot Databases" (Cahill et al., 2008)
//! names the problem; validation by reading again is Kung and Robinson's (1981).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::core::Core;
use crate::cursor::Cursor;
use crate::error::{Error, Result};
use crate::key::{KeyspaceId, SequenceNumber};
use crate::keyspace::View;
use crate::read::Bounds;
use crate::sstable::{Purpose, hash_key};

/// Bytes of keys that are remembered one by one; beyond that, a range stands for
/// all keys of a keyspace that were read.
const POINT_BYTES_MAX: usize = 16 << 20;

/// Bytes of a remembered key beside the key.
const POINT_OVERHEAD_BYTES: usize = 64;

/// Keys and ranges of keys that were read at a snapshot.
#[derive(Clone, Debug)]
pub(crate) struct ReadSet {
    snapshot: SequenceNumber,
    keyspaces: BTreeMap<KeyspaceId, Reads>,
    bytes: usize,
}

#[derive(Clone, Debug, Default)]
struct Reads {
    points: BTreeSet<Bytes>,
    ranges: Vec<Bounds>,
}

impl ReadSet {
    pub fn new(snapshot: SequenceNumber) -> Self {
        ReadSet { snapshot, keyspaces: BTreeMap::new(), bytes: 0 }
    }

    /// Remembers that a key was read, whether it was there or not.
    pub fn add_point(&mut self, keyspace: KeyspaceId, key: &[u8]) {
        let reads = self.keyspaces.entry(keyspace).or_default();
        if reads.points.insert(Bytes::copy_from_slice(key)) {
            self.bytes += key.len() + POINT_OVERHEAD_BYTES;
        }
        if self.bytes > POINT_BYTES_MAX {
            self.bytes = 0;
            self.keyspaces.values_mut().for_each(Reads::coalesce);
        }
    }

    /// Remembers that a range was read.
    pub fn add_range(&mut self, keyspace: KeyspaceId, bounds: &Bounds) {
        let ranges = &mut self.keyspaces.entry(keyspace).or_default().ranges;
        if ranges.last() != Some(bounds) {
            ranges.push(bounds.clone());
        }
    }

    /// Looks at everything again. Only with the write path held still.
    ///
    /// # Errors
    /// `Conflict` with a key that was read and has changed since;
    /// `InvalidArgument` if a keyspace is gone; those of reads.
    pub fn validate(&self, core: &Core) -> Result<()> {
        for (id, reads) in &self.keyspaces {
            let view = core.keyspace(*id)?.view();
            for key in &reads.points {
                if newest(&view, key, self.snapshot)? > self.snapshot {
                    return Err(Error::Conflict { key: key.to_vec() });
                }
            }
            for bounds in &reads.ranges {
                if let Some(key) = first_newer(&view, bounds, self.snapshot)? {
                    return Err(Error::Conflict { key });
                }
            }
        }
        Ok(())
    }
}

impl Reads {
    fn coalesce(&mut self) {
        let points = std::mem::take(&mut self.points);
        let (Some(first), Some(last)) = (points.first(), points.last()) else { return };
        self.ranges.push((Bound::Included(first.to_vec()), Bound::Included(last.to_vec())));
    }
}

/// The highest sequence number of anything that was done to `key`, as far as it
/// is above `above`; otherwise anything not above it.
fn newest(view: &View, key: &[u8], above: SequenceNumber) -> Result<SequenceNumber> {
    let mut newest = SequenceNumber(0);
    for memory in view.memtables().filter(|memory| memory.last_seq() > above) {
        let found = memory.table.get(key, SequenceNumber::MAX);
        newest = newest.max(found.map_or(SequenceNumber(0), |found| found.seq));
        if let Some(range_deletes) = memory.range_deletes() {
            newest = newest.max(range_deletes.newest_over(key, SequenceNumber::MAX));
        }
    }
    for run in &view.version.runs {
        let Some(handle) = run.table_for(key).filter(|handle| handle.meta().seq_max > above) else {
            continue;
        };
        let table = handle.table()?;
        newest = newest.max(table.newest(key, hash_key(key))?.unwrap_or_default());
        newest = newest.max(table.range_deletes().newest_over(key, SequenceNumber::MAX));
    }
    Ok(newest)
}

/// The first key found within `bounds` that was written or deleted after `above`.
fn first_newer(view: &View, bounds: &Bounds, above: SequenceNumber) -> Result<Option<Vec<u8>>> {
    let (start, end) = (slice(&bounds.0), slice(&bounds.1));
    for memory in view.memtables().filter(|memory| memory.last_seq() > above) {
        let range_deletes = memory.range_deletes();
        let deleted = range_deletes.as_deref().and_then(|set| set.first_within(start, end, above));
        if let Some(key) = deleted {
            return Ok(Some(key.to_vec()));
        }
        let found = first_entry(&mut *Arc::clone(&memory.table).cursor(None), start, end, above)?;
        if found.is_some() {
            return Ok(found);
        }
    }
    for run in &view.version.runs {
        let tables = &run.tables[run.within(&bounds.0, &bounds.1)];
        for handle in tables.iter().filter(|handle| handle.meta().seq_max > above) {
            let table = handle.table()?;
            if let Some(key) = table.range_deletes().first_within(start, end, above) {
                return Ok(Some(key.to_vec()));
            }
            let found = first_entry(&mut Arc::clone(table).cursor(Purpose::Reading), start, end, above)?;
            if found.is_some() {
                return Ok(found);
            }
        }
    }
    Ok(None)
}

fn first_entry(
    cursor: &mut dyn Cursor,
    start: Bound<&[u8]>,
    end: Bound<&[u8]>,
    above: SequenceNumber,
) -> Result<Option<Vec<u8>>> {
    match start {
        Bound::Unbounded => cursor.seek_first()?,
        Bound::Included(key) => cursor.seek(key, SequenceNumber::MAX)?,
        // After every version of the key, as no sequence number is 0.
        Bound::Excluded(key) => cursor.seek(key, SequenceNumber(0))?,
    }
    while let Some(entry) = cursor.entry() {
        let inside = match end {
            Bound::Unbounded => true,
            Bound::Included(end) => entry.key <= end,
            Bound::Excluded(end) => entry.key < end,
        };
        if !inside {
            break;
        }
        if entry.seq > above {
            return Ok(Some(entry.key.to_vec()));
        }
        cursor.next()?;
    }
    Ok(None)
}

fn slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    match bound {
        Bound::Unbounded => Bound::Unbounded,
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
    }
}
