//! Goal: a database, once written, is read by every later program. Method: the
//! directories in `tests/golden` hold one each, written by [`write`] and never again;
//! copies of them, on disk and in memory, are opened and compared with what the
//! generator put there, and their SSTables are read by the parquet crate.
//!
//! A change of the generator or of a format does not change those files. A new format
//! version gets a directory of its own, written by
//! `DURAMEN_WRITE_GOLDEN=1 cargo test -p duramen --test engine golden`, which never
//! writes over one that exists.
//!
//! | | what is new in it |
//! | --- | --- |
//! | `v1` | |
//! | `v2` | version 2 of the private block; expiry, operands, range tombstones, a long value |
//! | `v3` | version 3 of the private block; pages of values that are shorter than those of keys |

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use bytes::Bytes;
use duramen::api::Database;
use duramen::options::Environment;
use duramen::storage::memory::MemoryStorage;
use duramen::{Background, Compression, Db, Durability, Expiry, KeyspaceOptions, Options, WriteBatch};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::support::{Contents, contents, files, files_in, open};

/// A golden database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Golden {
    V1,
    V2,
    V3,
}

impl Golden {
    const ALL: [Golden; 3] = [Golden::V1, Golden::V2, Golden::V3];

    /// xxh64 of all paths, lengths and bytes.
    fn checksum(self) -> u64 {
        match self {
            Golden::V1 => 0x8571_b368_e920_e210,
            Golden::V2 => 0xd261_1602_2ca2_ef07,
            Golden::V3 => 0x0f89_acf5_e37e_0efc,
        }
    }

    fn directory(self) -> PathBuf {
        let name = match self {
            Golden::V1 => "v1",
            Golden::V2 => "v2",
            Golden::V3 => "v3",
        };
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
    }

    /// What all keyspaces hold after so many commits.
    fn expected(self, commits: u32) -> Contents {
        let mut contents = expected(commits);
        if self >= Golden::V2 {
            let lists: [(&[u8], &[u8]); 5] =
                [(b"k1", b"1"), (b"k4", b"4"), (b"list", b"abc"), (b"long", &LONG), (b"until", b"2200")];
            contents.extend(lists.map(|(key, value)| ((LISTS.to_owned(), key.to_vec()), value.to_vec())));
        }
        if self >= Golden::V3 {
            contents.extend(verses().map(|(key, value)| ((LISTS.to_owned(), key), value)));
        }
        contents
    }

    fn names(self) -> Vec<&'static str> {
        let lists = (self >= Golden::V2).then_some(LISTS);
        KEYSPACES.into_iter().chain(lists).collect()
    }
}

const KEYSPACES: [&str; 2] = ["birds", "números"];

/// The keyspace that version 2 has besides.
const LISTS: &str = "lists";

/// A value that has a page of its own.
static LONG: [u8; 20_000] = [b'l'; 20_000];

/// Values that fill a page, which version 3 has besides.
fn verses() -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    (0..60u8).map(|n| (format!("verse/{n:02}").into_bytes(), [n; 200].to_vec()))
}

