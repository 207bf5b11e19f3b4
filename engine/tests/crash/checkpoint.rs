//! Goal: whatever interrupts a checkpoint, the target is the whole database or is
//! refused, and the source keeps its promises. Method: the target, then the
//! source, is a storage that remembers its changes; every moment is crashed at,
//! and every call fails once.

use std::sync::Arc;

use duramen::checkpoint::{self, STAGING_DIR};
use duramen::storage::Storage;
use duramen::storage::fault::{Crash, Fault, FaultKind, FaultStorage, Names};
use duramen::storage::fs::FsStorage;
use duramen::storage::memory::MemoryStorage;
use duramen::{CheckpointReport, Database, Db, Durability, Error, Options, Result, WriteBatch};

use crate::random::seed_shift;
use crate::run::{self, open};
use crate::workload;

const COMMITS: u64 = 40;

fn options() -> Options {
    run::options(&workload::flush(0))
}

fn reading() -> Options {
    Options { create_if_missing: false, ..options() }
}

/// Commits `number`, in two keyspaces.
fn commit(db: &Db, number: u64) -> Result<()> {
    let mut batch = WriteBatch::new();
    for name in ["first", "second"] {
        let id = db.create_keyspace(name)?;
        batch.put(id, &number.to_be_bytes(), &[number as u8; 40]);
    }
    db.write(batch, Durability::Sync)
}

fn fill(db: &Db) {
    for number in 1..=COMMITS {
        commit(db, number).unwrap();
        match number {
            15 => db.compact().unwrap(),
            30 => db.flush().unwrap(),
            _ => {}
        }
    }
}

/// How many commits are there; they must be the first ones, whole.
fn count(db: &Db) -> u64 {
    let report = db.verify().unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    let mut counts = Vec::new();
    for name in ["first", "second"] {
        let Some(id) = db.find_keyspace(name).unwrap() else {
            counts.push(0);
            continue;
        };
        let there = |number: &u64| db.get(id, &number.to_be_bytes(), None).unwrap().is_some();
        let first = (1..=2 * COMMITS).take_while(there).count() as u64;
        assert_eq!((1..=2 * COMMITS).filter(there).count() as u64, first, "a gap");
        counts.push(first);
    }
    assert_eq!(counts[0], counts[1], "half a commit");
    counts[0]
}

fn crashes(moment: usize) -> [Crash; 5] {
    let seed = moment as u64 * 7 + seed_shift();
    [Crash::Kill, Crash::LoseAll, Crash::LoseSome(seed), Crash::LoseSome(seed + 1), Crash::TearLast(seed)]
}

/// Runs `test` with both ways to a checkpoint of a filled database: made where it
/// is wanted, and brought there as out of a sandbox.
fn both_ways(test: impl Fn(&dyn Fn(Arc<dyn Storage>) -> Result<CheckpointReport>)) {
    let db = Db::open_with(Arc::new(MemoryStorage::new()), options()).unwrap();
    fill(&db);
    test(&|target| db.checkpoint_to(target));
    let directory = tempfile::tempdir().unwrap();
    let made = db.checkpoint(directory.path().join(STAGING_DIR)).unwrap();
    let database = Arc::new(FsStorage::new(directory.path()));
    test(&|target| checkpoint::deliver(database.clone(), &*target, || Ok(made)));
}

#[test]
fn a_target_is_whole_or_refused_after_a_crash_at_any_moment() {
    both_ways(whole_or_refused);
}

