//! Benchmarks of Duramen beside other engines: `cargo xtask bench`.
//!
//! Imports go downwards: `main` runs a process for each subject of a benchmark
//! and reports; the benchmarks measure through `bench` what `engines` opens.

mod amplification;
mod args;
mod bench;
mod clock;
mod data;
mod engines;
mod job;
mod kv;
mod latency;
mod limits;
mod memtable;
mod page;
mod publish;
mod queue;
mod reopen;
mod report;
mod results;
mod scale;
mod scan;
#[cfg(test)]
mod smoke;
mod synced;
mod system;
mod targets;
mod ttl;
mod ycsb;
mod zipf;

use std::process::{ExitCode, Stdio};

use clap::{CommandFactory, Parser};
use serde_json::Value;

use args::{Arguments, Command};
use bench::Bench;
use clock::Time;
use engines::Kind;
use report::{Measure, Report};
use results::Results;

/// Whatever goes wrong ends a run.
type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match (&arguments.command, &arguments.subject) {
        (None, _) => {
            list();
            Ok(())
        }
        (Some(Command::Report(report)), _) => publish::run(&arguments.directory, report),
        (Some(command), Some(subject)) => measure(&arguments, command, subject),
        (Some(command), None) => compare(&arguments, command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn list() {
    println!("Benchmarks:");
    for command in Arguments::command().get_subcommands() {
        println!("  {:<15}{}", command.get_name(), command.get_about().unwrap_or_default());
    }
    println!("Engines:");
    for kind in Kind::ALL {
        match kind.missing_feature() {
            None => println!("  {}", kind.name()),
            Some(feature) => {
                println!("  {:<15}not built in; cargo xtask bench --with {feature}", kind.name())
            }
        }
    }
}

impl Command {
    fn name(&self) -> &'static str {
        match self {
            Command::Memtable(_) => "memtable",
            Command::Amplification(_) => "amplification",
            Command::Queue(_) => "queue",
            Command::Ttl(_) => "ttl",
            Command::Latency(_) => "latency",
            Command::Scale(_) => "scale",
            Command::Scan(_) => "scan",
            Command::Job(_) => "job",
            Command::Kv(_) => "kv",
            Command::Synced(_) => "synced",
            Command::Ycsb(_) => "ycsb",
            Command::Reopen(_) => "reopen",
            Command::Limits(_) => "limits",
            Command::Report(_) => "report",
        }
    }

    fn run(&self, bench: &mut Bench) -> Result<()> {
        match self {
            Command::Memtable(arguments) => memtable::run(bench, arguments),
            Command::Amplification(arguments) => amplification::run(bench, arguments),
            Command::Queue(arguments) => queue::run(bench, arguments),
            Command::Ttl(arguments) => ttl::run(bench, arguments),
            Command::Latency(arguments) => latency::run(bench, arguments),
            Command::Scale(arguments) => scale::run(bench, arguments),
            Command::Scan(arguments) => scan::run(bench, arguments),
            Command::Job(arguments) => job::run(bench, arguments),
            Command::Kv(arguments) => kv::run(bench, arguments),
            Command::Synced(arguments) => synced::run(bench, arguments),
            Command::Ycsb(arguments) => ycsb::run(bench, arguments),
            Command::Reopen(arguments) => reopen::run(bench, arguments),
            Command::Limits(arguments) => limits::run(bench, arguments),
            Command::Report(_) => Err("a report is not measured".into()),
        }
    }

    /// Engines that it is made for.
    fn engines(&self) -> &'static [Kind] {
        match self {
            Command::Ttl(_) => &[Kind::Native],
            Command::Limits(_) => &[Kind::Machine],
            Command::Synced(_) => &Kind::ALL,
            Command::Job(_) | Command::Amplification(_) => &Kind::WITH_RUNS,
            _ => &Kind::ENGINES,
        }
    }

    fn runs(&self) -> u32 {
        match self {
            Command::Memtable(_) | Command::Amplification(_) | Command::Queue(_) | Command::Ttl(_) => 1,
            Command::Latency(_) | Command::Scale(_) | Command::Job(_) | Command::Report(_) => 1,
            Command::Kv(_) | Command::Synced(_) | Command::Ycsb(_) => 3,
            Command::Reopen(_) | Command::Limits(_) | Command::Scan(_) => 3,
        }
    }

    /// What its results are kept under: values of another length do not replace the
    /// usual ones.
    fn results_name(&self) -> String {
        let value_bytes = match self {
            Command::Kv(arguments) => arguments.value_bytes,
            Command::Synced(arguments) => arguments.value_bytes,
            Command::Ycsb(arguments) => arguments.value_bytes,
            Command::Reopen(arguments) => arguments.value_bytes,
            Command::Scan(arguments) => arguments.value_bytes,
            _ => return self.name().to_owned(),
        };
        if value_bytes == 100 { self.name().to_owned() } else { format!("{}-{value_bytes}", self.name()) }
    }
}

