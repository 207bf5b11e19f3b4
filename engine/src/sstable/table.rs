//! An open SSTable: point reads and verification.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::TableMeta;
use super::cache::{Cache, Passed, Slots};
use super::cursor::{Purpose, TableCursor};
use super::filter::Filter;
use super::index::{GroupEntry, Index};
use super::keys::{self, KeysPage};
use super::page::{self, BytesPage, Glance, IntsPage, ValuePage, Written};
use super::row_cache::Row;
use super::schema::{CONTENTS, EXPIRY, KEY, KIND, SEQ, VALUE};
use super::thrift::{Decoded, Malformed};
use crate::cursor::{Found, Lookup};
use crate::error::{Error, Result};
use crate::key::{Expiry, SequenceNumber, ValueKind};
use crate::range_delete::RangeDeletes;
use crate::storage::ReadFile;

/// Bytes of a page, as stored, of which nothing is kept.
const RAW_BYTES: usize = 64 << 10;

thread_local! {
    /// Where such a page is read to: always the same memory, which is in a processor's cache.
    static RAW: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// An SSTable open for reading.
#[derive(Debug)]
pub struct Table {
    file: Arc<dyn ReadFile>,
    path: String,
    meta: TableMeta,
    slots: Arc<Slots>,
    pub(super) index: Index,
}

/// A page of each column.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    pub keys: Arc<KeysPage>,
    pub values: Arc<BytesPage>,
    pub seqs: Arc<IntsPage>,
    /// `None` where all rows share a kind.
    pub kinds: Option<Arc<IntsPage>>,
    /// `None` where no row expires.
    pub expiries: Option<Arc<IntsPage>>,
}

impl Table {
    /// Opens the table that `meta` describes; `path` names it in errors.
    ///
    /// # Errors
    /// `Corruption` where length or checksum are not those recorded, or the
    /// tail does not decode; `Io`.
    pub fn open(file: Arc<dyn ReadFile>, path: String, meta: &TableMeta, cache: Cache) -> Result<Table> {
        let size = file.size()?;
        if size != meta.bytes {
            let what = format!("the file has {size} bytes, and {} in the manifest", meta.bytes);
            return Err(Error::corruption(path, size.min(meta.bytes), what));
        }
        let tail_bytes = usize::try_from(meta.bytes.saturating_sub(meta.tail_offset))
            .map_err(|_| Error::Unsupported(format!("{path} is too large for this machine")))?;
        let tail = file.read_at(meta.tail_offset, tail_bytes)?;
        if xxhash_rust::xxh64::xxh64(&tail, 0) != meta.tail_checksum {
            let what = "the checksum of indexes and footer is not the one in the manifest";
            return Err(Error::corruption(path, meta.tail_offset, what));
        }
        let index = Index::decode(&tail, &path, meta)?;
        let slots = Slots::new(cache, index.pages.len());
        Ok(Table { file, path, meta: meta.clone(), slots, index })
    }

    /// What the newest version of a key that a reader may see says; `hash` is the
    /// key's [`hash_key`](super::hash_key). Range tombstones of this table are for
    /// the caller to have looked at. Reads at most two pages where statistics
    /// decide between versions. What is found here is what all tables of `version` say
    /// of the key, if one is given.
    pub fn get(&self, lookup: &Lookup<'_>, hash: u64, version: Option<u64>) -> Result<Option<Found>> {
        let Some(last) = self.candidate(lookup.key, hash)? else { return Ok(None) };
        let Some((page, row)) = self.locate(lookup.key, last, lookup.seq)? else { return Ok(None) };
        let found = self.judge(lookup, page, row)?;
        if let (Some(version), Found::Value(value)) = (version, &found) {
            self.note(version, lookup.key, hash, (page, row), value)?;
        }
        Ok(Some(found))
    }

