//! Runs workloads, and knows from then on what had to survive when.

use std::sync::Arc;

use duramen::options::Environment;
use duramen::storage::fault::{FaultStorage, Mutant, Phase};
use duramen::{
    Background, Budget, Database, Db, Durability, Error, KeyspaceId, Options, ScanRange, SnapshotId,
    WriteBatch,
};

use crate::model::{self, Commit, KEYSPACES, Model, NEVER, NOW_MS, PASSING, Passing, READ_BY_ALL};
use crate::workload::{Step, Workload};

/// A clock that stands, at this many Unix milliseconds, and no chance.
#[derive(Debug)]
struct Still(u64);

impl Environment for Still {
    fn monotonic_ms(&self) -> u64 {
        0
    }

    fn unix_ms(&self) -> u64 {
        self.0
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
        compaction_threads: 3,
        cache_bytes: 8 << 20,
        background: Background::Inline,
        environment: Arc::new(Still(NOW_MS)),
        ..Options::default()
    }
}

pub fn open(storage: &FaultStorage, options: &Options) -> duramen::Result<Db> {
    Db::open_with(Arc::new(storage.clone()), options.clone())
}

/// The same at another time.
pub fn options_at(options: &Options, now_ms: u64) -> Options {
    Options { environment: Arc::new(Still(now_ms)), ..options.clone() }
}

/// Commits in the way that the commit wants.
pub fn write(
    db: &dyn Database,
    commit: &Commit,
    ids: [KeyspaceId; KEYSPACES.len()],
    passing: Option<KeyspaceId>,
    durability: Durability,
) -> duramen::Result<()> {
    let batch = commit.batch(ids, passing);
    if !commit.in_transaction {
        return db.write(batch, durability);
    }
    let mut transaction = db.transaction()?;
    transaction.get(ids[0], READ_BY_ALL)?;
    let savepoint = transaction.savepoint()?;
    transaction.write(never(ids[0]))?;
    transaction.rollback_to(savepoint)?;
    transaction.write(batch)?;
    transaction.commit(durability)
}

/// What must not be found anywhere.
fn never(id: KeyspaceId) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(id, NEVER, b"");
    batch
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
    /// Keyspaces that stay, and when each was there for good.
    keyspaces: Vec<(usize, String, KeyspaceId)>,
    /// Commits have operations of every kind.
    pub every_kind: bool,
    /// The keyspace that comes and goes, as it is now.
    passing: Option<Passing>,
    /// When it came, was given another time to live, or went.
    passed: Vec<Passed>,
    /// The step at hand was tried before.
    tried: bool,
}

/// A keyspace comes or goes.
#[derive(Clone, Copy, Debug)]
struct Passed {
    begun: usize,
    comes: bool,
    /// Commits before it, which need not survive because it does.
    commits: usize,
    /// From here on it is there for good with this id, or for good it is not.
    done: Option<(usize, Option<KeyspaceId>)>,
}

/// Which keyspace may be called [`PASSING`] after a crash.
#[derive(Clone, Copy, Debug)]
pub struct Allowed {
    /// As it was when a call returned last.
    settled: Option<KeyspaceId>,
    /// A call under way brings a keyspace, or takes the one that is there.
    under_way: Option<bool>,
    /// The highest id of a keyspace that was ever there for good.
    pub id_max: KeyspaceId,
    /// Commits before the last call that returned.
    pub commits: usize,
}

