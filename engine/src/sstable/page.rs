//! Data pages: their header, their encoding, and what a reader keeps of them.
//!
//! ```text
//! page   := header (thrift, compact protocol) | body
//! header := { 1: type = DATA_PAGE_V2, 2: uncompressed_size, 3: compressed_size, 4: crc,
//!             8: { 1: rows, 2: nulls = 0, 3: rows, 4: encoding, 5: 0, 6: 0, 7: is_compressed } }
//! bytes  := lengths (DELTA_BINARY_PACKED) | contents      DELTA_LENGTH_BYTE_ARRAY
//! ints   := DELTA_BINARY_PACKED
//! ```
//!
//! `crc` is the CRC-32 of the body as stored. A reader knows it from elsewhere
//! too ([`Checksums`]), so that a sound page in the wrong place is refused, and it
//! accepts a header only in the one encoding that is written. The body is
//! checked by its xxh64: where there are no instructions for a CRC, in a WebAssembly
//! sandbox, that is five times as fast. Source: parquet.thrift and Encodings.md of
//! parquet-format.

use std::cell::RefCell;
use std::hint::black_box;
use std::num::NonZeroU64;

use bytes::{Buf, BufMut, Bytes};
use xxhash_rust::xxh64::{Xxh64, xxh64};

use super::cache::Block;
use super::delta::{self, Packed};
use super::thrift::{Decoded, Malformed, Reader, kind, put_zigzag};

/// Bytes that a byte of Snappy's can become, at most: a copy of 64 bytes takes
/// three. Source: format_description.txt of Snappy.
const SNAPPY_RATIO_MAX: usize = 22;

/// Bytes of a page, decompressed, of which one row may be picked.
const SCRATCH_BYTES: usize = 64 << 10;

/// Bytes that a processor reads from memory at once.
const CACHE_LINE_BYTES: usize = 64;

/// Lines that are brought near at once: 32 KiB. More would drive out what came first, and
/// long values may not be looked at.
const LINES_NEAR_MAX: usize = 512;

/// Bytes of the encoder's buffers that are kept for the next page.
const BUFFER_BYTES: usize = 1 << 20;

/// How the fields of a header begin: the next one, and field 8 after field 4.
const NEXT_I32: u8 = 0x10 | kind::I32;
const NEXT_TRUE: u8 = 0x10 | kind::TRUE;
const NEXT_FALSE: u8 = 0x10 | kind::FALSE;
const FIELD_8_STRUCT: u8 = 0x40 | kind::STRUCT;

const DATA_PAGE_V2: i32 = 3;
const DELTA_BINARY_PACKED: i32 = 5;
const DELTA_LENGTH_BYTE_ARRAY: i32 = 6;

/// What a page is known by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Checksums {
    /// CRC-32 of its body, which its header has for all readers of Parquet.
    pub crc: u32,
    /// xxh64 of its body, which this engine checks where it knows it. It is not known if
    /// it is 0: so it takes no more memory than a number.
    pub xxh: Option<NonZeroU64>,
}

impl Checksums {
    /// Those of a body in two parts, as stored.
    fn of(body: (&[u8], &[u8])) -> Checksums {
        let (mut crc, mut xxh) = (crc32fast::Hasher::new(), Xxh64::new(0));
        for part in [body.0, body.1] {
            crc.update(part);
            xxh.update(part);
        }
        Checksums { crc: crc.finalize(), xxh: NonZeroU64::new(xxh.digest()) }
    }

    /// True for the body that they are of.
    fn match_body(self, body: &[u8]) -> bool {
        match self.xxh {
            Some(xxh) => xxh64(body, 0) == xxh.get(),
            None => crc32fast::hash(body) == self.crc,
        }
    }
}

/// A page of values, of some of the rows that lie in one page of the other columns.
#[derive(Clone, Copy, Debug)]
pub(super) struct ValuePage {
    pub rows: u32,
    /// Bytes of header and body.
    pub bytes: u32,
    pub checksums: Checksums,
}

/// What a page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Bytes,
    Ints,
}

