//! Goal: the model is sound in itself, and explains what the engine does. Method: each
//! workload by its end, and one small database beside its model, write by write.

use std::sync::Arc;

use super::*;
use crate::api::Database;
use crate::storage::memory::MemoryStorage;
use crate::{Background, Compression, Db, Durability, Options};

/// Bytes of a key, its number at the end.
const KEY_BYTES: usize = 16;

const VALUE_BYTES: usize = 100;

fn small(workload: Workload, scaling: &str) -> Simulation {
    Simulation {
        scaling: scaling.parse().unwrap(),
        workload,
        entries: 20_000,
        memtable_bytes: 128 << 10,
        target_file_bytes: 512 << 10,
        ..Simulation::default()
    }
}

/// Bytes that the engine writes to tables for each byte put, and bytes of an entry.
fn of_engine(simulation: &Simulation) -> (f64, f64) {
    let options = Options {
        memtable_bytes: simulation.memtable_bytes as usize,
        target_file_bytes: simulation.target_file_bytes,
        compaction: crate::CompactionStrategy::Fixed(simulation.scaling.clone()),
        compression: Compression::None,
        background: Background::Inline,
        compaction_threads: 1,
        ..Options::default()
    };
    let db = Db::open_with(Arc::new(MemoryStorage::new()), options).unwrap();
    let keyspace = db.keyspace("k").unwrap();
    let mut writes = Writes::new(simulation.workload, simulation.entries, simulation.seed);
    let total = writes.total();
    let mut more = true;
    while more {
        let mut batch = db.batch();
        for _ in 0..20 {
            let Some(entry) = writes.next() else {
                more = false;
                break;
            };
            let mut key = [0; KEY_BYTES];
            key[KEY_BYTES - 4..].copy_from_slice(&entry.key.to_be_bytes());
            match entry.tombstone {
                true => batch.delete(&keyspace, &key),
                false => batch.put(&keyspace, &key, &[7; VALUE_BYTES]),
            };
        }
        batch.commit(Durability::Buffered).unwrap();
    }
    let stats = db.stats().unwrap();
    let runs = || stats.keyspaces[0].runs.iter();
    let entry_bytes =
        runs().map(|run| run.bytes).sum::<u64>() as f64 / runs().map(|run| run.entries).sum::<u64>() as f64;
    let written = (stats.flush_bytes + stats.compaction_bytes_written) as f64;
    db.close().unwrap();
    (written / (entry_bytes * total as f64), entry_bytes)
}

#[test]
fn the_model_explains_the_engine() {
    for scaling in ["T4", "T4/L4", "L4", "N"] {
        let simulation = Simulation { entries: 200_000, ..small(Workload::Uniform, scaling) };
        let (engine, entry_bytes) = of_engine(&simulation);
        let compression = (entry_bytes - KEY_BYTES as f64 - TABLE_ENTRY_BYTES) / VALUE_BYTES as f64;
        let model = Simulation { compression, ..simulation }.run(|_| {}).unwrap().write_amplification();
        let error = (model / engine - 1.0).abs();
        assert!(error < 0.15, "{scaling}: the engine wrote {engine:.2} times, the model {model:.2}");
    }
}

#[test]
fn every_workload_ends_with_its_newest_versions() {
    for workload in Workload::ALL {
        for scaling in ["T4", "L4", "T8/L4"] {
            let simulation = small(workload, scaling);
            let outcome = simulation.run(|_| {}).unwrap();
            assert_eq!(outcome, simulation.run(|_| {}).unwrap(), "{workload}, {scaling}: not the same again");
            let live = outcome.bytes_latest as f64 / (20_000.0 * (16.0 + 50.0 + TABLE_ENTRY_BYTES));
            let expected = match workload {
                Workload::Queue => 0.124..0.126,
                // Random keys miss a few.
                Workload::Uniform => 0.97..0.99,
                Workload::Zipfian => 0.2..0.9,
                // A few late ones meet.
                Workload::TimeSeries => 0.99..1.0,
                _ => 0.999..1.001,
            };
            assert!(expected.contains(&live), "{workload}, {scaling}: {live}");
            let space = outcome.space_settled();
            assert!((0.999..3.0).contains(&space), "{workload}, {scaling}: {space}");
        }
    }
}

#[test]
fn entries_that_come_late_do_not_have_their_neighbours_written_again_and_again() {
    for scaling in ["L10", "N", "T4/L4", "T8"] {
        let outcome = small(Workload::TimeSeries, scaling).run(|_| {}).unwrap();
        let written = outcome.write_amplification();
        assert!(written < 4.0, "{scaling}: {written}");
    }
}

#[test]
fn a_queue_gives_its_space_back() {
    for scaling in ["L4", "N", "T4", "T4/L4"] {
        let simulation = Simulation {
            entries: 1_000_000,
            target_file_bytes: 1 << 20,
            memtable_bytes: 1 << 20,
            ..small(Workload::Queue, scaling)
        };
        let space = simulation.run(|_| {}).unwrap().space_settled();
        assert!(space < 1.6, "{scaling}: {space}");
    }
}

#[test]
fn what_makes_no_model_is_refused() {
    let usual = small(Workload::Uniform, "T4");
    for wrong in [
        Simulation { entries: 0, ..usual.clone() },
        Simulation { memtable_bytes: 0, ..usual.clone() },
        Simulation { compression: f64::NAN, ..usual.clone() },
        Simulation { entries: u64::MAX, ..usual },
    ] {
        assert!(matches!(wrong.run(|_| {}), Err(Error::InvalidArgument(_))), "{wrong:?}");
    }
}
