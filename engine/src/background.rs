//! Who drives flushes and compactions.
//!
//! There are two lanes, one for flushes and one for compactions, each with at
//! most one job. Whoever holds a lane's lock moves its job on by a step: worker
//! threads natively; on wasm the writers, in proportion to what they write, and
//! a host that calls `maintain`. A caller that waits for a job drives it too.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use crate::api::Progress;
use crate::compaction::Compaction;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::flush::Flush;
use crate::key::KeyspaceId;
use crate::options::Budget;
use crate::sync::atomic::{AtomicBool, AtomicU64};
use crate::sync::{Mutex, lock};

/// Bytes of a worker's step: between two, others may drive the lane.
const STEP: Budget = Budget { bytes: 4 << 20 };

/// Bytes of background work for each byte written: one for the flush, the rest
/// for the levels it will sink through.
const WORK_PER_BYTE: u64 = 12;

/// Bytes of work that are done at once: a smaller slice costs more in
/// switching than it does.
const SLICE_BYTES: u64 = 256 << 10;

/// How long a writer waits for background work that makes no progress.
const STALL_LIMIT: Duration = Duration::from_secs(30);

/// How long a worker waits before it tries again what failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The two lanes.
#[derive(Default)]
pub(crate) struct Background {
    flush: Mutex<Option<Flush>>,
    compaction: Mutex<CompactionLane>,
    /// Work that writers owe, in bytes.
    debt: AtomicU64,
    stopping: AtomicBool,
    /// Why the flush lane, and the compaction lane, do not proceed.
    trouble: Mutex<[Option<Error>; 2]>,
}

#[derive(Default)]
struct CompactionLane {
    job: Option<Compaction>,
    /// Keyspaces that somebody wants in one run; the first is in `job` if
    /// `is_full`.
    wanted: VecDeque<KeyspaceId>,
    is_full: bool,
    /// Why a wanted compaction has ended without success.
    failed: Option<Error>,
}

/// A lane.
#[derive(Clone, Copy)]
pub(crate) enum Lane {
    Flush,
    Compaction,
}

impl Background {
    /// Works for about `budget` in a lane.
    pub fn step(&self, core: &Core, lane: Lane, budget: Budget) -> Result<Progress> {
        core.check_writable()?;
        let outcome = match lane {
            Lane::Flush => self.step_flush(core, budget),
            Lane::Compaction => self.step_compaction(core, budget),
        };
        let trouble = outcome.as_ref().err().map(Error::duplicate);
        lock(&self.trouble)[lane as usize] = trouble;
        outcome
    }

    fn step_flush(&self, core: &Core, budget: Budget) -> Result<Progress> {
        let mut lane = lock(&self.flush);
        let Some(mut job) = lane.take().or_else(|| Flush::next(core)) else { return Ok(Progress::Done) };
        match job.step(core, budget) {
            Ok(true) => Ok(Progress::More),
            Ok(false) => {
                *lane = Some(job);
                Ok(Progress::More)
            }
            Err(error) => {
                job.abandon(core);
                Err(error)
            }
        }
    }

    fn step_compaction(&self, core: &Core, budget: Budget) -> Result<Progress> {
        let mut lane = lock(&self.compaction);
        if lane.job.is_none() {
            lane.begin(core)?;
        }
        let Some(mut job) = lane.job.take() else { return Ok(Progress::Done) };
        match job.step(core, budget) {
            Ok(true) => {
                lane.end(None);
                Ok(Progress::More)
            }
            Ok(false) => {
                lane.job = Some(job);
                Ok(Progress::More)
            }
            Err(error) => {
                lane.end(Some(error.duplicate()));
                job.abandon(core);
                Err(error)
            }
        }
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
        Ok(())
    }

    /// Merges every keyspace into one run.
    pub fn compact(&self, core: &Core) -> Result<()> {
        {
            let mut lane = lock(&self.compaction);
            lane.failed = None;
            for keyspace in core.keyspaces() {
                // One that is being done may have begun before the last flush.
                let begun = usize::from(lane.is_full);
                if !lane.wanted.iter().skip(begun).any(|wanted| *wanted == keyspace.id) {
                    lane.wanted.push_back(keyspace.id);
                }
            }
        }
        loop {
            let mut lane = lock(&self.compaction);
            if let Some(error) = lane.failed.take() {
                lane.wanted.clear();
                return Err(error);
            }
            if lane.wanted.is_empty() {
                return Ok(());
            }
            drop(lane);
            self.step(core, Lane::Compaction, STEP)?;
        }
    }

