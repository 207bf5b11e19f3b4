//! Writes an SSTable, one row group in memory at a time.

use std::cmp::Ordering;
use std::io::{self, Write};
use std::sync::Arc;

use parquet::basic::{BoundaryOrder, Compression as Codec, Encoding, EncodingMask, Type as PhysicalType};
use parquet::data_type::ByteArray;
use parquet::file::metadata::page_index::{PageIndex, PageIndexBuilder};
use parquet::file::metadata::{
    ColumnChunkMetaData, ColumnChunkMetaDataBuilder, ColumnIndexBuilder, FileMetaData, KeyValue,
    OffsetIndexBuilder, ParquetMetaDataBuilder, ParquetMetaDataWriter, RowGroupMetaData,
};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::page_index::offset_index::OffsetIndexMetaData;
use parquet::file::statistics::{Statistics, ValueStatistics};
use parquet::file::writer::TrackedWrite;
use parquet::schema::types::SchemaDescriptor;
use xxhash_rust::xxh64::Xxh64;

use super::bounds;
use super::filter::{self, hash_key};
use super::integrity::Integrity;
use super::page::{PageEncoder, PageTooLarge, ValuePage, Written};
use super::schema::{self, EXPIRY, KEY, KIND, SEQ, VALUE};
use super::stored::StoredPage;
use super::{COLUMNS_MAX, TableIdentity, TableMeta, TableOptions};
use crate::error::{Error, Result};
use crate::key::{EntryRef, Expiry, SequenceNumber, ValueKind};
use crate::options::Compression;
use crate::range_delete::RangeDeletes;
use crate::storage::AppendFile;
use crate::sync::{Mutex, lock};

/// Bytes of a buffer that are kept for the next page: more than a page has, but for
/// one of long values.
const BUFFER_BYTES: usize = 1 << 20;

/// Bytes of a piece of a column chunk, roughly: it ends with a page.
const PIECE_BYTES: usize = 256 << 10;

/// Bytes that are written to the file at once, at a multiple of this. Linux keeps a file in
/// memory in pieces as large as the calls were that wrote it, up to 2 MiB; reads of one
/// row find large pieces faster, by up to a quarter of all that they take. More bytes than
/// this are out of a processor's cache before they are written.
const LOT_BYTES: usize = 512 << 10;

/// Pages grow past their limits by this factor rather than part the versions of
/// a key.
const STRETCH: usize = 4;

/// An SSTable being written. Entries come in order; nothing counts before
/// [`TableWriter::finish`].
pub struct TableWriter {
    name: String,
    identity: TableIdentity,
    options: TableOptions,
    schema: Arc<SchemaDescriptor>,
    sink: Sink,
    out: TrackedWrite<Sink>,
    encoder: PageEncoder,
    page: PageRows,
    group: GroupRows,
    integrity: Integrity,
    /// Bytes written when the file was last synced.
    synced: usize,
    row_groups: Vec<RowGroupMetaData>,
    column_indexes: Vec<Vec<Option<ColumnIndexMetaData>>>,
    offset_indexes: Vec<Vec<Option<OffsetIndexMetaData>>>,
    /// What is known of the pages so far, the last key apart; `None` before the
    /// first.
    meta: Option<TableMeta>,
    last_seq: SequenceNumber,
    /// Last key of the page before the one being filled.
    last_of_page: Vec<u8>,
}

/// Rows of the page that is being filled.
#[derive(Default)]
struct PageRows {
    keys: Vec<u8>,
    key_lengths: Vec<i64>,
    values: Vec<u8>,
    value_lengths: Vec<i64>,
    seqs: Vec<i64>,
    kinds: Vec<i64>,
    expiries: Vec<i64>,
}

impl PageRows {
    fn rows(&self) -> usize {
        self.seqs.len()
    }

    /// The key of the first row; there must be one.
    fn first_key(&self) -> &[u8] {
        &self.keys[..self.key_lengths[0] as usize]
    }