impl Content {
    fn encoding(self) -> i32 {
        match self {
            Content::Bytes => DELTA_LENGTH_BYTE_ARRAY,
            Content::Ints => DELTA_BINARY_PACKED,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    uncompressed: i32,
    compressed: i32,
    crc: i32,
    rows: i32,
    encoding: i32,
    is_compressed: bool,
}

impl Header {
    fn encode(&self, out: &mut impl BufMut) {
        for value in [DATA_PAGE_V2, self.uncompressed, self.compressed, self.crc] {
            out.put_u8(NEXT_I32);
            put_zigzag(out, i64::from(value));
        }
        out.put_u8(FIELD_8_STRUCT);
        for value in [self.rows, 0, self.rows, self.encoding, 0, 0] {
            out.put_u8(NEXT_I32);
            put_zigzag(out, i64::from(value));
        }
        out.put_u8(if self.is_compressed { NEXT_TRUE } else { NEXT_FALSE });
        out.put_slice(&[0, 0]);
    }

    /// Decodes a header; answers where the body begins.
    fn decode(bytes: &[u8]) -> Decoded<(Header, usize)> {
        let mut reader = Reader::new(bytes);
        let [kind, uncompressed, compressed, crc] = next_ints(&mut reader)?;
        reader.expect(&[FIELD_8_STRUCT])?;
        let [rows, nulls, all_rows, encoding, definition, repetition] = next_ints(&mut reader)?;
        let is_compressed = match reader.byte()? {
            NEXT_TRUE => true,
            NEXT_FALSE => false,
            _ => return reader.fail("a page header that this engine does not write"),
        };
        reader.expect(&[0, 0])?;
        if (kind, nulls, all_rows, definition, repetition) != (DATA_PAGE_V2, 0, rows, 0, 0) {
            return reader.fail("a page header that this engine does not write");
        }
        Ok((Header { uncompressed, compressed, crc, rows, encoding, is_compressed }, reader.position()))
    }
}

/// The next fields of a header.
fn next_ints<const N: usize>(reader: &mut Reader<'_>) -> Decoded<[i32; N]> {
    let mut ints = [0; N];
    for int in &mut ints {
        reader.expect(&[NEXT_I32])?;
        *int = reader.int32()?;
    }
    Ok(ints)
}

/// Encodes pages into column chunks.
pub(super) struct PageEncoder {
    body: Vec<u8>,
    compressed: Vec<u8>,
    snappy: snap::raw::Encoder,
}

/// A page as written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Written {
    pub checksums: Checksums,
    /// Bytes of header and body.
    pub bytes: usize,
    /// Bytes of header and body before compression.
    pub uncompressed: usize,
}

impl Default for PageEncoder {
    fn default() -> Self {
        PageEncoder { body: Vec::new(), compressed: Vec::new(), snappy: snap::raw::Encoder::new() }
    }
}

impl PageEncoder {
    /// Appends a page of strings of bytes, one after another in `contents`.
    ///
    /// # Errors
    /// What does not fit the format: more than 2 GiB in a page.
    pub fn bytes(
        &mut self,
        out: &mut Vec<u8>,
        lengths: &[i64],
        contents: &[u8],
        compress: bool,
    ) -> Result<Written, PageTooLarge> {
        self.body.clear();
        delta::encode(&mut self.body, lengths);
        if !compress {
            return self.finish(out, (lengths.len(), Content::Bytes), (self.body.as_slice(), contents), None);
        }
        self.body.extend_from_slice(contents);
        let compressed = self.compress();
        let written =
            self.finish(out, (lengths.len(), Content::Bytes), (self.body.as_slice(), &[]), compressed);
        self.body.clear();
        self.body.shrink_to(BUFFER_BYTES);
        self.compressed.truncate(BUFFER_BYTES);
        self.compressed.shrink_to(BUFFER_BYTES);
        written
    }

    /// Appends a page of integers.
    pub fn ints(&mut self, out: &mut Vec<u8>, values: &[i64]) -> Result<Written, PageTooLarge> {
        self.body.clear();
        delta::encode(&mut self.body, values);
        self.finish(out, (values.len(), Content::Ints), (self.body.as_slice(), &[]), None)
    }

    /// Compresses the body; answers how long it is then, if it is shorter.
    fn compress(&mut self) -> Option<usize> {
        let most = snap::raw::max_compress_len(self.body.len());
        if self.compressed.len() < most {
            self.compressed.resize(most, 0);
        }
        // Snappy fails on what it cannot hold; then the page stays as it is.
        let len = self.snappy.compress(&self.body, &mut self.compressed).ok()?;
        (len < self.body.len()).then_some(len)
    }

