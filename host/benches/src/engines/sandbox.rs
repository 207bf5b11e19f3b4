//! Duramen in a WebAssembly sandbox.

use std::path::PathBuf;

use duramen::{Database, Durability, KeyspaceId, ScanRange, WriteBatch};
use duramen_host::{Sandbox, SandboxOptions};

use super::native::{keyspace_options, options, run_count, runs, settle, written};
use super::{Engine, Run, Setup, Written};
use crate::Result;

/// Bytes of the first page of a scan, which may be the only one; each is four
/// times as long as the one before.
const FIRST_PAGE_BYTES: usize = 1 << 10;

/// Bytes of the longest page.
const PAGE_BYTES_MAX: usize = 64 << 10;

struct Sandboxed {
    sandbox: Sandbox,
    keyspace: KeyspaceId,
    directory: PathBuf,
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
    Ok(Box::new(Sandboxed { sandbox, keyspace, directory: setup.directory.clone() }))
}

impl Engine for Sandboxed {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.sandbox.put(self.keyspace, key, value, Durability::Buffered)?)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        Ok(self.sandbox.delete(self.keyspace, key, Durability::Buffered)?)
    }

    fn batch(&self, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut batch = WriteBatch::new();
        for (key, value) in pairs {
            batch.put(self.keyspace, key, value);
        }
        Ok(self.sandbox.write(batch, Durability::Buffered)?)
    }

    fn get(&self, key: &[u8], show: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value = self.sandbox.get(self.keyspace, key, None)?;
        Ok(value.inspect(|value| show(value)).is_some())
    }

    fn scan(
        &self,
        start: &[u8],
        end: Option<&[u8]>,
        show: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<()> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let end = end.map_or(Unbounded, |end| Excluded(end.to_vec()));
        let range = ScanRange { start: Included(start.to_vec()), end, reverse: false };
        let mut scan = self.sandbox.scan(self.keyspace, &range, None)?;
        let mut page_bytes = FIRST_PAGE_BYTES;
        loop {
            let page = scan.next_page(page_bytes)?;
            if page.is_empty() {
                return Ok(());
            }
            for pair in page.pairs() {
                let (key, value) = pair?;
                if !show(&key, &value) {
                    return Ok(());
                }
            }
            page_bytes = (4 * page_bytes).min(PAGE_BYTES_MAX);
        }
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

    fn written(&self) -> Result<Written> {
        Ok(written(&self.sandbox)?)
    }

    fn run_count(&self) -> Result<usize> {
        Ok(run_count(&self.sandbox)?)
    }

    fn runs(&self) -> Result<Vec<Run>> {
        runs(&self.directory)
    }
}
