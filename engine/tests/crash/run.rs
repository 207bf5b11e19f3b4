//! Runs workloads, and knows from then on what had to survive when.

use std::sync::Arc;

use duramen::options::Environment;
use duramen::storage::fault::{FaultStorage, Mutant, Phase};
use duramen::{Background, Budget, Database, Db, Durability, Error, KeyspaceId, Options, SnapshotId};

use crate::model::{self, Commit, KEYSPACES, Model};
use crate::workload::{Step, Workload};

/// No clock and no chance.
#[derive(Debug)]
struct Still;

impl Environment for Still {
    fn monotonic_ms(&self) -> u64 {
        0
    }

    fn unix_ms(&self) -> u64 {
        1000
    }

    fn random(&self) -> u64 {
        0x6475_7261_6d65_6e00
    }
}

/// Options under which the same calls do the same.
pub fn options(workload: &Workload) -> Options {
    Options {
        memtable_bytes: workload.memtable_bytes,
        target_file_bytes: workload.target_file_bytes,
        cache_bytes: 8 << 20,
        background: Background::Inline,
        environment: Arc::new(Still),
        ..Options::default()
    }
}

pub fn open(storage: &FaultStorage, options: &Options) -> duramen::Result<Db> {
    Db::open_with(Arc::new(storage.clone()), options.clone())
}

/// From `moment` on, this many commits survive.
#[derive(Clone, Copy, Debug)]
struct Promise {
    moment: usize,
    commits: usize,
}

/// A workload that has been run, or is being run.
#[derive(Debug)]
pub struct Run {
    pub storage: FaultStorage,
    pub options: Options,
    /// What is there after so many commits.
    pub models: Vec<Model>,
    /// Commits that were acknowledged, in whatever way.
    pub acknowledged: usize,
    /// The moment at which the workload's quiet steps were over.
    pub loud_from: usize,
    /// When each commit began.
    begun: Vec<usize>,
    /// What survives a loss of power.
    synced: Vec<Promise>,
    /// What survives the end of the process.
    buffered: Vec<Promise>,
    /// Keyspaces, and when each was there for good.
    keyspaces: Vec<(usize, String)>,
}

/// An open database, with what a program holds on to.
pub struct Program {
    pub db: Db,
    pub ids: [KeyspaceId; KEYSPACES.len()],
    snapshots: Vec<SnapshotId>,
    /// Opening again has failed; `db` is none that anybody asked for.
    away: bool,
}

impl Run {
    pub fn new(workload: &Workload, seed: u64, mutant: Option<Mutant>) -> Run {
        let storage = FaultStorage::with_names(seed, workload.names);
        storage.set_mutant(mutant);
        Run {
            storage,
            options: options(workload),
            models: vec![Model::default()],
            acknowledged: 0,
            loud_from: 0,
            begun: Vec::new(),
            synced: Vec::new(),
            buffered: Vec::new(),
            keyspaces: Vec::new(),
        }
    }

    /// Runs a workload whose calls succeed, but for faults it brings itself.
    pub fn of(workload: &Workload, seed: u64, mutant: Option<Mutant>) -> Result<Run, String> {
        let mut run = Run::new(workload, seed, mutant);
        let mut program = run.open().map_err(|error| format!("open: {error}"))?;
        for (index, step) in workload.steps.iter().enumerate() {
            if index == workload.quiet_steps && index > 0 {
                run.loud_from = run.storage.moment();
            }
            run.begin(step);
            if let Err(error) = run.step(&mut program, step) {
                // A fault; it happens once.
                let fired = run.storage.take_fired();
                if fired.is_empty() {
                    return Err(format!("{step:?}: {error}"));
                }
                run.step(&mut program, step).map_err(|error| format!("{step:?}, again: {error}"))?;
            }
        }
        run.models[run.acknowledged].check(&program.db).map_err(|what| format!("at the end: {what}"))?;
        Ok(run)
    }

