//! What every build of the engine must do, wherever its files are.
//!
//! A scenario is a plain function over a [`Place`] that is still empty. It
//! panics where the engine does wrong. Work is inline: no target has threads.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use duramen::storage::Storage;
use duramen::{
    Background, Budget, Compression, Database, DatabaseTransaction, Db, Durability, Error, Expiry,
    KeyspaceId, KeyspaceOptions, MemtableKind, Options, Progress, Result, ScanRange, WriteBatch,
};
use parquet::column::reader::ColumnReader;
use parquet::file::reader::{FileReader, SerializedFileReader};

use crate::model::{self, Commit, Model};
use crate::random::Random;

/// Where a database can be opened, again and again.
pub trait Place {
    /// Opens the database that is there.
    fn open(&self, options: Options) -> Result<Box<dyn Database>>;

    /// Path and bytes of every SSTable, by path.
    fn tables(&self) -> Vec<(String, Bytes)>;
}

impl Place for Arc<dyn Storage> {
    fn open(&self, options: Options) -> Result<Box<dyn Database>> {
        Ok(Box::new(Db::open_with(Arc::clone(self), options)?))
    }

    fn tables(&self) -> Vec<(String, Bytes)> {
        let storage: &dyn Storage = self.as_ref();
        let mut tables = Vec::new();
        for keyspace in storage.list("sst").unwrap() {
            let directory = format!("sst/{keyspace}");
            for name in storage.list(&directory).unwrap() {
                let path = format!("{directory}/{name}");
                let file = storage.open(&path).unwrap();
                let bytes = file.read_at(0, file.size().unwrap() as usize).unwrap();
                tables.push((path, bytes));
            }
        }
        tables.sort();
        tables
    }
}

/// Options under which little data makes many files.
pub fn small() -> Options {
    Options {
        memtable_bytes: 32 << 10,
        target_file_bytes: 16 << 10,
        cache_bytes: 256 << 10,
        background: Background::Inline,
        ..Options::default()
    }
}

/// Rows that fill several small memtables.
const ROWS: usize = 2000;

fn row_key(row: usize) -> Vec<u8> {
    format!("row:{row:06}").into_bytes()
}

fn row_value(row: usize) -> Vec<u8> {
    format!("{row} is the number of this row; ").repeat(3).into_bytes()
}

/// Rows whose values changed, and rows that went, half-way.
fn is_changed(row: usize) -> bool {
    row.is_multiple_of(10)
}

fn is_deleted(row: usize) -> bool {
    row % 10 == 5
}

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// Commits every row, by batches of 50.
fn fill(db: &dyn Database, keyspace: KeyspaceId) -> Rows {
    let rows: Vec<_> = (0..ROWS).collect();
    for chunk in rows.chunks(50) {
        let mut batch = WriteBatch::new();
        for &row in chunk {
            batch.put(keyspace, &row_key(row), &row_value(row));
        }
        db.write(batch, Durability::Buffered).unwrap();
    }
    rows.into_iter().map(|row| (row_key(row), row_value(row))).collect()
}

/// Changes a tenth of the rows and deletes another.
fn change(db: &dyn Database, keyspace: KeyspaceId, rows: &mut Rows) {
    for row in 0..ROWS {
        let key = row_key(row);
        if is_changed(row) {
            db.put(keyspace, &key, b"changed", Durability::Buffered).unwrap();
            rows.insert(key, b"changed".to_vec());
        } else if is_deleted(row) {
            db.delete(keyspace, &key, Durability::Buffered).unwrap();
            rows.remove(&key);
        }
    }
}