impl Allowed {
    /// # Errors
    /// What is wrong with `found`.
    pub fn check(&self, found: Option<KeyspaceId>) -> Result<(), String> {
        let comes = |id: KeyspaceId| self.settled.is_none() && id > self.id_max;
        let allowed = match (self.under_way, found) {
            _ if found == self.settled => true,
            (Some(true), Some(id)) => comes(id),
            (Some(false), None) => true,
            _ => false,
        };
        match allowed {
            true => Ok(()),
            false => Err(format!("keyspace {PASSING} is {found:?}, with {self:?}")),
        }
    }
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
            every_kind: workload.every_kind,
            passing: None,
            passed: Vec::new(),
            tried: false,
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
        run.check_now(&program.db).map_err(|what| format!("at the end: {what}"))?;
        Ok(run)
    }

    pub fn open(&mut self) -> duramen::Result<Program> {
        self.storage.set_phase(Phase::Other);
        let db = open(&self.storage, &self.options)?;
        let ids = model::create_keyspaces(&db)?;
        for (name, id) in KEYSPACES.into_iter().zip(ids) {
            self.keyspace_exists(name, id);
        }
        Ok(Program { db, ids, snapshots: Vec::new(), away: false })
    }

    fn keyspace_exists(&mut self, name: &str, id: KeyspaceId) {
        if !self.keyspaces.iter().any(|(_, known, _)| known == name) {
            self.keyspaces.push((self.storage.moment(), name.to_owned(), id));
        }
    }

    /// Compares what is there with what was acknowledged.
    pub fn check_now(&self, db: &dyn Database) -> Result<(), String> {
        let model = &self.models[self.acknowledged];
        model.check(db, NOW_MS)?;
        let found = db.find_keyspace(PASSING).map_err(|error| error.to_string())?;
        self.passing_at(self.storage.moment()).check(found)?;
        model.check_passing(db, NOW_MS)
    }

    /// Notes that a step is about to be taken for the first time.
    pub fn begin(&mut self, step: &Step) {
        self.tried = false;
        let comes = match step {
            Step::Commit(_, commit) | Step::Conflict(_, commit) => return self.begin_commit(commit),
            Step::CreatePassing(_) => true,
            Step::DropPassing => false,
            _ => return,
        };
        let commits = self.acknowledged;
        self.passed.push(Passed { begun: self.storage.moment(), comes, commits, done: None });
    }

    fn begin_commit(&mut self, commit: &Commit) {
        let mut model = self.models.last().cloned().unwrap_or_default();
        model.apply(commit, self.passing, NOW_MS);
        self.models.push(model);
        self.begun.push(self.storage.moment());
    }

    /// Takes a step. After a failure it may be taken again.
    pub fn step(&mut self, program: &mut Program, step: &Step) -> duramen::Result<()> {
        let phase = match step {
            Step::Commit(Durability::Sync, _) | Step::Conflict(Durability::Sync, _) | Step::Sync => {
                Phase::Acknowledge
            }
            Step::Flush => Phase::Flush,
            _ => Phase::Other,
        };
        self.storage.set_phase(phase);
        let tried = std::mem::replace(&mut self.tried, true);
        match step {
            Step::Commit(durability, commit) => self.commit(program, commit, *durability, tried)?,
            Step::Conflict(durability, commit) => {
                let mut loser = Database::transaction(&program.db)?;
                loser.get(program.ids[0], READ_BY_ALL)?;
                loser.scan(program.ids[1], &ScanRange::all())?;
                loser.write(never(program.ids[0]))?;
                self.commit(program, commit, *durability, false)?;
                match loser.commit(*durability) {
                    Err(Error::Conflict { .. }) => {}
                    Err(error) => return Err(error),
                    Ok(()) => return Err(Error::InvalidArgument("a conflict goes unnoticed".into())),
                }
            }
            Step::CreatePassing(ttl_ms) => {
                self.passing = Some(model::create_passing(&program.db, *ttl_ms)?);
                self.passing_is_settled();
            }
            Step::DropPassing => {
                program.db.drop_keyspace(PASSING)?;
                self.passing = None;
                self.passing_is_settled();
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
                let id = program.db.create_keyspace(name)?;
                self.keyspace_exists(name, id);
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

    fn commit(
        &mut self,
        program: &Program,
        commit: &Commit,
        durability: Durability,
        tried: bool,
    ) -> duramen::Result<()> {
        let number = self.models.len() - 1;
        if tried && model::last_commit(&program.db)? == number {
            // The call failed, and the commit is there: merges must not be twice.
            program.db.sync()?;
        } else {
            write(&program.db, commit, program.ids, self.passing.map(|passing| passing.id), durability)?;
        }
        self.acknowledged = number;
        self.promise(durability);
        Ok(())
    }

    fn passing_is_settled(&mut self) {
        let done = (self.storage.moment(), self.passing.map(|passing| passing.id));
        if let Some(last) = self.passed.last_mut() {
            last.done = Some(done);
        }
    }

    /// What may have become of the keyspace that comes and goes after a crash at
    /// `moment`.
    pub fn passing_at(&self, moment: usize) -> Allowed {
        let staying = self.keyspaces.iter().map(|(created, _, id)| (*created, *id));
        let passing = self.passed.iter().filter_map(|passed| passed.done);
        let ids = staying.chain(passing.filter_map(|(done, id)| Some((done, id?))));
        let id_max = ids.filter(|(done, _)| *done <= moment).map(|(_, id)| id).max();
        let mut allowed =
            Allowed { settled: None, under_way: None, id_max: id_max.unwrap_or(KeyspaceId(0)), commits: 0 };
        for passed in &self.passed {
            match passed.done {
                Some((done, id)) if done <= moment => {
                    allowed = Allowed { settled: id, commits: passed.commits, ..allowed };
                }
                _ if passed.begun < moment => allowed.under_way = Some(passed.comes),
                _ => {}
            }
        }
        allowed
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
    pub fn keyspaces_at(&self, moment: usize) -> impl Iterator<Item = (&str, KeyspaceId)> {
        let kept = self.keyspaces.iter().filter(move |(created, ..)| *created <= moment);
        kept.map(|(_, name, id)| (name.as_str(), *id))
    }
}