/// One run in this process.
fn measure(arguments: &Arguments, command: &Command, subject: &str) -> Result<()> {
    let directory = arguments.directory.join("data").join(format!("{}-{subject}", command.name()));
    let mut bench = Bench::new(subject, directory, &arguments.option, arguments.time)?;
    command.run(&mut bench)?;
    let measures = bench.finish()?.iter().map(Measure::to_json).collect();
    println!("{}", Value::Array(measures));
    Ok(())
}

/// All runs, each in a process of its own, and the report on them.
fn compare(arguments: &Arguments, command: &Command) -> Result<()> {
    if cfg!(not(unix)) && arguments.time == Time::Cpu {
        return Err("the time that processors spend is counted on Unix only".into());
    }
    let (subjects, baseline) = match command {
        Command::Memtable(_) => (memtable::subjects(), memtable::BASELINE),
        _ => (engines(arguments, command)?, Kind::Rocksdb.name()),
    };
    let mut report = Report::new(subjects.clone(), baseline);
    let mut failures = Vec::new();
    let runs = arguments.runs.unwrap_or(command.runs());
    for run in 1..=runs {
        // Each run begins with another subject, so that none always has the machine as
        // the same one has left it.
        for turn in 0..subjects.len() {
            let index = (turn + run as usize - 1) % subjects.len();
            let subject = &subjects[index];
            eprintln!("{}: {subject}, run {run} of {runs}", command.name());
            // The others go on; what failed is said at the end again.
            match run_process(subject) {
                Ok(measures) => report.add(index, measures),
                Err(error) => {
                    eprintln!("{error}");
                    failures.push(format!("{subject} in run {run}"));
                }
            }
        }
    }
    print!("\n{}", report.table());
    let results = Results::measured(command.results_name(), &arguments.directory, report);
    println!("\nEvery run is in {}", results.save(&arguments.directory)?.display());
    if failures.is_empty() { Ok(()) } else { Err(format!("failed: {}", failures.join(", ")).into()) }
}

/// The engines that were asked for, or all that can take part.
fn engines(arguments: &Arguments, command: &Command) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for kind in command.engines() {
        let wanted = arguments.engine.contains(kind);
        match kind.missing_feature() {
            None if wanted || arguments.engine.is_empty() => names.push(kind.name().to_owned()),
            Some(feature) if wanted || arguments.engine.is_empty() => eprintln!(
                "{} is not built in; for it: cargo xtask bench --with {feature} {}",
                kind.name(),
                command.name()
            ),
            _ => {}
        }
    }
    if names.is_empty() { Err("none of these engines takes part".into()) } else { Ok(names) }
}

/// Runs this program again, on one subject.
fn run_process(subject: &str) -> Result<Vec<Measure>> {
    let output = std::process::Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .args(["--subject", subject])
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("the run on {subject} ended with {}", output.status).into());
    }
    let json: Value = serde_json::from_slice(&output.stdout)?;
    json.as_array().ok_or("a run measured nothing")?.iter().map(Measure::from_json).collect()
}
