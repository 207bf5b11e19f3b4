//! Goal: a database of format version 1, once written, is read by every later
//! program. Method: `tests/golden/v1` holds one, written by [`write`] and never
//! again; copies of it, on disk and in memory, are opened and compared with what
//! the generator put there, and its SSTables are read by the parquet crate.
//!
//! A change of the generator or of the format does not change those files. A new
//! format version gets a directory of its own, written by
//! `DURAMEN_WRITE_GOLDEN=1 cargo test -p duramen --test engine golden`, which
//! refuses to write over one that exists.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use bytes::Bytes;
use duramen::api::Database;
use duramen::options::Environment;
use duramen::storage::memory::MemoryStorage;
use duramen::{Background, Compression, Db, Durability, Options, WriteBatch};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::support::{Contents, contents, files, files_in, open};

/// xxh64 of all paths, lengths and bytes in `tests/golden/v1`.
const CHECKSUM: u64 = 0x8571_b368_e920_e210;

const KEYSPACES: [&str; 2] = ["birds", "números"];

/// Number of commits, those that are in SSTables and all.
const FLUSHED: u32 = 900;
const COMMITS: u32 = 960;

/// Nothing that differs from run to run.
#[derive(Debug)]
struct Still;

impl Environment for Still {
    fn monotonic_ms(&self) -> u64 {
        0
    }

    fn unix_ms(&self) -> u64 {
        0
    }

    fn random(&self) -> u64 {
        0x6475_7261_6d65_6e31
    }
}

fn options() -> Options {
    Options {
        memtable_bytes: 64 << 10,
        target_file_bytes: 8 << 10,
        compression: Compression::Snappy,
        background: Background::Inline,
        environment: std::sync::Arc::new(Still),
        ..Options::default()
    }
}

/// The operations of commit `n`: keyspace, key and value, or `None` to delete.
fn commit(n: u32) -> Vec<(usize, Vec<u8>, Option<Vec<u8>>)> {
    let bird = |n: u32| format!("bird/{:04}", n * 7919 % 600).into_bytes();
    let mut ops = vec![(0, bird(n), Some(format!("{n:>6} ").repeat(n as usize % 9).into_bytes()))];
    if n.is_multiple_of(6) {
        ops.push((0, bird(n / 2), None));
    }
    if n.is_multiple_of(3) {
        ops.push((1, n.to_be_bytes().to_vec(), Some(u64::from(n).pow(3).to_le_bytes().to_vec())));
    }
    match n {
        // The edges: no key, no value, keys past what statistics hold.
        10 => ops.push((1, Vec::new(), Some(b"the empty key".to_vec()))),
        11 => ops.push((0, vec![0xff; 300], Some(vec![0; 1000]))),
        12 => ops.push((0, [vec![b'x'; 400], b"1".to_vec()].concat(), Some(Vec::new()))),
        13 => ops.push((0, [vec![b'x'; 400], b"2".to_vec()].concat(), Some((0..=255).collect()))),
        950 => ops.push((1, Vec::new(), None)),
        _ => {}
    }
    ops
}

/// What the database holds after so many commits.
fn expected(commits: u32) -> Contents {
    let mut contents = Contents::new();
    for (space, key, value) in (1..=commits).flat_map(commit) {
        let key = (KEYSPACES[space].to_owned(), key);
        match value {
            Some(value) => drop(contents.insert(key, value)),
            None => drop(contents.remove(&key)),
        }
    }
    contents
}

/// Writes the database: a compacted level, two runs over it, and two WALs, the
/// first of which a recovery has ended; it is killed, not closed.
fn write(directory: &Path) {
    let mut db = Db::open(directory, options()).unwrap();
    let ids = KEYSPACES.map(|name| db.create_keyspace(name).unwrap());
    for n in 1..=COMMITS {
        let mut batch = WriteBatch::new();
        for (space, key, value) in commit(n) {
            match value {
                Some(value) => batch.put(ids[space], &key, &value),
                None => batch.delete(ids[space], &key),
            };
        }
        db.write(batch, Durability::Sync).unwrap();
        match n {
            600 => db.compact().unwrap(),
            750 | FLUSHED => db.flush().unwrap(),
            930 => {
                drop(db);
                db = Db::open(directory, options()).unwrap();
            }
            _ => {}
        }
    }
    drop(db);
    // It says which process held it.
    std::fs::remove_file(directory.join("LOCK")).unwrap();
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

/// Paths, relative to `directory`, of all files in it.
fn paths(directory: &Path, prefix: &str, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        match entry.file_type().unwrap().is_dir() {
            true => paths(&entry.path(), &format!("{path}/"), found),
            false => found.push(path),
        }
    }
}

