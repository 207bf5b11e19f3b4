//! Doors for measuring the inner loops of this room; see [`crate::measuring`].

use std::hint::black_box;

use bytes::Bytes;

use super::filter::{self, Filter};
use super::hash_key;
use super::keys::KeysPage;
use super::page::{self, BytesPage, Checksums, Content, PageEncoder};
use crate::measuring::{Loop, VALUE_BYTES, key, value};

/// Rows of a page.
const ROWS: u64 = 128;

/// Keys of a filter.
const KEYS: u64 = 10_000;

/// Pages that a run encodes or decodes.
const PAGES: u64 = 100;

pub(crate) fn loops() -> Vec<Loop> {
    vec![page_encode(), page_decode(), key_search(), filter_probe()]
}

/// Values, one after another, and their lengths.
fn values() -> (Vec<u8>, Vec<i64>) {
    ((0..ROWS).flat_map(value).collect(), vec![VALUE_BYTES as i64; ROWS as usize])
}

fn page_encode() -> Loop {
    let ((values, lengths), mut encoder) = (values(), PageEncoder::default());
    Loop::new("page encode", PAGES, move || {
        for _ in 0..PAGES {
            let mut raw = Vec::new();
            assert!(encoder.bytes(&mut raw, &lengths, &values, true).is_ok());
            black_box(raw);
        }
    })
}

fn page_decode() -> Loop {
    let ((values, lengths), mut raw) = (values(), Vec::new());
    let written = PageEncoder::default().bytes(&mut raw, &lengths, &values, true);
    let checksums = written.map_or_else(|_| Checksums::default(), |written| written.checksums);
    let raw = Bytes::from(raw);
    Loop::new("page decode", PAGES, move || {
        for _ in 0..PAGES {
            let body = page::open(&raw, checksums, ROWS as usize, Content::Bytes);
            let page = body.and_then(|body| BytesPage::decode(body, ROWS as usize));
            assert!(black_box(page).is_ok());
        }
    })
}

fn key_search() -> Loop {
    let mut keys: Vec<_> = (0..ROWS).map(key).collect();
    keys.sort_unstable();
    let mut raw = Vec::new();
    let written = PageEncoder::default().bytes(&mut raw, &[16; ROWS as usize], &keys.concat(), false);
    let checksums = written.map_or_else(|_| Checksums::default(), |written| written.checksums);
    let body = page::open(&raw.into(), checksums, ROWS as usize, Content::Bytes);
    let page = body.and_then(|body| BytesPage::decode(body, ROWS as usize)).map(KeysPage::new);
    Loop::new("key search", PAGES * ROWS, move || {
        let Ok(page) = &page else { panic!("a page that this engine wrote") };
        for _ in 0..PAGES {
            for (row, key) in keys.iter().enumerate() {
                assert_eq!(page.lower_bound(black_box(key)), row);
            }
        }
    })
}

fn filter_probe() -> Loop {
    let keys: Vec<_> = (0..2 * KEYS).map(key).collect();
    let hashes: Vec<u64> = keys[..KEYS as usize].iter().map(|key| hash_key(key)).collect();
    let filter = Filter::decode(&filter::build(&hashes, 10).into());
    Loop::new("filter probe", 2 * KEYS, move || {
        let Ok(filter) = &filter else { panic!("a filter that this engine wrote") };
        let found = keys.iter().filter(|key| filter.may_hold(hash_key(black_box(&key[..])))).count();
        assert!(found >= KEYS as usize);
    })
}
