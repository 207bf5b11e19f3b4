//! Doors for fuzzing the decoders of this room; see [`crate::fuzzing`].

use std::sync::Arc;

use bytes::Bytes;

use super::filter::Filter;
use super::integrity::Integrity;
use super::page::{self, BytesPage, Content, IntsPage};
use super::{Cache, Purpose, Table, TableMeta, hash_key};
use crate::cursor::{Cursor, Lookup};
use crate::edit::{self, Item};
use crate::error::Result;
use crate::fuzzing::check;
use crate::key::SequenceNumber;
use crate::storage::Storage;
use crate::storage::memory::MemoryStorage;

/// Entries of a table that are walked.
const ENTRIES_MAX: usize = 10_000;

/// Number of rows and content of a page, and the page.
fn split(bytes: &[u8]) -> Option<(usize, Content, &[u8])> {
    let (rows, rest) = bytes.split_first_chunk()?;
    let (content, rest) = rest.split_first()?;
    let content = if content % 2 == 0 { Content::Bytes } else { Content::Ints };
    Some((u32::from_le_bytes(*rows) as usize, content, rest))
}

/// `rows u32 | content u8 | page`: a page with its header.
pub fn page(bytes: &[u8]) {
    let Some((rows, content, raw)) = split(bytes) else { return };
    let checksums = page::right_checksums(raw).unwrap_or_default();
    if let Ok(body) = page::open(&Bytes::copy_from_slice(raw), checksums, rows, content) {
        decode_body(body, rows, content);
    }
}

/// `rows u32 | content u8 | body`: what is in a page.
pub fn page_body(bytes: &[u8]) {
    let Some((rows, content, body)) = split(bytes) else { return };
    decode_body(Bytes::copy_from_slice(body), rows, content);
}

fn decode_body(body: Bytes, rows: usize, content: Content) {
    match content {
        Content::Bytes => {
            let Ok(page) = BytesPage::decode(body, rows) else { return };
            assert_eq!(page.rows(), rows);
            (0..rows.min(ENTRIES_MAX)).for_each(|row| assert_eq!(page.slice(row), page.get(row)));
        }
        Content::Ints => {
            let Ok(page) = IntsPage::decode(&body, rows) else { return };
            let sum = (0..rows.min(ENTRIES_MAX)).fold(0, |sum: i64, row| sum.wrapping_add(page.get(row)));
            std::hint::black_box(sum);
        }
    }
}

/// A Bloom filter.
pub fn filter(bytes: &[u8]) {
    if let Ok(filter) = Filter::decode(&Bytes::copy_from_slice(bytes)) {
        let held = (0..64u64).filter(|n| filter.may_hold(hash_key(&n.to_le_bytes()))).count();
        std::hint::black_box(held);
    }
}

/// The private block at the head of a tail.
pub fn private_block(bytes: &[u8]) {
    let sealed = bytes.len().checked_sub(8).map(|end| sealed(&bytes[..end]));
    for tail in [Some(bytes.to_vec()), sealed, Some(self::sealed(bytes))].into_iter().flatten() {
        let Ok((block, len)) = Integrity::decode(&tail) else { continue };
        assert_eq!(block.encode(), tail[..len], "a private block has one encoding");
    }
}

fn sealed(bytes: &[u8]) -> Vec<u8> {
    [bytes, &xxhash_rust::xxh64::xxh64(bytes, 0).to_le_bytes()].concat()
}

/// `edit_len u32 | edit | file`: a table, and what the manifest says of it.
pub fn table(bytes: &[u8]) {
    let Some((len, rest)) = bytes.split_first_chunk() else { return };
    let Some((edit, file)) = rest.split_at_checked(u32::from_le_bytes(*len) as usize) else { return };
    let items = edit::decode(edit, "edit", 0).unwrap_or_default();
    for item in &items {
        let Item::TableAdded(placed) = item else { continue };
        check(walk(file, &placed.meta));
        // The same where the manifest is of one mind with the file.
        let tail_offset = placed.meta.tail_offset.min(file.len() as u64);
        let tail_checksum = xxhash_rust::xxh64::xxh64(&file[tail_offset as usize..], 0);
        let bytes = file.len() as u64;
        check(walk(file, &TableMeta { bytes, tail_offset, tail_checksum, ..placed.meta.clone() }));
    }
}

