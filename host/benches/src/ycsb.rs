//! The six core workloads of YCSB, as its paper and its code have them.
//!
//! Cooper, Silberstein, Tam, Ramakrishnan and Sears, "Benchmarking cloud serving
//! systems with YCSB", 2010.

use crate::Result;
use crate::args::count;
use crate::bench::{Bench, check, fill_by_batches};
use crate::data::{Random, Values, begins_right, random_key};
use crate::engines::Engine;
use crate::zipf::Zipf;

/// Threads that work at once.
const THREADS: [u64; 2] = [1, 2];

/// Versions that updates write in turn: what is read while others write is one of them.
const VERSIONS: u64 = 4;

/// The longest scan; they are as long as any number up to this.
const SCAN_ROWS_MAX: u64 = 100;

/// The workloads of YCSB on one and two threads
///
/// A: half reads, half updates. B: 95 % reads, 5 % updates. C: reads. D: 95 % reads of
/// what is newest, 5 % inserts. E: 95 % scans of 1 to 100 entries, 5 % inserts. F: half
/// reads, half reads followed by an update of the same. Keys by YCSB's scattered Zipf
/// distribution. The database is filled once, in random order, and settled; the workloads
/// follow in the order A, B, C, F, D, E, each with one thread and then with two. Times are
/// what passes per operation of all threads.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Entries at the beginning
    #[arg(long, default_value = "1M", value_parser = count)]
    pub entries: u64,
    /// Operations of each workload, of E a tenth
    #[arg(long, default_value = "300k", value_parser = count)]
    pub operations: u64,
    /// Bytes of a value
    #[arg(long, default_value_t = 100)]
    pub value_bytes: usize,
}

/// A workload, in parts of a hundred operations; the rest are reads.
#[derive(Clone, Copy, Debug)]
struct Workload {
    name: &'static str,
    updates: u64,
    inserts: u64,
    scans: u64,
    /// Reads of what is to be updated then.
    modifies: u64,
    /// Reads prefer what was inserted last.
    latest: bool,
}

const WORKLOADS: [Workload; 6] = {
    const NONE: Workload =
        Workload { name: "", updates: 0, inserts: 0, scans: 0, modifies: 0, latest: false };
    [
        Workload { name: "A", updates: 50, ..NONE },
        Workload { name: "B", updates: 5, ..NONE },
        Workload { name: "C", ..NONE },
        Workload { name: "F", modifies: 50, ..NONE },
        Workload { name: "D", inserts: 5, latest: true, ..NONE },
        Workload { name: "E", inserts: 5, scans: 95, ..NONE },
    ]
};

/// Measures one engine.
pub fn run(bench: &mut Bench, arguments: &Arguments) -> Result<()> {
    let engine = bench.open(&bench.setup("ycsb"))?;
    let engine = engine.as_ref();
    fill_by_batches(bench, engine, arguments.entries, arguments.value_bytes)?;
    bench.step("settle", || engine.settle())?;
    let zipf = Zipf::new(arguments.entries);
    let mut entries = arguments.entries;
    for workload in WORKLOADS {
        let part = if workload.scans > 0 { 10 } else { 1 };
        for threads in THREADS {
            let each = arguments.operations.div_ceil(part * threads);
            let name =
                format!("YCSB {}, {threads} thread{}", workload.name, if threads > 1 { "s" } else { "" });
            bench.timed_on_threads(&name, threads, each, |thread| {
                let mut client = Client {
                    engine,
                    workload,
                    zipf: &zipf,
                    random: Random::new(thread),
                    values: Values::new(arguments.value_bytes),
                    begin: entries,
                    stride: threads,
                    thread,
                    inserted: 0,
                };
                move |number| client.step(number)
            })?;
            // More than were inserted: the next inserts must be new.
            entries += threads * each;
        }
    }
    Ok(())
}

/// One thread of a workload.
struct Client<'a> {
    engine: &'a dyn Engine,
    workload: Workload,
    zipf: &'a Zipf,
    random: Random,
    values: Values,
    /// The first number that this workload inserts.
    begin: u64,
    /// Threads insert numbers in turn.
    stride: u64,
    thread: u64,
    inserted: u64,
}

impl Client<'_> {
    fn step(&mut self, number: u64) -> Result<()> {
        let Workload { updates, inserts, scans, modifies, .. } = self.workload;
        let choice = self.random.below(100);
        match choice {
            _ if choice < updates => {
                let entry = self.entry();
                self.update(entry, number)
            }
            _ if choice < updates + inserts => self.insert(),
            _ if choice < updates + inserts + scans => self.scan(),
            _ if choice < updates + inserts + scans + modifies => {
                let entry = self.entry();
                self.read(entry)?;
                self.update(entry, number)
            }
            _ => {
                let entry = self.entry();
                self.read(entry)
            }
        }
    }

    /// An entry that is there.
    fn entry(&mut self) -> u64 {
        if !self.workload.latest {
            return self.zipf.scattered(&mut self.random);
        }
        let rank = self.zipf.rank(&mut self.random);
        if rank < self.inserted {
            self.number(self.inserted - 1 - rank)
        } else {
            // Before its own inserts, the entries of the fill, the last first.
            self.zipf.end() - 1 - (rank - self.inserted)
        }
    }

    /// The number of its insert of this index.
    fn number(&self, index: u64) -> u64 {
        self.begin + index * self.stride + self.thread
    }

    fn read(&mut self, entry: u64) -> Result<()> {
        let (key, mut right) = (random_key(entry), false);
        self.engine.get(&key, &mut |value| right = is_right(&key, value))?;
        check(right, || format!("entry {entry} has not its value"))
    }

    fn update(&mut self, entry: u64, number: u64) -> Result<()> {
        let key = random_key(entry);
        self.engine.put(&key, self.values.of(&key, number % VERSIONS))
    }

    fn insert(&mut self) -> Result<()> {
        let key = random_key(self.number(self.inserted));
        self.engine.put(&key, self.values.of(&key, 0))?;
        self.inserted += 1;
        Ok(())
    }

    fn scan(&mut self) -> Result<()> {
        let start = random_key(self.zipf.scattered(&mut self.random));
        let limit = 1 + self.random.below(SCAN_ROWS_MAX) as usize;
        let (mut rows, mut right) = (0, true);
        self.engine.scan_few(&start, limit, &mut |key, value| {
            rows += 1;
            right &= is_right(key, value);
            rows < limit
        })?;
        check(right && (1..=limit).contains(&rows), || "a scan found wrong values".to_owned())
    }
}

fn is_right(key: &[u8], value: &[u8]) -> bool {
    (0..VERSIONS).any(|version| begins_right(key, version, value))
}
