//! The index of a table in memory: where its pages are and what they may hold.

use std::hint::black_box;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use parquet::basic::Compression as Codec;
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::reader::{ChunkReader, Length};

use super::integrity::{Integrity, PageChecksums};
use super::keys::Heads;
use super::page::ValuePage;
use super::schema::{self, EXPIRY, KEY, KIND, SEQ, VALUE};
use super::{COLUMNS_MAX, TableMeta};
use crate::error::{Error, Result};
use crate::key::ValueKind;
use crate::options::Compression;
use crate::range_delete::RangeDeletes;

/// Bytes before the first page.
pub(super) const MAGIC: &[u8; 4] = b"PAR1";

/// Where the pages of a table are.
#[derive(Debug)]
pub(super) struct Index {
    pub pages: Vec<PageEntry>,
    /// The pages of values.
    values: Vec<ValuePage>,
    pub groups: Vec<GroupEntry>,
    /// Lower bounds of the keys of all pages, one after another.
    bounds: Vec<u8>,
    /// Where each bound ends.
    ends: Vec<u32>,
    heads: Heads,
    /// Those of the first pages of row groups.
    group_heads: Heads,
    pub range_deletes: Arc<RangeDeletes>,
    /// There is a column of expiries.
    pub expires: bool,
    /// Of the values.
    pub compression: Compression,
}

/// A page of each column, and one or more of values.
#[derive(Clone, Debug)]
pub(super) struct PageEntry {
    pub offsets: [u64; COLUMNS_MAX],
    /// Of the column of values: of all of its pages, which lie end to end.
    pub bytes: [u32; COLUMNS_MAX],
    pub checksums: PageChecksums,
    /// Which pages of values.
    values: Range<u32>,
    pub rows: u32,
    /// True if the page before may end with the key that this one begins with.
    pub goes_on: bool,
    /// True if all rows have one key, and that is the page's bound.
    pub one_key: bool,
    pub seq_min: i64,
    pub seq_max: i64,
    /// The kind of all rows, if they share it.
    pub kind: Option<ValueKind>,
    /// The earliest and the latest expiry; `(0, 0)` if no row expires.
    pub expiries: (i64, i64),
}

/// A row group.
#[derive(Clone, Debug)]
pub(super) struct GroupEntry {
    /// Its first page.
    pub first_page: usize,
    pub filter_offset: u64,
    pub filter_bytes: u32,
    pub filter_hash: u64,
}

impl Index {
    /// Decodes the tail of the file at `path`, whose checksum has been checked,
    /// and makes sure that pages and filters lie end to end and agree with the
    /// manifest.
    pub fn decode(tail: &Bytes, path: &str, meta: &TableMeta) -> Result<Index> {
        let decoded = Integrity::decode(tail);
        let (integrity, _) = decoded.map_err(|error| error.in_file(path, meta.tail_offset))?;
        let refuse = |what: String| Error::corruption(path, meta.tail_offset, what);
        let source = Tail { bytes: tail.clone(), offset: meta.tail_offset };
        let metadata = ParquetMetaDataReader::new()
            .with_page_index_policy(PageIndexPolicy::Required)
            .parse_and_finish(&source)
            .map_err(|error| refuse(format!("the footer does not decode: {error}")))?;
        let index = build(&metadata, integrity, meta).ok_or_else(|| {
            refuse("the footer contradicts itself, the private block or the manifest".to_owned())
        })?;
        Ok(index)
    }

    /// The pages of values of a page.
    pub fn values(&self, page: usize) -> &[ValuePage] {
        let Range { start, end } = self.pages[page].values;
        &self.values[start as usize..end as usize]
    }

    /// Reads some of each line of memory of what is known of a page.
    #[inline]
    pub fn bring_near(&self, page: usize) {
        let PageEntry { offsets, bytes, checksums, rows, seq_max, expiries, .. } = &self.pages[page];
        let sum = offsets[0] ^ offsets[COLUMNS_MAX - 1] ^ u64::from(bytes[COLUMNS_MAX - 1] ^ rows);
        let ends = checksums[0].crc ^ checksums[COLUMNS_MAX / 2].crc ^ checksums[COLUMNS_MAX - 1].crc;
        black_box((sum, ends, seq_max ^ expiries.1));
    }

    /// Reads what is known of the pages of values of a page, which will be needed after a
    /// read from the file: the memory comes meanwhile.
    pub fn bring_values_near(&self, page: usize) {
        black_box(self.values(page).iter().fold(0, |sum, values| sum ^ values.bytes));
    }

    /// Lower bound of the keys of a page.
    pub fn bound(&self, page: usize) -> &[u8] {
        let start = page.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.bounds[start..self.ends[page] as usize]
    }

    /// The last page whose lower bound is at or below `key`.
    pub fn last_at_or_below(&self, key: &[u8]) -> Option<usize> {
        Some(self.last_in_group(self.group_at_or_below(key)?, key))
    }

