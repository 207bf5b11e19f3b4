//! Tables against an ordered list, against the reader of the parquet crate, and
//! against damage.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;
use crate::cursor::{Cursor, Found, Lookup};
use crate::error::{Error, Result};
use crate::key::{EntryRef, Expiry, ValueKind, compare_internal};
use crate::storage::Storage;
use crate::storage::memory::MemoryStorage;
use crate::storage::trace::TraceStorage;

type Entry = (Vec<u8>, u64, ValueKind, Vec<u8>);

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % bound
    }
}

const PATH: &str = "sst/1/000007.parquet";

fn identity() -> TableIdentity {
    TableIdentity { database_id: 5, number: FileNumber(7), keyspace: KeyspaceId(1), level: 0 }
}

fn write(storage: &dyn Storage, entries: &[Entry], options: TableOptions) -> TableMeta {
    for dir in ["sst", "sst/1"] {
        storage.create_dir(dir).unwrap();
    }
    let _ = storage.remove(PATH);
    let file = storage.create(PATH).unwrap();
    let mut writer = TableWriter::new(file, PATH.into(), identity(), options).unwrap();
    for (key, seq, kind, value) in entries {
        writer.add(entry_ref(key, *seq, *kind, value)).unwrap();
    }
    assert_eq!(writer.entries(), entries.len() as u64);
    writer.finish().unwrap()
}

fn entry_ref<'a>(key: &'a [u8], seq: u64, kind: ValueKind, value: &'a [u8]) -> EntryRef<'a> {
    EntryRef { key, seq: SequenceNumber(seq), kind, expires_at: Expiry::NEVER, value }
}

fn found(kind: ValueKind, value: &[u8]) -> Found {
    match kind {
        ValueKind::Delete => Found::Gone,
        _ => Found::Value(Bytes::copy_from_slice(value)),
    }
}

fn lookup(key: &[u8], seq: u64) -> Lookup<'_> {
    Lookup { key, seq: SequenceNumber(seq), hidden_below: SequenceNumber(0), now_ms: 0 }
}

fn open(storage: &MemoryStorage, meta: &TableMeta, cache_bytes: u64) -> Result<Table> {
    Table::open(storage.open(PATH)?, PATH.into(), meta, Cache::new(cache_bytes))
}

/// Sorted entries with many versions of some keys.
fn entries(random: &mut Random, count: usize) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for seq in 1..=count as u64 {
        let key = match random.below(12) {
            0 => b"hot".to_vec(),
            1 => vec![b'l'; 250 + random.below(12) as usize],
            2 => [vec![b'm'; 300], random.below(4).to_be_bytes().to_vec()].concat(),
            3 => Vec::new(),
            _ => format!("key{:05}", random.below(3000)).into_bytes(),
        };
        let value = (0..random.below(90)).map(|_| random.below(4) as u8).collect();
        match random.below(5) {
            0 => entries.push((key, seq, ValueKind::Delete, Vec::new())),
            _ => entries.push((key, seq, ValueKind::Put, value)),
        }
    }
    sort(&mut entries);
    entries
}

fn sort(entries: &mut [Entry]) {
    entries.sort_by(|a, b| compare_internal((&a.0, SequenceNumber(a.1)), (&b.0, SequenceNumber(b.1))));
}

fn small() -> TableOptions {
    TableOptions {
        page_rows: 8,
        page_value_bytes: 300,
        value_page_bytes: 100,
        row_group_rows: 100,
        ..TableOptions::default()
    }
}

fn get(table: &Table, key: &[u8], seq: u64) -> Option<Found> {
    table.get(&lookup(key, seq), hash_key(key), None).unwrap()
}

