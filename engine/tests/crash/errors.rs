//! Each call of the storage fails, once and for good, in every way it can.
//!
//! Then the call of the database fails or does without; reads go on; what a
//! crash leaves is a prefix that keeps the promises; and once the cause is gone
//! the same call succeeds, after opening again where the database says so.

use std::time::Instant;

use duramen::storage::fault::{Crash, Fault, FaultKind, Operation};
use duramen::{Database, Durability, Error, WriteBatch};

use crate::check::{Checker, Moment, Tally};
use crate::random::{Random, seed_shift};
use crate::run::{Program, Run};
use crate::workload::{Step, Workload, sampler};

/// Failures of calls of the database that one fault may cause.
const FAILURES_MAX: usize = 8;

/// What the faults of one kind did.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    runs: u64,
    failures: u64,
    poisoned: u64,
    images: u64,
}

/// A run in which a call fails.
struct Trial {
    run: Run,
    fault: Fault,
    /// The fault has come to pass.
    fired: bool,
    random: Random,
    count: Count,
}

/// True if the engine must refuse writes after this call has failed: what is
/// durable is not known any more.
fn must_poison((operation, path): &(Operation, String)) -> bool {
    match operation {
        Operation::SyncData => path.starts_with("wal/") || path.starts_with("manifest/"),
        Operation::Overwrite => true,
        _ => false,
    }
}

/// True if the engine may refuse writes after this call has failed. For lack of
/// space in a WAL or an SSTable it may not.
fn may_poison((operation, path): &(Operation, String)) -> bool {
    let wal = path.starts_with("wal/") && matches!(operation, Operation::SyncData | Operation::Truncate);
    wal || path.starts_with("manifest") || path == "CURRENT"
}

impl Trial {
    /// Runs the workload; `None` if the fault never came to pass.
    fn run(workload: &Workload, seed: u64, fault: Fault) -> Result<Option<Count>, String> {
        let mut trial = Trial {
            run: Run::new(workload, seed, None),
            fault,
            fired: false,
            random: Random::new(seed ^ fault.skip),
            count: Count { runs: 1, ..Count::default() },
        };
        trial.run.storage.inject(fault);
        let mut program = match trial.run.open() {
            Ok(program) => program,
            Err(error) => {
                trial.after_failed_open(&error)?;
                trial.run.open().map_err(|error| format!("open, once the fault was gone: {error}"))?
            }
        };
        for step in &workload.steps {
            trial.run.begin(step);
            trial.step(&mut program, step).map_err(|what| format!("{step:?}: {what}"))?;
        }
        trial.run.storage.clear_faults();
        let report = program.db.verify().map_err(|error| error.to_string())?;
        if let Some(problem) = report.problems.first() {
            return Err(format!("verify at the end: {problem:?}"));
        }
        trial.run.check_now(&program.db).map_err(|what| format!("at the end: {what}"))?;
        trial.crash()?;
        Ok(trial.fired.then_some(trial.count))
    }

    fn after_failed_open(&mut self, error: &Error) -> Result<(), String> {
        self.fired = true;
        self.count.failures += 1;
        if self.run.storage.take_fired().is_empty() {
            return Err(format!("open failed without a fault: {error}"));
        }
        self.crash()?;
        if self.all_fail() && self.run.open().is_ok() {
            return Err("open succeeded though every call fails".into());
        }
        self.clear();
        Ok(())
    }

    fn all_fail(&self) -> bool {
        self.fault.forever && self.fault.kind == FaultKind::Io
    }

    fn clear(&mut self) {
        self.run.storage.clear_faults();
        self.run.storage.take_fired();
    }

    /// Takes a step until it has succeeded.
    fn step(&mut self, program: &mut Program, step: &Step) -> Result<(), String> {
        let reopens = matches!(step, Step::Close | Step::Kill);
        for attempt in 0..FAILURES_MAX {
            let outcome = self.run.step(program, step);
            let fired = self.run.storage.take_fired();
            if let Err(error) = &outcome {
                self.count.failures += 1;
                if fired.is_empty() {
                    return Err(format!("failed without a fault: {error}"));
                }
            }
            if !fired.is_empty() {
                self.fired = true;
                // Some failures are dealt with out of sight.
                self.after_fault(program, &fired, reopens, attempt)
                    .map_err(|what| format!("{what}, after {outcome:?} for {fired:?}"))?;
            }
            if outcome.is_ok() {
                return Ok(());
            }
        }
        Err("no end of failures".into())
    }

