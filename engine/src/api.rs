//! The face that a native database and one inside a sandbox share.
//!
//! [`Database`] is object-safe and speaks in ids, bytes and pages, so that it
//! crosses a component boundary as it is; [`crate::Db`] adds handles, iterators
//! and snapshots that release themselves. Commands and behaviour tests are
//! written against this trait and therefore run on both.

use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use crate::batch::WriteBatch;
use crate::error::{Error, Result};
use crate::key::{KeyspaceId, prefix_end};
use crate::options::{Budget, Durability, KeyspaceOptions};
use crate::stats::{Stats, VerifyReport};

/// A live snapshot of a [`Database`]; released by [`Database::release`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SnapshotId(pub u64);

/// Whether background work remains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing to do until more is written.
    Done,
    /// Call again.
    More,
}

/// How far a compaction that was asked for is, in entries; nothing of nothing until it
/// is its turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionProgress {
    /// Merged so far.
    pub done: u64,
    /// In all.
    pub total: u64,
}

/// Work of [`Database::compact_range`] between two looks at its progress.
const COMPACTION_SLICE: Budget = Budget { bytes: 4 << 20 };

/// Keys from `start` to `end`, and the direction to walk them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanRange {
    /// Lower bound.
    pub start: Bound<Vec<u8>>,
    /// Upper bound.
    pub end: Bound<Vec<u8>>,
    /// Walk from the upper bound down.
    pub reverse: bool,
}

impl ScanRange {
    /// Every key, ascending.
    pub fn all() -> Self {
        ScanRange { start: Bound::Unbounded, end: Bound::Unbounded, reverse: false }
    }

    /// Every key that starts with `prefix`, ascending.
    pub fn prefix(prefix: &[u8]) -> Self {
        ScanRange {
            start: Bound::Included(prefix.to_vec()),
            end: prefix_end(prefix).map_or(Bound::Unbounded, Bound::Excluded),
            reverse: false,
        }
    }

    /// The same keys, descending.
    pub fn reversed(mut self) -> Self {
        self.reverse = true;
        self
    }
}

/// Key-value pairs packed one after another, little-endian:
/// `(key_len u32 | value_len u32 | key | value)*`. An empty page ends a scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page(pub Bytes);

impl Page {
    /// True if the scan is over.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The pairs, sharing the page's memory.
    ///
    /// # Errors
    /// `InvalidArgument` where the bytes are not a page.
    pub fn pairs(&self) -> impl Iterator<Item = Result<(Bytes, Bytes)>> + use<> {
        let mut rest = self.0.clone();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let pair = split_pair(&mut rest);
            if pair.is_none() {
                rest.clear();
            }
            Some(pair.ok_or_else(cut_short))
        })
    }

    /// The pairs, lent by the page: faster than [`Page::pairs`] where each is looked at
    /// and let go.
    ///
    /// # Errors
    /// As [`Page::pairs`].
    pub fn pairs_borrowed(&self) -> impl Iterator<Item = Result<(&[u8], &[u8])>> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let (key_len, value_len) = match pair_lengths(rest) {
                _ if rest.is_empty() => return None,
                Some(lengths) => lengths,
                None => {
                    rest = &[];
                    return Some(Err(cut_short()));
                }
            };
            let (key, after) = rest[PAIR_HEADER_BYTES..].split_at(key_len);
            let (value, after) = after.split_at(value_len);
            rest = after;
            Some(Ok((key, value)))
        })
    }
}

/// Bytes of the lengths before a pair.
const PAIR_HEADER_BYTES: usize = 8;

fn cut_short() -> Error {
    Error::invalid("not a page: a pair is cut short")
}

/// Lengths of the key and the value of the first pair, if all of it is there.
fn pair_lengths(rest: &[u8]) -> Option<(usize, usize)> {
    let [k0, k1, k2, k3, v0, v1, v2, v3] = *rest.first_chunk::<PAIR_HEADER_BYTES>()?;
    let key_len = u32::from_le_bytes([k0, k1, k2, k3]) as usize;
    let value_len = u32::from_le_bytes([v0, v1, v2, v3]) as usize;
    (key_len.checked_add(value_len)? <= rest.len() - PAIR_HEADER_BYTES).then_some((key_len, value_len))
}

