//! Reading what is sound of a damaged table: every page that passes its checks.
//!
//! Where the tail is what the manifest says, its index tells where pages are.
//! Otherwise nothing of the footer is believed. The private block has a checksum
//! of its own and is found by its magic; it has the CRC-32 of every page of each column, in
//! order, and pages lie end to end from the start of the file. So they are found
//! one after another by their headers, which must carry those checksums. A damaged
//! header ends that walk; a damaged body does not.

use std::sync::Arc;

use bytes::Bytes;

use super::cache::Cache;
use super::filter;
use super::index::MAGIC;
use super::integrity::{self, Integrity, PageChecksums};
use super::page::{self, BytesPage, Checksums, IntsPage, ValuePage};
use super::schema::{CONTENTS, EXPIRY, KEY, KIND, SEQ, VALUE};
use super::table::Table;
use super::thrift::Malformed;
use super::{COLUMNS_MAX, TableMeta};
use crate::cursor::Cursor;
use crate::error::{Error, Result};
use crate::key::{Entry, EntryRef, Expiry, KEY_BYTES_MAX, SequenceNumber, ValueKind, compare_internal};
use crate::range_delete::RangeDeletes;
use crate::storage::ReadFile;
use crate::sync::{Mutex, lock};

/// Bytes that hold the header of any page or filter.
const HEADER_BYTES_MAX: u64 = 128;

/// Bytes searched at once for the private block.
const WINDOW_BYTES: u64 = 1 << 20;

/// Longest tail that is read.
const TAIL_BYTES_MAX: u64 = 256 << 20;

/// Places tried that look like a private block: values may look so, too.
const TRIES_MAX: u32 = 64;

/// Something that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Bytes from the start of the file.
    pub offset: u64,
    pub what: String,
    /// Keys that may have been there: from the first to before the second.
    pub keys: Option<(Vec<u8>, Vec<u8>)>,
}

/// A page of each column.
#[derive(Debug)]
struct Place {
    offsets: [u64; COLUMNS_MAX],
    bytes: [u32; COLUMNS_MAX],
    checksums: PageChecksums,
    values: Vec<ValuePage>,
    rows: u32,
    keys: Option<(Vec<u8>, Vec<u8>)>,
}

/// A table whose pages are taken one by one.
#[derive(Debug)]
pub(crate) struct SalvageTable {
    file: Arc<dyn ReadFile>,
    pages: Vec<Place>,
    pub expires: bool,
    pub range_deletes: Arc<RangeDeletes>,
}

impl SalvageTable {
    /// Finds the pages of `file`, named `path` in errors: by the index where its
    /// tail is the one in `meta`, by walking otherwise. What is not found goes
    /// into `lost`.
    ///
    /// # Errors
    /// `Corruption` and `Io` where nothing at all can be found.
    pub fn open(
        file: Arc<dyn ReadFile>,
        path: &str,
        meta: Option<&TableMeta>,
        lost: &mut Vec<Lost>,
    ) -> Result<SalvageTable> {
        if let Some(meta) = meta {
            match Table::open(Arc::clone(&file), path.to_owned(), meta, Cache::new(0)) {
                Ok(table) => return Ok(SalvageTable::indexed(file, &table, meta)),
                Err(error) => lost.push(loss(&error, meta.tail_offset, None)),
            }
        }
        SalvageTable::walked(file, path, lost)
    }

    fn indexed(file: Arc<dyn ReadFile>, table: &Table, meta: &TableMeta) -> SalvageTable {
        let index = &table.index;
        let place = |(number, page): (usize, &super::index::PageEntry)| {
            let next = number + 1;
            let end = if next < index.pages.len() { index.bound(next) } else { &meta.key_max };
            Place {
                offsets: page.offsets,
                bytes: page.bytes,
                checksums: page.checksums,
                values: index.values(number).to_vec(),
                rows: page.rows,
                keys: Some((index.bound(number).to_vec(), end.to_vec())),
            }
        };
        SalvageTable {
            pages: index.pages.iter().enumerate().map(place).collect(),
            expires: index.expires,
            range_deletes: Arc::clone(&index.range_deletes),
            file,
        }
    }

    fn walked(file: Arc<dyn ReadFile>, path: &str, lost: &mut Vec<Lost>) -> Result<SalvageTable> {
        let found = find_private_block(&*file)?;
        let (tail_offset, integrity) =
            found.ok_or_else(|| Error::corruption(path, 0, "there is no private block"))?;
        let mut walk = Walk {
            file: &*file,
            integrity: &integrity,
            values: 0,
            offset: MAGIC.len() as u64,
            end: tail_offset,
        };
        let mut pages = Vec::new();
        while pages.len() < integrity.pages.len() {
            match walk.group(pages.len())? {
                Some(group) => pages.extend(group),
                None => {
                    let what = format!(
                        "the header of a page is damaged; with it {} of {} pages of each column are lost",
                        integrity.pages.len() - pages.len(),
                        integrity.pages.len()
                    );
                    lost.push(Lost { offset: walk.offset, what, keys: None });
                    break;
                }
            }
        }
        let expires = integrity.expires;
        Ok(SalvageTable { file, pages, expires, range_deletes: Arc::new(integrity.range_deletes) })
    }