    fn after_fault(
        &mut self,
        program: &mut Program,
        fired: &[(Operation, String)],
        reopens: bool,
        attempt: usize,
    ) -> Result<(), String> {
        self.crash()?;
        if reopens {
            // There is no database to look at.
            self.clear();
            return Ok(());
        }
        if !self.all_fail() {
            self.run.check_now(&program.db).map_err(|what| format!("reads: {what}"))?;
        }
        let refused = |program: &Program| {
            let nothing = program.db.write(WriteBatch::new(), Durability::Buffered);
            matches!(nothing, Err(Error::Poisoned(_)))
        };
        let poisoned = refused(program);
        // To ask brings on background work, which may fail like anything else.
        let asked = self.run.storage.take_fired();
        let fired = [fired, &asked].concat();
        if !poisoned && fired.iter().any(must_poison) {
            return Err("writes go on".into());
        }
        if poisoned && !fired.iter().any(may_poison) {
            return Err("writes are refused".into());
        }
        if self.fault.forever && attempt == 0 && !poisoned {
            // Once more with the fault still there.
            return Ok(());
        }
        self.clear();
        self.run.check_now(&program.db).map_err(|what| format!("reads: {what}"))?;
        if poisoned {
            self.count.poisoned += 1;
            if !refused(program) {
                return Err("writes go on without opening again".into());
            }
            self.run.reopen(program).map_err(|error| format!("opening again: {error}"))?;
        }
        Ok(())
    }

    /// Checks what a crash now would leave.
    fn crash(&mut self) -> Result<(), String> {
        let at = self.run.storage.moment();
        let seed = self.random.bits();
        let mut checker = Checker { run: &self.run, random: Random::new(seed), tally: Tally::default() };
        // One kind of crash after the other, as calls fail.
        let crash = [Crash::Kill, Crash::LoseAll, Crash::LoseSome(seed)][self.random.below(3)];
        let (min, max) = self.run.range(at, crash != Crash::Kill);
        let image = self.run.storage.crash(crash);
        checker.tally.count(crash);
        checker
            .check(&image, Moment { at, min, max }, crash != Crash::Kill, 1)
            .map_err(|what| format!("{crash:?} now: {what}"))?;
        self.count.images += checker.tally.images();
        Ok(())
    }
}

/// Lets every call fail that can fail so.
fn fail_everywhere(kind: FaultKind, forever: bool) {
    let start = Instant::now();
    let seed = seed_shift();
    let workload = sampler(seed);
    let mut sum = Count::default();
    for skip in 0.. {
        let fault = Fault { kind, skip, forever, only: None };
        match Trial::run(&workload, seed, fault) {
            Ok(Some(count)) => {
                sum.runs += count.runs;
                sum.failures += count.failures;
                sum.poisoned += count.poisoned;
                sum.images += count.images;
            }
            Ok(None) => break,
            Err(what) => panic!("seed {seed}, {fault:?}: {what}"),
        }
    }
    let Count { runs, failures, poisoned, images } = sum;
    let often = if forever { "for good" } else { "once" };
    println!(
        "{kind:?} {often}: {runs} calls, {failures} failures told, {poisoned} poisoned, {images} images, {:.1} s",
        start.elapsed().as_secs_f64()
    );
    assert!(runs > 50 && failures > 0, "the workload has too few calls: {sum:?}");
}

#[test]
fn io_errors_once() {
    fail_everywhere(FaultKind::Io, false);
}

#[test]
fn io_errors_for_good() {
    fail_everywhere(FaultKind::Io, true);
}

#[test]
fn no_space_once() {
    fail_everywhere(FaultKind::NoSpace, false);
}

#[test]
fn no_space_for_good() {
    fail_everywhere(FaultKind::NoSpace, true);
}

#[test]
fn short_writes_once() {
    fail_everywhere(FaultKind::ShortWrite, false);
}

#[test]
fn short_writes_for_good() {
    fail_everywhere(FaultKind::ShortWrite, true);
}

#[test]
fn zero_writes_once() {
    fail_everywhere(FaultKind::ZeroWrite, false);
}

#[test]
fn zero_writes_for_good() {
    fail_everywhere(FaultKind::ZeroWrite, true);
}
