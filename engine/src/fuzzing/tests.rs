//! Goal: no decoder panics, and none takes memory for what bytes only claim.
//! Method: every target gets its corpus, small real encodings in
//! `fuzz/corpus/<target>`, and seeded mutations of it. On Linux a process of its
//! own looks again and again at the most address space it ever had.
//!
//! `DURAMEN_SEED` shifts the seeds, `DURAMEN_MUTATIONS` multiplies the mutations.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use super::*;
use crate::edit::Item;
use crate::key::{Entry, Expiry, ValueKind};
use crate::options::MemtableKind;
use crate::range_delete::RangeDeletes;
use crate::record::{LogId, LogKind, LogWriter};
use crate::sstable::{TableIdentity, TableMeta, TableOptions, TableWriter};
use crate::storage::Storage;
use crate::wal::Wal;

/// A target: its name, and how many mutations of its corpus are tried.
type Target = (&'static str, fn(&[u8]), usize);

const TARGETS: [Target; 11] = [
    ("wal", wal, 20_000),
    ("manifest", manifest, 20_000),
    ("current", current, 10_000),
    ("edit", edit, 30_000),
    ("batch", batch, 30_000),
    ("packed", packed, 30_000),
    ("page", page, 40_000),
    ("page_body", page_body, 40_000),
    ("filter", filter, 10_000),
    ("private_block", private_block, 30_000),
    ("table", table, 12_000),
];

/// Longest input of a target.
const INPUT_BYTES_MAX: usize = 64 << 10;

/// Address space that all calls together may come to need: for the inputs, what
/// they decode to, and what an allocator keeps.
const SPACE_BYTES_MAX: u64 = 64 << 20;

const CHILD: &str = "DURAMEN_FUZZING_CHILD";

/// SplitMix64.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.bits() % end.max(1) as u64) as usize
    }

    /// Bytes after one to four changes.
    fn mutate(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = corpus[self.below(corpus.len())].clone();
        for _ in 0..1 + self.below(4) {
            let at = self.below(bytes.len());
            match self.below(9) {
                0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                2 if !bytes.is_empty() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
                3 => bytes.truncate(at),
                4 => {
                    // A part of another, or of the same.
                    let other = &corpus[self.below(corpus.len())];
                    let from = self.below(other.len());
                    let part = &other[from..from + self.below(other.len() - from)];
                    let end = at + self.below(bytes.len() - at);
                    bytes.splice(at..end, part.iter().copied());
                }
                // A length, a count or an offset becomes another.
                5 => self.write(&mut bytes, at, 4),
                6 => self.write(&mut bytes, at, 8),
                7 => {
                    // A long LEB128 integer.
                    let long = [0xff, 0xff, 0xff, 0xff, [0x07, 0x0f, 0xff][self.below(3)], 0x01];
                    let len = 5 + self.below(2);
                    bytes.splice(at..at, long[..len].iter().copied());
                }
                _ => {
                    let end = at + self.below((bytes.len() - at).min(16));
                    bytes.drain(at..end);
                }
            }
        }
        bytes.truncate(INPUT_BYTES_MAX);
        bytes
    }

    fn write(&mut self, bytes: &mut [u8], at: usize, len: usize) {
        let Some(place) = bytes.get_mut(at..at + len) else { return };
        let old = place.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        let small = self.below(300) as u64;
        let word = match self.below(5) {
            0 => u64::MAX,
            1 => old.wrapping_add(small),
            2 => old.wrapping_sub(small),
            3 => 1 << self.below(64),
            _ => u64::MAX >> self.below(64),
        };
        place.copy_from_slice(&word.to_le_bytes()[..len]);
    }
}

fn variable(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn corpus_dir(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// The corpus of a target, in order of the names.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(corpus_dir(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let corpus: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(corpus.len() >= 2, "{target} has a corpus of {}", corpus.len());
    corpus
}

/// Calls `target`, and shows the bytes if it panics.
fn call((name, target, _): Target, bytes: &[u8], seed: u64) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(bytes))) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        eprintln!("{name}, seed {seed}: panics at {} bytes {hex}", bytes.len());
        std::panic::resume_unwind(panic);
    }
}