    /// The entries of a page, if all of it is sound.
    fn entries(&self, page: usize) -> Result<Vec<Entry>> {
        let place = &self.pages[page];
        let rows = place.rows as usize;
        let raw = |column: usize| self.file.read_at(place.offsets[column], place.bytes[column] as usize);
        let sound = |column: usize| move |error: Malformed| error.in_file("", place.offsets[column]);
        let body = |column: usize| -> Result<Bytes> {
            let opened = page::open(&raw(column)?, place.checksums[column], rows, CONTENTS[column]);
            opened.map_err(sound(column))
        };
        let ints = |column: usize| IntsPage::decode(&body(column)?, rows).map_err(sound(column));
        let keys = BytesPage::decode(body(KEY)?, rows).map_err(sound(KEY))?;
        let values = page::join(&raw(VALUE)?, &place.values).map_err(sound(VALUE))?;
        let (seqs, kinds) = (ints(SEQ)?, ints(KIND)?);
        let expiries = if self.expires { Some(ints(EXPIRY)?) } else { None };
        let mut entries: Vec<Entry> = Vec::with_capacity(rows);
        for row in 0..rows {
            let entry = (|| {
                let key = keys.slice(row);
                let seq = SequenceNumber(u64::try_from(seqs.get(row)).ok()?);
                let kind = ValueKind::from_byte(u8::try_from(kinds.get(row)).ok()?)?;
                let expiry = expiries.as_ref().map_or(0, |expiries| expiries.get(row));
                let expires_at = Expiry(u64::try_from(expiry).ok()?);
                let ordered = entries.last().is_none_or(|last| follows(last, &key, seq));
                let sound = ordered && seq < SequenceNumber::MAX && key.len() <= KEY_BYTES_MAX;
                sound.then(|| Entry { key, seq, kind, expires_at, value: values.slice(row) })
            })();
            let what = "an entry that this engine does not write";
            entries.push(entry.ok_or_else(|| Error::corruption("", place.offsets[KEY], what))?);
        }
        Ok(entries)
    }
}

fn follows(before: &Entry, key: &[u8], seq: SequenceNumber) -> bool {
    compare_internal((&before.key, before.seq), (key, seq)).is_lt()
}

fn loss(error: &Error, offset: u64, keys: Option<(Vec<u8>, Vec<u8>)>) -> Lost {
    match error {
        Error::Corruption { offset, what, .. } => Lost { offset: *offset, what: what.clone(), keys },
        other => Lost { offset, what: other.to_string(), keys },
    }
}

/// The private block and where it begins: the last one whose checksum is right.
fn find_private_block(file: &dyn ReadFile) -> Result<Option<(u64, Integrity)>> {
    let size = file.size()?;
    let overlap = integrity::MAGIC.len() as u64 - 1;
    let (mut end, mut tries) = (size, 0);
    while end > 0 {
        let start = end.saturating_sub(WINDOW_BYTES);
        let upto = (end + overlap).min(size);
        let window = file.read_at(start, (upto - start) as usize)?;
        let hits = window.windows(integrity::MAGIC.len()).enumerate().rev();
        for (at, _) in hits.filter(|(_, bytes)| *bytes == integrity::MAGIC) {
            tries += 1;
            if tries > TRIES_MAX {
                return Ok(None);
            }
            let offset = start + at as u64;
            let tail = file.read_at(offset, (size - offset).min(TAIL_BYTES_MAX) as usize)?;
            if let Ok((found, _)) = Integrity::decode(&tail) {
                return Ok(Some((offset, found)));
            }
        }
        end = start;
    }
    Ok(None)
}

/// A walk from page to page.
struct Walk<'a> {
    file: &'a dyn ReadFile,
    integrity: &'a Integrity,
    /// Pages of values so far.
    values: usize,
    offset: u64,
    end: u64,
}

