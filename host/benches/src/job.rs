//! What a flush and a merge of four sorted runs cost for each row.

use crate::Result;
use crate::args::count;
use crate::bench::{Bench, check, known, nanos_each};
use crate::data::{Values, begins_right, random_key};
use crate::engines::bytes;

/// Sorted runs that are merged.
const RUNS: u64 = 4;

/// Bytes in memory before a flush: never reached.
const WRITE_BUFFER_BYTES: usize = 4 << 30;

/// A flush, and a compaction of four runs, per row
///
/// Four times a quarter of the entries is put and flushed, then the four runs are merged
/// into one; no key is in two of them, and their keys interleave at random. Nothing
/// happens by itself in between.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Entries in all
    #[arg(long, default_value = "1M", value_parser = count)]
    entries: u64,
    /// Bytes of a value
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
}

/// Measures one engine.
pub fn run(bench: &mut Bench, arguments: &Arguments) -> Result<()> {
    let mut setup = bench.setup("job");
    setup.write_buffer_bytes = WRITE_BUFFER_BYTES;
    setup.automatic = false;
    let engine = bench.open(&setup)?;
    let mut values = Values::new(arguments.value_bytes);
    let quarter = arguments.entries.div_ceil(RUNS);
    let mut flushing = 0.0;
    for run in 0..RUNS {
        bench.each("put", quarter, |number| {
            let key = random_key(run * quarter + number);
            engine.put(&key, values.of(&key, 0))
        })?;
        flushing += nanos_each(bench.step("flush", || engine.flush())?, RUNS * quarter);
    }
    let before = known(engine.runs()?)?;
    check(before.len() == RUNS as usize, || format!("{} runs instead of {RUNS}", before.len()))?;
    let compacting = bench.step("compact", || engine.compact())?;
    let after = known(engine.runs()?)?;
    check(after.len() == 1, || format!("a compaction left {} runs", after.len()))?;
    let mut rows = 0;
    let mut right = true;
    engine.scan(&[], None, &mut |key, value| {
        rows += 1;
        right &= begins_right(key, 0, value);
        true
    })?;
    check(right && rows == RUNS * quarter, || format!("a compaction left {rows} rows"))?;
    bench.note("flush, per row", "ns", flushing);
    bench.note("compaction of 4 runs, per row", "ns", nanos_each(compacting, rows));
    bench.note("SST bytes per row, flushed", "B", bytes(&before) as f64 / rows as f64);
    bench.note("SST bytes per row, compacted", "B", bytes(&after) as f64 / rows as f64);
    Ok(())
}
