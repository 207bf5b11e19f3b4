//! Time series whose entries expire: what it costs to forget them.

use std::sync::Arc;

use crate::Result;
use crate::args::count;
use crate::bench::{Bench, check, known, nanos_each};
use crate::clock::SimulatedClock;
use crate::data::{KEY_BYTES, Values, begins_right, mix};
use crate::engines::{Engine, bytes, files};

/// Series that are written in turn.
const SERIES: u64 = 1000;

/// The time to live is this part of the whole time.
const TTL_PART: u64 = 10;

/// Any time, in Unix milliseconds: 2024-01-01.
const START_MS: u64 = 1_704_067_200_000;

/// Time series whose entries live a tenth of the whole time
///
/// The clock is simulated: a millisecond passes with each put. Keys are a series and a
/// time, a thousand series in turn. Space is bytes of SSTables over bytes of keys and
/// values that have not expired, once no compaction is due; then everything expires.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Entries
    #[arg(long, default_value = "5M", value_parser = count)]
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
    let clock = Arc::new(SimulatedClock::at(START_MS));
    let live = arguments.entries.div_ceil(TTL_PART);
    let mut setup = bench.setup("ttl");
    setup.write_buffer_bytes = arguments.write_buffer << 20;
    setup.ttl = Some((live, Arc::clone(&clock)));
    let engine = bench.open(&setup)?;
    let mut values = Values::new(arguments.value_bytes);
    bench.timed("put", arguments.entries, |number| {
        clock.set(START_MS + number);
        let key = key(number);
        engine.put(&key, values.of(&key, 0))
    })?;
    bench.step("settle", || engine.settle())?;
    let written = known(engine.written()?)?;
    let pair_bytes = (KEY_BYTES + arguments.value_bytes) as f64;
    let put = pair_bytes * arguments.entries as f64;
    bench.note("write amplification", "", written.bytes() as f64 / put);
    let runs = known(engine.runs()?)?;
    bench.note("space over live bytes, settled", "", bytes(&runs) as f64 / (pair_bytes * live as f64));
    bench.note("SST files, settled", "", files(&runs) as f64);
    let (rows, nanoseconds) = scan(bench, engine.as_ref())?;
    check(rows == live, || format!("{rows} entries live instead of {live}"))?;
    bench.note("scan of the live, per row", "ns", nanoseconds);
    clock.set(START_MS + arguments.entries + live);
    bench.step("settle", || engine.settle())?;
    let runs = known(engine.runs()?)?;
    bench.note("SST bytes once all has expired, settled", "MB", bytes(&runs) as f64 / 1e6);
    let (rows, _) = scan(bench, engine.as_ref())?;
    check(rows == 0, || format!("{rows} entries live once all has expired"))
}

fn key(number: u64) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..8].copy_from_slice(&mix(number % SERIES).to_be_bytes());
    key[8..].copy_from_slice(&(START_MS + number).to_be_bytes());
    key
}

fn scan(bench: &Bench, engine: &dyn Engine) -> Result<(u64, f64)> {
    let (mut rows, mut right) = (0, true);
    let spent = bench.step("scan", || {
        engine.scan(&[], None, &mut |key, value| {
            rows += 1;
            right &= begins_right(key, 0, value);
            true
        })
    })?;
    check(right, || "a scan found wrong values".to_owned())?;
    Ok((rows, nanos_each(spent, rows)))
}
