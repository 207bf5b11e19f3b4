//! A database much larger than the sandbox that holds it: fills it, reads some of
//! it back, compacts, and verifies every byte.
//!
//! ```sh
//! cargo run --release -p duramen-examples --bin large -- DIRECTORY GIB
//! ```
//!
//! DIRECTORY is replaced. The guest has the default 256 MiB, whatever GIB is.

use std::error::Error;
use std::time::Instant;

use duramen::{Database, Durability, WriteBatch};
use duramen_host::{Sandbox, SandboxOptions};

const VALUE_BYTES: usize = 4096;
const BATCH: u64 = 256;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, gib] = arguments.as_slice() else {
        return Err("usage: large DIRECTORY GIB".into());
    };
    let gib: u64 = gib.parse()?;
    if std::fs::exists(directory)? {
        std::fs::remove_dir_all(directory)?;
    }
    let options = SandboxOptions::default();
    let memory = options.memory_bytes_max;
    let db = Sandbox::open(directory, options)?;
    let keyspace = db.create_keyspace("rows")?;
    let rows = (gib << 30) / VALUE_BYTES as u64;

    let start = Instant::now();
    for first in (0..rows).step_by(BATCH as usize) {
        let mut batch = WriteBatch::new();
        for row in first..rows.min(first + BATCH) {
            batch.put(keyspace, &key(row, rows), &value(row));
        }
        db.write(batch, Durability::Buffered)?;
        if first % (1 << 18) < BATCH {
            let mib = (first * VALUE_BYTES as u64) >> 20;
            println!(
                "{mib:>6} MiB after {:.0} s, guest at {} MiB",
                start.elapsed().as_secs_f64(),
                db.guest_memory_bytes() >> 20
            );
        }
    }
    for row in (0..rows).step_by(9973) {
        let found = db.get(keyspace, &key(row, rows), None)?;
        if found.as_deref() != Some(&value(row)[..]) {
            return Err(format!("row {row} is not what was written").into());
        }
    }
    db.compact()?;
    println!("compacted after {:.0} s", start.elapsed().as_secs_f64());
    let report = db.verify()?;
    println!(
        "{} files, {} MiB verified after {:.0} s",
        report.files,
        report.bytes >> 20,
        start.elapsed().as_secs_f64()
    );
    if !report.problems.is_empty() || report.entries != rows || db.restarts() != 0 {
        return Err(format!("{report:?}, {} restarts", db.restarts()).into());
    }
    println!("most guest memory: {} MiB", db.guest_memory_bytes_peak() >> 20);
    assert!(db.guest_memory_bytes_peak() <= memory);
    db.close()?;
    std::fs::remove_dir_all(directory)?;
    Ok(())
}

/// Keys in an order that jumps over the whole range.
fn key(row: u64, rows: u64) -> [u8; 8] {
    (row.wrapping_mul(7_919) % rows).to_be_bytes()
}

/// Bytes that do not compress and tell which row they are of.
fn value(row: u64) -> Vec<u8> {
    let mut state = row.wrapping_mul(2).wrapping_add(1);
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state ^ (state >> 29)).to_le_bytes()
    });
    words.take(VALUE_BYTES / 8).flatten().collect()
}
