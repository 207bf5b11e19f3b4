//! Time as a benchmark tells it.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use duramen::options::Environment;

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
