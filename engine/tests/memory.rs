//! Goal: what the statistics say of memtables is what they cost, so that a limit in
//! bytes is one. Method: an allocator that counts, in a binary of its own, while a
//! database takes writes of every shape into each kind of memtable.

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