fn split_pair(rest: &mut Bytes) -> Option<(Bytes, Bytes)> {
    let (key_len, value_len) = pair_lengths(rest)?;
    let _ = rest.split_to(PAIR_HEADER_BYTES);
    Some((rest.split_to(key_len), rest.split_to(value_len)))
}

/// The keys of a packed request, `(key_len u32 | key)*`, as slices of it.
///
/// # Errors
/// `InvalidArgument` where the bytes are no keys.
pub fn split_keys(mut packed: &[u8]) -> Result<Vec<&[u8]>> {
    let mut keys = Vec::new();
    while !packed.is_empty() {
        let split = packed
            .split_first_chunk()
            .and_then(|(len, rest)| rest.split_at_checked(u32::from_le_bytes(*len) as usize));
        let (key, rest) = split.ok_or_else(|| Error::invalid("not packed keys: a key is cut short"))?;
        keys.push(key);
        packed = rest;
    }
    Ok(keys)
}

/// Builds a [`Page`].
#[derive(Debug, Default)]
pub struct PageBuilder(Vec<u8>);

impl PageBuilder {
    /// A page of about so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        PageBuilder(Vec::with_capacity(bytes))
    }

    /// Adds a pair.
    pub fn push(&mut self, key: &[u8], value: &[u8]) {
        self.0.reserve(PAIR_HEADER_BYTES + key.len() + value.len());
        let lengths = key.len() as u64 | (value.len() as u64) << 32;
        self.0.extend_from_slice(&lengths.to_le_bytes());
        self.0.extend_from_slice(key);
        self.0.extend_from_slice(value);
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True without pairs.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The page.
    pub fn finish(self) -> Page {
        Page(self.0.into())
    }
}

/// A scan in progress; it sees the database as it was when it began.
pub trait Scan: Send {
    /// The next pairs: at least one where any is left, at most about
    /// `bytes_max` bytes beyond the first, and no more than `pairs_max` of them (but for
    /// 0, which asks for one). Whoever knows how many it wants has no more made than that.
    fn next_page(&mut self, bytes_max: usize, pairs_max: usize) -> Result<Page>;
}

/// Bytes of the first page of a scan where the caller has no reason to choose: most scans
/// end soon.
pub const FIRST_PAGE_BYTES: usize = 4 * 1024;

/// Bytes of a page of a scan that has gone on for long: large enough that the call
/// disappears, small enough to stay in a processor's cache.
pub const PAGE_BYTES_MAX: usize = 64 * 1024;

/// Bytes of the next page of a scan whose pages so far had `read` bytes: half as many, so
/// that a caller who stops has had little made that nobody looks at.
pub fn next_page_bytes(read: usize) -> usize {
    (read / 2).clamp(FIRST_PAGE_BYTES, PAGE_BYTES_MAX)
}

/// Pairs one by one; after an error there are no more.
pub type Pairs = Box<dyn Iterator<Item = Result<(Bytes, Bytes)>> + Send>;

/// Walks a scan pair by pair.
pub fn pairs(mut scan: Box<dyn Scan>) -> impl Iterator<Item = Result<(Bytes, Bytes)>> + Send {
    let mut page = Page::default().pairs();
    let (mut over, mut read) = (false, 0_usize);
    std::iter::from_fn(move || {
        loop {
            if let Some(pair) = page.next() {
                return Some(pair);
            }
            if over {
                return None;
            }
            match scan.next_page(next_page_bytes(read), usize::MAX) {
                Ok(next) if next.is_empty() => over = true,
                Ok(next) => {
                    page = next.pairs();
                    read = read.saturating_add(next.0.len());
                }
                Err(error) => {
                    over = true;
                    return Some(Err(error));
                }
            }
        }
    })
}

/// A transaction on a [`Database`]; dropping it gives it up. It reads at a
/// snapshot, its own writes included.
pub trait DatabaseTransaction: Send {
    /// The value of `key`, if it has one.
    fn get(&mut self, keyspace: KeyspaceId, key: &[u8]) -> Result<Option<Bytes>>;