    /// Appends a page whose body is in two parts, or else is as long in
    /// `compressed` as is said.
    fn finish(
        &self,
        out: &mut Vec<u8>,
        (rows, content): (usize, Content),
        plain: (&[u8], &[u8]),
        compressed: Option<usize>,
    ) -> Result<Written, PageTooLarge> {
        let uncompressed = plain.0.len() + plain.1.len();
        let body = compressed.map_or(plain, |len| (&self.compressed[..len], &[]));
        let checksums = Checksums::of(body);
        let int = |value: usize| i32::try_from(value).map_err(|_| PageTooLarge);
        let header = Header {
            uncompressed: int(uncompressed)?,
            compressed: int(body.0.len() + body.1.len())?,
            crc: checksums.crc as i32,
            rows: int(rows)?,
            encoding: content.encoding(),
            is_compressed: compressed.is_some(),
        };
        let start = out.len();
        header.encode(out);
        let uncompressed = out.len() - start + uncompressed;
        out.extend_from_slice(body.0);
        out.extend_from_slice(body.1);
        Ok(Written { checksums, bytes: out.len() - start, uncompressed })
    }
}

/// A page of more than 2 GiB.
#[derive(Debug)]
pub(super) struct PageTooLarge;

/// Bytes of the page whose header `bytes` begins with, its rows and the CRC of its
/// body, all as the header says; `None` for another kind of page.
pub(super) fn measure(bytes: &[u8], content: Content) -> Option<(u32, u32, u32)> {
    let (header, start) = Header::decode(bytes).ok()?;
    let len = u32::try_from(header.compressed).ok()?.checked_add(start as u32)?;
    let rows = u32::try_from(header.rows).ok().filter(|rows| *rows > 0)?;
    (header.encoding == content.encoding()).then_some((len, rows, header.crc as u32))
}

/// The checksums with which the page in `raw` is right, whatever it is.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn right_checksums(raw: &[u8]) -> Option<Checksums> {
    let (header, start) = Header::decode(raw).ok()?;
    Some(Checksums { crc: header.crc as u32, xxh: NonZeroU64::new(xxh64(&raw[start..], 0)) })
}

/// Checks the CRC in the header of a page, which other readers of Parquet go by.
pub(super) fn check_crc(raw: &[u8]) -> Decoded<()> {
    let (header, start) = Header::decode(raw)?;
    match crc32fast::hash(&raw[start..]) == header.crc as u32 {
        true => Ok(()),
        false => Err(Malformed::new(0, "a CRC in the header that is not that of the page")),
    }
}

/// What a page that is stored in `raw` was written as; it is checked against the checksums
/// that are expected, and not decompressed.
pub(super) fn check(raw: &[u8], checksums: Checksums) -> Decoded<Written> {
    let (header, start) = Header::decode(raw)?;
    let (Ok(compressed), Ok(uncompressed)) =
        (usize::try_from(header.compressed), usize::try_from(header.uncompressed))
    else {
        return Err(Malformed::new(0, "a negative size"));
    };
    if compressed != raw.len() - start {
        return Err(Malformed::new(0, "a page header with the wrong size"));
    }
    if header.crc as u32 != checksums.crc || !checksums.match_body(&raw[start..]) {
        return Err(Malformed::new(start, "the checksum of the page does not match"));
    }
    let checksums = match checksums.xxh {
        Some(_) => checksums,
        None => Checksums::of((&raw[start..], &[])),
    };
    Ok(Written { checksums, bytes: raw.len(), uncompressed: start + uncompressed })
}

/// A page as stored, checked against the checksums and the number of rows that are expected.
struct Stored<'r> {
    body: &'r [u8],
    /// Bytes of the body decompressed, if it is compressed.
    compressed_from: Option<usize>,
    /// Where the body begins.
    start: usize,
}

