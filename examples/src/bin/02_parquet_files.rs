//! SSTables are Parquet files: the stock reader shows their columns, field ids
//! and order, and the newest entry of each key is what the database answers. A
//! compaction leaves one entry for each key.
//!
//! ```sh
//! cargo run -p duramen-examples --bin 02_parquet_files
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use duramen::{Background, Database, Db, Options};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

fn main() -> Result<()> {
    let directory = tempfile::tempdir()?;
    // Nobody compacts while we look at the files.
    let options = Options { background: Background::Inline, ..Options::default() };
    let db = Db::open(directory.path(), options)?;
    let words = db.keyspace("words")?;
    for number in 0..1000 {
        words.put(format!("word:{number:03}").as_bytes(), b"first")?;
    }
    db.flush()?;
    // Into a second file: some words change, others go.
    for number in (0..1000).step_by(10) {
        words.put(format!("word:{number:03}").as_bytes(), b"second")?;
        words.delete(format!("word:{:03}", number + 5).as_bytes())?;
    }
    db.flush()?;

    // From here on nothing of Duramen is needed, but an order: newest first.
    let tables = directory.path().join(format!("sst/{}", words.id().0));
    let flushed = entries(&tables)?;
    let mut newest = BTreeMap::new();
    for entry in &flushed {
        let known = newest.entry(&entry.key).or_insert(entry);
        if entry.seq > known.seq {
            *known = entry;
        }
    }
    let latest: Vec<(&[u8], &[u8])> =
        newest.into_values().filter(|entry| entry.kind == PUT).map(|e| (&e.key[..], &e.value[..])).collect();
    println!("{} entries in the files, {} keys in the view", flushed.len(), latest.len());

    let scanned = words.range::<&[u8]>(..).collect::<duramen::Result<Vec<_>>>()?;
    let scanned: Vec<(&[u8], &[u8])> = scanned.iter().map(|(key, value)| (&key[..], &value[..])).collect();
    assert_eq!(latest, scanned);
    assert_eq!((flushed.len(), latest.len()), (1200, 900));

    db.compact()?;
    let compacted = entries(&tables)?;
    println!("{} entries after the compaction", compacted.len());
    let merged: Vec<(&[u8], &[u8])> = compacted.iter().map(|e| (&e.key[..], &e.value[..])).collect();
    assert_eq!(merged, scanned);
    assert!(compacted.iter().all(|entry| entry.kind == PUT));
    Ok(())
}

/// What `kind` says of an entry that is no delete.
const PUT: i32 = 0;

/// A row of an SSTable.
struct Entry {
    key: Vec<u8>,
    value: Vec<u8>,
    seq: i64,
    kind: i32,
}

/// Every row of every file in a directory, each file looked at by the way.
fn entries(tables: &Path) -> Result<Vec<Entry>> {
    let mut all = Vec::new();
    let mut paths = fs::read_dir(tables)?.map(|file| Ok(file?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&path)?)?;
        let fields = reader.parquet_schema().root_schema().get_fields();
        let columns: Vec<_> =
            fields.iter().map(|f| (f.name(), f.get_basic_info().id(), f.get_physical_type())).collect();
        println!("{}: {columns:?}", path.file_name().unwrap_or_default().display());
        let names: Vec<_> = columns.iter().map(|(name, id, _)| (*name, *id)).collect();
        assert_eq!(names, [("key", 1), ("value", 2), ("seq", 3), ("kind", 4)]);

        let start = all.len();
        for batch in reader.build()? {
            let batch = batch?;
            let (keys, values) = (batch.column(0).as_binary::<i32>(), batch.column(1).as_binary::<i32>());
            let seqs = batch.column(2).as_primitive::<Int64Type>();
            let kinds = batch.column(3).as_primitive::<Int32Type>();
            all.extend((0..batch.num_rows()).map(|row| Entry {
                key: keys.value(row).to_vec(),
                value: values.value(row).to_vec(),
                seq: seqs.value(row),
                kind: kinds.value(row),
            }));
        }
        assert!(all[start..].is_sorted_by_key(|entry| (&entry.key, -entry.seq)), "key up, seq down");
    }
    Ok(all)
}
