//! LMDB: a copy-on-write B-tree in a memory map; its cache is the system's.
//!
//! Without a sync for each commit it is opened with `MDB_NOSYNC`, which hands the
//! pages of a commit to the system and leaves writing them to it, so that a loss of
//! power may damage the database, as it may not with the others. The flag
//! `MDB_NOMETASYNC` is not used. No compression, no filters.

use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions};

use super::{Engine, Setup, Show};
use crate::Result;

/// Bytes of address space: more than any benchmark writes.
const MAP_BYTES: usize = 256 << 30;

/// Threads that read at once.
const READERS_MAX: u32 = 126;

struct Lmdb {
    env: Option<Env>,
    table: Database<Bytes, Bytes>,
}

/// Opens a database.
pub fn open(setup: &Setup) -> Result<Box<dyn Engine>> {
    if setup.ttl.is_some() {
        return Err("LMDB knows no simulated clock".into());
    }
    std::fs::create_dir_all(&setup.directory)?;
    let env = environment(setup)?;
    let mut transaction = env.write_txn()?;
    let table = env.create_database(&mut transaction, None)?;
    transaction.commit()?;
    Ok(Box::new(Lmdb { env: Some(env), table }))
}

// heed cannot know that nobody else writes the file that is mapped, nor that a loss
// of sync is meant; the directory is this process's alone, and the flag leaves the
// map sound as long as the system runs.
#[allow(unsafe_code, reason = "opening a memory map, and a flag that heed calls unsafe")]
fn environment(setup: &Setup) -> Result<Env> {
    let mut options = EnvOpenOptions::new();
    options.map_size(MAP_BYTES).max_readers(READERS_MAX);
    unsafe {
        if !setup.synced {
            options.flags(EnvFlags::NO_SYNC);
        }
        Ok(options.open(&setup.directory)?)
    }
}

impl Lmdb {
    fn env(&self) -> &Env {
        self.env.as_ref().expect("taken only when it is dropped")
    }
}

impl Drop for Lmdb {
    fn drop(&mut self) {
        // The same directory may be opened again only once this is closed.
        if let Some(env) = self.env.take() {
            env.prepare_for_closing().wait();
        }
    }
}

impl Engine for Lmdb {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let mut transaction = self.env().write_txn()?;
        self.table.put(&mut transaction, key, value)?;
        Ok(transaction.commit()?)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        let mut transaction = self.env().write_txn()?;
        self.table.delete(&mut transaction, key)?;
        Ok(transaction.commit()?)
    }

    fn batch(&self, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut transaction = self.env().write_txn()?;
        for (key, value) in pairs {
            self.table.put(&mut transaction, key, value)?;
        }
        Ok(transaction.commit()?)
    }

    fn get(&self, key: &[u8], show: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let transaction = self.env().read_txn()?;
        let value = self.table.get(&transaction, key)?;
        Ok(value.inspect(|value| show(value)).is_some())
    }

    fn multi_get(&self, keys: &[&[u8]], show: &mut dyn FnMut(usize, &[u8])) -> Result<()> {
        let transaction = self.env().read_txn()?;
        for (index, key) in keys.iter().enumerate() {
            self.table.get(&transaction, key)?.iter().for_each(|value| show(index, value));
        }
        Ok(())
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, show: Show<'_>) -> Result<()> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let transaction = self.env().read_txn()?;
        // LMDB knows no empty key.
        let start = if start.is_empty() { Unbounded } else { Included(start) };
        let range = (start, end.map_or(Unbounded, Excluded));
        for row in self.table.range(&transaction, &range)? {
            let (key, value) = row?;
            if !show(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn scan_back(&self, show: Show<'_>) -> Result<()> {
        let transaction = self.env().read_txn()?;
        for row in self.table.rev_iter(&transaction)? {
            let (key, value) = row?;
            if !show(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(self.env().force_sync()?)
    }

    fn flush(&self) -> Result<()> {
        self.sync()
    }

    fn settle(&self) -> Result<()> {
        self.sync()
    }
}