/// Compares scans in both directions and a get of each row.
fn check(db: &dyn Database, keyspace: KeyspaceId, rows: &Rows) {
    let expected: Vec<_> = rows.iter().map(|(key, value)| (key.as_slice(), value.as_slice())).collect();
    for range in [ScanRange::all(), ScanRange::all().reversed()] {
        let mut found = model::scan(db, keyspace, &range, None);
        if range.reverse {
            found.reverse();
        }
        let found: Vec<_> = found.iter().map(|(key, value)| (&key[..], &value[..])).collect();
        assert!(found == expected, "{range:?}: {} rows found of {}", found.len(), expected.len());
    }
    for row in 0..ROWS {
        let key = row_key(row);
        let value = db.get(keyspace, &key, None).unwrap();
        assert_eq!(value.as_deref(), rows.get(&key).map(Vec::as_slice), "row {row}");
    }
}

fn verify(db: &dyn Database) -> u64 {
    let report = db.verify().unwrap();
    assert_eq!(report.problems, []);
    report.entries
}

/// Batches, deletes, gets and multi-gets over two keyspaces.
pub fn reads_and_writes(place: &dyn Place) {
    let db = place.open(small()).unwrap();
    let [a, b] = [db.create_keyspace("a").unwrap(), db.create_keyspace("b").unwrap()];
    assert_ne!(a, b);
    assert_eq!(db.create_keyspace("a").unwrap(), a);
    assert_eq!(db.find_keyspace("none").unwrap(), None);
    assert_eq!(db.keyspaces().unwrap(), [("a".to_owned(), a), ("b".to_owned(), b)]);

    let mut batch = WriteBatch::new();
    batch
        .put(a, b"k", b"first")
        .put(b, b"k", b"other")
        .delete(a, b"k")
        .put(a, b"k", b"last")
        .put(a, b"", b"");
    db.write(batch, Durability::Sync).unwrap();
    assert_eq!(db.get(a, b"k", None).unwrap().unwrap(), "last");
    assert_eq!(db.get(b, b"k", None).unwrap().unwrap(), "other");
    let values = db.multi_get(a, &[b"k", b"none", b"", b"k"], None).unwrap();
    let values: Vec<_> = values.iter().map(Option::as_deref).collect();
    assert_eq!(values, [Some(&b"last"[..]), None, Some(b""), Some(b"last")]);

    db.delete(a, b"k", Durability::None).unwrap();
    assert_eq!(db.get(a, b"k", None).unwrap(), None);
    assert_eq!(db.get(b, b"k", None).unwrap().unwrap(), "other");
    db.sync().unwrap();
    assert!(matches!(db.get(KeyspaceId(99), b"k", None), Err(Error::InvalidArgument(_))));
    db.close().unwrap();
    assert!(matches!(db.get(a, b"k", None), Err(Error::InvalidArgument(_))));
}

/// Flushed SSTables are Parquet that the stock reader reads, and hold what was
/// written; a compaction leaves the newest versions and no tombstone.
pub fn sstables_are_parquet(place: &dyn Place) {
    // The stock reader here is built without Snappy.
    let db = place.open(Options { compression: Compression::None, ..small() }).unwrap();
    let keyspace = db.create_keyspace("rows").unwrap();
    let mut rows = fill(db.as_ref(), keyspace);
    db.flush().unwrap();
    let tables = place.tables();
    let mut entries: Vec<_> = tables.iter().flat_map(|(path, bytes)| read_parquet(path, bytes)).collect();
    entries.sort_by(|a, b| a.key.cmp(&b.key));
    let found: Rows = entries.iter().map(|entry| (entry.key.clone(), entry.value.clone())).collect();
    assert_eq!(entries.len(), ROWS);
    assert!(found == rows, "SSTables hold other rows than were written");
    assert!(entries.iter().all(|entry| entry.kind == 0 && entry.seq > 0));
    assert_eq!(verify(db.as_ref()), ROWS as u64);
    check(db.as_ref(), keyspace, &rows);

    change(db.as_ref(), keyspace, &mut rows);
    db.flush().unwrap();
    let stats = db.stats().unwrap();
    assert!(stats.flushes >= 2, "{stats:?}");
    assert_eq!(stats.keyspaces[0].memtable_entries, 0, "{stats:?}");
    check(db.as_ref(), keyspace, &rows);

    db.compact().unwrap();
    let stats = db.stats().unwrap();
    assert!(stats.compactions >= 1, "{stats:?}");
    let [run] = stats.keyspaces[0].runs.as_slice() else { panic!("one run: {stats:?}") };
    assert_eq!((run.entries, run.tombstones), (rows.len() as u64, 0), "{stats:?}");
    assert!(run.files > 1, "files are cut at their target size: {stats:?}");
    assert_eq!(verify(db.as_ref()), rows.len() as u64);
    check(db.as_ref(), keyspace, &rows);
    db.close().unwrap();

    let db = place.open(small()).unwrap();
    check(db.as_ref(), keyspace, &rows);
    // Whatever an older generation was kept for is gone after the second open
    // at the latest.
    db.compact().unwrap();
    db.close().unwrap();
    let db = place.open(small()).unwrap();
    let live: u64 = db.stats().unwrap().keyspaces[0].runs.iter().map(|run| run.files).sum();
    assert_eq!(verify(db.as_ref()), rows.len() as u64);
    assert!(place.tables().len() as u64 >= live);
    check(db.as_ref(), keyspace, &rows);
}

