//! The judgement of what a crash left.

use duramen::storage::fault::{Crash, FaultStorage, Phase, Replay};
use duramen::{Database, Db, Durability};

use crate::model::{self, Commit, LATE_MS, Model, NOW_MS, PASSING, PASSING_TTLS_MS, Passing, SOON_MS};
use crate::random::Random;
use crate::run::{Run, open, options_at, write};

/// How many images were checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Images of a run, by kind: killed, all lost, some lost, torn.
    pub first: [u64; 4],
    /// Images of a recovery of those, and of recoveries of recoveries.
    pub recovery: u64,
    /// Images after a further commit.
    pub written: u64,
    /// Images, of those, to which a keyspace has come or gone for good, and not all
    /// commits before that are there.
    pub ahead: u64,
}

impl Tally {
    pub fn images(&self) -> u64 {
        self.first.iter().sum::<u64>() + self.recovery + self.written
    }

    pub fn count(&mut self, crash: Crash) {
        let kind = match crash {
            Crash::Kill => 0,
            Crash::LoseAll => 1,
            Crash::LoseSome(_) => 2,
            Crash::TearLast(_) => 3,
        };
        self.first[kind] += 1;
    }

    pub fn add(&mut self, other: &Tally) {
        for (sum, count) in self.first.iter_mut().zip(other.first) {
            *sum += count;
        }
        self.recovery += other.recovery;
        self.written += other.written;
        self.ahead += other.ahead;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [killed, all, some, torn] = self.first;
        write!(
            f,
            "{} images: {killed} killed, {all} all lost, {some} some lost, {torn} torn, {} of recoveries, {} written to, {} ahead",
            self.images(),
            self.recovery,
            self.written,
            self.ahead
        )
    }
}

/// A crash of a run: where, and which commits may be found.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Changes before the crash.
    pub at: usize,
    /// Commits that must be found.
    pub min: usize,
    /// Commits that may be found.
    pub max: usize,
}

/// A further crash of any kind but one.
fn any_loss(random: &mut Random) -> Crash {
    match random.below(4) {
        0 => Crash::LoseAll,
        1 => Crash::TearLast(random.bits()),
        _ => Crash::LoseSome(random.bits()),
    }
}

/// Checks what crashes leave of one run.
pub struct Checker<'a> {
    pub run: &'a Run,
    pub random: Random,
    pub tally: Tally,
}