fn drive(target: Target, mut after_each: impl FnMut(&[u8])) {
    let (name, _, mutations) = target;
    let seed = variable("DURAMEN_SEED", 0);
    let corpus = corpus(name);
    let mut random = Random(seed);
    let mutations = mutations as u64 * variable("DURAMEN_MUTATIONS", 1);
    for bytes in corpus.iter().chain(&crate::sstable::fuzzing::hostile(name)) {
        call(target, bytes, seed);
        after_each(bytes);
    }
    for _ in 0..mutations {
        let bytes = random.mutate(&corpus);
        call(target, &bytes, seed);
        after_each(&bytes);
    }
    println!("{name}: {} of the corpus, {mutations} mutations, seed {seed}", corpus.len());
}

/// The most address space that this process ever had, in bytes.
fn space_bytes_peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Every target, in a process of its own where its memory can be looked at.
#[test]
fn nothing_panics_and_memory_is_bounded() {
    if !cfg!(target_os = "linux") {
        TARGETS.iter().for_each(|target| drive(*target, |_| {}));
        return;
    }
    if std::env::var_os(CHILD).is_some() {
        let before = space_bytes_peak();
        for target in TARGETS {
            let mut calls = 0;
            drive(target, |bytes| {
                calls += 1;
                // Looking takes longer than most calls.
                if calls < 100 || calls % 50 == 0 {
                    let (more, len) = (space_bytes_peak() - before, bytes.len());
                    let name = target.0;
                    assert!(
                        more <= SPACE_BYTES_MAX,
                        "{name}: {more} bytes of memory by call {calls}, of {len} bytes"
                    );
                }
            });
        }
        return;
    }
    let name = "fuzzing::tests::nothing_panics_and_memory_is_bounded";
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    println!("{}", String::from_utf8_lossy(&child.stdout));
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
    let ran = String::from_utf8_lossy(&child.stdout).matches(" mutations, seed ").count();
    assert_eq!(ran, TARGETS.len(), "the process of its own ran every target");
}

/// The crate of the targets, which is built elsewhere, has all of them.
#[test]
fn every_door_has_a_target() {
    let manifest = include_str!("../../fuzz/Cargo.toml");
    for name in TARGETS.map(|(name, _, _)| name).into_iter().chain(["operations"]) {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        let path =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets").join(format!("{name}.rs"));
        let target = fs::read_to_string(path).unwrap();
        assert!(target.contains(&format!("duramen::fuzzing::{name}(bytes)")), "{name}");
    }
}

#[test]
fn operations_match_the_model() {
    drive(("operations", operations, 1500), |_| {});
}

/// The corpus is what it was made to be: most of it decodes.
#[test]
fn the_corpus_reaches_what_it_is_for() {
    for bytes in corpus("edit").iter().take(3) {
        assert!(edit::decode(bytes, "edit", 0).is_ok());
    }
    for bytes in corpus("batch").iter().take(3) {
        assert!(WriteBatch::from_encoded(bytes.clone()).is_ok());
    }
    let tables = corpus("table").into_iter().filter(|bytes| {
        let (len, rest) = bytes.split_first_chunk().unwrap();
        let (edit, file) = rest.split_at(u32::from_le_bytes(*len) as usize);
        let items = edit::decode(edit, "edit", 0).unwrap();
        let Item::TableAdded(placed) = &items[0] else { return false };
        let storage = MemoryStorage::new();
        storage.write("table", file.to_vec());
        let file = storage.open("table").unwrap();
        let cache = crate::sstable::Cache::new(1 << 20);
        crate::sstable::Table::open(file, "table".into(), &placed.meta, cache)
            .is_ok_and(|t| t.verify().is_ok())
    });
    assert!(tables.count() >= 3);
}

// --- The corpus --------------------------------------------------------------

