//! Every benchmark with every engine that is built in, on a few entries: that they
//! run to their end, and find what was written.

use clap::Parser;

use crate::args::{Arguments, Command};
use crate::bench::Bench;

/// Command lines with counts that take no time; `reopen` starts this program again
/// and cannot here.
const COMMANDS: &[&[&str]] = &[
    &["kv", "--entries", "2000"],
    &["kv", "--entries", "200", "--value-bytes", "16384"],
    &["synced", "--entries", "32"],
    &["ycsb", "--entries", "2000", "--operations", "1000"],
    &["scale", "--entries", "500", "--entries", "1000"],
    &["scan", "--entries", "2000", "--parts", "3"],
    &["queue", "--operations", "2000", "--length", "100"],
    &["job", "--entries", "1000"],
    &["amplification", "--entries", "1000"],
    &["ttl", "--entries", "2000"],
    &["limits", "--entries", "1000", "--syncs", "8"],
];

#[test]
fn every_benchmark_runs_on_every_engine_that_is_built_in() {
    for line in COMMANDS {
        let arguments = Arguments::parse_from(["bench"].iter().chain(*line));
        let command: &Command = arguments.command.as_ref().unwrap();
        for kind in command.engines().iter().filter(|kind| kind.missing_feature().is_none()) {
            let name = format!("duramen-smoke-{}-{}", std::process::id(), kind.name());
            let directory = std::env::temp_dir().join(name);
            let mut bench = Bench::new(kind.name(), directory, &[], arguments.time).unwrap();
            command.run(&mut bench).unwrap_or_else(|error| panic!("{line:?} on {}: {error}", kind.name()));
            assert!(!bench.finish().unwrap().is_empty(), "{line:?} on {} measured nothing", kind.name());
        }
    }
}
