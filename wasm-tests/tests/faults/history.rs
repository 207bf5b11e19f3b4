//! A run of commits with everything that was promised about them, and the check
//! of what is left of it after a crash.
//!
//! What is found must be a prefix of the commits: no fewer than were promised to
//! survive when the crash came, no more than had begun, and nothing else.

use duramen::{Budget, Database, Durability, Error, Options, Result};
use wasm_tests::model::{self, Commit, Model};
use wasm_tests::random::Random;
use wasm_tests::scenarios::{self, Place};

use crate::disk::{Disk, Loss, Names, Node};
use crate::module::Guest;
use crate::wasi::{SharedDisk, hold};

/// A disk, and a host to open the database on it.
pub struct Machine {
    pub disk: SharedDisk,
    pub names: Names,
}

impl Machine {
    /// A machine with this disk.
    pub fn new(disk: Disk, names: Names) -> Self {
        Machine { disk: SharedDisk::new(disk.into()), names }
    }

    pub fn open_guest(&self) -> Result<Guest> {
        Guest::open(&self.disk, self.names, &options())
    }

    /// The present moment of the disk.
    pub fn now(&self) -> usize {
        hold(&self.disk).now()
    }

    /// The machine after its power went at `now`.
    pub fn after_power_loss(&self, now: usize, loss: &mut Loss<'_>) -> Machine {
        let image = hold(&self.disk).image(now, self.names, loss);
        Machine::new(Disk::new(image), self.names)
    }

    /// The machine after the process was killed at `now`.
    pub fn after_kill(&self, now: usize) -> Machine {
        Machine::new(hold(&self.disk).rewound(now), self.names)
    }
}

impl Place for Machine {
    fn open(&self, options: Options) -> Result<Box<dyn Database>> {
        Ok(Box::new(Guest::open(&self.disk, self.names, &options)?))
    }

    fn tables(&self) -> Vec<(String, bytes::Bytes)> {
        let disk = hold(&self.disk);
        let mut tables = Vec::new();
        for (keyspace, _) in disk.list("sst") {
            for (name, node) in disk.list(&format!("sst/{keyspace}")) {
                let Node::File(inode) = node else { panic!("a directory among SSTables") };
                tables.push((format!("sst/{keyspace}/{name}"), disk.content(inode).to_vec().into()));
            }
        }
        tables
    }
}

/// Small memtables, so that a few hundred commits flush and compact often.
fn options() -> Options {
    Options { memtable_bytes: 8 << 10, target_file_bytes: 8 << 10, ..scenarios::small() }
}

/// From `moment` on, this many commits survive.
#[derive(Clone, Copy, Debug)]
struct Promise {
    moment: usize,
    commits: usize,
}

/// Commits, and what was promised about them when.
#[derive(Debug, Default)]
pub struct History {
    commits: Vec<Commit>,
    /// When each commit began.
    begun: Vec<usize>,
    /// Commits that were acknowledged, in whatever way.
    acknowledged: usize,
    /// When both keyspaces were there for good.
    created: usize,
    /// What survives a loss of power.
    synced: Vec<Promise>,
    /// What survives the end of the process.
    buffered: Vec<Promise>,
    /// Calls that failed and were mended.
    pub failures: usize,
}

/// What a run is given to mend the machine with after a call failed.
pub type Mend<'a> = &'a mut dyn FnMut(&Machine, &Error);

impl History {
    /// Runs `count` commits and whatever else a program does on `machine`,
    /// all of it determined by `seed`, and ends without closing.
    pub fn run(machine: &Machine, seed: u64, count: usize, mend: Mend<'_>) -> History {
        let random = &mut Random::new(seed);
        let mut history = History::default();
        let mut db = history.reopen(machine, mend);
        let mut ids = history.retry(machine, &mut db, mend, |db| model::create_keyspaces(db));
        history.created = machine.now();
        for number in 1..=count {
            match random.below(30) {
                0 => history.attempt(machine, &mut db, mend, Database::flush),
                1 => history.attempt(machine, &mut db, mend, Database::compact),
                2 => {
                    let budget = Budget::bytes(1 << random.below(16));
                    history.attempt(machine, &mut db, mend, |db| db.maintain(budget).map(drop));
                }
                3 => {
                    history.retry(machine, &mut db, mend, |db| db.sync());
                    history.synced.push(Promise { moment: machine.now(), commits: number - 1 });
                }
                4 => {
                    // Closed, or as good as killed.
                    if random.one_in(2)
                        && let Err(error) = db.close()
                    {
                        history.failed(machine, &error, mend);
                    }
                    drop(db);
                    db = history.reopen(machine, mend);
                    ids = history.retry(machine, &mut db, mend, |db| model::create_keyspaces(db));
                }
                _ => {}
            }
            let commit = Commit::random(number as u64, random);
            let durability = [Durability::None, Durability::Buffered, Durability::Sync][random.below(3)];
            history.commits.push(commit.clone());
            history.begun.push(machine.now());
            history.retry(machine, &mut db, mend, |db| db.write(commit.batch(ids), durability));
            history.acknowledged = number;
            let promise = Promise { moment: machine.now(), commits: number };
            if durability >= Durability::Buffered {
                history.buffered.push(promise);
            }
            if durability >= Durability::Sync {
                history.synced.push(promise);
            }
        }
        Model::after(&history.commits).check(&db, None, &format!("seed {seed}, at the end of the run"));
        history
    }

