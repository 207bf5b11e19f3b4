//! What compaction costs in writing, space and reading, under random overwrites.

use crate::Result;
use crate::args::count;
use crate::bench::{Bench, check, known, nanos_each};
use crate::data::{KEY_BYTES, Random, Values, random_key};
use crate::engines::{Engine, bytes, files, runs_per_get};

/// Overwrites for each entry.
const OVERWRITES: u64 = 3;

/// Times that the runs are counted while overwriting.
const SAMPLES: u64 = 100;

/// Gets, and keys of the average of runs per get.
const READS_MAX: u64 = 200_000;

/// Write, space and read amplification of a fill and random overwrites
///
/// Entries are put in random order, then overwritten at random, three times on average.
/// Write amplification: bytes of SSTables written by flushes and compactions, over bytes
/// of keys and values put; the log is left out. Space amplification: bytes of SSTables
/// once no compaction is due, over their bytes after a full compaction. Runs: sorted runs
/// in whose range a key is. Values are half random, half a repetition.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Entries
    #[arg(long, default_value = "10M", value_parser = count)]
    entries: u64,
    /// Bytes of a value
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
    /// Bytes in memory before a flush, in MiB
    #[arg(long, default_value_t = 8)]
    write_buffer: usize,
}

/// Measures one engine.
pub fn run(bench: &mut Bench, arguments: &Arguments) -> Result<()> {
    let mut setup = bench.setup("amplification");
    setup.write_buffer_bytes = arguments.write_buffer << 20;
    let engine = bench.open(&setup)?;
    let mut versions = vec![0_u8; usize::try_from(arguments.entries)?];
    load(bench, engine.as_ref(), arguments, &mut versions)?;
    let settled = known(engine.runs()?)?;
    let keys = (0..arguments.entries.min(READS_MAX) as u32).map(|number| random_key(number.into()));
    bench.note("runs per get, settled", "", runs_per_get(&settled, keys));
    bench.note("SST files, settled", "", files(&settled) as f64);
    gets(bench, engine.as_ref(), arguments, &versions)?;
    let spent = bench.step("compact", || engine.compact())?;
    let compacted = known(engine.runs()?)?;
    bench.note("full compaction", "s", spent.as_secs_f64());
    bench.note("space amplification, settled", "", bytes(&settled) as f64 / bytes(&compacted) as f64);
    bench.note("SST bytes, compacted", "MB", bytes(&compacted) as f64 / 1e6);
    gets_all_right(bench, engine.as_ref(), arguments, &versions)
}

fn load(bench: &mut Bench, engine: &dyn Engine, arguments: &Arguments, versions: &mut [u8]) -> Result<()> {
    let mut values = Values::new(arguments.value_bytes);
    let pair_bytes = (KEY_BYTES + arguments.value_bytes) as f64;
    let written = || known(engine.written()?).map(|written| written.bytes() as f64);
    bench.timed("fill, per put", arguments.entries, |number| {
        let key = random_key(number);
        engine.put(&key, values.of(&key, 0))
    })?;
    let filled = written()?;
    let mut random = Random::new(1);
    let overwrites = OVERWRITES * arguments.entries;
    let (mut runs, mut samples) = (0, 0);
    let stride = overwrites.div_ceil(SAMPLES);
    let spent = bench.each("overwrite", overwrites, |number| {
        if number % stride == stride - 1 {
            runs += known(engine.run_count()?)?;
            samples += 1;
        }
        let entry = random.below(arguments.entries);
        let version = &mut versions[entry as usize];
        *version = version.wrapping_add(1);
        let key = random_key(entry);
        engine.put(&key, values.of(&key, u64::from(*version)))
    })?;
    bench.note("overwrite, per put", "ns", nanos_each(spent, overwrites));
    bench.note("runs, while overwriting", "", runs as f64 / f64::from(samples));
    let settling = bench.step("settle", || engine.settle())?;
    bench.note("settle", "s", settling.as_secs_f64());
    let (total, flushed) = (written()?, known(engine.written()?)?.flush_bytes as f64);
    bench.note("write amplification, overwrites", "", (total - filled) / (pair_bytes * overwrites as f64));
    let put = pair_bytes * (overwrites + arguments.entries) as f64;
    bench.note("write amplification", "", total / put);
    bench.note("of it by flushes", "", flushed / put);
    Ok(())
}

fn gets(bench: &mut Bench, engine: &dyn Engine, arguments: &Arguments, versions: &[u8]) -> Result<()> {
    let mut values = Values::new(arguments.value_bytes);
    let mut random = Random::new(2);
    bench.timed("get, settled", arguments.entries.min(READS_MAX), |_| {
        get(engine, &mut values, versions, random.below(arguments.entries))
    })
}

fn gets_all_right(
    bench: &mut Bench,
    engine: &dyn Engine,
    arguments: &Arguments,
    versions: &[u8],
) -> Result<()> {
    let mut values = Values::new(arguments.value_bytes);
    let reads = arguments.entries.min(READS_MAX);
    let last = arguments.entries - reads;
    bench.timed("get, compacted", reads, |number| get(engine, &mut values, versions, last + number))
}

fn get(engine: &dyn Engine, values: &mut Values, versions: &[u8], entry: u64) -> Result<()> {
    let (key, version) = (random_key(entry), versions[entry as usize]);
    let mut right = false;
    engine.get(&key, &mut |value| right = value == values.of(&key, u64::from(version)))?;
    check(right, || format!("entry {entry} has not its value"))
}
