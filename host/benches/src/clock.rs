//! Time: as it passes, as processors spend it, and as a benchmark tells it.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use duramen::options::Environment;

/// What a stopwatch counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Time {
    /// What passes
    Elapsed,
    /// What processors spend on the process, its background threads included
    Cpu,
}

/// Counts from its start.
#[derive(Clone, Copy, Debug)]
pub enum Stopwatch {
    Elapsed(Instant),
    Cpu(Duration),
}

impl Time {
    /// Starts a stopwatch.
    pub fn start(self) -> Stopwatch {
        match self {
            Time::Elapsed => Stopwatch::Elapsed(Instant::now()),
            Time::Cpu => Stopwatch::Cpu(cpu_time()),
        }
    }
}

impl Stopwatch {
    /// What has been counted so far.
    pub fn elapsed(self) -> Duration {
        match self {
            Stopwatch::Elapsed(start) => start.elapsed(),
            Stopwatch::Cpu(start) => cpu_time().saturating_sub(start),
        }
    }
}

/// What processors have spent on this process.
#[cfg(unix)]
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Not counted here.
#[cfg(not(unix))]
fn cpu_time() -> Duration {
    Duration::ZERO
}

/// A clock that moves when it is told to.
#[derive(Debug)]
pub struct SimulatedClock(AtomicU64);

impl SimulatedClock {
    /// A clock at this time, in Unix milliseconds.
    pub fn at(unix_ms: u64) -> Self {
        SimulatedClock(AtomicU64::new(unix_ms))
    }

    /// Sets the time, in Unix milliseconds.
    pub fn set(&self, unix_ms: u64) {
        self.0.store(unix_ms, Relaxed);
    }
}

impl Environment for SimulatedClock {
    fn monotonic_ms(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn unix_ms(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn random(&self) -> u64 {
        1
    }
}