impl<'r> Stored<'r> {
    fn check(raw: &'r [u8], checksums: Checksums, rows: usize, content: Content) -> Decoded<Stored<'r>> {
        let (header, start) = Header::decode(raw)?;
        let fail = |what: &'static str| Err(Malformed::new(start, what));
        let body = &raw[start..];
        if usize::try_from(header.compressed) != Ok(body.len()) {
            return Err(Malformed::new(0, "a page header with the wrong size"));
        }
        if header.crc as u32 != checksums.crc {
            return Err(Malformed::new(
                0,
                "a page that belongs elsewhere: its checksum is not the one recorded",
            ));
        }
        if !checksums.match_body(body) {
            return fail("the checksum of the page does not match");
        }
        if usize::try_from(header.rows) != Ok(rows) || header.encoding != content.encoding() {
            return Err(Malformed::new(0, "a page with other rows or another encoding than the index says"));
        }
        if !header.is_compressed {
            if header.uncompressed != header.compressed {
                return Err(Malformed::new(0, "a page header with the wrong size"));
            }
            return Ok(Stored { body, compressed_from: None, start });
        }
        let Ok(wanted) = usize::try_from(header.uncompressed) else { return fail("a negative size") };
        if snap::raw::decompress_len(body).ok() != Some(wanted) {
            return fail("compressed bytes of another size than the header says");
        }
        if wanted / SNAPPY_RATIO_MAX > body.len() {
            return fail("a size that so few bytes do not decompress to");
        }
        Ok(Stored { body, compressed_from: Some(wanted), start })
    }

    /// Bytes of the body decompressed.
    fn len(&self) -> usize {
        self.compressed_from.unwrap_or(self.body.len())
    }

    /// The body decompressed, in memory of its own.
    fn to_vec(&self) -> Decoded<Vec<u8>> {
        if self.compressed_from.is_none() {
            return Ok(self.body.to_vec());
        }
        let mut body = room(self.len()).map_err(|error| error.after(self.start))?;
        self.decompress(&mut body)?;
        Ok(body)
    }

    /// Decompresses the body into all of `buffer`, which has [`Stored::len`] bytes.
    fn decompress(&self, buffer: &mut [u8]) -> Decoded<()> {
        if self.compressed_from.is_none() {
            buffer.copy_from_slice(self.body);
            return Ok(());
        }
        match snap::raw::Decoder::new().decompress(self.body, buffer) {
            Ok(len) if len == buffer.len() => Ok(()),
            _ => Err(Malformed::new(self.start, "the page does not decompress")),
        }
    }
}

/// The body of a page as stored in `raw`, decompressed and checked against the
/// checksums and the number of rows that are expected.
pub(super) fn open(raw: &Bytes, checksums: Checksums, rows: usize, content: Content) -> Decoded<Bytes> {
    let stored = Stored::check(raw, checksums, rows, content)?;
    if stored.compressed_from.is_none() {
        return Ok(raw.slice(stored.start..));
    }
    Ok(stored.to_vec()?.into())
}

/// Memory for the body of a page.
fn room(bytes: usize) -> Decoded<Vec<u8>> {
    let mut room = Vec::new();
    if room.try_reserve_exact(bytes).is_err() {
        return Err(Malformed::new(0, "there is no memory for the page"));
    }
    room.resize(bytes, 0);
    Ok(room)
}

/// The values of pages that are stored one after another in `raw`, as one page.
pub(super) fn join(raw: &Bytes, pages: &[ValuePage]) -> Decoded<BytesPage> {
    if let [page] = pages {
        let rows = page.rows as usize;
        return BytesPage::decode(open(raw, page.checksums, rows, Content::Bytes)?, rows);
    }
    let mut stored = Vec::with_capacity(pages.len());
    let mut at = 0;
    for page in pages {
        let end = at + page.bytes as usize;
        let raw = &raw[at.min(raw.len())..end.min(raw.len())];
        let page = Stored::check(raw, page.checksums, page.rows as usize, Content::Bytes);
        stored.push(page.map_err(|error| error.after(at))?);
        at = end;
    }
    let too_large = || Malformed::new(0, "pages of values that are too large together");
    let bytes = stored.iter().try_fold(0, |sum: usize, page| sum.checked_add(page.len()));
    let mut body = room(bytes.ok_or_else(too_large)?)?;
    // From the last page to the first, each over the lengths of the one that follows it,
    // which are decoded: so values lie end to end.
    let mut start = body.len();
    let mut places = Vec::with_capacity(pages.len());
    for (stored, page) in stored.iter().zip(pages).rev() {
        at -= page.bytes as usize;
        let room = &mut body[start - stored.len()..start];
        let place = stored.decompress(room).and_then(|()| Place::decode(room, page.rows as usize));
        let place = place.map_err(|error| error.after(at))?;
        start = start - stored.len() + place.range(0).start;
        places.push((place, page.rows as usize));
    }
    places.reverse();
    let place = Place::join(start, &places).ok_or_else(too_large)?;
    let rows = places.iter().map(|(_, rows)| rows).sum();
    Ok(BytesPage { body: body.into(), place, rows })
}

thread_local! {
    /// Where a page is decompressed of which one row is wanted: always the same memory,
    /// which is in a processor's cache.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Strings of bytes of a page that is looked at once.
pub(super) struct Glance<'a> {
    body: &'a [u8],
    place: Place,
}

impl Glance<'_> {
    pub fn get(&self, row: usize) -> &[u8] {
        &self.body[self.place.range(row)]
    }
}

