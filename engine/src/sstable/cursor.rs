//! Walks the entries of a table.
//!
//! After a seek the first pages come through the cache, as a point read's do. A
//! cursor that keeps going takes from the cache what is there and reads the rest ahead in
//! windows of one column each. A scan of everything must not push out what is hot: of what
//! is read ahead only that is kept which readers pass again, and only while there is room.

use std::sync::Arc;

use bytes::Bytes;

use super::COLUMNS_MAX;
use super::cache::Passed;
use super::page::{IntsPage, Written};
use super::schema::{EXPIRY, KEY, KIND, SEQ, VALUE};
use super::stored::StoredPage;
use super::stretch::Stretch;
use super::table::{Rows, Table};
use crate::cursor::Cursor;
use crate::error::{Error, Result};
use crate::key::{EntryRef, Expiry, SequenceNumber, ValueKind};

/// Pages that a walk takes through the cache before it reads ahead.
const CACHED_PAGES: u32 = 2;

/// Bytes of the first window of a column; each next one is twice as long, up to
/// this and to a part of the cache: where that is small, all memory is.
const WINDOW_BYTES_MIN: usize = 64 << 10;
const WINDOW_BYTES_MAX: usize = 256 << 10;
const WINDOWS_PER_CACHE: u64 = 64;

/// What somebody walks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To read, perhaps not for the last time.
    Reading,
    /// To write it anew: soon the table will be gone.
    Rewriting,
}

/// A cursor over one table.
pub struct TableCursor {
    table: Arc<Table>,
    purpose: Purpose,
    /// Where it stands, and the page there.
    current: Option<Position>,
    /// From the first page that is read ahead on.
    windows: Option<Box<Windows>>,
    /// Pages walked in one direction since the last seek.
    walked: u32,
}

struct Position {
    page: usize,
    row: usize,
    rows: Rows,
    kind: ValueKind,
}

impl Position {
    /// Goes to another row of the page.
    #[inline]
    fn go_to(&mut self, row: usize, table: &Table) -> Result<()> {
        self.row = row;
        if let Some(kinds) = &self.rows.kinds {
            self.kind = table.kind(self.page, kinds.get(row))?;
        }
        Ok(())
    }
}

impl TableCursor {
    pub(super) fn new(table: Arc<Table>, purpose: Purpose) -> TableCursor {
        TableCursor { table, purpose, current: None, windows: None, walked: 0 }
    }

    /// True if it stands on an entry.
    #[inline]
    pub fn stands(&self) -> bool {
        self.current.is_some()
    }

    /// The rows from the one under the cursor to the end of its page, if each is a put
    /// that a reader at `seq` and `now_ms` may see and no two have one key.
    pub fn stretch(&self, forward: bool, seq: SequenceNumber, now_ms: u64) -> Option<Stretch> {
        let Position { page, row, rows, .. } = self.current.as_ref()?;
        let entry = &self.table.index.pages[*page];
        let alive = entry.expiries.1 == 0 || entry.expiries.0 as u64 > now_ms;
        let seen = entry.seq_max <= seq.0 as i64;
        if entry.kind != Some(ValueKind::Put) || !alive || !seen || !rows.keys.is_distinct() {
            return None;
        }
        let len = match forward {
            true => rows.keys.rows() - row,
            // Before the first row there may be newer versions of its key.
            false => row + 1 - usize::from(entry.goes_on),
        };
        Some(Stretch::new(rows.clone(), *row, len, forward))
    }

    /// Number of rows of the page under the cursor, if this is the first of them.
    #[inline]
    pub fn rows_of_page_begun(&self) -> Option<usize> {
        let position = self.current.as_ref().filter(|position| position.row == 0)?;
        Some(position.rows.keys.rows())
    }

    /// The page under the cursor as it is stored: a [`TableCursor::stretch`] of all of
    /// its rows. The cursor must stand on an entry.
    pub fn stored_page(&mut self) -> Result<StoredPage> {
        let Some(Position { page, rows, .. }) = &self.current else {
            return Err(Error::invalid("there is no page under the cursor"));
        };
        let (page, table) = (*page, &self.table);
        let (index, entry) = (&table.index, &table.index.pages[page]);
        let windows = self.windows.get_or_insert_default();
        let (mut raw, mut written) = (<[Bytes; COLUMNS_MAX]>::default(), [Written::default(); COLUMNS_MAX]);
        let mut values = Vec::new();
        for column in (0..COLUMNS_MAX).filter(|column| *column != EXPIRY || index.expires) {
            raw[column] = windows.columns[column].raw(table, page, column, true)?;
            if column == VALUE {
                (values, written[column]) = table.check_values(page, &raw[column])?;
            } else {
                written[column] = table.check(page, column, &raw[column])?;
            }
        }
        Ok(StoredPage {
            keys: Arc::clone(&rows.keys),
            last_seq: SequenceNumber(rows.seqs.get(rows.keys.rows() - 1) as u64),
            raw,
            written,
            values,
            seqs: (entry.seq_min, entry.seq_max),
            expiries: entry.expiries,
            compression: index.compression,
            expires: index.expires,
        })
    }