impl Checker<'_> {
    /// When to look: what was to expire may have.
    fn any_time(&mut self) -> u64 {
        match self.random.below(4) {
            0 if self.run.every_kind => LATE_MS,
            1 if self.run.every_kind => SOON_MS,
            _ => NOW_MS,
        }
    }

    fn open(&self, image: &FaultStorage, now_ms: u64) -> duramen::Result<Db> {
        open(image, &options_at(&self.run.options, now_ms))
    }

    /// Opens `image`, which a crash at `moment` left; checks it; crashes `depth`
    /// more times during recovery; writes on, and loses power again.
    ///
    /// After a kill `safe` is false: what is found may be lost by the next loss
    /// of power, down to what was promised to survive one.
    pub fn check(
        &mut self,
        image: &FaultStorage,
        moment: Moment,
        safe: bool,
        depth: usize,
    ) -> Result<(), String> {
        image.set_phase(Phase::Other);
        let now_ms = self.any_time();
        let db = self.open(image, now_ms).map_err(|error| format!("does not open: {error}"))?;
        let found = self.check_contents(&db, moment, now_ms)?;
        let moment = Moment { max: found, ..moment };
        if depth > 0 {
            let at = self.random.below(image.moment() + 1);
            self.check_recovery(image.replay(), at, moment, safe, depth)?;
        }
        self.check_on(image, &db, moment, now_ms)
    }

    /// Everything a reader sees is some prefix within bounds.
    fn check_contents(&mut self, db: &dyn Database, moment: Moment, now_ms: u64) -> Result<usize, String> {
        let text = |error: duramen::Error| error.to_string();
        let found = model::last_commit(db).map_err(text)?;
        let Moment { at, min, max } = moment;
        if found < min {
            return Err(format!("{min} commits had to survive, {found} are there"));
        }
        if found > max {
            return Err(format!("{max} commits had begun, {found} are there"));
        }
        let model = &self.run.models[found];
        let checked = model.check(db, now_ms).and_then(|()| model.check_passing(db, now_ms));
        checked.map_err(|what| format!("after {found} commits: {what}"))?;
        let allowed = self.run.passing_at(at);
        allowed.check(db.find_keyspace(PASSING).map_err(text)?)?;
        self.tally.ahead += u64::from(found < allowed.commits);
        for (name, id) in self.run.keyspaces_at(at) {
            if db.find_keyspace(name).map_err(text)? != Some(id) {
                return Err(format!("keyspace {name} is gone"));
            }
        }
        let report = db.verify().map_err(text)?;
        match report.problems.first() {
            Some(problem) => Err(format!("verify: {problem:?}")),
            None => Ok(found),
        }
    }

    /// Crashes at `at` of the recovery that `replay` has recorded, which found
    /// `moment.max` commits.
    fn check_recovery(
        &mut self,
        mut replay: Replay,
        at: usize,
        moment: Moment,
        safe: bool,
        depth: usize,
    ) -> Result<(), String> {
        replay.advance_to(at);
        let kill = self.random.one_in(4);
        let crash = if kill { Crash::Kill } else { any_loss(&mut self.random) };
        let min = if safe || kill { moment.max } else { self.run.range(moment.at, true).0 };
        let image = replay.crash(crash);
        self.tally.recovery += 1;
        self.check(&image, Moment { min, ..moment }, safe || !kill, depth - 1)
            .map_err(|what| format!("{crash:?} in recovery after {}: {what}", replay.last_change()))
    }

    /// Like [`Checker::check`], and crashes at every change that recovery makes.
    pub fn check_recovery_everywhere(
        &mut self,
        image: &FaultStorage,
        moment: Moment,
        safe: bool,
    ) -> Result<(), String> {
        let now_ms = self.any_time();
        let db = self.open(image, now_ms).map_err(|error| format!("does not open: {error}"))?;
        let found = self.check_contents(&db, moment, now_ms)?;
        let moment = Moment { max: found, ..moment };
        let recovered = image.moment();
        for at in 0..=recovered {
            for _ in 0..2 {
                self.check_recovery(image.replay(), at, moment, safe, 2)?;
            }
        }
        self.check_on(image, &db, moment, now_ms)
    }

    /// What the image still takes.
    fn check_on(&mut self, image: &FaultStorage, db: &Db, moment: Moment, now_ms: u64) -> Result<(), String> {
        match self.run.every_kind && self.random.one_in(4) {
            true => self.check_passing(image, db, moment, now_ms),
            false => self.check_writing(image, db, moment.max, now_ms),
        }
    }

    /// The commit after those found.
    fn next_commit(&mut self, found: usize) -> Commit {
        let number = found as u64 + 1;
        match self.run.every_kind {
            false => Commit::random(number, &mut self.random),
            true => Commit::of_every_kind(number, &mut self.random),
        }
    }

    /// [`PASSING`], which is new unless it was found.
    fn create_passing(&mut self, db: &Db, moment: Moment) -> Result<Passing, String> {
        let found = db.find_keyspace(PASSING).map_err(|error| error.to_string())?;
        let ttl_ms = PASSING_TTLS_MS[self.random.below(PASSING_TTLS_MS.len())];
        let passing = model::create_passing(db, ttl_ms).map_err(|error| error.to_string())?;
        let id_max = self.run.passing_at(moment.at).id_max;
        match found.map_or(passing.id > id_max, |found| found == passing.id) {
            true => Ok(passing),
            false => Err(format!("{passing:?} was created over {found:?}, and {id_max:?} was given before")),
        }
    }

    /// A commit on top of what was found is there after a loss of power.
    fn check_writing(
        &mut self,
        image: &FaultStorage,
        db: &Db,
        found: usize,
        now_ms: u64,
    ) -> Result<(), String> {
        let text = |error: duramen::Error| format!("after recovery: {error}");
        let ids = model::create_keyspaces(db).map_err(text)?;
        let next = self.next_commit(found);
        image.set_phase(Phase::Acknowledge);
        write(db, &next, ids, None, Durability::Sync).map_err(text)?;
        if self.random.one_in(8) {
            image.set_phase(Phase::Flush);
            db.flush().map_err(text)?;
            image.set_phase(Phase::Compact);
            db.compact().map_err(text)?;
        }
        let mut model: Model = self.run.models[found].clone();
        model.apply(&next, None, now_ms);
        let loss = any_loss(&mut self.random);
        let crashed = image.crash(loss);
        self.tally.written += 1;
        let context = |what: String| format!("{loss:?} after the next commit: {what}");
        let db = self.open(&crashed, now_ms).map_err(|error| context(error.to_string()))?;
        model.check(&db, now_ms).map_err(context)
    }

    /// [`PASSING`] takes a commit that nobody syncs. Then either is lost without the
    /// other: with the keyspace there the commit, and with the keyspace gone for
    /// good the commit or nothing. What comes next has another id, and is empty.
    fn check_passing(
        &mut self,
        image: &FaultStorage,
        db: &Db,
        moment: Moment,
        now_ms: u64,
    ) -> Result<(), String> {
        let text = |error: duramen::Error| format!("after recovery: {error}");
        let ids = model::create_keyspaces(db).map_err(text)?;
        let passing = self.create_passing(db, moment)?;
        let found = moment.max;
        let next = self.next_commit(found);
        let mut after: Model = self.run.models[found].clone();
        after.apply(&next, Some(passing), now_ms);
        write(db, &next, ids, Some(passing.id), Durability::Buffered).map_err(text)?;
        after.check_passing(db, now_ms)?;
        let gone = self.random.one_in(2) && db.drop_keyspace(PASSING).map_err(text)?;
        let loss = any_loss(&mut self.random);
        let crashed = image.crash(loss);
        self.tally.written += 1;
        let context = |what: String| format!("{loss:?} after {passing:?}, gone: {gone}: {what}");
        let db = self.open(&crashed, now_ms).map_err(|error| context(error.to_string()))?;
        let last = model::last_commit(&db).map_err(text)?;
        let model = match last - found.min(last) {
            0 => &self.run.models[found],
            _ => &after,
        };
        self.tally.ahead += u64::from(last == found);
        model.check(&db, now_ms).and_then(|()| model.check_passing(&db, now_ms)).map_err(context)?;
        let there = db.find_keyspace(PASSING).map_err(text)?;
        if there != Some(passing.id).filter(|_| !gone) {
            return Err(context(format!("{PASSING} is {there:?}")));
        }
        let again = model::create_passing(&db, passing.ttl_ms).map_err(text)?.id;
        if gone && again <= passing.id {
            return Err(context(format!("{again:?} is given again")));
        }
        model.check_passing(&db, now_ms).map_err(context)
    }
}