    fn reopen(&mut self, machine: &Machine, mend: Mend<'_>) -> Guest {
        loop {
            match machine.open_guest() {
                Ok(db) => return db,
                Err(error) => self.failed(machine, &error, mend),
            }
        }
    }

    fn failed(&mut self, machine: &Machine, error: &Error, mend: Mend<'_>) {
        self.failures += 1;
        assert!(self.failures < 10_000, "no end of failures: {error}");
        mend(machine, error);
    }

    /// Calls until it succeeds, and opens the database again where it has to be.
    fn retry<T>(
        &mut self,
        machine: &Machine,
        db: &mut Guest,
        mend: Mend<'_>,
        call: impl Fn(&Guest) -> Result<T>,
    ) -> T {
        loop {
            match call(db) {
                Ok(answer) => return answer,
                Err(error) => self.after_failure(machine, db, &error, mend),
            }
        }
    }

    /// Calls once; what fails here may.
    fn attempt(
        &mut self,
        machine: &Machine,
        db: &mut Guest,
        mend: Mend<'_>,
        call: impl Fn(&Guest) -> Result<()>,
    ) {
        if let Err(error) = call(db) {
            self.after_failure(machine, db, &error, mend);
        }
    }

    /// Reads go on, whatever failed; and if writes do not, a new instance does.
    fn after_failure(&mut self, machine: &Machine, db: &mut Guest, error: &Error, mend: Mend<'_>) {
        self.failed(machine, error, mend);
        let found = model::last_commit(db).unwrap() as usize;
        let possible = self.acknowledged..=self.commits.len();
        assert!(possible.contains(&found), "{found} commits of {possible:?} after {error}");
        Model::after(&self.commits[..found]).check(db, None, &format!("after {error}"));
        if matches!(error, Error::Poisoned(_)) {
            *db = self.reopen(machine, mend);
        }
    }

    /// How many commits may be found after a crash at `moment`.
    pub fn range(&self, moment: usize, power_lost: bool) -> (usize, usize) {
        let promises = if power_lost { &self.synced } else { &self.buffered };
        let kept = promises.iter().filter(|promise| promise.moment <= moment);
        let begun = self.begun.iter().filter(|begun| **begun < moment).count();
        (kept.map(|promise| promise.commits).max().unwrap_or(0), begun)
    }

    /// Opens the database that a loss of power, or else a kill, at `moment`
    /// left on the disk of `machine`, checks it, goes on writing, and loses
    /// power twice more: during that recovery, and after it.
    ///
    /// # Panics
    /// Where a promise is broken; `context` is part of the message.
    pub fn check(&self, machine: &Machine, moment: usize, power_lost: bool, context: &str) {
        let before = machine.now();
        let (promised, begun) = self.range(moment, power_lost);
        let db = machine.open_guest().unwrap_or_else(|error| panic!("{context}: {error}"));
        let found = self.check_contents(&db, context);
        assert!(found >= promised, "{context}: {promised} commits were acknowledged, {found} are there");
        assert!(found <= begun, "{context}: {begun} commits had begun, {found} are there");
        if moment >= self.created {
            let names: Vec<_> = db.keyspaces().unwrap().into_iter().map(|(name, _)| name).collect();
            assert_eq!(names, model::KEYSPACES, "{context}");
        }
        let report = db.verify().unwrap_or_else(|error| panic!("{context}: {error}"));
        assert_eq!(report.problems, [], "{context}");

        let random = &mut Random::new(moment as u64);
        let recovered = machine.now();
        let during = before + random.below(recovered - before + 1);
        let context_again = format!("{context}, no power at {during} of {before}..={recovered} in recovery");
        let reopened = self.after_power_loss(machine, during, &mut Loss::Some(random), &context_again);
        let again = self.check_contents(&reopened, &context_again);
        let promised = if power_lost { found } else { self.range(moment, true).0 };
        assert!(again >= promised, "{context_again}: {again} commits are there, and {promised} had to be");
        assert!(again <= found, "{context_again}: {again} commits are there, and {found} were");

        let ids = model::create_keyspaces(&db).unwrap();
        let next = Commit::random(found as u64 + 1, random);
        let written = db.write(next.batch(ids), Durability::Sync);
        written.unwrap_or_else(|error| panic!("{context}: {error}"));
        let context = format!("{context}, no power after the next commit");
        let reopened = self.after_power_loss(machine, machine.now(), &mut Loss::Everything, &context);
        let mut model = Model::after(&self.commits[..found]);
        model.apply(&next);
        model.check(&reopened, None, &context);
    }

    fn after_power_loss(&self, machine: &Machine, now: usize, loss: &mut Loss<'_>, context: &str) -> Guest {
        let machine = machine.after_power_loss(now, loss);
        machine.open_guest().unwrap_or_else(|error| panic!("{context}: {error}"))
    }

    /// Compares everything with the commits up to the last one found; answers
    /// how many those are.
    pub fn check_contents(&self, db: &Guest, context: &str) -> usize {
        let found = model::last_commit(db).unwrap_or_else(|error| panic!("{context}: {error}")) as usize;
        assert!(found <= self.commits.len(), "{context}: commit {found} was never made");
        Model::after(&self.commits[..found]).check(db, None, context);
        found
    }
}
