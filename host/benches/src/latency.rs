//! How long a put takes while compaction runs.

use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
use crate::args::count;
use crate::bench::{Bench, histogram, nanos};
use crate::data::{Random, Values, random_key};
use crate::engines::Kind;

/// Sleeping is not exact; closer to the moment than this, the clock is watched.
const SLEEP_SLACK: Duration = Duration::from_micros(200);

/// Cache in a sandbox of the usual memory, in bytes.
const SANDBOX_CACHE_BYTES: usize = 64 << 20;

/// Percentiles of buffered puts at a steady rate, and at full speed
///
/// Overwrites of random keys while flushes and compactions run. At a steady rate the time
/// is taken from the moment at which the put was due, so that waiting behind a slow one
/// counts; at full speed, from the beginning of the call.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Seconds of each part
    #[arg(long, default_value = "30", value_parser = count)]
    seconds: u64,
    /// Puts of 100 B in a second
    #[arg(long, default_value = "20k", value_parser = count)]
    rate: u64,
    /// Puts of 16 KiB in a second
    #[arg(long, default_value = "2k", value_parser = count)]
    large_rate: u64,
    /// Bytes in memory before a flush, in MiB, instead of what each engine has by default:
    /// 64, and 16 in a sandbox, whose cache has 64 MiB here, so that its memory and
    /// files are the usual ones too
    #[arg(long)]
    write_buffer: Option<usize>,
}

/// A load on a database of its own.
struct Load {
    name: &'static str,
    entries: u64,
    value_bytes: usize,
    /// Puts in a second; `None` is as many as there may be.
    rate: Option<u64>,
}

/// Measures one engine.
pub fn run(bench: &mut Bench, arguments: &Arguments) -> Result<()> {
    let small = Load { name: "100 B", entries: 1_000_000, value_bytes: 100, rate: Some(arguments.rate) };
    let large =
        Load { name: "16 KiB", entries: 20_000, value_bytes: 16 << 10, rate: Some(arguments.large_rate) };
    let full = Load { name: "full speed", rate: None, ..small };
    [small, large, full].iter().try_for_each(|load| put(bench, arguments, load))
}

fn put(bench: &mut Bench, arguments: &Arguments, load: &Load) -> Result<()> {
    let mut setup = bench.setup("latency");
    let sandboxed = bench.subject() == Kind::Sandbox.name();
    let usual = if sandboxed { 16 } else { 64 };
    if sandboxed {
        setup.cache_bytes = SANDBOX_CACHE_BYTES;
    }
    setup.write_buffer_bytes = arguments.write_buffer.unwrap_or(usual) << 20;
    let engine = bench.open(&setup)?;
    let mut values = Values::new(load.value_bytes);
    bench.each(&format!("{}: fill", load.name), load.entries, |number| {
        let key = random_key(number);
        engine.put(&key, values.of(&key, 0))
    })?;
    bench.step("settle", || engine.settle())?;
    let before = engine.written()?;
    let (mut times, mut random, mut done) = (histogram()?, Random::new(1), 0_u64);
    let time = Duration::from_secs(arguments.seconds);
    let start = Instant::now();
    bench.step(&format!("{}: put", load.name), || {
        loop {
            let due = match load.rate {
                Some(rate) => wait_until(start + Duration::from_secs(done) / u32::try_from(rate)?),
                None => Instant::now(),
            };
            if due - start >= time {
                return Ok(());
            }
            done += 1;
            let key = random_key(random.below(load.entries));
            engine.put(&key, values.of(&key, done))?;
            times.record(nanos(due.elapsed()))?;
        }
    })?;
    let seconds = start.elapsed().as_secs_f64();
    bench.note_latency(load.name, &times);
    if load.rate.is_some() {
        let micros = |nanos: u64| nanos as f64 / 1e3;
        bench.note(format!("{}: p99.9", load.name), "us", micros(times.value_at_quantile(0.999)));
        bench.note(format!("{}: longest", load.name), "us", micros(times.max()));
    }
    bench.note(format!("{}: puts", load.name), "k/s", done as f64 / seconds / 1e3);
    if let (Some(before), Some(after)) = (before, engine.written()?) {
        let compacted = (after.compaction_bytes - before.compaction_bytes) as f64;
        bench.note(format!("{}: compaction", load.name), "MB/s", compacted / seconds / 1e6);
    }
    drop(engine);
    bench.remove(&setup)
}

/// Waits, unless the moment is past; the moment.
fn wait_until(due: Instant) -> Instant {
    let left = due.saturating_duration_since(Instant::now());
    if left > SLEEP_SLACK {
        thread::sleep(left - SLEEP_SLACK);
    }
    while Instant::now() < due {
        std::hint::spin_loop();
    }
    due
}
