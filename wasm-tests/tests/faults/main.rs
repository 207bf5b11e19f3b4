//! Goal: the shipped core module keeps its promises on a disk that does not:
//! one that transfers little at a time, fills up, fails to sync, or loses power.
//! Method: the module runs under wasi-common over a directory of ours, by hand
//! through its canonical ABI; commits are numbered, so what a crash leaves can
//! be told from what it may leave. Everything follows from seeds, which the
//! messages name.
#![cfg(not(target_family = "wasm"))]

/// A disk that makes crash images.
mod disk;
/// Commits, promises, and the check of both.
mod history;
/// The module and its canonical ABI.
mod module;
/// The disk as a WASI directory.
mod wasi;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::ErrorKind;
use std::sync::Arc;

use duramen::checkpoint::STAGING_DIR;
use duramen::storage::Storage;
use duramen::storage::memory::MemoryStorage;
use duramen::{Db, Durability, Error, Options};
use wasm_tests::random::Random;
use wasm_tests::scenarios::{self, Place};

use disk::{Disk, Faults, Loss, Names};
use history::{History, Machine};
use wasi::hold;

/// Seed `number`. The variable `DURAMEN_SEED` shifts all of them, to look
/// further than a test run does, or at what such a look has found.
fn seed(number: u64) -> u64 {
    let shift = std::env::var("DURAMEN_SEED").map_or(0, |shift| shift.parse().expect("a number"));
    number + shift
}

/// Fails the test at the first failed call.
fn never(_: &Machine, error: &Error) {
    panic!("{error}");
}

#[test]
fn scenarios_run_in_the_module() {
    type Scenario = fn(&dyn Place);
    let scenarios: [(&str, Scenario); 10] = [
        ("reads_and_writes", scenarios::reads_and_writes),
        ("sstables_are_parquet", scenarios::sstables_are_parquet),
        ("scans", scenarios::scans),
        ("snapshots", scenarios::snapshots),
        ("reopens", scenarios::reopens),
        ("ranges_merges_and_expiry", scenarios::ranges_merges_and_expiry),
        ("keyspaces_come_and_go", scenarios::keyspaces_come_and_go),
        ("transactions", scenarios::transactions),
        ("maintains", scenarios::maintains),
        ("follows_the_model", |place| scenarios::follows_the_model(place, seed(4))),
    ];
    for (name, scenario) in scenarios {
        println!("{name}");
        scenario(&Machine::new(Disk::default(), Names::ByDirectory));
    }
}

#[test]
fn the_module_tells_whether_names_are_durable() {
    use duramen::Database;
    for (names, expected) in [(Names::ByDirectory, true), (Names::InOrder, false)] {
        let machine = Machine::new(Disk::default(), names);
        let db = machine.open_guest().unwrap();
        db.create_keyspace("k").unwrap();
        assert_eq!(db.stats().unwrap().names_durable, expected, "{names:?}");
    }
}

#[test]
fn the_module_tells_why_writers_wait() {
    use duramen::stats::{Lane, StallCause, StallKind, StallState};
    use duramen::{Database, Durability, Options};
    let machine = Machine::new(Disk::default(), Names::ByDirectory);
    // Each commit waits until the one before is flushed.
    let options = Options { memtable_bytes: 1, write_buffer_bytes: Some(1), ..scenarios::small() };
    let db = module::Guest::open(&machine.disk, Names::ByDirectory, &options).unwrap();
    let keyspace = db.create_keyspace("k").unwrap();
    let put = |key: &[u8]| db.put(keyspace, key, b"value", Durability::Buffered);
    put(b"a").unwrap();
    put(b"b").unwrap();
    // Enough for a table no more.
    hold(&machine.disk).faults.space = Some(100);
    let refused = put(b"c").unwrap_err();
    assert!(matches!(&refused, Error::Stalled(why) if why.contains("write buffer")), "{refused}");

    let stats = db.stats().unwrap();
    let (cause, kind) = (StallCause::WriteBuffer, StallKind::Waited);
    assert_eq!(stats.stall, Some(StallState { cause, kind }));
    let stalls: Vec<_> = stats.stalls.iter().map(|stall| (stall.cause, stall.kind, stall.count)).collect();
    assert_eq!(stalls, [(cause, kind, 1), (cause, StallKind::Refused, 1)]);
    assert_eq!(stats.stall_ms, stats.stalls.iter().map(|stall| stall.total_ms).sum::<u64>());
    let [error] = &stats.background_errors[..] else { panic!("{:?}", stats.background_errors) };
    assert_eq!((error.lane, error.count), (Lane::Flush, 1));
    assert!(error.message.contains("sst/"), "{}", error.message);
    assert_eq!((stats.flush_failures, stats.compaction_failures), (1, 0));

    hold(&machine.disk).faults.space = None;
    put(b"c").unwrap();
    db.delete_range(keyspace, b"a", b"b", Durability::Buffered).unwrap();
    db.flush().unwrap();
    let stats = db.stats().unwrap();
    assert_eq!((stats.stall, &stats.background_errors[..]), (None, &[][..]));
    assert_eq!((stats.flush_failures, stats.names_durable), (1, true));
    let newest = &stats.keyspaces[0].runs[0];
    assert_eq!((newest.tombstones, newest.range_tombstones), (0, 1));
}