    /// Moves by so many rows, the last of which is still in the page.
    pub fn skip(&mut self, rows: usize, forward: bool) -> Result<()> {
        if let (Some(position), Some(steps)) = (&mut self.current, rows.checked_sub(1)) {
            let row = if forward { position.row + steps } else { position.row - steps };
            position.go_to(row, &self.table)?;
        }
        if forward { self.next() } else { self.prev() }
    }

    /// The rows of a page, by way of the cache.
    fn cached(&self, page: usize) -> Result<Rows> {
        let table = &self.table;
        let kinds = match table.index.pages[page].kind {
            Some(_) => None,
            None => Some(table.ints(page, KIND)?),
        };
        let expiries = match table.index.pages[page].expiries {
            (_, 0) => None,
            _ => Some(table.ints(page, EXPIRY)?),
        };
        let (keys, values, seqs) = (table.keys(page)?, table.values(page)?, table.ints(page, SEQ)?);
        Ok(Rows { keys, values, seqs, kinds, expiries })
    }

    fn stand(&mut self, page: usize, row: usize, rows: Rows) -> Result<()> {
        let kind = self.table.index.pages[page].kind.unwrap_or(ValueKind::Put);
        let position = self.current.insert(Position { page, row, rows, kind });
        position.go_to(row, &self.table)
    }

    /// Goes to the first or last row of a page, while walking.
    fn enter(&mut self, page: usize, forward: bool) -> Result<()> {
        self.walked = self.walked.saturating_add(1);
        let rows = if self.walked <= CACHED_PAGES {
            self.cached(page)?
        } else {
            let windows = self.windows.get_or_insert_default();
            let rows = windows.rows(&self.table, page, forward, self.table.passed(page))?;
            if self.purpose == Purpose::Reading {
                self.table.pass(page, &rows);
            }
            rows
        };
        let row = if forward { 0 } else { rows.keys.rows() - 1 };
        self.stand(page, row, rows)
    }

    /// Position of the first entry at or after `(key, seq)`: a page and a row,
    /// which may be one past the last of the page.
    fn lower_bound(&self, key: &[u8], seq: SequenceNumber) -> Result<Option<(usize, usize, Rows)>> {
        let index = &self.table.index;
        if index.pages.is_empty() {
            return Ok(None);
        }
        let last = index.last_at_or_below(key).unwrap_or(0);
        let mut page = index.first_holding(key, last);
        loop {
            let rows = self.cached(page)?;
            let mut row = rows.keys.lower_bound(key);
            while row < rows.keys.rows() && rows.keys.get(row) == key && rows.seqs.get(row) > seq.0 as i64 {
                row += 1;
            }
            if row < rows.keys.rows() || page >= last {
                return Ok(Some((page, row, rows)));
            }
            page += 1;
        }
    }

    fn guarded(&mut self, step: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let outcome = step(self);
        if outcome.is_err() {
            self.current = None;
        }
        outcome
    }
}

impl Cursor for TableCursor {
    fn seek_first(&mut self) -> Result<()> {
        self.walked = 0;
        self.guarded(|this| if this.table.index.pages.is_empty() { Ok(()) } else { this.enter(0, true) })
    }

    fn seek_last(&mut self) -> Result<()> {
        self.walked = 0;
        self.guarded(|this| match this.table.index.pages.len().checked_sub(1) {
            Some(last) => this.enter(last, false),
            None => Ok(()),
        })
    }

    fn seek(&mut self, key: &[u8], seq: SequenceNumber) -> Result<()> {
        self.walked = 0;
        self.guarded(|this| {
            this.current = None;
            let Some((page, row, rows)) = this.lower_bound(key, seq)? else { return Ok(()) };
            if row < rows.keys.rows() {
                return this.stand(page, row, rows);
            }
            if page + 1 < this.table.index.pages.len() {
                return this.enter(page + 1, true);
            }
            Ok(())
        })
    }

    fn seek_before(&mut self, key: &[u8], seq: SequenceNumber) -> Result<()> {
        self.walked = 0;
        self.guarded(|this| {
            this.current = None;
            let Some((page, row, rows)) = this.lower_bound(key, seq)? else { return Ok(()) };
            match (row.checked_sub(1), page.checked_sub(1)) {
                (Some(row), _) => this.stand(page, row, rows),
                (None, Some(page)) => this.enter(page, false),
                (None, None) => Ok(()),
            }
        })
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        if let Some(position) = &mut self.current
            && position.row + 1 < position.rows.keys.rows()
            && position.rows.kinds.is_none()
        {
            position.row += 1;
            return Ok(());
        }
        self.guarded(|this| {
            let Some(position) = &mut this.current else { return Ok(()) };
            if position.row + 1 < position.rows.keys.rows() {
                return position.go_to(position.row + 1, &this.table);
            }
            let page = position.page + 1;
            this.current = None;
            if page < this.table.index.pages.len() { this.enter(page, true) } else { Ok(()) }
        })
    }

