//! Crashes at every moment of every workload.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use duramen::storage::fault::{Crash, Mutant};

use crate::check::{Checker, Moment, Tally};
use crate::random::{Random, seed_shift};
use crate::run::Run;
use crate::workload::{self, Make, Workload};

/// How thorough a suite is.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Images of each moment with some changes lost.
    pub some: usize,
    /// Images of each moment with a torn write.
    pub torn: usize,
    /// Every so many moments all of the recovery is crashed at too; 0 for never.
    pub recoveries_every: usize,
}

impl Effort {
    /// That of every run of the tests.
    const NORMAL: Effort = Effort { some: 3, torn: 1, recoveries_every: 20 };
    /// For workloads that are all about recovery.
    const RECOVERY: Effort = Effort { recoveries_every: 2, ..Effort::NORMAL };
    /// Enough to find most of what is wrong.
    pub const LIGHT: Effort = Effort { some: 2, torn: 0, recoveries_every: 0 };
    /// For what that has not found.
    pub const HEAVY: Effort = Effort { some: 6, torn: 1, recoveries_every: 3 };
}

/// Crashes a workload at all its moments.
pub fn crash_everywhere(
    workload: &Workload,
    seed: u64,
    mutant: Option<Mutant>,
    effort: Effort,
) -> Result<Tally, String> {
    let run = Run::of(workload, seed, mutant)?;
    let mut checker = Checker { run: &run, random: Random::new(seed ^ 0x5eed), tally: Tally::default() };
    let mut seen = HashSet::new();
    let mut replay = run.storage.replay();
    replay.advance_to(run.loud_from);
    loop {
        let at = replay.moment();
        let mut crashes = vec![Crash::Kill, Crash::LoseAll];
        crashes.extend((0..effort.some).map(|_| Crash::LoseSome(checker.random.bits())));
        crashes.extend((0..effort.torn).map(|_| Crash::TearLast(checker.random.bits())));
        for (index, crash) in crashes.into_iter().enumerate() {
            let image = replay.crash(crash);
            let (min, max) = run.range(at, crash != Crash::Kill);
            if !seen.insert((image.fingerprint(), min, max)) {
                continue;
            }
            checker.tally.count(crash);
            let moment = Moment { at, min, max };
            let every = effort.recoveries_every;
            let outcome = if every > 0 && at % every == index {
                checker.check_recovery_everywhere(&image, moment, crash != Crash::Kill)
            } else {
                let depth = [3, 0, 1, 0][at % 4];
                checker.check(&image, moment, crash != Crash::Kill, depth)
            };
            outcome.map_err(|what| {
                let name = workload.name;
                let change = replay.last_change();
                format!("{name}, seed {seed}, {crash:?} at {at}, after {change}: {what}")
            })?;
        }
        if !replay.advance() {
            return Ok(checker.tally);
        }
    }
}

fn crash_all(make: Make, seeds: u64, effort: Effort, images_min: u64) -> Tally {
    let start = Instant::now();
    let mut tally = Tally::default();
    for seed in 0..seeds {
        let seed = seed + seed_shift();
        match crash_everywhere(&make(seed), seed, None, effort) {
            Ok(found) => tally.add(&found),
            Err(what) => panic!("{what}"),
        }
    }
    println!("{}: {tally}, {:.1} s", make(0).name, start.elapsed().as_secs_f64());
    assert!(tally.images() >= images_min, "{} images are fewer than {images_min}", tally.images());
    tally
}

#[test]
fn commits_survive() {
    crash_all(workload::commits, 3, Effort::NORMAL, 2000);
}

#[test]
fn rotation_survives() {
    crash_all(workload::rotation, 1, Effort::NORMAL, 4000);
}

#[test]
fn wals_made_ahead_survive() {
    crash_all(workload::ahead, 2, Effort::NORMAL, 4000);
}

#[test]
fn flushes_survive() {
    crash_all(workload::flush, 2, Effort::NORMAL, 4000);
}

#[test]
fn compactions_survive() {
    crash_all(workload::compaction, 1, Effort::NORMAL, 4000);
}

#[test]
fn recoveries_survive() {
    crash_all(workload::recovery, 2, Effort::RECOVERY, 4000);
}

#[test]
fn reopening_survives() {
    crash_all(workload::reopening, 2, Effort::NORMAL, 4000);
}

#[test]
fn keyspaces_survive() {
    crash_all(workload::keyspaces, 2, Effort::NORMAL, 2000);
}

#[test]
fn short_writes_survive() {
    crash_all(workload::short_writes, 2, Effort::NORMAL, 2000);
}

#[test]
fn every_kind_of_operation_survives() {
    crash_all(workload::operations, 1, Effort::NORMAL, 4000);
}

#[test]
fn keyspaces_that_come_and_go_survive() {
    let tally = crash_all(workload::passing, 1, Effort::NORMAL, 4000);
    assert!(tally.ahead > 500, "a drop outlives the commits before it in {} images only", tally.ahead);
}

#[test]
fn everything_survives() {
    crash_all(workload::mixed, 1, Effort::NORMAL, 4000);
}

#[test]
fn everything_survives_where_directories_cannot_be_synced() {
    crash_all(workload::names_in_order, 1, Effort::NORMAL, 3000);
}

#[test]
fn manifest_rollover_survives() {
    let run = Run::of(&workload::manifest_rollover(0), 0, None).unwrap();
    let mut replay = run.storage.replay();
    replay.advance_to(run.loud_from);
    let mut manifests = 0;
    while replay.advance() {
        manifests += u64::from(replay.last_change().starts_with("create manifest/"));
    }
    assert_eq!(manifests, 2, "one begins as the one before is long, one as the database opens again");
    crash_all(workload::manifest_rollover, 1, Effort::NORMAL, 2000);
}

/// Where nothing of a kind is changed, no crash can come after it.
#[test]
fn workloads_make_changes_of_every_kind() {
    let mut missing = vec!["create_dir sst/", "create CURRENT", "write CURRENT 4096 bytes", "sync CURRENT"];
    missing.extend(["create wal/", "write wal/", "truncate wal/", "sync wal/", "remove wal/"]);
    missing.extend(["create sst/1/", "write sst/1/", "sync sst/1/", "remove sst/1/"]);
    missing.extend(["create sst/2/", "write sst/2/", "sync sst/2/", "remove sst/2/"]);
    missing.extend(["create manifest/", "write manifest/", "sync manifest/", "remove manifest/"]);
    missing.extend(["sync_dir .", "sync_dir wal", "sync_dir manifest", "sync_dir sst/1", "sync_dir sst/2"]);
    for make in workload::ALL {
        let mut replay = Run::of(&make(seed_shift()), seed_shift(), None).unwrap().storage.replay();
        while replay.advance() {
            let change = replay.last_change();
            missing.retain(|kind| !change.starts_with(kind));
        }
    }
    assert_eq!(missing, [""; 0]);
}

/// Goes on for as long as `DURAMEN_SOAK_SECONDS` says.
#[test]
fn soak() {
    let seconds = std::env::var("DURAMEN_SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut tally = Tally::default();
    let mut seed = 1000 + seed_shift();
    while Instant::now() < end {
        for make in workload::ALL {
            match crash_everywhere(&make(seed), seed, None, Effort::NORMAL) {
                Ok(found) => tally.add(&found),
                Err(what) => panic!("{what}"),
            }
            if Instant::now() > end {
                break;
            }
        }
        seed += 1;
    }
    if seconds > 0 {
        println!("soak, seeds {}..={seed}: {tally}", 1000 + seed_shift());
    }
}
