//! Memtables by themselves: speed and memory for each entry.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::ops::Bound;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use duramen::key::{Entry, Expiry};
use duramen::memtable::Memtable;
use duramen::memtable::skiplist::SkipListMemtable;
use duramen::memtable::sorted::SortedMemtable;
use duramen::memtable::trie::TrieMemtable;
use duramen::{KeyspaceId, SequenceNumber, ValueKind, WriteBatch};

use crate::Result;
use crate::args::count;
use crate::bench::{Bench, check, nanos_each};
use crate::data::{Random, mix, random_key, sequential_key};

/// Makes a memtable.
type Make = fn() -> Box<dyn Table>;

/// Every memtable of the engine, beside what others are compared with.
#[rustfmt::skip]
const SUBJECTS: &[(&str, Make)] = &[
    (BASELINE, || Box::new(PlainMap::default())),
    ("sorted", || over(SortedMemtable::default())),
    ("skiplist", || over(SkipListMemtable::default())),
    ("trie", || over(TrieMemtable::default())),
];

/// A map without versions, that copies keys and values: what memory costs at least.
pub const BASELINE: &str = "btree-map";

/// Bytes of a value: short, so that keys and structure count.
const VALUE_BYTES: usize = 32;

/// Entries, or keys, that are made before a clock starts.
const CHUNK: u64 = 1024;

/// Most reads of each kind.
const READS_MAX: u64 = 1_000_000;

/// Writers of the concurrent inserts, each time beside one reader.
const WRITERS: [u64; 3] = [1, 2, 4];

/// Insert, get, scans, and memory for each entry, of every memtable
///
/// In nanoseconds per operation, on one thread; inserts also from 1, 2 and 4 threads
/// beside one that reads. An insert's key and value are slices of a batch of its own, as
/// in a put. Memory is what the process grew by, batches included.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Entries
    #[arg(long, default_value = "1M", value_parser = count)]
    entries: u64,
    /// Kinds of keys; all of them, unless given
    #[arg(long, value_enum)]
    keys: Vec<Keys>,
}

/// How keys look; they come in random order but for `sequential`.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Keys {
    /// 16 random bytes
    Random,
    /// 16 decimal digits, ascending
    Sequential,
    /// Like `https://www.site-042.example/articles/17/3f1c`
    Urls,
    /// Like `tenant/0042/user/000417/order/0000003817`
    Paths,
}

impl Keys {
    const ALL: [Keys; 4] = [Keys::Random, Keys::Sequential, Keys::Urls, Keys::Paths];

    fn name(self) -> &'static str {
        match self {
            Keys::Random => "random",
            Keys::Sequential => "sequential",
            Keys::Urls => "urls",
            Keys::Paths => "paths",
        }
    }

    /// The key of entry `number`; no two have the same.
    fn key(self, number: u64) -> Vec<u8> {
        const SECTIONS: [&str; 8] =
            ["about", "articles", "download", "forum", "images", "products", "search", "users"];
        let random = mix(number);
        match self {
            Keys::Random => random_key(number).to_vec(),
            Keys::Sequential => sequential_key(number).to_vec(),
            Keys::Urls => {
                let (site, section, page) = (random % 200, (random >> 16) % 8, (random >> 32) % 64);
                let section = SECTIONS[section as usize];
                format!("https://www.site-{site:03}.example/{section}/{page}/{number:x}").into_bytes()
            }
            Keys::Paths => {
                let (tenant, user) = (random % 100, (random >> 32) % 1000);
                format!("tenant/{tenant:04}/user/{user:06}/order/{number:010}").into_bytes()
            }
        }
    }

    /// A prefix that, of a million keys, 10 to 100 share with `key`.
    fn prefix(self, key: &[u8]) -> &[u8] {
        match self {
            Keys::Random => &key[..2],
            Keys::Sequential => &key[..14],
            Keys::Urls | Keys::Paths => {
                &key[..key.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1)]
            }
        }
    }
}

/// What is measured of a memtable.
trait Table: Send + Sync {
    fn insert(&self, entry: Entry);
    /// Length of the value of `key`.
    fn get(&self, key: &[u8]) -> Option<usize>;
    /// Visits the keys from `start` on until told to stop with false.
    fn scan(&self, start: &[u8], visit: &mut dyn FnMut(&[u8]) -> bool);
    /// Bytes as the memtable counts them.
    fn counted_bytes(&self) -> Option<usize>;
}