/// The corpus is what the encoders write today, beside the regressions that were
/// added by hand. With `DURAMEN_WRITE_CORPUS=1` it is written again.
#[test]
fn the_corpus_is_what_the_encoders_write() {
    let write = std::env::var_os("DURAMEN_WRITE_CORPUS").is_some();
    let save = |target: &str, name: &str, bytes: &[u8]| {
        let file = corpus_dir(target).join(name);
        if write {
            fs::create_dir_all(corpus_dir(target)).unwrap();
            fs::write(&file, bytes).unwrap();
        }
        assert!(fs::read(&file).is_ok_and(|found| found == bytes), "{} differs", file.display());
    };
    let batches = sample_batches();
    for (n, batch) in batches.iter().enumerate() {
        save("batch", &format!("{n}"), batch.as_encoded());
    }
    let storage = MemoryStorage::new();
    storage.create_dir(filename::WAL_DIR).unwrap();
    let mut log = Wal::create(&storage, LOG, DATABASE_ID, SequenceNumber(1)).unwrap();
    save("wal", "empty", &storage.read(&filename::wal(LOG)).unwrap());
    for (n, batch) in batches.iter().enumerate() {
        log.append(SequenceNumber(n as u64 + 1), batch.as_encoded()).unwrap();
        log.sync().unwrap();
    }
    save("wal", "unsealed", &storage.read(&filename::wal(LOG)).unwrap());
    log.seal().unwrap();
    save("wal", "sealed", &storage.read(&filename::wal(LOG)).unwrap());
    let mut packed = Vec::new();
    for key in [&b"a"[..], b"", b"key"] {
        packed.extend((key.len() as u32).to_le_bytes());
        packed.extend(key);
    }
    save("packed", "keys", &packed);
    let mut builder = crate::api::PageBuilder::default();
    builder.push(b"a", b"1");
    builder.push(b"", b"");
    builder.push(b"key", b"value");
    save("packed", "pairs", &builder.finish().0);
    let tables = sample_tables();
    for (name, meta, file) in &tables {
        let placed = edit::Placed { level: 1, run: 7, meta: meta.clone() };
        let edit = edit::encode(&[Item::TableAdded(placed)]);
        save("table", name, &[&(edit.len() as u32).to_le_bytes()[..], &edit, file].concat());
        save("private_block", name, &file[meta.tail_offset as usize..]);
        for (n, (kind, bytes)) in crate::sstable::fuzzing::parts(file, meta).into_iter().enumerate() {
            save(kind, &format!("{name}-{n}"), &bytes);
        }
    }
    let edits = sample_edits(&tables[0].1);
    let id = LogId { kind: LogKind::Manifest, number: LOG, database_id: DATABASE_ID };
    let storage = MemoryStorage::new();
    storage.create_dir(filename::MANIFEST_DIR).unwrap();
    let file = storage.create(&filename::manifest(LOG)).unwrap();
    let mut log = LogWriter::create(file, id, SequenceNumber(1)).unwrap();
    for (n, edit) in edits.iter().enumerate() {
        save("edit", &format!("{n}"), edit);
        log.append(SequenceNumber(n as u64 + 1), edit).unwrap();
        log.sync().unwrap();
        save("manifest", &format!("{n}"), &storage.read(&filename::manifest(LOG)).unwrap());
    }
    let created = current::create(&storage, LOG, DATABASE_ID, crate::storage::DirSync::Done).unwrap();
    save("current", "created", &storage.read(filename::CURRENT).unwrap());
    current::advance(&storage, &created, FileNumber(9), crate::storage::DirSync::Done).unwrap();
    save("current", "advanced", &storage.read(filename::CURRENT).unwrap());
    for (name, text) in [
        ("writes", &b"\x01ab\x02bc\x03cd\x05ae\x07bb\x08cc\x0aa_\x01ab\x0f__\x0dzz\x0f__"[..]),
        ("flushes", b"\x04ab\x0c__\x07ab\x0c__\x07ac\x09ag\x0c__\x0e__\x0bbc\x0d__\x0f__"),
        ("reopens", b"\x09ah\x0e__\x07ab\x08ab\x0e__\x05ab\x07ab\x0c__\x07ab\x0d__\x0e__"),
    ] {
        save("operations", name, text);
    }
}

fn sample_batches() -> Vec<WriteBatch> {
    let id = KeyspaceId(1);
    let mut batches = vec![WriteBatch::new(), WriteBatch::new(), WriteBatch::new()];
    batches[0].put(id, b"key", b"value").delete(id, b"gone");
    batches[1].put_until(KeyspaceId(2), b"k", b"v", Expiry(2000)).merge(id, b"sum", &7i64.to_le_bytes());
    batches[2].delete_range(id, b"a", b"m").put(id, b"", b"").delete(KeyspaceId(3), b"x");
    batches
}

