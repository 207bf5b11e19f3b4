//! How long it takes until a database can be read again.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use crate::Result;
use crate::args::count;
use crate::bench::{Bench, check, fill_by_batches};
use crate::data::{KEY_BYTES, Values, begins_right, random_key};
use crate::engines::Setup;

/// Keys and values that a log holds when its process is killed, in MiB.
const LOG_MIB: usize = 64;

/// Memtables have room for all of them, so that none of it is flushed.
const WRITE_BUFFER_BYTES: usize = (4 * LOG_MIB) << 20;

/// What the process that is to be killed says once it has written.
const READY: &str = "ready";

/// Opening after a close, and after a kill with a long log
///
/// Clean: after a fill and a close. After a kill: another process puts 64 MiB of keys and
/// values, with memtables that have room for all of it, makes them durable, and is killed
/// by a signal; the open is what is timed, up to the first get. Then all entries are
/// counted. What has no log opens what it has.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Entries of the database that is closed
    #[arg(long, default_value = "1M", value_parser = count)]
    pub entries: u64,
    /// Bytes of a value
    #[arg(long, default_value_t = 100)]
    pub value_bytes: usize,
    /// MiB of keys and values that the killed process writes
    #[arg(long, default_value_t = LOG_MIB)]
    pub log: usize,
    /// Be the process that is killed
    #[arg(long, hide = true)]
    pub write: bool,
}

/// Measures one engine.
pub fn run(bench: &mut Bench, arguments: &Arguments) -> Result<()> {
    let logged = ((arguments.log << 20) / (KEY_BYTES + arguments.value_bytes)) as u64;
    let mut setup = bench.setup("killed");
    setup.write_buffer_bytes = WRITE_BUFFER_BYTES;
    if arguments.write {
        return write(bench, &setup, arguments, logged);
    }
    let mut child = written(bench.subject())?;
    child.kill()?;
    child.wait()?;
    reopen(bench, &setup, "reopen after a kill", logged)?;
    bench.remove(&setup)?;

    let setup = bench.setup("closed");
    let engine = bench.open(&setup)?;
    fill_by_batches(bench, engine.as_ref(), arguments.entries, arguments.value_bytes)?;
    drop(engine);
    reopen(bench, &setup, "reopen after a close", arguments.entries)
}

fn reopen(bench: &mut Bench, setup: &Setup, name: &str, entries: u64) -> Result<()> {
    let (mut opened, mut right) = (None, false);
    let spent = bench.step(name, || {
        let engine = bench.open(setup)?;
        let key = random_key(0);
        engine.get(&key, &mut |value| right = begins_right(&key, 0, value))?;
        opened = Some(engine);
        Ok(())
    })?;
    let mut rows = 0;
    if let Some(engine) = opened {
        engine.scan(&[], None, &mut |key, value| {
            rows += 1;
            right &= begins_right(key, 0, value);
            true
        })?;
    }
    check(right && rows == entries, || format!("{rows} of {entries} entries are there"))?;
    bench.note(name, "ms", spent.as_secs_f64() * 1e3);
    Ok(())
}

/// Starts the process that is killed, and waits until it has written.
fn written(subject: &str) -> Result<Child> {
    // It goes on as long as this process keeps its input open.
    let mut child = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .arg("--write")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output).read_line(&mut line)?;
    }
    check(line.trim_end() == READY, || format!("the process that writes to {subject} failed"))?;
    Ok(child)
}

/// Writes, says so, and waits to be killed.
fn write(bench: &Bench, setup: &Setup, arguments: &Arguments, entries: u64) -> Result<()> {
    let engine = bench.open(setup)?;
    let mut values = Values::new(arguments.value_bytes);
    bench.each("write", entries, |number| {
        let key = random_key(number);
        engine.put(&key, values.of(&key, 0))
    })?;
    engine.sync()?;
    println!("{READY}");
    std::io::stdout().flush()?;
    std::io::stdin().read_line(&mut String::new())?;
    Err("the process that was to kill this one has gone".into())
}
