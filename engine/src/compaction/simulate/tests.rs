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
        let simulation = Simulation { entries: 50_000, ..small(Workload::Uniform, scaling) };
        let (engine, entry_bytes) = of_engine(&simulation);
        let compression = (entry_bytes - KEY_BYTES as f64 - TABLE_ENTRY_BYTES) / VALUE_BYTES as f64;
        let model = Simulation { compression, ..simulation }.run(|_| {}).unwrap().write_amplification();
        eprintln!("{scaling}: engine {engine:.2}, model {model:.2} {entry_bytes}");
        let error = (model / engine - 1.0).abs();
        assert!(error < 0.15, "{scaling}: the engine wrote {engine:.2} times, the model {model:.2}");
    }
}
