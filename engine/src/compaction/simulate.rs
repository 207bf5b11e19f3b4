//! What [`pick`] makes of a tree while a workload writes: how often bytes are
//! written, how many runs a read meets, how much space obsolete versions take.
//!
//! Picks, merges and moves are those of the engine, on tables whose entries are
//! numbers. One entry of the model stands for a *grain* of them that are put and
//! superseded together, so that millions take seconds; where keys are hit at random
//! the shares that survive a merge do not depend on the grain. Nothing is read or
//! written, and a seed replays a run exactly.

mod tree;
mod workload;

use crate::compaction::pick::{Parameters, Pick, Work, describe, pick};
use crate::error::{Error, Result};
use crate::scaling::Scaling;
use crate::stats::RunInfo;
use crate::version::overlap;

use tree::{Sizes, Tree};
use workload::{Random, Writes};

pub use workload::Workload;

/// Bytes of an entry of a memtable beside its key and value, as the engine counts
/// them.
const MEMTABLE_ENTRY_BYTES: u64 = 108;

/// Bytes of an entry of a table beside its key and value: sequence number, kind,
/// filter and index.
const TABLE_ENTRY_BYTES: f64 = 8.0;

/// Keys of a model that are enough.
const KEYS_MIN: u64 = 500_000;

/// Keys of a model that memory holds.
const KEYS_MAX: u64 = 100_000_000;

/// Entries of the model in a memtable, and in a file, at least.
const TABLE_ENTRIES_MIN: u64 = 256;

/// Entries that may be merged while one is written, as `Background::Inline` allows
/// where it pays for the flush as well, and for slices that a job ends early in.
const WORK_PER_ENTRY: u64 = 8;

/// Runs that may overlap before writes wait for merges, as in the engine.
const OVERLAP_MAX: usize = 32;

/// Keys looked for after each flush.
const READS: usize = 32;

/// What to simulate.
#[derive(Clone, Debug, PartialEq)]
pub struct Simulation {
    /// When runs are merged.
    pub scaling: Scaling,
    /// What is written.
    pub workload: Workload,
    /// Keys that the workload is about: `n` in [`Workload`].
    pub entries: u64,
    /// Bytes of a key. Default: 16.
    pub key_bytes: u64,
    /// Bytes of a value. Default: 100.
    pub value_bytes: u64,
    /// Bytes of a value in a table over those it has. Default: 0.5.
    pub compression: f64,
    /// As in [`crate::Options`]. Default: 8 MiB.
    pub memtable_bytes: u64,
    /// As in [`crate::Options`]. Default: 64 MiB.
    pub target_file_bytes: u64,
    /// Chooses the random keys. Default: 1.
    pub seed: u64,
}

impl Default for Simulation {
    fn default() -> Self {
        Simulation {
            scaling: Scaling::default(),
            workload: Workload::Overwrite,
            entries: 10_000_000,
            key_bytes: 16,
            value_bytes: 100,
            compression: 0.5,
            memtable_bytes: 8 << 20,
            target_file_bytes: 64 << 20,
            seed: 1,
        }
    }
}

/// What came of a simulation. Bytes are those of tables; the WAL is apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Bytes that everything put or deleted would have in a table.
    pub bytes_put: u64,
    /// Bytes of flushes.
    pub bytes_flushed: u64,
    /// Bytes that merges have written.
    pub bytes_merged: u64,
    /// Bytes of the newest versions alone.
    pub bytes_latest: u64,
    /// Bytes of the tables at the end, once nothing is left to pick.
    pub bytes_settled: u64,
    /// Bytes of the tables over those of the newest versions after each flush, from
    /// a quarter of the workload on: the mean.
    pub space_mean: f64,
    /// The same: the most.
    pub space_max: f64,
    /// Runs that may hold a key, where keys are looked for after each flush: the
    /// mean.
    pub runs_mean: f64,
    /// Most runs that may hold one key, ever.
    pub runs_max: usize,
    /// Memtables flushed.
    pub flushes: u64,
    /// Merges.
    pub merges: u64,
    /// Picks that moved tables.
    pub moves: u64,
    /// Picks that dropped tables.
    pub drops: u64,
    /// Bytes of the inputs of the largest merge.
    pub job_bytes_max: u64,
}

impl Outcome {
    /// Bytes written to tables for each byte put.
    pub fn write_amplification(&self) -> f64 {
        (self.bytes_flushed + self.bytes_merged) as f64 / (self.bytes_put as f64).max(1.0)
    }

    /// Bytes of the settled tables over those of the newest versions.
    pub fn space_settled(&self) -> f64 {
        self.bytes_settled as f64 / (self.bytes_latest as f64).max(1.0)
    }
}

