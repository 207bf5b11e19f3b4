//! Goal: memory has the limits that are promised. What the statistics say of memtables is
//! what they cost; a compaction needs no more than it may, however much it merges.
//! Method: an allocator that counts, in a binary of its own, while a database takes
//! writes of every shape into each kind of memtable, and merges runs of every shape.

use allocation_counter::measure;
use duramen::{Background, Database, Db, Durability, KeyspaceOptions, MemtableKind, Options, WriteBatch};

/// Enough that what else the database allocates does not show.
const ENTRIES: u64 = 20_000;

/// How far the statistics may be off, in percent.
const TOLERANCE: f64 = 15.0;

/// Keys of 16 bytes, in order or not.
fn key(number: u64, in_order: bool) -> [u8; 16] {
    let first = if in_order { number } else { number.wrapping_mul(0x9e37_79b9_7f4a_7c15) };
    ((u128::from(first) << 64) | u128::from(number)).to_be_bytes()
}

#[test]
fn memtables_cost_what_they_say() {
    let options = || Options {
        memtable_bytes: 1 << 30,
        wal_bytes_max: Some(1 << 40),
        background: Background::Inline,
        ..Options::default()
    };
    let mut wrong = Vec::new();
    for memtable in MemtableKind::ALL {
        for (value_bytes, in_order, batch_entries) in [8, 100, 1000]
            .into_iter()
            .flat_map(|v| [false, true].map(|o| [1, 100].map(|b| (v, o, b))))
            .flatten()
        {
            let dir = tempfile::tempdir().unwrap();
            let db = Db::open(dir.path(), options()).unwrap();
            let with = KeyspaceOptions { memtable: Some(memtable), ..KeyspaceOptions::default() };
            let keyspace = db.create_keyspace_with("k", &with).unwrap();
            let value = vec![7; value_bytes];
            let cost = measure(|| {
                for first in (0..ENTRIES).step_by(batch_entries) {
                    let mut batch = WriteBatch::new();
                    for number in first..first + batch_entries as u64 {
                        batch.put(keyspace, &key(number, in_order), &value);
                    }
                    db.write(batch, Durability::None).unwrap();
                }
            });
            let stats = db.stats().unwrap();
            assert_eq!(stats.keyspaces[0].memtable_entries, ENTRIES);
            let per_entry = |bytes: u64| bytes as f64 / ENTRIES as f64;
            let (cost, said) =
                (per_entry(cost.bytes_current as u64), per_entry(stats.keyspaces[0].memtable_bytes));
            let off = (said / cost - 1.0) * 100.0;
            let line = format!(
                "{memtable:?}, values of {value_bytes}, batches of {batch_entries}, in order: {in_order}: \
                 {cost:.0} bytes an entry, said to be {said:.0}, {off:+.1} %"
            );
            println!("{line}");
            if off.abs() > TOLERANCE {
                wrong.push(line);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What a compaction may have in memory, but for a value of each input of each part.
const COMPACTION_BYTES_MAX: usize = 64 << 20;

/// Runs that a compaction merges here.
const RUNS: u64 = 4;

/// Merges four runs of `run_bytes` each, in so many parts; the most that a part allocated.
fn memory_of_a_compaction(run_bytes: u64, value_bytes: u64, parts: usize) -> usize {
    let dir = tempfile::tempdir().unwrap();
    let options = |target_file_bytes| Options {
        // Nothing is flushed nor merged before it is asked for.
        memtable_bytes: 1 << 30,
        wal_bytes_max: Some(1 << 40),
        compaction: "T32".parse().unwrap(),
        target_file_bytes,
        // Without threads one part comes after the other.
        background: Background::Inline,
        compaction_threads: parts,
        cache_bytes: 0,
        ..Options::default()
    };
    let mut db = Db::open(dir.path(), options(run_bytes / 8)).unwrap();
    // Bytes that do not compress, from another place for each value.
    let noise: Vec<u8> = (0..(8 << 20) / 8).flat_map(|word| key(word, false)[..8].to_owned()).collect();
    let count = run_bytes / (value_bytes + 16);
    for run in 0..RUNS {
        let keyspace = db.keyspace("k").unwrap();
        for number in 0..count {
            let from = (number * 97 % ((7 << 20) - value_bytes)) as usize;
            let value = &noise[from..from + value_bytes as usize];
            keyspace.put(&key(number * RUNS + run, false), value).unwrap();
        }
        db.flush().unwrap();
        if run == 0 {
            // Into several files, so that there is where to part it; then into large ones.
            db.compact().unwrap();
            drop((keyspace, db));
            db = Db::open(dir.path(), options(run_bytes)).unwrap();
        }
    }
    let memory = measure(|| db.compact().unwrap());
    let stats = db.stats().unwrap();
    assert_eq!(stats.keyspaces[0].runs.len(), 1);
    assert!(stats.keyspaces[0].runs[0].bytes > 2 * run_bytes, "{:?}", stats.keyspaces[0].runs);
    memory.bytes_max as usize
}

#[test]
fn compactions_need_no_more_than_they_may() {
    let mut wrong = Vec::new();
    for value_bytes in [100, 16 << 10, 1 << 20] {
        for parts in [1, 4] {
            let used = parts * memory_of_a_compaction(20 << 20, value_bytes, parts);
            let most = COMPACTION_BYTES_MAX + parts * RUNS as usize * value_bytes as usize;
            let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
            let line =
                format!("values of {value_bytes}, {parts} parts: {:.1} MiB of {:.1}", mib(used), mib(most));
            println!("{line}");
            if used > most {
                wrong.push(line);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