    fn prev(&mut self) -> Result<()> {
        self.guarded(|this| {
            let Some(position) = &mut this.current else { return Ok(()) };
            if let Some(row) = position.row.checked_sub(1) {
                return position.go_to(row, &this.table);
            }
            let page = position.page.checked_sub(1);
            this.current = None;
            page.map_or(Ok(()), |page| this.enter(page, false))
        })
    }

    #[inline]
    fn entry(&self) -> Option<EntryRef<'_>> {
        self.current.as_ref().map(|at| EntryRef {
            key: at.rows.keys.get(at.row),
            seq: SequenceNumber(at.rows.seqs.get(at.row) as u64),
            kind: at.kind,
            expires_at: match &at.rows.expiries {
                Some(expiries) => Expiry(expiries.get(at.row) as u64),
                None => Expiry::NEVER,
            },
            value: at.rows.values.get(at.row),
        })
    }

    #[inline]
    fn key(&self) -> Option<&[u8]> {
        self.current.as_ref().map(|at| at.rows.keys.get(at.row))
    }

    fn value(&self) -> Bytes {
        self.current.as_ref().map(|at| at.rows.values.slice(at.row)).unwrap_or_default()
    }
}

/// Bytes of each column around the pages being read.
#[derive(Default)]
pub(super) struct Windows {
    columns: [Window; COLUMNS_MAX],
}

#[derive(Default)]
struct Window {
    offset: u64,
    bytes: Bytes,
    /// Bytes wanted of the last read.
    wanted: usize,
}

impl Windows {
    /// The rows of a page: what the cache `passed` of it, and the rest read ahead in one
    /// direction.
    pub fn rows(&mut self, table: &Table, page: usize, forward: bool, passed: Passed) -> Result<Rows> {
        let entry = &table.index.pages[page];
        let last = (entry.rows as usize).saturating_sub(1);
        if let Some(values) = &passed.values {
            values.bring_near(0, last);
        }
        if let Some(keys) = &passed.keys {
            keys.bring_near(0, last);
        }
        let mut raw = |column: usize| self.columns[column].raw(table, page, column, forward);
        let [seqs, kinds, expiries] = passed.ints;
        let mut ints = |column: usize, held: Option<Arc<IntsPage>>| match held {
            Some(ints) => Ok(ints),
            None => table.decode_ints(page, column, &raw(column)?),
        };
        Ok(Rows {
            seqs: ints(SEQ, seqs)?,
            kinds: match entry.kind {
                Some(_) => None,
                None => Some(ints(KIND, kinds)?),
            },
            expiries: match entry.expiries {
                (_, 0) => None,
                _ => Some(ints(EXPIRY, expiries)?),
            },
            keys: match passed.keys {
                Some(keys) => keys,
                None => table.decode_keys(page, &raw(KEY)?)?,
            },
            values: match passed.values {
                Some(values) => values,
                None => table.decode_values(page, &raw(VALUE)?)?,
            },
        })
    }

    /// Checks the CRCs of a page's columns.
    pub fn check_crcs(&mut self, table: &Table, page: usize) -> Result<()> {
        for column in (0..COLUMNS_MAX).filter(|column| *column != EXPIRY || table.index.expires) {
            let raw = self.columns[column].raw(table, page, column, true)?;
            table.check_crc(page, column, &raw)?;
        }
        Ok(())
    }

    /// A page of integers, even where the index makes it unnecessary.
    pub fn ints(&mut self, table: &Table, page: usize, column: usize) -> Result<Arc<IntsPage>> {
        let raw = self.columns[column].raw(table, page, column, true)?;
        table.decode_ints(page, column, &raw)
    }
}

impl Window {
    fn raw(&mut self, table: &Table, page: usize, column: usize, forward: bool) -> Result<Bytes> {
        let entry = &table.index.pages[page];
        let (offset, len) = (entry.offsets[column], entry.bytes[column] as usize);
        if !self.holds(offset, len) {
            self.fill(table, page, column, forward)?;
        }
        let start = (offset - self.offset) as usize;
        Ok(self.bytes.slice(start..start + len))
    }

    fn holds(&self, offset: u64, len: usize) -> bool {
        offset >= self.offset && offset + len as u64 <= self.offset + self.bytes.len() as u64
    }

    /// Reads pages of a column from `page` on, within its row group.
    fn fill(&mut self, table: &Table, page: usize, column: usize, forward: bool) -> Result<()> {
        let most = (table.cache_bytes_max() / WINDOWS_PER_CACHE) as usize;
        let most = most.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
        self.wanted = (self.wanted * 2).clamp(WINDOW_BYTES_MIN, most);
        let pages = &table.index.pages;
        let len = |page: usize| pages[page].bytes[column] as usize;
        let (mut first, mut last, mut bytes) = (page, page, len(page));
        if forward {
            let end = table.index.group_end(page);
            while last + 1 < end && bytes + len(last + 1) <= self.wanted {
                last += 1;
                bytes += len(last);
            }
        } else {
            let start = table.index.group_of(page).first_page;
            while first > start && bytes + len(first - 1) <= self.wanted {
                first -= 1;
                bytes += len(first);
            }
        }
        self.offset = pages[first].offsets[column];
        self.bytes = Bytes::new();
        self.bytes = table.read(self.offset, bytes)?;
        Ok(())
    }
}