/// One entry of an SSTable, as the stock reader sees it.
struct Entry {
    key: Vec<u8>,
    value: Vec<u8>,
    seq: i64,
    kind: i32,
}

fn read_parquet(path: &str, bytes: &Bytes) -> Vec<Entry> {
    let file = SerializedFileReader::new(bytes.clone()).unwrap_or_else(|error| panic!("{path}: {error}"));
    let metadata = file.metadata().file_metadata();
    let columns: Vec<_> = metadata.schema_descr().columns().iter().map(|c| c.name().to_owned()).collect();
    assert_eq!(columns, ["key", "value", "seq", "kind"], "{path}");
    let mut entries = Vec::new();
    for group in 0..file.num_row_groups() {
        let group = file.get_row_group(group).unwrap();
        let rows = group.metadata().num_rows() as usize;
        let column = |index: usize| group.get_column_reader(index).unwrap();
        let bytes_of = |index| match column(index) {
            ColumnReader::ByteArrayColumnReader(mut reader) => {
                let mut values = Vec::new();
                assert_eq!(reader.read_records(rows, None, None, &mut values).unwrap().0, rows, "{path}");
                values.into_iter().map(|value| value.data().to_vec()).collect::<Vec<_>>()
            }
            _ => panic!("{path}: column {index} is not of bytes"),
        };
        let (mut seqs, mut kinds) = (Vec::new(), Vec::new());
        match (column(2), column(3)) {
            (ColumnReader::Int64ColumnReader(mut seq), ColumnReader::Int32ColumnReader(mut kind)) => {
                seq.read_records(rows, None, None, &mut seqs).unwrap();
                kind.read_records(rows, None, None, &mut kinds).unwrap();
            }
            _ => panic!("{path}: seq and kind have other types"),
        }
        let pairs = bytes_of(0).into_iter().zip(bytes_of(1));
        let numbers = seqs.into_iter().zip(kinds);
        entries.extend(pairs.zip(numbers).map(|((key, value), (seq, kind))| Entry { key, value, seq, kind }));
    }
    assert_eq!(entries.len() as i64, metadata.num_rows(), "{path}");
    assert!(entries.is_sorted_by_key(|entry| (entry.key.clone(), -entry.seq)), "{path} is not sorted");
    entries
}

