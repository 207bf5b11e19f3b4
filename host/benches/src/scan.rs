//! Scans of all that there is, and of its hundredth parts.

use crate::Result;
use crate::args::count;
use crate::bench::{Bench, check, fill_by_batches, nanos_each};
use crate::data::{Random, begins_right};
use crate::engines::Engine;

/// A part is one of so many.
const PARTS: u64 = 100;

/// Full scans, first and again, and scans of a hundredth
///
/// What engines that are made for analytics can be measured by, to whom a put or a get is
/// a query: entries are put in random order by commits of a hundred, flushed and compacted
/// as far as the engine does it by itself, and scanned after a reopen, with the files in
/// the system's cache and nothing in the engine's own; then again. Every entry is looked
/// at. A part is a range of keys that a hundredth of all are in.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Entries
    #[arg(long, default_value = "1M", value_parser = count)]
    pub entries: u64,
    /// Bytes of a value
    #[arg(long, default_value_t = 100)]
    pub value_bytes: usize,
    /// Parts that are scanned
    #[arg(long, default_value_t = PARTS)]
    pub parts: u64,
}

/// Measures one engine.
pub fn run(bench: &mut Bench, arguments: &Arguments) -> Result<()> {
    let setup = bench.setup("scan");
    let engine = bench.open(&setup)?;
    fill_by_batches(bench, engine.as_ref(), arguments.entries, arguments.value_bytes)?;
    bench.step("settle", || engine.settle())?;
    drop(engine);
    let engine = bench.open(&setup)?;
    full(bench, engine.as_ref(), arguments.entries, "first scan, per row")?;
    full(bench, engine.as_ref(), arguments.entries, "scan again, per row")?;
    parts(bench, engine.as_ref(), arguments)
}

fn full(bench: &mut Bench, engine: &dyn Engine, entries: u64, name: &str) -> Result<()> {
    let (mut rows, mut right) = (0, true);
    let spent = bench.step(name, || {
        engine.scan(&[], None, &mut |key, value| {
            rows += 1;
            right &= begins_right(key, 0, value);
            true
        })
    })?;
    check(right && rows == entries, || {
        format!("{rows} of {entries} entries are there, or values are wrong")
    })?;
    bench.note(name, "ns", nanos_each(spent, rows));
    Ok(())
}

fn parts(bench: &mut Bench, engine: &dyn Engine, arguments: &Arguments) -> Result<()> {
    // Keys are spread evenly, so this much of their first eight bytes holds a part.
    let width = u64::MAX / PARTS;
    let (mut random, mut rows, mut right) = (Random::new(1), 0, true);
    let spent = bench.each("scan of a part", arguments.parts, |_| {
        let first = random.below(u64::MAX - width);
        let end = (first + width).to_be_bytes();
        engine.scan(&first.to_be_bytes(), Some(&end), &mut |key, value| {
            rows += 1;
            right &= begins_right(key, 0, value) && *key < end[..];
            true
        })
    })?;
    check(right, || "a part has wrong entries".to_owned())?;
    bench.note("scan of a part, per row", "ns", nanos_each(spent, rows));
    bench.note("scan of a part, entries each", "", rows as f64 / arguments.parts.max(1) as f64);
    Ok(())
}