    /// The key of the last row.
    fn last_key(&self) -> Option<&[u8]> {
        let len = *self.key_lengths.last()? as usize;
        Some(&self.keys[self.keys.len() - len..])
    }

    fn clear(&mut self) {
        self.keys.clear();
        self.keys.shrink_to(BUFFER_BYTES);
        self.key_lengths.clear();
        self.values.clear();
        self.values.shrink_to(BUFFER_BYTES);
        self.value_lengths.clear();
        self.seqs.clear();
        self.kinds.clear();
        self.expiries.clear();
    }
}

/// Encoded pages of a column, in pieces: one long vector would be copied as it grows,
/// and take twice its bytes.
#[derive(Default)]
struct Chunk {
    pieces: Vec<Vec<u8>>,
}

impl Chunk {
    /// Where the next page goes.
    fn end(&mut self) -> &mut Vec<u8> {
        match self.pieces.last() {
            Some(last) if last.len() < PIECE_BYTES => {}
            _ => self.pieces.push(Vec::new()),
        }
        let last = self.pieces.len() - 1;
        &mut self.pieces[last]
    }

    fn len(&self) -> usize {
        self.pieces.iter().map(Vec::len).sum()
    }
}

/// The row group that is being filled: its encoded pages.
#[derive(Default)]
struct GroupRows {
    chunks: [Chunk; COLUMNS_MAX],
    /// Bytes of all chunks.
    bytes: usize,
    /// Bytes of each chunk before compression.
    uncompressed: [usize; COLUMNS_MAX],
    pages: Vec<PageInfo>,
    values: Vec<ValuePage>,
    hashes: Vec<u64>,
    rows: usize,
}

/// A lower and an upper bound, as the column index has them.
type Bounds = (Vec<u8>, Vec<u8>);

/// A page that is in the chunks of its row group.
struct PageFacts<'a> {
    rows: usize,
    written: [Written; COLUMNS_MAX],
    values: &'a [ValuePage],
    /// Its first and last key.
    first: &'a [u8],
    last: &'a [u8],
    seqs: (i64, i64),
    kinds: (i64, i64),
    expiries: (i64, i64),
}

/// A page of every column.
struct PageInfo {
    rows: usize,
    /// Bytes in each column.
    bytes: [usize; COLUMNS_MAX],
    key_bounds: Bounds,
    seqs: (i64, i64),
    kinds: (i64, i64),
    expiries: (i64, i64),
}