/// Scans forward and in reverse, by bounds and by prefix, over memtable and
/// SSTables together, in pages of any size.
pub fn scans(place: &dyn Place) {
    let db = place.open(small()).unwrap();
    let keyspace = db.create_keyspace("rows").unwrap();
    let mut rows = fill(db.as_ref(), keyspace);
    db.flush().unwrap();
    change(db.as_ref(), keyspace, &mut rows);

    let bounds = (Bound::Included(row_key(100)), Bound::Excluded(row_key(200)));
    let keys: Vec<_> = rows.range(bounds.clone()).map(|(key, _)| key.clone()).collect();
    assert_eq!(keys.len(), 90, "10 of 100 rows were deleted");
    let range = ScanRange { start: bounds.0, end: bounds.1, reverse: false };
    let prefix = ScanRange::prefix(b"row:0001");
    for range in [range, prefix] {
        let found: Vec<_> = model::scan(db.as_ref(), keyspace, &range, None);
        assert_eq!(found.iter().map(|(key, _)| key.to_vec()).collect::<Vec<_>>(), keys);
        let mut reversed = model::scan(db.as_ref(), keyspace, &range.clone().reversed(), None);
        reversed.reverse();
        assert_eq!(found, reversed, "{range:?}");
    }
    assert_eq!(model::scan(db.as_ref(), keyspace, &ScanRange::prefix(b"none"), None), []);

    // It sees the database as it was, whatever happens below it.
    let mut scan = db.scan(keyspace, &ScanRange::all(), None).unwrap();
    let mut found = Rows::new();
    let mut pages = 0;
    loop {
        let page = scan.next_page(1000, usize::MAX).unwrap();
        if page.is_empty() {
            break;
        }
        found.extend(
            page.pairs().map(|pair| pair.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()),
        );
        pages += 1;
        match pages {
            10 => db.delete(keyspace, &row_key(ROWS - 1), Durability::Buffered).unwrap(),
            20 => db.flush().unwrap(),
            30 => db.compact().unwrap(),
            _ => {}
        }
    }
    assert!(pages > 40, "{pages} pages");
    assert!(found == rows, "{} rows found of {}", found.len(), rows.len());
}

/// A snapshot keeps what it saw through writes, flush and compaction.
pub fn snapshots(place: &dyn Place) {
    let db = place.open(small()).unwrap();
    let keyspace = db.create_keyspace("rows").unwrap();
    let before = fill(db.as_ref(), keyspace);
    let snapshot = db.snapshot().unwrap();
    assert_eq!(db.stats().unwrap().snapshots, 1);
    let mut after = before.clone();
    change(db.as_ref(), keyspace, &mut after);
    for step in ["change", "flush", "compact"] {
        match step {
            "flush" => db.flush().unwrap(),
            "compact" => db.compact().unwrap(),
            _ => {}
        }
        let seen = model::scan(db.as_ref(), keyspace, &ScanRange::all(), Some(snapshot));
        assert_eq!(seen.len(), ROWS, "after {step}");
        assert!(seen.iter().all(|(key, value)| before[&key[..]] == value[..]), "after {step}");
        let key = row_key(5);
        let value = db.get(keyspace, &key, Some(snapshot)).unwrap();
        assert_eq!(value.as_deref(), Some(&row_value(5)[..]), "after {step}");
        assert_eq!(db.get(keyspace, &key, None).unwrap(), None, "after {step}");
        check(db.as_ref(), keyspace, &after);
    }
    db.release(snapshot).unwrap();
    assert!(db.release(snapshot).is_err());
    assert!(matches!(db.get(keyspace, b"k", Some(snapshot)), Err(Error::InvalidArgument(_))));

    // What only the snapshot needed goes with it.
    db.compact().unwrap();
    let stats = db.stats().unwrap();
    assert_eq!(stats.snapshots, 0);
    assert_eq!(stats.keyspaces[0].runs.iter().map(|run| run.entries).sum::<u64>(), after.len() as u64);
}