    /// The row group of that page. There are few: they are searched without a wait for
    /// memory, as the pages are not.
    #[inline]
    pub fn group_at_or_below(&self, key: &[u8]) -> Option<usize> {
        let bound = |group: usize| self.bound(self.groups[group].first_page);
        self.group_heads.up_to(key, 0..self.groups.len(), bound).checked_sub(1)
    }

    /// That page, given its row group.
    pub fn last_in_group(&self, group: usize, key: &[u8]) -> usize {
        let pages = self.groups[group].first_page..self.end_of(group);
        self.heads.up_to(key, pages.start + 1..pages.end, |page| self.bound(page)) - 1
    }

    /// The first page that may hold `key`, given the last one that may.
    pub fn first_holding(&self, key: &[u8], last: usize) -> usize {
        let mut page = last;
        while page > 0 && self.pages[page].goes_on && self.bound(page) == key {
            page -= 1;
        }
        page
    }

    /// The row group of a page.
    pub fn group_of(&self, page: usize) -> &GroupEntry {
        let after = self.groups.partition_point(|group| group.first_page <= page);
        &self.groups[after.saturating_sub(1)]
    }

    /// One past the last page of the row group of a page.
    pub fn group_end(&self, page: usize) -> usize {
        let after = self.groups.partition_point(|group| group.first_page <= page);
        self.end_of(after.saturating_sub(1))
    }

    /// One past the last page of a row group.
    fn end_of(&self, group: usize) -> usize {
        self.groups.get(group + 1).map_or(self.pages.len(), |after| after.first_page)
    }
}