    /// Starts a scan, of what was visible when the transaction began and of what
    /// it has written so far.
    fn scan(&mut self, keyspace: KeyspaceId, range: &ScanRange) -> Result<Box<dyn Scan>>;

    /// Adds operations; nobody else sees them before the commit.
    ///
    /// # Errors
    /// `InvalidArgument` as for a commit; none of them has been added.
    fn write(&mut self, batch: WriteBatch) -> Result<()>;

    /// A point to come back to.
    fn savepoint(&mut self) -> Result<Savepoint>;

    /// Takes back what was written since a savepoint. What was read since then
    /// is still validated.
    ///
    /// # Errors
    /// `InvalidArgument` if an earlier savepoint has been gone back to.
    fn rollback_to(&mut self, savepoint: Savepoint) -> Result<()>;

    /// Commits: what was written is visible, and as durable as asked, on return.
    /// A transaction that wrote nothing needs no commit and never conflicts.
    ///
    /// # Errors
    /// `Conflict` with a key that it read and that has changed since: begin
    /// again. Nothing was written. Otherwise as [`Database::write`].
    fn commit(self: Box<Self>, durability: Durability) -> Result<()>;
}

/// A point in a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Savepoint(pub u32);

/// An open database: native, or inside a sandbox.
///
/// All methods may be called from many threads. Reads without a snapshot see
/// the newest visible commit.
pub trait Database: Send + Sync {
    /// The keyspace of this name, created durably if absent. Names are 1 to 255
    /// bytes of UTF-8 without control characters.
    fn create_keyspace(&self, name: &str) -> Result<KeyspaceId> {
        self.create_keyspace_with(name, &KeyspaceOptions::default())
    }

    /// The same with a merge operator or a time to live. A keyspace that exists
    /// takes on another time to live, and refuses another merge operator.
    fn create_keyspace_with(&self, name: &str, options: &KeyspaceOptions) -> Result<KeyspaceId>;

    /// Drops a keyspace and everything in it, durably; false if there is none.
    /// Its name may be given to another one, its id is not. Scans of it that have
    /// begun go on; snapshots do not keep it.
    fn drop_keyspace(&self, name: &str) -> Result<bool>;

    /// The keyspace of this name, if there is one.
    fn find_keyspace(&self, name: &str) -> Result<Option<KeyspaceId>>;

    /// Names and ids of all keyspaces, in order of their ids.
    fn keyspaces(&self) -> Result<Vec<(String, KeyspaceId)>>;

    /// The value of `key`, if it has one.
    fn get(&self, keyspace: KeyspaceId, key: &[u8], snapshot: Option<SnapshotId>) -> Result<Option<Bytes>>;

    /// The values of `keys`, in their order, all at one point in time.
    fn multi_get(
        &self,
        keyspace: KeyspaceId,
        keys: &[&[u8]],
        snapshot: Option<SnapshotId>,
    ) -> Result<Vec<Option<Bytes>>>;

    /// Commits a batch; it is visible, and durable as asked, on return.
    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<()>;

    /// Begins a transaction at what is visible now.
    fn transaction(&self) -> Result<Box<dyn DatabaseTransaction>>;

    /// Freezes what is visible now, until [`Database::release`].
    fn snapshot(&self) -> Result<SnapshotId>;

    /// Lets a snapshot go. Releasing twice is an `InvalidArgument`.
    fn release(&self, snapshot: SnapshotId) -> Result<()>;

    /// Starts a scan.
    fn scan(
        &self,
        keyspace: KeyspaceId,
        range: &ScanRange,
        snapshot: Option<SnapshotId>,
    ) -> Result<Box<dyn Scan>>;

    /// Writes every memtable to SSTables and waits for it.
    fn flush(&self) -> Result<()>;

    /// Flushes, then merges each keyspace into one sorted run and waits for it.
    fn compact(&self) -> Result<()>;

    /// Works for about `budget` on merging whatever may hold a key in `range` into one
    /// sorted run, and tells how far that is; `None` once it is done. Call it until
    /// then, or [`Database::cancel_compactions`]. What is in memory stays there: flush
    /// it first.
    fn compact_slice(
        &self,
        keyspace: KeyspaceId,
        range: &ScanRange,
        budget: Budget,
    ) -> Result<Option<CompactionProgress>>;

