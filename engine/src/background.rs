//! Who drives flushes and compactions.
//!
//! There are three lanes: for flushes and for compactions, each with at most one job,
//! and for what is done ahead for the log ([`crate::open_wals`]). Whoever holds a lane's
//! lock moves its job on by a step: worker threads natively; on wasm the writers, in proportion to what they write, and
//! a host that calls `maintain`. A caller that waits for a job drives it too.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use crate::api::{CompactionProgress, Progress};
use crate::compaction::Compaction;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::flush::Flush;
use crate::key::KeyspaceId;
use crate::options::Budget;
use crate::stall::HARD;
use crate::stats::{BackgroundError, Lane, StallCause, StallKind};
use crate::sync::atomic::{AtomicBool, AtomicU64};
use crate::sync::{Mutex, lock, thread};

/// Bytes of a worker's step: between two, others may drive the lane.
const STEP: Budget = Budget { bytes: 4 << 20 };

/// Bytes of background work for each byte written: one for the flush, the rest
/// for the levels it will sink through.
const WORK_PER_BYTE: u64 = 12;

/// The same at a hard limit; in between it rises.
const WORK_PER_BYTE_MAX: u64 = 4 * WORK_PER_BYTE;

/// Bytes of work that are done at once: a smaller slice costs more in
/// switching than it does.
const SLICE_BYTES: u64 = 256 << 10;

/// Nanoseconds that a byte is slowed by at a hard limit; from the soft limit on it
/// rises to this. So writers are led towards 4 MiB/s, which any disk flushes and
/// merges.
const DELAY_NS_PER_BYTE: u64 = 250;

/// Delays are saved up to this: no system sleeps for much less.
const DELAY_NS_MIN: u64 = 200_000;

/// Longest delay of a commit.
const DELAY_NS_MAX: u64 = 1_000_000;

/// Milliseconds that a worker sleeps at once where its work is limited.
const PAUSE_MS_MAX: u64 = 50;

/// How long a worker waits before it tries again what failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The lanes.
#[derive(Default)]
pub(crate) struct Background {
    flush: Mutex<Option<Flush>>,
    compaction: Mutex<CompactionLane>,
    /// Work that writers owe, in bytes.
    debt: AtomicU64,
    /// Delay that writers owe, in nanoseconds.
    delay_ns: AtomicU64,
    stopping: AtomicBool,
    /// Why a lane does not proceed.
    trouble: Mutex<[Option<Trouble>; Lane::ALL.len()]>,
}

/// What is known of a lane that has failed and has not succeeded since.
#[derive(Debug)]
struct Trouble {
    error: Error,
    /// Failures.
    count: u64,
    /// When the first was, by the monotonic clock.
    since_ms: u64,
}

/// How far a step has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// There was nothing to do.
    Idle,
    /// The job goes on.
    Part,
    /// The job is done.
    Finished,
}

#[derive(Default)]
struct CompactionLane {
    job: Option<Compaction>,
    /// What somebody wants in one run; the first is in `job` if `is_wanted`.
    wanted: VecDeque<Wanted>,
    is_wanted: bool,
    /// Why a wanted compaction has ended without success.
    failed: Option<Error>,
}

/// Keys that somebody wants in one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub keyspace: KeyspaceId,
    /// The first and the last, both included; `None` for no bound.
    pub range: (Option<Vec<u8>>, Option<Vec<u8>>),
}

impl Wanted {
    fn whole(keyspace: KeyspaceId) -> Wanted {
        Wanted { keyspace, range: (None, None) }
    }
}

/// What a writer that waits for room does next.
enum Outlook {
    LookAgain,
    Go,
    Refuse(String),
}

impl Background {
    /// Works for about `budget` in a lane.
    pub fn step(&self, core: &Core, lane: Lane, budget: Budget) -> Result<Progress> {
        core.check_writable()?;
        // Noted with the lane held: a failure must not hide a later success.
        let step = match lane {
            Lane::Flush => {
                let mut job = lock(&self.flush);
                self.noted(core, lane, step_flush(&mut job, core, budget))
            }
            Lane::Compaction => {
                let mut state = lock(&self.compaction);
                self.noted(core, lane, state.step(core, budget))
            }
            Lane::Log => {
                let step = core.open_wals.step(core);
                self.noted(core, lane, step.map(|done| if done { Step::Finished } else { Step::Idle }))
            }
        };
        Ok(if step? == Step::Idle { Progress::Done } else { Progress::More })
    }