#[derive(Default)]
struct PlainMap(RwLock<BTreeMap<Vec<u8>, Vec<u8>>>);

impl Table for PlainMap {
    fn insert(&self, entry: Entry) {
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        map.insert(entry.key.to_vec(), entry.value.to_vec());
    }

    fn get(&self, key: &[u8]) -> Option<usize> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(key).map(Vec::len)
    }

    fn scan(&self, start: &[u8], visit: &mut dyn FnMut(&[u8]) -> bool) {
        let map = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut range = map.range::<[u8], _>((Bound::Included(start), Bound::Unbounded));
        while let Some((key, _)) = range.next()
            && visit(key)
        {}
    }

    fn counted_bytes(&self) -> Option<usize> {
        None
    }
}

struct Ours(Arc<dyn Memtable>);

fn over(memtable: impl Memtable + 'static) -> Box<dyn Table> {
    Box::new(Ours(Arc::new(memtable)))
}

impl Table for Ours {
    fn insert(&self, entry: Entry) {
        self.0.insert(entry.borrowed());
    }

    fn get(&self, key: &[u8]) -> Option<usize> {
        self.0.get(key, SequenceNumber::MAX).map(|entry| entry.value.len())
    }

    fn scan(&self, start: &[u8], visit: &mut dyn FnMut(&[u8]) -> bool) {
        let mut cursor = Arc::clone(&self.0).cursor(None);
        // A cursor over memory has nothing that could fail.
        let mut moved = cursor.seek(start, SequenceNumber::MAX);
        while let (Ok(()), Some(entry)) = (&moved, cursor.entry())
            && visit(entry.key)
        {
            moved = cursor.next();
        }
    }

    fn counted_bytes(&self) -> Option<usize> {
        Some(self.0.bytes())
    }
}

/// Names of all memtables.
pub fn subjects() -> Vec<String> {
    SUBJECTS.iter().map(|(name, _)| (*name).to_owned()).collect()
}

/// Measures one memtable.
pub fn run(bench: &mut Bench, arguments: &Arguments) -> Result<()> {
    let subject = SUBJECTS.iter().find(|(name, _)| *name == bench.subject());
    let (_, make) = subject.ok_or("no such memtable")?;
    let all = if arguments.keys.is_empty() { &Keys::ALL[..] } else { &arguments.keys };
    // Kept to the end: memory that was freed would not show where it is used again.
    let mut tables = Vec::new();
    for keys in all {
        let before = resident_bytes();
        let table = make();
        inserts(bench, table.as_ref(), *keys, arguments.entries)?;
        let name = |what: &str| format!("{}: {what}", keys.name());
        if let (Some(before), Some(after)) = (before, resident_bytes()) {
            let grown = after.saturating_sub(before) as f64;
            bench.note(name("memory per entry"), "B", grown / arguments.entries as f64);
        }
        if let Some(bytes) = table.counted_bytes() {
            bench.note(name("counted per entry"), "B", bytes as f64 / arguments.entries as f64);
        }
        reads(bench, table.as_ref(), *keys, arguments.entries)?;
        tables.push(table);
    }
    for writers in WRITERS {
        concurrent(bench, make().as_ref(), all[0], arguments.entries, writers)?;
    }
    Ok(())
}

/// An entry as a put makes it.
fn entry(keys: Keys, number: u64) -> Result<Entry> {
    let mut batch = WriteBatch::new();
    let mut value = [0; VALUE_BYTES];
    value[..8].copy_from_slice(&number.to_le_bytes());
    batch.put(KeyspaceId(1), &keys.key(number), &value);
    let batch = Bytes::from(batch.into_encoded());
    let op = duramen::batch::decode(&batch).next().ok_or("a batch of one has an operation")?;
    let (key, value) = op.map_err(|error| error.what)?.slices(&batch);
    let seq = SequenceNumber(number + 1);
    Ok(Entry { key, seq, kind: ValueKind::Put, expires_at: Expiry::NEVER, value })
}

