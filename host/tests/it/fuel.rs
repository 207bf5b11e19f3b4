//! Goal: fuel ends a call at an instruction, and wherever that is costs nothing that
//! was committed. Method: a workload of every kind of call, each with too little
//! fuel first and then more and more; after each trap recoveries with too little,
//! then one with enough, and a look at everything.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use duramen::{Budget, Database, Durability, Error, Result};
use duramen_host::{Sandbox, SandboxOptions};
use wasm_tests::random::Random;

use crate::traps::{Numbered, busy, found_natively, io, was_ended};
use crate::{existing, options};

#[test]
fn fuel_ends_the_instance_and_the_next_call_recovers() {
    let directory = tempfile::tempdir().unwrap();
    const FUEL: u64 = 1_000_000;
    let db = Sandbox::open(directory.path(), SandboxOptions { call_fuel: Some(FUEL), ..options() }).unwrap();
    let keyspace = db.create_keyspace("k").unwrap();
    for number in 0..100u64 {
        db.put(keyspace, &number.to_be_bytes(), &[1; 100], Durability::Buffered).unwrap();
    }
    let many = vec![&b"absent"[..]; 100_000];
    let (kind, text) = io(db.multi_get(keyspace, &many, None));
    assert_eq!(kind, ErrorKind::TimedOut, "{text}");
    assert!(text.contains("out of fuel: 1000000 units per call"), "{text}");
    assert_eq!(db.get(keyspace, &99u64.to_be_bytes(), None).unwrap().unwrap(), [1; 100][..]);
    assert_eq!(db.restarts(), 1);

    // Recovery has just taken none of that, and neither do these.
    db.flush().unwrap();
    db.compact().unwrap();
    assert_eq!(db.verify().unwrap().problems, []);

    db.set_fuel(None, Some(1000)).unwrap();
    assert_eq!(db.multi_get(keyspace, &many, None).unwrap().len(), many.len());
    let (kind, text) = io(db.verify());
    assert_eq!(kind, ErrorKind::TimedOut, "{text}");
    assert!(text.contains("out of fuel: 1000 units per call"), "{text}");
    // Not even recovery gets by with that.
    assert_eq!(io(db.keyspaces()).0, ErrorKind::TimedOut);
    db.set_fuel(None, None).unwrap();
    assert_eq!(db.keyspaces().unwrap().len(), 1);
}

#[test]
fn fuel_is_only_counted_where_it_was_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let db = crate::open(directory.path());
    assert!(matches!(db.set_fuel(Some(1), None), Err(Error::InvalidArgument(_))));
    assert!(db.keyspaces().unwrap().is_empty());
}

const KINDS: [&str; 12] = [
    "write",
    "delete range",
    "commit",
    "flush",
    "maintain",
    "compact",
    "get",
    "multi-get",
    "scan",
    "create",
    "verify",
    "checkpoint",
];

/// Makes the call of this kind.
fn attempt(numbered: &mut Numbered<'_>, kind: &str, beside: &Path) -> Result<()> {
    let (db, [left, right]) = (numbered.db, numbered.twins);
    let number = numbered.last + 1;
    let (last, row) = (numbered.contents.get(&b"last"[..]), numbered.contents.last_key_value());
    match kind {
        "write" | "delete range" | "commit" => {
            if kind != "commit" {
                db.write(numbered.batch(number), Durability::Buffered)?;
            } else {
                let mut transaction = db.transaction()?;
                transaction.get(left, b"last")?;
                transaction.write(numbered.batch(number))?;
                transaction.commit(Durability::Sync)?;
            }
            numbered.last = number;
            numbered.apply(number);
        }
        "flush" => db.flush()?,
        "maintain" => drop(db.maintain(Budget::bytes(64 << 10))?),
        "compact" => db.compact()?,
        "get" => assert_eq!(db.get(right, b"last", None)?.as_deref(), last.map(Vec::as_slice)),
        "multi-get" => {
            let (key, value) = row.map_or((&b"no"[..], None), |(key, value)| (&key[..], Some(&value[..])));
            let found = db.multi_get(left, &[b"last", key, b"none"], None)?;
            let found: Vec<_> = found.iter().map(Option::as_deref).collect();
            assert_eq!(found, [last.map(Vec::as_slice), value, None]);
        }
        "scan" => {
            let scan = db.scan(left, &duramen::ScanRange::all(), None)?;
            let rows = duramen::api::pairs(scan).collect::<Result<Vec<_>>>()?;
            assert_eq!(rows.len(), numbered.contents.len());
        }
        "create" => {
            db.create_keyspace("passing")?;
            assert!(db.drop_keyspace("passing")?);
        }
        "verify" => assert_eq!(db.verify()?.problems, []),
        "checkpoint" => {
            let target = beside.join("checkpoint");
            match db.checkpoint(&target) {
                Ok(_) => assert_eq!(found_natively(&target), numbered.contents),
                Err(error) => {
                    assert!(duramen_host::open(&target, true, existing()).is_err(), "an unfinished database");
                    return Err(error);
                }
            }
            std::fs::remove_dir_all(target).unwrap();
        }
        kind => panic!("no calls of kind {kind}"),
    }
    Ok(())
}

