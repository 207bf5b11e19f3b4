//! fjall: levelled compaction, LZ4 on all levels.

use std::thread;
use std::time::Duration;

use fjall::config::{BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry};
use fjall::{CompressionType, Database, Guard, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};

use super::{Engine, Setup, Show};
use crate::Result;

/// Bits of a filter for each key.
const FILTER_BITS: f32 = 10.0;

/// Waits this long before it looks again whether background work is done.
const POLL: Duration = Duration::from_millis(5);

/// It is settled once this many looks in a row find no background work: what is due
/// is not told, only what runs.
const IDLE_LOOKS: u32 = 20;

struct Fjall {
    db: Database,
    keyspace: Keyspace,
    /// What a commit does to the journal: `insert` hands it to the system by itself.
    synced: bool,
}

/// Opens a database.
pub fn open(setup: &Setup) -> Result<Box<dyn Engine>> {
    if setup.ttl.is_some() || !setup.automatic {
        return Err("fjall has neither a simulated clock nor compactions on demand alone".into());
    }
    let db = Database::builder(&setup.directory).cache_size(setup.cache_bytes as u64).open()?;
    let filter = FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(FILTER_BITS));
    let keyspace = db.keyspace("bench", || {
        KeyspaceCreateOptions::default()
            .max_memtable_size(setup.write_buffer_bytes as u64)
            .filter_policy(FilterPolicy::all(filter))
            .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
    })?;
    Ok(Box::new(Fjall { db, keyspace, synced: setup.synced }))
}

impl Fjall {
    fn committed(&self) -> Result<()> {
        if self.synced { self.sync() } else { Ok(()) }
    }
}

impl Engine for Fjall {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.keyspace.insert(key, value)?;
        self.committed()
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.keyspace.remove(key)?;
        self.committed()
    }

    fn batch(&self, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mode = if self.synced { PersistMode::SyncData } else { PersistMode::Buffer };
        let mut batch = self.db.batch().durability(Some(mode));
        for (key, value) in pairs {
            batch.insert(&self.keyspace, key.as_slice(), value.as_slice());
        }
        Ok(batch.commit()?)
    }

    fn get(&self, key: &[u8], show: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value = self.keyspace.get(key)?;
        Ok(value.inspect(|value| show(value)).is_some())
    }

    fn multi_get(&self, keys: &[&[u8]], show: &mut dyn FnMut(usize, &[u8])) -> Result<()> {
        let snapshot = self.db.snapshot();
        for (index, key) in keys.iter().enumerate() {
            snapshot.get(&self.keyspace, key)?.iter().for_each(|value| show(index, value));
        }
        Ok(())
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, show: Show<'_>) -> Result<()> {
        match end {
            Some(end) => walk(self.keyspace.range(start..end), show),
            None => walk(self.keyspace.range(start..), show),
        }
    }

    fn scan_back(&self, show: Show<'_>) -> Result<()> {
        walk(self.keyspace.iter().rev(), show)
    }

    fn sync(&self) -> Result<()> {
        Ok(self.db.persist(PersistMode::SyncData)?)
    }

    fn flush(&self) -> Result<()> {
        Ok(self.keyspace.rotate_memtable_and_wait()?)
    }

    fn settle(&self) -> Result<()> {
        self.flush()?;
        let mut idle = 0;
        while idle < IDLE_LOOKS {
            thread::sleep(POLL);
            let busy = self.db.outstanding_flushes() + self.db.active_compactions() > 0;
            idle = if busy { 0 } else { idle + 1 };
        }
        Ok(())
    }
}

fn walk(rows: impl Iterator<Item = Guard>, show: Show<'_>) -> Result<()> {
    for row in rows {
        let (key, value) = row.into_inner()?;
        if !show(&key, &value) {
            break;
        }
    }
    Ok(())
}