    /// Sequence number of the newest version of `key`.
    pub fn newest(&self, key: &[u8], hash: u64) -> Result<Option<SequenceNumber>> {
        let Some(last) = self.candidate(key, hash)? else { return Ok(None) };
        let found = self.locate(key, last, SequenceNumber::MAX)?;
        found.map(|(page, row)| self.sequence(page, row)).transpose()
    }

    /// Range tombstones.
    pub fn range_deletes(&self) -> &Arc<RangeDeletes> {
        &self.index.range_deletes
    }

    /// The last page that may hold `key`, if the filter lets it be there.
    fn candidate(&self, key: &[u8], hash: u64) -> Result<Option<usize>> {
        let Some(group) = self.index.group_at_or_below(key) else { return Ok(None) };
        if !self.may_hold(&self.index.groups[group], hash)? {
            return Ok(None);
        }
        let last = self.index.last_in_group(group, key);
        // All at once, before a look into the cache, at which a processor waits for what it
        // has asked of memory.
        self.index.bring_near(last);
        self.slots.bring_near(last, (self.meta.keyspace, hash));
        Ok(Some(last))
    }

    /// Page and row of the newest version of `key` at or before `seq`; `last` is its
    /// last page.
    fn locate(&self, key: &[u8], last: usize, seq: SequenceNumber) -> Result<Option<(usize, usize)>> {
        for page in self.index.first_holding(key, last)..=last {
            let rows = self.rows_of(page, key)?;
            if !rows.is_empty()
                && let Some(row) = self.visible_row(page, rows, seq)?
            {
                return Ok(Some((page, row)));
            }
        }
        Ok(None)
    }

    /// Tells the cache of a value that was read in a version.
    fn note(
        &self,
        version: u64,
        key: &[u8],
        hash: u64,
        (page, row): (usize, usize),
        value: &[u8],
    ) -> Result<()> {
        let entry = &self.index.pages[page];
        let expires_at = match entry.expiries {
            (_, 0) => Expiry::NEVER,
            _ => Expiry(self.int(page, EXPIRY, row)? as u64),
        };
        self.slots.note_row((self.meta.keyspace, hash), key.len() + value.len(), || Row {
            version,
            seqs: (entry.seq_min as u64, entry.seq_max as u64),
            expires_at,
            key_len: key.len(),
            bytes: [key, value].concat().into(),
        });
        Ok(())
    }

    /// The first of `rows`, which are versions of one key, at or before `seq`.
    fn visible_row(&self, page: usize, mut rows: Range<usize>, seq: SequenceNumber) -> Result<Option<usize>> {
        let entry = &self.index.pages[page];
        if entry.seq_max <= seq.0 as i64 {
            return Ok(Some(rows.start));
        }
        if entry.seq_min > seq.0 as i64 {
            return Ok(None);
        }
        let seqs = self.ints(page, SEQ)?;
        Ok(rows.find(|row| seqs.get(*row) <= seq.0 as i64))
    }

    fn judge(&self, lookup: &Lookup<'_>, page: usize, row: usize) -> Result<Found> {
        let entry = &self.index.pages[page];
        let hidden_below = lookup.hidden_below;
        if (entry.seq_min as u64) < hidden_below.0 && self.sequence(page, row)? < hidden_below {
            return Ok(Found::Gone);
        }
        if entry.expiries.1 != 0 && Expiry(self.int(page, EXPIRY, row)? as u64).is_past(lookup.now_ms) {
            return Ok(Found::Gone);
        }
        let kind = match entry.kind {
            Some(kind) => kind,
            None => self.kind(page, self.int(page, KIND, row)?)?,
        };
        match kind {
            ValueKind::Delete => Ok(Found::Gone),
            ValueKind::Put => Ok(Found::Value(self.value(page, row)?)),
            ValueKind::Merge => Ok(Found::Operand(self.sequence(page, row)?, self.value(page, row)?)),
        }
    }

    fn sequence(&self, page: usize, row: usize) -> Result<SequenceNumber> {
        let entry = &self.index.pages[page];
        if entry.seq_min == entry.seq_max {
            return Ok(SequenceNumber(entry.seq_min as u64));
        }
        Ok(SequenceNumber(self.int(page, SEQ, row)? as u64))
    }