    pub fn open(&mut self) -> duramen::Result<Program> {
        self.storage.set_phase(Phase::Other);
        let db = open(&self.storage, &self.options)?;
        let ids = model::create_keyspaces(&db)?;
        for name in KEYSPACES {
            self.keyspace_exists(name);
        }
        Ok(Program { db, ids, snapshots: Vec::new(), away: false })
    }

    fn keyspace_exists(&mut self, name: &str) {
        if !self.keyspaces.iter().any(|(_, known)| known == name) {
            self.keyspaces.push((self.storage.moment(), name.to_owned()));
        }
    }

    /// Notes that a step is about to be taken for the first time.
    pub fn begin(&mut self, step: &Step) {
        if let Step::Commit(_, commit) = step {
            self.begin_commit(commit);
        }
    }

    fn begin_commit(&mut self, commit: &Commit) {
        let mut model = self.models.last().cloned().unwrap_or_default();
        model.apply(commit);
        self.models.push(model);
        self.begun.push(self.storage.moment());
    }

    /// Takes a step. After a failure it may be taken again.
    pub fn step(&mut self, program: &mut Program, step: &Step) -> duramen::Result<()> {
        let phase = match step {
            Step::Commit(Durability::Sync, _) | Step::Sync => Phase::Acknowledge,
            Step::Flush => Phase::Flush,
            _ => Phase::Other,
        };
        self.storage.set_phase(phase);
        match step {
            Step::Commit(durability, commit) => {
                program.db.write(commit.batch(program.ids), *durability)?;
                self.acknowledged = self.models.len() - 1;
                self.promise(*durability);
            }
            Step::Sync => {
                program.db.sync()?;
                self.promise(Durability::Sync);
            }
            Step::Flush => program.db.flush()?,
            Step::Compact => {
                self.storage.set_phase(Phase::Flush);
                program.db.flush()?;
                self.storage.set_phase(Phase::Compact);
                program.db.compact()?;
            }
            Step::Maintain(bytes) => drop(program.db.maintain(Budget::bytes(*bytes))?),
            Step::Keyspace(name) => {
                program.db.create_keyspace(name)?;
                self.keyspace_exists(name);
            }
            Step::Snapshot => program.snapshots.push(Database::snapshot(&program.db)?),
            Step::Release => {
                if let Some(id) = program.snapshots.pop() {
                    program.db.release(id)?;
                }
            }
            Step::Close => {
                if !program.away {
                    match program.db.close() {
                        Ok(()) => self.promise(Durability::Sync),
                        // Closed by an attempt before.
                        Err(Error::InvalidArgument(_)) => {}
                        Err(error) => return Err(error),
                    }
                }
                self.reopen(program)?;
            }
            Step::Kill => self.reopen(program)?,
            Step::Fault(fault) => self.storage.inject(*fault),
        }
        Ok(())
    }

    /// Opens again over the same files, as if the process had been killed.
    pub fn reopen(&mut self, program: &mut Program) -> duramen::Result<()> {
        program.snapshots.clear();
        // The lock is free once the handle is gone.
        program.away = true;
        program.db = open(&FaultStorage::new(0), &self.options)?;
        *program = self.open()?;
        Ok(())
    }

    fn promise(&mut self, durability: Durability) {
        let promise = Promise { moment: self.storage.moment(), commits: self.acknowledged };
        if durability >= Durability::Buffered {
            self.buffered.push(promise);
        }
        if durability >= Durability::Sync {
            self.synced.push(promise);
        }
    }

    /// How many commits may be found after a crash at `moment`.
    pub fn range(&self, moment: usize, power_lost: bool) -> (usize, usize) {
        let promises = if power_lost { &self.synced } else { &self.buffered };
        let kept = promises.iter().filter(|promise| promise.moment <= moment);
        let begun = self.begun.iter().filter(|begun| **begun < moment).count();
        (kept.map(|promise| promise.commits).max().unwrap_or(0), begun)
    }

    /// Keyspaces that must be found after a crash at `moment`.
    pub fn keyspaces_at(&self, moment: usize) -> impl Iterator<Item = &str> {
        let kept = self.keyspaces.iter().filter(move |(created, _)| *created <= moment);
        kept.map(|(_, name)| name.as_str())
    }
}
