//! A directory of a storage as a storage of its own.
//!
//! Its locks hold nothing: whoever uses it holds that of the whole.

use std::sync::Arc;

use crate::error::Result;
use crate::storage::{AppendFile, DirSync, Lock, ReadFile, Storage, SyncFile};

/// What lies in one directory of another storage.
#[derive(Clone, Debug)]
pub(crate) struct Within {
    whole: Arc<dyn Storage>,
    dir: String,
}

impl Within {
    /// The directory `dir` of `whole`, which need not exist yet.
    pub fn new(whole: Arc<dyn Storage>, dir: String) -> Self {
        Within { whole, dir }
    }

    fn path(&self, path: &str) -> String {
        if path.is_empty() { self.dir.clone() } else { format!("{}/{path}", self.dir) }
    }
}

#[derive(Debug)]
struct NoLock;

impl Lock for NoLock {}

impl Storage for Within {
    fn open(&self, path: &str) -> Result<Arc<dyn ReadFile>> {
        self.whole.open(&self.path(path))
    }

    fn create(&self, path: &str) -> Result<Box<dyn AppendFile>> {
        self.whole.create(&self.path(path))
    }

    fn open_to_sync(&self, path: &str) -> Result<Box<dyn SyncFile>> {
        self.whole.open_to_sync(&self.path(path))
    }

    fn overwrite(&self, path: &str, offset: u64, bytes: &[u8]) -> Result<()> {
        self.whole.overwrite(&self.path(path), offset, bytes)
    }

    fn sync(&self, path: &str) -> Result<()> {
        self.whole.sync(&self.path(path))
    }

    fn create_dir(&self, path: &str) -> Result<()> {
        self.whole.create_dir(&self.path(path))
    }

    fn remove(&self, path: &str) -> Result<()> {
        self.whole.remove(&self.path(path))
    }

    fn space_left(&self) -> Result<Option<u64>> {
        self.whole.space_left()
    }

    fn list(&self, path: &str) -> Result<Vec<String>> {
        self.whole.list(&self.path(path))
    }

    fn sync_dir(&self, path: &str) -> Result<DirSync> {
        self.whole.sync_dir(&self.path(path))
    }

    fn lock(&self) -> Result<Box<dyn Lock>> {
        Ok(Box::new(NoLock))
    }

    fn lock_shared(&self) -> Result<Box<dyn Lock>> {
        Ok(Box::new(NoLock))
    }

    fn describe(&self) -> String {
        format!("{}/{}", self.whole.describe(), self.dir)
    }

    #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
    fn locate(&self, path: &str) -> Option<(&super::fs::FsStorage, String)> {
        self.whole.locate(&self.path(path))
    }
}
