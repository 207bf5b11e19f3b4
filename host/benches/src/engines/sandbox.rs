//! Duramen in a WebAssembly sandbox.

use std::ops::Bound::{Excluded, Included, Unbounded};
use std::path::PathBuf;

use duramen::api::{PAGE_BYTES_MAX, next_page_bytes};
use duramen::{Database, Durability, KeyspaceId, ScanRange, WriteBatch};
use duramen_host::{Sandbox, SandboxOptions};

use super::native::{durability, keyspace_options, options, run_count, runs, settle, written};
use super::{Engine, Run, Setup, Show, Written};
use crate::Result;

struct Sandboxed {
    sandbox: Sandbox,
    keyspace: KeyspaceId,
    directory: PathBuf,
    durability: Durability,
}

/// Opens a database in a sandbox with the memory that its cache and its write
/// buffer need.
pub fn open(setup: &Setup) -> Result<Box<dyn Engine>> {
    if setup.ttl.is_some() {
        return Err("the sandbox has a clock of its own".into());
    }
    let engine = options(setup)?;
    let memory = (4 * engine.cache_bytes).max(16 * engine.memtable_bytes).clamp(256 << 20, 4 << 30);
    let options = SandboxOptions { engine, memory_bytes_max: memory as u64, ..SandboxOptions::default() };
    let sandbox = Sandbox::open(&setup.directory, options)?;
    let keyspace = sandbox.create_keyspace_with("bench", &keyspace_options(setup))?;
    let (directory, durability) = (setup.directory.clone(), durability(setup));
    Ok(Box::new(Sandboxed { sandbox, keyspace, directory, durability }))
}

impl Sandboxed {
    /// Shows the pairs of `range`, `few` of them at most, until told to stop.
    fn walk(&self, range: &ScanRange, few: Option<usize>, show: Show<'_>) -> Result<()> {
        let mut scan = self.sandbox.scan(self.keyspace, range, None)?;
        let (mut read, mut left) = (0, few.unwrap_or(usize::MAX));
        while left > 0 {
            let bytes = if few.is_some() { PAGE_BYTES_MAX } else { next_page_bytes(read) };
            let page = scan.next_page(bytes, left)?;
            if page.is_empty() {
                return Ok(());
            }
            for pair in page.pairs_borrowed() {
                let (key, value) = pair?;
                left -= 1;
                if !show(key, value) {
                    return Ok(());
                }
            }
            read += page.0.len();
        }
        Ok(())
    }
}

impl Engine for Sandboxed {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.sandbox.put(self.keyspace, key, value, self.durability)?)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        Ok(self.sandbox.delete(self.keyspace, key, self.durability)?)
    }

    fn batch(&self, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut batch = WriteBatch::new();
        for (key, value) in pairs {
            batch.put(self.keyspace, key, value);
        }
        Ok(self.sandbox.write(batch, self.durability)?)
    }

    fn get(&self, key: &[u8], show: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value = self.sandbox.get(self.keyspace, key, None)?;
        Ok(value.inspect(|value| show(value)).is_some())
    }

    fn multi_get(&self, keys: &[&[u8]], show: &mut dyn FnMut(usize, &[u8])) -> Result<()> {
        for (index, value) in self.sandbox.multi_get(self.keyspace, keys, None)?.iter().enumerate() {
            value.iter().for_each(|value| show(index, value));
        }
        Ok(())
    }

    fn scan(&self, start: &[u8], end: Option<&[u8]>, show: Show<'_>) -> Result<()> {
        let end = end.map_or(Unbounded, |end| Excluded(end.to_vec()));
        self.walk(&ScanRange { start: Included(start.to_vec()), end, reverse: false }, None, show)
    }

    fn scan_few(&self, start: &[u8], pairs_max: usize, show: Show<'_>) -> Result<()> {
        let range = ScanRange { start: Included(start.to_vec()), end: Unbounded, reverse: false };
        self.walk(&range, Some(pairs_max), show)
    }

    fn scan_back(&self, show: Show<'_>) -> Result<()> {
        self.walk(&ScanRange::all().reversed(), None, show)
    }

    fn sync(&self) -> Result<()> {
        Ok(self.sandbox.sync()?)
    }

    fn flush(&self) -> Result<()> {
        Ok(self.sandbox.flush()?)
    }

    fn compact(&self) -> Result<()> {
        Ok(self.sandbox.compact()?)
    }

    fn settle(&self) -> Result<()> {
        Ok(settle(&self.sandbox)?)
    }

    fn written(&self) -> Result<Option<Written>> {
        Ok(Some(written(&self.sandbox)?))
    }

    fn run_count(&self) -> Result<Option<usize>> {
        Ok(Some(run_count(&self.sandbox)?))
    }

    fn runs(&self) -> Result<Option<Vec<Run>>> {
        Ok(Some(runs(&self.directory)?))
    }
}