impl Walk<'_> {
    fn header(&self) -> Result<Bytes> {
        let len = self.end.saturating_sub(self.offset).min(HEADER_BYTES_MAX);
        self.file.read_at(self.offset, len as usize)
    }

    /// Goes over the page at hand, if it is the one that is `wanted`; answers bytes and rows.
    fn step(&mut self, wanted: Option<Checksums>, column: usize) -> Result<Option<(u32, u32)>> {
        let found = page::measure(&self.header()?, CONTENTS[column]);
        let wanted = wanted.map(|checksums| checksums.crc);
        let Some((bytes, rows, _)) = found.filter(|(_, _, crc)| Some(*crc) == wanted) else {
            return Ok(None);
        };
        let end = self.offset + u64::from(bytes);
        if end > self.end {
            return Ok(None);
        }
        self.offset = end;
        Ok(Some((bytes, rows)))
    }

    /// Goes over the pages of values that have so many rows; false where a header is damaged.
    fn values(&mut self, place: &mut Place) -> Result<bool> {
        place.offsets[VALUE] = self.offset;
        let mut left = place.rows;
        while left > 0 {
            let checksums = self.integrity.values.get(self.values).copied();
            let (Some(checksums), Some((bytes, rows))) = (checksums, self.step(checksums, VALUE)?) else {
                return Ok(false);
            };
            let (Some(all), Some(after)) = (place.bytes[VALUE].checked_add(bytes), left.checked_sub(rows))
            else {
                return Ok(false);
            };
            (place.bytes[VALUE], left) = (all, after);
            place.values.push(ValuePage { rows, bytes, checksums });
            self.values += 1;
        }
        Ok(true)
    }

    /// The pages of the row group that begins with page `first`; `None` where a
    /// header is damaged.
    fn group(&mut self, first: usize) -> Result<Option<Vec<Place>>> {
        let mut places: Vec<Place> = Vec::new();
        loop {
            let (page, offset) = (first + places.len(), self.offset);
            let Some(&checksums) = self.integrity.pages.get(page) else { break };
            let Some((bytes, rows)) = self.step(Some(checksums[KEY]), KEY)? else { break };
            let mut place = Place {
                offsets: [0; COLUMNS_MAX],
                bytes: [0; COLUMNS_MAX],
                checksums,
                values: Vec::new(),
                rows,
                keys: None,
            };
            (place.offsets[KEY], place.bytes[KEY]) = (offset, bytes);
            places.push(place);
        }
        if places.is_empty() {
            return Ok(None);
        }
        for column in 1..self.integrity.columns() {
            for place in &mut places {
                if column == VALUE {
                    if !self.values(place)? {
                        return Ok(None);
                    }
                    continue;
                }
                let (offset, wanted) = (self.offset, Some(place.checksums[column]));
                let Some((bytes, rows)) = self.step(wanted, column)? else { return Ok(None) };
                if rows != place.rows {
                    return Ok(None);
                }
                (place.offsets[column], place.bytes[column]) = (offset, bytes);
            }
        }
        // Without it only what follows is out of reach.
        if let Some(bytes) = filter::measure(&self.header()?) {
            self.offset = (self.offset + bytes).min(self.end);
        }
        Ok(Some(places))
    }
}

/// Walks the sound entries of a table, from the first to the last.
pub(crate) struct SalvageCursor {
    table: SalvageTable,
    next_page: usize,
    entries: Vec<Entry>,
    row: usize,
    last: Option<Entry>,
    lost: Arc<Mutex<Vec<Lost>>>,
}

impl SalvageCursor {
    /// A cursor that tells `lost` what it had to leave out.
    pub fn new(table: SalvageTable, lost: Arc<Mutex<Vec<Lost>>>) -> SalvageCursor {
        SalvageCursor { table, next_page: 0, entries: Vec::new(), row: 0, last: None, lost }
    }

    /// Goes on to the next page that is sound.
    fn fill(&mut self) {
        self.last = self.entries.pop().or(self.last.take());
        self.entries.clear();
        self.row = 0;
        while self.entries.is_empty() && self.next_page < self.table.pages.len() {
            let page = self.next_page;
            self.next_page += 1;
            let place = &self.table.pages[page];
            let entries =
                self.table.entries(page).and_then(|entries| match entries.first().zip(self.last.as_ref()) {
                    Some((first, last)) if !follows(last, &first.key, first.seq) => {
                        Err(Error::corruption("", place.offsets[KEY], "a page out of order"))
                    }
                    _ => Ok(entries),
                });
            match entries {
                Ok(entries) => self.entries = entries,
                Err(error) => lock(&self.lost).push(loss(&error, place.offsets[KEY], place.keys.clone())),
            }
        }
    }

    fn one_way<T>(&self) -> Result<T> {
        Err(Error::Unsupported("a damaged table is read from its start to its end".into()))
    }
}

impl Cursor for SalvageCursor {
    fn seek_first(&mut self) -> Result<()> {
        (self.next_page, self.last) = (0, None);
        self.entries.clear();
        self.fill();
        Ok(())
    }

    fn seek_last(&mut self) -> Result<()> {
        self.one_way()
    }

    fn seek(&mut self, _key: &[u8], _seq: SequenceNumber) -> Result<()> {
        self.one_way()
    }

    fn seek_before(&mut self, _key: &[u8], _seq: SequenceNumber) -> Result<()> {
        self.one_way()
    }

    fn next(&mut self) -> Result<()> {
        self.row += 1;
        if self.row >= self.entries.len() {
            self.fill();
        }
        Ok(())
    }

    fn prev(&mut self) -> Result<()> {
        self.one_way()
    }

    fn entry(&self) -> Option<EntryRef<'_>> {
        self.entries.get(self.row).map(Entry::borrowed)
    }

    fn value(&self) -> Bytes {
        self.entries.get(self.row).map(|entry| entry.value.clone()).unwrap_or_default()
    }
}