#[test]
fn a_long_table_is_synced_on_its_way() {
    let traced = |sync_bytes| {
        let trace = TraceStorage::new(Arc::new(MemoryStorage::new()));
        let entries = entries(&mut Random(9), 1500);
        write(&trace, &entries, TableOptions { sync_bytes, ..small() });
        let lines = trace.take_changes();
        lines.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let is_sync = |line: &&String| line.starts_with("sync ");
    let lines = traced(8 << 10);
    let length: usize = lines.iter().filter_map(|line| line.split(' ').nth(2)?.parse::<usize>().ok()).sum();
    let syncs = lines.iter().filter(is_sync).count();
    assert!(syncs > 2 && syncs <= 1 + length / (8 << 10), "{syncs} syncs of {length} bytes");
    assert!(is_sync(&lines.last().unwrap()), "{lines:?}");
    assert_eq!(traced(usize::MAX).iter().filter(is_sync).count(), 1);
}

#[test]
fn a_table_is_written_in_lots_that_are_aligned() {
    let mut random = Random(3);
    let mut value = || (0..1000).map(|_| random.below(256) as u8).collect::<Vec<u8>>();
    let entries: Vec<Entry> =
        (0..1500).map(|i| (format!("{i:06}").into_bytes(), i + 1, ValueKind::Put, value())).collect();
    let trace = TraceStorage::new(Arc::new(MemoryStorage::new()));
    let meta = write(&trace, &entries, TableOptions::default());
    let lines = trace.take_changes();
    let appends = lines.lines().filter(|line| line.starts_with("append "));
    let lengths: Vec<u64> = appends.filter_map(|line| line.split(' ').nth(2)?.parse().ok()).collect();
    let (last, whole) = lengths.split_last().unwrap();
    assert_eq!(whole, [512 << 10; 2], "{lines}");
    assert_eq!(whole.iter().sum::<u64>() + last, meta.bytes);
    let table = Table::open(trace.open(PATH).unwrap(), PATH.into(), &meta, Cache::new(1 << 20)).unwrap();
    assert!(entries.iter().all(|(key, ..)| get(&table, key, u64::MAX >> 1).is_some()));
}

#[test]
fn gets_find_the_newest_visible_version() {
    for seed in 0..6 {
        let mut random = Random(seed);
        let entries = entries(&mut random, 1500);
        let storage = MemoryStorage::new();
        let options = if seed % 2 == 0 { small() } else { TableOptions::default() };
        let meta = write(&storage, &entries, options);
        let table = open(&storage, &meta, 1 << 20).unwrap();
        assert_eq!(table.verify().unwrap(), meta.bytes);
        for _ in 0..4000 {
            let key = match random.below(3) {
                0 => format!("key{:05}", random.below(3000)).into_bytes(),
                _ => entries[random.below(entries.len() as u64) as usize].0.clone(),
            };
            let seq = random.below(1600);
            let expected = entries.iter().find(|entry| entry.0 == key && entry.1 <= seq);
            let expected = expected.map(|entry| found(entry.2, &entry.3));
            assert_eq!(get(&table, &key, seq), expected, "seed {seed}, key {key:?} at {seq}");
        }
    }
}

#[test]
fn cursors_walk_like_a_list() {
    for seed in 0..8 {
        let mut random = Random(seed + 100);
        let entries = entries(&mut random, 900);
        let storage = MemoryStorage::new();
        let meta = write(&storage, &entries, if seed % 3 == 0 { TableOptions::default() } else { small() });
        let mut cursor = Arc::new(open(&storage, &meta, 1 << 16).unwrap()).cursor(Purpose::Reading);
        let mut at: Option<usize> = None;
        for _ in 0..6000 {
            let probe = entries[random.below(entries.len() as u64) as usize].0.clone();
            let seq = SequenceNumber(random.below(1000));
            let lower = entries
                .partition_point(|e| compare_internal((&e.0, SequenceNumber(e.1)), (&probe, seq)).is_lt());
            match (random.below(40), at) {
                (0, _) => {
                    cursor.seek_first().unwrap();
                    at = Some(0);
                }
                (1, _) => {
                    cursor.seek_last().unwrap();
                    at = Some(entries.len() - 1);
                }
                (2, _) => {
                    cursor.seek(&probe, seq).unwrap();
                    at = (lower < entries.len()).then_some(lower);
                }
                (3, _) => {
                    cursor.seek_before(&probe, seq).unwrap();
                    at = lower.checked_sub(1);
                }
                (4..=25, Some(index)) => {
                    cursor.next().unwrap();
                    at = (index + 1 < entries.len()).then_some(index + 1);
                }
                (_, Some(index)) => {
                    cursor.prev().unwrap();
                    at = index.checked_sub(1);
                }
                _ => {}
            }
            let found = cursor.entry().map(|e| (e.key.to_vec(), e.seq.0, e.kind, e.value.to_vec()));
            assert_eq!(found, at.map(|index| entries[index].clone()), "seed {seed}");
        }
    }
}

#[test]
fn the_parquet_crate_reads_the_same_rows() {
    let mut random = Random(7);
    let entries = entries(&mut random, 3000);
    for compression in [Compression::None, Compression::Snappy] {
        let storage = MemoryStorage::new();
        let meta = write(&storage, &entries, TableOptions { compression, ..small() });
        let file = Bytes::from(storage.read(PATH).unwrap());
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        let facts = builder.metadata().file_metadata().key_value_metadata().unwrap().clone();
        assert!(facts.iter().any(|fact| fact.key == "duramen.format" && fact.value.as_deref() == Some("1")));
        let groups = builder.metadata().row_groups();
        assert!(groups.len() > 10 && groups.iter().all(|group| group.sorting_columns().is_some()));
        let mut rows = entries.iter();
        for batch in builder.build().unwrap() {
            let batch = batch.unwrap();
            let (keys, values) = (batch.column(0).as_binary::<i32>(), batch.column(1).as_binary::<i32>());
            let (seqs, kinds) =
                (batch.column(2).as_primitive::<Int64Type>(), batch.column(3).as_primitive::<Int32Type>());
            for row in 0..batch.num_rows() {
                let (key, seq, kind, value) = rows.next().unwrap();
                assert_eq!((keys.value(row), values.value(row)), (&key[..], &value[..]));
                assert_eq!((seqs.value(row), kinds.value(row)), (*seq as i64, *kind as i32));
            }
        }
        assert!(rows.next().is_none());
        assert_eq!(meta.entries(), 3000);
    }
}

#[test]
fn large_keys_and_values() {
    let big = |byte: u8| vec![byte; 64 << 10];
    let mut entries: Vec<Entry> = vec![
        (big(1), 1, ValueKind::Put, vec![9; 3 << 20]),
        ([big(1), vec![0]].concat(), 2, ValueKind::Put, Vec::new()),
        (big(2), 3, ValueKind::Put, vec![8; 100]),
    ];
    entries.extend((10..400).map(|seq| (big(3), seq, ValueKind::Put, vec![7; 50])));
    sort(&mut entries);
    let storage = MemoryStorage::new();
    let meta = write(&storage, &entries, small());
    let table = open(&storage, &meta, 1 << 20).unwrap();
    assert_eq!(table.verify().unwrap(), meta.bytes);
    for (key, seq, kind, value) in &entries {
        assert_eq!(get(&table, key, *seq), Some(found(*kind, value)));
    }
    assert_eq!(get(&table, &big(3), 9), None);
}

#[test]
fn a_get_reads_two_pages_and_a_filtered_miss_none() {
    let entries: Vec<Entry> =
        (0..5000).map(|i| (format!("{i:06}").into_bytes(), i + 1, ValueKind::Put, vec![b'v'; 100])).collect();
    let storage = MemoryStorage::new();
    let meta = write(&storage, &entries, TableOptions::default());
    let trace = TraceStorage::new(Arc::new(storage));
    let table = Table::open(trace.open(PATH).unwrap(), PATH.into(), &meta, Cache::new(1 << 20)).unwrap();
    // The filter comes with the first get.
    assert!(get(&table, b"002500", u64::MAX >> 1).is_some());
    trace.take();
    assert!(get(&table, b"004000", u64::MAX >> 1).is_some());
    assert_eq!(trace.take().lines().count(), 2);
    assert!(get(&table, b"002501", u64::MAX >> 1).is_some(), "same pages as the first");
    assert_eq!(trace.take(), "");
    let misses = (0..100).filter(|i| {
        assert!(get(&table, format!("{i:06}x").as_bytes(), u64::MAX >> 1).is_none());
        !trace.take().is_empty()
    });
    assert!(misses.count() < 5, "filters answer for absent keys");
}

/// The bounds of a page in the index tell of a key that all of its rows have, but not where
/// they are cut short.
#[test]
fn a_page_of_one_key_is_not_read_to_find_it() {
    let long = |tail: &[u8]| [vec![b'l'; 300], tail.to_vec()].concat();
    let keys = [b"".to_vec(), b"a".to_vec(), b"a\0".to_vec(), b"b".to_vec(), long(b"m"), long(b"n")];
    let value = |seq: u64| vec![seq as u8; 9 << 10];
    let mut entries: Vec<Entry> = Vec::new();
    for (number, key) in (1..).zip(&keys) {
        let versions = [number, number + 10].map(|seq| (key.clone(), seq, ValueKind::Put, value(seq)));
        entries.extend(versions.into_iter().skip(usize::from(key == b"b")));
    }
    sort(&mut entries);
    let storage = MemoryStorage::new();
    let meta = write(&storage, &entries, TableOptions::default());
    let trace = TraceStorage::new(Arc::new(storage));
    let table = Table::open(trace.open(PATH).unwrap(), PATH.into(), &meta, Cache::new(0)).unwrap();
    let rows: Vec<u32> = table.index.pages.iter().map(|page| page.rows).collect();
    assert_eq!(rows, [2, 2, 2, 1, 2, 2], "a page for each key");
    for (key, seq, kind, value) in &entries {
        trace.take();
        assert_eq!(get(&table, key, *seq), Some(found(*kind, value)));
        let reads = trace.take();
        // The filter, as there is no cache, and the value; sequence numbers where the
        // bounds do not decide, and keys where they are cut short.
        let is_older = *seq < 10 && key != b"b";
        let (count, least) = (reads.lines().count(), 2 + usize::from(is_older));
        assert!(if key.len() == 301 { count > least } else { count == least }, "{seq}: {reads}");
    }
    for key in [b"\0".to_vec(), b"a\0\0".to_vec(), b"aa".to_vec(), b"c".to_vec(), long(b""), long(b"mm")] {
        assert_eq!(get(&table, &key, u64::MAX >> 1), None);
    }
    assert_eq!(get(&table, b"b", 13), None);
}

#[test]
fn a_value_that_is_not_kept_is_read_with_few_others() {
    let mut random = Random(11);
    let entries: Vec<Entry> = (0..1000)
        .map(|i| {
            let value = (0..50 + random.below(100)).map(|_| random.below(256) as u8).collect();
            (format!("{i:06}").into_bytes(), i + 1, ValueKind::Put, value)
        })
        .collect();
    let storage = MemoryStorage::new();
    let meta = write(&storage, &entries, TableOptions::default());
    let trace = TraceStorage::new(Arc::new(storage));
    let table = Table::open(trace.open(PATH).unwrap(), PATH.into(), &meta, Cache::new(0)).unwrap();
    let keys_in_a_page = table.index.pages[0].rows;
    assert_eq!((keys_in_a_page, table.index.values(0).len()), (128, 4));
    for (key, seq, kind, value) in &entries {
        trace.take();
        assert_eq!(get(&table, key, *seq), Some(found(*kind, value)));
        let reads = trace.take();
        let last = reads.lines().last().unwrap();
        let bytes: usize = last.split(' ').nth(2).unwrap().parse().unwrap();
        assert!((2 << 10..4 << 10).contains(&bytes), "{reads}");
    }
}

#[test]
fn what_readers_walk_over_twice_is_kept_while_there_is_room() {
    let mut random = Random(5);
    let mut value = || (0..100).map(|_| random.below(256) as u8).collect::<Vec<u8>>();
    // Pages of one kind alone, and of both.
    let entries = (0..5000).map(|i| match i > 3000 && i % 9 == 0 {
        true => (format!("{i:06}").into_bytes(), i + 1, ValueKind::Delete, Vec::new()),
        false => (format!("{i:06}").into_bytes(), i + 1, ValueKind::Put, value()),
    });
    let entries: Vec<Entry> = entries.collect();
    let storage = MemoryStorage::new();
    let meta = write(&storage, &entries, TableOptions::default());
    let trace = TraceStorage::new(Arc::new(storage));
    let open = |cache_bytes: u64| {
        let file = trace.open(PATH).unwrap();
        Arc::new(Table::open(file, PATH.into(), &meta, Cache::new(cache_bytes)).unwrap())
    };
    let walk = |table: &Arc<Table>, purpose: Purpose, forward: bool| {
        trace.take();
        let mut cursor = Arc::clone(table).cursor(purpose);
        if forward {
            cursor.seek_first().unwrap()
        } else {
            cursor.seek_last().unwrap()
        }
        let mut found = Vec::new();
        while let Some(EntryRef { key, seq, kind, value, .. }) = cursor.entry() {
            found.push((key.to_vec(), seq.0, kind, value.to_vec()));
            if forward { cursor.next().unwrap() } else { cursor.prev().unwrap() }
        }
        if !forward {
            found.reverse();
        }
        assert_eq!(found, entries);
        trace.take().lines().count()
    };
    let table = open(64 << 20);
    table.verify().unwrap();
    trace.take();
    table.verify().unwrap();
    let verified = trace.take();
    // Who writes the table anew leaves nothing behind but the first pages.
    let first = walk(&table, Purpose::Rewriting, true);
    let kept = table.cached_bytes();
    assert!(first > 5 && walk(&table, Purpose::Rewriting, true) > 5);
    assert!(walk(&table, Purpose::Reading, true) > 5, "the first reader");
    assert_eq!(table.cached_bytes(), kept);
    assert!(walk(&table, Purpose::Reading, true) > 5, "the second");
    assert!(table.cached_bytes() > 500_000, "{}", table.cached_bytes());
    for (purpose, forward) in
        [(Purpose::Reading, true), (Purpose::Reading, false), (Purpose::Rewriting, true)]
    {
        assert_eq!(walk(&table, purpose, forward), 0, "{purpose:?}, forward: {forward}");
    }
    // What was read with others is kept apart from them.
    assert!((0..table.index.pages.len()).all(|page| {
        let (keys, values) = (table.keys(page).unwrap(), table.values(page).unwrap());
        keys.apart().is_none() && values.apart().is_none()
    }));
    // Whether the file is as it was written, the cache cannot tell.
    table.verify().unwrap();
    assert_eq!(trace.take(), verified);
    // Where there is no room nothing has to go.
    let table = open(128 << 10);
    (0..4).for_each(|_| assert!(walk(&table, Purpose::Reading, true) > 5));
    assert!(table.cached_bytes() <= 128 << 10);
}

/// Reads everything there is: every answer is right, or some part refuses.
fn survey(storage: &MemoryStorage, meta: &TableMeta, entries: &[Entry]) -> Result<()> {
    let table = open(storage, meta, 1 << 20)?;
    for (key, seq, kind, value) in entries {
        let answer = table.get(&lookup(key, *seq), hash_key(key), None)?;
        assert_eq!(answer, Some(found(*kind, value)), "a wrong answer");
    }
    table.verify().map(drop)
}

/// Reads whatever can be read.
fn wander(storage: &MemoryStorage, meta: &TableMeta, entries: &[Entry]) -> Result<()> {
    let table = Arc::new(open(storage, meta, 1 << 20)?);
    let _ = table.verify();
    for (key, seq, ..) in entries {
        let _ = table.get(&lookup(key, *seq), hash_key(key), None);
    }
    let mut cursor = table.cursor(Purpose::Reading);
    cursor.seek_first()?;
    while cursor.entry().is_some() {
        cursor.next()?;
    }
    cursor.seek_last()?;
    while cursor.entry().is_some() {
        cursor.prev()?;
    }
    Ok(())
}

fn damaged_input() -> (MemoryStorage, TableMeta, Vec<Entry>) {
    let mut entries = entries(&mut Random(3), 60);
    entries.retain(|entry| entry.0.len() < 100);
    let storage = MemoryStorage::new();
    let meta = write(&storage, &entries, TableOptions { page_rows: 10, row_group_rows: 30, ..small() });
    survey(&storage, &meta, &entries).unwrap();
    (storage, meta, entries)
}

#[test]
fn a_flipped_bit_in_any_byte_is_detected() {
    let (storage, meta, entries) = damaged_input();
    let whole = storage.read(PATH).unwrap();
    for at in 0..whole.len() {
        let mut bad = whole.clone();
        bad[at] ^= 1 << (at % 8);
        storage.write(PATH, bad);
        match survey(&storage, &meta, &entries) {
            Err(Error::Corruption { file, .. }) => assert_eq!(file, PATH),
            other => panic!("byte {at}: {other:?}"),
        }
    }
}

#[test]
fn every_length_but_the_right_one_is_refused() {
    let (storage, meta, entries) = damaged_input();
    let whole = storage.read(PATH).unwrap();
    for len in (0..whole.len()).chain([whole.len() + 1]) {
        let mut bad = whole.clone();
        bad.resize(len, 0);
        storage.write(PATH, bad);
        assert!(matches!(survey(&storage, &meta, &entries), Err(Error::Corruption { .. })), "{len} bytes");
    }
}

#[test]
fn a_tail_with_the_right_checksum_is_still_not_trusted() {
    let (storage, meta, entries) = damaged_input();
    let whole = storage.read(PATH).unwrap();
    let tail = meta.tail_offset as usize;
    for at in tail..whole.len() {
        for mask in [0xff, 0x01, 0x80] {
            let mut bad = whole.clone();
            bad[at] ^= mask;
            let meta =
                TableMeta { tail_checksum: xxhash_rust::xxh64::xxh64(&bad[tail..], 0), ..meta.clone() };
            storage.write(PATH, bad);
            // Who makes up checksums may make up answers, but nothing panics.
            let _ = wander(&storage, &meta, &entries);
        }
    }
}

#[test]
fn entries_must_come_in_order() {
    let storage = MemoryStorage::new();
    for dir in ["sst", "sst/1"] {
        storage.create_dir(dir).unwrap();
    }
    let file = storage.create(PATH).unwrap();
    let mut writer = TableWriter::new(file, PATH.into(), identity(), TableOptions::default()).unwrap();
    let entry = |key, seq| entry_ref(key, seq, ValueKind::Put, b"");
    writer.add(entry(b"b", 5)).unwrap();
    assert!(writer.add(entry(b"b", 5)).is_err());
    assert!(writer.add(entry(b"b", 6)).is_err());
    assert!(writer.add(entry(b"a", 9)).is_err());
    writer.add(entry(b"b", 4)).unwrap();
}

/// A table whose pages are copied is the table itself, to the last byte.
#[test]
fn copied_pages_make_the_same_file() {
    for (compression, rows) in
        [(Compression::Snappy, 1000), (Compression::None, 1000), (Compression::Snappy, 700)]
    {
        let storage = MemoryStorage::new();
        let options = TableOptions { compression, row_group_rows: 300, ..TableOptions::default() };
        let mut random = Random(rows);
        let entries: Vec<Entry> = (0..rows)
            .map(|number| {
                let value = vec![7; random.below(300) as usize];
                (format!("{number:09}").into_bytes(), 1 + random.below(99), ValueKind::Put, value)
            })
            .collect();
        let meta = write(&storage, &entries, options.clone());
        let original = storage.read(PATH).unwrap();
        let mut cursor = Arc::new(open(&storage, &meta, 1 << 20).unwrap()).cursor(Purpose::Reading);
        storage.remove(PATH).unwrap();
        let file = storage.create(PATH).unwrap();
        let mut writer = TableWriter::new(file, PATH.into(), identity(), options).unwrap();
        let mut copied = 0;
        cursor.seek_first().unwrap();
        while cursor.stands() {
            let begun = cursor.rows_of_page_begun();
            let page = begun.map(|_| cursor.stored_page().unwrap());
            match page {
                Some(page) if writer.add_page(&page).unwrap() => {
                    copied += page.rows();
                    cursor.skip(page.rows(), true).unwrap();
                }
                // The last page is too short to be worth it.
                _ => {
                    writer.add(cursor.entry().unwrap()).unwrap();
                    cursor.next().unwrap();
                }
            }
        }
        assert!(copied as u64 > rows - 128, "{copied} of {rows} rows");
        assert_eq!(writer.finish().unwrap(), meta);
        assert_eq!(storage.read(PATH).unwrap(), original);
    }
}
