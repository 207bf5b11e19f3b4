//! RocksDB: levelled compaction, and its defaults for all that [`Setup`] and the
//! conditions of all engines do not name.

use std::collections::BTreeMap;

use rocksdb::statistics::{StatsLevel, Ticker};
use rocksdb::{
    BlockBasedOptions, BottommostLevelCompaction, Cache, ColumnFamilyDescriptor, CompactOptions, DB,
    DBCompressionType, Options, ReadOptions, WaitForCompactOptions, WriteBatch, WriteOptions,
};

use super::{Engine, File, Run, Setup, Show, Written};
use crate::Result;

/// Bits of a filter for each key.
const FILTER_BITS: f64 = 10.0;

/// The column family that is used where none is named.
const DEFAULT_FAMILY: &str = "default";

struct Rocks {
    db: DB,
    /// Holds the counters.
    options: Options,
    writing: WriteOptions,
}

/// Opens a database.
pub fn open(setup: &Setup) -> Result<Box<dyn Engine>> {
    if setup.ttl.is_some() {
        return Err("RocksDB knows no simulated clock".into());
    }
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(setup.cache_bytes));
    table.set_bloom_filter(FILTER_BITS, false);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(setup.write_buffer_bytes);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_disable_auto_compactions(!setup.automatic);
    options.enable_statistics();
    options.set_statistics_level(StatsLevel::ExceptHistogramOrTimers);
    // Named, so that there is a handle of it for gets of many keys.
    let family = ColumnFamilyDescriptor::new(DEFAULT_FAMILY, options.clone());
    let db = DB::open_cf_descriptors(&options, &setup.directory, [family])?;
    let mut writing = WriteOptions::default();
    writing.set_sync(setup.synced);
    Ok(Box::new(Rocks { db, options, writing }))
}

impl Engine for Rocks {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.db.put_opt(key, value, &self.writing)?)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        Ok(self.db.delete_opt(key, &self.writing)?)
    }

    fn batch(&self, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut batch = WriteBatch::default();
        for (key, value) in pairs {
            batch.put(key, value);
        }
        Ok(self.db.write_opt(batch, &self.writing)?)
    }

    fn get(&self, key: &[u8], show: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value = self.db.get_pinned(key)?;
        Ok(value.inspect(|value| show(value)).is_some())
    }

    fn multi_get(&self, keys: &[&[u8]], show: &mut dyn FnMut(usize, &[u8])) -> Result<()> {
        let family = self.db.cf_handle(DEFAULT_FAMILY).ok_or("the default column family is gone")?;
        for (index, value) in self.db.batched_multi_get_cf(&family, keys, false).into_iter().enumerate() {
            value?.iter().for_each(|value| show(index, value));
        }
        Ok(())
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, show: Show<'_>) -> Result<()> {
        let mut options = ReadOptions::default();
        if let Some(end) = end {
            options.set_iterate_upper_bound(end);
        }
        let mut cursor = self.db.raw_iterator_opt(options);
        cursor.seek(start);
        while let Some((key, value)) = cursor.item()
            && show(key, value)
        {
            cursor.next();
        }
        Ok(cursor.status()?)
    }

    fn scan_back(&self, show: Show<'_>) -> Result<()> {
        let mut cursor = self.db.raw_iterator();
        cursor.seek_to_last();
        while let Some((key, value)) = cursor.item()
            && show(key, value)
        {
            cursor.prev();
        }
        Ok(cursor.status()?)
    }

    fn sync(&self) -> Result<()> {
        Ok(self.db.flush_wal(true)?)
    }

    fn flush(&self) -> Result<()> {
        Ok(self.db.flush()?)
    }

    fn compact(&self) -> Result<()> {
        self.db.flush()?;
        // By default it leaves the last level as it is where nothing is above.
        let mut options = CompactOptions::default();
        options.set_bottommost_level_compaction(BottommostLevelCompaction::ForceOptimized);
        self.db.compact_range_opt(None::<&[u8]>, None::<&[u8]>, &options);
        Ok(())
    }

    fn settle(&self) -> Result<()> {
        self.db.flush()?;
        Ok(self.db.wait_for_compact(&WaitForCompactOptions::default())?)
    }

    fn written(&self) -> Result<Option<Written>> {
        let count = |ticker| self.options.get_ticker_count(ticker);
        Ok(Some(Written {
            flush_bytes: count(Ticker::FlushWriteBytes),
            compaction_bytes: count(Ticker::CompactWriteBytes),
        }))
    }

    fn run_count(&self) -> Result<Option<usize>> {
        Ok(self.runs()?.map(|runs| runs.len()))
    }

    fn runs(&self) -> Result<Option<Vec<Run>>> {
        let mut runs: BTreeMap<(i32, String), Run> = BTreeMap::new();
        for file in self.db.live_files()? {
            // Each file of level 0 is a run.
            let run = (file.level, if file.level == 0 { file.name } else { String::new() });
            let (key_min, key_max) = (file.start_key.unwrap_or_default(), file.end_key.unwrap_or_default());
            runs.entry(run).or_default().files.push(File { key_min, key_max, bytes: file.size as u64 });
        }
        let mut runs: Vec<Run> = runs.into_values().collect();
        runs.iter_mut().for_each(|run| run.files.sort_by(|a, b| a.key_min.cmp(&b.key_min)));
        Ok(Some(runs))
    }
}