fn walk(file: &[u8], meta: &TableMeta) -> Result<()> {
    let storage = MemoryStorage::new();
    storage.write("table", file.to_vec());
    let table = Table::open(storage.open("table")?, "table".into(), meta, Cache::new(1 << 20))?;
    let table = Arc::new(table);
    // Damaged pages do not keep the others from being read.
    let verified = table.verify();
    let mut keys = Vec::new();
    let mut cursor = Arc::clone(&table).cursor(Purpose::Reading);
    let mut walked = cursor.seek_first();
    while let Some(entry) = cursor.entry().filter(|_| walked.is_ok() && keys.len() < ENTRIES_MAX) {
        keys.push(entry.key.to_vec());
        drop(cursor.value());
        walked = cursor.next();
    }
    let mut back = cursor.seek_last();
    let mut count = 0;
    while cursor.entry().is_some() && back.is_ok() && count < ENTRIES_MAX {
        count += 1;
        back = cursor.prev();
    }
    for key in keys.iter().step_by(5).take(100).map(Vec::as_slice).chain([&b""[..], b"zzz"]) {
        let hidden_below = table.range_deletes().newest_over(key, SequenceNumber::MAX);
        let lookup = Lookup { key, seq: SequenceNumber::MAX, hidden_below, now_ms: 1000 };
        check(table.get(&lookup, hash_key(key), None).map(drop));
        check(table.newest(key, hash_key(key)).map(drop));
    }
    if verified.is_ok() {
        assert!(walked.is_ok() && back.is_ok(), "what verifies can be read");
        assert_eq!(keys.len().min(ENTRIES_MAX), count, "as many entries either way");
    }
    walked.and(back).and(verified.map(drop))
}

/// Pages, their bodies and a filter of a sound table, as inputs of the targets
/// of these names.
#[cfg(test)]
pub(crate) fn parts(file: &[u8], meta: &TableMeta) -> Vec<(&'static str, Vec<u8>)> {
    use super::schema::{KEY, SEQ, VALUE};

    let storage = MemoryStorage::new();
    storage.write("table", file.to_vec());
    let file = storage.open("table").unwrap();
    let table = Table::open(file, "table".into(), meta, Cache::new(1 << 20)).unwrap();
    let mut parts = Vec::new();
    for (number, page) in table.index.pages.iter().enumerate().take(3) {
        // One column of each page.
        let column = [VALUE, KEY, SEQ][number % 3];
        let content = if column == SEQ { Content::Ints } else { Content::Bytes };
        let values = table.index.values(number)[0];
        let (rows, bytes, checksums) = match column {
            VALUE => (values.rows, values.bytes, values.checksums),
            _ => (page.rows, page.bytes[column], page.checksums[column]),
        };
        let raw = table.read(page.offsets[column], bytes as usize).unwrap();
        let body = page::open(&raw, checksums, rows as usize, content).unwrap();
        let head = [&rows.to_le_bytes()[..], &[u8::from(content == Content::Ints)]].concat();
        parts.push(("page", [&head[..], &raw].concat()));
        parts.push(("page_body", [&head[..], &body].concat()));
    }
    for group in table.index.groups.iter().take(1) {
        let raw = table.read(group.filter_offset, group.filter_bytes as usize).unwrap();
        parts.push(("filter", raw.to_vec()));
    }
    parts
}

/// Inputs that claim much more than they hold.
#[cfg(test)]
pub(crate) fn hostile(target: &str) -> Vec<Vec<u8>> {
    use super::thrift::{put_varint, put_zigzag};

    const MANY: i32 = 1 << 28;
    let head = |content: u8| [&MANY.to_le_bytes()[..], &[content]].concat();
    match target {
        "page_body" => {
            // A delta encoding of 2^28 values that ends after its first block.
            let mut body = Vec::new();
            [128, 4, MANY as u64, 0].into_iter().for_each(|word| put_varint(&mut body, word));
            body.extend_from_slice(&[2, 1, 0, 0, 0, 0, 0, 0, 0]);
            (0..2).map(|content| [head(content), body.clone()].concat()).collect()
        }
        "page" => {
            // A page of 2^28 bytes, by its header and by what Snappy says.
            let mut body = Vec::new();
            put_varint(&mut body, MANY as u64);
            body.extend_from_slice(&[0, b'x']);
            let mut raw = Vec::new();
            let int = |raw: &mut Vec<u8>, value: i32| {
                raw.push(0x15);
                put_zigzag(raw, i64::from(value));
            };
            [3, MANY, body.len() as i32, 0].into_iter().for_each(|value| int(&mut raw, value));
            raw.push(0x4c);
            [MANY, 0, MANY, 6, 0, 0].into_iter().for_each(|value| int(&mut raw, value));
            raw.extend_from_slice(&[0x11, 0, 0]);
            raw.extend_from_slice(&body);
            vec![[head(0), raw].concat()]
        }
        "private_block" => {
            // Range tombstones that lie within each other: none that were written.
            let mut block = Integrity::default().encode();
            block.truncate(block.len() - 8);
            let count = 6000u32;
            block[20..24].copy_from_slice(&count.to_le_bytes());
            for n in 0..count as u16 {
                block.extend_from_slice(&u64::from(n).to_le_bytes());
                [2u32, 2].iter().for_each(|len| block.extend_from_slice(&len.to_le_bytes()));
                block.extend_from_slice(&n.to_be_bytes());
                block.extend_from_slice(&(u16::MAX - n).to_be_bytes());
            }
            vec![block]
        }
        _ => Vec::new(),
    }
}