/// What was committed is there again: after a close, and from the WAL after a
/// drop without one.
pub fn reopens(place: &dyn Place) {
    let db = place.open(small()).unwrap();
    let keyspace = db.create_keyspace("rows").unwrap();
    let mut rows = fill(db.as_ref(), keyspace);
    db.close().unwrap();
    drop(db);

    let db = place.open(Options { create_if_missing: false, ..small() }).unwrap();
    assert_eq!(db.find_keyspace("rows").unwrap(), Some(keyspace));
    check(db.as_ref(), keyspace, &rows);
    change(db.as_ref(), keyspace, &mut rows);
    db.put(keyspace, b"zz", b"only in the WAL", Durability::Buffered).unwrap();
    rows.insert(b"zz".to_vec(), b"only in the WAL".to_vec());
    let last_sequence = db.stats().unwrap().last_sequence;
    drop(db);

    for _ in 0..2 {
        let db = place.open(small()).unwrap();
        let stats = db.stats().unwrap();
        assert_eq!(stats.last_sequence, last_sequence);
        assert_eq!(stats.recovered_bytes_dropped, 0);
        check(db.as_ref(), keyspace, &rows);
        verify(db.as_ref());
    }
    assert_ne!(place.open(small()).unwrap().create_keyspace("other").unwrap(), keyspace);
}

/// Range deletes, merges and expiry, in memtables and SSTables, through flush,
/// compaction and reopening; with snapshots from before.
pub fn ranges_merges_and_expiry(place: &dyn Place) {
    let db = place.open(small()).unwrap();
    let rows = db.create_keyspace("rows").unwrap();
    let with = |name: &str, operator: &str, memtable: MemtableKind| {
        let merge_operator = Some(operator.to_owned());
        let options = KeyspaceOptions { merge_operator, memtable: Some(memtable), ..Default::default() };
        db.create_keyspace_with(name, &options).unwrap()
    };
    let (sums, lists) =
        (with("sums", "i64.add", MemtableKind::SkipList), with("lists", "append", MemtableKind::Trie));
    let unknown = KeyspaceOptions { merge_operator: Some("none such".to_owned()), ..Default::default() };
    assert!(matches!(db.create_keyspace_with("x", &unknown), Err(Error::InvalidArgument(_))));
    assert!(matches!(db.create_keyspace_with("sums", &unknown), Err(Error::InvalidArgument(_))));

    let mut expected = fill(db.as_ref(), rows);
    let snapshot = db.snapshot().unwrap();
    db.delete_range(rows, &row_key(100), &row_key(1900), Durability::Buffered).unwrap();
    expected.retain(|key, _| *key < row_key(100) || *key >= row_key(1900));
    db.put(rows, &row_key(500), b"back", Durability::Buffered).unwrap();
    expected.insert(row_key(500), b"back".to_vec());
    let mut batch = WriteBatch::new();
    batch.put(rows, b"row:0019x", b"").delete_prefix(rows, b"row:0019").put(rows, &row_key(1950), b"after");
    db.write(batch, Durability::Sync).unwrap();
    expected.retain(|key, _| !key.starts_with(b"row:0019"));
    expected.insert(row_key(1950), b"after".to_vec());

    let add = |n: i64| db.merge(sums, b"n", &n.to_le_bytes(), Durability::Buffered).unwrap();
    let sum = |db: &dyn Database| {
        db.get(sums, b"n", None).unwrap().map(|value| i64::from_le_bytes(value[..].try_into().unwrap()))
    };
    assert!(matches!(db.merge(sums, b"n", b"1", Durability::Buffered), Err(Error::InvalidArgument(_))));
    assert!(matches!(db.merge(rows, b"n", b"1", Durability::Buffered), Err(Error::InvalidArgument(_))));
    // A transaction is told as soon as a commit, and has none of the batch.
    let mut tx = db.transaction().unwrap();
    for (keyspace, operand) in [(sums, b"1"), (rows, b"1")] {
        let mut batch = WriteBatch::new();
        batch.put(rows, b"x", b"").merge(keyspace, b"n", operand);
        assert!(matches!(tx.write(batch), Err(Error::InvalidArgument(_))));
    }
    assert_eq!(tx.get(rows, b"x").unwrap(), None);
    tx.commit(Durability::Buffered).unwrap();
    (1..=10).for_each(add);
    db.merge(lists, b"l", b"a", Durability::Buffered).unwrap();
    db.flush().unwrap();
    (11..=20).for_each(add);
    db.merge(lists, b"l", b"b", Durability::Buffered).unwrap();
    db.delete(lists, b"gone", Durability::Buffered).unwrap();

    // In 1970, and in a while.
    let mut batch = WriteBatch::new();
    batch.put_until(lists, b"past", b"x", Expiry(1)).put_until(lists, b"future", b"x", Expiry(1 << 50));
    db.write(batch, Durability::Buffered).unwrap();
    let has_clock = !cfg!(all(target_family = "wasm", target_os = "unknown"));

    for step in ["write", "flush", "compact", "reopen"] {
        let again = match step {
            "flush" => db.flush().map(|()| None).unwrap(),
            "compact" => db.compact().map(|()| None).unwrap(),
            "reopen" => {
                db.close().unwrap();
                Some(place.open(small()).unwrap())
            }
            _ => None,
        };
        let db = again.as_deref().unwrap_or(db.as_ref());
        check(db, rows, &expected);
        assert_eq!(sum(db), Some(210), "after {step}");
        assert_eq!(db.get(lists, b"l", None).unwrap().unwrap(), "ab", "after {step}");
        let found: Vec<_> = model::scan(db, lists, &ScanRange::all(), None);
        let keys: Vec<_> = found.iter().map(|(key, _)| &key[..]).collect();
        match has_clock {
            true => assert_eq!(keys, [&b"future"[..], b"l"], "after {step}"),
            false => assert_eq!(keys, [&b"future"[..], b"l", b"past"], "after {step}"),
        }
        verify(db);
        if step != "reopen" {
            let seen = model::scan(db, rows, &ScanRange::all(), Some(snapshot));
            assert_eq!(seen.len(), ROWS, "the snapshot after {step}");
        }
    }
}

