//! Duramen, linked into this program.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use duramen::options::Compression;
use duramen::storage::fs::FsStorage;
use duramen::{
    Background, Budget, Database, Db, Durability, Error, Keyspace, KeyspaceOptions, Options, Progress,
    manifest,
};

use super::{Engine, File, Run, Setup, Show, Written};
use crate::Result;

struct Native {
    db: Db,
    keyspace: Keyspace,
    directory: PathBuf,
    durability: Durability,
}

/// Opens a database.
pub fn open(setup: &Setup) -> Result<Box<dyn Engine>> {
    let db = Db::open(&setup.directory, options(setup)?)?;
    let keyspace = db.keyspace_with("bench", keyspace_options(setup))?;
    let (directory, durability) = (setup.directory.clone(), durability(setup));
    Ok(Box::new(Native { db, keyspace, directory, durability }))
}

/// How durable each commit is.
pub fn durability(setup: &Setup) -> Durability {
    if setup.synced { Durability::Sync } else { Durability::Buffered }
}

/// The options of Duramen, native or not.
pub fn options(setup: &Setup) -> Result<Options> {
    let mut options = Options {
        memtable_bytes: setup.write_buffer_bytes,
        cache_bytes: setup.cache_bytes,
        durability: durability(setup),
        ..Options::default()
    };
    if !setup.automatic {
        // Nothing is done until the benchmark asks for it: a commit would pay for what is
        // due, and with the longest pile that there is, nothing is.
        options.background = Background::Inline;
        options.compaction = "T64".parse()?;
    }
    if let Some((_, clock)) = &setup.ttl {
        options.environment = Arc::clone(clock) as _;
    }
    for option in &setup.options {
        set(&mut options, option)?;
    }
    Ok(options)
}

/// Carries out `--option name=value`.
fn set(options: &mut Options, option: &str) -> Result<()> {
    let (name, value) = option.split_once('=').ok_or("an option is NAME=VALUE")?;
    let number = |what: &str| value.parse::<usize>().map_err(|_| format!("{name} is {what}, not {value}"));
    let bytes = || number("a number of bytes");
    match name {
        "memtable_bytes" => options.memtable_bytes = bytes()?,
        "cache_bytes" => options.cache_bytes = bytes()?,
        "compaction_threads" => options.compaction_threads = number("a number of threads")?,
        "target_file_bytes" => options.target_file_bytes = bytes()? as u64,
        "wal_bytes_max" => options.wal_bytes_max = Some(bytes()? as u64),
        "compaction" => options.compaction = value.parse()?,
        "compression" => {
            options.compression = match value {
                "none" => Compression::None,
                "snappy" => Compression::Snappy,
                _ => return Err(format!("compression is none or snappy, not {value}").into()),
            }
        }
        _ => {
            let known = "memtable_bytes, cache_bytes, target_file_bytes, wal_bytes_max, compaction, \
                 compaction_threads, compression";
            return Err(format!("no such option: {name}; there are {known}").into());
        }
    }
    Ok(())
}

/// The options of the one keyspace.
pub fn keyspace_options(setup: &Setup) -> KeyspaceOptions {
    KeyspaceOptions { ttl_ms: setup.ttl.as_ref().map(|(ttl_ms, _)| *ttl_ms), ..KeyspaceOptions::default() }
}

/// Flushes and does all background work, together with whoever is at it.
pub fn settle(db: &dyn Database) -> Result<(), Error> {
    db.flush()?;
    while db.maintain(Budget::bytes(64 << 20))? == Progress::More {}
    Ok(())
}

/// What the counters say.
pub fn written(db: &dyn Database) -> Result<Written, Error> {
    let stats = db.stats()?;
    Ok(Written { flush_bytes: stats.flush_bytes, compaction_bytes: stats.compaction_bytes_written })
}

/// The number of sorted runs.
pub fn run_count(db: &dyn Database) -> Result<usize, Error> {
    Ok(db.stats()?.keyspaces.iter().map(|keyspace| keyspace.runs.len()).sum())
}

/// The runs of a database, by its manifest.
pub fn runs(directory: &Path) -> Result<Vec<Run>> {
    let loaded = manifest::load(&FsStorage::new(directory))?.ok_or("there is no database")?;
    let mut runs: BTreeMap<(u32, u64), Run> = BTreeMap::new();
    for table in loaded.state.keyspaces.values().flat_map(|keyspace| keyspace.tables.values()) {
        let meta = &table.meta;
        let file = File { key_min: meta.key_min.clone(), key_max: meta.key_max.clone(), bytes: meta.bytes };
        runs.entry((table.level, table.run)).or_default().files.push(file);
    }
    let mut runs: Vec<Run> = runs.into_values().collect();
    runs.iter_mut().for_each(|run| run.files.sort_by(|a, b| a.key_min.cmp(&b.key_min)));
    Ok(runs)
}

impl Engine for Native {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.keyspace.put(key, value)?)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        Ok(self.keyspace.delete(key)?)
    }

    fn batch(&self, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut batch = self.db.batch();
        for (key, value) in pairs {
            batch.put(&self.keyspace, key, value);
        }
        Ok(batch.commit(self.durability)?)
    }

    fn get(&self, key: &[u8], show: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value = self.keyspace.get(key)?;
        Ok(value.inspect(|value| show(value)).is_some())
    }

    fn multi_get(&self, keys: &[&[u8]], show: &mut dyn FnMut(usize, &[u8])) -> Result<()> {
        for (index, value) in self.keyspace.multi_get(keys)?.iter().enumerate() {
            value.iter().for_each(|value| show(index, value));
        }
        Ok(())
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, show: Show<'_>) -> Result<()> {
        let mut rows = match end {
            Some(end) => self.keyspace.range(start..end),
            None => self.keyspace.range(start..),
        };
        while let Some((key, value)) = rows.next_borrowed()?
            && show(key, value)
        {}
        Ok(())
    }

    fn scan_back(&self, show: Show<'_>) -> Result<()> {
        let mut rows = self.keyspace.range::<&[u8]>(..);
        while let Some((key, value)) = rows.next_back_borrowed()?
            && show(key, value)
        {}
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(self.db.sync()?)
    }

    fn flush(&self) -> Result<()> {
        Ok(self.db.flush()?)
    }

    fn compact(&self) -> Result<()> {
        Ok(self.db.compact()?)
    }

    fn settle(&self) -> Result<()> {
        Ok(settle(&self.db)?)
    }

    fn written(&self) -> Result<Option<Written>> {
        Ok(Some(written(&self.db)?))
    }

    fn run_count(&self) -> Result<Option<usize>> {
        Ok(Some(run_count(&self.db)?))
    }

    fn runs(&self) -> Result<Option<Vec<Run>>> {
        Ok(Some(runs(&self.directory)?))
    }
}