/// What `look` makes of a page of strings of bytes that is stored in `raw`, checked like
/// [`open`] does; nothing of the page stays.
pub(super) fn glance<R>(
    raw: &[u8],
    checksums: Checksums,
    rows: usize,
    look: impl FnOnce(Glance<'_>) -> R,
) -> Decoded<R> {
    let stored = Stored::check(raw, checksums, rows, Content::Bytes)?;
    let look = |body: &[u8]| Ok(look(Glance { body, place: Place::decode(body, rows)? }));
    if stored.compressed_from.is_none() {
        return look(stored.body);
    }
    if stored.len() > SCRATCH_BYTES {
        return look(&stored.to_vec()?);
    }
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.len() < stored.len() {
            scratch.resize(stored.len(), 0);
        }
        let body = &mut scratch[..stored.len()];
        stored.decompress(body)?;
        look(body)
    })
}

/// The only string of bytes of a page that is stored in `raw`, checked like [`open`] does.
/// It stays in the memory that it is decompressed into. To copy 16 KiB once more took a
/// third of the whole read on an AMD EPYC, whose `rep movsb`, which glibc copies with, is
/// slow between addresses whose lowest twelve bits are nearly equal (glibc bug 30994).
pub(super) fn lone(raw: &[u8], checksums: Checksums) -> Decoded<Bytes> {
    let stored = Stored::check(raw, checksums, 1, Content::Bytes)?;
    let body = stored.to_vec()?;
    let start = Place::decode(&body, 1)?.range(0).start;
    let mut value = Bytes::from(body);
    value.advance(start);
    Ok(value)
}

/// A decoded page of strings of bytes.
#[derive(Debug)]
pub(super) struct BytesPage {
    body: Bytes,
    place: Place,
    rows: usize,
}

#[derive(Clone, Debug)]
enum Place {
    /// All have one length; where the first begins.
    Equal { base: usize, len: usize },
    /// Where each begins, and where the last ends.
    Offsets(Vec<u32>),
}

impl Place {
    /// Decodes the lengths that a body begins with.
    fn decode(body: &[u8], rows: usize) -> Decoded<Place> {
        let (lengths, base) = delta::decode(body, rows)?;
        let left = body.len() - base;
        let fail = || Malformed::new(base, "lengths that do not add up to the size of the page");
        if let Packed::Progression { first, step: 0 } = lengths {
            let len = usize::try_from(first).map_err(|_| fail())?;
            if len.checked_mul(rows) != Some(left) {
                return Err(fail());
            }
            return Ok(Place::Equal { base, len });
        }
        let mut offsets = Vec::with_capacity(rows + 1);
        let mut at = base as u64;
        offsets.push(base as u32);
        for row in 0..rows {
            let len = u64::try_from(lengths.get(row)).map_err(|_| fail())?;
            at = at.checked_add(len).filter(|end| *end <= body.len() as u64).ok_or_else(fail)?;
            offsets.push(u32::try_from(at).map_err(|_| fail())?);
        }
        if at != body.len() as u64 {
            return Err(fail());
        }
        Ok(Place::Offsets(offsets))
    }