    /// A cursor over all entries.
    pub fn cursor(self: Arc<Self>, purpose: Purpose) -> TableCursor {
        TableCursor::new(self, purpose)
    }

    /// Reads and checks every byte; answers how many. See [`super::verify`].
    pub fn verify(&self) -> Result<u64> {
        super::verify::verify(self)
    }

    pub(super) fn meta(&self) -> &TableMeta {
        &self.meta
    }

    /// Corruption of a page of a column.
    pub(super) fn corrupt(&self, page: usize, column: usize, what: &str) -> Error {
        Error::corruption(&self.path, self.index.pages[page].offsets[column], what)
    }

    pub(super) fn corrupt_at(&self, offset: u64, what: &str) -> Error {
        Error::corruption(&self.path, offset, what)
    }

    /// The kind that a page holds as `value`.
    pub(super) fn kind(&self, page: usize, value: i64) -> Result<ValueKind> {
        let kind = u8::try_from(value).ok().and_then(ValueKind::from_byte);
        kind.ok_or_else(|| self.corrupt(page, KIND, "an unknown kind of entry"))
    }

    pub(super) fn read(&self, offset: u64, bytes: usize) -> Result<Bytes> {
        self.file.read_at(offset, bytes)
    }

    fn raw(&self, page: usize, column: usize) -> Result<Bytes> {
        let entry = &self.index.pages[page];
        self.read(entry.offsets[column], entry.bytes[column] as usize)
    }

    // --- Through the cache ---------------------------------------------------

    pub(super) fn keys(&self, page: usize) -> Result<Arc<KeysPage>> {
        if let Some(keys) = self.slots.get(page, |held| &held.keys) {
            return Ok(keys);
        }
        let keys = self.decode_keys(page, &self.raw(page, KEY)?)?;
        if self.slots.admits(page, KEY) {
            self.slots.keep(page, |held| &held.keys, &keys);
        }
        Ok(keys)
    }

    /// The rows of a key in a page.
    fn rows_of(&self, page: usize, key: &[u8]) -> Result<Range<usize>> {
        let entry = &self.index.pages[page];
        let rows = entry.rows as usize;
        if entry.one_key {
            return Ok(if self.index.bound(page) == key { 0..rows } else { 0..0 });
        }
        if let Some(rows) = self.slots.look(page, |held| &held.keys, |keys| keys.rows_of(key)) {
            return Ok(rows);
        }
        if self.slots.admits(page, KEY) {
            let keys = self.decode_keys(page, &self.raw(page, KEY)?)?;
            self.slots.keep(page, |held| &held.keys, &keys);
            return Ok(keys.rows_of(key));
        }
        self.index.bring_values_near(page);
        let place = (entry.offsets[KEY], entry.bytes[KEY] as usize);
        let find = |page: Glance<'_>| keys::rows_of(key, &page, rows);
        self.look(place, |raw| page::glance(raw, entry.checksums[KEY], rows, find))
    }

    /// What `look` makes of the stored bytes of a page, which are not kept.
    fn look<R>(&self, (offset, bytes): (u64, usize), look: impl FnOnce(&[u8]) -> Decoded<R>) -> Result<R> {
        let in_file = |error: Malformed| error.in_file(&self.path, offset);
        if bytes > RAW_BYTES {
            return look(&self.read(offset, bytes)?).map_err(in_file);
        }
        RAW.with_borrow_mut(|raw| {
            if raw.len() < bytes {
                raw.resize(bytes.next_power_of_two(), 0);
            }
            let raw = &mut raw[..bytes];
            self.file.read_into(offset, raw)?;
            look(raw).map_err(in_file)
        })
    }

