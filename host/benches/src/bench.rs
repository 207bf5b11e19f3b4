//! One run of one benchmark on one subject, in a process of its own: fresh
//! directories, progress on standard error, and what was measured.

use std::fs;
use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};

use crate::Result;
use crate::clock::Time;
use crate::data::{Random, Values, begins_right, random_key};
use crate::engines::{Engine, Kind, Setup, Show};
use crate::report::Measure;

/// Operations between two looks at the progress bar.
const STRIDE: u64 = 1024;

/// Of operations that take less than this, a look at the clock would be a part.
const CLOCK_IS_CHEAP: Duration = Duration::from_micros(2);

/// Every so many of those have their latency taken; a prime, so that no rhythm of the
/// engine's is met again and again.
const SAMPLED: u64 = 7;

/// Entries of a commit where commits are not what is measured.
const FILL_ENTRIES: u64 = 100;

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

    /// The directory of this run, which is there and empty at its beginning.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Removes a database that is closed, to have its space for the next.
    pub fn remove(&self, setup: &Setup) -> Result<()> {
        Ok(fs::remove_dir_all(&setup.directory)?)
    }

    /// Notes a figure.
    pub fn note(&mut self, name: impl Into<String>, unit: &str, value: f64) {
        self.measures.push(Measure::new(name, unit, value));
    }

    /// Notes a figure of operations with these latencies.
    pub fn note_with(&mut self, name: impl Into<String>, unit: &str, value: f64, latencies: &Histogram<u64>) {
        self.measures.push(Measure::new(name, unit, value).with(latencies));
    }

    /// Notes latencies, in nanoseconds, and their mean.
    pub fn note_latency(&mut self, name: &str, latencies: &Histogram<u64>) {
        self.note_with(name, "us", latencies.mean() / 1e3, latencies);
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

    /// The same, and notes the nanoseconds per operation under the phase's name, and
    /// latencies: of all operations, or of a sample where they are short.
    pub fn timed(
        &mut self,
        phase: &str,
        count: u64,
        mut operation: impl FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let (mut latencies, mut every, begin) = (histogram()?, SAMPLED, Instant::now());
        let spent = self.each(phase, count, |number| {
            if number == STRIDE && begin.elapsed() > CLOCK_IS_CHEAP * STRIDE as u32 {
                every = 1;
            }
            if number % every != 0 {
                return operation(number);
            }
            let start = Instant::now();
            operation(number)?;
            Ok(latencies.record(nanos(start.elapsed()))?)
        })?;
        self.note_with(phase, "ns", nanos_each(spent, count), &latencies);
        Ok(())
    }

    /// Does `operation` `count` times on each of so many threads, with the thread's and
    /// the operation's number; notes the nanoseconds that pass per operation of all
    /// threads, and latencies.
    pub fn timed_on_threads<Operation: FnMut(u64) -> Result<()>>(
        &mut self,
        name: &str,
        threads: u64,
        count: u64,
        make: impl Fn(u64) -> Operation + Sync,
    ) -> Result<()> {
        let progress = self.progress(name, 1);
        let barrier = Barrier::new(threads as usize);
        let work = |thread| {
            let (mut operation, mut latencies) = (make(thread), histogram()?);
            barrier.wait();
            let begin = Instant::now();
            for number in 0..count {
                let start = Instant::now();
                operation(number)?;
                latencies.record(nanos(start.elapsed()))?;
            }
            Ok((begin, Instant::now(), latencies))
        };
        let outcomes: Vec<Result<_>> = thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
            running.into_iter().map(|thread| thread.join().expect("a thread's panic is ours")).collect()
        });
        let (mut all, mut begins, mut ends) = (histogram()?, Vec::new(), Vec::new());
        for outcome in outcomes {
            let (begin, end, latencies) = outcome?;
            begins.push(begin);
            ends.push(end);
            all.add(latencies)?;
        }
        progress.finish_and_clear();
        let spent = match (begins.iter().min(), ends.iter().max()) {
            (Some(begin), Some(end)) => *end - *begin,
            _ => Duration::ZERO,
        };
        self.note_with(name, "ns", nanos_each(spent, threads * count), &all);
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

/// Puts the first `entries` entries in random order, where that is not what is measured:
/// in commits of many, as some engines take long for each.
pub fn fill_by_batches(bench: &Bench, engine: &dyn Engine, entries: u64, value_bytes: usize) -> Result<()> {
    let mut values = Values::new(value_bytes);
    bench.each("fill", entries.div_ceil(FILL_ENTRIES), |batch| {
        let numbers = batch * FILL_ENTRIES..entries.min((batch + 1) * FILL_ENTRIES);
        let pairs: Vec<_> =
            numbers.map(random_key).map(|key| (key.to_vec(), values.of(&key, 0).to_vec())).collect();
        engine.batch(&pairs)
    })?;
    Ok(())
}

/// Scans all of so many entries with `scan`; notes the nanoseconds per row.
pub fn full_scan(
    bench: &mut Bench,
    entries: u64,
    name: &str,
    scan: impl FnOnce(Show<'_>) -> Result<()>,
) -> Result<()> {
    let (mut rows, mut right) = (0, true);
    let spent = bench.step(name, || {
        scan(&mut |key, value| {
            rows += 1;
            right &= begins_right(key, 0, value);
            true
        })
    })?;
    check(right && rows == entries, || format!("a {name} found {rows} of {entries} entries, or wrong ones"))?;
    bench.note(format!("{name}, per row"), "ns", nanos_each(spent, rows));
    Ok(())
}

/// Scans `count` ranges of keys whose first eight bytes are that far apart; notes the
/// nanoseconds of each, latencies, and how many entries there were.
pub fn range_scans(
    bench: &mut Bench,
    engine: &dyn Engine,
    name: &str,
    width: u64,
    count: u64,
    random: &mut Random,
) -> Result<()> {
    let mut rows = 0;
    bench.timed(name, count, |_| {
        let first = random.below(u64::MAX - width / 2);
        let end = first.checked_add(width).map(u64::to_be_bytes);
        let mut right = true;
        engine.scan(&first.to_be_bytes(), end.as_ref().map(|end| end.as_slice()), &mut |key, value| {
            rows += 1;
            right &= begins_right(key, 0, value) && end.is_none_or(|end| *key < end[..]);
            true
        })?;
        check(right, || format!("a {name} found wrong entries"))
    })?;
    bench.note(format!("{name}, entries each"), "", rows as f64 / count as f64);
    Ok(())
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

/// What an engine tells, or that it does not.
pub fn known<T>(told: Option<T>) -> Result<T> {
    told.ok_or_else(|| "the engine does not tell what is measured here".into())
}
