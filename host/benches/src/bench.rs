//! One run of one benchmark on one subject, in a process of its own: fresh
//! directories, progress on standard error, and what was measured.

use std::fs;
use std::io::{IsTerminal, stderr};
use std::path::PathBuf;
use std::time::Duration;

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};

use crate::Result;
use crate::clock::Time;
use crate::engines::{Engine, Kind, Setup};
use crate::report::Measure;

/// Operations between two looks at the progress bar.
const STRIDE: u64 = 1024;

/// A run in progress.
#[derive(Debug)]
pub struct Bench {
    subject: String,
    directory: PathBuf,
    options: Vec<String>,
    time: Time,
    measures: Vec<Measure>,
}

impl Bench {
    /// A run on `subject` with an empty directory, options of Duramen, and what is
    /// to be timed.
    pub fn new(subject: &str, directory: PathBuf, options: &[String], time: Time) -> Result<Self> {
        let bench = Bench {
            subject: subject.to_owned(),
            directory,
            options: options.to_vec(),
            time,
            measures: Vec::new(),
        };
        bench.remove_directory()?;
        fs::create_dir_all(&bench.directory)?;
        Ok(bench)
    }

    fn remove_directory(&self) -> Result<()> {
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// The subject's name.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// What stopwatches count in this run.
    pub fn time(&self) -> Time {
        self.time
    }

    /// A database of this name, as all benchmarks open it; to be changed where
    /// one needs something else.
    pub fn setup(&self, database: &str) -> Setup {
        Setup::new(self.directory.join(database), &self.options)
    }

    /// Opens a database of the subject.
    pub fn open(&self, setup: &Setup) -> Result<Box<dyn Engine>> {
        let kind = Kind::ALL.into_iter().find(|kind| kind.name() == self.subject);
        kind.ok_or_else(|| format!("no such engine: {}", self.subject))?.open(setup)
    }

    /// Removes a database that is closed, to have its space for the next.
    pub fn remove(&self, setup: &Setup) -> Result<()> {
        Ok(fs::remove_dir_all(&setup.directory)?)
    }

    /// Notes a figure.
    pub fn note(&mut self, name: impl Into<String>, unit: &str, value: f64) {
        self.measures.push(Measure { name: name.into(), unit: unit.to_owned(), value });
    }

    /// Notes percentiles of nanoseconds, in microseconds.
    pub fn note_latency(&mut self, name: &str, histogram: &Histogram<u64>) {
        for (label, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
            self.note(format!("{name} {label}"), "us", histogram.value_at_quantile(quantile) as f64 / 1e3);
        }
        self.note(format!("{name} max"), "us", histogram.max() as f64 / 1e3);
    }

    /// Does `operation` with the numbers below `count`; the time that it took.
    pub fn each(
        &self,
        phase: &str,
        count: u64,
        mut operation: impl FnMut(u64) -> Result<()>,
    ) -> Result<Duration> {
        let progress = self.progress(phase, count);
        let start = self.time.start();
        for first in (0..count).step_by(STRIDE as usize) {
            for number in first..count.min(first + STRIDE) {
                operation(number)?;
            }
            progress.set_position(first);
        }
        let spent = start.elapsed();
        progress.finish_and_clear();
        Ok(spent)
    }

    /// The same, and notes the nanoseconds per operation under the phase's name.
    pub fn timed(&mut self, phase: &str, count: u64, operation: impl FnMut(u64) -> Result<()>) -> Result<()> {
        let spent = self.each(phase, count, operation)?;
        self.note(phase, "ns", nanos_each(spent, count));
        Ok(())
    }

    /// Says what goes on, and how far it is where that is known and somebody
    /// watches.
    fn progress(&self, phase: &str, count: u64) -> ProgressBar {
        let message = format!("{}: {phase}", self.subject);
        if !stderr().is_terminal() {
            eprintln!("{message}");
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{msg} {wide_bar} {percent:>3} %, {eta} left");
        let bar = ProgressBar::new(count).with_message(message);
        style.map_or_else(|_| ProgressBar::hidden(), |style| bar.with_style(style))
    }

    /// Says what goes on where nobody knows how far it is; the time it took.
    pub fn step(&self, phase: &str, work: impl FnOnce() -> Result<()>) -> Result<Duration> {
        let progress = self.progress(phase, 1);
        let start = self.time.start();
        work()?;
        let spent = start.elapsed();
        progress.finish_and_clear();
        Ok(spent)
    }

    /// Removes the directory; what was measured.
    pub fn finish(self) -> Result<Vec<Measure>> {
        self.remove_directory()?;
        Ok(self.measures)
    }
}

/// Nanoseconds for each of `count`.
pub fn nanos_each(spent: Duration, count: u64) -> f64 {
    spent.as_nanos() as f64 / count.max(1) as f64
}

/// A histogram of nanoseconds, three digits exact.
pub fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new(3)?)
}

/// Nanoseconds as a histogram takes them.
pub fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Fails the run with what is wrong unless `right`.
pub fn check(right: bool, wrong: impl FnOnce() -> String) -> Result<()> {
    if right { Ok(()) } else { Err(wrong().into()) }
}