/// Ends up to three recoveries, one within the other; how many it were.
fn end_recoveries(db: &Sandbox, random: &mut Random) -> u64 {
    let wanted = random.below(4) as u64;
    for depth in 0..wanted {
        // From the first instructions of the instance to past the last of recovery.
        let fuel = (1u64 << random.below(22)) + random.below(1000) as u64;
        db.set_fuel(None, Some(fuel)).unwrap();
        match db.keyspaces() {
            Ok(_) => return depth,
            Err(error) => assert_eq!(io::<()>(Err(error)).0, ErrorKind::TimedOut),
        }
    }
    wanted
}

#[test]
fn traps_at_any_instruction_tear_nothing() {
    /// Traps of calls; those of recoveries come on top.
    const POINTS: u64 = 400;
    let directory = tempfile::tempdir().unwrap();
    let beside = tempfile::tempdir().unwrap();
    let counting = SandboxOptions { call_fuel: Some(u64::MAX), ..busy() };
    let db = Sandbox::open(directory.path(), counting).unwrap();
    let mut numbered = Numbered::new(&db, 4 << 10);
    let random = &mut Random::new(7);
    // Of each kind: what a call took last, and how many were ended.
    let mut costs = BTreeMap::from(KINDS.map(|kind| (kind, 100_000)));
    let mut points = BTreeMap::from(KINDS.map(|kind| (kind, 0u64)));
    let mut recoveries = [0u64; 4];
    while points.values().sum::<u64>() < POINTS {
        let (kind, _) =
            points.iter().map(|(kind, ended)| (*kind, *ended)).min_by_key(|(_, ended)| *ended).unwrap();
        // Most calls have something to do only where something was written.
        let mut writes = random.below(8);
        while writes > 0 || kind == "delete range" && !Numbered::deletes_range(numbered.last + 1) {
            attempt(&mut numbered, "write", beside.path()).unwrap();
            writes = writes.saturating_sub(1);
        }
        let cost = costs.get_mut(kind).unwrap();
        let mut fuel = random.below(*cost) as u64;
        loop {
            let transaction = numbered.begin();
            db.set_fuel(Some(fuel), Some(fuel)).unwrap();
            let Err(error) = attempt(&mut numbered, kind, beside.path()) else { break };
            assert!(was_ended(&error), "{kind} with fuel {fuel}: {error}");
            *points.get_mut(kind).unwrap() += 1;
            recoveries[end_recoveries(&db, random) as usize] += 1;
            db.set_fuel(None, None).unwrap();
            numbered.check(error, transaction);
            fuel += 1 + fuel / 4 + random.below(*cost / 4 + 1) as u64;
        }
        db.set_fuel(None, None).unwrap();
        *cost = fuel as usize + 1;
    }
    println!(
        "{} commits, ended {points:?}, enough was {costs:?}, recoveries ended {recoveries:?}",
        numbered.last
    );
    assert!(points.values().all(|ended| *ended >= POINTS / 20), "{points:?}");
    let in_recovery: u64 = recoveries.iter().zip(0..).map(|(count, depth)| count * depth).sum();
    assert!(in_recovery >= 200 && recoveries[3] >= 20, "{recoveries:?}");
    let contents = numbered.contents;
    drop(db);
    assert_eq!(found_natively(directory.path()), contents);
}
