//! The classic table: writes, point reads and scans, one thread.

use std::time::Duration;

use crate::Result;
use crate::args::count;
use crate::bench::{Bench, check, nanos_each};
use crate::data::{Random, Values, begins_right, random_key, sequential_key};
use crate::engines::{Engine, Setup};

/// Most reads of each kind.
const READS_MAX: u64 = 500_000;

/// Keys that are read again and again.
const HOT_KEYS: u64 = 20_000;

/// Entries of a batch.
const BATCH_ENTRIES: u64 = 100;

/// Bytes of a prefix: of a million random keys, 15 share one.
const PREFIX_BYTES: usize = 2;

/// Puts, batches, gets, seeks and scans on one thread
///
/// fillseq and fillrandom are puts, each a commit; get hot reads 20,000 keys over and
/// over, get cold each key once after a reopen with an empty cache, get missing keys that
/// are not there but in the range. What is read has been flushed and compacted as far as
/// the engine does it by itself.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Entries
    #[arg(long, default_value = "1M", value_parser = count)]
    entries: u64,
    /// Bytes of a value
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
}

/// Measures one engine.
pub fn run(bench: &mut Bench, arguments: &Arguments) -> Result<()> {
    fill_in_order(bench, arguments)?;
    fill_by_batches(bench, arguments)?;
    let setup = bench.setup("random");
    fill(bench, &setup, arguments)?;
    // Opened anew, so that the cache is empty.
    let engine = bench.open(&setup)?;
    gets(bench, engine.as_ref(), arguments)?;
    scans(bench, engine.as_ref(), arguments)
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
    bench.each("batch of 100", arguments.entries.div_ceil(BATCH_ENTRIES), |batch| {
        pairs.clear();
        for number in batch * BATCH_ENTRIES..(batch + 1) * BATCH_ENTRIES {
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

fn fill(bench: &mut Bench, setup: &Setup, arguments: &Arguments) -> Result<()> {
    let engine = bench.open(setup)?;
    let mut values = Values::new(arguments.value_bytes);
    bench.timed("fillrandom", arguments.entries, |number| {
        let key = random_key(number);
        engine.put(&key, values.of(&key, 0))
    })?;
    let spent = bench.step("settle", || engine.settle())?;
    bench.note("settle after fillrandom", "ms", spent.as_secs_f64() * 1e3);
    Ok(())
}

fn gets(bench: &mut Bench, engine: &dyn Engine, arguments: &Arguments) -> Result<()> {
    let reads = arguments.entries.min(READS_MAX);
    let hot = arguments.entries.min(HOT_KEYS);
    let mut values = Values::new(arguments.value_bytes);
    let mut get = |number: u64| {
        let key = random_key(number);
        let mut right = false;
        engine.get(&key, &mut |value| right = value == values.of(&key, 0))?;
        check(right, || format!("entry {number} has not its value"))
    };
    bench.timed("get cold", reads, &mut get)?;
    bench.each("warm up", 2 * hot, |number| get(number % hot))?;
    let mut random = Random::new(1);
    bench.timed("get hot", reads, |_| get(random.below(hot)))?;
    bench.timed("get missing", reads, |number| {
        let found = engine.get(&random_key(arguments.entries + number), &mut |_| {})?;
        check(!found, || format!("entry {number} beyond the last is there"))
    })
}

fn scans(bench: &mut Bench, engine: &dyn Engine, arguments: &Arguments) -> Result<()> {
    let reads = arguments.entries.min(READS_MAX).div_ceil(10);
    let mut random = Random::new(2);
    bench.timed("seek + 10", reads, |_| {
        let (mut rows, mut right) = (0, true);
        engine.scan(&random_key(random.below(arguments.entries)), None, &mut |key, value| {
            rows += 1;
            right &= begins_right(key, 0, value);
            rows < 10
        })?;
        check(right && rows > 0, || "a seek found wrong values".to_owned())
    })?;
    let mut rows = 0;
    let prefix_of = |number: u64| random_key(number)[..PREFIX_BYTES].to_vec();
    bench.timed("prefix scan", reads, |_| {
        let prefix = prefix_of(random.below(arguments.entries));
        let (end, before) = (duramen::key::prefix_end(&prefix), rows);
        let mut right = true;
        engine.scan(&prefix, end.as_deref(), &mut |key, value| {
            rows += 1;
            right &= key.starts_with(&prefix) && begins_right(key, 0, value);
            true
        })?;
        check(right && rows > before, || format!("a scan of {prefix:02x?} found wrong entries"))
    })?;
    bench.note("prefix scan, rows each", "", rows as f64 / reads as f64);
    let (mut rows, mut right) = (0, true);
    let spent = bench.step("full scan", || {
        engine.scan(&[], None, &mut |key, value| {
            rows += 1;
            right &= begins_right(key, 0, value);
            true
        })
    })?;
    check(right && rows == arguments.entries, || format!("a full scan found {rows} entries"))?;
    bench.note("full scan, per row", "ns", nanos_each(spent, rows));
    Ok(())
}
