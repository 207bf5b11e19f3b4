//! Versions: which SSTables hold a keyspace, in which order to look.
//!
//! A *sorted run* is SSTables whose keys do not overlap; a version is runs,
//! newest first. Where a key is in several runs, a newer run holds only higher
//! sequence numbers of it, so a get may stop at the first version it finds.
//! Versions are immutable and shared: whoever reads holds on to one, and a
//! file that a compaction has replaced is removed when the last version that
//! names it goes.

use std::ops::{Bound, Range};
// Not those of `crate::sync`: no answer depends on which version gets which id.
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::cursor::{Cursor, Found, Lookup};
use crate::edit::Placed;
use crate::error::{Error, Result};
use crate::filename;
use crate::key::{EntryRef, FileNumber, SequenceNumber};
use crate::sstable::{Cache, Purpose, StoredPage, Stretch, Table, TableCursor, TableMeta};
use crate::storage::Storage;
use crate::sync::{Mutex, lock};
use crate::trash::Trash;

/// A live SSTable, opened when it is first read.
#[derive(Debug)]
pub struct TableHandle {
    meta: TableMeta,
    storage: Arc<dyn Storage>,
    cache: Cache,
    table: OnceLock<Arc<Table>>,
    /// Held while it is being opened.
    opening: Mutex<()>,
    /// Where the file goes when nobody holds the handle any more; nowhere until then.
    obsolete: OnceLock<Arc<Trash>>,
}

impl TableHandle {
    /// The table that `meta` describes.
    pub fn new(meta: TableMeta, storage: Arc<dyn Storage>, cache: Cache) -> Self {
        TableHandle {
            meta,
            storage,
            cache,
            table: OnceLock::new(),
            opening: Mutex::default(),
            obsolete: OnceLock::new(),
        }
    }

    /// What the manifest says of it.
    pub fn meta(&self) -> &TableMeta {
        &self.meta
    }

    /// The file, relative to the database directory.
    pub fn path(&self) -> String {
        filename::sst(self.meta.keyspace, self.meta.number)
    }

    /// The open table.
    ///
    /// # Errors
    /// `Io` and `Corruption` of the file; the next call tries again.
    #[inline]
    pub fn table(&self) -> Result<&Arc<Table>> {
        match self.table.get() {
            Some(table) => Ok(table),
            None => self.open(),
        }
    }

    fn open(&self) -> Result<&Arc<Table>> {
        let _opening = lock(&self.opening);
        if let Some(table) = self.table.get() {
            return Ok(table);
        }
        let path = self.path();
        let file = self.storage.open(&path)?;
        let opened = Arc::new(Table::open(file, path, &self.meta, self.cache.clone())?);
        Ok(self.table.get_or_init(|| opened))
    }

    /// Removes the file once nobody holds the handle any more. The edit that
    /// removes the table must be durable.
    pub(crate) fn retire(&self, trash: &Arc<Trash>) {
        self.obsolete.get_or_init(|| Arc::clone(trash));
    }
}

impl Drop for TableHandle {
    fn drop(&mut self) {
        if let Some(trash) = self.obsolete.get() {
            trash.throw(self.path());
        }
    }
}

/// SSTables of one keyspace whose keys do not overlap, in order of their keys.
#[derive(Clone, Debug)]
pub struct Run {
    /// Runs of a higher one are older; 0 for what this program flushes.
    pub level: u32,
    /// Among the runs of a level, higher is newer: the number of the file that the
    /// run began with.
    pub id: u64,
    /// Its tables, in order of their keys; never empty.
    pub tables: Arc<Vec<Arc<TableHandle>>>,
}

impl Run {
    /// Bytes of its files.
    pub fn bytes(&self) -> u64 {
        self.tables.iter().map(|table| table.meta.bytes).sum()
    }

    /// The table that may hold `key`.
    pub fn table_for(&self, key: &[u8]) -> Option<&Arc<TableHandle>> {
        // From below: a range tombstone may end where the next table begins.
        let after = self.tables.partition_point(|table| table.meta.key_min.as_slice() <= key);
        let table = self.tables.get(after.checked_sub(1)?)?;
        (table.meta.key_max.as_slice() >= key).then_some(table)
    }

    /// Which of its tables may hold a key between the bounds.
    pub fn within(&self, start: &Bound<Vec<u8>>, end: &Bound<Vec<u8>>) -> Range<usize> {
        let from = self.tables.partition_point(|table| match start {
            Bound::Unbounded => false,
            Bound::Included(key) => table.meta.key_max < *key,
            Bound::Excluded(key) => table.meta.key_max <= *key,
        });
        let to = self.tables.partition_point(|table| match end {
            Bound::Unbounded => true,
            Bound::Included(key) => table.meta.key_min <= *key,
            Bound::Excluded(key) => table.meta.key_min < *key,
        });
        from..to.max(from)
    }

