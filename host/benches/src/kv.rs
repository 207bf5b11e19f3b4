//! The classic table: writes, point reads and scans, one thread.

use std::time::Duration;

use crate::Result;
use crate::args::count;
use crate::bench::{Bench, check, full_scan, nanos_each, range_scans};
use crate::data::{KEY_BYTES, Random, Values, begins_right, random_key, sequential_key};
use crate::engines::{Engine, Setup};
use crate::system::{disk_bytes, memory_peak_bytes, written_bytes};

/// Most reads of each kind.
const READS_MAX: u64 = 500_000;

/// Keys that are read again and again.
const HOT_KEYS: u64 = 20_000;

/// Cache of the cold gets, in bytes: little of the data fits.
const COLD_CACHE_BYTES: usize = 8 << 20;

/// Entries of a batch, keys of a multi-get, and entries in a range.
const HUNDRED: u64 = 100;

/// Puts, batches, gets, seeks and scans on one thread
///
/// fillseq, fillrandom and overwrite are puts, each a commit. get hot reads 20,000 keys
/// over and over; get cold each key once after a reopen with a cache of 8 MiB, the files in
/// the system's cache; get missing keys that are not there but in the range. A range scan
/// has a hundred entries on average, as if that many shared a prefix. What is read has been
/// flushed and compacted as far as the engine does it by itself. Write amplification: bytes
/// that the process hands to the system, the log included, over those of keys and values.
/// Peak memory: of the process, files that it maps included, from its start to the scans.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Entries
    #[arg(long, default_value = "1M", value_parser = count)]
    pub entries: u64,
    /// Bytes of a value
    #[arg(long, default_value_t = 100)]
    pub value_bytes: usize,
}

/// Measures one engine.
pub fn run(bench: &mut Bench, arguments: &Arguments) -> Result<()> {
    let mut setup = bench.setup("random");
    fill(bench, &setup, arguments)?;
    setup.cache_bytes = COLD_CACHE_BYTES;
    let engine = bench.open(&setup)?;
    gets_cold(bench, engine.as_ref(), arguments)?;
    drop(engine);
    setup.cache_bytes = bench.setup("random").cache_bytes;
    let engine = bench.open(&setup)?;
    gets(bench, engine.as_ref(), arguments)?;
    scans(bench, engine.as_ref(), arguments)?;
    if let Some(peak) = memory_peak_bytes() {
        bench.note("peak memory", "MiB", peak as f64 / 1_048_576.0);
    }
    overwrite(bench, engine.as_ref(), arguments)?;
    drop(engine);
    bench.remove(&setup)?;
    fill_in_order(bench, arguments)?;
    fill_by_batches(bench, arguments)
}

fn fill(bench: &mut Bench, setup: &Setup, arguments: &Arguments) -> Result<()> {
    let engine = bench.open(setup)?;
    let mut values = Values::new(arguments.value_bytes);
    let before = written_bytes();
    bench.timed("fillrandom", arguments.entries, |number| {
        let key = random_key(number);
        engine.put(&key, values.of(&key, 0))
    })?;
    let spent = bench.step("settle", || engine.settle())?;
    bench.note("settle after fillrandom", "ms", spent.as_secs_f64() * 1e3);
    if let (Some(before), Some(after)) = (before, written_bytes()) {
        let put = arguments.entries * (KEY_BYTES + arguments.value_bytes) as u64;
        bench.note("write amplification", "", (after - before) as f64 / put as f64);
    }
    // Some space is given back only by a close.
    drop(engine);
    bench.note("space on disk", "MB", disk_bytes(&setup.directory)? as f64 / 1e6);
    Ok(())
}

/// Reads entry `number`, never overwritten.
fn get(engine: &dyn Engine, values: &mut Values, number: u64) -> Result<()> {
    let key = random_key(number);
    let mut right = false;
    engine.get(&key, &mut |value| right = value == values.of(&key, 0))?;
    check(right, || format!("entry {number} has not its value"))
}

fn gets_cold(bench: &mut Bench, engine: &dyn Engine, arguments: &Arguments) -> Result<()> {
    let reads = arguments.entries.min(READS_MAX);
    let mut values = Values::new(arguments.value_bytes);
    bench.timed("get cold", reads, |number| get(engine, &mut values, number))
}