impl Simulation {
    /// Runs it to its end; `progress` is told the share that is done, 0 to 1.
    ///
    /// # Errors
    /// `InvalidArgument` where a number is 0, or no model of it would fit in memory.
    pub fn run(&self, mut progress: impl FnMut(f64)) -> Result<Outcome> {
        let mut model = Model::new(self)?;
        while model.flush() {
            progress(model.progress());
        }
        model.settle();
        Ok(model.outcome())
    }
}

/// A merge in progress.
#[derive(Debug)]
struct Job {
    pick: Pick,
    /// Id of the run that it goes to.
    run: u64,
    /// When it began.
    now: u64,
    /// Entries that are still to be read.
    left: u64,
}

/// A simulation that goes flush by flush.
#[derive(Debug)]
pub struct Model {
    parameters: Parameters,
    sizes: Sizes,
    /// Entries of a memtable.
    memtable_entries: u64,
    writes: Writes,
    /// When the newest version of each key expires: 0 where there is none,
    /// `u32::MAX` for never.
    latest: Vec<u32>,
    /// Keys in order of their expiry, first to expire first; used where any does.
    expiring: std::collections::VecDeque<(u32, u32)>,
    /// Keys that have a value.
    live: u64,
    tree: Tree,
    job: Option<Job>,
    reads: Random,
    sums: Sums,
    outcome: Outcome,
}

/// What means are made of.
#[derive(Debug, Default)]
struct Sums {
    space: f64,
    spaces: u64,
    runs: u64,
    reads: u64,
}

impl Model {
    /// An empty tree.
    ///
    /// # Errors
    /// As [`Simulation::run`].
    pub fn new(simulation: &Simulation) -> Result<Model> {
        let Simulation { entries, key_bytes, value_bytes, compression, .. } = *simulation;
        let Simulation { memtable_bytes, target_file_bytes, .. } = *simulation;
        if entries == 0
            || memtable_bytes == 0
            || target_file_bytes == 0
            || compression.is_nan()
            || compression <= 0.0
        {
            return Err(Error::invalid("a simulation needs entries, and sizes above 0"));
        }
        let memtable_entries = (memtable_bytes / (key_bytes + value_bytes + MEMTABLE_ENTRY_BYTES)).max(1);
        let put_bytes = key_bytes as f64 + value_bytes as f64 * compression + TABLE_ENTRY_BYTES;
        let delete_bytes = key_bytes as f64 + TABLE_ENTRY_BYTES;
        let file_entries = (target_file_bytes as f64 / put_bytes) as u64;
        let grain = (entries / KEYS_MIN).min(memtable_entries.min(file_entries) / TABLE_ENTRIES_MIN).max(1);
        let keys = (entries / grain).max(1);
        if keys > KEYS_MAX {
            return Err(Error::invalid(format!(
                "{entries} entries in so small memtables or files make too large a model"
            )));
        }
        let scaled = |bytes: f64| ((bytes * grain as f64) as u64).max(1);
        let sizes = Sizes {
            grain,
            put_bytes: scaled(put_bytes),
            delete_bytes: scaled(delete_bytes),
            target_file_bytes,
        };
        let memtable_entries = memtable_entries.div_ceil(grain);
        let writes = Writes::new(simulation.workload, keys, simulation.seed);
        Ok(Model {
            parameters: Parameters {
                scaling: simulation.scaling.clone(),
                flush_bytes: memtable_entries * sizes.put_bytes,
                target_file_bytes,
                now_ms: 0,
                oldest_snapshot: None,
                covered: Vec::new(),
                space_left: u64::MAX,
            },
            sizes,
            memtable_entries,
            latest: vec![0; writes.keys_end() as usize],
            expiring: std::collections::VecDeque::new(),
            live: 0,
            tree: Tree::new(sizes),
            job: None,
            reads: Random(!simulation.seed),
            sums: Sums::default(),
            outcome: Outcome::default(),
            writes,
        })
    }

    /// Fills a memtable, flushes it, and merges as much as goes on meanwhile; false
    /// once the workload is at its end.
    pub fn flush(&mut self) -> bool {
        let mut entries = Vec::with_capacity(self.memtable_entries as usize);
        while (entries.len() as u64) < self.memtable_entries
            && let Some(entry) = self.writes.next()
        {
            self.note(entry);
            entries.push(entry);
        }
        if entries.is_empty() {
            return false;
        }
        self.parameters.now_ms = self.writes.done;
        self.expire();
        let work = entries.len() as u64 * WORK_PER_ENTRY;
        let bytes = self.tree.flush(entries, self.writes.done);
        self.outcome.flushes += 1;
        self.outcome.bytes_flushed += bytes;
        self.parameters.flush_bytes = flush_bytes(self.parameters.flush_bytes, bytes, self.outcome.flushes);
        self.measure_runs();
        self.work(work);
        while overlap(self.tree.metas()) > OVERLAP_MAX && self.work(work) {}
        self.measure();
        true
    }

