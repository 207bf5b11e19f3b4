//! How the cost of an operation grows with the database.

use crate::Result;
use crate::args::count;
use crate::bench::{Bench, check, nanos_each};
use crate::data::{Random, Values, random_key};
use crate::engines::Engine;

/// Keys that are read again and again.
const HOT_KEYS: u64 = 20_000;

/// Cache of the cold gets, in bytes for each entry: filters take a sixth of it, and little
/// of the data fits.
const COLD_CACHE_BYTES: u64 = 8;

/// Most gets of each kind, and most of a key on average.
const READS_MAX: u64 = 200_000;
const READS_OF_A_KEY: u64 = 10;

/// Put, hot get and cold get as the database grows
///
/// Hot gets read 20,000 keys over and over from the cache. Cold gets read random keys with
/// a cache of 8 bytes for each entry, so that filters stay; the tables are open, with their
/// indexes in memory, and the files in the system's cache. The last rows are the largest database over the smallest.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Entries of each database, smallest first
    #[arg(long, default_values = ["1M", "10M"], value_parser = count)]
    entries: Vec<u64>,
    /// Bytes of a value
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
}

/// Measures one engine.
pub fn run(bench: &mut Bench, arguments: &Arguments) -> Result<()> {
    let costs = arguments.entries.iter().map(|entries| at(bench, *entries, arguments.value_bytes));
    let costs: Vec<[f64; 3]> = costs.collect::<Result<_>>()?;
    if let (Some(first), [_, .., last]) = (costs.first(), costs.as_slice()) {
        for (index, name) in OPERATIONS.iter().enumerate() {
            bench.note(format!("{name}, largest over smallest"), "", last[index] / first[index]);
        }
    }
    Ok(())
}

const OPERATIONS: [&str; 3] = ["put", "get hot", "get cold"];

/// Nanoseconds of each operation in a database of so many entries.
fn at(bench: &mut Bench, entries: u64, value_bytes: usize) -> Result<[f64; 3]> {
    let mut setup = bench.setup("scale");
    let engine = bench.open(&setup)?;
    let mut values = Values::new(value_bytes);
    let putting = bench.each(&format!("put {entries}"), entries, |number| {
        let key = random_key(number);
        engine.put(&key, values.of(&key, 0))
    })?;
    bench.step("settle", || engine.settle())?;
    let hot = gets(bench, engine.as_ref(), "get hot", entries.min(HOT_KEYS), value_bytes)?;
    drop(engine);
    setup.cache_bytes = (COLD_CACHE_BYTES * entries) as usize;
    let engine = bench.open(&setup)?;
    let cold = gets(bench, engine.as_ref(), "get cold", entries, value_bytes)?;
    drop(engine);
    bench.remove(&setup)?;
    let costs = [nanos_each(putting, entries), hot, cold];
    for (name, cost) in OPERATIONS.iter().zip(costs) {
        bench.note(format!("{name}, {entries} entries"), "ns", cost);
    }
    Ok(costs)
}

/// Nanoseconds of a get of a random key among the first `keys`, after as many
/// that are not timed.
fn gets(bench: &Bench, engine: &dyn Engine, phase: &str, keys: u64, value_bytes: usize) -> Result<f64> {
    let (mut values, mut random) = (Values::new(value_bytes), Random::new(1));
    let reads = READS_MAX.min(READS_OF_A_KEY * keys);
    let mut get = |_| {
        let key = random_key(random.below(keys));
        let mut right = false;
        engine.get(&key, &mut |value| right = value == values.of(&key, 0))?;
        check(right, || "an entry has not its value".to_owned())
    };
    bench.each("warm up", reads, &mut get)?;
    Ok(nanos_each(bench.each(phase, reads, &mut get)?, reads))
}