/// Dropped keyspaces are gone, with their contents; their names are free and
/// their ids are not.
pub fn keyspaces_come_and_go(place: &dyn Place) {
    let db = place.open(small()).unwrap();
    let first = db.create_keyspace("k").unwrap();
    let other = db.create_keyspace("other").unwrap();
    fill(db.as_ref(), first);
    db.put(other, b"stays", b"1", Durability::Buffered).unwrap();
    assert!(db.drop_keyspace("k").unwrap());
    assert!(!db.drop_keyspace("k").unwrap());
    assert!(matches!(db.get(first, b"k", None), Err(Error::InvalidArgument(_))));
    assert!(matches!(db.put(first, b"k", b"v", Durability::Buffered), Err(Error::InvalidArgument(_))));
    assert_eq!(db.find_keyspace("k").unwrap(), None);
    let second = db.create_keyspace("k").unwrap();
    assert!(second > first && second > other);
    assert_eq!(model::scan(db.as_ref(), second, &ScanRange::all(), None), []);
    drop(db);
    // What the log still has of the first one is nobody's.
    let db = place.open(small()).unwrap();
    assert_eq!(db.find_keyspace("k").unwrap(), Some(second));
    assert_eq!(model::scan(db.as_ref(), second, &ScanRange::all(), None), []);
    assert_eq!(db.get(other, b"stays", None).unwrap().unwrap(), "1");
    verify(db.as_ref());
    db.drop_keyspace("k").unwrap();
    db.close().unwrap();
    drop(db);
    let db = place.open(small()).unwrap();
    assert!(db.create_keyspace("k").unwrap() > second, "the id of a dropped keyspace is given again");
}