    /// Merges until nothing is left to pick.
    pub fn settle(&mut self) {
        while self.work(u64::MAX) {}
        self.measure_runs();
    }

    /// Merges `entries`, and moves and drops what there is; false if there was
    /// nothing to do.
    fn work(&mut self, mut entries: u64) -> bool {
        let mut any = false;
        while entries > 0 {
            let Some(mut job) = self.job.take().or_else(|| self.begin()) else { break };
            any = true;
            let read = job.left.min(entries);
            job.left -= read;
            entries -= read;
            if job.left > 0 {
                self.job = Some(job);
                break;
            }
            self.end(&job);
        }
        any
    }

    fn begin(&self) -> Option<Job> {
        let pick = pick(&self.tree.shapes(), &self.parameters)?;
        let left = if pick.work == Work::Merge { pick.bytes / self.sizes.put_bytes } else { 0 };
        Some(Job { run: self.tree.run_of(&pick), now: self.writes.done, left, pick })
    }

    fn end(&mut self, job: &Job) {
        let bytes = self.tree.apply(&job.pick, job.run, job.now);
        let outcome = &mut self.outcome;
        match job.pick.work {
            Work::Merge => {
                outcome.merges += 1;
                outcome.bytes_merged += bytes;
                outcome.job_bytes_max = outcome.job_bytes_max.max(job.pick.bytes);
            }
            Work::Move => outcome.moves += 1,
            Work::Drop => outcome.drops += 1,
        }
    }

    /// The runs as they are, newest first.
    pub fn runs(&self) -> Vec<RunInfo> {
        describe(&self.tree.shapes(), &self.parameters)
    }

    /// What [`Model::flush`] would begin with.
    pub fn next_pick(&self) -> Option<Pick> {
        pick(&self.tree.shapes(), &self.parameters)
    }

    /// Share of the workload that is written.
    pub fn progress(&self) -> f64 {
        self.writes.done as f64 / self.writes.total() as f64
    }

    /// What has come of it so far.
    pub fn outcome(&self) -> Outcome {
        let Sums { space, spaces, runs, reads } = self.sums;
        Outcome {
            bytes_latest: self.live * self.sizes.put_bytes,
            bytes_settled: self.tree.bytes(),
            space_mean: space / spaces.max(1) as f64,
            runs_mean: runs as f64 / reads.max(1) as f64,
            ..self.outcome.clone()
        }
    }

    /// Takes in what an entry makes of its key.
    fn note(&mut self, entry: tree::Entry) {
        self.outcome.bytes_put += self.sizes.of(&entry);
        let latest = &mut self.latest[entry.key as usize];
        self.live -= u64::from(*latest != 0);
        *latest = match entry.expires {
            _ if entry.tombstone => 0,
            0 => u32::MAX,
            expires => expires,
        };
        self.live += u64::from(*latest != 0);
        if entry.expires != 0 {
            self.expiring.push_back((entry.expires, entry.key));
        }
    }

    fn expire(&mut self) {
        while let Some((expires, key)) = self.expiring.front().copied()
            && u64::from(expires) <= self.writes.done
        {
            self.expiring.pop_front();
            let latest = &mut self.latest[key as usize];
            if *latest == expires {
                *latest = 0;
                self.live -= 1;
            }
        }
    }

    fn measure_runs(&mut self) {
        self.outcome.runs_max = self.outcome.runs_max.max(overlap(self.tree.metas()));
    }

    fn measure(&mut self) {
        if 4 * self.writes.done < self.writes.total() {
            return;
        }
        let latest = (self.live * self.sizes.put_bytes).max(1);
        let space = self.tree.bytes() as f64 / latest as f64;
        self.sums.space += space;
        self.sums.spaces += 1;
        self.outcome.space_max = self.outcome.space_max.max(space);
        let (from, to) = self.writes.window();
        for _ in 0..READS {
            let key = (from + self.reads.below(to - from)) as u32;
            let key = key.to_be_bytes();
            let holds =
                self.tree.metas().filter(|meta| meta.key_min[..] <= key[..] && key[..] <= meta.key_max[..]);
            self.sums.runs += holds.count() as u64;
            self.sums.reads += 1;
        }
    }
}

/// Bytes of a flush, of late, as a keyspace keeps them.
fn flush_bytes(before: u64, bytes: u64, flushes: u64) -> u64 {
    if flushes <= 1 { bytes } else { before - before / 4 + bytes / 4 }
}

#[cfg(test)]
mod tests;
