//! tonbo: a log-structured merge tree of Arrow batches and Parquet files, made for
//! object stores; here its files are local.
//!
//! What differs from the others:
//! - A put is a batch of one row in a log of Arrow batches; a memtable is full after
//!   [`BATCHES`] of them, whatever their length. So many memtables are flushed together
//!   that it would be the write buffer if a batch took [`BATCH_BYTES`]. Nothing else
//!   flushes: what is left stays in memory, and is read from the log at the next open.
//! - A get is a scan with a filter, and each begins with the manifest's files.
//! - SSTables are compressed with Zstd, and have Parquet's Bloom filters of keys, for a
//!   false positive in twenty. Neither can be set.
//! - There is no cache of pages, only of the footers and filters of 256 files.
//! - Without a sync, the log is handed to the system. No call syncs it later: its files
//!   are synced from outside.
//! - No scans backwards.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{self, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ::tonbo::db::{
    BatchesThreshold, CompactionOptions, DB, DbBuilder, Expr, ScalarValue, Version, WalSyncPolicy,
};
use ::tonbo::prelude::typed_arrow::{arrow_array, arrow_schema};
use arrow_array::cast::AsArray;
use arrow_array::{BinaryArray, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use fusio::disk::LocalFs;
use fusio::executor::tokio::TokioExecutor;
use futures_util::StreamExt;
use tokio::runtime::Runtime;

use super::{Engine, Setup, Show};
use crate::Result;

/// Batches of a memtable: the most that it takes.
const BATCHES: usize = 1024;

/// Memory of a batch of one short row, about.
const BATCH_BYTES: usize = 1024;

/// Waits this long before it looks again whether background work is done.
const POLL: Duration = Duration::from_millis(20);

/// It is settled once this many looks in a row find the same SSTables: what is due is
/// not told.
const IDLE_LOOKS: u32 = 10;

struct Tonbo {
    // Closed before the runtime that its tasks are on.
    db: DB<LocalFs, TokioExecutor>,
    runtime: Runtime,
    schema: SchemaRef,
    directory: PathBuf,
}

/// Opens a database.
pub fn open(setup: &Setup) -> Result<Box<dyn Engine>> {
    if setup.ttl.is_some() || !setup.automatic {
        return Err("tonbo has neither a simulated clock nor compactions on demand alone".into());
    }
    fs::create_dir_all(&setup.directory)?;
    // It makes a URL of it.
    let directory = path::absolute(&setup.directory)?;
    // Its files block the thread that they are used on, which a runtime of the current
    // thread does not allow: this one has a thread for what goes on in the background.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let column = |name| Field::new(name, DataType::Binary, false);
    let schema = Arc::new(Schema::new(vec![column("key"), column("value")]));
    let policy = if setup.synced { WalSyncPolicy::Always } else { WalSyncPolicy::Disabled };
    let memtables = (setup.write_buffer_bytes / (BATCHES * BATCH_BYTES)).max(1);
    let builder = DbBuilder::from_schema_key_name(Arc::clone(&schema), "key")?
        .on_disk(&directory)?
        .wal_sync_policy(policy)
        .with_seal_policy(Arc::new(BatchesThreshold { batches: BATCHES }))
        .with_minor_compaction(memtables, 0)
        .with_compaction_options(CompactionOptions::new());
    let db = runtime.block_on(builder.open())?;
    Ok(Box::new(Tonbo { db, runtime, schema, directory: setup.directory.clone() }))
}

fn literal(bytes: &[u8]) -> ScalarValue {
    ScalarValue::Binary(Some(bytes.to_vec()))
}

impl Tonbo {
    fn rows<'a>(&self, pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Result<RecordBatch> {
        let (keys, values): (Vec<_>, Vec<_>) = pairs.unzip();
        let columns: [BinaryArray; 2] = [keys, values].map(BinaryArray::from_vec);
        let columns = columns.map(|column| Arc::new(column) as _).to_vec();
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    /// Shows the pairs that pass `filter`, in order, until told to stop.
    fn walk(&self, filter: Expr, limit: Option<usize>, show: Show<'_>) -> Result<()> {
        self.runtime.block_on(async {
            let scan = self.db.scan().filter(filter);
            let scan = if let Some(limit) = limit { scan.limit(limit) } else { scan };
            let mut batches = pin!(scan.stream().await?);
            while let Some(batch) = batches.next().await {
                let batch = batch?;
                let (keys, values) = (batch.column(0).as_binary::<i32>(), batch.column(1).as_binary::<i32>());
                for row in 0..batch.num_rows() {
                    if !show(keys.value(row), values.value(row)) {
                        return Ok(());
                    }
                }
            }
            Ok(())
        })
    }

    fn version(&self) -> Result<Option<Version>> {
        Ok(self.runtime.block_on(self.db.list_versions(1))?.pop())
    }
}

impl Engine for Tonbo {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let rows = self.rows([(key, value)].into_iter())?;
        Ok(self.runtime.block_on(self.db.ingest(rows))?)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        let rows = self.rows([(key, &[][..])].into_iter())?;
        Ok(self.runtime.block_on(self.db.ingest_with_tombstones(rows, vec![true]))?)
    }

    fn batch(&self, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let rows = self.rows(pairs.iter().map(|(key, value)| (key.as_slice(), value.as_slice())))?;
        Ok(self.runtime.block_on(self.db.ingest(rows))?)
    }

    fn get(&self, key: &[u8], show: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let mut found = false;
        self.walk(Expr::eq("key", literal(key)), Some(1), &mut |_, value| {
            found = true;
            show(value);
            false
        })?;
        Ok(found)
    }

    fn multi_get(&self, keys: &[&[u8]], show: &mut dyn FnMut(usize, &[u8])) -> Result<()> {
        let mut indexes: HashMap<&[u8], Vec<usize>> = HashMap::new();
        for (index, key) in keys.iter().enumerate() {
            indexes.entry(key).or_default().push(index);
        }
        let literals = indexes.keys().map(|key| literal(key)).collect();
        self.walk(Expr::in_list("key", literals), None, &mut |key, value| {
            indexes.get(key).into_iter().flatten().for_each(|index| show(*index, value));
            true
        })
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, show: Show<'_>) -> Result<()> {
        let from = Expr::gt_eq("key", literal(start));
        let filter = match end {
            Some(end) => Expr::and(vec![from, Expr::lt("key", literal(end))]),
            None if start.is_empty() => Expr::True,
            None => from,
        };
        self.walk(filter, None, show)
    }

    fn scans_back(&self) -> bool {
        false
    }

    fn scan_back(&self, _: Show<'_>) -> Result<()> {
        Err("tonbo does not scan backwards".into())
    }

    fn sync(&self) -> Result<()> {
        for entry in fs::read_dir(self.directory.join("wal"))? {
            File::open(entry?.path())?.sync_all()?;
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Err("tonbo does not flush when it is told to".into())
    }

    fn settle(&self) -> Result<()> {
        let tables = |version: Option<Version>| version.map(|version| (version.timestamp, version.sst_bytes));
        let (mut last, mut idle) = (tables(self.version()?), 0);
        while idle < IDLE_LOOKS {
            thread::sleep(POLL);
            let now = tables(self.version()?);
            idle = if now == last { idle + 1 } else { 0 };
            last = now;
        }
        Ok(())
    }
}