    pub(super) fn values(&self, page: usize) -> Result<Arc<BytesPage>> {
        if let Some(values) = self.slots.get(page, |held| &held.values) {
            return Ok(values);
        }
        let values = self.decode_values(page, &self.raw(page, VALUE)?)?;
        if self.slots.admits(page, VALUE) {
            self.slots.keep(page, |held| &held.values, &values);
        }
        Ok(values)
    }

    /// One value, and no more than that where its page is not kept.
    fn value(&self, page: usize, row: usize) -> Result<Bytes> {
        if let Some(value) = self.slots.look(page, |held| &held.values, |values| values.slice(row)) {
            return Ok(value);
        }
        if self.slots.admits(page, VALUE) {
            let values = self.decode_values(page, &self.raw(page, VALUE)?)?;
            self.slots.keep(page, |held| &held.values, &values);
            return Ok(values.slice(row));
        }
        let (mut offset, mut row) = (self.index.pages[page].offsets[VALUE], row);
        for part in self.index.values(page) {
            if row < part.rows as usize {
                let place = (offset, part.bytes as usize);
                if part.rows == 1 {
                    return self.look(place, |raw| page::lone(raw, part.checksums));
                }
                let copy = |page: Glance<'_>| Bytes::copy_from_slice(page.get(row));
                let rows = part.rows as usize;
                return self.look(place, |raw| page::glance(raw, part.checksums, rows, copy));
            }
            row -= part.rows as usize;
            offset += u64::from(part.bytes);
        }
        Err(self.corrupt(page, VALUE, "fewer values than keys"))
    }

    /// A page of one of the columns from [`SEQ`] on.
    pub(super) fn ints(&self, page: usize, column: usize) -> Result<Arc<IntsPage>> {
        match self.slots.get(page, |held| &held.ints[column - SEQ]) {
            Some(ints) => Ok(ints),
            None => self.read_ints(page, column),
        }
    }

    /// A row of such a page.
    fn int(&self, page: usize, column: usize, row: usize) -> Result<i64> {
        match self.slots.look(page, |held| &held.ints[column - SEQ], |ints| ints.get(row)) {
            Some(int) => Ok(int),
            None => Ok(self.read_ints(page, column)?.get(row)),
        }
    }

    fn read_ints(&self, page: usize, column: usize) -> Result<Arc<IntsPage>> {
        let ints = self.decode_ints(page, column, &self.raw(page, column)?)?;
        self.slots.keep(page, |held| &held.ints[column - SEQ], &ints);
        Ok(ints)
    }

    /// False if the filter of a row group tells that no key of it has this hash.
    fn may_hold(&self, group: &GroupEntry, hash: u64) -> Result<bool> {
        let page = group.first_page;
        if let Some(may_hold) = self.slots.look(page, |held| &held.filter, |filter| filter.may_hold(hash)) {
            return Ok(may_hold);
        }
        let filter = Arc::new(self.read_filter(group)?);
        self.slots.keep(page, |held| &held.filter, &filter);
        Ok(filter.may_hold(hash))
    }

    pub(super) fn read_filter(&self, group: &GroupEntry) -> Result<Filter> {
        let raw = self.read(group.filter_offset, group.filter_bytes as usize)?;
        if xxhash_rust::xxh64::xxh64(&raw, 0) != group.filter_hash {
            return Err(self.corrupt_at(group.filter_offset, "the checksum of the filter does not match"));
        }
        Filter::decode(&raw).map_err(|error| error.in_file(&self.path, group.filter_offset))
    }

    pub(super) fn cache_bytes_max(&self) -> u64 {
        self.slots.bytes_max()
    }

    /// What the cache has of a page, for a walk that comes by.
    pub(super) fn passed(&self, page: usize) -> Passed {
        self.slots.pass(page)
    }