#[test]
fn the_module_makes_a_checkpoint_that_survives_a_loss_of_power() {
    use duramen::Database;
    let machine = Machine::new(Disk::default(), Names::ByDirectory);
    let db = machine.open_guest().unwrap();
    let keyspace = db.create_keyspace("k").unwrap();
    for number in 0..100u64 {
        db.put(keyspace, &number.to_be_bytes(), &[7; 500], Durability::Buffered).unwrap();
    }
    let made = db.checkpoint().unwrap();
    assert_eq!(made.last_sequence, 100);
    // This host has no links.
    assert!(made.files >= 2 && made.bytes_linked == 0, "{made:?}");
    assert!(matches!(db.checkpoint(), Err(Error::InvalidArgument(_))), "there is one already");
    db.put(keyspace, b"later", b"", Durability::Sync).unwrap();

    let now = machine.now();
    let image = hold(&machine.disk).image(now, machine.names, &mut Loss::Everything);
    let within = format!("{STAGING_DIR}/");
    let copy = MemoryStorage::new();
    for dir in image.dirs.iter().filter_map(|dir| dir.strip_prefix(&within)) {
        copy.create_dir(dir).unwrap();
    }
    for (path, bytes) in &image.files {
        if let Some(path) = path.strip_prefix(&within) {
            copy.create(path).unwrap().append(bytes).unwrap();
        }
    }
    let copy = Db::open_with(Arc::new(copy), Options::default()).unwrap();
    assert_eq!(copy.verify().unwrap().problems, []);
    for number in 0..100u64 {
        assert_eq!(copy.get(keyspace, &number.to_be_bytes(), None).unwrap().unwrap(), [7; 500][..]);
    }
    assert_eq!(copy.get(keyspace, b"later", None).unwrap(), None);
}

#[test]
fn short_reads_and_writes_change_nothing() {
    for seed in (1..=3).map(seed) {
        let run = |transfer_bytes_max| {
            let machine = Machine::new(Disk::default(), Names::ByDirectory);
            hold(&machine.disk).faults = Faults { transfer_bytes_max, ..Faults::default() };
            History::run(&machine, seed, 150, &mut never);
            let disk = hold(&machine.disk);
            disk.image(disk.now(), Names::ByDirectory, &mut Loss::Nothing)
        };
        let whole = run(None);
        assert!(whole.files.len() > 3, "seed {seed}: {:?}", whole.files.keys());
        for bytes_max in [700, 40] {
            let short = run(Some((bytes_max, Random::new(seed))));
            let differ = |path: &&String| short.files.get(*path) != whole.files.get(*path);
            let other: Vec<_> = whole.files.keys().chain(short.files.keys()).filter(differ).collect();
            assert!(
                other.is_empty(),
                "seed {seed}: files differ where at most {bytes_max} bytes move: {other:?}"
            );
        }
    }
}

#[test]
fn a_full_disk_costs_no_commit() {
    let mut failures = 0;
    for seed in (1..=12).map(seed) {
        let names = if seed % 3 == 0 { Names::InOrder } else { Names::ByDirectory };
        let machine = Machine::new(Disk::default(), names);
        let random = &mut Random::new(seed);
        // The first time often within the creation of the database.
        hold(&machine.disk).faults.space = Some(random.below(1500));
        let mut mend = |machine: &Machine, error: &Error| {
            let full = matches!(error, Error::Io { source, .. } if source.kind() == ErrorKind::StorageFull);
            let known = full || matches!(error, Error::Poisoned(_) | Error::Stalled(_));
            assert!(known, "seed {seed}: a full disk is told as: {error}");
            let order = 1 + random.below(20);
            hold(&machine.disk).faults.space = Some(random.below(1 << order));
        };
        let history = History::run(&machine, seed, 150, &mut mend);
        assert!(history.failures > 1, "seed {seed}: {} failures", history.failures);
        failures += history.failures;
        crash_sometimes(&machine, &history, &format!("seed {seed}, after a full disk"));
    }
    println!("{failures} failures");
}