/// Transactions read at their snapshot and their own writes, and conflict with
/// whatever changed what they read, and with nothing else.
pub fn transactions(place: &dyn Place) {
    let db = place.open(small()).unwrap();
    let [a, b] = [db.create_keyspace("a").unwrap(), db.create_keyspace("b").unwrap()];
    let put = |keyspace: KeyspaceId, key: &[u8], value: &[u8]| {
        db.put(keyspace, key, value, Durability::Buffered).unwrap();
    };
    let write = |transaction: &mut dyn DatabaseTransaction, key: &[u8], value: &[u8]| {
        let mut batch = WriteBatch::new();
        batch.put(a, key, value);
        transaction.write(batch).unwrap();
    };
    let conflicts = |outcome: Result<()>, expected: &[u8]| match outcome {
        Err(Error::Conflict { key }) => assert_eq!(key, expected),
        other => panic!("{other:?} instead of a conflict on {expected:?}"),
    };
    put(a, b"1", b"old");
    put(a, b"2", b"old");

    // Its own writes, over its snapshot; nobody else sees them.
    let mut tx = db.transaction().unwrap();
    put(a, b"3", b"later");
    write(tx.as_mut(), b"2", b"own");
    let savepoint = tx.savepoint().unwrap();
    let mut batch = WriteBatch::new();
    batch.delete_range(a, b"1", b"2").put(b, b"x", b"own");
    tx.write(batch).unwrap();
    assert_eq!(tx.get(a, b"1").unwrap(), None);
    assert_eq!(tx.get(b, b"x").unwrap().unwrap(), "own");
    tx.rollback_to(savepoint).unwrap();
    assert_eq!(tx.get(b, b"x").unwrap(), None);
    assert_eq!(tx.get(a, b"1").unwrap().unwrap(), "old");
    assert_eq!(tx.get(a, b"2").unwrap().unwrap(), "own");
    assert_eq!(tx.get(a, b"3").unwrap(), None, "it came after the transaction began");
    let rows = |tx: &mut dyn DatabaseTransaction, range: ScanRange| -> Vec<_> {
        duramen::api::pairs(tx.scan(a, &range).unwrap()).map(|pair| pair.unwrap().1).collect()
    };
    assert_eq!(rows(tx.as_mut(), ScanRange::all()), ["old", "own"]);
    assert_eq!(rows(tx.as_mut(), ScanRange::all().reversed()), ["own", "old"]);
    assert_eq!(db.get(a, b"2", None).unwrap().unwrap(), "old");
    conflicts(tx.commit(Durability::Sync), b"3");
    assert_eq!(db.get(a, b"2", None).unwrap().unwrap(), "old");

    // Write skew: each reads what the other writes.
    let (mut left, mut right) = (db.transaction().unwrap(), db.transaction().unwrap());
    left.get(a, b"1").unwrap();
    right.get(a, b"2").unwrap();
    write(left.as_mut(), b"2", b"left");
    write(right.as_mut(), b"1", b"right");
    left.commit(Durability::Buffered).unwrap();
    conflicts(right.commit(Durability::Buffered), b"2");
    assert_eq!(db.get(a, b"1", None).unwrap().unwrap(), "old");

    // Misses and ranges count; a flush in between changes nothing.
    for by_range in [false, true] {
        for flushed in [false, true] {
            for deleted in [false, true] {
                let mut tx = db.transaction().unwrap();
                match by_range {
                    true => assert_eq!(rows(tx.as_mut(), ScanRange::prefix(b"m")).len(), 0),
                    false => assert_eq!(tx.get(a, b"missing").unwrap(), None),
                }
                match deleted {
                    true => db.delete_range(a, b"m", b"n", Durability::Buffered).unwrap(),
                    false => put(a, b"missing", b"here"),
                }
                if flushed {
                    db.flush().unwrap();
                }
                write(tx.as_mut(), b"other", b"1");
                assert!(matches!(tx.commit(Durability::Buffered), Err(Error::Conflict { .. })));
                db.delete(a, b"missing", Durability::Buffered).unwrap();
            }
        }
    }

    // What was read and did not change is no conflict; writing alone is none.
    let mut tx = db.transaction().unwrap();
    tx.get(a, b"1").unwrap();
    assert_eq!(rows(tx.as_mut(), ScanRange::prefix(b"2")), ["left"]);
    put(a, b"0", b"elsewhere");
    put(a, b"blind", b"theirs");
    write(tx.as_mut(), b"blind", b"ours");
    tx.commit(Durability::Sync).unwrap();
    assert_eq!(db.get(a, b"blind", None).unwrap().unwrap(), "ours");

    // One that is dropped, and one that only read, change nothing.
    let mut tx = db.transaction().unwrap();
    write(tx.as_mut(), b"1", b"dropped");
    drop(tx);
    let mut tx = db.transaction().unwrap();
    tx.get(a, b"1").unwrap();
    put(a, b"1", b"new");
    tx.commit(Durability::Sync).unwrap();
    assert_eq!(db.stats().unwrap().snapshots, 0);
    drop(db);
    let db = place.open(small()).unwrap();
    assert_eq!(db.get(a, b"1", None).unwrap().unwrap(), "new");
    assert_eq!(db.get(a, b"blind", None).unwrap().unwrap(), "ours");
}