/// The first moment of the year 2200.
const YEAR_2200: Expiry = Expiry(7_258_118_400_000);

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
    let appends = KeyspaceOptions { merge_operator: Some("append".to_owned()), ..KeyspaceOptions::default() };
    let mut db = Db::open(directory, options()).unwrap();
    let ids = KEYSPACES.map(|name| db.create_keyspace(name).unwrap());
    let lists = db.create_keyspace_with(LISTS, &appends).unwrap();
    for n in 1..=COMMITS {
        let mut batch = WriteBatch::new();
        for (space, key, value) in commit(n) {
            match value {
                Some(value) => batch.put(ids[space], &key, &value),
                None => batch.delete(ids[space], &key),
            };
        }
        match n {
            490 => verses().for_each(|(key, value)| {
                batch.put(lists, &key, &value);
            }),
            500 => drop(
                batch.put(lists, b"k1", b"1").merge(lists, b"list", b"a").put(lists, b"long", &LONG).len(),
            ),
            700 => drop(batch.put_until(lists, b"until", b"2200", YEAR_2200).put(lists, b"k2", b"2").len()),
            710 => drop(batch.put(lists, b"k3", b"3").put(lists, b"k5", b"5").len()),
            800 => drop(batch.merge(lists, b"list", b"b").delete_range(lists, b"k2", b"k4").len()),
            940 => drop(batch.merge(lists, b"list", b"c").delete_range(lists, b"k5", b"k6").len()),
            950 => drop(batch.put(lists, b"k4", b"4").len()),
            _ => {}
        }
        db.write(batch, Durability::Sync).unwrap();
        match n {
            600 => db.compact().unwrap(),
            300 | 750 | FLUSHED => db.flush().unwrap(),
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
fn stored(golden: Golden) -> MemoryStorage {
    let (storage, directory) = (MemoryStorage::new(), golden.directory());
    let mut found = Vec::new();
    paths(&directory, "", &mut found);
    for path in found {
        storage.write(&path, std::fs::read(directory.join(&path)).unwrap());
    }
    storage
}

/// The golden files in a directory of their own.
fn copy(golden: Golden) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for (path, bytes) in files(&stored(golden)) {
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
fn golden_databases_are_written_once() {
    for golden in Golden::ALL {
        let directory = golden.directory();
        if std::env::var("DURAMEN_WRITE_GOLDEN").is_ok_and(|value| value == "1") && !directory.exists() {
            write(&directory);
        }
        let mut hashed = Vec::new();
        for (path, bytes) in &files(&stored(golden)) {
            hashed.extend_from_slice(path.as_bytes());
            hashed.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            hashed.extend_from_slice(bytes);
        }
        let checksum = xxhash_rust::xxh64::xxh64(&hashed, 0);
        assert_eq!(checksum, golden.checksum(), "files of {golden:?} have changed: {checksum:#018x}");
        assert!(hashed.len() < 200 << 10, "{} bytes", hashed.len());
    }
}

#[test]
fn they_open_in_memory_and_are_complete() {
    for golden in Golden::ALL {
        let db = open(&stored(golden), options()).unwrap();
        check(&db, &golden.expected(COMMITS));
        let stats = db.stats().unwrap();
        assert_eq!(stats.last_sequence, u64::from(COMMITS));
        assert_eq!(stats.recovered_commits, u64::from(COMMITS - FLUSHED));
        assert_eq!((stats.wal_files, stats.recovered_bytes_dropped), (2, 0));
        let names: Vec<&str> = stats.keyspaces.iter().map(|keyspace| &*keyspace.name).collect();
        assert_eq!(names, golden.names());
        let runs = &stats.keyspaces[0].runs;
        assert_eq!(runs.iter().map(|run| run.files).collect::<Vec<_>>(), [1, 1, 2], "{runs:?}");
        assert!(runs[0].tombstones > 0, "{runs:?}");
    }
}

#[test]
fn they_open_from_disk_and_go_on() {
    for golden in Golden::ALL {
        let copy = copy(golden);
        let mut expected = golden.expected(COMMITS);
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
}

#[test]
fn other_readers_find_in_their_sstables_what_was_flushed() {
    for golden in Golden::ALL {
        let live = read_by_another(&stored(golden)).into_iter();
        let live = live.filter_map(|(key, (_, value))| Some((key, value?)));
        assert!(live.collect::<Contents>() == expected(FLUSHED), "{golden:?}");
    }
}

/// A version of a key: its sequence number, and its value.
type Version = (i64, Option<Vec<u8>>);

/// The newest version of each key in the tables of [`KEYSPACES`].
fn read_by_another(storage: &MemoryStorage) -> BTreeMap<(String, Vec<u8>), Version> {
    let mut newest: BTreeMap<(String, Vec<u8>), Version> = BTreeMap::new();
    for (id, name) in (1..).zip(KEYSPACES) {
        let paths = files_in(storage, &format!("sst/{id}/"));
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
    newest
}