    /// Keeps a failure until the lane has done a job, or has none.
    fn noted(&self, core: &Core, lane: Lane, outcome: Result<Step>) -> Result<Step> {
        let mut trouble = lock(&self.trouble);
        let trouble = &mut trouble[lane as usize];
        match &outcome {
            Ok(Step::Part) => {}
            Ok(Step::Idle | Step::Finished) => *trouble = None,
            Err(error) => {
                // Room may be all that it lacks.
                core.empty_trash();
                match lane {
                    Lane::Flush => drop(core.counters.flush_failures.fetch_add(1, Relaxed)),
                    Lane::Compaction => drop(core.counters.compaction_failures.fetch_add(1, Relaxed)),
                    // Whoever commits does it instead, and is told what is wrong.
                    Lane::Log => {}
                }
                let now = core.options.environment.monotonic_ms();
                let (count, since_ms) = trouble.as_ref().map_or((0, now), |t| (t.count, t.since_ms));
                *trouble = Some(Trouble { error: error.duplicate(), count: count + 1, since_ms });
            }
        }
        outcome
    }

    /// Lanes that have failed and have not succeeded since.
    pub fn errors(&self, core: &Core) -> Vec<BackgroundError> {
        let now = core.options.environment.monotonic_ms();
        let trouble = lock(&self.trouble);
        let error = |lane: Lane| {
            let Trouble { error, count, since_ms } = trouble[lane as usize].as_ref()?;
            let since_ms = now.saturating_sub(*since_ms);
            Some(BackgroundError { lane, message: error.to_string(), count: *count, since_ms })
        };
        Lane::ALL.into_iter().filter_map(error).collect()
    }

    /// Flushes whatever waits.
    pub fn flush(&self, core: &Core) -> Result<()> {
        let waiting: Vec<_> = core
            .keyspaces()
            .into_iter()
            .flat_map(|keyspace| {
                let immutable = keyspace.view().immutable.clone();
                immutable.into_iter().map(move |memory| (Arc::clone(&keyspace), memory))
            })
            .collect();
        for (keyspace, memory) in waiting {
            while keyspace.view().immutable.iter().any(|waiting| Arc::ptr_eq(waiting, &memory)) {
                self.step(core, Lane::Flush, STEP)?;
            }
        }
        core.empty_trash();
        Ok(())
    }

    /// Merges every keyspace into one run.
    pub fn compact(&self, core: &Core) -> Result<()> {
        {
            let mut lane = lock(&self.compaction);
            lane.failed = None;
            core.keyspaces().iter().for_each(|keyspace| lane.want(Wanted::whole(keyspace.id)));
        }
        loop {
            let mut lane = lock(&self.compaction);
            if let Some(error) = lane.failed.take() {
                lane.wanted.clear();
                return Err(error);
            }
            if lane.wanted.is_empty() {
                core.empty_trash();
                return Ok(());
            }
            drop(lane);
            self.step(core, Lane::Compaction, STEP)?;
        }
    }

    /// Works for about `budget` on what is wanted, and tells how far that is; `None`
    /// once it is done.
    pub fn compact_slice(
        &self,
        core: &Core,
        wanted: &Wanted,
        budget: Budget,
    ) -> Result<Option<CompactionProgress>> {
        {
            let mut lane = lock(&self.compaction);
            if !lane.wanted.contains(wanted) {
                lane.failed = None;
                lane.want(wanted.clone());
            }
        }
        self.step(core, Lane::Compaction, budget)?;
        let mut lane = lock(&self.compaction);
        if let Some(error) = lane.failed.take() {
            return Err(error);
        }
        if !lane.wanted.contains(wanted) {
            return Ok(None);
        }
        let begun = lane.is_wanted && lane.wanted.front() == Some(wanted);
        let progress = lane.job.as_ref().filter(|_| begun).map(Compaction::progress);
        Ok(Some(progress.unwrap_or_default()))
    }

    /// Forgets what is wanted, and gives up the job for it.
    pub fn cancel_compactions(&self, core: &Core) {
        let mut lane = lock(&self.compaction);
        lane.wanted.clear();
        if std::mem::take(&mut lane.is_wanted)
            && let Some(job) = lane.job.take()
        {
            job.abandon(core);
        }
    }

    /// Works for about `budget` in all lanes; compactions come last, and go on
    /// where flushes fail: they may free the space that these lack.
    pub fn maintain(&self, core: &Core, budget: Budget) -> Result<Progress> {
        let progress = self.work_slices(core, budget);
        core.empty_trash();
        progress
    }

    fn work_slices(&self, core: &Core, budget: Budget) -> Result<Progress> {
        let logged = self.step(core, Lane::Log, budget);
        let mut left = budget.bytes.max(1);
        while left > 0 {
            let slice = Budget::bytes(left.min(SLICE_BYTES));
            left -= slice.bytes;
            let flushed = self.step(core, Lane::Flush, slice);
            if matches!(flushed, Ok(Progress::More)) {
                continue;
            }
            let compacted = self.step(core, Lane::Compaction, slice)?;
            if flushed? == Progress::Done && compacted == Progress::Done {
                return logged.map(|_| Progress::Done);
            }
        }
        Ok(Progress::More)
    }