    /// The places of values that lie end to end from `start` on, each with its number of
    /// rows; `None` if they do not fit.
    fn join(start: usize, places: &[(Place, usize)]) -> Option<Place> {
        let equal = |place: &Place| match place {
            Place::Equal { len, .. } => Some(*len),
            Place::Offsets(_) => None,
        };
        if let Some(len) = places.first().and_then(|(place, _)| equal(place))
            && places.iter().all(|(place, _)| equal(place) == Some(len))
        {
            return Some(Place::Equal { base: start, len });
        }
        let lengths = places.iter().flat_map(|(place, rows)| (0..*rows).map(|row| place.range(row).len()));
        let mut offsets = Vec::with_capacity(1 + places.iter().map(|(_, rows)| rows).sum::<usize>());
        let mut at = u32::try_from(start).ok()?;
        offsets.push(at);
        for length in lengths {
            at = at.checked_add(u32::try_from(length).ok()?)?;
            offsets.push(at);
        }
        Some(Place::Offsets(offsets))
    }

    fn range(&self, row: usize) -> std::ops::Range<usize> {
        match self {
            Place::Equal { base, len } => base + row * len..base + (row + 1) * len,
            Place::Offsets(offsets) => offsets[row] as usize..offsets[row + 1] as usize,
        }
    }
}

impl BytesPage {
    /// Decodes a body.
    pub fn decode(body: Bytes, rows: usize) -> Decoded<BytesPage> {
        let place = Place::decode(&body, rows)?;
        Ok(BytesPage { body, place, rows })
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    #[inline]
    pub fn get(&self, row: usize) -> &[u8] {
        &self.body[self.place.range(row)]
    }

    /// Reads a byte of each line of some rows: a processor asks memory for all of those at
    /// once, and for one after the other when it meets them on its way through the rows.
    /// Of long rows only the beginning.
    pub fn bring_near(&self, first: usize, last: usize) {
        let bytes = &self.body[self.place.range(first).start..self.place.range(last).end];
        let lines = bytes.chunks(CACHE_LINE_BYTES).map(|line| line[0]).chain(bytes.last().copied());
        black_box(lines.take(LINES_NEAR_MAX).fold(0, u8::wrapping_add));
    }

    /// The page in memory of its own, if it shares it: what is kept of a page that was read
    /// with others must not keep them all.
    pub fn apart(&self) -> Option<BytesPage> {
        let BytesPage { body, place, rows } = self;
        let own = || BytesPage { body: Bytes::copy_from_slice(body), place: place.clone(), rows: *rows };
        (!body.is_unique()).then(own)
    }

    /// Shares the page's memory.
    pub fn slice(&self, row: usize) -> Bytes {
        self.body.slice(self.place.range(row))
    }
}

impl Block for BytesPage {
    fn weight(&self) -> usize {
        let offsets = match &self.place {
            Place::Equal { .. } => 0,
            Place::Offsets(offsets) => offsets.len() * 4,
        };
        self.body.len() + offsets
    }
}

/// A decoded page of integers.
#[derive(Debug)]
pub(super) struct IntsPage {
    values: Packed,
}

impl IntsPage {
    /// Decodes a body.
    pub fn decode(body: &[u8], rows: usize) -> Decoded<IntsPage> {
        let (values, used) = delta::decode(body, rows)?;
        if used != body.len() {
            return Err(Malformed::new(used, "bytes after the last value of a page"));
        }
        Ok(IntsPage { values })
    }