#[test]
fn a_failed_sync_costs_no_commit() {
    let mut failures = 0;
    for seed in (1..=12).map(seed) {
        let machine = Machine::new(Disk::default(), Names::ByDirectory);
        let random = &mut Random::new(seed);
        hold(&machine.disk).faults.good_syncs = Some(random.below(20));
        let mut mend = |machine: &Machine, error: &Error| {
            let io = matches!(error, Error::Io { source, .. } if source.kind() != ErrorKind::NotFound);
            let known = io || matches!(error, Error::Poisoned(_) | Error::Stalled(_));
            assert!(known, "seed {seed}: a failed sync is told as: {error}");
            let mut disk = hold(&machine.disk);
            disk.faults.good_syncs = Some(disk.syncs + random.below(40));
        };
        let history = History::run(&machine, seed, 150, &mut mend);
        assert!(history.failures > 1, "seed {seed}: {} failures", history.failures);
        failures += history.failures;
        crash_sometimes(&machine, &history, &format!("seed {seed}, after failed syncs"));
    }
    println!("{failures} failures");
}

/// Checks crashes at a few moments of a run.
fn crash_sometimes(machine: &Machine, history: &History, context: &str) {
    let random = &mut Random::new(machine.now() as u64);
    for _ in 0..10 {
        let now = random.below(machine.now() + 1);
        let context = format!("{context}, crash at {now}");
        history.check(&machine.after_power_loss(now, &mut Loss::Some(random)), now, true, &context);
        history.check(&machine.after_kill(now), now, false, &context);
    }
}

/// Moments of one run at which it crashes; all, if it has no more.
const MOMENTS_MAX: usize = 250;

/// Ends a run at up to [`MOMENTS_MAX`] moments, by a kill and by four losses of
/// power each, and checks every disk that differs from those before.
fn crash(names: Names, seed: u64, faults: Faults) {
    let machine = Machine::new(Disk::default(), names);
    hold(&machine.disk).faults = faults;
    let history = History::run(&machine, seed, 100, &mut never);
    let random = &mut Random::new(seed);
    let end = machine.now();
    let mut seen = HashSet::new();
    for turn in 0..MOMENTS_MAX.min(end) {
        // Spread evenly, with the remainder left to chance.
        let [start, next] = [turn, turn + 1].map(|turn| turn * end / MOMENTS_MAX.min(end));
        let now = start + random.below(next - start) + 1;
        let context = format!("seed {seed}, {names:?}, kill at {now} of {end}");
        history.check(&machine.after_kill(now), now, false, &context);
        for way in 0..4 {
            let mut loss = match way {
                0 => Loss::Nothing,
                1 => Loss::Everything,
                2 => Loss::Some(random),
                _ => Loss::Tail(random),
            };
            let context = format!("seed {seed}, {names:?}, no power at {now} of {end}, lost: {loss:?}");
            let image = hold(&machine.disk).image(now, names, &mut loss);
            let mut hasher = DefaultHasher::new();
            (&image.files, &image.dirs, history.range(now, true)).hash(&mut hasher);
            if seen.insert(hasher.finish()) {
                history.check(&Machine::new(Disk::new(image), names), now, true, &context);
            }
        }
    }
    println!("seed {seed}, {names:?}: {end} moments, {} images", seen.len());
}

#[test]
fn crashes_leave_a_prefix_1() {
    crash(Names::ByDirectory, seed(1), Faults::default());
}

#[test]
fn crashes_leave_a_prefix_2() {
    crash(Names::ByDirectory, seed(2), Faults::default());
}

#[test]
fn crashes_leave_a_prefix_where_directories_cannot_be_synced() {
    crash(Names::InOrder, seed(3), Faults::default());
}

/// Shows that the check would see a sync that is missing.
#[test]
#[should_panic(expected = "seed 1, ByDirectory, ")]
fn a_disk_that_lies_about_syncs_is_found_out() {
    crash(Names::ByDirectory, 1, Faults { syncs_lie: true, ..Faults::default() });
}

/// Nothing can be promised where a file system forgets synced names and the
/// host cannot sync directories. What is found is still a prefix, or the
/// damage is told.
#[test]
fn lost_names_are_told_or_leave_a_prefix() {
    let machine = Machine::new(Disk::default(), Names::InOrder);
    let seed = seed(5);
    let history = History::run(&machine, seed, 100, &mut never);
    let random = &mut Random::new(seed);
    let (mut opened, mut told) = (0, 0);
    for _ in 0..MOMENTS_MAX {
        let now = random.below(machine.now() + 1);
        let image = hold(&machine.disk).image(now, Names::Never, &mut Loss::Some(random));
        match Machine::new(Disk::new(image), Names::InOrder).open_guest() {
            Ok(db) => {
                let found = history.check_contents(&db, &format!("seed {seed}, crash at {now}"));
                assert!(found <= history.range(now, true).1);
                opened += 1;
            }
            Err(Error::Corruption { .. } | Error::InvalidArgument(_)) => told += 1,
            Err(error) => panic!("seed {seed}, crash at {now}: {error}"),
        }
    }
    println!("{opened} opened, {told} told");
    assert!(opened > 0 && told > 0, "{opened} opened, {told} told");
}