/// `None` where anything contradicts anything.
fn build(metadata: &ParquetMetaData, integrity: Integrity, meta: &TableMeta) -> Option<Index> {
    let columns_count = integrity.columns();
    let file = metadata.file_metadata();
    if !schema::is_ours(file.schema_descr(), columns_count)
        || u64::try_from(file.num_rows()).ok()? != meta.entries()
    {
        return None;
    }
    if integrity.filters.len() != metadata.num_row_groups()
        || integrity.range_deletes.len() as u64 != meta.range_deletes
        || (meta.expires() && !integrity.expires)
    {
        return None;
    }
    let mut index = Index {
        pages: Vec::with_capacity(integrity.pages.len()),
        values: Vec::with_capacity(integrity.values.len()),
        groups: Vec::with_capacity(integrity.filters.len()),
        bounds: Vec::new(),
        ends: Vec::with_capacity(integrity.pages.len()),
        heads: Heads::default(),
        group_heads: Heads::default(),
        range_deletes: Arc::new(integrity.range_deletes),
        expires: integrity.expires,
        compression: Compression::Snappy,
    };
    let (mut checksums, mut value_checksums) = (integrity.pages.iter(), integrity.values.iter());
    let mut offset = MAGIC.len() as u64;
    let mut total_rows = 0;
    let mut upper_before: Vec<u8> = Vec::new();
    for (ordinal, group) in metadata.row_groups().iter().enumerate() {
        let indexes = metadata.page_index_for_row_group(ordinal);
        let columns = (0..columns_count).map(|column| indexes.page_locations(column));
        let columns = columns.collect::<Option<Vec<_>>>()?;
        let keys = columns[KEY];
        let (Some(ColumnIndexMetaData::BYTE_ARRAY(key_bounds)), Some(ColumnIndexMetaData::INT64(seq_bounds))) =
            (indexes.column_index(KEY), indexes.column_index(SEQ))
        else {
            return None;
        };
        let Some(ColumnIndexMetaData::INT32(kind_bounds)) = indexes.column_index(KIND) else { return None };
        let expiry_bounds = match indexes.column_index(EXPIRY).filter(|_| integrity.expires) {
            Some(ColumnIndexMetaData::INT64(bounds)) => Some(bounds),
            None if !integrity.expires => None,
            _ => return None,
        };
        let pages = keys.len();
        if pages == 0
            || columns.iter().enumerate().any(|(column, of)| column != VALUE && of.len() != pages)
            || group.num_columns() != columns_count
        {
            return None;
        }
        let first_page = index.pages.len();
        let group_rows = group.num_rows();
        let mut values = columns[VALUE].iter().peekable();
        for page in 0..pages {
            let first_row = keys[page].first_row_index;
            let end_row = keys.get(page + 1).map_or(group_rows, |next| next.first_row_index);
            let aligned = |column: usize| columns[column][page].first_row_index == first_row;
            let aligned = (0..columns_count).filter(|column| *column != VALUE).all(aligned);
            let rows = u32::try_from(end_row.checked_sub(first_row)?).ok()?;
            if !aligned || rows == 0 || (page == 0 && first_row != 0) {
                return None;
            }
            total_rows += u64::from(rows);
            let lower = key_bounds.min_value(page)?;
            index.bounds.extend_from_slice(lower);
            index.ends.push(u32::try_from(index.bounds.len()).ok()?);
            let kind_min = *kind_bounds.min_value(page)?;
            let kind = (kind_min == *kind_bounds.max_value(page)?).then_some(kind_min);
            let kind = kind.map(|kind| ValueKind::from_byte(u8::try_from(kind).ok()?));
            let mut entry = PageEntry {
                offsets: [0; COLUMNS_MAX],
                bytes: [0; COLUMNS_MAX],
                checksums: *checksums.next()?,
                values: u32::try_from(index.values.len()).ok()?..0,
                rows,
                goes_on: page > 0 && upper_before.as_slice() >= lower,
                // A bound that is cut short is below the key, or above it.
                one_key: key_bounds.max_value(page)? == lower,
                seq_min: *seq_bounds.min_value(page)?,
                seq_max: *seq_bounds.max_value(page)?,
                kind: match kind {
                    Some(kind) => Some(kind?),
                    None => None,
                },
                expiries: match expiry_bounds {
                    Some(bounds) => (*bounds.min_value(page)?, *bounds.max_value(page)?),
                    None => (0, 0),
                },
            };
            for (column, locations) in columns.iter().enumerate().filter(|(column, _)| *column != VALUE) {
                entry.offsets[column] = u64::try_from(locations[page].offset).ok()?;
                entry.bytes[column] = u32::try_from(locations[page].compressed_page_size).ok()?;
            }
            let mut at = first_row;
            entry.offsets[VALUE] = u64::try_from(values.peek()?.offset).ok()?;
            while at < end_row {
                let location = values.next_if(|location| location.first_row_index == at)?;
                let end = entry.offsets[VALUE].checked_add(u64::from(entry.bytes[VALUE]));
                if u64::try_from(location.offset).ok() != end {
                    return None;
                }
                let next = values.peek().map_or(group_rows, |next| next.first_row_index);
                let rows = u32::try_from(next.checked_sub(at)?).ok().filter(|rows| *rows > 0)?;
                let bytes = u32::try_from(location.compressed_page_size).ok()?;
                index.values.push(ValuePage { rows, bytes, checksums: *value_checksums.next()? });
                entry.bytes[VALUE] = entry.bytes[VALUE].checked_add(bytes)?;
                at = next;
            }
            if at != end_row {
                return None;
            }
            entry.values.end = u32::try_from(index.values.len()).ok()?;
            upper_before.clear();
            upper_before.extend_from_slice(key_bounds.max_value(page)?);
            index.pages.push(entry);
        }
        if values.next().is_some() {
            return None;
        }
        for column in 0..columns_count {
            for page in &index.pages[first_page..] {
                if page.offsets[column] != offset {
                    return None;
                }
                offset = offset.checked_add(u64::from(page.bytes[column]))?;
            }
        }
        if group.column(VALUE).compression() == Codec::UNCOMPRESSED {
            index.compression = Compression::None;
        }
        let key_chunk = group.column(KEY);
        let filter_offset = u64::try_from(key_chunk.bloom_filter_offset()?).ok()?;
        let filter_bytes = u32::try_from(key_chunk.bloom_filter_length()?).ok()?;
        if filter_offset != offset {
            return None;
        }
        offset = offset.checked_add(u64::from(filter_bytes))?;
        let filter_hash = *integrity.filters.get(ordinal)?;
        index.groups.push(GroupEntry { first_page, filter_offset, filter_bytes, filter_hash });
    }
    let no_more = checksums.next().is_none() && value_checksums.next().is_none();
    let whole = offset == meta.tail_offset && total_rows == meta.entries() && no_more;
    let sorted = (1..index.pages.len()).all(|page| index.bound(page - 1) <= index.bound(page));
    if !whole || !sorted {
        return None;
    }
    index.heads = Heads::new(index.pages.len(), |page| index.bound(page));
    index.group_heads = Heads::new(index.groups.len(), |group| index.bound(index.groups[group].first_page));
    Some(index)
}

/// The tail in memory, for the decoder of footers, which thinks that it reads
/// the file.
struct Tail {
    bytes: Bytes,
    offset: u64,
}

impl Length for Tail {
    fn len(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

impl Tail {
    fn from(&self, start: u64) -> parquet::errors::Result<Bytes> {
        let start = start.checked_sub(self.offset).and_then(|start| usize::try_from(start).ok());
        let start = start.filter(|start| *start <= self.bytes.len());
        let outside = || ParquetError::General("the footer refers to bytes before it".to_owned());
        Ok(self.bytes.slice(start.ok_or_else(outside)?..))
    }
}

impl ChunkReader for Tail {
    type T = io::Cursor<Bytes>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        Ok(io::Cursor::new(self.from(start)?))
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let mut bytes = self.from(start)?;
        if length > bytes.remaining() {
            return Err(ParquetError::EOF("the footer refers to bytes after it".to_owned()));
        }
        Ok(bytes.split_to(length))
    }
}