    /// Before a commit of `bytes`: slows it where background work falls behind, and
    /// lets it wait where that is too far behind, or do the work where there are no
    /// workers.
    ///
    /// # Errors
    /// `Stalled` with cause and reason if that does not help in time.
    pub fn make_room(&self, core: &Core, bytes: u64) -> Result<()> {
        if core.stalls.pressure().is_none() {
            return Ok(());
        }
        core.look();
        match core.stalls.pressure() {
            Some((_, HARD)) => self.wait(core),
            Some((cause, pressure)) if core.threaded() => {
                self.slow(core, cause, bytes * DELAY_NS_PER_BYTE * pressure / HARD);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn slow(&self, core: &Core, cause: StallCause, delay_ns: u64) {
        let owed_ns = self.delay_ns.fetch_add(delay_ns, Relaxed) + delay_ns;
        if owed_ns >= DELAY_NS_MIN {
            self.delay_ns.store(0, Relaxed);
            let delay = Duration::from_nanos(owed_ns.min(DELAY_NS_MAX));
            thread::sleep(delay);
            core.stalls.count(cause, StallKind::Slowed, delay);
        }
    }

    fn wait(&self, core: &Core) -> Result<()> {
        let start = core.options.environment.monotonic_ms();
        let waited = || Duration::from_millis(core.options.environment.monotonic_ms().saturating_sub(start));
        let limit = Duration::from_millis(core.options.stall_ms_max);
        let mut failures = 0;
        let (mut met, mut worked) = (None, false);
        loop {
            let seen = core.progress.count();
            core.check_writable()?;
            core.look();
            let Some(cause) = core.stalls.hard() else { break };
            met = Some(cause);
            let left = limit.saturating_sub(waited());
            // Where there are no workers each commit brings the work on, however little
            // it may wait: nobody else does.
            let outlook = if left.is_zero() && (core.threaded() || worked) {
                Outlook::Refuse("they take longer than a commit may wait".to_owned())
            } else if core.threaded() {
                self.wait_for_worker(core, cause, seen, left, &mut failures)
            } else {
                worked = true;
                self.work_for_room(core, cause)?
            };
            match outlook {
                Outlook::LookAgain => {}
                Outlook::Go => break,
                Outlook::Refuse(why) => {
                    core.stalls.count(cause, StallKind::Refused, waited());
                    return Err(stalled(cause, &why));
                }
            }
        }
        if let Some(cause) = met {
            core.stalls.count(cause, StallKind::Waited, waited());
        }
        Ok(())
    }

    /// Waits until something has changed.
    fn wait_for_worker(
        &self,
        core: &Core,
        cause: StallCause,
        seen: u64,
        left: Duration,
        failures: &mut usize,
    ) -> Outlook {
        let trouble = lock(&self.trouble)[lane_of(cause) as usize].as_ref().map(|t| t.error.to_string());
        if let Some(why) = trouble {
            *failures += 1;
            // Once more may help: the cause may just have gone.
            if *failures > 1 {
                return Outlook::Refuse(why);
            }
        }
        match core.progress.wait(seen, left) {
            true => Outlook::LookAgain,
            false => Outlook::Refuse("they make no progress".to_owned()),
        }
    }

    /// Works at what ends the stall.
    fn work_for_room(&self, core: &Core, cause: StallCause) -> Result<Outlook> {
        match self.step(core, lane_of(cause), STEP) {
            Ok(Progress::More) => Ok(Outlook::LookAgain),
            // Nothing to wait for, or somebody else has just done it.
            Ok(Progress::Done) => Ok(Outlook::Go),
            Err(error @ (Error::Poisoned(_) | Error::Locked(_) | Error::InvalidArgument(_))) => Err(error),
            Err(error) => Ok(Outlook::Refuse(error.to_string())),
        }
    }

    /// After a commit of `bytes`: does what the commit owes where there are no
    /// workers, more of it the nearer a limit is. A failure is no failure of the
    /// commit; it shows in the statistics, and when writers must wait.
    pub fn pay(&self, core: &Core, bytes: u64) {
        if core.threaded() {
            return;
        }
        let pressure = core.stalls.pressure().map_or(0, |(_, pressure)| pressure);
        let per_byte = WORK_PER_BYTE + (WORK_PER_BYTE_MAX - WORK_PER_BYTE) * pressure / HARD;
        let debt = self.debt.fetch_add(bytes * per_byte, Relaxed) + bytes * per_byte;
        // One of the two: either takes a while.
        if debt >= SLICE_BYTES && !core.trash.pay(debt / per_byte) {
            self.debt.store(0, Relaxed);
            let _ = self.work_slices(core, Budget::bytes(debt));
        }
    }

    /// Asks the workers to end.
    pub fn stop(&self, core: &Core) {
        self.stopping.store(true, Release);
        core.work.raise();
    }

    /// Gives up jobs in progress; what they merged so far is merged again some
    /// other time.
    pub fn abandon(&self, core: &Core) {
        if let Some(job) = lock(&self.flush).take() {
            job.abandon(core);
        }
        if let Some(job) = lock(&self.compaction).job.take() {
            job.abandon(core);
        }
    }

    /// Waits until it is `until_ms` by the monotonic clock, or writers wait for runs
    /// to be merged.
    fn pause(&self, core: &Core, until_ms: u64) {
        while core.options.environment.monotonic_ms() < until_ms
            && !self.stopping.load(Acquire)
            && core.stalls.hard() != Some(StallCause::Runs)
        {
            let left = until_ms.saturating_sub(core.options.environment.monotonic_ms());
            thread::sleep(Duration::from_millis(left.min(PAUSE_MS_MAX)));
        }
    }

    /// What a worker thread does until it is asked to end, or the database
    /// takes no more writes.
    pub fn work(&self, core: &Core, lane: Lane) {
        loop {
            // Taken before looking, so that no request to end is slept through.
            let seen = core.work.count();
            if self.stopping.load(Acquire) {
                return;
            }
            // What is limited goes by short steps, so that it is spread evenly.
            let limit = core.options.compaction_bytes_per_second.filter(|_| lane == Lane::Compaction);
            let budget =
                limit.map_or(STEP, |limit| Budget::bytes((limit / 10).clamp(SLICE_BYTES, STEP.bytes)));
            let start_ms = core.options.environment.monotonic_ms();
            match self.step(core, lane, budget) {
                Ok(Progress::More) => {
                    if let Some(limit) = limit {
                        self.pause(core, start_ms + budget.bytes * 1000 / limit.max(1));
                    }
                }
                Ok(Progress::Done) => {
                    core.work.wait(seen, Duration::from_secs(3600));
                }
                Err(Error::Poisoned(_) | Error::InvalidArgument(_)) => return,
                Err(_) => {
                    core.progress.raise();
                    core.work.wait(seen, RETRY_AFTER);
                }
            }
        }
    }
}

fn step_flush(lane: &mut Option<Flush>, core: &Core, budget: Budget) -> Result<Step> {
    let Some(mut job) = lane.take().or_else(|| Flush::next(core)) else { return Ok(Step::Idle) };
    match job.step(core, budget) {
        Ok(true) => Ok(Step::Finished),
        Ok(false) => {
            *lane = Some(job);
            Ok(Step::Part)
        }
        Err(error) => {
            job.abandon(core);
            Err(error)
        }
    }
}

impl CompactionLane {
    fn want(&mut self, wanted: Wanted) {
        // One that is being done may have begun before the last flush.
        let begun = usize::from(self.is_wanted);
        if !self.wanted.iter().skip(begun).any(|other| *other == wanted) {
            self.wanted.push_back(wanted);
        }
    }

    fn step(&mut self, core: &Core, budget: Budget) -> Result<Step> {
        if self.job.is_none() {
            self.begin(core)?;
        }
        let Some(mut job) = self.job.take() else { return Ok(Step::Idle) };
        match job.step(core, budget) {
            Ok(true) => {
                self.end(None);
                Ok(Step::Finished)
            }
            Ok(false) => {
                self.job = Some(job);
                Ok(Step::Part)
            }
            Err(error) => {
                self.end(Some(error.duplicate()));
                job.abandon(core);
                Err(error)
            }
        }
    }

    fn begin(&mut self, core: &Core) -> Result<()> {
        while let Some(Wanted { keyspace, range }) = self.wanted.front() {
            // One that was dropped meanwhile is nobody's wish any more.
            if let Ok(keyspace) = core.keyspace(*keyspace) {
                self.job = Compaction::of_range(core, keyspace, (range.0.as_deref(), range.1.as_deref()))?;
            }
            if self.job.is_some() {
                self.is_wanted = true;
                return Ok(());
            }
            self.wanted.pop_front();
        }
        self.job = Compaction::next(core)?;
        Ok(())
    }

    fn end(&mut self, error: Option<Error>) {
        if std::mem::take(&mut self.is_wanted) {
            self.wanted.pop_front();
            self.failed = error;
        }
    }
}

/// The work that ends a stall.
fn lane_of(cause: StallCause) -> Lane {
    match cause {
        StallCause::WriteBuffer => Lane::Flush,
        StallCause::Runs => Lane::Compaction,
    }
}

fn stalled(cause: StallCause, why: &str) -> Error {
    let what = match cause {
        StallCause::WriteBuffer => "the write buffer is full: writes wait for flushes",
        StallCause::Runs => "there are too many sorted runs: writes wait for compactions",
    };
    Error::Stalled(format!("{what}, and {why}; try again later"))
}