    /// Gives up whatever compactions were asked for. Nothing is lost but their work.
    fn cancel_compactions(&self) -> Result<()>;

    /// Flushes, then merges whatever may hold a key in `range` into one sorted run.
    /// `progress` is told how far that is, and may break it off; false if it did.
    fn compact_range(
        &self,
        keyspace: KeyspaceId,
        range: &ScanRange,
        progress: &mut dyn FnMut(CompactionProgress) -> ControlFlow<()>,
    ) -> Result<bool> {
        self.flush()?;
        while let Some(made) = self.compact_slice(keyspace, range, COMPACTION_SLICE)? {
            if progress(made).is_break() {
                self.cancel_compactions()?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Raises every earlier commit to [`Durability::Sync`].
    fn sync(&self) -> Result<()>;

    /// Reads and checks every byte of every live file.
    fn verify(&self) -> Result<VerifyReport>;

    /// Sizes and counters.
    fn stats(&self) -> Result<Stats>;

    /// Does pending background work within `budget`; for hosts without threads.
    fn maintain(&self, budget: Budget) -> Result<Progress>;

    /// Ends background work, seals the WAL and records a clean close. Later
    /// calls are `InvalidArgument`. Dropping without closing is safe too: the
    /// next open replays the WAL.
    fn close(&self) -> Result<()>;

    /// Commits one put.
    fn put(&self, keyspace: KeyspaceId, key: &[u8], value: &[u8], durability: Durability) -> Result<()> {
        let mut batch = WriteBatch::new();
        batch.put(keyspace, key, value);
        self.write(batch, durability)
    }

    /// Commits one merge, by the keyspace's merge operator.
    fn merge(&self, keyspace: KeyspaceId, key: &[u8], operand: &[u8], durability: Durability) -> Result<()> {
        let mut batch = WriteBatch::new();
        batch.merge(keyspace, key, operand);
        self.write(batch, durability)
    }

    /// Commits one delete of all keys from `start` on and below `end`.
    fn delete_range(
        &self,
        keyspace: KeyspaceId,
        start: &[u8],
        end: &[u8],
        durability: Durability,
    ) -> Result<()> {
        let mut batch = WriteBatch::new();
        batch.delete_range(keyspace, start, end);
        self.write(batch, durability)
    }

    /// Commits one delete.
    fn delete(&self, keyspace: KeyspaceId, key: &[u8], durability: Durability) -> Result<()> {
        let mut batch = WriteBatch::new();
        batch.delete(keyspace, key);
        self.write(batch, durability)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_split_and_every_cut_is_refused() {
        let request = b"\x01\0\0\0a\0\0\0\0\x02\0\0\0bc";
        assert_eq!(split_keys(request).unwrap(), [&b"a"[..], b"", b"bc"]);
        for cut in 1..request.len() {
            assert_eq!(split_keys(&request[..cut]).is_ok(), cut == 5 || cut == 9, "cut at {cut}");
        }
    }

    #[test]
    fn pages_round_trip_and_refuse_every_cut() {
        let mut builder = PageBuilder::default();
        builder.push(b"a", b"1");
        let whole_pair = builder.len();
        builder.push(b"", b"");
        builder.push(b"key", b"value");
        let page = builder.finish();
        let pairs: Vec<_> = page.pairs().map(Result::unwrap).collect();
        assert_eq!(pairs.len(), 3);
        assert_eq!((&pairs[2].0[..], &pairs[2].1[..]), (&b"key"[..], &b"value"[..]));
        let borrowed: Vec<_> = page.pairs_borrowed().map(Result::unwrap).collect();
        assert!(borrowed.iter().copied().eq(pairs.iter().map(|(key, value)| (&key[..], &value[..]))));
        for cut in 1..page.0.len() {
            let cut_off = Page(page.0.slice(..cut));
            let ok = cut == whole_pair || cut == whole_pair + 8;
            assert_eq!(cut_off.pairs().all(|pair| pair.is_ok()), ok, "cut at {cut}");
            assert_eq!(cut_off.pairs_borrowed().all(|pair| pair.is_ok()), ok, "cut at {cut}");
        }
    }
}
