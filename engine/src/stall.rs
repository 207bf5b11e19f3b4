//! How far background work is behind the writers, by cause, and what that has
//! cost them. What follows from it is decided in `background.rs`.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::keyspace::View;
use crate::options::Options;
use crate::stats::{StallCause, StallKind, StallState, StallStats};
use crate::sync::atomic::AtomicU64;
use crate::sync::{Mutex, lock};

/// Runs that a key may be in at which writers begin to be slowed, in the keyspace
/// with the most: as many as the most tiered preset has at times when compactions keep
/// up.
pub(crate) const RUNS_SOFT: usize = 32;

/// The same at which writers wait: each run costs every get a look at its index
/// and filter.
pub(crate) const RUNS_HARD: usize = 64;

/// The hard limit, as [`Stalls::pressure`] has it.
pub(crate) const HARD: u64 = 1000;

/// Bytes of the memtables of a database.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Buffered {
    /// Of those that take writes.
    pub active: usize,
    /// Of the largest of these.
    pub largest: usize,
    /// Of those that wait for their flush; `None` if there are none.
    pub immutable: Option<usize>,
}

impl Buffered {
    pub fn add(&mut self, view: &View) {
        let active = view.active.bytes();
        self.active += active;
        self.largest = self.largest.max(active);
        for memory in &view.immutable {
            *self.immutable.get_or_insert(0) += memory.bytes();
        }
    }
}

/// What is known about stalls.
#[derive(Debug, Default)]
pub(crate) struct Stalls {
    /// Per mille of the way from the soft to the hard limit, by cause, as last
    /// looked at.
    pressure: [AtomicU64; 2],
    tallies: Mutex<BTreeMap<(StallCause, StallKind), Tally>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    count: u64,
    total: Duration,
    max: Duration,
}

impl Stalls {
    /// Takes note of what is in memory. Without a memtable that waits for its flush
    /// there is nothing to wait for.
    pub fn set_buffered(&self, buffered: &Buffered, options: &Options) {
        let hard = options.write_buffer_bytes().max(1);
        let bytes = buffered.immutable.map_or(0, |immutable| buffered.active + immutable);
        // Below, one memtable takes writes and another one is flushed.
        self.set(StallCause::WriteBuffer, per_mille(bytes, hard - hard / 4, hard));
    }

    /// Takes note of the most runs that a key may be in.
    pub fn set_overlap(&self, overlap: usize) {
        self.set(StallCause::Runs, per_mille(overlap, RUNS_SOFT, RUNS_HARD));
    }

    fn set(&self, cause: StallCause, pressure: u64) {
        self.pressure[cause as usize].store(pressure, Relaxed);
    }

    /// What presses most, with its way from the soft limit (not included) to the
    /// hard limit, [`HARD`].
    pub fn pressure(&self) -> Option<(StallCause, u64)> {
        let of = |cause: StallCause| (cause, self.pressure[cause as usize].load(Relaxed));
        let worst = StallCause::ALL.map(of).into_iter().rev().max_by_key(|(_, pressure)| *pressure);
        worst.filter(|(_, pressure)| *pressure > 0)
    }

    /// What presses beyond the hard limit.
    pub fn hard(&self) -> Option<StallCause> {
        self.pressure().filter(|(_, pressure)| *pressure == HARD).map(|(cause, _)| cause)
    }

    /// Counts a stall.
    pub fn count(&self, cause: StallCause, kind: StallKind, duration: Duration) {
        let mut tallies = lock(&self.tallies);
        let tally = tallies.entry((cause, kind)).or_default();
        tally.count += 1;
        tally.total += duration;
        tally.max = tally.max.max(duration);
    }

    /// What the next commit meets.
    pub fn state(&self) -> Option<StallState> {
        let (cause, pressure) = self.pressure()?;
        let kind = if pressure == HARD { StallKind::Waited } else { StallKind::Slowed };
        Some(StallState { cause, kind })
    }

    /// What stalls there were.
    pub fn stats(&self) -> Vec<StallStats> {
        let ms = |duration: Duration| duration.as_millis() as u64;
        let stats = |(&(cause, kind), tally): (_, &Tally)| StallStats {
            cause,
            kind,
            count: tally.count,
            total_ms: ms(tally.total),
            max_ms: ms(tally.max),
        };
        lock(&self.tallies).iter().map(stats).collect()
    }
}

/// How far `value` is from `soft` to `hard`, which is above it.
fn per_mille(value: usize, soft: usize, hard: usize) -> u64 {
    match value {
        _ if value >= hard => HARD,
        _ if value <= soft => 0,
        _ => (value - soft) as u64 * HARD / (hard - soft) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_rises_from_the_soft_to_the_hard_limit() {
        let runs = [0, 32, 34, 48, 62, 64, 99].map(|runs| per_mille(runs, RUNS_SOFT, RUNS_HARD));
        assert_eq!(runs, [0, 0, 62, 500, 937, 1000, 1000]);

        let options = Options { write_buffer_bytes: Some(100), ..Options::default() };
        let pressure = |active, immutable| {
            let stalls = Stalls::default();
            stalls.set_buffered(&Buffered { active, largest: active, immutable }, &options);
            stalls.pressure().map(|(_, pressure)| pressure)
        };
        assert_eq!(pressure(70, Some(5)), None);
        assert_eq!(pressure(70, Some(15)), Some(400));
        assert_eq!(pressure(0, Some(100)), Some(1000));
        assert_eq!(pressure(200, None), None, "there is nothing to wait for");
    }

    #[test]
    fn the_cause_that_presses_most_is_named_and_counted() {
        let stalls = Stalls::default();
        assert_eq!((stalls.state(), stalls.stats()), (None, vec![]));
        stalls.set(StallCause::WriteBuffer, 300);
        stalls.set(StallCause::Runs, 400);
        let slowed = StallState { cause: StallCause::Runs, kind: StallKind::Slowed };
        assert_eq!((stalls.state(), stalls.hard()), (Some(slowed), None));
        stalls.set(StallCause::WriteBuffer, HARD);
        let waits = StallState { cause: StallCause::WriteBuffer, kind: StallKind::Waited };
        assert_eq!((stalls.state(), stalls.hard()), (Some(waits), Some(StallCause::WriteBuffer)));

        for ms in [3, 7] {
            stalls.count(StallCause::Runs, StallKind::Slowed, Duration::from_millis(ms));
        }
        let (cause, kind) = (StallCause::Runs, StallKind::Slowed);
        let expected = StallStats { cause, kind, count: 2, total_ms: 10, max_ms: 7 };
        assert_eq!(stalls.stats(), [expected]);
    }
}
