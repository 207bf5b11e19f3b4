//! redb: a copy-on-write B-tree, a transaction for every commit and every read.
//!
//! Without a sync, a commit has `Durability::None`: redb keeps it in memory, where a
//! log-structured engine has handed it to the system. No compression, no filters.

use redb::{Builder, Database, Durability, ReadableDatabase, TableDefinition};

use super::{Engine, Setup, Show};
use crate::Result;

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("bench");

struct Redb {
    db: Database,
    durability: Durability,
}

/// Opens a database.
pub fn open(setup: &Setup) -> Result<Box<dyn Engine>> {
    if setup.ttl.is_some() {
        return Err("redb knows no simulated clock".into());
    }
    std::fs::create_dir_all(&setup.directory)?;
    // One budget: pages that are written and pages that are kept for reads.
    let mut builder = Builder::new();
    builder.set_cache_size(setup.cache_bytes + setup.write_buffer_bytes);
    let db = builder.create(setup.directory.join("data.redb"))?;
    let durability = if setup.synced { Durability::Immediate } else { Durability::None };
    let engine = Redb { db, durability };
    engine.write(durability, |_| Ok(()))?;
    Ok(Box::new(engine))
}

type Table<'a> = redb::Table<'a, &'static [u8], &'static [u8]>;

impl Redb {
    fn write(&self, durability: Durability, change: impl FnOnce(&mut Table<'_>) -> Result<()>) -> Result<()> {
        let mut transaction = self.db.begin_write()?;
        transaction.set_durability(durability)?;
        change(&mut transaction.open_table(TABLE)?)?;
        Ok(transaction.commit()?)
    }

    fn read<T>(
        &self,
        look: impl FnOnce(&redb::ReadOnlyTable<&'static [u8], &'static [u8]>) -> Result<T>,
    ) -> Result<T> {
        look(&self.db.begin_read()?.open_table(TABLE)?)
    }
}

impl Engine for Redb {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.write(self.durability, |table| {
            table.insert(key, value)?;
            Ok(())
        })
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.write(self.durability, |table| {
            table.remove(key)?;
            Ok(())
        })
    }

    fn batch(&self, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        self.write(self.durability, |table| {
            for (key, value) in pairs {
                table.insert(key.as_slice(), value.as_slice())?;
            }
            Ok(())
        })
    }

    fn get(&self, key: &[u8], show: &mut dyn FnMut(&[u8])) -> Result<bool> {
        self.read(|table| {
            let value = table.get(key)?;
            Ok(value.inspect(|value| show(value.value())).is_some())
        })
    }

    fn multi_get(&self, keys: &[&[u8]], show: &mut dyn FnMut(usize, &[u8])) -> Result<()> {
        self.read(|table| {
            for (index, key) in keys.iter().enumerate() {
                table.get(*key)?.iter().for_each(|value| show(index, value.value()));
            }
            Ok(())
        })
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, show: Show<'_>) -> Result<()> {
        self.read(|table| {
            let rows = match end {
                Some(end) => table.range::<&[u8]>(start..end)?,
                None => table.range::<&[u8]>(start..)?,
            };
            for row in rows {
                let (key, value) = row?;
                if !show(key.value(), value.value()) {
                    break;
                }
            }
            Ok(())
        })
    }

    fn scan_back(&self, show: Show<'_>) -> Result<()> {
        self.read(|table| {
            for row in table.range::<&[u8]>(..)?.rev() {
                let (key, value) = row?;
                if !show(key.value(), value.value()) {
                    break;
                }
            }
            Ok(())
        })
    }

    fn sync(&self) -> Result<()> {
        // A durable commit takes those before it along.
        self.write(Durability::Immediate, |_| Ok(()))
    }

    fn flush(&self) -> Result<()> {
        self.sync()
    }

    fn settle(&self) -> Result<()> {
        self.sync()
    }
}