fn inserts(bench: &mut Bench, table: &dyn Table, keys: Keys, entries: u64) -> Result<()> {
    let phase = format!("{}: insert", keys.name());
    let (time, mut spent) = (bench.time(), Duration::ZERO);
    bench.each(&phase, entries.div_ceil(CHUNK), |chunk| {
        let numbers = chunk * CHUNK..entries.min((chunk + 1) * CHUNK);
        let made: Vec<Entry> = numbers.map(|number| entry(keys, number)).collect::<Result<_>>()?;
        let start = time.start();
        made.into_iter().for_each(|entry| table.insert(entry));
        spent += start.elapsed();
        Ok(())
    })?;
    bench.note(phase, "ns", nanos_each(spent, entries));
    Ok(())
}

fn reads(bench: &mut Bench, table: &dyn Table, keys: Keys, entries: u64) -> Result<()> {
    let reads = entries.min(READS_MAX);
    on_random_keys(bench, keys, entries, "get", reads, |key| table.get(key) == Some(VALUE_BYTES))?;
    on_random_keys(bench, keys, entries, "seek + 10", reads / 10, |key| {
        let mut rows = 0;
        table.scan(key, &mut |_| {
            rows += 1;
            rows < 10
        });
        rows > 0
    })?;
    on_random_keys(bench, keys, entries, "prefix scan", reads / 10, |key| {
        let (mut rows, prefix) = (0, keys.prefix(key));
        table.scan(prefix, &mut |key| {
            let inside = key.starts_with(prefix);
            rows += u64::from(inside);
            inside
        });
        rows > 0
    })?;
    let mut rows = 0;
    let phase = format!("{}: scan, per row", keys.name());
    let spent = bench.step(&phase, || {
        table.scan(&[], &mut |key| {
            black_box(key);
            rows += 1;
            true
        });
        Ok(())
    })?;
    bench.note(phase, "ns", nanos_each(spent, entries));
    check(rows == entries, || format!("a scan found {rows} entries"))
}

/// Times `read` on keys that are made beforehand; false from it fails the run.
fn on_random_keys(
    bench: &mut Bench,
    keys: Keys,
    entries: u64,
    what: &str,
    reads: u64,
    read: impl Fn(&[u8]) -> bool,
) -> Result<()> {
    let phase = format!("{}: {what}", keys.name());
    let (time, mut spent, mut random) = (bench.time(), Duration::ZERO, Random::new(1));
    let chunks = reads.div_ceil(CHUNK);
    bench.each(&phase, chunks, |_| {
        let wanted: Vec<Vec<u8>> = (0..CHUNK).map(|_| keys.key(random.below(entries))).collect();
        let start = time.start();
        let right = wanted.iter().all(|key| read(key));
        spent += start.elapsed();
        check(right, || format!("{phase} found nothing"))
    })?;
    bench.note(phase, "ns", nanos_each(spent, chunks * CHUNK));
    Ok(())
}

/// Inserts from several threads while one reads what is there by then or not.
fn concurrent(bench: &mut Bench, table: &dyn Table, keys: Keys, entries: u64, writers: u64) -> Result<()> {
    let share = |writer: u64| (writer..entries).step_by(writers as usize);
    let made = (0..writers).map(|writer| share(writer).map(|number| entry(keys, number)).collect());
    let made: Vec<Vec<Entry>> = made.collect::<Result<_>>()?;
    let done = AtomicBool::new(false);
    let phase = format!("{}: insert, {writers} writers and a reader", keys.name());
    let mut gets = 0;
    let start = Instant::now();
    bench.step(&phase, || {
        thread::scope(|scope| {
            let writing: Vec<_> = made
                .into_iter()
                .map(|entries| scope.spawn(move || entries.into_iter().for_each(|entry| table.insert(entry))))
                .collect();
            let reading = scope.spawn(|| {
                let (mut random, mut gets) = (Random::new(2), 0_u64);
                while !done.load(Relaxed) {
                    black_box(table.get(&keys.key(random.below(entries))));
                    gets += 1;
                }
                gets
            });
            let mut outcome = Ok(());
            for writer in writing {
                outcome = outcome.and(writer.join());
            }
            done.store(true, Relaxed);
            gets = reading.join().map_err(|_| "the reader panicked")?;
            outcome.map_err(|_| "a writer panicked".into())
        })
    })?;
    let spent = start.elapsed();
    bench.note(&phase, "ns", nanos_each(spent, entries));
    bench.note(format!("{phase}: gets"), "k/s", gets as f64 / spent.as_secs_f64() / 1e3);
    Ok(())
}

/// Bytes of memory that this process has, where the system says so.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}