    /// True if some key between `min` and `max`, both included, may be here.
    pub fn overlaps(&self, min: &[u8], max: &[u8]) -> bool {
        let index = self.tables.partition_point(|table| table.meta.key_max.as_slice() < min);
        self.tables.get(index).is_some_and(|table| table.meta.key_min.as_slice() <= max)
    }
}

/// The sorted runs of one keyspace, newest first.
#[derive(Clone, Debug, Default)]
pub struct Version {
    /// Newest first: by level ascending, then by id descending.
    pub runs: Vec<Run>,
    /// Another one for every version in this process.
    id: u64,
    /// Highest sequence number in its tables.
    seq_max: SequenceNumber,
    /// Some entry expires.
    expires: bool,
    overlap: usize,
}

/// Ids of versions that were given away.
static IDS: AtomicU64 = AtomicU64::new(0);

impl Version {
    /// Makes a version of tables and their places.
    pub fn new(tables: impl IntoIterator<Item = (Placed, Arc<TableHandle>)>) -> Self {
        let mut version = Version::default();
        version.insert(tables);
        version
    }

    fn insert(&mut self, tables: impl IntoIterator<Item = (Placed, Arc<TableHandle>)>) {
        for (placed, handle) in tables {
            let run = self.runs.iter_mut().find(|run| (run.level, run.id) == (placed.level, placed.run));
            match run {
                Some(run) => Arc::make_mut(&mut run.tables).push(handle),
                None => self.runs.push(Run {
                    level: placed.level,
                    id: placed.run,
                    tables: Arc::new(vec![handle]),
                }),
            }
        }
        for run in &mut self.runs {
            if !run.tables.is_sorted_by(|a, b| a.meta.key_min <= b.meta.key_min) {
                Arc::make_mut(&mut run.tables).sort_by(|a, b| a.meta.key_min.cmp(&b.meta.key_min));
            }
        }
        self.runs.sort_by(|a, b| a.level.cmp(&b.level).then(b.id.cmp(&a.id)));
        let expires = self.tables().any(|table| table.meta.expires());
        self.expires = expires;
        self.id = 1 + IDS.fetch_add(1, Relaxed);
        self.seq_max = self.tables().map(|table| table.meta.seq_max).max().unwrap_or_default();
        self.overlap = overlap(self.tables().map(|table| table.meta()));
    }

    /// The version without `removed` and with `added`; a table in both moves.
    pub fn edited(
        &self,
        removed: &[FileNumber],
        added: impl IntoIterator<Item = (Placed, Arc<TableHandle>)>,
    ) -> Version {
        let mut version = self.clone();
        for run in &mut version.runs {
            if run.tables.iter().any(|table| removed.contains(&table.meta.number)) {
                Arc::make_mut(&mut run.tables).retain(|table| !removed.contains(&table.meta.number));
            }
        }
        version.runs.retain(|run| !run.tables.is_empty());
        version.insert(added);
        version
    }

    /// True if some entry expires.
    pub fn expires(&self) -> bool {
        self.expires
    }

    /// Most runs that may hold one key.
    pub fn overlap(&self) -> usize {
        self.overlap
    }

    /// What the tables say of a key, if that is in the cache; `hash` is the key's
    /// [`hash_key`](crate::sstable::hash_key).
    #[inline]
    pub fn cached(&self, lookup: &Lookup<'_>, hash: u64) -> Option<Found> {
        let table = self.runs.first()?.tables.first()?;
        table.cache.row((table.meta.keyspace, hash), self.id, lookup)
    }

    /// The id of the version, if a reader at `seq` sees all that is in its tables.
    pub fn seen_whole(&self, seq: SequenceNumber) -> Option<u64> {
        (seq >= self.seq_max).then_some(self.id)
    }

    /// Every table.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<TableHandle>> {
        self.runs.iter().flat_map(|run| run.tables.iter())
    }
}

/// Most of `tables` that may hold one key.
pub fn overlap<'a>(tables: impl Iterator<Item = &'a TableMeta>) -> usize {
    // At a key that ends one and begins another both are counted.
    let edges = tables.flat_map(|meta| [(meta.key_min.as_slice(), 0), (meta.key_max.as_slice(), 1)]);
    let mut edges: Vec<(&[u8], u8)> = edges.collect();
    edges.sort_unstable();
    let (mut open, mut most) = (0, 0);
    for (_, ends) in edges {
        if ends == 1 {
            open -= 1;
        } else {
            open += 1;
            most = most.max(open);
        }
    }
    most
}

/// Walks a run table by table; opens a table when it gets there.
pub struct RunCursor {
    tables: Arc<Vec<Arc<TableHandle>>>,
    /// Those that it walks.
    range: Range<usize>,
    purpose: Purpose,
    /// The table under the cursor and its index.
    current: Option<(usize, TableCursor)>,
}

impl RunCursor {
    /// A cursor over a range of `tables`, which do not overlap and are in order.
    pub fn new(tables: Arc<Vec<Arc<TableHandle>>>, range: Range<usize>, purpose: Purpose) -> Self {
        RunCursor { tables, range, purpose, current: None }
    }