/// Background work ends, in slices of any size, and changes nothing that shows.
pub fn maintains(place: &dyn Place) {
    let db = place.open(small()).unwrap();
    let keyspace = db.create_keyspace("rows").unwrap();
    let mut rows = fill(db.as_ref(), keyspace);
    change(db.as_ref(), keyspace, &mut rows);
    let mut slices = 0;
    while db.maintain(Budget::bytes(8 << 10)).unwrap() == Progress::More {
        slices += 1;
        assert!(slices < 10_000, "no end of background work");
    }
    check(db.as_ref(), keyspace, &rows);
    assert_eq!(db.maintain(Budget::bytes(1)).unwrap(), Progress::Done);
    verify(db.as_ref());
}

/// Random operations, reopening included, against ordered maps.
///
/// # Panics
/// With `seed` in the message, which replays the run.
pub fn follows_the_model(place: &dyn Place, seed: u64) {
    let random = &mut Random::new(seed);
    let mut db = Some(place.open(small()).unwrap());
    let mut commits = 0;
    let mut model = Model::default();
    let mut snapshot = None;
    for step in 0..600 {
        let context = format!("seed {seed}, step {step}");
        let open = db.as_deref().expect("open between steps");
        let ids = model::create_keyspaces(open).unwrap();
        match random.below(100) {
            0..80 => {
                commits += 1;
                let commit = Commit::random(commits, random);
                let durability = [Durability::None, Durability::Buffered, Durability::Sync][random.below(3)];
                let written = open.write(commit.batch(ids), durability);
                written.unwrap_or_else(|error| panic!("{context}: {error}"));
                model.apply(&commit);
            }
            80..85 => open.flush().unwrap_or_else(|error| panic!("{context}: {error}")),
            85..87 => open.compact().unwrap_or_else(|error| panic!("{context}: {error}")),
            87..91 => {
                let budget = Budget::bytes(1 << random.below(18));
                open.maintain(budget).unwrap_or_else(|error| panic!("{context}: {error}"));
            }
            91..94 => match snapshot.take() {
                None => snapshot = Some((open.snapshot().unwrap(), model.clone())),
                Some((id, seen)) => {
                    seen.check(open, Some(id), &context);
                    open.release(id).unwrap();
                }
            },
            94..97 => model.check(open, None, &context),
            _ => {
                // Snapshots end with the database.
                snapshot = None;
                if random.one_in(2) {
                    open.close().unwrap_or_else(|error| panic!("{context}: {error}"));
                }
                drop(db.take());
                let again = place.open(small()).unwrap_or_else(|error| panic!("{context}: {error}"));
                assert_eq!(model::last_commit(again.as_ref()).unwrap(), commits, "{context}");
                model.check(again.as_ref(), None, &context);
                db = Some(again);
            }
        }
        let open = db.as_deref().expect("open between steps");
        model.probe(open, None, random, &context);
        if let Some((id, seen)) = &snapshot {
            seen.probe(open, Some(*id), random, &context);
        }
    }
    let db = db.expect("open between steps");
    db.compact().unwrap();
    model.check(db.as_ref(), None, &format!("seed {seed}, at the end"));
    verify(db.as_ref());
}
