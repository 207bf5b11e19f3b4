//! A bit flips in a file of a database that was closed well. It is told, or it
//! does no harm; never is an answer wrong.

use duramen::storage::fault::{Crash, FaultStorage};
use duramen::{Database, Durability, Error};

use crate::model::Commit;
use crate::random::{Random, seed_shift};
use crate::run::{Run, open};
use crate::workload::{Step, sampler};

/// Every so many bytes a bit flips: all bytes would take a minute.
const STRIDE: u64 = 3;

/// Bytes of the longest frame that ends a log.
const LAST_FRAME_BYTES: u64 = 41;

/// What a flipped bit did.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// The database does not open.
    Refused,
    /// It opens, and reads or `verify` tell of the damage.
    Told,
    /// Nothing depends on the bit.
    Harmless,
}

fn is_told(error: &Error) -> bool {
    matches!(error, Error::Corruption { .. } | Error::Unsupported(_))
}

fn flip(run: &Run, storage: &FaultStorage) -> Result<Outcome, String> {
    let db = match open(storage, &run.options) {
        Ok(db) => db,
        Err(error) if is_told(&error) => return Ok(Outcome::Refused),
        Err(error) => return Err(format!("open: {error}")),
    };
    let report = match db.verify() {
        Ok(report) => report,
        Err(error) => return Err(format!("verify: {error}")),
    };
    match run.check_now(&db) {
        Ok(()) if report.problems.is_empty() => Ok(Outcome::Harmless),
        Ok(()) => Ok(Outcome::Told),
        // The model's words for an error of the database.
        Err(what) if what.contains("corruption in") && !report.problems.is_empty() => Ok(Outcome::Told),
        Err(what) => Err(format!("{what}, and verify found {:?}", report.problems)),
    }
}

#[test]
fn no_flipped_bit_changes_an_answer() {
    let seed = seed_shift();
    let mut workload = sampler(seed);
    // The last session writes too.
    let commits =
        workload.steps.iter().filter(|step| matches!(step, Step::Commit(..) | Step::Conflict(..))).count()
            as u64;
    let mut random = Random::new(seed);
    for number in commits + 1..commits + 4 {
        let commit = Commit::random(number, &mut random);
        workload.steps.push(Step::Commit(Durability::Buffered, commit));
    }
    let mut run = Run::new(&workload, seed, None);
    let mut program = run.open().unwrap();
    for step in &workload.steps {
        run.begin(step);
        run.step(&mut program, step).unwrap();
    }
    program.db.close().unwrap();
    drop(program);
    for path in run.storage.files() {
        let bytes = run.storage.read(&path).unwrap().len() as u64;
        // The other slot of CURRENT and the padding. The seal of the last WAL,
        // and the mark of the clean close: what ends a log looks torn without.
        let idle = match path.as_str() {
            "CURRENT" => 0..bytes,
            path if path.starts_with("sst/") => bytes..bytes,
            _ => bytes.saturating_sub(LAST_FRAME_BYTES)..bytes,
        };
        let mut counts = [0; 3];
        for offset in (seed % STRIDE..bytes).step_by(STRIDE as usize) {
            // Files that were removed may be back.
            let crash = if random.one_in(2) { Crash::LoseAll } else { Crash::Kill };
            let image = run.storage.crash(crash);
            let bit = random.below(8) as u8;
            image.rot(&path, offset, bit);
            let context = format!("seed {seed}, bit {bit} of byte {offset} of {path}");
            match flip(&run, &image) {
                Ok(Outcome::Harmless) if !idle.contains(&offset) => panic!("{context}: not noticed"),
                Ok(outcome) => counts[outcome as usize] += 1,
                Err(what) => panic!("{context}: {what}"),
            }
        }
        let [refused, told, harmless] = counts;
        println!("{path}: {bytes} bytes, {refused} refused, {told} told, {harmless} harmless");
        assert!(refused + told > 0, "{path}");
    }
}
