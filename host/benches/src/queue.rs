//! A queue: what was deleted is in the way of those who look at the head.

use std::time::{Duration, Instant};

use crate::Result;
use crate::args::count;
use crate::bench::{Bench, check, histogram, nanos, nanos_each};
use crate::data::{KEY_BYTES, Values, begins_right, sequential_key};
use crate::engines::{Engine, bytes};

/// Rows of a look at the head.
const HEAD_ROWS: u64 = 10;

/// Parts of the run that have figures of their own.
const PARTS: u64 = 5;

/// A queue: puts at the tail, deletes and scans at the head
///
/// Half of the operations put an entry at the tail, half delete the one at the head. Every
/// so often the first ten entries are looked at by a scan from the beginning, which has to
/// pass what was deleted. Space is bytes of SSTables over bytes of live keys and values,
/// once no compaction is due.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Puts and deletes together
    #[arg(long, default_value = "5M", value_parser = count)]
    operations: u64,
    /// Entries in the queue
    #[arg(long, default_value = "10k", value_parser = count)]
    length: u64,
    /// Puts between two looks at the head
    #[arg(long, default_value = "100", value_parser = count)]
    scan_every: u64,
    /// Bytes of a value
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
}

/// Measures one engine.
pub fn run(bench: &mut Bench, arguments: &Arguments) -> Result<()> {
    let engine = bench.open(&bench.setup("queue"))?;
    let engine = engine.as_ref();
    let mut values = Values::new(arguments.value_bytes);
    let mut put = |number: u64| {
        let key = sequential_key(number);
        engine.put(&key, values.of(&key, 0))
    };
    bench.each("fill", arguments.length, &mut put)?;
    let (rounds, mut all, mut scanning) = (arguments.operations / 2, histogram()?, Duration::ZERO);
    let mut parts = vec![histogram()?; PARTS as usize];
    let spent = bench.each("put, delete, scan", rounds, |head| {
        put(arguments.length + head)?;
        engine.delete(&sequential_key(head))?;
        if head % arguments.scan_every == 0 {
            let watch = bench.time().start();
            let time = scan_head(engine, head + 1, arguments.length)?;
            scanning += watch.elapsed();
            all.record(nanos(time))?;
            parts[(head * PARTS / rounds) as usize].record(nanos(time))?;
        }
        Ok(())
    })?;
    bench.note("put and delete, each", "ns", nanos_each(spent.saturating_sub(scanning), 2 * rounds));
    bench.note_latency("head scan", &all);
    for (part, times) in parts.iter().enumerate() {
        let p99 = times.value_at_quantile(0.99) as f64 / 1e3;
        bench.note(format!("head scan p99, part {} of {PARTS}", part + 1), "us", p99);
    }
    let put = ((KEY_BYTES + arguments.value_bytes) as u64 * (rounds + arguments.length)) as f64;
    if let Some(written) = engine.written()? {
        bench.note("write amplification", "", written.bytes() as f64 / put);
    }
    bench.step("settle", || engine.settle())?;
    let live = (KEY_BYTES + arguments.value_bytes) as u64 * arguments.length;
    if let Some(runs) = engine.runs()? {
        bench.note("space over live bytes, settled", "", bytes(&runs) as f64 / live as f64);
    }
    let time = scan_head(engine, rounds, arguments.length)?;
    bench.note("first head scan, settled", "us", nanos(time) as f64 / 1e3);
    Ok(())
}

/// Scans from the beginning, and checks that the queue begins with `head`.
fn scan_head(engine: &dyn Engine, head: u64, length: u64) -> Result<Duration> {
    let (mut next, mut right) = (head, true);
    let start = Instant::now();
    engine.scan_few(&[], HEAD_ROWS as usize, &mut |key, value| {
        right &= key == sequential_key(next) && begins_right(key, 0, value);
        next += 1;
        next - head < HEAD_ROWS
    })?;
    let time = start.elapsed();
    let rows = next - head;
    check(right && rows == HEAD_ROWS.min(length), || format!("the queue does not begin with entry {head}"))?;
    Ok(time)
}