fn whole_or_refused(make: &dyn Fn(Arc<dyn Storage>) -> Result<CheckpointReport>) {
    for names in [Names::ByDirectory, Names::InOrder] {
        let target = FaultStorage::with_names(seed_shift(), names);
        make(Arc::new(target.clone())).unwrap();
        let (mut whole, mut refused) = (0, 0);
        let mut replay = target.replay();
        loop {
            for crash in crashes(replay.moment()) {
                let image = replay.crash(crash);
                let whence = || format!("{crash:?} at {}, after {}", replay.moment(), replay.last_change());
                let before = image.files();
                match open(&image, &reading()) {
                    Ok(found) => {
                        whole += 1;
                        assert_eq!(count(&found), COMMITS, "{}", whence());
                        continue;
                    }
                    Err(Error::InvalidArgument(_)) => refused += 1,
                    Err(error) => panic!("{}: {error}", whence()),
                }
                assert_eq!(image.files(), before, "{}", whence());
                // Nor is it mistaken for nothing, once there is anything.
                if !before.is_empty() {
                    assert!(open(&image, &options()).is_err(), "{}", whence());
                }
                make(Arc::new(image.clone())).unwrap();
                // It was durable when it was done.
                let again = open(&image.crash(Crash::LoseAll), &reading()).unwrap();
                assert_eq!(count(&again), COMMITS, "{}", whence());
            }
            if !replay.advance() {
                break;
            }
        }
        assert!(whole >= 5 && refused > 100, "{whole} whole, {refused} refused");
    }
}

#[test]
fn every_call_of_the_target_fails_once() {
    both_ways(each_call_fails);
}

fn each_call_fails(make: &dyn Fn(Arc<dyn Storage>) -> Result<CheckpointReport>) {
    for kind in FaultKind::ALL {
        let mut failed = 0;
        for skip in 0.. {
            let target = FaultStorage::new(skip);
            target.inject(Fault { kind, skip, forever: false, only: None });
            let outcome = make(Arc::new(target.clone()));
            if target.take_fired().is_empty() {
                outcome.unwrap();
                break;
            }
            target.clear_faults();
            match (outcome, open(&target, &reading())) {
                (_, Ok(found)) => assert_eq!(count(&found), COMMITS),
                (Err(_), Err(Error::InvalidArgument(_))) => {
                    failed += 1;
                    make(Arc::new(target.clone())).unwrap();
                    assert_eq!(count(&open(&target, &reading()).unwrap()), COMMITS);
                }
                (outcome, Err(error)) => panic!("{kind:?} of call {skip}: {outcome:?}, then {error}"),
            }
        }
        assert!(failed > 5, "{kind:?}: {failed}");
    }
}

#[test]
fn a_source_keeps_its_promises_and_its_use() {
    let source = FaultStorage::new(seed_shift());
    let db = open(&source, &options()).unwrap();
    let mut promises = Vec::new();
    for number in 1..=COMMITS {
        commit(&db, number).unwrap();
        promises.push((source.moment(), number));
        if number % 8 == 0 {
            db.checkpoint_to(Arc::new(MemoryStorage::new())).unwrap();
        }
        if number == 20 {
            db.flush().unwrap();
        }
    }
    let mut replay = source.replay();
    while replay.advance() {
        for crash in crashes(replay.moment()) {
            let kept =
                promises.iter().filter(|(moment, _)| *moment <= replay.moment()).map(|(_, n)| *n).max();
            let image = replay.crash(crash);
            let found = count(&open(&image, &options()).unwrap());
            let kept = kept.unwrap_or(0);
            assert!(found == kept || found == kept + 1, "{found} of {kept} after {}", replay.last_change());
        }
    }

    // A source that fails once can go on, or says that it cannot.
    let mut failed = 0;
    for skip in 0.. {
        let source = FaultStorage::new(skip);
        let db = open(&source, &options()).unwrap();
        fill(&db);
        source.inject(Fault { kind: FaultKind::Io, skip, forever: false, only: None });
        let target = MemoryStorage::new();
        let outcome = db.checkpoint_to(Arc::new(target.clone()));
        if source.take_fired().is_empty() {
            break;
        }
        failed += u64::from(outcome.is_err());
        source.clear_faults();
        match commit(&db, COMMITS + 1) {
            Ok(()) => {
                db.checkpoint_to(Arc::new(MemoryStorage::new())).unwrap();
                db.flush().unwrap();
                assert_eq!(count(&db), COMMITS + 1);
            }
            Err(Error::Poisoned(_)) => {}
            Err(error) => panic!("call {skip}: {error}"),
        }
    }
    assert!(failed > 5);
}