impl TableWriter {
    /// Begins a table in `file`, named `name` in errors.
    pub fn new(
        file: Box<dyn AppendFile>,
        name: String,
        identity: TableIdentity,
        options: TableOptions,
    ) -> Result<TableWriter> {
        let state = SinkState { file, lot: Vec::new(), failure: None, tail: None };
        let sink = Sink(Arc::new(Mutex::new(state)));
        let integrity = Integrity { expires: options.expires, ..Integrity::default() };
        let mut writer = TableWriter {
            schema: schema::schema(integrity.columns()).map_err(|error| refused(&name, &error))?,
            out: TrackedWrite::new(sink.clone()),
            sink,
            name,
            identity,
            options,
            encoder: PageEncoder::default(),
            page: PageRows::default(),
            group: GroupRows::default(),
            integrity,
            synced: 0,
            row_groups: Vec::new(),
            column_indexes: Vec::new(),
            offset_indexes: Vec::new(),
            meta: None,
            last_seq: SequenceNumber(0),
            last_of_page: Vec::new(),
        };
        writer.write(b"PAR1")?;
        Ok(writer)
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// `InvalidArgument` unless it comes after the one before in internal-key
    /// order; `Io`. After an error the table is given up.
    pub fn add(&mut self, entry: EntryRef<'_>) -> Result<()> {
        let order = self.last_key().map_or(Ordering::Less, |last| last.cmp(entry.key));
        if order.is_gt() || (order.is_eq() && entry.seq >= self.last_seq) {
            return Err(Error::invalid(format!("{}: entries must come in order", self.name)));
        }
        let new_key = order.is_lt();
        self.cut(new_key, entry.value.len())?;
        let page = &mut self.page;
        page.keys.extend_from_slice(entry.key);
        page.key_lengths.push(entry.key.len() as i64);
        page.values.extend_from_slice(entry.value);
        page.value_lengths.push(entry.value.len() as i64);
        page.seqs.push(entry.seq.0 as i64);
        page.kinds.push(i64::from(entry.kind as u8));
        if self.options.expires {
            page.expiries.push(entry.expires_at.0 as i64);
        } else if entry.expires_at != Expiry::NEVER {
            return Err(Error::invalid(format!("{}: the table has no column of expiries", self.name)));
        }
        if new_key {
            self.group.hashes.push(hash_key(entry.key));
        }
        self.last_seq = entry.seq;
        Ok(())
    }

    /// Adds a page as it is stored; false if its entries had better be added one by
    /// one: it is laid out in another way, or it or the one before it would be small.
    ///
    /// # Errors
    /// As [`TableWriter::add`].
    pub fn add_page(&mut self, page: &StoredPage) -> Result<bool> {
        let TableOptions { page_rows, page_value_bytes, .. } = self.options;
        let fair = |rows: usize, bytes: usize| rows >= page_rows / 2 || bytes >= page_value_bytes / 2;
        let (rows, value_bytes) = (self.page.rows(), self.page.values.len());
        let bytes = page.written[VALUE].uncompressed;
        let ends_before = page.rows() == 1 && self.options.is_long(bytes);
        if (page.compression, page.expires) != (self.options.compression, self.options.expires)
            || !fair(page.rows(), bytes)
            || (rows > 0 && !fair(rows, value_bytes) && !ends_before)
        {
            return Ok(false);
        }
        if self.last_key().is_some_and(|last| last >= page.first_key()) {
            return Err(Error::invalid(format!("{}: entries must come in order", self.name)));
        }
        self.finish_page()?;
        self.finish_full_group()?;
        for (chunk, raw) in self.group.chunks.iter_mut().zip(&page.raw) {
            chunk.end().extend_from_slice(raw);
        }
        self.group.hashes.extend((0..page.rows()).map(|row| hash_key(page.keys.get(row))));
        self.last_seq = page.last_seq;
        let put = i64::from(ValueKind::Put as u8);
        let facts = PageFacts {
            rows: page.rows(),
            written: page.written,
            values: &page.values,
            first: page.first_key(),
            last: page.last_key(),
            seqs: page.seqs,
            kinds: (put, put),
            expiries: page.expiries,
        };
        self.note_page(&facts);
        let meta = self.meta_from(facts.first, facts.seqs);
        meta.puts += page.rows() as u64;
        for expiry in [page.expiries.0, page.expiries.1] {
            meta.note_expiry(Expiry(expiry as u64));
        }
        Ok(true)
    }

    /// Adds range tombstones; they count from [`TableWriter::finish`] on. Call it
    /// at most once.
    pub fn add_range_deletes(&mut self, range_deletes: RangeDeletes) {
        self.integrity.range_deletes = range_deletes;
    }

    /// Takes a page that is in the chunks into what is known of them.
    fn note_page(&mut self, page: &PageFacts<'_>) {
        let group = &mut self.group;
        for (total, written) in group.uncompressed.iter_mut().zip(&page.written) {
            *total += written.uncompressed;
        }
        group.pages.push(PageInfo {
            rows: page.rows,
            bytes: page.written.map(|page| page.bytes),
            key_bounds: (bounds::lower(&self.last_of_page, page.first), bounds::upper(page.last)),
            seqs: page.seqs,
            kinds: page.kinds,
            expiries: page.expiries,
        });
        group.values.extend_from_slice(page.values);
        group.rows += page.rows;
        group.bytes += page.written.iter().map(|page| page.bytes).sum::<usize>();
        self.last_of_page.clear();
        self.last_of_page.extend_from_slice(page.last);
        self.integrity.pages.push(page.written.map(|page| page.checksums));
        self.integrity.values.extend(page.values.iter().map(|page| page.checksums));
    }

    /// What is known of the table, after a page that begins with `first`.
    fn meta_from(&mut self, first: &[u8], seqs: (i64, i64)) -> &mut TableMeta {
        let (seq_min, seq_max) = (SequenceNumber(seqs.0 as u64), SequenceNumber(seqs.1 as u64));
        let meta = self.meta.get_or_insert_with(|| TableMeta {
            expires_min: u64::MAX,
            ..empty(&self.identity, first, seq_min)
        });
        meta.seq_min = meta.seq_min.min(seq_min);
        meta.seq_max = meta.seq_max.max(seq_max);
        meta
    }

    fn last_key(&self) -> Option<&[u8]> {
        let before = || self.meta.is_some().then_some(self.last_of_page.as_slice());
        self.page.last_key().or_else(before)
    }

    /// Bytes written and waiting to be written, roughly what the file would
    /// have if it were finished now.
    pub fn estimated_bytes(&self) -> u64 {
        let waiting = self.group.bytes + self.page.keys.len() + self.page.values.len();
        (self.out.bytes_written() + waiting) as u64
    }

    /// True if the last entry has this key.
    pub fn ends_with(&self, key: &[u8]) -> bool {
        self.last_key() == Some(key)
    }

    /// Entries so far.
    pub fn entries(&self) -> u64 {
        self.meta.as_ref().map_or(0, TableMeta::entries) + self.page.rows() as u64
    }

    /// Writes what waits, the indexes and the footer, and syncs the file. The
    /// caller syncs its name.
    ///
    /// # Errors
    /// `InvalidArgument` without entries and range tombstones; `Io`.
    pub fn finish(mut self) -> Result<TableMeta> {
        self.finish_page()?;
        self.finish_group()?;
        let mut meta = self.finish_meta()?;
        self.flush()?;
        let tail_offset = self.out.bytes_written();
        lock(&self.sink.0).tail = Some(Xxh64::new(0));
        let private = self.integrity.encode();
        self.write(&private)?;
        let footer = self.footer(&meta, tail_offset, private.len());
        let columns = self.integrity.columns();
        let TableWriter { name, sink, out, row_groups, column_indexes, offset_indexes, .. } = self;
        let indexes = page_indexes(column_indexes, offset_indexes, columns);
        let metadata = ParquetMetaDataBuilder::new(footer).set_row_groups(row_groups);
        let metadata = metadata.set_page_index(Some(Arc::new(indexes))).build();
        let written = ParquetMetaDataWriter::new_with_tracked(out, &metadata).finish();
        let mut state = lock(&sink.0);
        if let Some(failure) = state.failure.take() {
            return Err(failure);
        }
        written.map_err(|error| refused(&name, &error))?;
        state.write_rest()?;
        state.file.sync_data()?;
        meta.bytes = state.file.len();
        meta.tail_offset = tail_offset as u64;
        meta.tail_checksum = state.tail.as_ref().map_or(0, Xxh64::digest);
        Ok(meta)
    }

    /// What the manifest will say, range tombstones included.
    fn finish_meta(&mut self) -> Result<TableMeta> {
        let range_deletes = &self.integrity.range_deletes;
        let first = range_deletes.iter().next().map(|(start, _, seq)| (start.clone(), seq));
        let ended = |mut meta: TableMeta| {
            meta.key_max = std::mem::take(&mut self.last_of_page);
            meta
        };
        let Some(mut meta) = self
            .meta
            .take()
            .map(ended)
            .or_else(|| first.map(|(start, seq)| empty(&self.identity, &start, seq)))
        else {
            return Err(Error::invalid(format!("{}: a table needs at least one entry", self.name)));
        };
        meta.settle_expiry();
        meta.cover(range_deletes);
        Ok(meta)
    }

    fn footer(&self, meta: &TableMeta, tail_offset: usize, private_bytes: usize) -> FileMetaData {
        let facts = [
            ("duramen.format", "1".to_owned()),
            ("duramen.database", format!("{:016x}", self.identity.database_id)),
            ("duramen.file", meta.number.0.to_string()),
            ("duramen.keyspace", meta.keyspace.0.to_string()),
            ("duramen.level", self.identity.level.to_string()),
            ("duramen.comparator", "bytewise".to_owned()),
            ("duramen.seq_min", meta.seq_min.0.to_string()),
            ("duramen.seq_max", meta.seq_max.0.to_string()),
            ("duramen.private", format!("{tail_offset}:{private_bytes}")),
        ];
        let facts = facts.into_iter().map(|(key, value)| KeyValue::new(key.to_owned(), value)).collect();
        let created_by = format!("duramen version {}", env!("CARGO_PKG_VERSION"));
        let rows = meta.entries() as i64;
        let orders = Some(schema::column_orders(self.integrity.columns()));
        FileMetaData::new(2, rows, Some(created_by), Some(facts), Arc::clone(&self.schema), orders)
    }

    /// Before an entry: ends the page, and the row group, if they are full.
    fn cut(&mut self, new_key: bool, value_bytes: usize) -> Result<()> {
        let rows = self.page.rows();
        let TableOptions { page_rows, page_value_bytes, .. } = self.options;
        let bytes = self.page.values.len() + value_bytes;
        let stretch = if new_key { 1 } else { STRETCH };
        let alone = new_key
            && (self.options.is_long(value_bytes)
                || (rows == 1 && self.options.is_long(self.page.values.len())));
        if rows > 0 && !alone && rows < page_rows * stretch && bytes <= page_value_bytes * stretch {
            return Ok(());
        }
        self.finish_page()?;
        if new_key { self.finish_full_group() } else { Ok(()) }
    }

    /// Encodes the page into the row group.
    fn finish_page(&mut self) -> Result<()> {
        let (page, group) = (&self.page, &mut self.group);
        let rows = page.rows();
        if rows == 0 {
            return Ok(());
        }
        let encoder = &mut self.encoder;
        let expires = self.options.expires;
        let [keys, values, seqs, kinds, expiries] = group.chunks.each_mut().map(Chunk::end);
        let mut value_pages = Vec::new();
        let mut encode = || -> Result<[Written; COLUMNS_MAX], PageTooLarge> {
            Ok([
                encoder.bytes(keys, &page.key_lengths, &page.keys, false)?,
                encode_values(values, page, &self.options, encoder, &mut value_pages)?,
                encoder.ints(seqs, &page.seqs)?,
                encoder.ints(kinds, &page.kinds)?,
                if expires { encoder.ints(expiries, &page.expiries)? } else { Written::default() },
            ])
        };
        let too_large = |PageTooLarge| Error::invalid(format!("{}: a page of more than 2 GiB", self.name));
        let written = encode().map_err(too_large)?;
        let page = std::mem::take(&mut self.page);
        let facts = PageFacts {
            rows,
            written,
            values: &value_pages,
            first: page.first_key(),
            last: page.last_key().unwrap_or_default(),
            seqs: min_max(&page.seqs),
            kinds: min_max(&page.kinds),
            expiries: min_max(&page.expiries),
        };
        self.note_page(&facts);
        let meta = self.meta_from(facts.first, facts.seqs);
        let count = |kind| page.kinds.iter().filter(|other| **other == i64::from(kind as u8)).count() as u64;
        meta.puts += count(ValueKind::Put);
        meta.deletes += count(ValueKind::Delete);
        meta.merges += count(ValueKind::Merge);
        if expires {
            page.expiries.iter().for_each(|expiry| meta.note_expiry(Expiry(*expiry as u64)));
        } else {
            meta.note_expiry(Expiry::NEVER);
        }
        self.page = page;
        self.page.clear();
        Ok(())
    }

    /// Ends the row group if it is full. The next key must be another: a key belongs to
    /// one row group, so that one filter answers for it.
    fn finish_full_group(&mut self) -> Result<()> {
        let TableOptions { row_group_rows, row_group_bytes, .. } = self.options;
        if self.group.rows >= row_group_rows || self.group.bytes >= row_group_bytes {
            self.finish_group()?;
        }
        Ok(())
    }

    /// Writes the row group: its chunks, then its filter.
    fn finish_group(&mut self) -> Result<()> {
        if self.group.rows == 0 {
            return Ok(());
        }
        self.sync_written()?;
        let group = std::mem::take(&mut self.group);
        let group_offset = self.out.bytes_written();
        let filter = filter::build(&group.hashes, self.options.bloom_bits_per_key);
        let filter_offset = group_offset + group.bytes;
        let column_count = self.integrity.columns();
        let mut chunks = Vec::with_capacity(column_count);
        let mut offset_indexes = Vec::with_capacity(column_count);
        for (column, chunk) in group.chunks.iter().enumerate().take(column_count) {
            let offset = self.out.bytes_written();
            for piece in &chunk.pieces {
                self.write(piece)?;
            }
            offset_indexes.push(Some(match column {
                VALUE => offset_index(offset, group.values.iter().map(|page| (page.bytes, page.rows))),
                _ => offset_index(
                    offset,
                    group.pages.iter().map(|page| (page.bytes[column] as u32, page.rows as u32)),
                ),
            }));
            let chunk = self.chunk(&group, column, offset);
            chunks.push(match column {
                KEY => chunk
                    .set_bloom_filter_offset(Some(filter_offset as i64))
                    .set_bloom_filter_length(Some(filter.len() as i32)),
                _ => chunk,
            });
        }
        self.write(&filter)?;
        self.integrity.filters.push(xxhash_rust::xxh64::xxh64(&filter, 0));
        let build = || -> parquet::errors::Result<_> {
            let columns = chunks.into_iter().map(|chunk| chunk.build()).collect::<Result<Vec<_>, _>>()?;
            let row_group = RowGroupMetaData::builder(Arc::clone(&self.schema))
                .set_num_rows(group.rows as i64)
                .set_total_byte_size(group.uncompressed.iter().sum::<usize>() as i64)
                .set_ordinal(self.row_groups.len() as i32)
                .set_file_offset(group_offset as i64)
                .set_sorting_columns(Some(schema::sorting_columns()))
                .set_column_metadata(columns);
            Ok((row_group.build()?, column_indexes(&group.pages, column_count)?))
        };
        let (row_group, indexes) = build().map_err(|error| refused(&self.name, &error))?;
        self.row_groups.push(row_group);
        self.column_indexes.push(indexes);
        self.offset_indexes.push(offset_indexes);
        Ok(())
    }

    fn chunk(&self, group: &GroupRows, column: usize, offset: usize) -> ColumnChunkMetaDataBuilder {
        let codec = match self.options.compression {
            Compression::Snappy if column == VALUE => Codec::SNAPPY,
            _ => Codec::UNCOMPRESSED,
        };
        let encoding = match column {
            KEY | VALUE => Encoding::DELTA_LENGTH_BYTE_ARRAY,
            _ => Encoding::DELTA_BINARY_PACKED,
        };
        let chunk = ColumnChunkMetaData::builder(self.schema.column(column))
            .set_compression(codec)
            .set_encodings_mask(EncodingMask::new_from_encodings([encoding].iter()))
            .set_num_values(group.rows as i64)
            .set_total_compressed_size(group.chunks[column].len() as i64)
            .set_total_uncompressed_size(group.uncompressed[column] as i64)
            .set_data_page_offset(offset as i64);
        match statistics(&group.pages, column) {
            Some(statistics) => chunk.set_statistics(statistics),
            None => chunk,
        }
    }

    /// Syncs what was written so far, if that is much. Nothing counts on it: the
    /// last sync is for all bytes.
    fn sync_written(&mut self) -> Result<()> {
        let written = self.out.bytes_written();
        if written - self.synced >= self.options.sync_bytes {
            lock(&self.sink.0).file.sync_data()?;
            self.synced = written;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.out.write_all(bytes);
        self.outcome(written)
    }

    fn flush(&mut self) -> Result<()> {
        let flushed = self.out.flush();
        self.outcome(flushed)
    }

    /// The storage's own error for a failure that came through [`Write`].
    fn outcome(&self, written: io::Result<()>) -> Result<()> {
        written.map_err(|error| {
            let failure = lock(&self.sink.0).failure.take();
            failure.unwrap_or_else(|| Error::io("append to", &self.name, error))
        })
    }
}

fn min_max(values: &[i64]) -> (i64, i64) {
    values.iter().fold((i64::MAX, i64::MIN), |(min, max), value| (min.min(*value), max.max(*value)))
}

/// Appends the values of a page, in pages of about as many bytes each.
fn encode_values(
    out: &mut Vec<u8>,
    rows: &PageRows,
    options: &TableOptions,
    encoder: &mut PageEncoder,
    pages: &mut Vec<ValuePage>,
) -> Result<Written, PageTooLarge> {
    let compress = options.compression == Compression::Snappy;
    let most = options.value_page_bytes.max(1);
    let count = ((rows.values.len() + most / 2) / most).max(1);
    let mut all = Written::default();
    let (mut lengths, mut contents) = (rows.value_lengths.as_slice(), rows.values.as_slice());
    for left in (1..=count).rev() {
        if lengths.is_empty() {
            break;
        }
        let share = contents.len().div_ceil(left);
        let (mut taken, mut bytes) = (0, 0);
        while taken < lengths.len() && (taken == 0 || bytes < share || left == 1) {
            bytes += lengths[taken] as usize;
            taken += 1;
        }
        let (mine, others) = lengths.split_at(taken);
        let (my_contents, other_contents) = contents.split_at(bytes);
        let written = encoder.bytes(out, mine, my_contents, compress)?;
        let bytes = u32::try_from(written.bytes).map_err(|_| PageTooLarge)?;
        pages.push(ValuePage { rows: taken as u32, bytes, checksums: written.checksums });
        all.bytes += written.bytes;
        all.uncompressed += written.uncompressed;
        (lengths, contents) = (others, other_contents);
    }
    Ok(all)
}

/// The index of pages that lie end to end from `offset` on: bytes and rows of each.
fn offset_index(mut offset: usize, pages: impl Iterator<Item = (u32, u32)>) -> OffsetIndexMetaData {
    let mut index = OffsetIndexBuilder::new();
    for (bytes, rows) in pages {
        index.append_offset_and_size(offset as i64, bytes as i32);
        index.append_row_count(i64::from(rows));
        offset += bytes as usize;
    }
    index.build()
}

fn column_indexes(
    pages: &[PageInfo],
    columns: usize,
) -> parquet::errors::Result<Vec<Option<ColumnIndexMetaData>>> {
    let index = |physical, order, bounds: &dyn Fn(&PageInfo) -> Bounds| {
        let mut index = ColumnIndexBuilder::new(physical);
        index.set_boundary_order(order);
        for page in pages {
            let (min, max) = bounds(page);
            index.append(false, min, max, 0, None);
        }
        index.build()
    };
    let long = |(min, max): (i64, i64)| (min.to_le_bytes().to_vec(), max.to_le_bytes().to_vec());
    let int =
        |(min, max): (i64, i64)| ((min as i32).to_le_bytes().to_vec(), (max as i32).to_le_bytes().to_vec());
    let unordered = BoundaryOrder::UNORDERED;
    let mut indexes = vec![
        Some(index(PhysicalType::BYTE_ARRAY, BoundaryOrder::ASCENDING, &|page| page.key_bounds.clone())?),
        None,
        Some(index(PhysicalType::INT64, unordered, &|page| long(page.seqs))?),
        Some(index(PhysicalType::INT32, unordered, &|page| int(page.kinds))?),
    ];
    if columns > EXPIRY {
        indexes.push(Some(index(PhysicalType::INT64, unordered, &|page| long(page.expiries))?));
    }
    Ok(indexes)
}

/// Bounds of a whole chunk; none for values.
fn statistics(pages: &[PageInfo], column: usize) -> Option<Statistics> {
    let range = |of: fn(&PageInfo) -> (i64, i64)| {
        let min = pages.iter().map(|page| of(page).0).min();
        min.zip(pages.iter().map(|page| of(page).1).max())
    };
    match column {
        KEY => {
            let min = ByteArray::from(pages.first()?.key_bounds.0.clone());
            let max = ByteArray::from(pages.last()?.key_bounds.1.clone());
            // Whether a bound is a key is not told apart from what it rounds.
            let bounds = ValueStatistics::new(Some(min), Some(max), None, Some(0), false);
            Some(Statistics::ByteArray(bounds.with_min_is_exact(false).with_max_is_exact(false)))
        }
        SEQ | EXPIRY => {
            let (min, max) = range(if column == SEQ { |page| page.seqs } else { |page| page.expiries })?;
            Some(Statistics::Int64(ValueStatistics::new(Some(min), Some(max), None, Some(0), false)))
        }
        KIND => {
            let (min, max) = range(|page| page.kinds)?;
            let (min, max) = (min as i32, max as i32);
            Some(Statistics::Int32(ValueStatistics::new(Some(min), Some(max), None, Some(0), false)))
        }
        _ => None,
    }
}

/// What is known of a table before its first entry.
fn empty(identity: &TableIdentity, key: &[u8], seq: SequenceNumber) -> TableMeta {
    TableMeta {
        number: identity.number,
        keyspace: identity.keyspace,
        bytes: 0,
        tail_offset: 0,
        tail_checksum: 0,
        key_min: key.to_vec(),
        key_max: key.to_vec(),
        seq_min: seq,
        seq_max: seq,
        puts: 0,
        deletes: 0,
        merges: 0,
        range_deletes: 0,
        expires_min: 0,
        expires_max: 0,
    }
}

fn page_indexes(
    column_indexes: Vec<Vec<Option<ColumnIndexMetaData>>>,
    offset_indexes: Vec<Vec<Option<OffsetIndexMetaData>>>,
    columns: usize,
) -> PageIndex {
    let mut indexes = PageIndexBuilder::new(column_indexes.len(), columns);
    for (group, of_group) in column_indexes.into_iter().enumerate() {
        for (column, index) in of_group.into_iter().enumerate() {
            if let Some(index) = index {
                indexes.put_column_index(index, group, column);
            }
        }
    }
    for (group, of_group) in offset_indexes.into_iter().enumerate() {
        for (column, index) in of_group.into_iter().enumerate() {
            if let Some(index) = index {
                indexes.put_offset_index(index, group, column);
            }
        }
    }
    indexes.build()
}

fn refused(name: &str, error: &parquet::errors::ParquetError) -> Error {
    Error::io("write", name, io::Error::other(error.to_string()))
}

/// The file behind [`Write`], which the writer of the footer asks for. Shared,
/// because that writer keeps what it is given.
#[derive(Clone)]
struct Sink(Arc<Mutex<SinkState>>);

struct SinkState {
    file: Box<dyn AppendFile>,
    /// What is written once there are [`LOT_BYTES`].
    lot: Vec<u8>,
    /// What the storage said, which [`Write`] has no room for.
    failure: Option<Error>,
    /// Hash of the tail, once it has begun.
    tail: Option<Xxh64>,
}

impl SinkState {
    fn append(&mut self, mut bytes: &[u8]) -> Result<()> {
        while self.lot.len() + bytes.len() >= LOT_BYTES {
            let (first, others) = bytes.split_at(LOT_BYTES - self.lot.len());
            self.lot.extend_from_slice(first);
            self.write_rest()?;
            bytes = others;
        }
        self.lot.extend_from_slice(bytes);
        Ok(())
    }

    fn write_rest(&mut self) -> Result<()> {
        self.file.append(&self.lot)?;
        self.lot.clear();
        Ok(())
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = lock(&self.0);
        if let Err(failure) = state.append(bytes) {
            state.failure = Some(failure);
            return Err(io::Error::other("the storage failed"));
        }
        if let Some(tail) = &mut state.tail {
            tail.update(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
