//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::clock::Time;
use crate::engines::Kind;
use crate::{
    amplification, job, kv, latency, limits, memtable, publish, queue, reopen, scale, scan, synced, ttl, ycsb,
};

const EXAMPLES: &str = "\
Examples:
  cargo xtask bench --list
  cargo xtask bench kv --entries 100k
  cargo xtask bench --with peers --with rocksdb kv
  cargo xtask bench --with peers kv --value-bytes 16384 --entries 50k
  cargo xtask bench --with rocksdb amplification --entries 2M --engine duramen --engine rocksdb
  cargo xtask bench --with tonbo scan --entries 100k
  cargo xtask bench job --option compression=none
  cargo xtask bench memtable --keys urls
  cargo xtask bench report

`--with peers`, first, compiles fjall, redb, SQLite and LMDB in, which needs a C compiler;
`--with rocksdb` RocksDB, which needs a C++ compiler and libclang, and half an hour on two
cores, once; `--with tonbo` tonbo, which takes as long, needs OpenSSL's headers on Linux, and
spends half a millisecond on a put and more than one on a get: `scan` is made for it. Every
run of every engine has a process and a directory of its own. The table has medians of all
runs, half of their range in percent, and in brackets the ratio to RocksDB where that was
measured; the values of each run are in NAME.json beside the databases, which are removed.
`report` makes a page and docs/benchmarks.md of all of them.";

/// Benchmarks of Duramen beside other engines.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench", after_help = EXAMPLES)]
#[command(arg_required_else_help = true)]
pub struct Arguments {
    /// What to measure
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Name the benchmarks, and the engines that are built in
    #[arg(long)]
    pub list: bool,
    /// Engines to measure; all that are built in, unless given
    #[arg(long, global = true, value_enum)]
    pub engine: Vec<Kind>,
    /// Runs of each engine [default: 3 for kv, synced, ycsb, reopen, scan and limits, 1 otherwise]
    #[arg(long, global = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: Option<u32>,
    /// What is timed, percentiles and threads apart; `cpu` for machines that are busy, on Unix
    #[arg(long, global = true, value_enum, default_value = "elapsed")]
    pub time: Time,
    /// An option of Duramen for all its databases
    #[arg(long, global = true, value_name = "NAME=VALUE")]
    pub option: Vec<String>,
    /// Where databases and results are
    #[arg(long, global = true, default_value = "target/bench")]
    pub directory: PathBuf,
    /// Run on this subject, and print what was measured as JSON
    #[arg(long, global = true, hide = true)]
    pub subject: Option<String>,
}

/// A benchmark.
#[derive(Debug, Subcommand)]
pub enum Command {
    Memtable(memtable::Arguments),
    Amplification(amplification::Arguments),
    Queue(queue::Arguments),
    Ttl(ttl::Arguments),
    Latency(latency::Arguments),
    Scale(scale::Arguments),
    Scan(scan::Arguments),
    Job(job::Arguments),
    Kv(kv::Arguments),
    Synced(synced::Arguments),
    Ycsb(ycsb::Arguments),
    Reopen(reopen::Arguments),
    Limits(limits::Arguments),
    Report(publish::Arguments),
}

/// Parses `5M`, `20k` and `100`.
pub fn count(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1_000),
        Some(b'M') => (&text[..text.len() - 1], 1_000_000),
        _ => (text, 1),
    };
    let number: u64 = digits.parse().map_err(|_| "a number such as 500, 20k or 5M is needed")?;
    number.checked_mul(factor).filter(|count| *count > 0).ok_or("a number above 0 is needed".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn counts_may_have_a_suffix() {
        assert_eq!(["7", "20k", "3M"].map(|text| count(text).unwrap()), [7, 20_000, 3_000_000]);
        assert!(["", "k", "1G", "-1", "0"].iter().all(|text| count(text).is_err()));
    }
}