fn sample_edits(meta: &TableMeta) -> Vec<Vec<u8>> {
    let facts = |name: &str, merge_operator: &str, ttl_ms: u64, memtable| edit::KeyspaceFacts {
        name: name.into(),
        flushed_through: SequenceNumber(3),
        merge_operator: merge_operator.into(),
        ttl_ms,
        memtable,
        compaction: (ttl_ms > 0).then(|| "T4/L4".parse().unwrap()),
    };
    let header = edit::Header {
        epoch: 2,
        next_file: FileNumber(12),
        last_sequence: SequenceNumber(9),
        names_durable: true,
    };
    let placed = edit::Placed { level: 0, run: meta.number.0, meta: meta.clone() };
    let first = [
        Item::Header(header),
        Item::Keyspace(meta.keyspace, facts("users", "", 0, MemtableKind::Sorted)),
        Item::Keyspace(KeyspaceId(2), facts("sums", "i64.add", 500, MemtableKind::SkipList)),
        Item::WalAdded(FileNumber(3), SequenceNumber(4)),
    ];
    let end = edit::WalEnd { bytes: 100, last_sequence: SequenceNumber(9) };
    let flush = [
        Item::TableAdded(placed),
        Item::WalEnded(FileNumber(3), end),
        Item::WalRemoved(FileNumber(3)),
        Item::KeyspaceDropped(KeyspaceId(2)),
    ];
    let last = [Item::TableRemoved(meta.keyspace, meta.number), Item::CleanClose(SequenceNumber(9))];
    vec![edit::encode(&first), edit::encode(&flush), edit::encode(&last)]
}

/// Small tables of every shape: one page; several, with versions, kinds and
/// compression; expiries and range tombstones.
fn sample_tables() -> Vec<(&'static str, TableMeta, Vec<u8>)> {
    let table = |name, options: TableOptions, count: u64, range_deletes: RangeDeletes| {
        let storage = MemoryStorage::new();
        let identity = TableIdentity {
            database_id: DATABASE_ID,
            number: FileNumber(5),
            keyspace: KeyspaceId(1),
            level: 0,
        };
        let expires = options.expires;
        let file = storage.create("table").unwrap();
        let mut writer = TableWriter::new(file, "table".into(), identity, options).unwrap();
        for n in 0..count {
            let kind = [ValueKind::Put, ValueKind::Put, ValueKind::Delete, ValueKind::Merge][n as usize % 4];
            let value = if kind == ValueKind::Delete { Vec::new() } else { vec![b'v'; n as usize % 40] };
            let expiring = expires && kind == ValueKind::Put && n % 3 == 0;
            let entry = Entry {
                key: format!("key{:03}", n / 2).into_bytes().into(),
                seq: SequenceNumber(1000 - n),
                kind,
                expires_at: if expiring { Expiry(5000 + n) } else { Expiry::NEVER },
                value: value.into(),
            };
            writer.add(entry.borrowed()).unwrap();
        }
        writer.add_range_deletes(range_deletes);
        let meta = writer.finish().unwrap();
        (name, meta, storage.read("table").unwrap())
    };
    let plain = TableOptions { compression: Compression::None, ..TableOptions::default() };
    let small = TableOptions { page_rows: 4, value_page_bytes: 8, ..TableOptions::default() };
    let mut range_deletes = RangeDeletes::default();
    for (start, end, seq) in [("a", "key", 7), ("b", "key010", 1200), ("z", "zz", 3)] {
        range_deletes.insert(start.into(), end.into(), SequenceNumber(seq));
    }
    vec![
        ("one", plain.clone(), 3, RangeDeletes::default()),
        ("many", small.clone(), 30, RangeDeletes::default()),
        ("expires", TableOptions { expires: true, ..small.clone() }, 14, range_deletes.clone()),
        ("ranges", plain, 0, range_deletes),
        ("groups", TableOptions { row_group_rows: 10, ..small }, 24, RangeDeletes::default()),
    ]
    .into_iter()
    .map(|(name, options, count, range_deletes)| table(name, options, count, range_deletes))
    .collect()
}
