//! SQLite: a B-tree with a write-ahead log, one writer beside readers.
//!
//! Without a sync for each commit, `synchronous` is NORMAL, which syncs at checkpoints
//! only; with one it is FULL. The log is checkpointed when it is as long as the write
//! buffer of the others. No compression, no filters.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, Row, params};

use super::{Engine, Setup, Show};
use crate::Result;

/// SQLite's default, in bytes.
const PAGE_BYTES: usize = 4096;

struct Sqlite {
    writer: Mutex<Connection>,
    /// Connections that no reader uses now: each reading thread takes one.
    readers: Mutex<Vec<Connection>>,
    setup: Setup,
}

/// Opens a database.
pub fn open(setup: &Setup) -> Result<Box<dyn Engine>> {
    if setup.ttl.is_some() {
        return Err("SQLite knows no simulated clock".into());
    }
    std::fs::create_dir_all(&setup.directory)?;
    let writer = connect(setup)?;
    writer.execute_batch("CREATE TABLE IF NOT EXISTS bench (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID")?;
    Ok(Box::new(Sqlite { writer: Mutex::new(writer), readers: Mutex::default(), setup: setup.clone() }))
}

fn connect(setup: &Setup) -> Result<Connection> {
    let connection = Connection::open(setup.directory.join("data.sqlite"))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", if setup.synced { "FULL" } else { "NORMAL" })?;
    connection.pragma_update(None, "wal_autocheckpoint", (setup.write_buffer_bytes / PAGE_BYTES) as i64)?;
    // Negative: in KiB.
    connection.pragma_update(None, "cache_size", -((setup.cache_bytes >> 10) as i64))?;
    Ok(connection)
}

impl Sqlite {
    fn writer(&self) -> MutexGuard<'_, Connection> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, look: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let pool = || self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = pool().pop();
        let connection = idle.map_or_else(|| connect(&self.setup), Ok)?;
        let outcome = look(&connection);
        pool().push(connection);
        outcome
    }

    fn walk(&self, sql: &str, bounds: &[&[u8]], show: Show<'_>) -> Result<()> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query(rusqlite::params_from_iter(bounds))?;
            while let Some(row) = rows.next()?
                && show(blob(row, 0)?, blob(row, 1)?)
            {}
            Ok(())
        })
    }
}

fn blob<'row>(row: &'row Row<'_>, column: usize) -> Result<&'row [u8]> {
    Ok(row.get_ref(column)?.as_blob()?)
}

fn get(connection: &Connection, key: &[u8], show: &mut dyn FnMut(&[u8])) -> Result<bool> {
    let mut statement = connection.prepare_cached("SELECT v FROM bench WHERE k = ?")?;
    let mut rows = statement.query([key])?;
    match rows.next()? {
        Some(row) => show(blob(row, 0)?),
        None => return Ok(false),
    }
    Ok(true)
}

fn put(connection: &Connection, key: &[u8], value: &[u8]) -> Result<()> {
    connection.prepare_cached("INSERT OR REPLACE INTO bench VALUES (?, ?)")?.execute(params![key, value])?;
    Ok(())
}

impl Engine for Sqlite {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        put(&self.writer(), key, value)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.writer().prepare_cached("DELETE FROM bench WHERE k = ?")?.execute([key])?;
        Ok(())
    }

    fn batch(&self, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut writer = self.writer();
        let transaction = writer.transaction()?;
        for (key, value) in pairs {
            put(&transaction, key, value)?;
        }
        Ok(transaction.commit()?)
    }

    fn get(&self, key: &[u8], show: &mut dyn FnMut(&[u8])) -> Result<bool> {
        self.read(|connection| get(connection, key, show))
    }

    fn multi_get(&self, keys: &[&[u8]], show: &mut dyn FnMut(usize, &[u8])) -> Result<()> {
        self.read(|connection| {
            let transaction = connection.unchecked_transaction()?;
            for (index, key) in keys.iter().enumerate() {
                get(&transaction, key, &mut |value| show(index, value))?;
            }
            Ok(transaction.commit()?)
        })
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, show: Show<'_>) -> Result<()> {
        match end {
            Some(end) => {
                self.walk("SELECT k, v FROM bench WHERE k >= ? AND k < ? ORDER BY k", &[start, end], show)
            }
            None => self.walk("SELECT k, v FROM bench WHERE k >= ? ORDER BY k", &[start], show),
        }
    }

    fn scan_back(&self, show: Show<'_>) -> Result<()> {
        self.walk("SELECT k, v FROM bench ORDER BY k DESC", &[], show)
    }

    fn sync(&self) -> Result<()> {
        self.flush()
    }

    fn flush(&self) -> Result<()> {
        // Syncs the log, moves its pages into the database file, and syncs that.
        Ok(self.writer().query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?)
    }

    fn settle(&self) -> Result<()> {
        Ok(self.writer().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
    }
}