    /// Number of the tables, from the first one on, of which `before` is true.
    fn count(&self, before: impl Fn(&TableMeta) -> bool) -> usize {
        self.range.start + self.tables[self.range.clone()].partition_point(|table| before(&table.meta))
    }

    /// See [`TableCursor::stretch`].
    pub fn stretch(&self, forward: bool, seq: SequenceNumber, now_ms: u64) -> Option<Stretch> {
        self.current.as_ref()?.1.stretch(forward, seq, now_ms)
    }

    /// See [`TableCursor::rows_of_page_begun`].
    #[inline]
    pub fn rows_of_page_begun(&self) -> Option<usize> {
        self.current.as_ref()?.1.rows_of_page_begun()
    }

    /// See [`TableCursor::stored_page`]; the cursor must stand on an entry.
    pub fn stored_page(&mut self) -> Result<StoredPage> {
        self.guarded(|this| match &mut this.current {
            Some((_, cursor)) => cursor.stored_page(),
            None => Err(Error::invalid("there is no page under the cursor")),
        })
    }

    /// See [`TableCursor::skip`].
    pub fn skip(&mut self, rows: usize, forward: bool) -> Result<()> {
        self.guarded(|this| {
            if let Some((_, cursor)) = &mut this.current {
                cursor.skip(rows, forward)?;
            }
            if forward { this.skip_forward() } else { this.skip_backward() }
        })
    }

    fn enter(&mut self, index: usize) -> Result<&mut TableCursor> {
        let keep = matches!(&self.current, Some((at, _)) if *at == index);
        let cursor = match self.current.take() {
            Some((_, cursor)) if keep => cursor,
            _ => Arc::clone(self.tables[index].table()?).cursor(self.purpose),
        };
        Ok(&mut self.current.insert((index, cursor)).1)
    }

    /// Goes on to the following tables while the cursor stands nowhere.
    fn skip_forward(&mut self) -> Result<()> {
        while let Some((index, cursor)) = &self.current
            && !cursor.stands()
        {
            let next = index + 1;
            if next == self.range.end {
                self.current = None;
            } else {
                self.enter(next)?.seek_first()?;
            }
        }
        Ok(())
    }

    fn skip_backward(&mut self) -> Result<()> {
        while let Some((index, cursor)) = &self.current
            && !cursor.stands()
        {
            if *index == self.range.start {
                self.current = None;
            } else {
                self.enter(index - 1)?.seek_last()?;
            }
        }
        Ok(())
    }

    /// Runs `step`, and leaves the cursor standing nowhere if it fails.
    fn guarded<T>(&mut self, step: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let outcome = step(self);
        if outcome.is_err() {
            self.current = None;
        }
        outcome
    }
}

impl Cursor for RunCursor {
    fn seek_first(&mut self) -> Result<()> {
        self.guarded(|this| {
            if this.range.is_empty() {
                return Ok(());
            }
            this.enter(this.range.start)?.seek_first()?;
            this.skip_forward()
        })
    }

    fn seek_last(&mut self) -> Result<()> {
        self.guarded(|this| {
            if this.range.is_empty() {
                return Ok(());
            }
            this.enter(this.range.end - 1)?.seek_last()?;
            this.skip_backward()
        })
    }

    fn seek(&mut self, key: &[u8], seq: SequenceNumber) -> Result<()> {
        self.guarded(|this| {
            let index = this.count(|meta| meta.key_max.as_slice() < key);
            if index == this.range.end {
                this.current = None;
                return Ok(());
            }
            this.enter(index)?.seek(key, seq)?;
            this.skip_forward()
        })
    }

    fn seek_before(&mut self, key: &[u8], seq: SequenceNumber) -> Result<()> {
        self.guarded(|this| {
            let after = this.count(|meta| meta.key_min.as_slice() <= key);
            if after == this.range.start {
                this.current = None;
                return Ok(());
            }
            this.enter(after - 1)?.seek_before(key, seq)?;
            this.skip_backward()
        })
    }

    fn next(&mut self) -> Result<()> {
        self.guarded(|this| {
            if let Some((_, cursor)) = &mut this.current {
                cursor.next()?;
            }
            this.skip_forward()
        })
    }

    fn prev(&mut self) -> Result<()> {
        self.guarded(|this| {
            if let Some((_, cursor)) = &mut this.current {
                cursor.prev()?;
            }
            this.skip_backward()
        })
    }

    #[inline]
    fn entry(&self) -> Option<EntryRef<'_>> {
        self.current.as_ref().and_then(|(_, cursor)| cursor.entry())
    }

    #[inline]
    fn key(&self) -> Option<&[u8]> {
        self.current.as_ref().and_then(|(_, cursor)| cursor.key())
    }

    fn value(&self) -> Bytes {
        self.current.as_ref().map(|(_, cursor)| cursor.value()).unwrap_or_default()
    }
}