    #[inline]
    pub fn get(&self, row: usize) -> i64 {
        self.values.get(row)
    }
}

impl Block for IntsPage {
    fn weight(&self) -> usize {
        match &self.values {
            Packed::Progression { .. } => 0,
            Packed::Values(values) => values.len() * 8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page_of(values: &[&[u8]], compress: bool) -> (Bytes, Written) {
        let lengths: Vec<i64> = values.iter().map(|value| value.len() as i64).collect();
        let mut out = Vec::new();
        let written = PageEncoder::default().bytes(&mut out, &lengths, &values.concat(), compress).unwrap();
        assert_eq!(written.bytes, out.len());
        (out.into(), written)
    }

    fn value_page(written: Written, rows: usize) -> ValuePage {
        ValuePage { rows: rows as u32, bytes: written.bytes as u32, checksums: written.checksums }
    }

    #[test]
    fn pages_of_values_are_joined() {
        let long = [b'x'; 300];
        let abc: &[u8] = b"abc";
        let same: [&[&[u8]]; 3] = [&[abc; 40], &[b"def"], &[abc; 2]];
        let various: [&[&[u8]]; 4] = [&[abc; 3], &[b"", &long], &[&long], &[b"", b""]];
        for (pages, mixed) in [(&same[..], false), (&various[..], false), (&various[..], true)] {
            let (mut raw, mut parts) = (Vec::new(), Vec::new());
            for (number, values) in pages.iter().enumerate() {
                let (page, written) = page_of(values, !mixed || number % 2 == 0);
                raw.extend_from_slice(&page);
                parts.push(value_page(written, values.len()));
            }
            let raw = Bytes::from(raw);
            let joined = join(&raw, &parts).unwrap();
            let values = pages.concat();
            assert_eq!(joined.rows(), values.len());
            for (row, value) in values.iter().enumerate() {
                assert_eq!(joined.get(row), *value, "row {row}");
            }
            // They lie end to end.
            assert_eq!(joined.place.range(values.len() - 1).end, joined.body.len());
            for at in 0..raw.len() {
                let mut bad = raw.to_vec();
                bad[at] ^= 1;
                assert!(join(&bad.into(), &parts).is_err(), "byte {at}");
                assert!(join(&raw.slice(..at), &parts).is_err(), "cut at {at}");
            }
        }
    }

    #[test]
    fn bytes_round_trip() {
        let long = [b'x'; 300];
        let cases: [&[&[u8]]; 5] =
            [&[b"a", b"b", b"c"], &[b"", b"abc", b"d", &long], &[b""], &[&long], &[&long, &long, &long]];
        for values in cases {
            for compress in [false, true] {
                let (raw, written) = page_of(values, compress);
                let body = open(&raw, written.checksums, values.len(), Content::Bytes).unwrap();
                let page = BytesPage::decode(body, values.len()).unwrap();
                for (row, value) in values.iter().enumerate() {
                    let found = glance(&raw, written.checksums, values.len(), |page| page.get(row).to_vec());
                    assert_eq!(found.unwrap(), *value);
                }
                for (row, value) in values.iter().enumerate() {
                    assert_eq!(page.get(row), *value);
                    assert_eq!(page.slice(row), *value);
                }
                let alone = lone(&raw, written.checksums);
                let [value] = values else {
                    assert!(alone.is_err(), "a page of several");
                    continue;
                };
                assert_eq!(alone.unwrap(), *value);
                for at in 0..raw.len() {
                    let mut bad = raw.to_vec();
                    bad[at] ^= 1;
                    assert!(lone(&bad, written.checksums).is_err(), "byte {at}");
                    assert!(lone(&raw[..at], written.checksums).is_err(), "cut at {at}");
                }
            }
        }
        assert!(page_of(&[&long, &long], true).0.len() < 100);
    }

    #[test]
    fn ints_round_trip() {
        let mut out = Vec::new();
        let written = PageEncoder::default().ints(&mut out, &[5, 3, 9]).unwrap();
        let body = open(&out.into(), written.checksums, 3, Content::Ints).unwrap();
        let page = IntsPage::decode(&body, 3).unwrap();
        assert_eq!((page.get(0), page.get(1), page.get(2)), (5, 3, 9));
    }

    #[test]
    fn a_wrong_crc_is_told() {
        let (raw, _) = page_of(&[b"one", b"two"], false);
        assert!(check_crc(&raw).is_ok());
        let (mut header, start) = Header::decode(&raw).unwrap();
        header.crc ^= 1;
        let mut wrong = Vec::new();
        header.encode(&mut wrong);
        wrong.extend_from_slice(&raw[start..]);
        assert!(check_crc(&wrong).is_err());
        // Reads go by the other checksum.
        let checksums = right_checksums(&wrong).unwrap();
        assert!(open(&wrong.into(), checksums, 2, Content::Bytes).is_ok());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        for compress in [false, true] {
            let values: [&[u8]; 3] = [b"one", b"twotwotwotwotwotwotwotwo", b"threethreethree"];
            let (raw, written) = page_of(&values, compress);
            for at in 0..raw.len() {
                for bit in 0..8 {
                    let mut bad = raw.to_vec();
                    bad[at] ^= 1 << bit;
                    let opened = open(&bad.into(), written.checksums, 3, Content::Bytes);
                    assert!(opened.is_err(), "byte {at}, bit {bit}");
                }
                assert!(open(&raw.slice(..at), written.checksums, 3, Content::Bytes).is_err(), "cut at {at}");
            }
        }
    }
}
