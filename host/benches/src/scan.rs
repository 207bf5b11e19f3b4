//! Scans of all that there is, and of its hundredth parts.

use crate::Result;
use crate::args::count;
use crate::bench::{Bench, fill_by_batches, full_scan, range_scans};
use crate::data::Random;

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
    #[arg(long, default_value_t = PARTS, value_parser = clap::value_parser!(u64).range(1..))]
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
    for name in ["first scan", "scan again"] {
        full_scan(bench, arguments.entries, name, |show| engine.scan(&[], None, show))?;
    }
    // Keys are spread evenly, so this much of their first eight bytes holds a part.
    let width = u64::MAX / PARTS;
    range_scans(bench, engine.as_ref(), "scan of a part", width, arguments.parts, &mut Random::new(1))
}
