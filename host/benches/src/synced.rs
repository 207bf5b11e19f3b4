//! Puts that are durable when they return, from one thread and from many.

use crate::Result;
use crate::args::count;
use crate::bench::{Bench, check};
use crate::data::{Values, random_key};
use crate::engines::Kind;
use crate::limits::synced_appends;

/// Threads that put at once.
const THREADS: [u64; 3] = [1, 4, 16];

/// Durable puts from 1, 4 and 16 threads
///
/// Each put is a commit, durable when it returns; what threads share of a sync is up to the
/// engine. Times are what passes per put of all threads; latencies are those of each
/// thread's calls. `machine` appends as many bytes to a file preallocated with zeros, and
/// syncs its data each time.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Puts for each number of threads, divided among them
    #[arg(long, default_value = "4k", value_parser = count)]
    pub entries: u64,
    /// Bytes of a value
    #[arg(long, default_value_t = 100)]
    pub value_bytes: usize,
}

/// Measures one engine, or the machine.
pub fn run(bench: &mut Bench, arguments: &Arguments) -> Result<()> {
    if bench.subject() == Kind::Machine.name() {
        return synced_appends(bench, &name(1), arguments.entries, arguments.value_bytes);
    }
    for threads in THREADS {
        let mut setup = bench.setup("synced");
        setup.synced = true;
        let engine = bench.open(&setup)?;
        let each = arguments.entries.div_ceil(threads);
        bench.timed_on_threads(&name(threads), threads, each, |thread| {
            let (engine, mut values) = (engine.as_ref(), Values::new(arguments.value_bytes));
            move |number| {
                let key = random_key(thread * each + number);
                engine.put(&key, values.of(&key, 0))
            }
        })?;
        let mut values = Values::new(arguments.value_bytes);
        bench.each("check", threads * each, |number| {
            let (key, mut right) = (random_key(number), false);
            engine.get(&key, &mut |value| right = value == values.of(&key, 0))?;
            check(right, || format!("entry {number} has not its value"))
        })?;
        drop(engine);
        bench.remove(&setup)?;
    }
    Ok(())
}

fn name(threads: u64) -> String {
    format!("synced put, {threads} thread{}", if threads == 1 { "" } else { "s" })
}