    /// Works for about `budget` in both lanes.
    pub fn maintain(&self, core: &Core, budget: Budget) -> Result<Progress> {
        let mut left = budget.bytes.max(1);
        while left > 0 {
            let slice = Budget::bytes(left.min(SLICE_BYTES));
            left -= slice.bytes;
            if self.step(core, Lane::Flush, slice)? == Progress::Done
                && self.step(core, Lane::Compaction, slice)? == Progress::Done
            {
                return Ok(Progress::Done);
            }
        }
        Ok(Progress::More)
    }

    /// Before a commit: waits while background work is too far behind, or does
    /// the work where there are no workers.
    ///
    /// # Errors
    /// `Stalled` with the reason if that does not help.
    pub fn make_room(&self, core: &Core) -> Result<()> {
        if !core.is_behind() {
            return Ok(());
        }
        let start = core.options.environment.monotonic_ms();
        let outcome = if core.threaded() { self.wait_for_room(core) } else { self.work_for_room(core) };
        let waited = core.options.environment.monotonic_ms().saturating_sub(start);
        core.counters.stall_ms.fetch_add(waited, Relaxed);
        outcome
    }

    fn wait_for_room(&self, core: &Core) -> Result<()> {
        let mut troubled = false;
        loop {
            let seen = core.progress.count();
            core.check_writable()?;
            if !core.is_behind() {
                return Ok(());
            }
            if let Some(trouble) = lock(&self.trouble).iter().flatten().next() {
                // Once more may help: the cause may just have gone.
                if std::mem::replace(&mut troubled, true) {
                    return Err(stalled(&trouble.to_string()));
                }
            }
            if !core.progress.wait(seen, STALL_LIMIT) {
                return Err(stalled("they make no progress"));
            }
        }
    }

    fn work_for_room(&self, core: &Core) -> Result<()> {
        while core.is_behind() {
            let done = self.maintain(core, STEP).map_err(|error| match error {
                Error::Poisoned(_) | Error::Locked(_) | Error::InvalidArgument(_) => error,
                other => stalled(&other.to_string()),
            })?;
            if done == Progress::Done {
                return Ok(());
            }
        }
        Ok(())
    }

    /// After a commit of `bytes`: does what the commit owes where there are no
    /// workers. A failure is no failure of the commit; it shows when writers
    /// must wait.
    pub fn pay(&self, core: &Core, bytes: u64) {
        if core.threaded() {
            return;
        }
        let debt = self.debt.fetch_add(bytes * WORK_PER_BYTE, Relaxed) + bytes * WORK_PER_BYTE;
        if debt >= SLICE_BYTES {
            self.debt.store(0, Relaxed);
            let _ = self.maintain(core, Budget::bytes(debt));
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

    /// What a worker thread does until it is asked to end, or the database
    /// takes no more writes.
    pub fn work(&self, core: &Core, lane: Lane) {
        loop {
            // Taken before looking, so that no request to end is slept through.
            let seen = core.work.count();
            if self.stopping.load(Acquire) {
                return;
            }
            match self.step(core, lane, STEP) {
                Ok(Progress::More) => {}
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

impl CompactionLane {
    fn begin(&mut self, core: &Core) -> Result<()> {
        while let Some(id) = self.wanted.front() {
            // One that was dropped meanwhile is nobody's wish any more.
            if let Ok(keyspace) = core.keyspace(*id) {
                self.job = Compaction::full(core, keyspace)?;
            }
            if self.job.is_some() {
                self.is_full = true;
                return Ok(());
            }
            self.wanted.pop_front();
        }
        self.job = Compaction::next(core)?;
        Ok(())
    }

    fn end(&mut self, error: Option<Error>) {
        if std::mem::take(&mut self.is_full) {
            self.wanted.pop_front();
            self.failed = error;
        }
    }
}

fn stalled(why: &str) -> Error {
    Error::Stalled(format!("writes wait for flushes and compactions, and {why}; try again later"))
}