    /// Tells the cache of the rows of a page that a reader walks over.
    pub(super) fn pass(&self, page: usize, rows: &Rows) {
        if !self.slots.admits_passing(page) {
            return;
        }
        let Rows { keys, values, seqs, kinds, expiries } = rows;
        if self.slots.lacks(page, |held| &held.keys, &**keys) {
            let own = keys.apart().map_or_else(|| Arc::clone(keys), Arc::new);
            self.slots.keep(page, |held| &held.keys, &own);
        }
        if self.slots.lacks(page, |held| &held.values, &**values) {
            let own = values.apart().map_or_else(|| Arc::clone(values), Arc::new);
            self.slots.keep(page, |held| &held.values, &own);
        }
        for (column, ints) in [(SEQ, Some(seqs)), (KIND, kinds.as_ref()), (EXPIRY, expiries.as_ref())] {
            if let Some(ints) = ints {
                self.slots.keep(page, |held| &held.ints[column - SEQ], ints);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn cached_bytes(&self) -> u64 {
        self.slots.bytes()
    }

    // --- From raw bytes ------------------------------------------------------

    pub(super) fn decode_keys(&self, page: usize, raw: &Bytes) -> Result<Arc<KeysPage>> {
        let keys = self.decode(page, KEY, raw, BytesPage::decode)?;
        Ok(Arc::new(KeysPage::new(keys)))
    }

    pub(super) fn decode_values(&self, page: usize, raw: &Bytes) -> Result<Arc<BytesPage>> {
        let values = page::join(raw, self.index.values(page));
        values.map(Arc::new).map_err(|error| error.in_file(&self.path, self.index.pages[page].offsets[VALUE]))
    }

    pub(super) fn decode_ints(&self, page: usize, column: usize, raw: &Bytes) -> Result<Arc<IntsPage>> {
        self.decode(page, column, raw, |body, rows| IntsPage::decode(&body, rows)).map(Arc::new)
    }

    pub(super) fn check(&self, page: usize, column: usize, raw: &[u8]) -> Result<Written> {
        let entry = &self.index.pages[page];
        page::check(raw, entry.checksums[column])
            .map_err(|error| error.in_file(&self.path, entry.offsets[column]))
    }

    /// What the pages of values in `raw` were written as, each and all.
    pub(super) fn check_values(&self, page: usize, raw: &[u8]) -> Result<(Vec<ValuePage>, Written)> {
        let (mut parts, mut all) = (Vec::new(), Written::default());
        self.each_of_values(page, raw, |raw, part| {
            let written = page::check(raw, part.checksums)?;
            parts.push(ValuePage { checksums: written.checksums, ..*part });
            all.bytes += written.bytes;
            all.uncompressed += written.uncompressed;
            Ok(())
        })?;
        Ok((parts, all))
    }

    pub(super) fn check_crc(&self, page: usize, column: usize, raw: &[u8]) -> Result<()> {
        let offset = self.index.pages[page].offsets[column];
        match column {
            VALUE => self.each_of_values(page, raw, |raw, _| page::check_crc(raw)),
            _ => page::check_crc(raw).map_err(|error| error.in_file(&self.path, offset)),
        }
    }

    /// Looks at each page of values in `raw`.
    fn each_of_values(
        &self,
        page: usize,
        raw: &[u8],
        mut look: impl FnMut(&[u8], &ValuePage) -> Decoded<()>,
    ) -> Result<()> {
        let mut at = 0;
        for part in self.index.values(page) {
            let end = at + part.bytes as usize;
            look(&raw[at..end], part).map_err(|error| {
                error.in_file(&self.path, self.index.pages[page].offsets[VALUE] + at as u64)
            })?;
            at = end;
        }
        Ok(())
    }

    fn decode<T>(
        &self,
        page: usize,
        column: usize,
        raw: &Bytes,
        decode: impl FnOnce(Bytes, usize) -> Decoded<T>,
    ) -> Result<T> {
        let entry = &self.index.pages[page];
        let rows = entry.rows as usize;
        let body = page::open(raw, entry.checksums[column], rows, CONTENTS[column]);
        let decoded = body.and_then(|body| decode(body, rows));
        decoded.map_err(|error: Malformed| error.in_file(&self.path, entry.offsets[column]))
    }
}