fn gets(bench: &mut Bench, engine: &dyn Engine, arguments: &Arguments) -> Result<()> {
    let reads = arguments.entries.min(READS_MAX);
    let hot = arguments.entries.min(HOT_KEYS);
    let mut values = Values::new(arguments.value_bytes);
    bench.each("warm up", 2 * hot, |number| get(engine, &mut values, number % hot))?;
    let mut random = Random::new(1);
    bench.timed("get hot", reads, |_| get(engine, &mut values, random.below(hot)))?;
    bench.timed("get missing", reads, |number| {
        let found = engine.get(&random_key(arguments.entries + number), &mut |_| {})?;
        check(!found, || format!("entry {number} beyond the last is there"))
    })?;
    bench.timed("multi-get of 100", reads.div_ceil(HUNDRED), |_| {
        let keys: Vec<_> = (0..HUNDRED).map(|_| random_key(random.below(arguments.entries))).collect();
        let slices: Vec<&[u8]> = keys.iter().map(|key| key.as_slice()).collect();
        let (mut rows, mut right) = (0, true);
        engine.multi_get(&slices, &mut |index, value| {
            rows += 1;
            right &= begins_right(&keys[index], 0, value);
        })?;
        check(right && rows == HUNDRED, || format!("a multi-get found {rows} entries"))
    })
}

fn scans(bench: &mut Bench, engine: &dyn Engine, arguments: &Arguments) -> Result<()> {
    let reads = arguments.entries.min(READS_MAX).div_ceil(10);
    let mut random = Random::new(2);
    for limit in [10, 100] {
        bench.timed(&format!("seek + {limit}"), reads, |_| {
            let (mut rows, mut right) = (0, true);
            engine.scan_few(&random_key(random.below(arguments.entries)), limit, &mut |key, value| {
                rows += 1;
                right &= begins_right(key, 0, value);
                rows < limit
            })?;
            check(right && (1..=limit).contains(&rows), || "a seek found wrong values".to_owned())
        })?;
    }
    // Keys are spread evenly, so this much of their first eight bytes holds a hundred.
    let width = (u64::MAX / arguments.entries).saturating_mul(HUNDRED);
    range_scans(bench, engine, "range scan of 100", width, reads, &mut random)?;
    full_scan(bench, arguments.entries, "full scan", |show| engine.scan(&[], None, show))?;
    if !engine.scans_back() {
        eprintln!("{}: full scan backwards: not supported", bench.subject());
        return Ok(());
    }
    full_scan(bench, arguments.entries, "full scan backwards", |show| engine.scan_back(show))
}

fn overwrite(bench: &mut Bench, engine: &dyn Engine, arguments: &Arguments) -> Result<()> {
    let mut values = Values::new(arguments.value_bytes);
    let mut random = Random::new(3);
    bench.timed("overwrite", arguments.entries, |_| {
        let key = random_key(random.below(arguments.entries));
        engine.put(&key, values.of(&key, 1))
    })?;
    let mut random = Random::new(3);
    bench.each("check", arguments.entries.min(HOT_KEYS), |_| {
        let key = random_key(random.below(arguments.entries));
        let mut right = false;
        engine.get(&key, &mut |value| right = value == values.of(&key, 1))?;
        check(right, || "an entry has not the value that it was overwritten with".to_owned())
    })?;
    Ok(())
}

fn fill_in_order(bench: &mut Bench, arguments: &Arguments) -> Result<()> {
    let setup = bench.setup("sequential");
    let engine = bench.open(&setup)?;
    let mut values = Values::new(arguments.value_bytes);
    bench.timed("fillseq", arguments.entries, |number| {
        let key = sequential_key(number);
        engine.put(&key, values.of(&key, 0))
    })?;
    drop(engine);
    bench.remove(&setup)
}

fn fill_by_batches(bench: &mut Bench, arguments: &Arguments) -> Result<()> {
    let setup = bench.setup("batches");
    let engine = bench.open(&setup)?;
    let mut values = Values::new(arguments.value_bytes);
    let (time, mut spent, mut pairs) = (bench.time(), Duration::ZERO, Vec::new());
    bench.each("batch of 100", arguments.entries.div_ceil(HUNDRED), |batch| {
        pairs.clear();
        for number in batch * HUNDRED..(batch + 1) * HUNDRED {
            let key = random_key(number);
            pairs.push((key.to_vec(), values.of(&key, 0).to_vec()));
        }
        let start = time.start();
        engine.batch(&pairs)?;
        spent += start.elapsed();
        Ok(())
    })?;
    bench.note("batch of 100, per entry", "ns", nanos_each(spent, arguments.entries));
    drop(engine);
    bench.remove(&setup)
}
