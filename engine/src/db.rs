//! TEMPORARY in-memory stand-in so that hosts can be built in parallel; the real
//! engine replaces this file.
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::api::{Database, Page, PageBuilder, Progress, Scan, ScanRange, SnapshotId};
use crate::batch::{WriteBatch, decode};
use crate::error::{Error, Result};
use crate::key::{KeyspaceId, ValueKind};
use crate::options::{Budget, Durability, Options};
use crate::stats::{KeyspaceStats, RunStats, Stats, VerifyReport};
use crate::storage::Storage;

type Map = BTreeMap<(KeyspaceId, Vec<u8>), Bytes>;

#[derive(Default)]
struct State {
    names: Vec<String>,
    map: Map,
    snapshots: BTreeMap<u64, Map>,
    next: u64,
}

/// A database.
#[derive(Clone)]
pub struct Db {
    state: Arc<Mutex<State>>,
    options: Options,
}

impl Db {
    /// Opens a directory.
    pub fn open(_path: impl AsRef<Path>, options: Options) -> Result<Db> {
        Ok(Db { state: Arc::default(), options })
    }
    /// Opens over any storage.
    pub fn open_with(_storage: Arc<dyn Storage>, options: Options) -> Result<Db> {
        Ok(Db { state: Arc::default(), options })
    }
    fn with<R>(&self, snapshot: Option<SnapshotId>, f: impl FnOnce(&Map) -> R) -> Result<R> {
        let state = self.state.lock().map_err(|_| Error::invalid("poisoned"))?;
        match snapshot {
            None => Ok(f(&state.map)),
            Some(id) => state.snapshots.get(&id.0).map(f).ok_or_else(|| Error::invalid("no such snapshot")),
        }
    }
}

struct Rows(std::vec::IntoIter<(Vec<u8>, Bytes)>);
impl Scan for Rows {
    fn next_page(&mut self, bytes_max: usize) -> Result<Page> {
        let mut page = PageBuilder::default();
        while page.is_empty() || page.len() < bytes_max {
            let Some((k, v)) = self.0.next() else { break };
            page.push(&k, &v);
        }
        Ok(page.finish())
    }
}

impl Database for Db {
    fn create_keyspace(&self, name: &str) -> Result<KeyspaceId> {
        if let Some(id) = self.find_keyspace(name)? {
            return Ok(id);
        }
        let mut state = self.state.lock().map_err(|_| Error::invalid("poisoned"))?;
        state.names.push(name.to_owned());
        Ok(KeyspaceId(state.names.len() as u32))
    }
    fn find_keyspace(&self, name: &str) -> Result<Option<KeyspaceId>> {
        Ok(self.keyspaces()?.into_iter().find(|k| k.0 == name).map(|k| k.1))
    }
    fn keyspaces(&self) -> Result<Vec<(String, KeyspaceId)>> {
        let state = self.state.lock().map_err(|_| Error::invalid("poisoned"))?;
        Ok(state.names.iter().enumerate().map(|(i, n)| (n.clone(), KeyspaceId(i as u32 + 1))).collect())
    }
    fn get(&self, keyspace: KeyspaceId, key: &[u8], snapshot: Option<SnapshotId>) -> Result<Option<Bytes>> {
        self.with(snapshot, |map| map.get(&(keyspace, key.to_vec())).cloned())
    }
    fn multi_get(
        &self,
        keyspace: KeyspaceId,
        keys: &[&[u8]],
        snapshot: Option<SnapshotId>,
    ) -> Result<Vec<Option<Bytes>>> {
        keys.iter().map(|key| self.get(keyspace, key, snapshot)).collect()
    }
    fn write(&self, batch: WriteBatch, _durability: Durability) -> Result<()> {
        batch.check(self.options.batch_limits())?;
        let encoded = Bytes::from(batch.into_encoded());
        let mut state = self.state.lock().map_err(|_| Error::invalid("poisoned"))?;
        for op in decode(&encoded) {
            let op = op.map_err(|e| Error::invalid(e.what))?;
            let (key, value) = op.slices(&encoded);
            match op.kind {
                ValueKind::Put => state.map.insert((op.keyspace, key.to_vec()), value),
                _ => state.map.remove(&(op.keyspace, key.to_vec())),
            };
        }
        Ok(())
    }
    fn snapshot(&self) -> Result<SnapshotId> {
        let mut state = self.state.lock().map_err(|_| Error::invalid("poisoned"))?;
        state.next += 1;
        let (id, map) = (state.next, state.map.clone());
        state.snapshots.insert(id, map);
        Ok(SnapshotId(id))
    }
    fn release(&self, snapshot: SnapshotId) -> Result<()> {
        let mut state = self.state.lock().map_err(|_| Error::invalid("poisoned"))?;
        state.snapshots.remove(&snapshot.0).map(drop).ok_or_else(|| Error::invalid("no such snapshot"))
    }
    fn scan(
        &self,
        keyspace: KeyspaceId,
        range: &ScanRange,
        snapshot: Option<SnapshotId>,
    ) -> Result<Box<dyn Scan>> {
        use std::ops::RangeBounds;
        let bounds = (range.start.clone(), range.end.clone());
        let mut rows: Vec<_> = self.with(snapshot, |map| {
            map.iter()
                .filter(|((ks, k), _)| *ks == keyspace && bounds.contains(k))
                .map(|((_, k), v)| (k.clone(), v.clone()))
                .collect()
        })?;
        if range.reverse {
            rows.reverse();
        }
        Ok(Box::new(Rows(rows.into_iter())))
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
    fn compact(&self) -> Result<()> {
        Ok(())
    }
    fn sync(&self) -> Result<()> {
        Ok(())
    }
    fn verify(&self) -> Result<VerifyReport> {
        Ok(VerifyReport::default())
    }
    fn stats(&self) -> Result<Stats> {
        let keyspaces = self
            .keyspaces()?
            .into_iter()
            .map(|(name, id)| KeyspaceStats {
                id,
                name,
                runs: vec![RunStats { level: 1, files: 2, bytes: 12345678, entries: 1000, tombstones: 3 }],
                ..Default::default()
            })
            .collect();
        Ok(Stats { keyspaces, ..Default::default() })
    }
    fn maintain(&self, _budget: Budget) -> Result<Progress> {
        Ok(Progress::Done)
    }
    fn close(&self) -> Result<()> {
        Ok(())
    }
}