/// The golden files, in memory.
fn golden() -> MemoryStorage {
    let storage = MemoryStorage::new();
    let mut found = Vec::new();
    paths(&directory(), "", &mut found);
    for path in found {
        storage.write(&path, std::fs::read(directory().join(&path)).unwrap());
    }
    storage
}

/// The golden files in a directory of their own.
fn copy() -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for (path, bytes) in files(&golden()) {
        let path = copy.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    copy
}

fn check(db: &dyn Database, expected: &Contents) {
    assert!(contents(db).unwrap() == *expected, "not what was written");
    for ((name, key), value) in expected {
        let id = db.find_keyspace(name).unwrap().unwrap();
        assert_eq!(db.get(id, key, None).unwrap().as_deref(), Some(&value[..]));
    }
    assert_eq!(db.verify().unwrap().problems, []);
}

#[test]
fn the_golden_database_is_written_once() {
    if std::env::var("DURAMEN_WRITE_GOLDEN").is_ok_and(|value| value == "1") {
        assert!(!directory().exists(), "the golden database exists; it is never written again");
        write(&directory());
    }
    let files = files(&golden());
    let mut hashed = Vec::new();
    for (path, bytes) in &files {
        hashed.extend_from_slice(path.as_bytes());
        hashed.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        hashed.extend_from_slice(bytes);
    }
    let checksum = xxhash_rust::xxh64::xxh64(&hashed, 0);
    assert_eq!(checksum, CHECKSUM, "golden files have changed: {checksum:#018x}");
    assert!(hashed.len() < 200 << 10, "{} bytes", hashed.len());
}

#[test]
fn it_opens_in_memory_and_is_complete() {
    let storage = golden();
    let db = open(&storage, options()).unwrap();
    check(&db, &expected(COMMITS));
    let stats = db.stats().unwrap();
    assert_eq!(stats.last_sequence, u64::from(COMMITS));
    assert_eq!(stats.recovered_commits, u64::from(COMMITS - FLUSHED));
    assert_eq!((stats.wal_files, stats.recovered_bytes_dropped), (2, 0));
    let names: Vec<&str> = stats.keyspaces.iter().map(|keyspace| &*keyspace.name).collect();
    assert_eq!(names, KEYSPACES);
    let runs = &stats.keyspaces[0].runs;
    assert_eq!(runs.iter().map(|run| run.files).collect::<Vec<_>>(), [1, 1, 2], "{runs:?}");
    assert!(runs[2].files > 1 && runs[0].tombstones > 0, "{runs:?}");
}

#[test]
fn it_opens_from_disk_and_goes_on() {
    let copy = copy();
    let mut expected = expected(COMMITS);
    let db = Db::open(copy.path(), Options::default()).unwrap();
    check(&db, &expected);
    let birds = db.keyspace("birds").unwrap();
    birds.put(b"new", b"value").unwrap();
    expected.insert(("birds".into(), b"new".to_vec()), b"value".to_vec());
    db.compact().unwrap();
    check(&db, &expected);
    db.close().unwrap();
    drop((birds, db));
    check(&Db::open(copy.path(), Options::default()).unwrap(), &expected);
}

#[test]
fn other_readers_find_in_its_sstables_what_was_flushed() {
    let storage = golden();
    // The newest version of each key: its sequence number and value.
    type Version = (i64, Option<Vec<u8>>);
    let mut newest: BTreeMap<(String, Vec<u8>), Version> = BTreeMap::new();
    for (id, name) in (1..).zip(KEYSPACES) {
        let paths = files_in(&storage, &format!("sst/{id}/"));
        assert!(paths.len() >= 3, "{paths:?}");
        for path in paths {
            let bytes = Bytes::from(storage.read(&path).unwrap());
            let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
            for batch in reader.map(|batch| batch.unwrap()) {
                let columns: Vec<String> =
                    batch.schema().fields().iter().map(|field| field.name().clone()).collect();
                assert_eq!(columns, ["key", "value", "seq", "kind"]);
                let (keys, values) = (batch.column(0).as_binary::<i32>(), batch.column(1).as_binary::<i32>());
                let seqs = batch.column(2).as_primitive::<Int64Type>();
                let kinds = batch.column(3).as_primitive::<Int32Type>();
                for row in 0..batch.num_rows() {
                    let entry = newest.entry((name.to_owned(), keys.value(row).to_vec())).or_default();
                    if seqs.value(row) > entry.0 {
                        let value = (kinds.value(row) == 0).then(|| values.value(row).to_vec());
                        *entry = (seqs.value(row), value);
                    }
                }
            }
        }
    }
    let live = newest.into_iter().filter_map(|(key, (_, value))| Some((key, value?)));
    assert!(live.collect::<Contents>() == expected(FLUSHED));
}
